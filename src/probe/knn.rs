//! The vote of the nearest labelled images: Wu et al., CVPR 2018, arXiv:1805.01978, section 3.4.
//!
//! ```text
//! s_i = cos(f, f_i)                 of the image's features and those of labelled image i
//! w_c = Σ_{i in N_k, y_i = c} exp(s_i / τ)
//! ```
//!
//! N_k are the k most similar, k = 200 of a million there; 20 is customary for smaller sets since DINO (arXiv:2104.14294).

use rayon::prelude::*;

use super::Features;
use crate::metrics::argmax;

/// k, where there are as many labelled images.
pub const NEIGHBOURS: usize = 20;
/// τ, as in the paper.
const TEMPERATURE: f32 = 0.07;

/// Labelled images to compare with.
#[derive(Debug, Clone)]
pub struct NearestNeighbours {
    labelled: Features,
    classes: usize,
}

impl NearestNeighbours {
    /// Keeps the directions of the features.
    pub fn new(labelled: &Features, classes: usize) -> Self {
        Self { labelled: directions(labelled), classes }
    }

    /// How many labelled images have a vote.
    pub fn k(&self) -> usize {
        NEIGHBOURS.min(self.labelled.labels.len())
    }

    /// The class of each image.
    pub fn predict(&self, images: &Features) -> Vec<usize> {
        let images = directions(images);
        images.values.par_chunks_exact(images.dim.max(1)).map(|row| self.vote(row)).collect()
    }

    fn vote(&self, row: &[f32]) -> usize {
        let cosine = |other: &[f32]| row.iter().zip(other).map(|(a, b)| a * b).sum::<f32>();
        let mut near: Vec<(f32, usize)> =
            self.labelled.rows().map(cosine).zip(self.labelled.labels.iter().copied()).collect();
        let k = self.k();
        if k < near.len() {
            // Of equals any; equal rows of one set are in one order on every machine.
            near.select_nth_unstable_by(k, |a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        }
        near.truncate(k);
        near.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let mut votes = vec![0f32; self.classes];
        for (similarity, label) in near {
            // Relative to the largest possible, so that nothing overflows.
            votes[label] += ((similarity - 1.0) / TEMPERATURE).exp();
        }
        argmax(&votes)
    }
}

/// Rows of length one; a row of zeros stays.
fn directions(features: &Features) -> Features {
    let mut unit = features.clone();
    for row in unit.values.chunks_exact_mut(features.dim.max(1)) {
        let length = row.iter().map(|value| value * value).sum::<f32>().sqrt();
        if length > 0.0 {
            row.iter_mut().for_each(|value| *value /= length);
        }
    }
    unit
}

#[cfg(test)]
mod tests {
    use super::*;

    fn features(rows: &[([f32; 2], usize)]) -> Features {
        Features {
            values: rows.iter().flat_map(|(row, _)| *row).collect(),
            dim: 2,
            labels: rows.iter().map(|(_, label)| *label).collect(),
        }
    }

    #[test]
    fn one_near_neighbour_outweighs_many_far_ones() {
        let mut rows = vec![([1.0, 0.0], 1)];
        rows.extend(vec![([0.0, 1.0], 0); 10]);
        let nearest = NearestNeighbours::new(&features(&rows), 2);
        assert_eq!(nearest.k(), 11);
        // exp(1 / 0.07) is more than ten times exp(0.1 / 0.07).
        assert_eq!(
            nearest.predict(&features(&[([5.0, 0.5], 0), ([0.1, 9.0], 0), ([0.0, 0.0], 0)])),
            [1, 0, 0]
        );
    }

    #[test]
    fn only_the_nearest_twenty_vote() {
        let mut rows = vec![([1.0, 0.0], 0); NEIGHBOURS];
        rows.extend(vec![([1.0, 0.01], 1); 5000]);
        let nearest = NearestNeighbours::new(&features(&rows), 2);
        assert_eq!(nearest.predict(&features(&[([2.0, 0.0], 0)])), [0]);
    }
}
