//! Softmax and cross-entropy of rows in one pass: of the probabilities nothing is kept but two numbers a row, from which the
//! backward pass computes them anew.

use std::sync::Arc;

use burn_flex::FlexTensor;

use super::memory::{copied, filled, fresh};
use super::simd::{multiversion, sum};
use super::softmax::{Normaliser, for_each_part, matrix, replace, rows_at_a_time};
use super::{contiguous, tensor, values};

/// What logits `[N, C]` are held against, and what becomes of the loss of each row; constants.
#[derive(Debug, Clone)]
pub(crate) struct Aim {
    pub(crate) targets: Wanted,
    /// How much each class weighs: `[C]`.
    pub(crate) class_weights: Option<FlexTensor>,
    /// Unset, every row's loss is a result.
    pub(crate) total: Option<Total>,
}

/// The target of each row.
#[derive(Debug, Clone)]
pub(crate) enum Wanted {
    /// One class each, all below `C`.
    Classes(Arc<[u32]>),
    /// Shares of the classes: `[N, C]`, contiguous.
    Shares(FlexTensor),
}

/// One number of all rows: `Σ_n mask_n loss_n / divisor`.
#[derive(Debug, Clone)]
pub(crate) struct Total {
    /// `[N]`.
    pub(crate) mask: Option<FlexTensor>,
    pub(crate) divisor: f32,
}

/// [`Wanted`] of some rows.
#[derive(Clone, Copy)]
pub(super) enum Targets<'a> {
    Classes(&'a [u32]),
    Shares(&'a [f32]),
}

impl Wanted {
    /// Those of the rows from `first` on, each of `width` classes.
    fn rows_from(&self, first: usize, width: usize) -> Targets<'_> {
        match self {
            Self::Classes(classes) => Targets::Classes(&classes[first..]),
            Self::Shares(shares) => Targets::Shares(&values(shares)[first * width..]),
        }
    }
}

multiversion! {
    /// The normaliser and the loss of each row of `width` logits.
    pub(super) fn losses<FMA>(
        x: &[f32],
        width: usize,
        targets: Targets<'_>,
        class_weights: Option<&[f32]>,
        normalisers: &mut [Normaliser],
        losses: &mut [f32],
    ) {
        for (n, ((x, normaliser), loss)) in x.chunks_exact(width).zip(normalisers).zip(losses).enumerate() {
            let of = Normaliser::of::<FMA>(x);
            *normaliser = of;
            *loss = match (targets, class_weights) {
                (Targets::Classes(classes), weights) => {
                    let class = classes[n] as usize;
                    weights.map_or(1.0, |weights| weights[class]) * of.surprise(x[class])
                }
                (Targets::Shares(shares), None) => {
                    let shares = &shares[n * width..][..width];
                    sum([shares, x], |[share, x]| share * of.surprise(x))
                }
                (Targets::Shares(shares), Some(weights)) => {
                    let (shares, weights) = (&shares[n * width..][..width], &weights[..width]);
                    sum([weights, shares, x], |[weight, share, x]| weight * share * of.surprise(x))
                }
            };
        }
    }
}

multiversion! {
    /// Each row of `width` logits becomes its gradient: `factor · (Σ target · softmax - target)`.
    pub(super) fn gradients<FMA>(
        logits: &mut [f32],
        width: usize,
        targets: Targets<'_>,
        class_weights: Option<&[f32]>,
        normalisers: &[Normaliser],
        factors: &[f32],
    ) {
        let rows = logits.chunks_exact_mut(width).zip(normalisers.iter().zip(factors));
        for (n, (row, (of, &factor))) in rows.enumerate() {
            match (targets, class_weights) {
                (Targets::Classes(classes), weights) => {
                    let class = classes[n] as usize;
                    let factor = factor * weights.map_or(1.0, |weights| weights[class]);
                    replace(row, |x| of.probability::<FMA>(x));
                    row[class] -= 1.0;
                    row.iter_mut().for_each(|value| *value *= factor);
                }
                (Targets::Shares(shares), None) => {
                    let shares = &shares[n * width..][..width];
                    let total = sum([shares], |[share]| share);
                    replace(row, |x| of.probability::<FMA>(x));
                    for (value, &share) in row.iter_mut().zip(shares) {
                        *value = factor * (total * *value - share);
                    }
                }
                (Targets::Shares(shares), Some(weights)) => {
                    let (shares, weights) = (&shares[n * width..][..width], &weights[..width]);
                    let total = sum([weights, shares], |[weight, share]| weight * share);
                    replace(row, |x| of.probability::<FMA>(x));
                    for ((value, &share), &weight) in row.iter_mut().zip(shares).zip(weights) {
                        *value = factor * (total * *value - weight * share);
                    }
                }
            }
        }
    }
}

/// The loss of each row, `[N]`, or of all, `[1]`; and what [`backward`] needs.
pub(crate) fn forward(logits: FlexTensor, aim: &Aim) -> (FlexTensor, Arc<[Normaliser]>) {
    let logits = contiguous(logits);
    let (x, rows, width) = matrix(&logits);
    let weights = aim.class_weights.as_ref().map(values);
    let piece = rows_at_a_time(rows, width);

    let mut normalisers = vec![Normaliser::default(); rows];
    let mut found = vec![0f32; rows];
    let results = normalisers.chunks_mut(piece).zip(found.chunks_mut(piece));
    for_each_part(x.chunks(piece * width).zip(results).enumerate(), |(part, (x, (normalisers, found)))| {
        losses(x, width, aim.targets.rows_from(part * piece, width), weights, normalisers, found);
    });
    let loss = match &aim.total {
        Some(total) => tensor(vec![total.of(&found)], [1].into()),
        None => tensor(found, [rows].into()),
    };
    (loss, normalisers.into())
}

/// The gradient of the logits from that of [`forward`]'s result.
#[expect(unsafe_code, reason = "the result's memory is not zeroed first")]
pub(crate) fn backward(
    logits: FlexTensor,
    aim: &Aim,
    normalisers: &[Normaliser],
    gradient: FlexTensor,
) -> FlexTensor {
    let (logits, gradient) = (contiguous(logits), contiguous(gradient));
    let (x, rows, width) = matrix(&logits);
    let weights = aim.class_weights.as_ref().map(values);
    let factors = match &aim.total {
        Some(total) => total.factors(values(&gradient)[0], rows),
        None => values(&gradient).to_vec(),
    };
    let piece = rows_at_a_time(rows, width);

    let mut dx = fresh(x.len());
    let given = x.chunks(piece * width).zip(normalisers.chunks(piece).zip(factors.chunks(piece)));
    let parts = dx.chunks_mut(piece * width).zip(given).enumerate();
    for_each_part(parts, |(part, (dx, (x, (normalisers, factors))))| {
        let targets = aim.targets.rows_from(part * piece, width);
        gradients(copied(dx, x), width, targets, weights, normalisers, factors);
    });
    // SAFETY: as long as the logits, and copied from them in whole: there is a normaliser and a factor for each row.
    tensor(unsafe { filled(dx) }, logits.layout().shape().clone())
}

impl Total {
    /// Of these losses, added up in their order and in double precision.
    fn of(&self, losses: &[f32]) -> f32 {
        let sum: f64 = match self.mask.as_ref().map(values) {
            Some(mask) => losses.iter().zip(mask).map(|(&loss, &mask)| f64::from(mask * loss)).sum(),
            None => losses.iter().copied().map(f64::from).sum(),
        };
        (sum / f64::from(self.divisor)) as f32
    }

    /// By what the total grows with each row's loss, times `gradient`.
    fn factors(&self, gradient: f32, rows: usize) -> Vec<f32> {
        let factor = gradient / self.divisor;
        match self.mask.as_ref().map(values) {
            Some(mask) => mask.iter().map(|mask| factor * mask).collect(),
            None => vec![factor; rows],
        }
    }
}
