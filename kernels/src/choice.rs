//! Which of its two faces an operation shows.

use std::sync::atomic::{AtomicBool, Ordering};

use burn::tensor::Tensor;

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

/// Whether a fused implementation of the CPU or of GPUs takes `tensor`.
pub(crate) fn serves<const D: usize>(tensor: &Tensor<D>) -> bool {
    crate::cpu::serves(tensor) || on_gpu(tensor)
}

/// Whether the implementation that takes `first` takes `tensor` as well.
pub(crate) fn serves_beside<const D: usize, const E: usize>(tensor: &Tensor<D>, first: &Tensor<E>) -> bool {
    serves(tensor) && tensor.dtype() == first.dtype() && tensor.device() == first.device()
}

/// Whether the kernels of GPUs take `tensor`.
#[cfg(feature = "cube")]
pub(crate) fn on_gpu<const D: usize>(tensor: &Tensor<D>) -> bool {
    fused() && crate::gpu::serves(tensor)
}

/// Whether the kernels of GPUs take `tensor`: they are not built in.
#[cfg(not(feature = "cube"))]
pub(crate) fn on_gpu<const D: usize>(_tensor: &Tensor<D>) -> bool {
    false
}

/// Whether the kernels of GPUs take `tensor` in `f32` and outside the graph.
#[cfg(feature = "cube")]
pub(crate) fn on_gpu_plain<const D: usize>(tensor: &Tensor<D>) -> bool {
    on_gpu(tensor) && tensor.dtype() == burn::tensor::DType::F32 && !tensor.device().is_autodiff()
}

/// The body of what a graph records nothing for: backward passes have no gradient of their own.
pub(crate) fn first_order_only<T>() -> T {
    unreachable!("gradients of gradients are not recorded")
}
