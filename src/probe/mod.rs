//! How good a network's features are, before anything is trained on them: k nearest neighbours and a linear classifier on
//! frozen features of the labelled images, judged on images neither has seen.
//!
//! Good features make few labels go far: a probe tells in a minute whether a backbone is worth training from.

mod knn;
mod lbfgs;
mod linear;

pub use knn::{NEIGHBOURS, NearestNeighbours};
pub use linear::{LinearProbe, STRENGTHS};

use harvest_models::Classifier;

use crate::augment::Normalisation;
use crate::data::ImageCache;
use crate::inference::Predictor;
use crate::metrics::Scores;

/// Images a forward pass.
const BATCH: usize = 64;
/// Without held-out images, one in so many of each class chooses the strength of the linear probe.
const HELD_OUT: usize = 5;

/// What a network sees of images, with their classes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Features {
    /// `[N, D]`, row-major.
    pub values: Vec<f32>,
    /// D.
    pub dim: usize,
    /// `[N]`
    pub labels: Vec<usize>,
}

impl Features {
    /// Of the images `indices` that have a label, in order. `advance` is told how many are done.
    pub fn extract(
        network: &Classifier,
        cache: &ImageCache,
        indices: &[u32],
        labels: &[Option<u16>],
        normalisation: &Normalisation,
        mut advance: impl FnMut(u64),
    ) -> Self {
        let label = |index: &u32| labels.get(*index as usize).copied().flatten().map(usize::from);
        let (indices, labels): (Vec<u32>, Vec<usize>) =
            indices.iter().filter_map(|index| Some((*index, label(index)?))).unzip();
        let dim = network.feature_size();
        let mut values = Vec::with_capacity(indices.len() * dim);
        let predictor = Predictor::new(network, cache.size() as usize, normalisation, BATCH);
        predictor.features(indices.iter().map(|index| cache.image(*index)), |_, batch| {
            values.extend(batch);
            advance((values.len() / dim.max(1)) as u64);
            true
        });
        Self { values, dim, labels }
    }

    /// One row an image.
    pub fn rows(&self) -> impl Iterator<Item = &[f32]> {
        self.values.chunks_exact(self.dim.max(1))
    }

    /// These and `other`, of the same network.
    pub fn joined(&self, other: &Self) -> Self {
        Self {
            values: [&self.values[..], &other.values].concat(),
            dim: self.dim.max(other.dim),
            labels: [&self.labels[..], &other.labels].concat(),
        }
    }

    /// Every fifth image of each class apart from the others: (others, apart).
    fn divided(&self) -> (Self, Self) {
        let mut seen = std::collections::BTreeMap::new();
        let mut parts = [0, 1].map(|_| Self { dim: self.dim, ..Self::default() });
        for (row, &label) in self.rows().zip(&self.labels) {
            let count: &mut usize = seen.entry(label).or_default();
            *count += 1;
            let part = &mut parts[usize::from(count.is_multiple_of(HELD_OUT))];
            part.values.extend(row);
            part.labels.push(label);
        }
        let [others, apart] = parts;
        (others, apart)
    }
}

/// What the probes found.
#[derive(Debug, Clone, PartialEq)]
pub struct Probed {
    /// Of the nearest neighbours.
    pub neighbours: Scores,
    /// How many were asked.
    pub k: usize,
    /// Of the linear classifier.
    pub linear: Scores,
    /// Its weight penalty.
    pub strength: f64,
    /// Labelled images both learned from.
    pub labelled: usize,
}

/// Why features cannot be probed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProbeError {
    /// Nothing to learn from, or nothing to judge by.
    #[error("there are no {0} images; see `data.labels_per_class` and `data.test_fraction`")]
    Empty(&'static str),
    /// The network is broken.
    #[error("the network's features are not all numbers; its weights are damaged")]
    NotFinite,
}

/// Learns from `labelled` and `held_out` and is judged on `test`; `held_out` chooses the linear probe's strength, if there are
/// any, else a fifth of `labelled` does. Classes are below `classes`.
///
/// # Errors
/// [`ProbeError`]
pub fn probe(
    labelled: &Features,
    held_out: &Features,
    test: &Features,
    classes: usize,
) -> Result<Probed, ProbeError> {
    if labelled.labels.is_empty() {
        return Err(ProbeError::Empty("labelled"));
    }
    if test.labels.is_empty() {
        return Err(ProbeError::Empty("test"));
    }
    if [labelled, held_out, test].iter().any(|part| part.values.iter().any(|value| !value.is_finite())) {
        return Err(ProbeError::NotFinite);
    }
    let all = labelled.joined(held_out);
    let strength = if held_out.labels.is_empty() {
        let (others, apart) = labelled.divided();
        LinearProbe::choose_strength(&others, &apart, classes)
    } else {
        LinearProbe::choose_strength(labelled, held_out, classes)
    };
    let linear = LinearProbe::fit(&all, classes, strength);
    let neighbours = NearestNeighbours::new(&all, classes);
    let scores = |predictions: &[usize]| {
        Scores::from_predictions(&test.labels, predictions, classes).expect("labels are below `classes`")
    };
    Ok(Probed {
        k: neighbours.k(),
        neighbours: scores(&neighbours.predict(test)),
        linear: scores(&linear.predict(test)),
        strength,
        labelled: all.labels.len(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two classes whose first feature differs by `gap`; the others are noise.
    pub(super) fn clouds(count: usize, gap: f32) -> Features {
        let noise = |i: usize, d: usize| ((i * 97 + d * 57 + i * i * d) % 101) as f32 / 50.0 - 1.0;
        let row = |i: usize| {
            [noise(i, 0) + if i.is_multiple_of(2) { gap } else { -gap }, noise(i, 1), noise(i, 2) + 5.0, 7.0]
        };
        Features {
            values: (0..count).flat_map(row).collect(),
            dim: 4,
            labels: (0..count).map(|i| i % 2).collect(),
        }
    }

    #[test]
    fn separate_classes_are_found_with_and_without_held_out_images() {
        let (labelled, test) = (clouds(40, 2.0), clouds(101, 2.0));
        for held_out in [Features::default(), clouds(10, 2.0)] {
            let found = probe(&labelled, &held_out, &test, 2).expect("sound features");
            assert_eq!(found.linear.accuracy, 1.0);
            assert!(found.neighbours.accuracy > 0.6, "{}", found.neighbours.accuracy);
            assert_eq!((found.k, found.labelled), (20, 40 + held_out.labels.len()));
            assert_eq!(probe(&labelled, &held_out, &test, 2), Ok(found), "the same again");
        }
    }

    #[test]
    fn one_image_of_each_class_is_enough_to_go_on() {
        let found = probe(&clouds(2, 2.0), &Features::default(), &clouds(9, 2.0), 3).expect("sound features");
        assert_eq!(found.k, 2);
        assert!(found.linear.accuracy > 0.5);
    }

    #[test]
    fn nothing_to_learn_from_or_judge_by_is_said() {
        let (some, none) = (clouds(4, 1.0), Features::default());
        assert_eq!(probe(&none, &none, &some, 2), Err(ProbeError::Empty("labelled")));
        assert_eq!(probe(&some, &none, &none, 2), Err(ProbeError::Empty("test")));
        let mut broken = some.clone();
        broken.values[3] = f32::NAN;
        assert_eq!(probe(&some, &none, &broken, 2), Err(ProbeError::NotFinite));
    }
}
