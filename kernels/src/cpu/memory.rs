//! Memory written once, by several threads, before it is read.
#![expect(unsafe_code, reason = "output buffers are not zeroed first: that costs a pass over memory")]

use std::cell::Cell;
use std::mem::MaybeUninit;

thread_local! {
    /// See [`with_scratch`].
    static SCRATCH: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Calls `work` with `size` floats of this thread, kept from call to call. What they hold is not defined.
pub(super) fn with_scratch<R>(size: usize, work: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut buffer = SCRATCH.take();
    if buffer.len() < size {
        buffer.resize(size, 0.0);
    }
    let result = work(&mut buffer[..size]);
    SCRATCH.set(buffer);
    result
}

/// Room for `length` floats that nobody has written yet.
pub(super) fn fresh(length: usize) -> Vec<MaybeUninit<f32>> {
    let mut values = Vec::with_capacity(length);
    // SAFETY: the capacity is there, and `MaybeUninit` needs no initialisation.
    unsafe { values.set_len(length) };
    values
}

/// The floats of a buffer that has been filled.
///
/// # Safety
/// Every element has been written.
pub(super) unsafe fn filled(values: Vec<MaybeUninit<f32>>) -> Vec<f32> {
    let mut values = std::mem::ManuallyDrop::new(values);
    // SAFETY: same allocation, same layout; the caller has written all of it.
    unsafe { Vec::from_raw_parts(values.as_mut_ptr().cast(), values.len(), values.capacity()) }
}

/// Copies `from` into fresh memory and gives it back as floats.
pub(super) fn copied<'a>(to: &'a mut [MaybeUninit<f32>], from: &[f32]) -> &'a mut [f32] {
    assert_eq!(to.len(), from.len(), "a copy has the length of its source");
    // SAFETY: equal lengths, different allocations (`to` is borrowed mutably); afterwards all of `to` is written.
    unsafe {
        std::ptr::copy_nonoverlapping(from.as_ptr(), to.as_mut_ptr().cast(), from.len());
        std::slice::from_raw_parts_mut(to.as_mut_ptr().cast(), to.len())
    }
}

/// Makes fresh memory zeros.
pub(super) fn zeroed(values: &mut [MaybeUninit<f32>]) -> &mut [f32] {
    values.fill(MaybeUninit::new(0.0));
    // SAFETY: all of it has just been written.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), values.len()) }
}

/// An address that threads share; each writes a part of its own.
#[derive(Clone, Copy)]
pub(super) struct Shared(*mut f32);

// SAFETY: an address alone; whoever writes through it (in an unsafe block) answers for the parts being disjoint.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// The start of `values`, written or not.
    pub(super) fn new<T: FloatCell>(values: &mut [T]) -> Self {
        Self(values.as_mut_ptr().cast())
    }

    /// The address `offset` floats on.
    ///
    /// # Safety
    /// Within the buffer this was made from.
    pub(super) unsafe fn at(self, offset: usize) -> *mut f32 {
        // SAFETY: the caller stays inside the buffer.
        unsafe { self.0.add(offset) }
    }
}

/// A float, written or not yet.
pub(super) trait FloatCell {}
impl FloatCell for f32 {}
impl FloatCell for MaybeUninit<f32> {}
