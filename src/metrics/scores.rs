//! Scores drawn from confusion counts.

use super::confusion::ratio;
use super::{Confusion, Interval, MetricsError, wilson};
use serde::{Deserialize, Serialize};

/// How good one set of predictions is. Every share lies in 0..=1; without samples all are 0.
///
/// Macro averages exist in scikit-learn's two conventions, which differ when a class has no sample at all:
/// [`Self::macro_present`] averages over the classes some sample has as target or as prediction (scikit-learn
/// without a label list, and what USB reports), [`Self::macro_all`] over all classes, absent ones scoring 0.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// Samples counted.
    pub samples: u64,
    /// Share of samples predicted right.
    pub accuracy: f64,
    /// Share of samples predicted wrong.
    pub error_rate: f64,
    /// Mean recall over the classes that occur as targets.
    pub balanced_accuracy: f64,
    /// Averages over the classes that occur in targets or predictions.
    pub macro_present: Macro,
    /// Averages over all classes.
    pub macro_all: Macro,
    /// Share of samples whose target is among the k highest scores, for each k asked for; empty when only
    /// predictions were known.
    pub top_k: Vec<TopK>,
    /// Mean of `-ln softmax(scores)[target]`, in nats; `None` when only predictions were known.
    pub cross_entropy: Option<f64>,
    /// For percentage bins: mean distance between predicted and true bin, in percent points from 0 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean_absolute_error: Option<f64>,
    /// One entry per class, in class order.
    pub per_class: Vec<ClassScores>,
    /// The counts all of this comes from.
    pub confusion: Confusion,
}

/// Unweighted means over classes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Macro {
    /// Mean precision.
    pub precision: f64,
    /// Mean recall.
    pub recall: f64,
    /// Mean of the per-class F1 (not the F1 of the means).
    pub f1: f64,
}

/// Scores of one class, taken as "this class against all others".
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ClassScores {
    /// Of the samples predicted as this class, the share that is; 0 if none is predicted.
    pub precision: f64,
    /// Of the samples of this class, the share found; 0 if there is none.
    pub recall: f64,
    /// Harmonic mean of precision and recall; 0 if both are.
    pub f1: f64,
    /// Samples of this class.
    pub support: u64,
    /// Samples predicted as this class.
    pub predicted: u64,
}

/// Top-k accuracy for one k.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TopK {
    /// How many of the highest scores count as a hit.
    pub k: usize,
    /// Share of samples hit.
    pub accuracy: f64,
}

impl Scores {
    /// Scores of `predictions` against `targets`, class indices below `classes`.
    pub fn from_predictions(
        targets: &[usize],
        predictions: &[usize],
        classes: usize,
    ) -> Result<Self, MetricsError> {
        Confusion::from_predictions(targets, predictions, classes).map(Self::from_confusion)
    }

    /// Everything the counts tell; top-k and cross entropy need [`super::Tally`].
    pub fn from_confusion(confusion: Confusion) -> Self {
        let per_class: Vec<_> =
            (0..confusion.classes()).map(|class| ClassScores::of(&confusion, class)).collect();
        let occurring = per_class.iter().filter(|class| class.support > 0).map(|class| class.recall);
        let (samples, correct) = (confusion.total(), confusion.correct());
        Self {
            samples,
            accuracy: ratio(correct, samples),
            error_rate: ratio(samples - correct, samples),
            balanced_accuracy: mean(occurring),
            macro_present: Macro::of(per_class.iter().filter(|class| class.support + class.predicted > 0)),
            macro_all: Macro::of(per_class.iter()),
            top_k: Vec::new(),
            cross_entropy: None,
            mean_absolute_error: None,
            per_class,
            confusion,
        }
    }

    /// Classes are bins of a share from 0 to 100 %, in order and equally wide: adds the mean absolute error.
    pub fn in_percent(self) -> Self {
        let classes = self.confusion.classes();
        let pairs = (0..classes).flat_map(|target| (0..classes).map(move |predicted| (target, predicted)));
        let distances = pairs.map(|(target, predicted)| {
            self.confusion.count(target, predicted) as f64 * target.abs_diff(predicted) as f64
        });
        let bins: f64 = distances.sum();
        let width = 100.0 / classes.max(1) as f64;
        let error = if self.samples == 0 { 0.0 } else { width * bins / self.samples as f64 };
        Self { mean_absolute_error: Some(error), ..self }
    }

    /// Where the accuracy on further images of the same kind lies, with 95 % confidence.
    pub fn accuracy_interval(&self) -> Interval {
        wilson(self.confusion.correct(), self.samples)
    }

    /// The accuracy as people read it: "72.9 % (72.0 to 73.8)", and how far off predictions of percentage bins are.
    pub fn accuracy_text(&self) -> String {
        let Interval { low, high } = self.accuracy_interval();
        let off =
            self.mean_absolute_error.map_or_else(String::new, |off| format!(", {off:.1} % off on average"));
        format!("{:.1} % ({:.1} to {:.1}){off}", 100.0 * self.accuracy, 100.0 * low, 100.0 * high)
    }

    /// Top-k accuracy, if that k was asked for.
    pub fn top(&self, k: usize) -> Option<f64> {
        self.top_k.iter().find(|top| top.k == k).map(|top| top.accuracy)
    }
}

impl ClassScores {
    fn of(confusion: &Confusion, class: usize) -> Self {
        let hits = confusion.count(class, class);
        let (support, predicted) = (confusion.support(class), confusion.predicted(class));
        Self {
            precision: ratio(hits, predicted),
            recall: ratio(hits, support),
            f1: ratio(2 * hits, support + predicted),
            support,
            predicted,
        }
    }
}

impl Macro {
    fn of<'a>(classes: impl Iterator<Item = &'a ClassScores> + Clone) -> Self {
        Self {
            precision: mean(classes.clone().map(|class| class.precision)),
            recall: mean(classes.clone().map(|class| class.recall)),
            f1: mean(classes.map(|class| class.f1)),
        }
    }
}

/// 0 for nothing.
fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0u64), |(sum, count), value| (sum + value, count + 1));
    if count == 0 { 0.0 } else { sum / count as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_classes_pull_down_only_the_average_over_all() {
        let scores = Scores::from_predictions(&[0, 0, 1, 1], &[0, 1, 1, 1], 4).unwrap();
        assert_eq!(scores.macro_present.recall, 0.75);
        assert_eq!(scores.macro_all.recall, 0.375);
        assert_eq!((scores.accuracy, scores.error_rate, scores.balanced_accuracy), (0.75, 0.25, 0.75));
    }

    #[test]
    fn bins_tell_how_far_off_predictions_are() {
        // Four bins of 25 %: two hits, one neighbour, one three bins away.
        let scores = Scores::from_predictions(&[0, 1, 2, 0], &[0, 1, 1, 3], 4).unwrap().in_percent();
        assert_eq!(scores.mean_absolute_error, Some(25.0));
        assert!(scores.accuracy_text().ends_with(", 25.0 % off on average"), "{}", scores.accuracy_text());
        let text = serde_json::to_string(&scores).unwrap();
        assert_eq!(serde_json::from_str::<Scores>(&text).unwrap(), scores);
    }

    #[test]
    fn nothing_to_score_gives_zeros_not_nan() {
        for classes in [0, 1, 3] {
            let scores = Scores::from_confusion(Confusion::new(classes));
            assert_eq!((scores.samples, scores.accuracy, scores.macro_all.f1), (0, 0.0, 0.0));
            let text = serde_json::to_string(&scores).unwrap();
            assert_eq!(serde_json::from_str::<Scores>(&text).unwrap(), scores);
        }
    }
}
