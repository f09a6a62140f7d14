//! Self-attention where only the first token's result is wanted.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::autodiff::{Autodiff, NodeId};
use burn::backend::{Backend, Dispatch, Flex, backend_extension, tensor::FloatTensor};
use burn::tensor::Tensor;
use burn_flex::FlexTensor;

use crate::cpu::{self, class_attention::Parts, serves};
use crate::products::Arithmetic;
use crate::{Products, attention_reference, attention_with, linear_reference, linear_with};

/// The first token of `attention(linear(x, weight, bias), heads)`: `[batch, tokens, in]` → `[batch, 1, dim]`.
///
/// A classifier that reads its class token alone needs no other result of its last block: one query instead of all, which
/// saves a third of the projection and nearly all of the attention; the numbers are the same. `weight`: `[in, 3 · dim]` and
/// `bias`: `[3 · dim]`, queries, keys and values beside each other as in [`attention`].
///
/// `products` is the type of the operands of the projection; the single query's own products stay `f32`.
pub fn class_attention(
    x: Tensor<3>,
    weight: Tensor<2>,
    bias: Tensor<1>,
    heads: usize,
    products: Products,
) -> Tensor<3> {
    let ([_, _, d_in], [rows, width]) = (x.dims(), weight.dims());
    assert!(
        heads > 0 && width % (3 * heads) == 0,
        "class_attention: width {width} is not three times {heads} heads"
    );
    assert!(
        d_in == rows && bias.dims() == [width],
        "class_attention: x {:?}, weight {:?}, bias {:?}",
        x.dims(),
        weight.dims(),
        bias.dims()
    );
    if !(serves(&x) && serves(&weight) && serves(&bias)) {
        let qkv = linear_with(x, weight, Some(bias), products);
        return attention_with(qkv, heads, products).narrow(1, 0, 1);
    }
    let (x, weight, bias) = (x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch());
    Tensor::from_dispatch(Dispatch::class_attention_forward(x, weight, bias, heads, products.arithmetic()))
}

/// [`class_attention`] in burn's operations.
pub fn class_attention_reference(
    x: Tensor<3>,
    weight: Tensor<2>,
    bias: Tensor<1>,
    heads: usize,
) -> Tensor<3> {
    attention_reference(linear_reference(x, weight, Some(bias)), heads).narrow(1, 0, 1)
}

/// The operation on the CPU backend and in its graph; other backends never get here.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait ClassAttentionOps: Backend {
    /// See [`class_attention`].
    fn class_attention_forward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        heads: usize,
        arithmetic: Arithmetic,
    ) -> FloatTensor<Self>;
}

impl ClassAttentionOps for Flex {
    fn class_attention_forward(
        x: FlexTensor,
        weight: FlexTensor,
        bias: FlexTensor,
        heads: usize,
        arithmetic: Arithmetic,
    ) -> FlexTensor {
        cpu::class_attention::forward(arithmetic, x, weight, bias, heads).0
    }
}

impl<C: CheckpointStrategy> ClassAttentionOps for Autodiff<Flex, C> {
    fn class_attention_forward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        heads: usize,
        arithmetic: Arithmetic,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), weight.node(), bias.node()];
        let prepared = ClassAttentionBackward.prepare::<C>(nodes).compute_bound().stateful();
        match prepared {
            OpsKind::Tracked(mut prep) => {
                // `x` serves the weight's gradient only, the weight only that of `x`.
                let kept_x = weight.is_tracked().then(|| prep.checkpoint(&x));
                let kept_weight = x.is_tracked().then(|| prep.checkpoint(&weight));
                let (x, weight, bias) = (x.into_primitive(), weight.into_primitive(), bias.into_primitive());
                let (out, parts) = cpu::class_attention::forward(arithmetic, x, weight, bias, heads);
                prep.finish(Kept { x: kept_x, weight: kept_weight, parts, arithmetic }, out)
            }
            OpsKind::UnTracked(prep) => prep.finish(Flex::class_attention_forward(
                x.into_primitive(),
                weight.into_primitive(),
                bias.into_primitive(),
                heads,
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
    parts: Parts,
    arithmetic: Arithmetic,
}

#[derive(Debug)]
struct ClassAttentionBackward;

/// Parents: `x`, weight and bias.
impl Backward<Flex, 3> for ClassAttentionBackward {
    type State = Kept;

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let dy = grads.consume::<Flex>(&ops.node);
        let Kept { x, weight, parts, arithmetic } = ops.state;
        let x = x.map(|x| checkpointer.retrieve_node_output::<FlexTensor>(x));
        let weight = weight.map(|weight| checkpointer.retrieve_node_output::<FlexTensor>(weight));

        let bias = ops.parents[2].is_some();
        let gradients = cpu::class_attention::backward(arithmetic, x, weight, parts, dy, bias);
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

    fn in_f32(x: Tensor<3>, weight: Tensor<2>, bias: Tensor<1>, heads: usize) -> Tensor<3> {
        class_attention(x, weight, bias, heads, Products::F32)
    }

    type ClassAttention = fn(Tensor<3>, Tensor<2>, Tensor<1>, usize) -> Tensor<3>;

    /// Output and the gradients of what is tracked of `x`, weight and bias.
    fn run(
        [batch, tokens, d_in, heads, head]: [usize; 5],
        tracked: [bool; 3],
        class_attention: ClassAttention,
    ) -> Vec<Vec<f32>> {
        let device = Device::flex().autodiff();
        let dim = heads * head;
        // A view, as after a transposition.
        let x = random([tokens, batch, d_in], 1, &device).swap_dims(0, 1).set_require_grad(tracked[0]);
        let weight = random([d_in, 3 * dim], 2, &device).mul_scalar((d_in as f32).powf(-0.5)).detach();
        let weight = weight.set_require_grad(tracked[1]);
        let bias = random([3 * dim], 3, &device).set_require_grad(tracked[2]);
        let y = class_attention(x.clone(), weight.clone(), bias.clone(), heads);
        let factor = random([batch, 1, dim], 4, &device).require_grad();
        let grads = (y.clone() * factor).sum().backward();
        let gradients =
            [x.grad(&grads).map(read), weight.grad(&grads).map(read), bias.grad(&grads).map(read)];
        std::iter::once(read(y.inner())).chain(gradients.into_iter().flatten()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn attention_of_the_class_token_equals_its_reference(
            sizes in (1usize..4, 1usize..80, 1usize..40, 1usize..4, 1usize..40),
            tracked: [bool; 3],
        ) {
            let sizes = sizes.into();
            let found = run(sizes, tracked, in_f32);
            let expected = run(sizes, tracked, class_attention_reference);
            prop_assert_eq!(found.len(), expected.len());
            for (index, (found, expected)) in found.iter().zip(&expected).enumerate() {
                assert_close(&format!("number {index}"), found, expected, 2e-5);
            }
        }
    }

    #[test]
    fn gradients_agree_with_differences() {
        let device = Device::flex();
        let (x, weight, bias) =
            (random([2, 5, 4], 1, &device), random([4, 12], 2, &device), random([12], 3, &device));
        let loss = |x: &Tensor<3>| {
            let y = in_f32(x.clone(), weight.clone(), bias.clone(), 2);
            read(y * random([2, 1, 4], 4, &device)).iter().map(|value| f64::from(*value)).sum::<f64>()
        };
        let tracked = Tensor::from_inner(x.clone()).require_grad();
        let y =
            in_f32(tracked.clone(), Tensor::from_inner(weight.clone()), Tensor::from_inner(bias.clone()), 2);
        let grads = (y * Tensor::from_inner(random([2, 1, 4], 4, &device))).sum().backward();
        let gradient = read(tracked.grad(&grads).expect("tracked"));
        const STEP: f32 = 1e-2;
        for (index, gradient) in gradient.into_iter().enumerate() {
            let moved = |step: f32| {
                let mut values = read(x.clone());
                values[index] += step;
                loss(&Tensor::from_data(burn::tensor::TensorData::new(values, [2, 5, 4]), &device))
            };
            let slope = (moved(STEP) - moved(-STEP)) / f64::from(2.0 * STEP);
            assert!(
                (slope - f64::from(gradient)).abs() < 2e-3 * slope.abs().max(1.0),
                "x[{index}]: {gradient}, differences {slope}"
            );
        }
    }

    #[test]
    fn what_is_not_a_number_is_seen() {
        let device = Device::flex();
        let broken = Tensor::<3>::full([1, 4, 6], f32::NAN, &device);
        let y = in_f32(broken, random([6, 18], 1, &device), random([18], 2, &device), 2);
        assert!(read(y).iter().all(|value| value.is_nan()));
    }

    #[test]
    fn attention_of_the_class_token_does_not_depend_on_the_number_of_threads() {
        assert_same_in_all_pools(|| run([5, 257, 48, 3, 16], [true; 3], in_f32));
    }
}
