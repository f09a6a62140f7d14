//! A residual connection against its reference: what a branch sees, and how its gradients meet others.

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
        let y =
            pre_norm_residual(x.clone(), norm, EPS, Some(Tensor::from_data(factors, &device)), |normal| {
                seen = Some(read(normal.clone()));
                normal
            });
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
