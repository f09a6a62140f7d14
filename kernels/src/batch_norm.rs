//! Batch normalisation with the statistics of the batch, its residual and its ReLU in the same passes.
//!
//! With `x̂ = (x − mean) / √(var + eps)` and `g` the gradient before the ReLU, over the `n` values of a channel:
//!
//! ```text
//! dβ = Σ g        dγ = Σ g x̂        dx = γ / √(var + eps) · (g − dβ/n − x̂ dγ/n)        d residual = g
//! ```
//!
//! Over several ranks mean, variance and `n` are those of all their images, and so are the sums in `dx`; `dβ` and `dγ` remain
//! a rank's own, like any gradient.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use burn::Tensor;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn_flex::FlexTensor;

use crate::channel_cpu::{self, Affine, Planes, Sums};
use crate::channel_loops::Slope;
use crate::conv_flex::{contiguous, flex_f32, values};
use crate::conv_memory::tensor;
use crate::joined::{Exchange, Joined, summed};

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
    #[cfg(feature = "cube")]
    if fast_on_gpu(&x, &gamma, &beta, &residual) {
        return crate::gpu::batch_norm::fused(x, gamma, beta, eps, residual, rectify);
    }
    if !fast(&x, &gamma, &beta, &residual) {
        return batch_norm_train_reference(x, gamma, beta, eps, residual, rectify);
    }
    fused(x, gamma, beta, eps, residual, rectify, None)
}

/// [`batch_norm_train`] over the images of several ranks, each with its own in `x`. Mean and variance are those of all; the last
/// value is how many values a channel has on all ranks.
pub fn batch_norm_train_joined(
    x: Tensor<4>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    eps: f32,
    residual: Option<Tensor<4>>,
    rectify: bool,
    exchange: &Arc<dyn Exchange>,
) -> (Tensor<4>, Tensor<1>, Tensor<1>, usize) {
    if !fast(&x, &gamma, &beta, &residual) {
        return batch_norm_train_joined_reference(x, gamma, beta, eps, residual, rectify, exchange);
    }
    let joined = Joined::new(exchange);
    let (y, mean, var) = fused(x, gamma, beta, eps, residual, rectify, Some(joined.clone()));
    (y, mean, var, joined.count.load(Ordering::Relaxed))
}

/// Whether the kernels of GPUs serve.
#[cfg(feature = "cube")]
fn fast_on_gpu(x: &Tensor<4>, gamma: &Tensor<1>, beta: &Tensor<1>, residual: &Option<Tensor<4>>) -> bool {
    use crate::choice::{on_gpu, serves_beside};
    let dims = x.dims();
    on_gpu(x)
        && [gamma, beta].iter().all(|t| serves_beside(*t, x) && t.dims() == [dims[1]])
        && residual.as_ref().is_none_or(|r| serves_beside(r, x) && r.dims() == dims)
}

/// Whether the CPU's own operation serves.
fn fast(x: &Tensor<4>, gamma: &Tensor<1>, beta: &Tensor<1>, residual: &Option<Tensor<4>>) -> bool {
    let dims = x.dims();
    flex_f32(x)
        && [gamma, beta].iter().all(|t| flex_f32(*t) && t.dims() == [dims[1]])
        && residual.as_ref().is_none_or(|r| flex_f32(r) && r.dims() == dims)
        && dims.iter().all(|&n| n > 0)
}

fn fused(
    x: Tensor<4>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    eps: f32,
    residual: Option<Tensor<4>>,
    rectify: bool,
    joined: Option<Joined>,
) -> (Tensor<4>, Tensor<1>, Tensor<1>) {
    let (x, gamma, beta) = (x.into_dispatch(), gamma.into_dispatch(), beta.into_dispatch());
    let (y, mean, var) = match residual {
        None => Dispatch::normalise(x, gamma, beta, eps, rectify, joined),
        Some(residual) => {
            Dispatch::normalise_add(x, gamma, beta, residual.into_dispatch(), eps, rectify, joined)
        }
    };
    (Tensor::from_dispatch(y), Tensor::from_dispatch(mean).detach(), Tensor::from_dispatch(var).detach())
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
    let y = normalised(x, [mean.clone(), var.clone()], [gamma, beta], eps, residual, rectify);
    (y, mean.reshape([channels]).detach(), var.reshape([channels]).detach())
}

/// [`batch_norm_train_joined`] in burn's operations and sums over ranks.
pub fn batch_norm_train_joined_reference(
    x: Tensor<4>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    eps: f32,
    residual: Option<Tensor<4>>,
    rectify: bool,
    exchange: &Arc<dyn Exchange>,
) -> (Tensor<4>, Tensor<1>, Tensor<1>, usize) {
    let [batch, channels, height, width] = x.dims();
    let own = (batch * height * width) as f64;
    let count: f64 = exchange.gather(&[own]).into_iter().flatten().sum();
    let mean_over_ranks = |rows: Tensor<2>| {
        let sum = rows.sum_dim(1).reshape([channels]);
        summed(sum, exchange).div_scalar(count as f32).reshape([channels, 1])
    };
    let rows = x.clone().swap_dims(0, 1).flatten::<2>(1, 3);
    let mean = mean_over_ranks(rows.clone());
    let var = mean_over_ranks((rows - mean.clone()).square());
    let y = normalised(x, [mean.clone(), var.clone()], [gamma, beta], eps, residual, rectify);
    (y, mean.reshape([channels]).detach(), var.reshape([channels]).detach(), count as usize)
}

/// The affine map of `x` with these statistics, `[channels, 1]` each, and what follows it.
fn normalised(
    x: Tensor<4>,
    [mean, var]: [Tensor<2>; 2],
    [gamma, beta]: [Tensor<1>; 2],
    eps: f32,
    residual: Option<Tensor<4>>,
    rectify: bool,
) -> Tensor<4> {
    let [_, channels, _, _] = x.dims();
    let per_channel = |t: Tensor<1>| t.reshape([1, channels, 1, 1]);
    let scale = var.add_scalar(eps).sqrt().recip().reshape([1, channels, 1, 1]);
    let mut y = (x - mean.reshape([1, channels, 1, 1])) * scale * per_channel(gamma) + per_channel(beta);
    if let Some(residual) = residual {
        y = y + residual;
    }
    if rectify {
        y = burn::tensor::activation::relu(y);
    }
    y
}

/// Output, mean and variance.
type Normalised<B> = (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>);

/// The operation as burn's dispatch sees it. Only the CPU backend is listed: [`batch_norm_train`] sends nothing else.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait Normalise: Backend {
    fn normalise(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        eps: f32,
        rectify: bool,
        joined: Option<Joined>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
    fn normalise_add(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        eps: f32,
        rectify: bool,
        joined: Option<Joined>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
}

/// What a forward pass found out before it touches the values.
struct Plan {
    mean: Vec<f64>,
    var: Vec<f64>,
    /// `1 / √(var + eps)`
    inverse: Vec<f64>,
    scale: Vec<f32>,
    shift: Vec<f32>,
    /// Values of a channel, over all ranks.
    count: usize,
}

impl Plan {
    fn new(x: &FlexTensor, [gamma, beta]: [&FlexTensor; 2], eps: f32, joined: Option<&Joined>) -> Self {
        let (planes, own) = (Planes::of(x), channel_cpu::moments(Planes::of(x), values(x)));
        let ([mean, var], count) = match joined {
            Some(joined) => joined.moments(own, planes.count()),
            None => (own, planes.count()),
        };
        let inverse: Vec<f64> = var.iter().map(|var| (var + f64::from(eps)).sqrt().recip()).collect();
        let (gamma, beta) = (gamma.to_contiguous(), beta.to_contiguous());
        let slope: Vec<f64> = values(&gamma).iter().zip(&inverse).map(|(&g, i)| f64::from(g) * i).collect();
        let shift =
            values(&beta).iter().zip(&slope).zip(&mean).map(|((&b, s), m)| (f64::from(b) - s * m) as f32);
        let shift = shift.collect();
        Self { mean, var, inverse, scale: slope.iter().map(|&s| s as f32).collect(), shift, count }
    }

    /// Mean and variance as tensors.
    fn statistics(&self) -> [FlexTensor; 2] {
        [&self.mean, &self.var].map(|s| tensor(s.iter().map(|&v| v as f32).collect(), [s.len()]))
    }
}

fn forward(
    x: FlexTensor,
    [gamma, beta]: [FlexTensor; 2],
    residual: Option<FlexTensor>,
    eps: f32,
    rectify: bool,
    joined: Option<Joined>,
) -> Normalised<Flex> {
    let x = contiguous(x);
    let plan = Plan::new(&x, [&gamma, &beta], eps, joined.as_ref());
    let [mean, var] = plan.statistics();
    let residual = residual.map(contiguous);
    (channel_cpu::affine(x, &plan.scale, &plan.shift, residual.as_ref(), rectify), mean, var)
}

impl Normalise for Flex {
    fn normalise(
        x: FlexTensor,
        gamma: FlexTensor,
        beta: FlexTensor,
        eps: f32,
        rectify: bool,
        joined: Option<Joined>,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        forward(x, [gamma, beta], None, eps, rectify, joined)
    }

    fn normalise_add(
        x: FlexTensor,
        gamma: FlexTensor,
        beta: FlexTensor,
        residual: FlexTensor,
        eps: f32,
        rectify: bool,
        joined: Option<Joined>,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        forward(x, [gamma, beta], Some(residual), eps, rectify, joined)
    }
}

/// The backward step, with (`N` = 4) or without (`N` = 3) a residual.
#[derive(Debug)]
struct NormaliseBackward;

#[derive(Debug, Clone)]
struct NormaliseState {
    affine: Affine,
    inverse: Vec<f64>,
    count: usize,
    joined: Option<Joined>,
}

impl<const N: usize> Backward<Flex, N> for NormaliseBackward {
    type State = NormaliseState;

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let dy = grads.consume::<Flex>(&ops.node);
        let NormaliseState { affine, inverse, count, joined } = ops.state;
        let dy = affine.before_gate(dy);
        if let Some(Some(residual)) = ops.parents.get(3) {
            grads.register::<Flex>(residual.id, dy.clone());
        }
        let sums = affine.sums(&dy);
        let channels = inverse.len();
        let per_channel =
            |of: &dyn Fn(usize) -> f64| tensor((0..channels).map(|c| of(c) as f32).collect(), [channels]);
        if let Some(node) = &ops.parents[1] {
            grads.register::<Flex>(node.id, per_channel(&|c| sums.by_distance[c] * inverse[c]));
        }
        if let Some(node) = &ops.parents[2] {
            grads.register::<Flex>(node.id, per_channel(&|c| sums.plain[c]));
        }
        if let Some(node) = &ops.parents[0] {
            let (count, sums) = (count as f64, over_ranks(sums, joined.as_ref()));
            let slopes: Vec<Slope> = (0..channels)
                .map(|c| {
                    let scale = f64::from(affine.scale[c]);
                    Slope {
                        mean: affine.mean[c],
                        by_gradient: affine.scale[c],
                        by_distance: (-scale * inverse[c] * inverse[c] * sums.by_distance[c] / count) as f32,
                        constant: (-scale * sums.plain[c] / count) as f32,
                    }
                })
                .collect();
            grads.register::<Flex>(node.id, affine.input_gradient(dy, &slopes));
        }
    }
}

/// The sums of this rank, or those that all ranks mean to it.
fn over_ranks(sums: Sums, joined: Option<&Joined>) -> Sums {
    let Some(joined) = joined else { return sums };
    let channels = sums.plain.len();
    let mut all = joined.exchange.weighted_sum(&[sums.plain, sums.by_distance].concat());
    let by_distance = all.split_off(channels);
    Sums { plain: all, by_distance }
}

impl<C: CheckpointStrategy> Normalise for Autodiff<Flex, C> {
    fn normalise(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        eps: f32,
        rectify: bool,
        joined: Option<Joined>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let nodes = [x.node(), gamma.node(), beta.node()];
        let prepared = NormaliseBackward.prepare::<C>(nodes).compute_bound().stateful();
        let (x, affine) = (x.into_primitive(), [gamma.into_primitive(), beta.into_primitive()]);
        match prepared {
            OpsKind::Tracked(prepared) => {
                let (state, y, mean, var) = tracked(x, affine, None, eps, rectify, joined);
                (prepared.finish(state, y), FloatTensor::<Self>::new(mean), FloatTensor::<Self>::new(var))
            }
            OpsKind::UnTracked(prepared) => {
                let (y, mean, var) = forward(x, affine, None, eps, rectify, joined);
                (prepared.finish(y), FloatTensor::<Self>::new(mean), FloatTensor::<Self>::new(var))
            }
        }
    }

    fn normalise_add(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        eps: f32,
        rectify: bool,
        joined: Option<Joined>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let nodes = [x.node(), gamma.node(), beta.node(), residual.node()];
        let prepared = NormaliseBackward.prepare::<C>(nodes).compute_bound().stateful();
        let (x, affine) = (x.into_primitive(), [gamma.into_primitive(), beta.into_primitive()]);
        let residual = Some(residual.into_primitive());
        match prepared {
            OpsKind::Tracked(prepared) => {
                let (state, y, mean, var) = tracked(x, affine, residual, eps, rectify, joined);
                (prepared.finish(state, y), FloatTensor::<Self>::new(mean), FloatTensor::<Self>::new(var))
            }
            OpsKind::UnTracked(prepared) => {
                let (y, mean, var) = forward(x, affine, residual, eps, rectify, joined);
                (prepared.finish(y), FloatTensor::<Self>::new(mean), FloatTensor::<Self>::new(var))
            }
        }
    }
}

/// The forward pass that keeps what the backward pass needs: state, output, mean, variance.
fn tracked(
    x: FlexTensor,
    [gamma, beta]: [FlexTensor; 2],
    residual: Option<FlexTensor>,
    eps: f32,
    rectify: bool,
    joined: Option<Joined>,
) -> (NormaliseState, FlexTensor, FlexTensor, FlexTensor) {
    let x = contiguous(x);
    let plan = Plan::new(&x, [&gamma, &beta], eps, joined.as_ref());
    let [mean, var] = plan.statistics();
    let residual = residual.map(contiguous);
    let y = channel_cpu::affine(x.clone(), &plan.scale, &plan.shift, residual.as_ref(), rectify);
    let gate = (rectify && residual.is_some()).then(|| y.clone());
    let centre = plan.mean.iter().map(|&m| m as f32).collect();
    let affine = Affine { x, scale: plan.scale, shift: plan.shift, mean: centre, rectify, gate };
    (NormaliseState { affine, inverse: plan.inverse, count: plan.count, joined }, y, mean, var)
}

#[cfg(test)]
mod tests;
