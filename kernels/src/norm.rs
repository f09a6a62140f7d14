//! Batch normalisation.

use burn::Tensor;

/// Batch normalisation with the statistics of this batch (Ioffe & Szegedy, arXiv:1502.03167).
///
/// `x`: `[batch, channels, height, width]`; `gamma`, `beta`: `[channels]`. With `residual` (the shape of `x`) it is
/// added after the affine map; with `rectify` the result passes through ReLU last. Returns the output and the batch's
/// mean and *biased* variance, both `[channels]` and outside the graph, from which the caller keeps running statistics.
pub fn batch_norm_train(
    x: Tensor<4>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    eps: f32,
    residual: Option<Tensor<4>>,
    rectify: bool,
) -> (Tensor<4>, Tensor<1>, Tensor<1>) {
    batch_norm_train_reference(x, gamma, beta, eps, residual, rectify)
}

/// [`batch_norm_train`] in burn's operations.
pub fn batch_norm_train_reference(
    x: Tensor<4>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    eps: f32,
    residual: Option<Tensor<4>>,
    rectify: bool,
) -> (Tensor<4>, Tensor<1>, Tensor<1>) {
    let [_, channels, _, _] = x.dims();
    let rows = x.clone().swap_dims(0, 1).flatten::<2>(1, 3);
    let (var, mean) = rows.var_mean_bias(1);
    let per_channel = |t: Tensor<1>| t.reshape([1, channels, 1, 1]);
    let scale = var.clone().add_scalar(eps).sqrt().recip().reshape([1, channels, 1, 1]);
    let mut y =
        (x - mean.clone().reshape([1, channels, 1, 1])) * scale * per_channel(gamma) + per_channel(beta);
    if let Some(residual) = residual {
        y = y + residual;
    }
    if rectify {
        y = burn::tensor::activation::relu(y);
    }
    (y, mean.reshape([channels]).detach(), var.reshape([channels]).detach())
}
