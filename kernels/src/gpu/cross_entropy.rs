//! Softmax and cross-entropy of rows of logits, a plane for each row: no probabilities in the GPU's memory.
//!
//! With targets `t` and class weights `w`, `L` the logarithm of the sum of a row's exponentials:
//!
//! ```text
//! loss = Σ_c w_c t_c (L − x_c)        dx_c = dloss · (Σ_k w_k t_k exp(x_c − L) − w_c t_c)
//! ```
//!
//! `L` is what the forward pass leaves for the backward pass.

mod kernels;
mod launches;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::autodiff::{Autodiff, NodeId};
use burn::backend::fusion::custom::TensorSpec;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch, ExtensionType, backend_extension};
use burn::tensor::{DType, Tensor};

use crate::ClassTargets;
use crate::choice::first_order_only;

/// [`crate::cross_entropy_rows`] with `class_weights`, `[C]`, on one GPU. Shares and weights are of the type of the logits and
/// outside the graph. A class that is not below `C` makes the loss of its row not a number.
pub(crate) fn rows(logits: Tensor<2>, targets: ClassTargets, class_weights: Option<Tensor<1>>) -> Tensor<1> {
    let weighted = class_weights.is_some();
    let logits = logits.into_dispatch();
    // An argument that is not there is stood in for by one that is.
    let weights = class_weights.map_or_else(|| logits.clone(), |weights| weights.inner().into_dispatch());
    let losses = match targets {
        ClassTargets::Hard(classes) => {
            Dispatch::class_losses(logits, classes.inner().into_dispatch(), weights, weighted)
        }
        ClassTargets::Soft(shares) => {
            Dispatch::share_losses(logits, shares.inner().into_dispatch(), weights, weighted)
        }
    };
    Tensor::from_dispatch(losses.losses)
}

/// The operation as burn's dispatch sees it; `weights` are looked at if `weighted`.
#[backend_extension(Cube, Fusion, Autodiff)]
pub(crate) trait CrossEntropyRows: Backend {
    /// [`rows`] with a class for each.
    #[fusion(meta = |logits, _classes, _weights, _weighted| losses_of(logits))]
    fn class_losses(
        logits: FloatTensor<Self>,
        classes: IntTensor<Self>,
        weights: FloatTensor<Self>,
        weighted: bool,
    ) -> Losses<Self>;
    /// [`rows`] with shares of the classes.
    #[fusion(meta = |logits, _shares, _weights, _weighted| losses_of(logits))]
    fn share_losses(
        logits: FloatTensor<Self>,
        shares: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        weighted: bool,
    ) -> Losses<Self>;
    /// The gradient of the logits, given that of the losses.
    #[fusion(dtype = logits, shape = logits)]
    fn class_gradient(
        logits: FloatTensor<Self>,
        log_sums: FloatTensor<Self>,
        classes: IntTensor<Self>,
        weights: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        weighted: bool,
    ) -> FloatTensor<Self>;
    /// The gradient of the logits, given that of the losses.
    #[fusion(dtype = logits, shape = logits)]
    fn share_gradient(
        logits: FloatTensor<Self>,
        log_sums: FloatTensor<Self>,
        shares: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        weighted: bool,
    ) -> FloatTensor<Self>;
}

/// What the forward pass computes.
#[derive(ExtensionType)]
#[extension_type(fusion)]
pub(crate) struct Losses<B: Backend> {
    /// Of each row, in the type of the logits.
    losses: FloatTensor<B>,
    /// `L` of each row, in `f32`.
    log_sums: FloatTensor<B>,
}

/// What they look like before they are computed.
fn losses_of(logits: &TensorSpec) -> LossesMetadata {
    let rows = logits.shape[0];
    LossesMetadata {
        losses: TensorSpec::new([rows].into(), logits.dtype),
        log_sums: TensorSpec::new([rows].into(), DType::F32),
    }
}

/// Targets of the backend `B`.
#[derive(Debug, Clone)]
enum Kept<I, F> {
    Classes(I),
    Shares(F),
}

/// Logits, `L`, targets, weights if there are any.
#[derive(Debug, Clone)]
struct State<I, F> {
    logits: NodeId,
    log_sums: F,
    targets: Kept<I, F>,
    weights: F,
    weighted: bool,
}

#[derive(Debug)]
struct RowsBackward;

impl<B: CrossEntropyRows> Backward<B, 1> for RowsBackward {
    type State = State<IntTensor<B>, FloatTensor<B>>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let State { logits, log_sums, targets, weights, weighted } = ops.state;
        let logits = checkpointer.retrieve_node_output::<FloatTensor<B>>(logits);
        if let [Some(parent)] = ops.parents {
            let gradient = match targets {
                Kept::Classes(classes) => B::class_gradient(logits, log_sums, classes, weights, dy, weighted),
                Kept::Shares(shares) => B::share_gradient(logits, log_sums, shares, weights, dy, weighted),
            };
            grads.register::<B>(parent.id, gradient);
        }
    }
}

/// Computes the losses and records them if the logits are tracked.
fn record<B: CrossEntropyRows, C: CheckpointStrategy>(
    logits: FloatTensor<Autodiff<B, C>>,
    targets: Kept<IntTensor<B>, FloatTensor<B>>,
    weights: FloatTensor<B>,
    weighted: bool,
) -> Losses<Autodiff<B, C>> {
    let compute = |logits, weights, targets| match targets {
        Kept::Classes(classes) => B::class_losses(logits, classes, weights, weighted),
        Kept::Shares(shares) => B::share_losses(logits, shares, weights, weighted),
    };
    let untracked = FloatTensor::<Autodiff<B, C>>::new;
    match RowsBackward.prepare::<C>([logits.node()]).compute_bound().stateful() {
        OpsKind::Tracked(mut prep) => {
            let node = prep.checkpoint(&logits);
            let Losses { losses, log_sums } =
                compute(logits.into_primitive(), weights.clone(), targets.clone());
            let state = State { logits: node, log_sums: log_sums.clone(), targets, weights, weighted };
            Losses { losses: prep.finish(state, losses), log_sums: untracked(log_sums) }
        }
        OpsKind::UnTracked(prep) => {
            let Losses { losses, log_sums } = compute(logits.into_primitive(), weights, targets);
            Losses { losses: prep.finish(losses), log_sums: untracked(log_sums) }
        }
    }
}

impl<B: CrossEntropyRows, C: CheckpointStrategy> CrossEntropyRows for Autodiff<B, C> {
    fn class_losses(
        logits: FloatTensor<Self>,
        classes: IntTensor<Self>,
        weights: FloatTensor<Self>,
        weighted: bool,
    ) -> Losses<Self> {
        record::<B, C>(logits, Kept::Classes(classes), weights.into_primitive(), weighted)
    }

    fn share_losses(
        logits: FloatTensor<Self>,
        shares: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        weighted: bool,
    ) -> Losses<Self> {
        record::<B, C>(logits, Kept::Shares(shares.into_primitive()), weights.into_primitive(), weighted)
    }

    fn class_gradient(
        _logits: FloatTensor<Self>,
        _log_sums: FloatTensor<Self>,
        _classes: IntTensor<Self>,
        _weights: FloatTensor<Self>,
        _dy: FloatTensor<Self>,
        _weighted: bool,
    ) -> FloatTensor<Self> {
        first_order_only()
    }

    fn share_gradient(
        _logits: FloatTensor<Self>,
        _log_sums: FloatTensor<Self>,
        _shares: FloatTensor<Self>,
        _weights: FloatTensor<Self>,
        _dy: FloatTensor<Self>,
        _weighted: bool,
    ) -> FloatTensor<Self> {
        first_order_only()
    }
}

#[cfg(test)]
mod tests;
