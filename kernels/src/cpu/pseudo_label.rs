//! What a classifier's logits say, row by row: probabilities, the largest and its class.

use burn_flex::FlexTensor;

use super::memory::{copied, filled, fresh};
use super::simd::{exp, max, multiversion, sum};
use super::softmax::{for_each_part, matrix, replace, rows_at_a_time};
use super::{contiguous, tensor, values};

/// Values compared before anybody asks whether one of them was equal.
const BLOCK: usize = 32;

/// Position of the first of these values that is `wanted`; 0 if none is.
#[inline(always)]
fn first(values: &[f32], wanted: impl Fn(f32) -> bool) -> usize {
    let any = |block: &&[f32]| block.iter().fold(false, |any, &value| any | wanted(value));
    let mut blocks = values.chunks(BLOCK).enumerate().filter(|(_, block)| any(block));
    let within = |block: &[f32]| block.iter().position(|&value| wanted(value)).unwrap_or(0);
    blocks.next().map_or(0, |(number, block)| number * BLOCK + within(block))
}

multiversion! {
    /// Each row of `width` logits becomes their softmax; notes its largest value and the first class that has it.
    ///
    /// A row with a logit that is not a number, or whose largest is infinite, is not a number throughout and of class 0.
    pub(super) fn believe<FMA>(x: &mut [f32], width: usize, confidence: &mut [f32], labels: &mut [i32]) {
        for ((row, confidence), label) in x.chunks_exact_mut(width).zip(confidence).zip(labels) {
            let most = max(row);
            replace(row, |x| exp::<FMA>(x - most));
            // The exponential of the largest logit, less itself, is 1 exactly: this is its probability.
            let top = 1.0 / sum([row], |[x]| x);
            row.iter_mut().for_each(|x| *x *= top);
            *confidence = top;
            *label = first(row, |probability| probability == top) as i32;
        }
    }
}

multiversion! {
    /// The largest value of each row of `width`, and the first class that has it; the first that is not a number, if any.
    pub(super) fn strongest<FMA>(rows: &[f32], width: usize, confidence: &mut [f32], labels: &mut [i32]) {
        for ((row, confidence), label) in rows.chunks_exact(width).zip(confidence).zip(labels) {
            let broken = row.iter().fold(false, |broken, value| broken | value.is_nan());
            let top = if broken { f32::NAN } else { max(row) };
            *confidence = top;
            *label = first(row, |value| if broken { value.is_nan() } else { value == top }) as i32;
        }
    }
}

/// Largest value and its class, row by row.
pub(crate) struct Strongest {
    /// `[N]`.
    pub(crate) confidence: FlexTensor,
    /// `[N]`.
    pub(crate) labels: Vec<i32>,
}

/// Softmax of each row, `[N, C]`, and its largest values.
#[expect(unsafe_code, reason = "the result's memory is not zeroed first")]
pub(crate) fn predictions(logits: FlexTensor) -> (FlexTensor, Strongest) {
    let logits = contiguous(logits);
    let (x, rows, width) = matrix(&logits);
    let piece = rows_at_a_time(rows, width);
    let (mut confidence, mut labels) = (vec![0f32; rows], vec![0i32; rows]);
    let mut probabilities = fresh(x.len());
    let notes = confidence.chunks_mut(piece).zip(labels.chunks_mut(piece));
    let parts = probabilities.chunks_mut(piece * width).zip(x.chunks(piece * width)).zip(notes);
    for_each_part(parts, |((to, from), (confidence, labels))| {
        believe(copied(to, from), width, confidence, labels);
    });
    // SAFETY: as long as the logits, and copied from them in whole.
    let probabilities = tensor(unsafe { filled(probabilities) }, logits.layout().shape().clone());
    (probabilities, Strongest { confidence: tensor(confidence, [rows].into()), labels })
}

/// The largest values of rows that are probabilities already.
pub(crate) fn of(probabilities: FlexTensor) -> Strongest {
    let probabilities = contiguous(probabilities);
    let (p, rows, width) = matrix(&probabilities);
    let piece = rows_at_a_time(rows, width);
    let (mut confidence, mut labels) = (vec![0f32; rows], vec![0i32; rows]);
    let notes = confidence.chunks_mut(piece).zip(labels.chunks_mut(piece));
    for_each_part(p.chunks(piece * width).zip(notes), |(p, (confidence, labels))| {
        strongest(p, width, confidence, labels);
    });
    Strongest { confidence: tensor(confidence, [rows].into()), labels }
}

/// 1 where a confidence reaches the threshold, else 0, and that threshold; `thresholds` is one for all, or one for each class.
pub(crate) fn reaching(confidence: &FlexTensor, labels: &[u32], thresholds: &[f32]) -> [FlexTensor; 2] {
    let threshold: Vec<f32> = match thresholds {
        [one] => vec![*one; labels.len()],
        each => labels.iter().map(|label| each[*label as usize]).collect(),
    };
    let reached = |(confidence, threshold): (&f32, &f32)| f32::from(u8::from(confidence >= threshold));
    let mask = values(confidence).iter().zip(&threshold).map(reached).collect();
    [mask, threshold].map(|values| tensor(values, [labels.len()].into()))
}

/// The mean of the rows: `[N, C]` → `[C]`.
pub(crate) fn mean(probabilities: FlexTensor) -> FlexTensor {
    let probabilities = contiguous(probabilities);
    let (p, rows, width) = matrix(&probabilities);
    let mut total = vec![0f32; width];
    for row in p.chunks_exact(width) {
        total.iter_mut().zip(row).for_each(|(total, value)| *total += value);
    }
    total.iter_mut().for_each(|total| *total /= rows as f32);
    tensor(total, [width].into())
}

/// How much weight falls to each class: `[classes]`. Without weights, how many rows.
pub(crate) fn class_counts(labels: &[u32], weights: Option<&[f32]>, classes: usize) -> FlexTensor {
    let mut counts = vec![0f32; classes];
    for (row, label) in labels.iter().enumerate() {
        counts[*label as usize] += weights.map_or(1.0, |weights| weights[row]);
    }
    tensor(counts, [classes].into())
}
