//! Output buffers of the CPU kernels, kept for the next step.
//!
//! A training step frees and asks for the same few large buffers again and again. From the system allocator each one
//! comes back as untouched pages, and faulting them in costs about as much as normalising what goes into them (16→16
//! channels at 28 pixels, 160 images: 5.4 ms with fresh pages, 4.7 ms without). So buffers dropped by their last tensor
//! wait here, within a limit, oldest forgotten first.

#![expect(unsafe_code, reason = "burn's storage trait speaks of possibly uninitialised bytes")]

use std::collections::VecDeque;
use std::mem::MaybeUninit;
use std::sync::{Mutex, PoisonError};

use burn_flex::{FlexTensor, Layout};
use burn_std::{AccessError, AccessPolicy, AllocationController, AllocationProperty, Bytes, DType, Shape};

/// Smaller buffers stay with the allocator, which reuses them without faults.
const SMALLEST: usize = 1 << 14;

/// Values kept at most: 256 MiB.
const LIMIT: usize = 64 << 20;

struct Shelf {
    buffers: VecDeque<Vec<f32>>,
    /// Values in all buffers together.
    held: usize,
}

static SHELF: Mutex<Shelf> = Mutex::new(Shelf { buffers: VecDeque::new(), held: 0 });

/// `n` values to be overwritten; what they hold is not defined.
pub(crate) fn take(n: usize) -> Vec<f32> {
    if n >= SMALLEST {
        let mut shelf = SHELF.lock().unwrap_or_else(PoisonError::into_inner);
        // The one dropped last is the likeliest to be in the cache still.
        if let Some(at) = shelf.buffers.iter().rposition(|buffer| buffer.len() == n)
            && let Some(buffer) = shelf.buffers.remove(at)
        {
            shelf.held -= n;
            return buffer;
        }
    }
    vec![0.0; n]
}

fn give_back(buffer: Vec<f32>) {
    let n = buffer.len();
    if !(SMALLEST..=LIMIT).contains(&n) {
        return;
    }
    let mut shelf = SHELF.lock().unwrap_or_else(PoisonError::into_inner);
    shelf.held += n;
    shelf.buffers.push_back(buffer);
    while shelf.held > LIMIT {
        let Some(oldest) = shelf.buffers.pop_front() else { break };
        shelf.held -= oldest.len();
    }
}

/// A tensor of these values.
pub(crate) fn tensor<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> FlexTensor {
    shaped(values, Shape::from(shape))
}

/// A tensor of these values in the shape of another.
pub(crate) fn tensor_like(values: Vec<f32>, like: &FlexTensor) -> FlexTensor {
    shaped(values, like.layout().shape().clone())
}

fn shaped(values: Vec<f32>, shape: Shape) -> FlexTensor {
    assert_eq!(values.len(), shape.num_elements());
    let len = size_of_val(values.as_slice());
    let bytes = if values.len() < SMALLEST {
        Bytes::from_elems(values)
    } else {
        // SAFETY: the controller's memory is exactly these `len` bytes, all of them initialised `f32`s.
        unsafe { Bytes::from_controller(Box::new(Kept { values }), len) }
    };
    FlexTensor::new(bytes, Layout::contiguous(shape), DType::F32)
}

/// A tensor's storage that goes back to the shelf.
struct Kept {
    values: Vec<f32>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        give_back(std::mem::take(&mut self.values));
    }
}

impl AllocationController for Kept {
    fn alloc_align(&self) -> usize {
        align_of::<f32>()
    }

    fn property(&self) -> AllocationProperty {
        AllocationProperty::Other
    }

    unsafe fn memory_mut(&mut self, _policy: AccessPolicy) -> Result<&mut [MaybeUninit<u8>], AccessError> {
        let len = size_of_val(self.values.as_slice());
        // SAFETY: the vector's own memory, borrowed mutably with `self`; the caller writes only initialised bytes
        // (contract of the trait), and any bytes make valid `f32`s.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.values.as_mut_ptr().cast(), len) })
    }

    fn memory(&self, _policy: AccessPolicy) -> Result<&[MaybeUninit<u8>], AccessError> {
        let len = size_of_val(self.values.as_slice());
        // SAFETY: the vector's own memory, borrowed with `self`.
        Ok(unsafe { std::slice::from_raw_parts(self.values.as_ptr().cast(), len) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_tensor_leaves_its_buffer_for_the_next() {
        // A length no other test uses: the shelf is shared.
        let n = SMALLEST + 12_347;
        let mut values = take(n);
        values.fill(3.0);
        let address = values.as_ptr() as usize;
        let tensor = tensor(values, [n]);
        let shared = tensor.clone();
        drop(tensor);
        assert_eq!(shared.as_slice::<f32>().map(|v| v[n - 1]), Some(3.0));
        let other = take(n);
        assert_ne!(other.as_ptr() as usize, address, "still in use");
        drop(shared);
        let again = take(n);
        assert_eq!(again.as_ptr() as usize, address);
    }

    #[test]
    fn a_buffer_can_leave_as_a_vector_and_be_written_in_place() {
        let n = SMALLEST + 1;
        let mut tensor = tensor(vec![1.0; n], [n]);
        tensor.storage_mut::<f32>()[0] = 2.0;
        let values = tensor.into_data().try_to_vec::<f32>().expect("f32");
        assert_eq!((values[0], values[1], values.len()), (2.0, 1.0, n));
    }
}
