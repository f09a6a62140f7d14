//! Residual connections with stochastic depth.

use burn::backend::autodiff::Autodiff;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::{Backend, Dispatch, Flex, TensorMetadata, backend_extension, tensor::FloatTensor};
use burn::tensor::Tensor;
use burn_flex::FlexTensor;

use crate::choice::{first_order_only, serves, serves_beside};
use crate::cpu;

/// `x + keep · branch`, `keep` a factor for each image, or 1.
///
/// For stochastic depth (Huang et al., arXiv:1603.09382) `keep` is 0 for a dropped image, else one over the probability of
/// staying. `x`, `branch`: `[batch, ..]`, of one shape; `keep`: `[batch]`, outside the graph: it gets no gradient.
pub fn residual<const D: usize>(x: Tensor<D>, branch: Tensor<D>, keep: Option<Tensor<1>>) -> Tensor<D> {
    assert_eq!(x.dims(), branch.dims(), "residual: the shapes of both sides");
    if let Some(keep) = &keep {
        assert_eq!(keep.dims(), [x.dims()[0]], "residual: a factor for each image");
    }
    if !(serves(&x) && serves_beside(&branch, &x) && keep.as_ref().is_none_or(|keep| serves_beside(keep, &x)))
    {
        return residual_reference(x, branch, keep);
    }
    let (x, branch) = (x.into_dispatch(), branch.into_dispatch());
    Tensor::from_dispatch(match keep {
        Some(keep) => Dispatch::scaled_residual_forward(x, branch, keep.into_dispatch()),
        None => Dispatch::residual_forward(x, branch),
    })
}

/// [`residual`] in burn's operations.
pub fn residual_reference<const D: usize>(
    x: Tensor<D>,
    branch: Tensor<D>,
    keep: Option<Tensor<1>>,
) -> Tensor<D> {
    let Some(keep) = keep else { return x + branch };
    let mut shape = [1; D];
    shape[0] = x.dims()[0];
    x + branch * keep.detach().reshape(shape)
}

/// The operation on every backend, and in its graph. Only the CPU has a kernel: on GPUs burn merges the sum with what is
/// around it, and a kernel of ours would stand in the way.
#[backend_extension(Flex, Cube: cfg(feature = "cube"), Fusion: cfg(feature = "cube"), Autodiff)]
pub(crate) trait ResidualOps: Backend {
    /// See [`residual`].
    #[fusion(default)]
    fn scaled_residual_forward(
        x: FloatTensor<Self>,
        branch: FloatTensor<Self>,
        keep: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        Self::float_add(x, Self::scaled_residual_backward(branch, keep))
    }
    /// [`residual`] without factors.
    #[fusion(default)]
    fn residual_forward(x: FloatTensor<Self>, branch: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::float_add(x, branch)
    }
    /// The gradient of `branch`, given that of the output.
    #[fusion(default)]
    fn scaled_residual_backward(dy: FloatTensor<Self>, keep: FloatTensor<Self>) -> FloatTensor<Self> {
        let mut shape = vec![1; dy.shape().num_dims()];
        shape[0] = dy.shape()[0];
        Self::float_mul(dy, Self::float_reshape(keep, shape.into()))
    }
}

impl ResidualOps for Flex {
    fn scaled_residual_forward(x: FlexTensor, branch: FlexTensor, keep: FlexTensor) -> FlexTensor {
        cpu::residual::forward(x, branch, Some(keep))
    }

    fn residual_forward(x: FlexTensor, branch: FlexTensor) -> FlexTensor {
        cpu::residual::forward(x, branch, None)
    }

    fn scaled_residual_backward(dy: FlexTensor, keep: FlexTensor) -> FlexTensor {
        cpu::residual::backward(dy, keep)
    }
}

#[cfg(feature = "cube")]
impl ResidualOps for burn_cubecl::CubeBackend {}

impl<B: ResidualOps, C: CheckpointStrategy> ResidualOps for Autodiff<B, C> {
    fn scaled_residual_forward(
        x: FloatTensor<Self>,
        branch: FloatTensor<Self>,
        keep: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        record::<B, C>(x, branch, Some(keep.into_primitive()))
    }

    fn residual_forward(x: FloatTensor<Self>, branch: FloatTensor<Self>) -> FloatTensor<Self> {
        record::<B, C>(x, branch, None)
    }

    fn scaled_residual_backward(_dy: FloatTensor<Self>, _keep: FloatTensor<Self>) -> FloatTensor<Self> {
        first_order_only()
    }
}

/// Computes the sum and records it if one side is tracked.
fn record<B: ResidualOps, C: CheckpointStrategy>(
    x: FloatTensor<Autodiff<B, C>>,
    branch: FloatTensor<Autodiff<B, C>>,
    keep: Option<FloatTensor<B>>,
) -> FloatTensor<Autodiff<B, C>> {
    let prepared = ResidualBackward.prepare::<C>([x.node(), branch.node()]).compute_bound().stateful();
    let (x, branch) = (x.into_primitive(), branch.into_primitive());
    let y = match keep.clone() {
        Some(keep) => B::scaled_residual_forward(x, branch, keep),
        None => B::residual_forward(x, branch),
    };
    match prepared {
        OpsKind::Tracked(prep) => prep.finish(keep, y),
        OpsKind::UnTracked(prep) => prep.finish(y),
    }
}

#[derive(Debug)]
struct ResidualBackward;

impl<B: ResidualOps> Backward<B, 2> for ResidualBackward {
    /// The factors.
    type State = Option<FloatTensor<B>>;

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let [x, branch] = ops.parents;
        if let Some(x) = x {
            grads.register::<B>(x.id, dy.clone());
        }
        if let Some(branch) = branch {
            let gradient = match ops.state {
                Some(keep) => B::scaled_residual_backward(dy, keep),
                None => dy,
            };
            grads.register::<B>(branch.id, gradient);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::{assert_close, assert_same_in_all_pools, random, read};
    use burn::tensor::Device;

    type Residual = fn(Tensor<3>, Tensor<3>, Option<Tensor<1>>) -> Tensor<3>;

    /// Output and both gradients.
    fn run(shape: [usize; 3], scaled: bool, residual: Residual) -> Vec<Vec<f32>> {
        let device = Device::flex().autodiff();
        let [x, branch] = [1, 2].map(|seed| random(shape, seed, &device).require_grad());
        let keep = scaled.then(|| random([shape[0]], 3, &device));
        // The branch is the result of an operation, as in a model, so that its memory may be reused.
        let y = residual(x.clone(), branch.clone() * 2.0, keep);
        let grads = (y.clone() * random(shape, 4, &device)).sum().backward();
        let gradient = |t: Tensor<3>| read(t.grad(&grads).expect("tracked"));
        vec![read(y.inner()), gradient(x), gradient(branch)]
    }

    #[test]
    fn fused_residual_equals_its_reference() {
        for shape in [[1, 1, 1], [5, 7, 3], [3, 257, 64], [40, 1, 5], [2, 1000, 33]] {
            for scaled in [false, true] {
                let (found, expected) =
                    (run(shape, scaled, residual), run(shape, scaled, residual_reference));
                for (found, expected) in found.iter().zip(&expected) {
                    assert_close("residual", found, expected, 1e-6);
                }
            }
        }
    }

    #[test]
    fn residual_leaves_other_holders_of_the_branch_alone() {
        let device = Device::flex();
        let (x, branch) = (random([2, 9, 4], 1, &device), random([2, 9, 4], 2, &device));
        let before = read(branch.clone());
        let y = residual(x, branch.clone(), Some(random([2], 3, &device)));
        assert_eq!(read(branch), before);
        assert_ne!(read(y), before);
    }

    #[test]
    fn residual_does_not_depend_on_the_number_of_threads() {
        assert_same_in_all_pools(|| run([7, 257, 48], true, residual));
    }
}
