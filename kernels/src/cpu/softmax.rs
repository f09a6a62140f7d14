//! Softmax of a row, and how few or many rows are shared out among threads.

use rayon::prelude::*;

use super::simd::{exp, max, sum};
use super::{Pieces, values};
use burn_flex::FlexTensor;

/// Logits a thread takes at a time. Fewer than this, as most losses have, do not wake the pool: that takes longer.
const PIECE: usize = 1 << 15;

/// What the softmax of a row of logits is computed from: `exp((x - max) - log_sum)`.
///
/// Two numbers, since a large maximum would swallow the logarithm in their sum. Both are NaN or infinite, and with them every
/// probability, if a logit is NaN or the largest infinite.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Normaliser {
    /// The largest logit.
    pub(super) max: f32,
    /// `ln Σ exp(x - max)`.
    pub(super) log_sum: f32,
}

impl Normaliser {
    /// That of a row.
    #[inline(always)]
    pub(super) fn of<const FMA: bool>(row: &[f32]) -> Self {
        let max = max(row);
        let total = sum(row.len(), |i| exp::<FMA>(row[i] - max));
        Self { max, log_sum: total.ln() }
    }

    /// `-ln` of the probability of this logit.
    #[inline(always)]
    pub(super) fn surprise(self, logit: f32) -> f32 {
        self.log_sum - (logit - self.max)
    }

    /// The probability of this logit.
    #[inline(always)]
    pub(super) fn probability<const FMA: bool>(self, logit: f32) -> f32 {
        exp::<FMA>((logit - self.max) - self.log_sum)
    }
}

/// A contiguous matrix of floats: its values, its rows and the length of a row.
pub(super) fn matrix(tensor: &FlexTensor) -> (&[f32], usize, usize) {
    let [rows, width] = tensor.layout().shape().dims();
    (values(tensor), rows, width)
}

/// Rows of `width` that a thread takes at a time.
pub(super) fn rows_at_a_time(rows: usize, width: usize) -> usize {
    Pieces::new(rows, (PIECE / width).max(1), 1).piece
}

/// Calls `work` with every part, in parallel; without the pool if there is one part only.
pub(super) fn for_each_part<T: Send>(parts: impl Iterator<Item = T>, work: impl Fn(T) + Send + Sync) {
    let parts: Vec<T> = parts.collect();
    if parts.len() == 1 {
        parts.into_iter().for_each(work);
    } else {
        parts.into_par_iter().for_each(work);
    }
}
