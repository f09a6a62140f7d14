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
    let mut all = Vec::with_capacity(indices.len() * classes);
    let ranks: &[usize] = if classes > 5 { &[1, 5] } else { &[1] };
    let mut tally = Tally::new(classes, ranks);
    let predictor = Predictor::new(network, cache.size() as usize, normalisation, BATCH);
    predictor.logits(indices.iter().map(|index| cache.image(*index)), |position, logits| {
        let count = logits.len() / classes;
        let targets: Vec<usize> = indices[position..position + count]
            .iter()
            .map(|index| usize::from(labels[*index as usize].expect("evaluated images have a label")))
            .collect();
        tally.add(&targets, &logits).expect("as many rows of logits as targets, all below `classes`");
        all.extend(logits);
        true
    });
    (tally.scores(), all)
}
