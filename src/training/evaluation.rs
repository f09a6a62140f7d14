//! How good a network is on images whose classes are known.

use harvest_models::Classifier;

use crate::augment::Normalisation;
use crate::data::ImageCache;
use crate::inference::Predictor;
use crate::metrics::{Scores, Tally};

/// Images a forward pass; evaluation keeps no graph, so this can be larger than a training batch.
const BATCH: usize = 256;

/// Scores of `network` on the images `indices` of the cache, and the logits of each, row by row. `labels`: class of every image
/// of the data set.
///
/// # Panics
/// If one of the images has no label below `classes`; splits hold labelled images only.
pub fn evaluate_each(
    network: &Classifier,
    cache: &ImageCache,
    indices: &[u32],
    labels: &[Option<u16>],
    classes: usize,
    normalisation: &Normalisation,
) -> (Scores, Vec<f32>) {
    let logits = logits(network, cache, indices, normalisation);
    (scores(&logits, indices, labels, classes), logits)
}

/// The logits of each of the images `indices`, row by row.
pub(super) fn logits(
    network: &Classifier,
    cache: &ImageCache,
    indices: &[u32],
    normalisation: &Normalisation,
) -> Vec<f32> {
    let mut all = Vec::new();
    let predictor = Predictor::new(network, cache.size() as usize, normalisation, BATCH);
    predictor.logits(indices.iter().map(|index| cache.image(*index)), |_, logits| {
        all.extend(logits);
        true
    });
    all
}

/// Scores of the `logits` of the images `indices`; see [`evaluate_each`].
pub(super) fn scores(logits: &[f32], indices: &[u32], labels: &[Option<u16>], classes: usize) -> Scores {
    let ranks: &[usize] = if classes > 5 { &[1, 5] } else { &[1] };
    let mut tally = Tally::new(classes, ranks);
    let label = |index: &u32| usize::from(labels[*index as usize].expect("evaluated images have a label"));
    let targets: Vec<usize> = indices.iter().map(label).collect();
    tally.add(&targets, logits).expect("as many rows of logits as targets, all below `classes`");
    tally.scores()
}
