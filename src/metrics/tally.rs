//! Scores followed batch by batch, so that an evaluation never holds more than one batch of logits.

use super::confusion::ratio;
use super::{Confusion, MetricsError, Scores, TopK};
use serde::{Deserialize, Serialize};

/// Running sums over rows of class scores (logits): confusion, top-k hits, cross entropy.
///
/// Parts of a data set may be tallied apart and merged; counts are exact, the loss is a sum in double precision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tally {
    confusion: Confusion,
    /// (k, hits) for each k asked for.
    hits: Vec<(usize, u64)>,
    /// Sum of `-ln softmax(scores)[target]`.
    loss: f64,
}

impl Tally {
    /// Nothing yet, over `classes` classes; `top_k` lists the k to report, any k ≥ 1 (k ≥ `classes` always hits).
    pub fn new(classes: usize, top_k: &[usize]) -> Self {
        Self { confusion: Confusion::new(classes), hits: top_k.iter().map(|&k| (k, 0)).collect(), loss: 0.0 }
    }

    /// Adds N samples: `targets` `[N]`, `scores` `[N, C]` row-major, before softmax, `f32` or `f64`.
    ///
    /// On error nothing of this batch is counted.
    pub fn add<T: Copy + Into<f64>>(&mut self, targets: &[usize], scores: &[T]) -> Result<(), MetricsError> {
        let classes = self.confusion.classes();
        let expected = targets.len() * classes;
        if scores.len() != expected {
            return Err(MetricsError::Length { targets: targets.len(), expected, found: scores.len() });
        }
        if let Some(&class) = targets.iter().find(|&&target| target >= classes) {
            return Err(MetricsError::Class { class, classes });
        }
        for (&target, row) in targets.iter().zip(scores.chunks_exact(classes.max(1))) {
            self.confusion.add(target, argmax(row))?;
            let rank = rank(row, target);
            self.hits.iter_mut().filter(|(k, _)| rank < *k).for_each(|(_, hits)| *hits += 1);
            self.loss += cross_entropy(row, target);
        }
        Ok(())
    }

    /// Adds the sums of another part of the data, over the same classes and the same k.
    pub fn merge(&mut self, other: &Self) -> Result<(), MetricsError> {
        if !self.hits.iter().map(|(k, _)| k).eq(other.hits.iter().map(|(k, _)| k)) {
            return Err(MetricsError::TopK);
        }
        self.confusion.merge(&other.confusion)?;
        self.hits.iter_mut().zip(&other.hits).for_each(|(mine, theirs)| mine.1 += theirs.1);
        self.loss += other.loss;
        Ok(())
    }

    /// The scores so far.
    pub fn scores(&self) -> Scores {
        let samples = self.confusion.total();
        Scores {
            top_k: self.hits.iter().map(|&(k, hits)| TopK { k, accuracy: ratio(hits, samples) }).collect(),
            cross_entropy: (samples > 0).then(|| self.loss / samples as f64),
            ..Scores::from_confusion(self.confusion.clone())
        }
    }
}

/// The class with the highest score; the first one of equals, as in `torch.argmax`. NaN never wins.
pub fn argmax<T: Copy + Into<f64>>(row: &[T]) -> usize {
    let better = |best: (usize, f64), (class, score): (usize, f64)| {
        if score > best.1 { (class, score) } else { best }
    };
    row.iter().map(|&score| score.into()).enumerate().fold((0, f64::NEG_INFINITY), better).0
}

/// How many classes rank above `target`. Of equal scores the later class ranks higher: scikit-learn sorts
/// ascending and reverses. Top-1 may thus differ from accuracy where scores are tied.
fn rank<T: Copy + Into<f64>>(row: &[T], target: usize) -> usize {
    let own = row[target].into();
    let above = |&(class, &score): &(usize, &T)| {
        let score = score.into();
        score > own || (score == own && class > target) || (own.is_nan() && class != target)
    };
    row.iter().enumerate().filter(above).count()
}

/// `-ln softmax(row)[target]`, shifted by the maximum so that no exponential overflows.
fn cross_entropy<T: Copy + Into<f64>>(row: &[T], target: usize) -> f64 {
    let peak = row.iter().map(|&score| score.into()).fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = row.iter().map(|&score| (score.into() - peak).exp()).sum();
    sum.ln() + peak - row[target].into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_and_merged_parts_equal_the_whole() {
        let scores: Vec<f32> = (0..12).map(|i| ((i * 7 % 5) as f32) - 2.0).collect();
        let targets = [0, 2, 1, 1];
        let mut whole = Tally::new(3, &[1, 2, 3]);
        whole.add(&targets, &scores).unwrap();
        let (mut first, mut second) = (Tally::new(3, &[1, 2, 3]), Tally::new(3, &[1, 2, 3]));
        first.add(&targets[..1], &scores[..3]).unwrap();
        second.add(&targets[1..], &scores[3..]).unwrap();
        first.merge(&second).unwrap();
        let (whole, parts) = (whole.scores(), first.scores());
        assert_eq!(whole.confusion, parts.confusion);
        assert_eq!(whole.top_k, parts.top_k);
        assert_eq!(whole.top(3), Some(1.0));
        assert!((whole.cross_entropy.unwrap() - parts.cross_entropy.unwrap()).abs() < 1e-15);
    }

    #[test]
    fn huge_scores_stay_finite_and_nan_is_a_miss() {
        let mut tally = Tally::new(2, &[1]);
        tally.add(&[1, 0], &[1e30f32, -1e30, 3.0, 3.0]).unwrap();
        assert!(tally.scores().cross_entropy.unwrap().is_finite());
        tally.add(&[0], &[f32::NAN, 0.0]).unwrap();
        assert_eq!(tally.scores().confusion.count(0, 1), 1);
    }

    #[test]
    fn a_refused_batch_leaves_no_trace() {
        let mut tally = Tally::new(2, &[1]);
        assert!(tally.add(&[0, 5], &[0.0f32; 4]).is_err());
        assert!(tally.add(&[0, 1], &[0.0f32; 3]).is_err());
        assert_eq!(tally.scores().samples, 0);
    }
}
