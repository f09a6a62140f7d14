//! Residual connections around a branch that begins with layer normalisation, as a transformer's blocks are made of.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::autodiff::{Autodiff, NodeId};
use burn::backend::{Backend, Dispatch, Flex, TensorMetadata, backend_extension, tensor::FloatTensor};
use burn::tensor::Tensor;
use burn_flex::FlexTensor;

use crate::cpu::{self, pre_norm::Chosen, serves};
use crate::{layer_norm, layer_norm_reference, residual, residual_reference};

/// `x + keep · branch(layer_norm(x))` (pre-norm: Xiong et al., arXiv:2002.04745).
///
/// `x`: `[batch, tokens, width]`; `gamma`, `beta`, `eps`: of the norm, as in [`layer_norm`]; `keep`: a factor for each image as in
/// [`residual`], or 1. `branch` gets normalised tokens `[images, tokens, width]` and returns `[images, first, width]`: of the
/// first tokens, if no others are read. The result is `[batch, first, width]`.
///
/// In `f32` on the CPU the branch gets only the images whose factor is not 0, which is how stochastic depth (Huang et al.,
/// arXiv:1603.09382) saves time: the others' rows are computed neither forward nor backward. (It always gets one image.) Images
/// must not act on each other in it. GPUs, whose graphs and kernels are made for fixed shapes, compute it for all, and so does
/// the reference.
pub fn pre_norm_residual(
    x: Tensor<3>,
    [gamma, beta]: [Tensor<1>; 2],
    eps: f32,
    keep: Option<Tensor<1>>,
    branch: impl FnOnce(Tensor<3>) -> Tensor<3>,
) -> Tensor<3> {
    let served = serves(&x) && serves(&gamma) && serves(&beta) && keep.as_ref().is_none_or(serves);
    if !served {
        return composed(
            x,
            |x| layer_norm(x, gamma, beta, eps),
            branch,
            |x, branch| residual(x, branch, keep),
        );
    }
    let [batch, _, width] = x.dims();
    assert_eq!(gamma.dims(), [width], "pre_norm_residual: x {:?}, gamma {:?}", x.dims(), gamma.dims());
    assert_eq!(beta.dims(), [width], "pre_norm_residual: x {:?}, beta {:?}", x.dims(), beta.dims());
    if let Some(keep) = &keep {
        assert_eq!(keep.dims(), [batch], "pre_norm_residual: a factor for each image");
    }
    let ends = Arc::new(Ends::new(batch, keep));
    let normal = Tensor::from_dispatch(Dispatch::branch_start(
        x.clone().into_dispatch(),
        gamma.into_dispatch(),
        beta.into_dispatch(),
        eps,
        ends.clone(),
    ));
    let [images, tokens, _] = normal.dims();
    let branch = branch(normal);
    let [found, first, wide] = branch.dims();
    assert!(
        found == images && (1..=tokens).contains(&first) && wide == width && serves(&branch),
        "pre_norm_residual: the branch made {:?} of {:?} out of {:?} in f32",
        branch.dims(),
        branch.dtype(),
        [images, tokens, width]
    );
    Tensor::from_dispatch(Dispatch::branch_end(x.into_dispatch(), branch.into_dispatch(), ends))
}

/// [`pre_norm_residual`] in burn's operations.
pub fn pre_norm_residual_reference(
    x: Tensor<3>,
    [gamma, beta]: [Tensor<1>; 2],
    eps: f32,
    keep: Option<Tensor<1>>,
    branch: impl FnOnce(Tensor<3>) -> Tensor<3>,
) -> Tensor<3> {
    let norm = |x| layer_norm_reference(x, gamma, beta, eps);
    composed(x, norm, branch, |x, branch| residual_reference(x, branch, keep))
}

/// A branch of all images, added to their first tokens.
fn composed(
    x: Tensor<3>,
    norm: impl FnOnce(Tensor<3>) -> Tensor<3>,
    branch: impl FnOnce(Tensor<3>) -> Tensor<3>,
    sum: impl FnOnce(Tensor<3>, Tensor<3>) -> Tensor<3>,
) -> Tensor<3> {
    let branch = branch(norm(x.clone()));
    let ([_, tokens, _], [_, first, _]) = (x.dims(), branch.dims());
    sum(if first < tokens { x.narrow(1, 0, first) } else { x }, branch)
}

/// What the two ends of a branch know of each other.
#[derive(Debug)]
pub(crate) struct Ends {
    chosen: Chosen,
    /// Whether the backward pass has registered the gradient that `x` has from the sum.
    sum_registered: AtomicBool,
}

impl Ends {
    fn new(batch: usize, keep: Option<Tensor<1>>) -> Self {
        Self { chosen: Chosen::new(batch, keep.map(cpu::constant)), sum_registered: AtomicBool::new(false) }
    }
}

/// Both ends on the CPU backend and in its graph; other backends never get here.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait PreNormOps: Backend {
    /// Normalised tokens of the images that the branch acts on.
    fn branch_start(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        eps: f32,
        ends: Arc<Ends>,
    ) -> FloatTensor<Self>;
    /// The sum of `x` and the branch.
    fn branch_end(x: FloatTensor<Self>, branch: FloatTensor<Self>, ends: Arc<Ends>) -> FloatTensor<Self>;
}

impl PreNormOps for Flex {
    fn branch_start(
        x: FlexTensor,
        gamma: FlexTensor,
        beta: FlexTensor,
        eps: f32,
        ends: Arc<Ends>,
    ) -> FlexTensor {
        cpu::pre_norm::norm(x, gamma, beta, eps, &ends.chosen)
    }

    fn branch_end(x: FlexTensor, branch: FlexTensor, ends: Arc<Ends>) -> FlexTensor {
        cpu::pre_norm::sum(x, branch, &ends.chosen)
    }
}

impl<C: CheckpointStrategy> PreNormOps for Autodiff<Flex, C> {
    fn branch_start(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        eps: f32,
        ends: Arc<Ends>,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), gamma.node(), beta.node()];
        match StartBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let (kept_x, kept_gamma) = (prep.checkpoint(&x), prep.checkpoint(&gamma));
                let (x, gamma, beta) = (x.into_primitive(), gamma.into_primitive(), beta.into_primitive());
                let y = Flex::branch_start(x, gamma, beta, eps, ends.clone());
                prep.finish(Start { x: kept_x, gamma: kept_gamma, eps, ends }, y)
            }
            OpsKind::UnTracked(prep) => {
                let (x, gamma, beta) = (x.into_primitive(), gamma.into_primitive(), beta.into_primitive());
                prep.finish(Flex::branch_start(x, gamma, beta, eps, ends))
            }
        }
    }

    fn branch_end(x: FloatTensor<Self>, branch: FloatTensor<Self>, ends: Arc<Ends>) -> FloatTensor<Self> {
        let prepared = EndBackward.prepare::<C>([x.node(), branch.node()]).compute_bound().stateful();
        let (x, branch) = (x.into_primitive(), branch.into_primitive());
        let tokens = x.shape()[1];
        let y = Flex::branch_end(x, branch, ends.clone());
        match prepared {
            OpsKind::Tracked(prep) => prep.finish((ends, tokens), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }
}

/// What the norm's backward pass needs.
#[derive(Debug, Clone)]
struct Start {
    x: NodeId,
    gamma: NodeId,
    eps: f32,
    ends: Arc<Ends>,
}

#[derive(Debug)]
struct StartBackward;

/// Parents: `x`, gamma and beta.
impl Backward<Flex, 3> for StartBackward {
    type State = Start;

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let dy = grads.consume::<Flex>(&ops.node);
        let Start { x, gamma, eps, ends } = ops.state;
        let x = checkpointer.retrieve_node_output::<FlexTensor>(x);
        let gamma = checkpointer.retrieve_node_output::<FlexTensor>(gamma);
        // The gradient of the sum takes up the branch's, in one pass. A computed tensor requires a gradient in the way that this
        // result does; a leaf in another, and could not be taken out.
        let registered = ends.sum_registered.swap(false, Ordering::Relaxed);
        let earlier = ops.parents[0]
            .as_ref()
            .filter(|x| registered && x.requirement == ops.node.requirement)
            .map(|x| grads.consume::<Flex>(x));
        let gradients = cpu::pre_norm::norm_gradients(x, gamma, dy, eps, &ends.chosen, earlier);
        for (parent, gradient) in ops.parents.into_iter().zip(gradients) {
            if let Some(parent) = parent {
                grads.register::<Flex>(parent.id, gradient);
            }
        }
    }
}

#[derive(Debug)]
struct EndBackward;

/// Parents: `x` and the branch.
impl Backward<Flex, 2> for EndBackward {
    /// The ends, and how many tokens an image of `x` has.
    type State = (Arc<Ends>, usize);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<Flex>(&ops.node);
        let (ends, tokens) = ops.state;
        let [x, branch] = ops.parents;
        if let Some(branch) = branch {
            grads.register::<Flex>(branch.id, cpu::pre_norm::branch_gradient(dy.clone(), &ends.chosen));
        }
        if let Some(x) = x {
            grads.register::<Flex>(x.id, cpu::pre_norm::sum_gradient(dy, tokens));
            ends.sum_registered.store(true, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests;
