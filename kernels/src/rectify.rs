//! The rectified linear unit.

use burn::Tensor;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::tensor::activation;
use burn_flex::FlexTensor;
use rayon::prelude::*;

use crate::channel_cpu::gated;
use crate::channel_loops;
use crate::conv_flex::{contiguous, fills_storage, flex_f32, values};
use crate::conv_memory;

/// `max(x, 0)`.
///
/// On the CPU the result takes the place of `x` where nobody else holds it, and the gradient that of the output's.
pub fn relu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if flex_f32(&x) { Tensor::from_dispatch(Dispatch::rectify(x.into_dispatch())) } else { relu_reference(x) }
}

/// [`relu`] in burn's operations.
pub fn relu_reference<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    activation::relu(x)
}

/// The operation as burn's dispatch sees it. Only the CPU backend is listed: [`relu`] sends nothing else here.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait Rectify: Backend {
    fn rectify(x: FloatTensor<Self>) -> FloatTensor<Self>;
}

impl Rectify for Flex {
    fn rectify(x: FlexTensor) -> FlexTensor {
        const PART: usize = 1 << 14;
        let mut x = contiguous(x);
        let whole = fills_storage(&x);
        if let Some(y) = x.try_storage_mut::<f32>().filter(|_| whole) {
            y.par_chunks_mut(PART).for_each(|y| channel_loops::affine_in_place(y, 1.0, 0.0, true));
            return x;
        }
        let from = values(&x);
        let mut y = conv_memory::take(from.len());
        let parts = y.par_chunks_mut(PART).zip(from.par_chunks(PART));
        parts.for_each(|(y, x)| channel_loops::affine(x, 1.0, 0.0, true, y));
        conv_memory::tensor_like(y, &x)
    }
}

#[derive(Debug)]
struct RectifyBackward;

impl Backward<Flex, 1> for RectifyBackward {
    /// The output.
    type State = FlexTensor;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let dy = contiguous(grads.consume::<Flex>(&ops.node));
        if let [Some(node)] = &ops.parents {
            grads.register::<Flex>(node.id, gated(dy, &ops.state));
        }
    }
}

impl<C: CheckpointStrategy> Rectify for Autodiff<Flex, C> {
    fn rectify(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let prepared = RectifyBackward.prepare::<C>([x.node()]).compute_bound().stateful();
        let y = Flex::rectify(x.into_primitive());
        match prepared {
            OpsKind::Tracked(prepared) => prepared.finish(y.clone(), y),
            OpsKind::UnTracked(prepared) => prepared.finish(y),
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use burn::tensor::Distribution;

    use super::*;

    #[test]
    fn agrees_with_burn_exactly() {
        let device = Device::flex().autodiff();
        for n in [1, 2, 15, 16, 17, 40_000] {
            let x = Tensor::<1>::random([n], Distribution::Normal(0.0, 1.0), &device).require_grad();
            let slope = Tensor::<1>::random([n], Distribution::Normal(0.0, 1.0), &device);
            let run = |relu: fn(Tensor<1>) -> Tensor<1>| {
                let y = relu(x.clone());
                let grads = (y.clone() * slope.clone()).sum().backward();
                (y.into_data(), x.grad(&grads).expect("tracked").into_data())
            };
            assert_eq!(run(relu), run(relu_reference));
        }
    }

    #[test]
    fn leaves_an_input_alone_that_is_used_elsewhere() {
        let x = Tensor::<1>::from_data([-1.0, 2.0], &Device::flex());
        let y = relu(x.clone());
        assert_eq!(x.into_data().try_to_vec::<f32>().expect("f32"), [-1.0, 2.0]);
        assert_eq!(y.into_data().try_to_vec::<f32>().expect("f32"), [0.0, 2.0]);
    }
}
