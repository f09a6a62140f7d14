//! An affine map and what the hidden layer of a perceptron makes of it.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::autodiff::{Autodiff, NodeId};
use burn::backend::{Backend, Dispatch, Flex, backend_extension, tensor::FloatTensor};
use burn::tensor::Tensor;
use burn_flex::FlexTensor;

use crate::cpu::{self, serves};
use crate::products::Arithmetic;
use crate::{Products, gelu, gelu_reference, linear_reference, linear_with};

/// `gelu(x W + b)` in one pass over the rows: `x` is `[.., in]`, `weight` `[in, out]`, `bias` `[out]`.
pub fn linear_gelu<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Tensor<1>,
    products: Products,
) -> Tensor<D> {
    let fits = x.dims()[D - 1] == weight.dims()[0] && bias.dims() == [weight.dims()[1]];
    if !(fits && serves(&x) && serves(&weight) && serves(&bias)) {
        // Also where the shapes do not fit: the product says what is wrong with them.
        return gelu(linear_with(x, weight, Some(bias), products));
    }
    let (x, weight, bias) = (x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch());
    Tensor::from_dispatch(Dispatch::linear_gelu_forward(x, weight, bias, products.arithmetic()))
}

/// [`linear_gelu`] in burn's operations.
pub fn linear_gelu_reference<const D: usize>(x: Tensor<D>, weight: Tensor<2>, bias: Tensor<1>) -> Tensor<D> {
    gelu_reference(linear_reference(x, weight, Some(bias)))
}

/// The operation on the CPU backend and in its graph; other backends never get here.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait LinearGeluOps: Backend {
    /// See [`linear_gelu`].
    fn linear_gelu_forward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        arithmetic: Arithmetic,
    ) -> FloatTensor<Self>;
}

impl LinearGeluOps for Flex {
    fn linear_gelu_forward(
        x: FlexTensor,
        weight: FlexTensor,
        bias: FlexTensor,
        arithmetic: Arithmetic,
    ) -> FlexTensor {
        cpu::linear::forward_gelu(arithmetic, x, weight, bias, false).0
    }
}

impl<C: CheckpointStrategy> LinearGeluOps for Autodiff<Flex, C> {
    fn linear_gelu_forward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        arithmetic: Arithmetic,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), weight.node(), bias.node()];
        let prepared = LinearGeluBackward.prepare::<C>(nodes).compute_bound().stateful();
        let tracked = [x.is_tracked(), weight.is_tracked()];
        match prepared {
            OpsKind::Tracked(mut prep) => {
                // `x` serves the weight's gradient only, the weight only that of `x`.
                let kept_x = tracked[1].then(|| prep.checkpoint(&x));
                let kept_weight = tracked[0].then(|| prep.checkpoint(&weight));
                let (x, weight, bias) = (x.into_primitive(), weight.into_primitive(), bias.into_primitive());
                let (y, hidden) = cpu::linear::forward_gelu(arithmetic, x, weight, bias, true);
                prep.finish(Kept { x: kept_x, weight: kept_weight, hidden, arithmetic }, y)
            }
            OpsKind::UnTracked(prep) => prep.finish(Flex::linear_gelu_forward(
                x.into_primitive(),
                weight.into_primitive(),
                bias.into_primitive(),
                arithmetic,
            )),
        }
    }
}

/// What the backward pass needs.
#[derive(Debug, Clone)]
struct Kept {
    x: Option<NodeId>,
    weight: Option<NodeId>,
    /// `x W + b`
    hidden: Option<FlexTensor>,
    arithmetic: Arithmetic,
}

#[derive(Debug)]
struct LinearGeluBackward;

/// Parents: `x`, weight and bias.
impl Backward<Flex, 3> for LinearGeluBackward {
    type State = Kept;

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let dy = grads.consume::<Flex>(&ops.node);
        let Kept { x, weight, hidden, arithmetic } = ops.state;
        let x = x.map(|x| checkpointer.retrieve_node_output::<FlexTensor>(x));
        let weight = weight.map(|weight| checkpointer.retrieve_node_output::<FlexTensor>(weight));
        let hidden = hidden.expect("kept where gradients are wanted");

        let bias = ops.parents[2].is_some();
        let gradients = cpu::linear::backward_gelu(arithmetic, x, weight, &hidden, dy, bias);
        let gradients = [gradients.x, gradients.weight, gradients.bias];
        for (parent, gradient) in ops.parents.iter().zip(gradients) {
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

    type LinearGelu = fn(Tensor<3>, Tensor<2>, Tensor<1>) -> Tensor<3>;

    fn in_f32(x: Tensor<3>, weight: Tensor<2>, bias: Tensor<1>) -> Tensor<3> {
        linear_gelu(x, weight, bias, Products::F32)
    }

    /// Output and the gradients of what is tracked of `x`, weight and bias.
    fn run(shape: [usize; 3], d_out: usize, tracked: [bool; 3], run: LinearGelu) -> Vec<Vec<f32>> {
        let device = Device::flex().autodiff();
        let [a, b, d_in] = shape;
        let x = random(shape, 1, &device).set_require_grad(tracked[0]);
        let weight = random([d_in, d_out], 2, &device).set_require_grad(tracked[1]);
        let bias = random([d_out], 3, &device).set_require_grad(tracked[2]);
        let y = run(x.clone(), weight.clone(), bias.clone());
        let factor = random([a, b, d_out], 4, &device).require_grad();
        let grads = (y.clone() * factor).sum().backward();
        let gradients =
            [x.grad(&grads).map(read), weight.grad(&grads).map(read), bias.grad(&grads).map(read)];
        std::iter::once(read(y.inner())).chain(gradients.into_iter().flatten()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn linear_with_gelu_equals_its_reference(
            a in 1usize..4,
            b in 1usize..300,
            d_in in 1usize..70,
            d_out in 1usize..70,
            tracked: [bool; 3],
        ) {
            let found = run([a, b, d_in], d_out, tracked, in_f32);
            let expected = run([a, b, d_in], d_out, tracked, linear_gelu_reference);
            prop_assert_eq!(found.len(), expected.len());
            for (index, (found, expected)) in found.iter().zip(&expected).enumerate() {
                assert_close(&format!("number {index}"), found, expected, 2e-5);
            }
        }
    }

    #[test]
    fn few_rows_and_many_columns_equal_the_reference() {
        for rows in [1, 6, 197, 384, 385] {
            for (d_out, tracked) in [(33, [true; 3]), (200, [true; 3]), (200, [false; 3])] {
                let run = |linear_gelu: LinearGelu| run([1, rows, 40], d_out, tracked, linear_gelu);
                for (found, expected) in run(in_f32).iter().zip(&run(linear_gelu_reference)) {
                    assert_close(&format!("{rows} rows, {d_out} columns"), found, expected, 2e-5);
                }
            }
        }
    }

    /// The gradient of the result is written over where nobody else holds it, and only there.
    #[test]
    fn a_gradient_that_others_hold_stays() {
        let device = Device::flex().autodiff();
        let x = random([2, 9, 5], 1, &device).require_grad();
        let (weight, bias) =
            (random([5, 7], 2, &device).require_grad(), random([7], 3, &device).require_grad());
        let run = |linear_gelu: LinearGelu| {
            let y = linear_gelu(x.clone(), weight.clone(), bias.clone());
            // Both branches hand the same gradient on.
            let other = random([2, 9, 7], 4, &device).require_grad();
            let grads = ((y + other.clone()) * random([2, 9, 7], 5, &device)).sum().backward();
            [x.grad(&grads).map(read), other.grad(&grads).map(read)]
                .map(|gradient| gradient.expect("tracked"))
        };
        for (found, expected) in run(in_f32).iter().zip(&run(linear_gelu_reference)) {
            assert_close("gradient", found, expected, 1e-5);
        }
    }

    #[test]
    fn linear_with_gelu_does_not_depend_on_the_number_of_threads() {
        assert_same_in_all_pools(|| run([3, 700, 24], 48, [true; 3], in_f32));
        assert_same_in_all_pools(|| run([1, 197, 24], 200, [true; 3], in_f32));
    }
}
