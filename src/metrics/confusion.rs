//! Counts of (target, prediction) pairs.

use super::MetricsError;
use serde::{Deserialize, Serialize};

/// How often each target class was predicted as each class: `count(target, prediction)`.
///
/// Serialised as its rows, `[[u64; C]; C]`, one row per target class.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Vec<Vec<u64>>", try_from = "Vec<Vec<u64>>")]
pub struct Confusion {
    classes: usize,
    /// `[C, C]`, row-major, one row per target.
    counts: Vec<u64>,
}

impl Confusion {
    /// No pairs yet, over `classes` classes.
    pub fn new(classes: usize) -> Self {
        Self { classes, counts: vec![0; classes * classes] }
    }

    /// Counts `targets[i]` against `predictions[i]`; both must have one length and name classes below `classes`.
    pub fn from_predictions(
        targets: &[usize],
        predictions: &[usize],
        classes: usize,
    ) -> Result<Self, MetricsError> {
        if targets.len() != predictions.len() {
            let (targets, found) = (targets.len(), predictions.len());
            return Err(MetricsError::Length { targets, expected: targets, found });
        }
        Self::from_pairs(classes, targets.iter().copied().zip(predictions.iter().copied()))
    }

    /// Counts (target, prediction) pairs.
    pub fn from_pairs(
        classes: usize,
        pairs: impl IntoIterator<Item = (usize, usize)>,
    ) -> Result<Self, MetricsError> {
        let mut confusion = Self::new(classes);
        for (target, prediction) in pairs {
            confusion.add(target, prediction)?;
        }
        Ok(confusion)
    }

    /// Counts one more pair.
    pub fn add(&mut self, target: usize, prediction: usize) -> Result<(), MetricsError> {
        let classes = self.classes;
        if let Some(class) = [target, prediction].into_iter().find(|&class| class >= classes) {
            return Err(MetricsError::Class { class, classes });
        }
        self.counts[target * classes + prediction] += 1;
        Ok(())
    }

    /// Adds the counts of another part of the data, over the same classes.
    pub fn merge(&mut self, other: &Self) -> Result<(), MetricsError> {
        if self.classes != other.classes {
            return Err(MetricsError::Classes { expected: self.classes, found: other.classes });
        }
        self.counts.iter_mut().zip(&other.counts).for_each(|(mine, theirs)| *mine += theirs);
        Ok(())
    }

    /// Number of classes, C.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Samples of class `target` predicted as `prediction`; both below [`Self::classes`].
    pub fn count(&self, target: usize, prediction: usize) -> u64 {
        self.row(target)[prediction]
    }

    /// What samples of class `target` were predicted as: C counts.
    pub fn row(&self, target: usize) -> &[u64] {
        &self.counts[target * self.classes..(target + 1) * self.classes]
    }

    /// All pairs counted.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Pairs whose prediction is the target.
    pub fn correct(&self) -> u64 {
        (0..self.classes).map(|class| self.count(class, class)).sum()
    }

    /// Samples whose target is `class`.
    pub fn support(&self, class: usize) -> u64 {
        self.row(class).iter().sum()
    }

    /// Samples predicted as `class`.
    pub fn predicted(&self, class: usize) -> u64 {
        (0..self.classes).map(|target| self.count(target, class)).sum()
    }

    /// Classes that some sample has as target or as prediction, ascending.
    pub fn present(&self) -> Vec<usize> {
        (0..self.classes).filter(|&class| self.support(class) + self.predicted(class) > 0).collect()
    }

    /// The same counts over the given classes only, in the order given; other pairs are left out.
    ///
    /// With [`Self::present`] this is scikit-learn's matrix without a label list.
    pub fn restricted(&self, classes: &[usize]) -> Self {
        let counts =
            classes.iter().flat_map(|&row| classes.iter().map(move |&column| self.count(row, column)));
        Self { classes: classes.len(), counts: counts.collect() }
    }

    /// Each row divided by its sum; rows without samples stay 0.
    pub fn row_normalised(&self) -> Vec<Vec<f64>> {
        let share = |target| {
            let support = self.support(target);
            self.row(target).iter().map(|&count| ratio(count, support)).collect()
        };
        (0..self.classes).map(share).collect()
    }
}

impl From<Confusion> for Vec<Vec<u64>> {
    fn from(confusion: Confusion) -> Self {
        (0..confusion.classes).map(|target| confusion.row(target).to_vec()).collect()
    }
}

impl TryFrom<Vec<Vec<u64>>> for Confusion {
    type Error = MetricsError;

    fn try_from(rows: Vec<Vec<u64>>) -> Result<Self, MetricsError> {
        let classes = rows.len();
        if let Some(row) = rows.iter().find(|row| row.len() != classes) {
            return Err(MetricsError::Classes { expected: classes, found: row.len() });
        }
        Ok(Self { classes, counts: rows.concat() })
    }
}

/// `part / whole`, 0 where there is nothing to divide.
pub(super) fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merged_parts_equal_the_whole() {
        let (targets, predictions) = ([0, 1, 2, 2, 1, 0], [0, 2, 2, 1, 1, 1]);
        let whole = Confusion::from_predictions(&targets, &predictions, 3).unwrap();
        let mut parts = Confusion::from_predictions(&targets[..2], &predictions[..2], 3).unwrap();
        parts.merge(&Confusion::from_predictions(&targets[2..], &predictions[2..], 3).unwrap()).unwrap();
        assert_eq!(parts, whole);
        assert_eq!((whole.total(), whole.correct(), whole.support(2), whole.predicted(1)), (6, 3, 2, 3));
    }

    #[test]
    fn bad_input_is_refused_and_said() {
        assert_eq!(
            Confusion::from_predictions(&[0, 3], &[0, 0], 3),
            Err(MetricsError::Class { class: 3, classes: 3 })
        );
        assert!(Confusion::from_predictions(&[0], &[], 3).is_err());
        assert!(Confusion::new(2).merge(&Confusion::new(3)).is_err());
        assert!(serde_json::from_str::<Confusion>("[[1,2],[3]]").is_err());
    }

    #[test]
    fn serialises_as_rows() {
        let confusion = Confusion::from_pairs(2, [(0, 1), (1, 1)]).unwrap();
        let text = serde_json::to_string(&confusion).unwrap();
        assert_eq!(text, "[[0,1],[0,1]]");
        assert_eq!(serde_json::from_str::<Confusion>(&text).unwrap(), confusion);
    }
}
