//! Multi-head self-attention.

use burn::Tensor;
use burn::tensor::activation::softmax;

/// `softmax(Q Kᵀ / √d) V` for every head (Vaswani et al., arXiv:1706.03762, equation 1).
///
/// `qkv`: `[batch, tokens, 3 · heads · d]`, laid out as timm's fused projection: first all queries, then keys, then
/// values, each head after head. Returns `[batch, tokens, heads · d]`.
pub fn attention(qkv: Tensor<3>, heads: usize) -> Tensor<3> {
    attention_reference(qkv, heads)
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
