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

/// `softmax(Q Kᵀ / √d) V` for every head (Vaswani et al., arXiv:1706.03762, equation 1).
///
/// `qkv`: `[batch, tokens, 3 · heads · d]`, laid out as timm's fused projection: first all queries, then keys, then
/// values, each head after head. Returns `[batch, tokens, heads · d]`.
pub fn attention(qkv: Tensor<3>, heads: usize) -> Tensor<3> {
    let [_, _, width] = qkv.dims();
    assert!(
        heads > 0 && width % (3 * heads) == 0,
        "attention: width {width} is not three times {heads} heads"
    );
    // On GPUs a tile of the widest heads has no room in a cube.
    if !serves(&qkv) || (on_gpu(&qkv) && width / (3 * heads) > 128) {
        return attention_reference(qkv, heads);
    }
    Tensor::from_dispatch(Dispatch::attention_forward(qkv.into_dispatch(), heads).out)
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
    #[fusion(meta = |qkv, heads| attended(qkv.shape.dims(), *heads, qkv.dtype))]
    fn attention_forward(qkv: FloatTensor<Self>, heads: usize) -> Attended<Self>;
    /// The gradient of `qkv`, given that of the output.
    #[fusion(dtype = qkv, shape = qkv)]
    fn attention_backward(
        qkv: FloatTensor<Self>,
        out: FloatTensor<Self>,
        log_sums: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        heads: usize,
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
    fn attention_forward(qkv: FlexTensor, heads: usize) -> Attended<Self> {
        let [batch, tokens, _] = qkv.layout().shape().dims();
        let (out, log_sums) = cpu::attention::forward(qkv, heads);
        Attended { out, log_sums: cpu::tensor(log_sums, [batch, heads, tokens].into()) }
    }

    fn attention_backward(
        qkv: FlexTensor,
        out: FlexTensor,
        log_sums: FlexTensor,
        dy: FlexTensor,
        heads: usize,
    ) -> FlexTensor {
        cpu::attention::backward(qkv, heads, out, cpu::values(&log_sums), dy)
    }
}

impl<B: AttentionOps, C: CheckpointStrategy> AttentionOps for Autodiff<B, C> {
    fn attention_forward(qkv: FloatTensor<Self>, heads: usize) -> Attended<Self> {
        match AttentionBackward.prepare::<C>([qkv.node()]).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let input = prep.checkpoint(&qkv);
                let Attended { out, log_sums } = B::attention_forward(qkv.into_primitive(), heads);
                let state = Kept { qkv: input, heads, out: out.clone(), log_sums: log_sums.clone() };
                Attended { out: prep.finish(state, out), log_sums: FloatTensor::<Self>::new(log_sums) }
            }
            OpsKind::UnTracked(prep) => {
                let Attended { out, log_sums } = B::attention_forward(qkv.into_primitive(), heads);
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
    ) -> FloatTensor<Self> {
        first_order_only()
    }
}

/// What the backward pass needs; the output is the next projection's input and kept by that anyway.
#[derive(Debug, Clone)]
struct Kept<T> {
    qkv: NodeId,
    heads: usize,
    out: T,
    log_sums: T,
}

#[derive(Debug)]
struct AttentionBackward;

impl<B: AttentionOps> Backward<B, 1> for AttentionBackward {
    type State = Kept<FloatTensor<B>>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let Kept { qkv, heads, out, log_sums } = ops.state;
        let qkv = checkpointer.retrieve_node_output::<FloatTensor<B>>(qkv);
        if let [Some(parent)] = ops.parents {
            grads.register::<B>(parent.id, B::attention_backward(qkv, out, log_sums, dy, heads));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::{assert_close, assert_same_in_all_pools, random, read};
    use burn::tensor::Device;
    use proptest::prelude::*;

    /// Output and gradient.
    fn run(
        [batch, tokens, heads, head]: [usize; 4],
        attention: fn(Tensor<3>, usize) -> Tensor<3>,
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
        for tokens in [287, 289, 577] {
            assert_equals_reference([1, tokens, 2, 16]);
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
    }
}
