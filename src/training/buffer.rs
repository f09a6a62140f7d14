//! The memory of one bucket, wherever gradients live.

use burn::backend::DispatchTensor;
use burn::tensor::{Device, Tensor, TensorData};
#[cfg(feature = "cuda")]
use harvest_collectives::nccl::DeviceBucket;
use harvest_collectives::{Bucket, HostBucket, Wire};
use harvest_kernels::scaled_into;

use super::crew::Crew;
use super::plan::Slot;

/// A bucket that is at home. Kept for the life of the run.
#[derive(Debug)]
pub(super) enum Buffer {
    /// In the memory of the host.
    Host(HostBucket),
    /// In that of the GPU, where NCCL sums it.
    #[cfg(feature = "cuda")]
    Device(Box<DeviceBucket>),
}

impl Buffer {
    /// Of `length` numbers, the last `flags` of which tell which gradients there are.
    pub fn new(length: usize, flags: usize, wire: Wire, crew: &Crew, device: &Device) -> Self {
        #[cfg(feature = "cuda")]
        if crew.communicator().sums_on_gpus() && !crate::device::is_cpu(device) {
            let share = crew.share() as f32;
            return Self::Device(Box::new(DeviceBucket::new(length, flags, share, wire, device)));
        }
        #[cfg(not(feature = "cuda"))]
        let _ = (flags, crew, device);
        Self::Host(HostBucket::new(length, wire))
    }

    /// Contributes `gradient`, of any rank, times `share`.
    pub fn write(&mut self, slot: &Slot, gradient: DispatchTensor, share: f32) {
        match self {
            Self::Host(bucket) => {
                scaled_into(gradient, share, &mut bucket.local[slot.range.clone()]);
                bucket.local[slot.present] = 1.0;
            }
            #[cfg(feature = "cuda")]
            Self::Device(bucket) => {
                // The number of values matters here, not the rank. The bucket knows the share.
                let flat = Tensor::<1>::from_dispatch(gradient).reshape([slot.range.len()]);
                bucket.write(slot.range.start, flat);
                bucket.tail_mut()[slot.flag] = 1.0;
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
            // What is not written is zero there.
            #[cfg(feature = "cuda")]
            Self::Device(bucket) => bucket.tail_mut()[slot.flag] = 0.0,
        }
    }

    /// The sum of what all ranks contributed, if any did.
    pub fn read<const D: usize>(
        &mut self,
        slot: &Slot,
        shape: [usize; D],
        device: &Device,
    ) -> Option<Tensor<D>> {
        match self {
            Self::Host(bucket) => (bucket.sum[slot.present] > 0.5).then(|| {
                let sum = bucket.sum[slot.range.clone()].to_vec();
                Tensor::from_data(TensorData::new(sum, shape), device)
            }),
            #[cfg(feature = "cuda")]
            Self::Device(bucket) => {
                (bucket.tail_sum()[slot.flag] > 0.5).then(|| bucket.read(slot.range.clone()).reshape(shape))
            }
        }
    }
}

impl From<Buffer> for Bucket {
    fn from(buffer: Buffer) -> Self {
        match buffer {
            Buffer::Host(bucket) => Self::Host(bucket),
            #[cfg(feature = "cuda")]
            Buffer::Device(bucket) => Self::Device(bucket),
        }
    }
}

impl From<Bucket> for Buffer {
    fn from(bucket: Bucket) -> Self {
        match bucket {
            Bucket::Host(bucket) => Self::Host(bucket),
            #[cfg(feature = "cuda")]
            Bucket::Device(bucket) => Self::Device(bucket),
            _ => unreachable!("a bucket comes back as it went out"),
        }
    }
}
