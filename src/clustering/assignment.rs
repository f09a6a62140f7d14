//! Which cluster each image belongs to, and how sure that is.

use rayon::prelude::*;

use super::{Embedding, KMeans, Neighbours};

/// Probability of every cluster for every image.
#[derive(Debug, Clone, PartialEq)]
pub struct Assignment {
    clusters: usize,
    /// `[N, C]`
    probabilities: Vec<f32>,
}

impl Assignment {
    /// Of k-means, which knows no probabilities: a cluster is as likely as its centre is near, relative to the nearest other.
    pub fn of_kmeans(rows: &Embedding, found: &KMeans) -> Self {
        let centres = found.centres();
        let row = |row: usize| {
            let distances = (0..centres.len()).map(|centre| {
                let squares = rows.row(row).iter().zip(centres.row(centre)).map(|(a, b)| (a - b).powi(2));
                squares.sum::<f32>()
            });
            let mut near: Vec<f32> = distances.map(|distance| 1.0 / distance.max(1e-6)).collect();
            // The nearest by the same comparison that assigned it, whatever rounding says here.
            let own = found.assignment()[row] as usize;
            near[own] = near.iter().copied().fold(0.0, f32::max) * 1.000_001;
            let sum: f32 = near.iter().sum();
            near.into_iter().map(move |value| value / sum).collect::<Vec<f32>>()
        };
        let probabilities = (0..rows.len()).into_par_iter().flat_map_iter(row).collect();
        Self { clusters: centres.len(), probabilities }
    }

    /// `[N, C]` logits.
    pub(super) fn of_logits(mut logits: Vec<f32>, clusters: usize) -> Self {
        logits.par_chunks_exact_mut(clusters).for_each(|row| {
            let peak = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            row.iter_mut().for_each(|value| *value = (*value - peak).exp());
            let sum: f32 = row.iter().sum();
            row.iter_mut().for_each(|value| *value /= sum);
        });
        Self { clusters, probabilities: logits }
    }

    /// N.
    pub fn len(&self) -> usize {
        self.probabilities.len() / self.clusters
    }

    /// Whether there are no images.
    pub fn is_empty(&self) -> bool {
        self.probabilities.is_empty()
    }

    /// C.
    pub fn clusters(&self) -> usize {
        self.clusters
    }

    /// Probabilities of the image in row `row`, `[C]`.
    pub fn probabilities(&self, row: usize) -> &[f32] {
        &self.probabilities[row * self.clusters..][..self.clusters]
    }

    /// The most likely cluster of each image; of equals the first.
    pub fn labels(&self) -> Vec<u32> {
        self.probabilities
            .par_chunks_exact(self.clusters)
            .map(|row| crate::metrics::argmax(row) as u32)
            .collect()
    }

    /// The probability of the most likely cluster of each image.
    pub fn confidences(&self) -> Vec<f32> {
        self.probabilities
            .par_chunks_exact(self.clusters)
            .map(|row| row.iter().copied().fold(0.0, f32::max))
            .collect()
    }

    /// Images of each cluster.
    pub fn sizes(&self) -> Vec<usize> {
        let mut sizes = vec![0; self.clusters];
        self.labels().into_iter().for_each(|cluster| sizes[cluster as usize] += 1);
        sizes
    }

    /// Clusters without an image.
    pub fn empty(&self) -> Vec<u32> {
        (0u32..).zip(self.sizes()).filter(|(_, size)| *size == 0).map(|(cluster, _)| cluster).collect()
    }

    /// How many clusters are in use: of equal clusters their number, of unequal ones fewer (the exponential of the entropy of
    /// their sizes).
    pub fn effective(&self) -> f64 {
        let total = self.len().max(1) as f64;
        let shares = self.sizes().into_iter().filter(|size| *size > 0).map(|size| size as f64 / total);
        shares.map(|share| -share * share.ln()).sum::<f64>().exp()
    }

    /// Share of images whose cluster has a probability above `confidence`.
    pub fn confident(&self, confidence: f32) -> f64 {
        let sure = self.confidences().into_iter().filter(|found| *found > confidence).count();
        sure as f64 / self.len().max(1) as f64
    }

    /// SCAN's loss (eq. 2) over all images and all of their neighbours.
    pub(super) fn scan_loss(&self, neighbours: &Neighbours, entropy_weight: f64) -> f64 {
        let disagreement = |row: usize| -> f64 {
            let own = self.probabilities(row);
            let with = |other: usize| -> f64 {
                let both: f32 = own.iter().zip(self.probabilities(other)).map(|(p, q)| p * q).sum();
                -f64::from(both.max(f32::MIN_POSITIVE)).ln()
            };
            if neighbours.k() == 0 {
                return with(row);
            }
            let near = neighbours.of(row);
            near.iter().map(|other| with(*other as usize)).sum::<f64>() / near.len() as f64
        };
        // Summed in order, so that the number of threads changes nothing.
        let each: Vec<f64> = (0..self.len()).into_par_iter().map(disagreement).collect();
        let consistency = each.iter().sum::<f64>() / self.len().max(1) as f64;
        let entropy = -self.mean().into_iter().map(|p| p * p.max(1e-8).ln()).sum::<f64>();
        consistency - entropy_weight * entropy
    }

    /// Mean probability of each cluster.
    fn mean(&self) -> Vec<f64> {
        let mut sums = vec![0f64; self.clusters];
        for row in self.probabilities.chunks_exact(self.clusters) {
            sums.iter_mut().zip(row).for_each(|(sum, p)| *sum += f64::from(*p));
        }
        sums.into_iter().map(|sum| sum / self.len().max(1) as f64).collect()
    }

    /// With like clusters joined until `wanted` are left, 1 or more: over-clustering finds groups within classes, which belong
    /// together.
    ///
    /// Two clusters are alike as far as the neighbours of the one's images are assigned to the other, on average. The most
    /// alike are joined first; the likeness of a joined cluster is the mean over its images.
    pub fn merged(&self, neighbours: &Neighbours, wanted: usize) -> Self {
        let count = self.clusters;
        let sizes = self.sizes();
        // `flow[a][b]`: how much of b the neighbours of a's images show, in images.
        let mut flow = vec![vec![0f64; count]; count];
        for (row, cluster) in self.labels().into_iter().enumerate() {
            let near = if neighbours.k() == 0 { &[][..] } else { neighbours.of(row) };
            for other in near {
                let share = 1.0 / near.len() as f64;
                let shown = self.probabilities(*other as usize);
                flow[cluster as usize]
                    .iter_mut()
                    .zip(shown)
                    .for_each(|(sum, p)| *sum += share * f64::from(*p));
            }
        }
        let mut groups: Vec<Vec<usize>> = (0..count).map(|cluster| vec![cluster]).collect();
        while groups.len() > wanted.max(1) {
            let (mut best, mut pair) = (f64::NEG_INFINITY, (0, 1));
            for a in 0..groups.len() {
                for b in a + 1..groups.len() {
                    let likeness = likeness(&flow, &sizes, &groups[a], &groups[b]);
                    if likeness > best {
                        (best, pair) = (likeness, (a, b));
                    }
                }
            }
            let joined = groups.remove(pair.1);
            groups[pair.0].extend(joined);
        }
        let join = |row: &[f32]| -> Vec<f32> {
            groups.iter().map(|group| group.iter().map(|cluster| row[*cluster]).sum()).collect()
        };
        let probabilities = self.probabilities.par_chunks_exact(count).flat_map_iter(join).collect();
        Self { clusters: groups.len(), probabilities }
    }
}

/// Mean share of the other group among the neighbours of a group's images. Empty groups are like any other: 1.
fn likeness(flow: &[Vec<f64>], sizes: &[usize], a: &[usize], b: &[usize]) -> f64 {
    let images = |group: &[usize]| group.iter().map(|cluster| sizes[*cluster]).sum::<usize>() as f64;
    let towards =
        |from: &[usize], to: &[usize]| from.iter().flat_map(|f| to.iter().map(|t| flow[*f][*t])).sum::<f64>();
    if images(a) == 0.0 || images(b) == 0.0 {
        return 1.0;
    }
    (towards(a, b) / images(a) + towards(b, a) / images(b)) / 2.0
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use burn::tensor::Device;

    use super::*;
    use crate::clustering::{Embedding, Search};

    fn neighbours(rows: &Embedding, k: usize) -> Neighbours {
        let stop = AtomicBool::new(false);
        Neighbours::search(rows, k, Search::Exact, 0, &Device::flex(), &stop, &mut |_| ()).expect("runs")
    }

    /// `count` images in each of `groups` directions, and logits that follow `cluster`.
    fn world(
        groups: usize,
        count: usize,
        clusters: usize,
        cluster: impl Fn(usize, usize) -> usize,
    ) -> (Embedding, Assignment) {
        let mut values = vec![0f32; groups * count * groups];
        let mut logits = vec![0f32; groups * count * clusters];
        for row in 0..groups * count {
            values[row * groups + row / count] = 1.0;
            values[row * groups + (row / count + 1) % groups] = 0.01 * (row % count) as f32;
            logits[row * clusters + cluster(row / count, row % count)] = 9.0;
        }
        (Embedding::new(values, groups).expect("finite"), Assignment::of_logits(logits, clusters))
    }

    #[test]
    fn parts_of_a_group_are_joined_before_groups_are() {
        // Three groups, the first in three parts, and a cluster without images.
        let (rows, found) = world(3, 12, 6, |group, image| if group == 0 { image % 3 } else { group + 2 });
        assert_eq!((found.sizes(), found.empty()), (vec![4, 4, 4, 12, 12, 0], vec![5]));
        let merged = found.merged(&neighbours(&rows, 5), 3);
        assert_eq!(merged.sizes(), [12, 12, 12]);
        assert_eq!(merged.labels()[..12], [0; 12]);
        for row in 0..merged.len() {
            assert!((merged.probabilities(row).iter().sum::<f32>() - 1.0).abs() < 1e-5);
        }
        assert_eq!(found.merged(&neighbours(&rows, 5), 0).clusters(), 1);
    }

    #[test]
    fn the_right_clusters_have_the_lower_loss() {
        let (rows, right) = world(3, 10, 3, |group, _| group);
        let (_, wrong) = world(3, 10, 3, |_, image| image % 3);
        let (_, one) = world(3, 10, 3, |_, _| 1);
        let near = neighbours(&rows, 4);
        let losses = [&right, &wrong, &one].map(|found| found.scan_loss(&near, 5.0));
        assert!(losses[0] < losses[1] && losses[0] < losses[2], "{losses:?}");
        assert!((right.effective() - 3.0).abs() < 1e-9 && one.effective() == 1.0);
        assert!(right.confident(0.99) == 1.0 && right.confident(0.9999) == 0.0);
    }

    #[test]
    fn no_images_are_no_clusters() {
        let none = Assignment::of_logits(Vec::new(), 3);
        assert_eq!((none.len(), none.empty().len(), none.confident(0.5)), (0, 3, 0.0));
        let rows = Embedding::new(Vec::new(), 2).expect("no rows");
        assert_eq!(none.merged(&neighbours(&rows, 5), 2).clusters(), 2);
    }
}
