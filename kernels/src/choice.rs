//! Which of its two faces an operation shows.

use std::sync::atomic::{AtomicBool, Ordering};

/// What computes where both could.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kernels {
    /// The fused implementation for the tensor's device, where there is one.
    #[default]
    Fused,
    /// burn's own operations everywhere: slower, to see whether a kernel is at fault.
    Reference,
}

static REFERENCE: AtomicBool = AtomicBool::new(false);

/// Chooses for the whole process, from the next operation on. Numbers differ by rounding.
pub fn choose(kernels: Kernels) {
    REFERENCE.store(kernels == Kernels::Reference, Ordering::Relaxed);
}

/// Whether fused implementations may be used.
pub(crate) fn fused() -> bool {
    !REFERENCE.load(Ordering::Relaxed)
}
