//! The AdamW update in one pass, in place where nobody else holds weight and moments.

use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::simd::{mul_add, multiversion};
use super::{contiguous, owned, values, writable};
use crate::AdamW;

/// Values a thread takes at a time.
const PIECE: usize = 1 << 14;

/// The update's constants.
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
}

multiversion! {
    /// Updates weights and moments.
    pub(super) fn update<FMA>(weight: &mut [f32], gradient: &[f32], first: &mut [f32], second: &mut [f32], f: Factors) {
        for (((weight, &gradient), first), second) in weight.iter_mut().zip(gradient).zip(first).zip(second) {
            let m = mul_add::<FMA>(*first, f.beta1, gradient * (1.0 - f.beta1));
            let v = mul_add::<FMA>(*second, f.beta2, gradient * gradient * (1.0 - f.beta2));
            *weight = mul_add::<FMA>(*weight, f.keep, -(f.rate * m) / ((v * f.second).sqrt() + f.eps));
            *first = m;
            *second = v;
        }
    }
}

/// The new weight and moments; all four tensors have the same shape.
pub(crate) fn step(
    weight: FlexTensor,
    gradient: FlexTensor,
    moments: [FlexTensor; 2],
    rule: AdamW,
) -> [FlexTensor; 3] {
    let correct = |beta: f32| 1.0 - f64::from(beta).powi(rule.step as i32);
    let factors = Factors {
        beta1: rule.beta1,
        beta2: rule.beta2,
        eps: rule.eps,
        keep: 1.0 - rule.lr * rule.weight_decay,
        rate: (f64::from(rule.lr) / correct(rule.beta1)) as f32,
        second: (1.0 / correct(rule.beta2)) as f32,
    };
    let gradient = contiguous(gradient);
    let [first, second] = moments;
    let [mut weight, mut first, mut second] = [weight, first, second].map(owned);
    let (w, g) = (writable(&mut weight), values(&gradient));
    let (m, v) = (writable(&mut first), writable(&mut second));
    if w.len() <= PIECE {
        // Waking the pool would take longer: most parameters are small.
        update(w, g, m, v, factors);
    } else {
        let weights = w.par_chunks_mut(PIECE).zip(g.par_chunks(PIECE));
        let moments = m.par_chunks_mut(PIECE).zip(v.par_chunks_mut(PIECE));
        weights.zip(moments).for_each(|((w, g), (m, v))| update(w, g, m, v, factors));
    }
    [weight, first, second]
}
