//! Multi-head self-attention.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::autodiff::{Autodiff, NodeId};
#[cfg(feature = "cube")]
use burn::backend::fusion::custom::TensorSpec;
use burn::backend::{Backend, Dispatch, ExtensionType, Flex, backend_extension, tensor::FloatTensor};
#[cfg(feature = "cube")]
use burn::tensor::DType;
use burn::tensor::Tensor;
use burn::tensor::activation::softmax;
use burn_flex::FlexTensor;

use crate::choice::{first_order_only, on_gpu, serves};
use crate::cpu;
use crate::products::{Arithmetic, Products};

/// The widest head whose tiles fit into the 32 KiB that a cube has on every GPU.
pub(crate) const WIDEST_ON_GPUS: usize = 128;

/// `softmax(Q Kᵀ / √d) V` for every head (Vaswani et al., arXiv:1706.03762, equation 1).
///
/// `qkv`: `[batch, tokens, 3 · heads · d]`, laid out as timm's fused projection: first all queries, then keys, then
/// values, each head after head. Returns `[batch, tokens, heads · d]`.
pub fn attention(qkv: Tensor<3>, heads: usize) -> Tensor<3> {
    attention_with(qkv, heads, Products::F32)
}

/// [`attention`] whose matrix products, and those of its gradient, are of this kind. The softmax is computed in `f32`; for the
/// second product the exponentials are rounded, and divided by the sum of what they were before.
pub fn attention_with(qkv: Tensor<3>, heads: usize, products: Products) -> Tensor<3> {
    attention_in(qkv, heads, products.arithmetic())
}

fn attention_in(qkv: Tensor<3>, heads: usize, arithmetic: Arithmetic) -> Tensor<3> {
    let [_, _, width] = qkv.dims();
    assert!(
        heads > 0 && width % (3 * heads) == 0,
        "attention: width {width} is not three times {heads} heads"
    );
    if !serves(&qkv) || (on_gpu(&qkv) && width / (3 * heads) > WIDEST_ON_GPUS) {
        return attention_reference(qkv, heads);
    }
    Tensor::from_dispatch(Dispatch::attention_forward(qkv.into_dispatch(), heads, arithmetic).out)
}

/// [`attention`] in burn's operations.
pub fn attention_reference(qkv: Tensor<3>, heads: usize) -> Tensor<3> {
    let [batch, tokens, width] = qkv.dims();
    let dim = width / 3;
    let head = dim / heads;
    let part = |i: usize| -> Tensor<4> {
        qkv.clone().narrow(2, i * dim, dim).reshape([batch, tokens, heads, head]).swap_dims(1, 2)
    };
    let scores = part(0).mul_scalar((head as f32).powf(-0.5)).matmul(part(1).swap_dims(2, 3));
    softmax(scores, 3).matmul(part(2)).swap_dims(1, 2).reshape([batch, tokens, dim])
}

/// The operation on every backend that has kernels, and in its graph.
#[backend_extension(Flex, Cube: cfg(feature = "cube"), Fusion: cfg(feature = "cube"), Autodiff)]
pub(crate) trait AttentionOps: Backend {
    /// See [`attention`].
    #[fusion(meta = |qkv, heads, _arithmetic| attended(qkv.shape.dims(), *heads, qkv.dtype))]
    fn attention_forward(qkv: FloatTensor<Self>, heads: usize, arithmetic: Arithmetic) -> Attended<Self>;
    /// The gradient of `qkv`, given that of the output.
    #[fusion(dtype = qkv, shape = qkv)]
    fn attention_backward(
        qkv: FloatTensor<Self>,
        out: FloatTensor<Self>,
        log_sums: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        heads: usize,
        arithmetic: Arithmetic,
    ) -> FloatTensor<Self>;
}

/// What the forward pass computes.
#[derive(ExtensionType)]
#[cfg_attr(feature = "cube", extension_type(fusion))]
pub(crate) struct Attended<B: Backend> {
    /// The operation's output.
    pub(crate) out: FloatTensor<B>,
    /// Of each query the logarithm of the sum of the exponentials of its scores, `[batch, heads, tokens]` of `f32`.
    pub(crate) log_sums: FloatTensor<B>,
}

/// What they look like before they are computed.
#[cfg(feature = "cube")]
fn attended([batch, tokens, width]: [usize; 3], heads: usize, dtype: DType) -> AttendedMetadata {
    AttendedMetadata {
        out: TensorSpec::new([batch, tokens, width / 3].into(), dtype),
        log_sums: TensorSpec::new([batch, heads, tokens].into(), DType::F32),
    }
}

impl AttentionOps for Flex {
    fn attention_forward(qkv: FlexTensor, heads: usize, arithmetic: Arithmetic) -> Attended<Self> {
        let [batch, tokens, _] = qkv.layout().shape().dims();
        let (out, log_sums) = cpu::attention::forward(arithmetic, qkv, heads);
        Attended { out, log_sums: cpu::tensor(log_sums, [batch, heads, tokens].into()) }
    }

    fn attention_backward(
        qkv: FlexTensor,
        out: FlexTensor,
        log_sums: FlexTensor,
        dy: FlexTensor,
        heads: usize,
        arithmetic: Arithmetic,
    ) -> FlexTensor {
        cpu::attention::backward(arithmetic, qkv, heads, out, cpu::values(&log_sums), dy)
    }
}

impl<B: AttentionOps, C: CheckpointStrategy> AttentionOps for Autodiff<B, C> {
    fn attention_forward(qkv: FloatTensor<Self>, heads: usize, arithmetic: Arithmetic) -> Attended<Self> {
        match AttentionBackward.prepare::<C>([qkv.node()]).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let input = prep.checkpoint(&qkv);
                let Attended { out, log_sums } =
                    B::attention_forward(qkv.into_primitive(), heads, arithmetic);
                let state =
                    Kept { qkv: input, heads, arithmetic, out: out.clone(), log_sums: log_sums.clone() };
                Attended { out: prep.finish(state, out), log_sums: FloatTensor::<Self>::new(log_sums) }
            }
            OpsKind::UnTracked(prep) => {
                let Attended { out, log_sums } =
                    B::attention_forward(qkv.into_primitive(), heads, arithmetic);
                Attended { out: prep.finish(out), log_sums: FloatTensor::<Self>::new(log_sums) }
            }
        }
    }

    fn attention_backward(
        _qkv: FloatTensor<Self>,
        _out: FloatTensor<Self>,
        _log_sums: FloatTensor<Self>,
        _dy: FloatTensor<Self>,
        _heads: usize,
        _arithmetic: Arithmetic,
    ) -> FloatTensor<Self> {
        first_order_only()
    }
}

/// What the backward pass needs; the output is the next projection's input and kept by that anyway.
#[derive(Debug, Clone)]
struct Kept<T> {
    qkv: NodeId,
    heads: usize,
    arithmetic: Arithmetic,
    out: T,
    log_sums: T,
}

#[derive(Debug)]
struct AttentionBackward;

impl<B: AttentionOps> Backward<B, 1> for AttentionBackward {
    type State = Kept<FloatTensor<B>>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let Kept { qkv, heads, arithmetic, out, log_sums } = ops.state;
        let qkv = checkpointer.retrieve_node_output::<FloatTensor<B>>(qkv);
        if let [Some(parent)] = ops.parents {
            grads.register::<B>(parent.id, B::attention_backward(qkv, out, log_sums, dy, heads, arithmetic));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::{assert_close, assert_same_in_all_pools, own_products, random, read, rounded};
    use crate::products::testing::bf16_arithmetics;
    use burn::tensor::Device;
    use proptest::prelude::*;

    /// Output and gradient.
    fn run(
        [batch, tokens, heads, head]: [usize; 4],
        attention: impl Fn(Tensor<3>, usize) -> Tensor<3>,
    ) -> Vec<Vec<f32>> {
        let device = Device::flex().autodiff();
        let dim = heads * head;
        let qkv = random([batch, tokens, 3 * dim], 1, &device).require_grad();
        let y = attention(qkv.clone(), heads);
        let grads = (y.clone() * random([batch, tokens, dim], 2, &device)).sum().backward();
        vec![read(y.inner()), read(qkv.grad(&grads).expect("tracked"))]
    }

    fn assert_equals_reference(sizes: [usize; 4]) {
        let (found, expected) = (run(sizes, attention), run(sizes, attention_reference));
        assert_close("y", &found[0], &expected[0], 1e-5);
        assert_close("dqkv", &found[1], &expected[1], 2e-5);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn fused_attention_equals_its_reference(
            batch in 1usize..4,
            tokens in 1usize..80,
            heads in 1usize..5,
            head in 1usize..40,
        ) {
            assert_equals_reference([batch, tokens, heads, head]);
        }
    }

    #[test]
    fn queries_in_several_tiles_give_the_same_attention() {
        // One head after the other, and so few heads that each is cut.
        for (batch, heads) in [(8, 2), (1, 2)] {
            for tokens in [59, 61, 287, 289, 577] {
                assert_equals_reference([batch, tokens, heads, 16]);
            }
        }
    }

    #[test]
    fn an_image_is_the_same_alone_and_among_others() {
        let device = Device::flex();
        for tokens in [61, 241, 485] {
            let qkv = random([8, tokens, 96], 1, &device);
            let alone = read(attention(qkv.clone().narrow(0, 7, 1), 2));
            let among = read(attention(qkv, 2).narrow(0, 7, 1));
            assert_close("alone", &alone, &among, 1e-6);
            assert!(!own_products() || alone == among, "{tokens} tokens: not the same bits");
        }
    }

    #[test]
    fn attention_stays_finite_for_large_scores_and_shows_what_is_not_a_number() {
        let device = Device::flex();
        let large = random([1, 20, 12], 1, &device).mul_scalar(100.0);
        let found = read(attention(large.clone(), 1));
        assert_close("large", &found, &read(attention_reference(large, 1)), 1e-4);
        let broken = Tensor::<3>::full([1, 20, 12], f32::NAN, &device);
        assert!(read(attention(broken, 1)).iter().all(|value| value.is_nan()));
    }

    #[test]
    fn attention_does_not_depend_on_the_number_of_threads() {
        assert_same_in_all_pools(|| run([3, 300, 3, 16], attention));
        assert_same_in_all_pools(|| run([6, 300, 3, 16], attention));
    }

    /// Scores of size one are off by some 2⁻⁸, and so are the probabilities.
    #[test]
    fn bf16_stays_close_to_single_precision() {
        for arithmetic in bf16_arithmetics() {
            for sizes in [[2, 33, 3, 16], [1, 289, 2, 16], [8, 289, 2, 16], [1, 7, 1, 5]] {
                let found = run(sizes, |qkv, heads| attention_in(qkv, heads, arithmetic));
                let exact = run(sizes, attention);
                for (name, (found, exact)) in ["y", "dqkv"].iter().zip(found.iter().zip(&exact)) {
                    assert_close(&format!("{arithmetic:?} {name}"), found, exact, 0.01);
                }
                assert_ne!(found, exact, "{arithmetic:?}: nothing was rounded");
            }
        }
    }

    /// Where one key takes all of the attention, both products are exact and only rounding the inputs is left.
    #[test]
    fn bf16_hands_out_rounded_values() {
        let device = Device::flex();
        let (tokens, head) = (19, 16);
        // Query and key of a token are the same row of a scaled identity.
        let one = Tensor::<2>::eye(tokens, &device).slice([0..tokens, 0..head]).mul_scalar(30.0);
        let vectors = random([tokens, head], 3, &device);
        let qkv = Tensor::cat(vec![one.clone(), one, vectors.clone()], 1).unsqueeze::<3>();
        for arithmetic in bf16_arithmetics() {
            let found = read(attention_in(qkv.clone(), 1, arithmetic).slice([0..1, 0..head, 0..head]));
            let expected = read(rounded(vectors.clone().slice([0..head, 0..head])));
            assert_eq!(found, expected, "{arithmetic:?}");
        }
    }

    #[test]
    fn bf16_gradients_agree_with_differences() {
        let device = Device::flex().autodiff();
        let loss = |qkv: Tensor<3>| attention_in(qkv, 2, Arithmetic::Emulated).square().sum();
        let qkv = random([2, 21, 48], 1, &device).require_grad();
        let along = random([2, 21, 48], 2, &device.clone().inner()) + qkv.clone().inner();
        let grads = loss(qkv.clone()).backward();
        let found = (qkv.grad(&grads).expect("tracked") * along.clone()).sum().into_scalar::<f32>();
        // Steps that dwarf the rounding.
        let at = |step: f32| loss(qkv.clone().inner() + along.clone() * step).into_scalar::<f32>();
        let difference = (at(0.05) - at(-0.05)) / 0.1;
        assert!((difference - found).abs() <= 0.03 * found.abs(), "{found}, by differences {difference}");
    }

    #[test]
    fn bf16_does_not_depend_on_the_number_of_threads() {
        for arithmetic in bf16_arithmetics() {
            assert_same_in_all_pools(|| {
                run([2, 130, 2, 8], |qkv, heads| attention_in(qkv, heads, arithmetic))
            });
        }
    }
}
