//! Updates of many parameters in one pass, in place where nobody else holds weight, state and average.
//!
//! All arithmetic is by element, so where buffers are cut has no part in the result. SGD and the average are computed
//! without fused multiply-adds: they then equal burn's operations to the bit.

use burn_flex::FlexTensor;

use super::group::{Cut, of_each, pieces};
use super::simd::{mul_add, multiversion};
use super::{contiguous, values, values_mut};
use crate::optimizer::{AdamW, Parameter, Sgd, UpdateRule};

/// Values a thread takes at a time: with all state 320 KiB.
const PIECE: usize = 1 << 14;

/// What the update of every parameter has in common.
#[derive(Clone, Copy)]
pub(super) struct Common {
    /// Factor on gradients.
    clip: f32,
    /// Factor on averages.
    decay: f32,
    /// Factor on what weights contribute to averages.
    share: f32,
}

/// AdamW's constants.
#[derive(Clone, Copy)]
pub(super) struct Factors {
    beta1: f32,
    beta2: f32,
    eps: f32,
    /// `1 - lr · weight_decay`
    keep: f32,
    /// `lr / (1 - beta1ᵗ)`
    rate: f32,
    /// `1 / (1 - beta2ᵗ)`
    second: f32,
    common: Common,
}

impl Factors {
    fn new(rule: AdamW, common: Common) -> Self {
        let correct = |beta: f32| 1.0 - f64::from(beta).powi(rule.step as i32);
        Self {
            beta1: rule.beta1,
            beta2: rule.beta2,
            eps: rule.eps,
            keep: 1.0 - rule.lr * rule.weight_decay,
            rate: (f64::from(rule.lr) / correct(rule.beta1)) as f32,
            second: (1.0 / correct(rule.beta2)) as f32,
            common,
        }
    }
}

/// The average moved towards the weight.
#[inline(always)]
fn blend(average: f32, weight: f32, common: Common) -> f32 {
    average * common.decay + weight * common.share
}

multiversion! {
    /// Updates weights and moments, and averages unless `average` is empty.
    pub(super) fn adamw<FMA>(
        weight: &mut [f32],
        gradient: &[f32],
        first: &mut [f32],
        second: &mut [f32],
        average: &mut [f32],
        f: Factors,
    ) {
        let one = |weight: &mut f32, gradient: f32, first: &mut f32, second: &mut f32| {
            let gradient = gradient * f.common.clip;
            let m = mul_add::<FMA>(*first, f.beta1, gradient * (1.0 - f.beta1));
            let v = mul_add::<FMA>(*second, f.beta2, gradient * gradient * (1.0 - f.beta2));
            *weight = mul_add::<FMA>(*weight, f.keep, -(f.rate * m) / ((v * f.second).sqrt() + f.eps));
            *first = m;
            *second = v;
        };
        let each = weight.iter_mut().zip(gradient).zip(first).zip(second);
        if average.is_empty() {
            for (((weight, &gradient), first), second) in each {
                one(weight, gradient, first, second);
            }
        } else {
            for ((((weight, &gradient), first), second), average) in each.zip(average) {
                one(weight, gradient, first, second);
                *average = blend(*average, *weight, f.common);
            }
        }
    }
}

multiversion! {
    /// Updates weights and buffers, and averages unless `average` is empty.
    pub(super) fn sgd<FMA>(
        weight: &mut [f32],
        gradient: &[f32],
        buffer: &mut [f32],
        average: &mut [f32],
        rule: Sgd,
        common: Common,
    ) {
        let one = |weight: &mut f32, gradient: f32, buffer: &mut f32| {
            let gradient = gradient * common.clip + *weight * rule.weight_decay;
            let b = *buffer * rule.momentum + gradient;
            *weight -= (gradient + b * rule.momentum) * rule.lr;
            *buffer = b;
        };
        let each = weight.iter_mut().zip(gradient).zip(buffer);
        if average.is_empty() {
            for ((weight, &gradient), buffer) in each {
                one(weight, gradient, buffer);
            }
        } else {
            for (((weight, &gradient), buffer), average) in each.zip(average) {
                one(weight, gradient, buffer);
                *average = blend(*average, *weight, common);
            }
        }
    }
}

/// All parameters a step further.
pub(crate) fn update(
    parameters: Vec<Parameter<FlexTensor>>,
    clip: f32,
    decay: f64,
) -> Vec<Parameter<FlexTensor>> {
    let common = Common { clip, decay: decay as f32, share: (1.0 - decay) as f32 };
    // In order: where weight and average are still one tensor, the weight is copied and the average need not be.
    let mut parameters: Vec<_> =
        parameters.into_iter().map(|parameter| parameter.map(contiguous, owned)).collect();
    let parts = parameters.iter_mut().map(|parameter| Part::new(parameter, common));
    of_each(pieces(parts, PIECE), |piece| piece.into_iter().for_each(Part::update));
    parameters
}

/// A part of one parameter.
struct Part<'a> {
    weight: &'a mut [f32],
    gradient: &'a [f32],
    state: State<'a>,
    /// Empty if there is none.
    average: &'a mut [f32],
}

enum State<'a> {
    AdamW { first: &'a mut [f32], second: &'a mut [f32], factors: Factors },
    Sgd { buffer: &'a mut [f32], rule: Sgd, common: Common },
}

impl<'a> Part<'a> {
    /// All of a parameter whose tensors may be written.
    fn new(parameter: &'a mut Parameter<FlexTensor>, common: Common) -> Self {
        let state = match &mut parameter.rule {
            UpdateRule::AdamW(rule, [first, second]) => State::AdamW {
                first: writable(first),
                second: writable(second),
                factors: Factors::new(*rule, common),
            },
            UpdateRule::Sgd(rule, buffer) => State::Sgd { buffer: writable(buffer), rule: *rule, common },
        };
        Self {
            weight: writable(&mut parameter.weight),
            gradient: values(&parameter.gradient),
            state,
            average: parameter.average.as_mut().map_or(&mut [], writable),
        }
    }

    fn update(self) {
        match self.state {
            State::AdamW { first, second, factors } => {
                adamw(self.weight, self.gradient, first, second, self.average, factors);
            }
            State::Sgd { buffer, rule, common } => {
                sgd(self.weight, self.gradient, buffer, self.average, rule, common);
            }
        }
    }
}

impl Cut for Part<'_> {
    fn length(&self) -> usize {
        self.weight.len()
    }

    fn cut(self, at: usize) -> (Self, Self) {
        let (weight, weights) = self.weight.split_at_mut(at);
        let (gradient, gradients) = self.gradient.split_at(at);
        let (average, averages) = self.average.split_at_mut(at.min(self.average.len()));
        let (state, states) = match self.state {
            State::AdamW { first, second, factors } => {
                let ((first, firsts), (second, seconds)) = (first.split_at_mut(at), second.split_at_mut(at));
                (
                    State::AdamW { first, second, factors },
                    State::AdamW { first: firsts, second: seconds, factors },
                )
            }
            State::Sgd { buffer, rule, common } => {
                let (buffer, buffers) = buffer.split_at_mut(at);
                (State::Sgd { buffer, rule, common }, State::Sgd { buffer: buffers, rule, common })
            }
        };
        (
            Self { weight, gradient, state, average },
            Self { weight: weights, gradient: gradients, state: states, average: averages },
        )
    }
}

/// The tensor, or a copy of it that may be written.
fn owned(mut tensor: FlexTensor) -> FlexTensor {
    if values_mut(&mut tensor).is_none() {
        let copy = values(&contiguous(tensor.clone())).to_vec();
        tensor = super::tensor(copy, tensor.layout().shape().clone());
    }
    tensor
}

/// The values of an [`owned`] tensor.
fn writable(tensor: &mut FlexTensor) -> &mut [f32] {
    values_mut(tensor).expect("made writable above")
}
