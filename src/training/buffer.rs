//! The memory of one bucket, wherever gradients live.

use burn::backend::DispatchTensor;
use burn::tensor::{Device, Tensor, TensorData};
use harvest_collectives::{Bucket, HostBucket, Wire};
use harvest_kernels::scaled_into;

use super::plan::Slot;

/// A bucket that is at home. Kept for the life of the run.
#[derive(Debug)]
pub(super) enum Buffer {
    /// In the memory of the host.
    Host(HostBucket),
}

impl Buffer {
    /// Of `length` numbers.
    pub fn new(length: usize, wire: Wire) -> Self {
        Self::Host(HostBucket::new(length, wire))
    }

    /// Contributes `gradient`, of any rank, times `share`.
    pub fn write(&mut self, slot: &Slot, gradient: DispatchTensor, share: f32) {
        match self {
            Self::Host(bucket) => {
                scaled_into(gradient, share, &mut bucket.local[slot.range.clone()]);
                bucket.local[slot.present] = 1.0;
            }
        }
    }

    /// Contributes nothing.
    pub fn skip(&mut self, slot: &Slot) {
        match self {
            Self::Host(bucket) => {
                bucket.local[slot.range.clone()].fill(0.0);
                bucket.local[slot.present] = 0.0;
            }
        }
    }

    /// The sum of what all ranks contributed, if any did.
    pub fn read<const D: usize>(&self, slot: &Slot, shape: [usize; D], device: &Device) -> Option<Tensor<D>> {
        match self {
            Self::Host(bucket) => (bucket.sum[slot.present] > 0.5).then(|| {
                let sum = bucket.sum[slot.range.clone()].to_vec();
                Tensor::from_data(TensorData::new(sum, shape), device)
            }),
        }
    }
}

impl From<Buffer> for Bucket {
    fn from(buffer: Buffer) -> Self {
        match buffer {
            Buffer::Host(bucket) => Self::Host(bucket),
        }
    }
}

impl From<Bucket> for Buffer {
    fn from(bucket: Bucket) -> Self {
        match bucket {
            Bucket::Host(bucket) => Self::Host(bucket),
            _ => unreachable!("a bucket comes back as it went out"),
        }
    }
}
