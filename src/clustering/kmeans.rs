//! k-means: groups around centres, the sum of squared distances as small as found.
//!
//! Lloyd's iterations (1982) from k-means++ (Arthur and Vassilvitskii, SODA 2007), several starts, the best kept. It never
//! fails: a cluster that empties takes over the image farthest from its centre, and where there are fewer different images than
//! clusters some clusters stay empty.

use std::sync::atomic::{AtomicBool, Ordering};

use burn::tensor::{Device, Tensor};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::{ClusterError, Embedding};
use crate::random::{Purpose, stream};

/// Products of rows and centres held at once: 64 MiB.
const PRODUCTS: usize = 1 << 24;
const ITERATIONS: usize = 100;
/// The same for cells, which need not be perfect, and how many rows for each of them are looked at.
const CELL_ITERATIONS: usize = 8;
const CELL_SAMPLE: usize = 64;

/// Groups of rows around centres.
#[derive(Debug, Clone, PartialEq)]
pub struct KMeans {
    centres: Embedding,
    /// `[N]`, the centre of each row.
    assignment: Vec<u32>,
    /// `[N]`, squared distances to it.
    distances: Vec<f32>,
}

impl KMeans {
    /// The best of `starts` starts with `k` centres, 1 or more.
    ///
    /// # Errors
    /// If there is no row, or `stop` was set meanwhile.
    pub fn fit(
        rows: &Embedding,
        k: usize,
        starts: u64,
        seed: u64,
        device: &Device,
        stop: &AtomicBool,
    ) -> Result<Self, ClusterError> {
        let mut best: Option<Self> = None;
        for start in 0..starts.max(1) {
            let mut rng = stream(seed, Purpose::Cluster, [start, 0, 0]);
            let centres = spread(rows, k, &mut rng)?;
            let found = Self::lloyd(rows, centres, ITERATIONS, device, stop)?;
            if best.as_ref().is_none_or(|best| found.inertia() < best.inertia()) {
                best = Some(found);
            }
        }
        best.ok_or(ClusterError::Empty)
    }

    /// Many centres found quickly on a part of the rows, for a division into cells.
    ///
    /// # Errors
    /// As [`KMeans::fit`].
    pub fn cells(
        rows: &Embedding,
        k: usize,
        seed: u64,
        device: &Device,
        stop: &AtomicBool,
    ) -> Result<Self, ClusterError> {
        if rows.is_empty() {
            return Err(ClusterError::Empty);
        }
        let mut rng = stream(seed, Purpose::Cluster, [u64::MAX, 0, 0]);
        let count = rows.len();
        let sample = rand::seq::index::sample(&mut rng, count, (k * CELL_SAMPLE).min(count));
        let sample: Vec<u32> = sample.iter().map(|row| row as u32).collect();
        let centres = rows.select(&sample[..k.min(sample.len())]);
        let few = Self::lloyd(&rows.select(&sample), centres, CELL_ITERATIONS, device, stop)?;
        Self::lloyd(rows, few.centres, 0, device, stop)
    }

    /// Every row goes to its nearest centre, every centre to the mean of its rows, until nothing moves.
    fn lloyd(
        rows: &Embedding,
        centres: Embedding,
        iterations: usize,
        device: &Device,
        stop: &AtomicBool,
    ) -> Result<Self, ClusterError> {
        let (assignment, distances) = nearest(rows, &centres, device, stop)?;
        let mut found = Self { centres, assignment, distances };
        for _ in 0..iterations {
            found.fill_empty();
            found.move_centres(rows);
            let (assignment, distances) = nearest(rows, &found.centres, device, stop)?;
            let moved = assignment != found.assignment;
            (found.assignment, found.distances) = (assignment, distances);
            if !moved {
                break;
            }
        }
        Ok(found)
    }

    /// The row farthest from its centre starts each empty cluster.
    fn fill_empty(&mut self) {
        let mut sizes = self.sizes();
        for cluster in 0..sizes.len() {
            if sizes[cluster] > 0 {
                continue;
            }
            let shared = |row: &usize| sizes[self.assignment[*row] as usize] > 1;
            let farther =
                |a: &usize, b: &usize| self.distances[*a].total_cmp(&self.distances[*b]).then(b.cmp(a));
            let Some(row) = (0..self.assignment.len()).filter(shared).max_by(farther) else { return };
            if self.distances[row] <= 0.0 {
                // Fewer different rows than clusters.
                return;
            }
            sizes[self.assignment[row] as usize] -= 1;
            sizes[cluster] = 1;
            (self.assignment[row], self.distances[row]) = (cluster as u32, 0.0);
        }
    }

    fn move_centres(&mut self, rows: &Embedding) {
        let dim = rows.dim();
        let members = self.members();
        let means = members.par_iter().enumerate().flat_map_iter(|(cluster, members)| {
            // In the order of rows and in double precision: the same on any number of threads.
            let mut sum = vec![0f64; dim];
            for row in members {
                sum.iter_mut()
                    .zip(rows.row(*row as usize))
                    .for_each(|(sum, value)| *sum += f64::from(*value));
            }
            let count = members.len() as f64;
            let kept = self.centres.row(cluster);
            let mean = move |(sum, kept): (f64, f32)| if count > 0.0 { (sum / count) as f32 } else { kept };
            sum.into_iter().zip(kept.to_vec()).map(mean)
        });
        let values: Vec<f32> = means.collect();
        self.centres = Embedding::new(values, dim).expect("means of finite values are finite");
    }

    /// The centres, `[k, D]`.
    pub fn centres(&self) -> &Embedding {
        &self.centres
    }

    /// The cluster of each row.
    pub fn assignment(&self) -> &[u32] {
        &self.assignment
    }

    /// Sum of squared distances to the centres.
    pub fn inertia(&self) -> f64 {
        self.distances.iter().map(|distance| f64::from(*distance)).sum()
    }

    /// Squared distance of each row to its centre.
    pub fn distances(&self) -> &[f32] {
        &self.distances
    }

    /// Rows in each cluster.
    pub fn sizes(&self) -> Vec<usize> {
        let mut sizes = vec![0; self.centres.len()];
        self.assignment.iter().for_each(|cluster| sizes[*cluster as usize] += 1);
        sizes
    }

    /// The rows of each cluster, ascending.
    pub fn members(&self) -> Vec<Vec<u32>> {
        let mut members = vec![Vec::new(); self.centres.len()];
        for (row, cluster) in self.assignment.iter().enumerate() {
            members[*cluster as usize].push(row as u32);
        }
        members
    }
}

/// The nearest centre of each row and the squared distance to it; of equals the first.
pub(super) fn nearest(
    rows: &Embedding,
    centres: &Embedding,
    device: &Device,
    stop: &AtomicBool,
) -> Result<(Vec<u32>, Vec<f32>), ClusterError> {
    let lengths: Vec<f32> = (0..centres.len()).map(|centre| squared(centres.row(centre))).collect();
    let table: Tensor<2> = centres.clone().to_tensor(device).transpose();
    let all: Vec<u32> = (0..rows.len() as u32).collect();
    let mut found = Vec::with_capacity(rows.len());
    for block in all.chunks((PRODUCTS / centres.len().max(1)).max(1)) {
        if stop.load(Ordering::Relaxed) {
            return Err(ClusterError::Interrupted);
        }
        let products = rows.select(block).to_tensor(device).matmul(table.clone()).into_data();
        let products = products.as_slice::<f32>().expect("products are f32");
        let nearest = |(row, products): (&u32, &[f32])| {
            let mut best = (0u32, f32::INFINITY);
            for (centre, (product, length)) in products.iter().zip(&lengths).enumerate() {
                let distance = length - 2.0 * product;
                if distance < best.1 {
                    best = (centre as u32, distance);
                }
            }
            (best.0, distance(rows.row(*row as usize), centres.row(best.0 as usize)))
        };
        found.par_extend(block.par_iter().zip(products.par_chunks_exact(centres.len())).map(nearest));
    }
    Ok(found.into_iter().unzip())
}

/// k-means++: each further centre is a row drawn with a probability that grows with its squared distance to the nearest
/// centre so far; of a few drawn the one that helps most.
fn spread(rows: &Embedding, k: usize, rng: &mut ChaCha8Rng) -> Result<Embedding, ClusterError> {
    let count = rows.len();
    if count == 0 || k == 0 {
        return Err(ClusterError::Empty);
    }
    let tries = 2 + (k as f64).ln() as usize;
    let first = rng.random_range(0..count);
    let mut chosen = vec![first as u32];
    let mut nearest = distances(rows, first);
    while chosen.len() < k {
        let total: f64 = nearest.iter().map(|distance| f64::from(*distance)).sum();
        if total <= 0.0 {
            // No different row is left; the clusters of these centres stay empty.
            chosen.resize(k, first as u32);
            break;
        }
        let candidates: Vec<usize> =
            (0..tries).map(|_| drawn(&nearest, rng.random::<f64>() * total)).collect();
        let helped = candidates.into_iter().map(|candidate| {
            let mut closer = distances(rows, candidate);
            closer.iter_mut().zip(&nearest).for_each(|(new, old)| *new = new.min(*old));
            (closer.iter().map(|distance| f64::from(*distance)).sum::<f64>(), candidate, closer)
        });
        let best = helped.min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let (_, candidate, closer) = best.expect("two or more are tried");
        chosen.push(candidate as u32);
        nearest = closer;
    }
    Ok(rows.select(&chosen))
}

/// The row at which the running sum of distances passes `mark`.
fn drawn(distances: &[f32], mark: f64) -> usize {
    let mut sum = 0.0;
    let passed = distances.iter().position(|distance| {
        sum += f64::from(*distance);
        sum > mark
    });
    // Rounding can leave the mark beyond the end.
    passed.or_else(|| distances.iter().rposition(|distance| *distance > 0.0)).unwrap_or(0)
}

fn distances(rows: &Embedding, from: usize) -> Vec<f32> {
    let from = rows.row(from);
    rows.values().par_chunks_exact(rows.dim()).map(|row| distance(row, from)).collect()
}

fn distance(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum()
}

fn squared(row: &[f32]) -> f32 {
    row.iter().map(|value| value * value).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fit(values: Vec<f32>, dim: usize, k: usize, seed: u64) -> KMeans {
        let rows = Embedding::new(values, dim).expect("finite");
        KMeans::fit(&rows, k, 3, seed, &Device::flex(), &AtomicBool::new(false)).expect("never fails")
    }

    #[test]
    fn clouds_are_found() {
        let clouds = [[0.0f32, 0.0], [10.0, 0.0], [0.0, 10.0]];
        let values = (0..90).flat_map(|i| {
            let jitter = |n: usize| (i * n % 13) as f32 / 13.0;
            [clouds[i % 3][0] + jitter(5), clouds[i % 3][1] + jitter(7)]
        });
        let found = fit(values.collect(), 2, 3, 1);
        assert_eq!(found.sizes(), [30, 30, 30]);
        assert!((3..90).all(|row| found.assignment()[row] == found.assignment()[row % 3]));
    }

    #[test]
    fn fewer_different_images_than_clusters_are_no_failure() {
        let found = fit(vec![2.0; 12], 3, 5, 0);
        assert_eq!(found.inertia(), 0.0);
        assert_eq!(found.sizes().iter().sum::<usize>(), 4);
        let two = fit(vec![0.0, 0.0, 1.0, 1.0], 1, 4, 0);
        assert_eq!(two.sizes().iter().filter(|size| **size > 0).count(), 2);
    }

    #[test]
    fn nothing_to_group_is_said() {
        let rows = Embedding::new(Vec::new(), 3).expect("no rows are rows");
        let found = KMeans::fit(&rows, 2, 1, 0, &Device::flex(), &AtomicBool::new(false));
        assert!(matches!(found, Err(ClusterError::Empty)));
    }

    #[test]
    fn an_emptied_cluster_takes_the_farthest_image() {
        let rows = Embedding::new(vec![0.0, 0.1, 0.2, 9.0], 1).expect("finite");
        // The second centre is nobody's nearest.
        let centres = Embedding::new(vec![0.0, -50.0], 1).expect("finite");
        let found =
            KMeans::lloyd(&rows, centres, 5, &Device::flex(), &AtomicBool::new(false)).expect("never fails");
        assert_eq!(found.assignment(), [0, 0, 0, 1]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn every_row_is_with_its_nearest_centre(
            values in prop::collection::vec(-5f32..5.0, 2..80), k in 1usize..9, seed: u64,
        ) {
            let values: Vec<f32> = values.chunks_exact(2).flatten().copied().collect();
            let found = fit(values.clone(), 2, k, seed);
            prop_assert_eq!(&found, &fit(values.clone(), 2, k, seed));
            prop_assert_eq!(found.centres().len(), k);
            for (row, cluster) in values.chunks_exact(2).zip(found.assignment()) {
                let own = distance(row, found.centres().row(*cluster as usize));
                for centre in 0..k {
                    prop_assert!(own <= distance(row, found.centres().row(centre)) + 1e-3);
                }
            }
            if values.len() / 2 >= k {
                let mut different: Vec<&[f32]> = values.chunks_exact(2).collect();
                different.sort_by(|a, b| a.partial_cmp(b).expect("finite"));
                different.dedup();
                if different.len() >= k {
                    prop_assert!(found.sizes().iter().all(|size| *size > 0), "{:?}", found.sizes());
                }
            }
        }
    }
}
