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
mod tests {
    use super::*;
    use crate::cpu::testing::{assert_close, assert_same_in_all_pools, noise, random, read};
    use burn::tensor::{Device, TensorData};
    use proptest::prelude::*;

    const EPS: f32 = 1e-6;

    #[derive(Debug, Clone, Copy)]
    struct Case {
        shape: [usize; 3],
        /// Tokens that the branch returns.
        first: usize,
        /// Which images are kept; `None`: there are no factors.
        kept: Option<u64>,
        /// Whether `x` is a leaf of the graph, or the result of an operation as in a network.
        leaf: bool,
        /// Whether `x` and the parameters are tracked.
        tracked: [bool; 2],
    }

    impl Case {
        fn keep(&self, device: &Device) -> Option<Tensor<1>> {
            let factor = |image: usize| if self.kept? >> image & 1 == 1 { Some(1.25) } else { Some(0.0) };
            let factors: Option<Vec<f32>> = (0..self.shape[0]).map(factor).collect();
            factors.map(|factors| Tensor::from_data(TensorData::new(factors, [self.shape[0]]), device))
        }

        /// Output and the gradients of what is tracked of `x`, gamma, beta and a parameter in the branch.
        fn run(&self, fused: bool) -> Vec<Vec<f32>> {
            let device = Device::flex().autodiff();
            let [_, _, width] = self.shape;
            let x = (random(self.shape, 1, &device) * 2.0).detach().set_require_grad(self.tracked[0]);
            let [gamma, beta, factor] =
                [2, 3, 4].map(|seed| random([width], seed, &device).set_require_grad(self.tracked[1]));
            let input = if self.leaf { x.clone() } else { x.clone() * 1.5 };
            let branch = |normal: Tensor<3>| {
                // Not linear, and tokens of an image act on each other.
                let mixed = normal.clone().tanh() + normal.mean_dim(1);
                mixed.narrow(1, 0, self.first) * factor.clone().unsqueeze()
            };
            let (norm, keep) = ([gamma.clone(), beta.clone()], self.keep(&device.clone().inner()));
            let y = if fused {
                pre_norm_residual(input, norm, EPS, keep, branch)
            } else {
                pre_norm_residual_reference(input, norm, EPS, keep, branch)
            };
            let mut found = vec![read(y.clone().inner())];
            if self.tracked.contains(&true) {
                let grads = (y.clone() * random(y.dims(), 5, &device)).sum().backward();
                found.extend(x.grad(&grads).map(read));
                found.extend([gamma, beta, factor].iter().filter_map(|t| t.grad(&grads).map(read)));
            }
            found
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn equals_its_reference(
            shape in (1usize..6, 1usize..300, 2usize..40),
            cut: prop::sample::Index,
            kept: Option<u64>,
            leaf: bool,
            tracked: [bool; 2],
        ) {
            let case = Case { shape: shape.into(), first: 1 + cut.index(shape.1), kept, leaf, tracked };
            let (found, expected) = (case.run(true), case.run(false));
            prop_assert_eq!(found.len(), expected.len());
            for (index, (found, expected)) in found.iter().zip(&expected).enumerate() {
                // Narrow rows can have a variance near 0, which magnifies rounding.
                assert_close(&format!("number {index}"), found, expected, if shape.2 < 8 { 1e-3 } else { 3e-5 });
            }
        }
    }

    /// Three images of several pieces each; the second image is dropped.
    const CASE: Case =
        Case { shape: [3, 300, 40], first: 300, kept: Some(0b101), leaf: false, tracked: [true; 2] };

    #[test]
    fn gradients_agree_with_differences() {
        let device = Device::flex();
        let sum = |x: Vec<f32>| -> f64 {
            let x = Tensor::from_data(TensorData::new(x, [2, 3, 8]), &device);
            let norm = [random([8], 2, &device), random([8], 3, &device)];
            let keep = Tensor::from_data([0.0f32, 2.0], &device);
            let y = pre_norm_residual(x, norm, EPS, Some(keep), |normal| normal.clone() * normal);
            read(y * random([2, 3, 8], 4, &device)).iter().map(|value| f64::from(*value)).sum()
        };
        let tracked = device.clone().autodiff();
        let values = noise(48, 1);
        let x = Tensor::<3>::from_data(TensorData::new(values.clone(), [2, 3, 8]), &tracked).require_grad();
        let norm = [random([8], 2, &tracked), random([8], 3, &tracked)];
        let keep = Tensor::from_data([0.0f32, 2.0], &device);
        let y = pre_norm_residual(x.clone() * 1.0, norm, EPS, Some(keep), |normal| normal.clone() * normal);
        let grads = (y * random([2, 3, 8], 4, &tracked)).sum().backward();
        let found = read(x.grad(&grads).expect("tracked"));
        for (index, found) in found.iter().enumerate() {
            let moved = |by: f32| {
                let mut values = values.clone();
                values[index] += by;
                sum(values)
            };
            let expected = (moved(1e-2) - moved(-1e-2)) / 2e-2;
            assert!((f64::from(*found) - expected).abs() < 2e-2, "{index}: {found}, differences {expected}");
        }
    }

    #[test]
    fn a_branch_sees_only_the_images_it_is_kept_for() {
        let device = Device::flex();
        let seen = |factors: [f32; 3]| {
            let (x, norm) =
                (random([3, 2, 4], 1, &device), [Tensor::ones([4], &device), Tensor::zeros([4], &device)]);
            let mut seen = None;
            let y = pre_norm_residual(
                x.clone(),
                norm,
                EPS,
                Some(Tensor::from_data(factors, &device)),
                |normal| {
                    seen = Some(read(normal.clone()));
                    normal
                },
            );
            let first = |t: Tensor<3>| read(t.narrow(0, 0, 1));
            assert_eq!(first(y) == first(x.clone()), factors[0] == 0.0);
            let all = read(layer_norm(x, Tensor::ones([4], &device), Tensor::zeros([4], &device), EPS));
            let seen = seen.expect("the branch was computed");
            all.chunks(8).map(|image| seen.chunks(8).any(|other| other == image)).collect::<Vec<_>>()
        };
        assert_eq!(seen([0.0, 2.0, 2.0]), [false, true, true]);
        assert_eq!(seen([2.0, 0.0, 0.0]), [true, false, false]);
        // One image for its gradients, which are 0.
        assert_eq!(seen([0.0; 3]), [true, false, false]);
    }

    #[test]
    fn a_dropped_branch_need_not_be_finite() {
        let device = Device::flex().autodiff();
        for (first, factors) in [([1.0, 1.0], [1.0f32, 0.0]), ([f32::INFINITY, 2.0], [0.0, 0.0])] {
            let x = Tensor::<3>::from_data([[first], [[f32::INFINITY, 3.0]]], &device).require_grad();
            let norm = [Tensor::ones([2], &device), Tensor::zeros([2], &device)];
            let keep = Some(Tensor::from_data(factors, &device.clone().inner()));
            let y = read(pre_norm_residual(x * 1.0, norm, EPS, keep, |normal| normal).inner());
            assert_eq!(y, [first, [f32::INFINITY, 3.0]].concat());
        }
    }

    #[test]
    fn what_else_reads_x_adds_to_its_gradient() {
        let device = Device::flex().autodiff();
        let gradients = |connect: fn(Tensor<3>, [Tensor<1>; 2], &Tensor<1>, &Tensor<3>) -> Tensor<3>| {
            // A view.
            let x = random([5, 3, 8], 1, &device).require_grad();
            let input = (x.clone() * 1.5).swap_dims(0, 1).narrow(1, 1, 4);
            let norm = [2, 3].map(|seed| random([8], seed, &device).require_grad());
            let (factor, shift) =
                (random([8], 4, &device).require_grad(), random([3, 4, 8], 5, &device).require_grad());
            let before = input.clone() * random([3, 4, 8], 6, &device);
            // Two branches from the same tensor, and both behind each other.
            let one = connect(input.clone(), norm.clone(), &factor, &shift);
            let other = connect(input.clone(), norm.clone(), &factor, &shift);
            let last = connect(one + other, norm.clone(), &factor, &shift);
            let loss = ((last + before) * random([3, 4, 8], 7, &device)).sum() + (input * 0.5).tanh().sum();
            let grads = loss.backward();
            let [gamma, beta] = norm;
            let mut found =
                vec![read(x.grad(&grads).expect("tracked")), read(shift.grad(&grads).expect("tracked"))];
            found.extend([gamma, beta, factor].map(|t| read(t.grad(&grads).expect("tracked"))));
            found
        };
        // Without factors, a gradient of the sum is that of `shift` too: in the same memory.
        let found = gradients(|x, norm, factor, shift| {
            pre_norm_residual(x, norm, EPS, None, |n| n.tanh() * factor.clone().unsqueeze() + shift.clone())
        });
        let expected = gradients(|x, norm, factor, shift| {
            pre_norm_residual_reference(x, norm, EPS, None, |n| {
                n.tanh() * factor.clone().unsqueeze() + shift.clone()
            })
        });
        for (found, expected) in found.iter().zip(&expected) {
            assert_close("gradient", found, expected, 3e-5);
        }
    }

    #[test]
    fn gradients_that_do_not_pass_the_branch_are_kept() {
        let device = Device::flex().autodiff();
        let x = random([2, 3, 8], 1, &device).require_grad();
        let norm = [random([8], 2, &device), random([8], 3, &device)];
        let constant = random([2, 3, 8], 4, &device);
        let y = pre_norm_residual(x.clone() * 2.0, norm, EPS, None, |_| constant);
        let grads = y.sum().backward();
        assert_eq!(read(x.grad(&grads).expect("tracked")), [2.0; 48]);
    }

    #[test]
    fn does_not_depend_on_the_number_of_threads() {
        assert_same_in_all_pools(|| CASE.run(true));
    }
}
