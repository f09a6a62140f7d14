//! Softmax and cross-entropy.

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::autodiff::{Autodiff, NodeId};
use burn::backend::{Backend, Dispatch, Flex, backend_extension, tensor::FloatTensor};
use burn::tensor::activation::log_softmax;
use burn::tensor::{Int, Tensor};
use burn_flex::FlexTensor;

use crate::cpu::cross_entropy::{Aim, Total, Wanted};
use crate::cpu::softmax::Normaliser;
use crate::cpu::{self, constant, serves, serves_classes};

/// What each row of logits should be predicted as.
#[derive(Debug, Clone)]
pub enum ClassTargets {
    /// One class each, from 0 to `C - 1`: `[N]`.
    Hard(Tensor<1, Int>),
    /// Shares of the classes: `[N, C]`. They need not sum to 1.
    Soft(Tensor<2>),
}

/// Cross-entropy of each row, `CE_n = -Σ_c target_nc ln softmax(logits)_nc` in nats: `[N, C]` → `[N]`.
///
/// A logit that is not a number makes the loss of its row not a number. On the CPU and on GPUs the gradient,
/// `(Σ_c target_nc) softmax(logits)_n - target_n`, is one pass over the logits; where targets are in a graph themselves,
/// burn's operations compute it.
///
/// # Panics
/// If targets are of other rows or classes than logits; on the CPU also if a class is not below `C`.
pub fn cross_entropy_rows(logits: Tensor<2>, targets: ClassTargets) -> Tensor<1> {
    check(&logits, &targets, None, None);
    match fused(&logits, &targets, None, None) {
        true => run(logits, targets, None, None),
        false => rows_there(logits, targets, None),
    }
}

/// [`cross_entropy_rows`] in burn's operations.
pub fn cross_entropy_rows_reference(logits: Tensor<2>, targets: ClassTargets) -> Tensor<1> {
    weighted_rows(logits, targets, None)
}

/// Cross-entropy of all rows in one number, `[1]`:
///
/// ```text
/// L    = Σ_n mask_n CE_n / divisor
/// CE_n = -Σ_c w_c target_nc ln softmax(logits)_nc          w_c = 1 without class weights
/// ```
///
/// `logits`: `[N, C]`; `class_weights` `w`: `[C]`; `mask`, how much each row counts: `[N]`, all 1 if unset. A row that does not
/// count still shows, in the result, a logit that is not a number. Otherwise as [`cross_entropy_rows`].
///
/// # Panics
/// As [`cross_entropy_rows`], and if weights or mask are of other classes or rows than logits.
pub fn cross_entropy(
    logits: Tensor<2>,
    targets: ClassTargets,
    class_weights: Option<Tensor<1>>,
    mask: Option<Tensor<1>>,
    divisor: f32,
) -> Tensor<1> {
    check(&logits, &targets, class_weights.as_ref(), mask.as_ref());
    if !fused(&logits, &targets, class_weights.as_ref(), mask.as_ref()) {
        return summed(rows_there(logits, targets, class_weights), mask, divisor);
    }
    let total = Total { mask: mask.map(constant), divisor };
    run(logits, targets, class_weights, Some(total))
}

/// [`cross_entropy`] in burn's operations.
pub fn cross_entropy_reference(
    logits: Tensor<2>,
    targets: ClassTargets,
    class_weights: Option<Tensor<1>>,
    mask: Option<Tensor<1>>,
    divisor: f32,
) -> Tensor<1> {
    summed(weighted_rows(logits, targets, class_weights), mask, divisor)
}

fn summed(rows: Tensor<1>, mask: Option<Tensor<1>>, divisor: f32) -> Tensor<1> {
    let rows = match mask {
        Some(mask) => rows * mask,
        None => rows,
    };
    rows.sum().div_scalar(divisor)
}

/// The loss of each row where the logits lie: on a GPU in one kernel, else in burn's operations.
fn rows_there(logits: Tensor<2>, targets: ClassTargets, class_weights: Option<Tensor<1>>) -> Tensor<1> {
    #[cfg(feature = "cube")]
    {
        use crate::choice::{on_gpu, serves_beside};
        let targets_there = match &targets {
            ClassTargets::Hard(classes) => classes.device() == logits.device(),
            ClassTargets::Soft(shares) => serves_beside(shares, &logits) && !shares.is_tracked(),
        };
        let weights_there = |weights: &Tensor<1>| serves_beside(weights, &logits) && !weights.is_tracked();
        if on_gpu(&logits) && targets_there && class_weights.as_ref().is_none_or(weights_there) {
            return crate::gpu::cross_entropy::rows(logits, targets, class_weights);
        }
    }
    weighted_rows(logits, targets, class_weights)
}

fn weighted_rows(logits: Tensor<2>, targets: ClassTargets, class_weights: Option<Tensor<1>>) -> Tensor<1> {
    let log_probabilities = log_softmax(logits, 1);
    match targets {
        ClassTargets::Hard(classes) => {
            let [rows] = classes.dims();
            let found = log_probabilities.gather(1, classes.clone().reshape([rows, 1]));
            let found = found.squeeze_dim::<1>(1).neg();
            match class_weights {
                Some(weights) => found * weights.select(0, classes),
                None => found,
            }
        }
        ClassTargets::Soft(targets) => {
            let targets = match class_weights {
                Some(weights) => targets * weights.unsqueeze_dim(0),
                None => targets,
            };
            (log_probabilities * targets).sum_dim(1).squeeze_dim::<1>(1).neg()
        }
    }
}

fn check(
    logits: &Tensor<2>,
    targets: &ClassTargets,
    class_weights: Option<&Tensor<1>>,
    mask: Option<&Tensor<1>>,
) {
    let [rows, classes] = logits.dims();
    match targets {
        ClassTargets::Hard(targets) => {
            assert_eq!(targets.dims(), [rows], "cross_entropy: a class for each row of logits");
        }
        ClassTargets::Soft(targets) => {
            assert_eq!(targets.dims(), [rows, classes], "cross_entropy: a share for each logit");
        }
    }
    if let Some(weights) = class_weights {
        assert_eq!(weights.dims(), [classes], "cross_entropy: a weight for each class");
    }
    if let Some(mask) = mask {
        assert_eq!(mask.dims(), [rows], "cross_entropy: a mask for each row of logits");
    }
}

/// Whether the operation below may serve: the CPU backend, nothing but the logits in a graph.
fn fused(
    logits: &Tensor<2>,
    targets: &ClassTargets,
    class_weights: Option<&Tensor<1>>,
    mask: Option<&Tensor<1>>,
) -> bool {
    let constant = |tensor: Option<&Tensor<1>>| tensor.is_none_or(|t| serves(t) && !t.is_tracked());
    let targets = match targets {
        ClassTargets::Hard(classes) => serves_classes(classes),
        ClassTargets::Soft(targets) => serves(targets) && !targets.is_tracked(),
    };
    serves(logits) && targets && constant(class_weights) && constant(mask)
}

fn run(
    logits: Tensor<2>,
    targets: ClassTargets,
    class_weights: Option<Tensor<1>>,
    total: Option<Total>,
) -> Tensor<1> {
    let targets = match targets {
        ClassTargets::Hard(targets) => Wanted::Classes(cpu::classes(targets, logits.dims()[1])),
        ClassTargets::Soft(targets) => Wanted::Shares(constant(targets)),
    };
    let aim = Arc::new(Aim { targets, class_weights: class_weights.map(constant), total });
    Tensor::from_dispatch(Dispatch::cross_entropy_forward(logits.into_dispatch(), aim))
}

/// The operation on the CPU backend and in its graph; other backends never get here.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait CrossEntropyOps: Backend {
    /// See [`cross_entropy`].
    fn cross_entropy_forward(logits: FloatTensor<Self>, aim: Arc<Aim>) -> FloatTensor<Self>;
}

impl CrossEntropyOps for Flex {
    fn cross_entropy_forward(logits: FlexTensor, aim: Arc<Aim>) -> FlexTensor {
        cpu::cross_entropy::forward(logits, &aim).0
    }
}

impl<C: CheckpointStrategy> CrossEntropyOps for Autodiff<Flex, C> {
    fn cross_entropy_forward(logits: FloatTensor<Self>, aim: Arc<Aim>) -> FloatTensor<Self> {
        match CrossEntropyBackward.prepare::<C>([logits.node()]).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let input = prep.checkpoint(&logits);
                let (loss, normalisers) = cpu::cross_entropy::forward(logits.into_primitive(), &aim);
                prep.finish(Kept { logits: input, aim, normalisers }, loss)
            }
            OpsKind::UnTracked(prep) => {
                prep.finish(Flex::cross_entropy_forward(logits.into_primitive(), aim))
            }
        }
    }
}

/// What the backward pass needs.
#[derive(Debug, Clone)]
struct Kept {
    logits: NodeId,
    aim: Arc<Aim>,
    normalisers: Arc<[Normaliser]>,
}

#[derive(Debug)]
struct CrossEntropyBackward;

impl Backward<Flex, 1> for CrossEntropyBackward {
    type State = Kept;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let gradient = grads.consume::<Flex>(&ops.node);
        let Kept { logits, aim, normalisers } = ops.state;
        let logits = checkpointer.retrieve_node_output::<FlexTensor>(logits);
        if let [Some(parent)] = ops.parents {
            let gradient = cpu::cross_entropy::backward(logits, &aim, &normalisers, gradient);
            grads.register::<Flex>(parent.id, gradient);
        }
    }
}

#[cfg(test)]
mod tests;
