//! The operation in burn's dispatch and in its graph.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::autodiff::{Autodiff, NodeId};
use burn::backend::fusion::custom::TensorSpec;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, backend_extension};
use burn::tensor::{DType, Tensor};
use burn_cubecl::CubeBackend;

use super::launches::{self, NormaliseGradients, NormaliseGradientsMetadata, Normalised, NormalisedMetadata};
use crate::choice::first_order_only;

/// [`crate::batch_norm_train`] on one GPU. The statistics come in `f32`.
pub(crate) fn fused(
    x: Tensor<4>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    eps: f32,
    residual: Option<Tensor<4>>,
    rectify: bool,
) -> (Tensor<4>, Tensor<1>, Tensor<1>) {
    let (x, gamma, beta) = (x.into_dispatch(), gamma.into_dispatch(), beta.into_dispatch());
    let found = match residual {
        None => Dispatch::normalise_forward(x, gamma, beta, eps, rectify),
        Some(residual) => {
            Dispatch::normalise_add_forward(x, gamma, beta, residual.into_dispatch(), eps, rectify)
        }
    };
    (
        Tensor::from_dispatch(found.y),
        Tensor::from_dispatch(found.mean).detach(),
        Tensor::from_dispatch(found.variance).detach(),
    )
}

/// The operation as burn's dispatch sees it.
#[backend_extension(Cube, Fusion, Autodiff)]
pub(crate) trait NormaliseOps: Backend {
    /// See [`fused`].
    #[fusion(meta = |x, _gamma, _beta, _eps, _rectify| normalised(x))]
    fn normalise_forward(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        eps: f32,
        rectify: bool,
    ) -> Normalised<Self>;
    /// See [`fused`].
    #[fusion(meta = |x, _gamma, _beta, _residual, _eps, _rectify| normalised(x))]
    fn normalise_add_forward(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        eps: f32,
        rectify: bool,
    ) -> Normalised<Self>;
    /// The gradients, given that of the output; `add` if there was a residual.
    // Not expected, for one of the functions that the attribute below makes of this has fewer.
    #[allow(clippy::too_many_arguments, reason = "tensors of an operation are arguments of their own")]
    #[fusion(meta = |x, gamma, _mean, _inverse, _y, _dy, _add, _rectify| NormaliseGradientsMetadata {
        x: x.clone(),
        gamma: gamma.clone(),
        beta: gamma.clone(),
        residual: x.clone(),
    })]
    fn normalise_backward(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        inverse: FloatTensor<Self>,
        y: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        add: bool,
        rectify: bool,
    ) -> NormaliseGradients<Self>;
}

/// What the results look like before they are computed.
fn normalised(x: &TensorSpec) -> NormalisedMetadata {
    let statistic = TensorSpec::new([x.shape[1]].into(), DType::F32);
    NormalisedMetadata {
        y: x.clone(),
        mean: statistic.clone(),
        variance: statistic.clone(),
        inverse: statistic,
    }
}

impl NormaliseOps for CubeBackend {
    fn normalise_forward(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        eps: f32,
        rectify: bool,
    ) -> Normalised<Self> {
        let nobody = x.clone();
        launches::forward(x, [gamma, beta], nobody, eps, [false, rectify])
    }

    fn normalise_add_forward(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        eps: f32,
        rectify: bool,
    ) -> Normalised<Self> {
        launches::forward(x, [gamma, beta], residual, eps, [true, rectify])
    }

    fn normalise_backward(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        inverse: FloatTensor<Self>,
        y: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        add: bool,
        rectify: bool,
    ) -> NormaliseGradients<Self> {
        launches::backward(x, gamma, [mean, inverse], y, dy, [add, rectify])
    }
}

/// What the backward pass needs; the output is the next convolution's input and kept by that anyway.
#[derive(Debug, Clone)]
struct Kept<T> {
    x: NodeId,
    gamma: NodeId,
    mean: T,
    inverse: T,
    y: T,
    rectify: bool,
}

/// The backward step, with (`N` = 4) or without (`N` = 3) a residual.
#[derive(Debug)]
struct NormaliseBackward;

impl<B: NormaliseOps, const N: usize> Backward<B, N> for NormaliseBackward {
    type State = Kept<FloatTensor<B>>;

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let Kept { x, gamma, mean, inverse, y, rectify } = ops.state;
        let x = checkpointer.retrieve_node_output::<FloatTensor<B>>(x);
        let gamma = checkpointer.retrieve_node_output::<FloatTensor<B>>(gamma);
        let add = ops.parents.get(3).is_some_and(Option::is_some);
        let NormaliseGradients { x, gamma, beta, residual } =
            B::normalise_backward(x, gamma, mean, inverse, y, dy, add, rectify);
        for (parent, gradient) in ops.parents.iter().zip([x, gamma, beta, residual]) {
            if let Some(parent) = parent {
                grads.register::<B>(parent.id, gradient);
            }
        }
    }
}

type Tracked<B, C> = FloatTensor<Autodiff<B, C>>;

fn results<B: NormaliseOps, C: CheckpointStrategy>(
    y: Tracked<B, C>,
    [mean, variance, inverse]: [FloatTensor<B>; 3],
) -> Normalised<Autodiff<B, C>> {
    let untracked = Tracked::<B, C>::new;
    Normalised { y, mean: untracked(mean), variance: untracked(variance), inverse: untracked(inverse) }
}

impl<B: NormaliseOps, C: CheckpointStrategy> NormaliseOps for Autodiff<B, C> {
    fn normalise_forward(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        eps: f32,
        rectify: bool,
    ) -> Normalised<Self> {
        let nodes = [x.node(), gamma.node(), beta.node()];
        let prepared = NormaliseBackward.prepare::<C>(nodes).compute_bound().stateful();
        let compute = |x: Tracked<B, C>, gamma: Tracked<B, C>| {
            B::normalise_forward(
                x.into_primitive(),
                gamma.into_primitive(),
                beta.into_primitive(),
                eps,
                rectify,
            )
        };
        match prepared {
            OpsKind::Tracked(mut prep) => {
                let (node, weight) = (prep.checkpoint(&x), prep.checkpoint(&gamma));
                let Normalised { y, mean, variance, inverse } = compute(x, gamma);
                let state = Kept {
                    x: node,
                    gamma: weight,
                    mean: mean.clone(),
                    inverse: inverse.clone(),
                    y: y.clone(),
                    rectify,
                };
                results::<B, C>(prep.finish(state, y), [mean, variance, inverse])
            }
            OpsKind::UnTracked(prep) => {
                let Normalised { y, mean, variance, inverse } = compute(x, gamma);
                results::<B, C>(prep.finish(y), [mean, variance, inverse])
            }
        }
    }

    fn normalise_add_forward(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        eps: f32,
        rectify: bool,
    ) -> Normalised<Self> {
        let nodes = [x.node(), gamma.node(), beta.node(), residual.node()];
        let prepared = NormaliseBackward.prepare::<C>(nodes).compute_bound().stateful();
        let compute = |x: Tracked<B, C>, gamma: Tracked<B, C>| {
            B::normalise_add_forward(
                x.into_primitive(),
                gamma.into_primitive(),
                beta.into_primitive(),
                residual.into_primitive(),
                eps,
                rectify,
            )
        };
        match prepared {
            OpsKind::Tracked(mut prep) => {
                let (node, weight) = (prep.checkpoint(&x), prep.checkpoint(&gamma));
                let Normalised { y, mean, variance, inverse } = compute(x, gamma);
                let state = Kept {
                    x: node,
                    gamma: weight,
                    mean: mean.clone(),
                    inverse: inverse.clone(),
                    y: y.clone(),
                    rectify,
                };
                results::<B, C>(prep.finish(state, y), [mean, variance, inverse])
            }
            OpsKind::UnTracked(prep) => {
                let Normalised { y, mean, variance, inverse } = compute(x, gamma);
                results::<B, C>(prep.finish(y), [mean, variance, inverse])
            }
        }
    }

    fn normalise_backward(
        _x: FloatTensor<Self>,
        _gamma: FloatTensor<Self>,
        _mean: FloatTensor<Self>,
        _inverse: FloatTensor<Self>,
        _y: FloatTensor<Self>,
        _dy: FloatTensor<Self>,
        _add: bool,
        _rectify: bool,
    ) -> NormaliseGradients<Self> {
        first_order_only()
    }
}
