//! Softmax of a row, and how few or many rows are shared out among threads.

use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::simd::{LANES, exp, folded, max};
use super::{Pieces, values};

/// Logits a thread takes at a time. Fewer than this, as most losses have, do not wake the pool: that takes longer.
const PIECE: usize = 1 << 16;

/// What the softmax of a row of logits is computed from: `exp((x - max) - log_sum)`.
///
/// Two numbers, since a large maximum would swallow the logarithm in their sum. If a logit is not a number or the largest is
/// infinite, `log_sum` is not a number, and no probability of the row is.
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
        let mut lanes = [0f32; LANES];
        let mut add = |block: &[f32; LANES]| {
            for (total, &x) in lanes.iter_mut().zip(block) {
                *total += exp::<FMA>(x - max);
            }
        };
        let (blocks, rest) = row.as_chunks();
        blocks.iter().for_each(&mut add);
        if !rest.is_empty() {
            // Lanes beyond the row add the smallest normal number, which is lost in a sum of 1 at least.
            add(&filled_up(rest, f32::NEG_INFINITY));
        }
        Self { max, log_sum: folded(lanes, |one, other| one + other).ln() }
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

/// Replaces each value, in blocks of fixed length also where a row ends: classes are few, and most would be computed alone.
#[inline(always)]
pub(super) fn replace(values: &mut [f32], new: impl Fn(f32) -> f32) {
    let (blocks, rest) = values.as_chunks_mut::<LANES>();
    for block in blocks {
        block.iter_mut().for_each(|value| *value = new(*value));
    }
    if !rest.is_empty() {
        let mut last = filled_up(rest, 0.0);
        last.iter_mut().for_each(|value| *value = new(*value));
        rest.copy_from_slice(&last[..rest.len()]);
    }
}

/// A block that begins with these values.
#[inline(always)]
fn filled_up(values: &[f32], beyond: f32) -> [f32; LANES] {
    let mut block = [beyond; LANES];
    block[..values.len()].copy_from_slice(values);
    block
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
