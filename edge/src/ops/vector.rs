//! The widest vector instructions of this machine.

use pulp::{Arch, NullaryFnOnce};

/// Does `work` with instructions found at run time. Write it `#[inline(always)] || …` with something borrowed mutably.
pub(crate) fn widest(work: impl FnMut()) {
    Arch::new().dispatch(Work(work));
}

/// A closure is called through `FnOnce` by a function of the compiler's that is inlined nowhere, and so never sees the wider
/// instructions; through `FnMut` it is called itself.
struct Work<F>(F);

impl<F: FnMut()> NullaryFnOnce for Work<F> {
    type Output = ();

    #[inline(always)]
    fn call(mut self) {
        (self.0)();
    }
}
