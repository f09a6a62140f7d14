//! Layer normalisation.

use burn::Tensor;

/// Normalises the last axis: `(x − mean) / √(var + eps) · gamma + beta` (Ba et al., arXiv:1607.06450).
pub fn layer_norm<const D: usize>(x: Tensor<D>, gamma: Tensor<1>, beta: Tensor<1>, eps: f32) -> Tensor<D> {
    layer_norm_reference(x, gamma, beta, eps)
}

/// [`layer_norm`] in burn's operations.
pub fn layer_norm_reference<const D: usize>(
    x: Tensor<D>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    eps: f32,
) -> Tensor<D> {
    let (var, mean) = x.clone().var_mean_bias(D - 1);
    let normal = (x - mean) / var.add_scalar(eps).sqrt();
    normal * gamma.unsqueeze() + beta.unsqueeze()
}
