//! Depthwise two-dimensional convolution: every channel with a kernel of its own.

use burn::backend::autodiff::Autodiff;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::{Backend, Dispatch, Flex, backend_extension, tensor::FloatTensor};
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Tensor, module};
use burn_flex::FlexTensor;

use crate::cpu::{self, serves};

/// Convolution of each channel of `x` `[batch, channels, height, width]` with its own `weight` `[channels, 1, kh, kw]`,
/// the same stride and zero padding on both axes, no dilation; `bias`: `[channels]`.
pub fn depthwise_conv2d(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    stride: usize,
    padding: usize,
) -> Tensor<4> {
    let fast = serves(&x)
        && serves(&weight)
        && bias.as_ref().is_none_or(|bias| serves(bias) && bias.dims() == [x.dims()[1]])
        && cpu::depthwise::fits(&x.dims(), &weight.dims(), stride, padding);
    if !fast {
        // Also where the shapes do not fit: burn says what is wrong with them.
        return depthwise_conv2d_reference(x, weight, bias, stride, padding);
    }
    let (x, weight) = (x.into_dispatch(), weight.into_dispatch());
    Tensor::from_dispatch(match bias {
        None => Dispatch::depthwise_forward(x, weight, stride, padding),
        Some(bias) => Dispatch::depthwise_bias_forward(x, weight, bias.into_dispatch(), stride, padding),
    })
}

/// [`depthwise_conv2d`] in burn's operations: a convolution with as many groups as channels.
pub fn depthwise_conv2d_reference(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    stride: usize,
    padding: usize,
) -> Tensor<4> {
    let [_, channels, _, _] = x.dims();
    module::conv2d(x, weight, bias, ConvOptions::new([stride; 2], [padding; 2], [1, 1], channels))
}

/// The operation on the CPU backend and in its graph; other backends never get here.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait DepthwiseOps: Backend {
    /// See [`depthwise_conv2d`].
    fn depthwise_forward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        stride: usize,
        padding: usize,
    ) -> FloatTensor<Self>;
    /// See [`depthwise_conv2d`].
    fn depthwise_bias_forward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        stride: usize,
        padding: usize,
    ) -> FloatTensor<Self>;
}

impl DepthwiseOps for Flex {
    fn depthwise_forward(x: FlexTensor, weight: FlexTensor, stride: usize, padding: usize) -> FlexTensor {
        cpu::depthwise::forward(x, weight, None, [stride, padding])
    }

    fn depthwise_bias_forward(
        x: FlexTensor,
        weight: FlexTensor,
        bias: FlexTensor,
        stride: usize,
        padding: usize,
    ) -> FlexTensor {
        cpu::depthwise::forward(x, weight, Some(bias), [stride, padding])
    }
}

impl<C: CheckpointStrategy> DepthwiseOps for Autodiff<Flex, C> {
    fn depthwise_forward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        stride: usize,
        padding: usize,
    ) -> FloatTensor<Self> {
        let prepared = DepthwiseBackward.prepare::<C>([x.node(), weight.node()]).compute_bound().stateful();
        let (x, weight) = (x.into_primitive(), weight.into_primitive());
        let y = cpu::depthwise::forward(x.clone(), weight.clone(), None, [stride, padding]);
        match prepared {
            OpsKind::Tracked(prepared) => prepared.finish(Kept { x, weight, stride, padding }, y),
            OpsKind::UnTracked(prepared) => prepared.finish(y),
        }
    }

    fn depthwise_bias_forward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        stride: usize,
        padding: usize,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), weight.node(), bias.node()];
        let prepared = DepthwiseBackward.prepare::<C>(nodes).compute_bound().stateful();
        let (x, weight, bias) = (x.into_primitive(), weight.into_primitive(), bias.into_primitive());
        let y = cpu::depthwise::forward(x.clone(), weight.clone(), Some(bias), [stride, padding]);
        match prepared {
            OpsKind::Tracked(prepared) => prepared.finish(Kept { x, weight, stride, padding }, y),
            OpsKind::UnTracked(prepared) => prepared.finish(y),
        }
    }
}

/// What the backward pass needs.
#[derive(Debug, Clone)]
struct Kept {
    x: FlexTensor,
    weight: FlexTensor,
    stride: usize,
    padding: usize,
}

/// The backward step, with (`N` = 3) or without (`N` = 2) a bias.
#[derive(Debug)]
struct DepthwiseBackward;

impl<const N: usize> Backward<Flex, N> for DepthwiseBackward {
    type State = Kept;

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let dy = grads.consume::<Flex>(&ops.node);
        let Kept { x, weight, stride, padding } = ops.state;
        let wanted = std::array::from_fn(|i| ops.parents.get(i).is_some_and(Option::is_some));
        let found = cpu::depthwise::backward(x, weight, dy, [stride, padding], wanted);
        for (parent, gradient) in ops.parents.iter().zip([found.x, found.weight, found.bias]) {
            if let (Some(parent), Some(gradient)) = (parent, gradient) {
                grads.register::<Flex>(parent.id, gradient);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::{assert_close, assert_same_in_all_pools, random, read};
    use burn::tensor::Device;
    use proptest::prelude::*;

    type Convolution = fn(Tensor<4>, Tensor<4>, Option<Tensor<1>>, usize, usize) -> Tensor<4>;

    /// Sizes of a case: `[batch, channels, height, width]`, kernel, stride and padding, and what has a gradient.
    #[derive(Debug, Clone, Copy)]
    struct Case {
        image: [usize; 4],
        kernel: [usize; 2],
        stride: usize,
        padding: usize,
        bias: bool,
        tracked: [bool; 3],
    }

    /// Output and the gradients of what is tracked of image, weight and bias.
    fn run(case: Case, convolution: Convolution) -> Vec<Vec<f32>> {
        let device = Device::flex().autodiff();
        let channels = case.image[1];
        let [kh, kw] = case.kernel;
        let x = random(case.image, 1, &device).set_require_grad(case.tracked[0]);
        let weight = random([channels, 1, kh, kw], 2, &device).set_require_grad(case.tracked[1]);
        let bias = case.bias.then(|| random([channels], 3, &device).set_require_grad(case.tracked[2]));
        let y = convolution(x.clone(), weight.clone(), bias.clone(), case.stride, case.padding);
        let factor = random(y.dims(), 4, &device).require_grad();
        let grads = (y.clone() * factor).sum().backward();
        let gradients = [
            x.grad(&grads).map(read),
            weight.grad(&grads).map(read),
            bias.and_then(|b| b.grad(&grads)).map(read),
        ];
        std::iter::once(read(y.inner())).chain(gradients.into_iter().flatten()).collect()
    }

    fn agrees(case: Case) {
        let (found, expected) = (run(case, depthwise_conv2d), run(case, depthwise_conv2d_reference));
        assert_eq!(found.len(), expected.len());
        for (index, (found, expected)) in found.iter().zip(&expected).enumerate() {
            // Sums of up to a few thousand terms in another order.
            assert_close(&format!("{case:?} {index}"), found, expected, 2e-5);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn depthwise_convolution_equals_its_reference(
            image in [1usize..4, 1usize..5, 1usize..20, 1usize..20],
            kernel in [1usize..6, 1usize..6],
            (stride, padding) in (1usize..5, 0usize..4),
            bias: bool,
            tracked: [bool; 3],
        ) {
            prop_assume!(image[2] + 2 * padding >= kernel[0] && image[3] + 2 * padding >= kernel[1]);
            agrees(Case { image, kernel, stride, padding, bias, tracked });
        }
    }

    #[test]
    fn depthwise_convolution_agrees_on_the_shapes_of_real_networks() {
        for (size, side, stride) in [(28, 3, 1), (29, 3, 2), (14, 5, 1), (14, 5, 2), (9, 7, 1)] {
            let (image, kernel, padding) = ([2, 5, size, size], [side; 2], side / 2);
            agrees(Case { image, kernel, stride, padding, bias: side == 7, tracked: [true; 3] });
        }
    }

    #[test]
    fn depthwise_convolution_does_not_depend_on_the_number_of_threads() {
        let (image, kernel) = ([3, 4, 15, 15], [3, 3]);
        let case = Case { image, kernel, stride: 2, padding: 1, bias: true, tracked: [true; 3] };
        assert_same_in_all_pools(|| run(case, depthwise_conv2d));
    }

    #[test]
    fn depthwise_convolution_reads_views() {
        let device = Device::flex();
        let x = random([2, 8, 9, 3], 1, &device).permute([0, 3, 1, 2]);
        let weight = random([3, 1, 3, 3], 2, &device);
        let found = depthwise_conv2d(x.clone(), weight.clone(), None, 1, 1);
        let expected = depthwise_conv2d_reference(x, weight, None, 1, 1);
        assert_close("views", &read(found), &read(expected), 1e-5);
    }
}
