//! Optimizer updates that pass over the memory once.

use burn::Tensor;

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
pub fn adamw<const D: usize>(
    weight: Tensor<D>,
    grad: Tensor<D>,
    first: Tensor<D>,
    second: Tensor<D>,
    rule: AdamW,
) -> [Tensor<D>; 3] {
    adamw_reference(weight, grad, first, second, rule)
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
