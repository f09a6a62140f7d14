//! Optimizer updates that pass over the memory once.

use burn::Tensor;
use burn::backend::Flex;

use crate::cpu::{self, serves};

/// The numbers of one AdamW update (Loshchilov & Hutter, arXiv:1711.05101, algorithm 2).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// Learning rate of this update.
    pub lr: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Decoupled weight decay: the weight shrinks by `lr · weight_decay`.
    pub weight_decay: f32,
    /// Number of this update, from 1.
    pub step: u32,
}

/// One AdamW update: takes weight, gradient and both moments, returns the new weight and moments.
///
/// All four have one shape and lie outside the graph. Weight and moments are overwritten where the caller
/// has given up the only handle to them, else copied.
pub fn adamw<const D: usize>(
    weight: Tensor<D>,
    grad: Tensor<D>,
    first: Tensor<D>,
    second: Tensor<D>,
    rule: AdamW,
) -> [Tensor<D>; 3] {
    for (name, dims) in [("grad", grad.dims()), ("first", first.dims()), ("second", second.dims())] {
        assert_eq!(dims, weight.dims(), "adamw: the shape of `{name}` is not the weight's");
    }
    #[cfg(feature = "cube")]
    if [&weight, &grad, &first, &second].into_iter().all(crate::choice::on_gpu_plain) {
        use crate::gpu::adamw::{Weight, step};
        let state = Weight { weight, moments: [first, second], average: None };
        let Weight { weight, moments: [first, second], .. } = step(state, grad, None, rule);
        return [weight, first, second];
    }
    let plain = |tensor: &Tensor<D>| serves(tensor) && !tensor.device().is_autodiff();
    if ![&weight, &grad, &first, &second].into_iter().all(plain) {
        return adamw_reference(weight, grad, first, second, rule);
    }
    let [weight, grad, first, second] = [weight, grad, first, second].map(|tensor| {
        tensor.try_into_primitive::<Flex>().expect("a plain tensor of the CPU backend, as just checked")
    });
    cpu::adamw::step(weight, grad, [first, second], rule).map(Tensor::from_primitive::<Flex>)
}

/// [`adamw`] in burn's operations.
pub fn adamw_reference<const D: usize>(
    weight: Tensor<D>,
    grad: Tensor<D>,
    first: Tensor<D>,
    second: Tensor<D>,
    rule: AdamW,
) -> [Tensor<D>; 3] {
    let first = first.mul_scalar(rule.beta1) + grad.clone().mul_scalar(1.0 - rule.beta1);
    let second = second.mul_scalar(rule.beta2) + grad.square().mul_scalar(1.0 - rule.beta2);
    let correct1 = 1.0 - f64::from(rule.beta1).powi(rule.step as i32);
    let correct2 = 1.0 - f64::from(rule.beta2).powi(rule.step as i32);
    let denominator = second.clone().div_scalar(correct2 as f32).sqrt().add_scalar(rule.eps);
    let step = first.clone().div_scalar(correct1 as f32) / denominator;
    let weight = weight.mul_scalar(1.0 - rule.lr * rule.weight_decay) - step.mul_scalar(rule.lr);
    [weight, first, second]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::{assert_close, assert_same_in_all_pools, random, read};
    use burn::tensor::Device;

    type Update = fn(Tensor<2>, Tensor<2>, Tensor<2>, Tensor<2>, AdamW) -> [Tensor<2>; 3];

    /// Weight and moments after five updates.
    fn run(shape: [usize; 2], update: Update) -> Vec<Vec<f32>> {
        let device = Device::flex();
        let mut state =
            [random(shape, 1, &device), Tensor::zeros(shape, &device), Tensor::zeros(shape, &device)];
        for step in 1..=5 {
            let rule = AdamW { lr: 0.01, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.05, step };
            let [weight, first, second] = state;
            state = update(weight, random(shape, 1 + u64::from(step), &device), first, second, rule);
        }
        state.map(read).to_vec()
    }

    #[test]
    fn fused_adamw_equals_its_reference_over_several_steps() {
        for shape in [[1, 1], [3, 7], [129, 257]] {
            for (found, expected) in run(shape, adamw).iter().zip(&run(shape, adamw_reference)) {
                assert_close("adamw", found, expected, 1e-6);
            }
        }
    }

    #[test]
    fn adamw_leaves_shared_tensors_and_views_alone() {
        let device = Device::flex();
        let rule = AdamW { lr: 0.1, beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.0, step: 1 };
        let weight = random([9, 5], 1, &device).swap_dims(0, 1);
        let (kept, moment) = (weight.clone(), Tensor::zeros([5, 9], &device));
        let before = read(kept.clone());
        let grad = random([5, 9], 2, &device);
        let found = adamw(weight, grad.clone(), moment.clone(), moment.clone(), rule);
        assert_eq!(read(kept.clone()), before);
        assert_eq!(read(moment.clone()), vec![0.0; 45]);
        let expected = adamw_reference(kept, grad, moment.clone(), moment, rule);
        for (found, expected) in found.map(read).iter().zip(&expected.map(read)) {
            assert_close("views", found, expected, 1e-6);
        }
    }

    #[test]
    fn adamw_does_not_depend_on_the_number_of_threads() {
        assert_same_in_all_pools(|| run([300, 301], adamw));
    }
}
