//! The most similar images of each image.
//!
//! Similarity is the cosine. The exact search multiplies blocks of rows on the device and keeps the best of each block, so
//! that of the N × N similarities never more than a block exists. The approximate search divides the rows into cells by k-means
//! and looks only into the cells nearest to a row's own (an inverted file: Jégou et al., PAMI 2011); all rows of a cell look
//! into the same cells and share one product. It is ours because its results depend on the seed alone, not on the
//! order in which threads insert.

use std::sync::atomic::{AtomicBool, Ordering};

use burn::tensor::Device;
use rayon::prelude::*;

use super::{ClusterError, Embedding, KMeans};
use crate::config::Search;

/// Rows multiplied at once: the first are looked for, the second are looked among. 64 MiB of similarities.
const QUERIES: usize = 1024;
const CANDIDATES: usize = 16_384;
/// The exact search up to so many rows, where nobody chose: on a GPU a minute, on two CPU cores an hour at the most.
const EXACT_ROWS: usize = 250_000;
/// Rows of a cell, on average, and cells looked into.
const CELL_ROWS: usize = 512;
const PROBES: usize = 16;

/// The `k` most similar rows of each row, itself excluded, best first; of equals the earlier row.
#[derive(Debug, Clone, PartialEq)]
pub struct Neighbours {
    k: usize,
    /// `[N, k]`
    indices: Vec<u32>,
    /// `[N, k]`, cosines.
    similarities: Vec<f32>,
}

impl Neighbours {
    /// Searches the `k` nearest of every row; fewer where there are not as many other rows. `advance` is told how many of
    /// [`Neighbours::work`] are done.
    ///
    /// # Errors
    /// If `stop` was set meanwhile.
    pub fn search(
        rows: &Embedding,
        k: usize,
        search: Search,
        seed: u64,
        device: &Device,
        stop: &AtomicBool,
        advance: &mut dyn FnMut(u64),
    ) -> Result<Self, ClusterError> {
        let rows = &rows.clone().normalised();
        let k = k.min(rows.len().saturating_sub(1));
        let exact = match search {
            Search::Auto => rows.len() <= EXACT_ROWS,
            Search::Exact => true,
            Search::Approximate => false,
        };
        let mut best = Best::new(rows.len(), k);
        if exact {
            let all: Vec<u32> = (0..rows.len() as u32).collect();
            best.among_all(rows, rows, &all, device, stop, advance)?;
        } else {
            best.among_cells(rows, seed, device, stop, advance)?;
        }
        Ok(best.finish())
    }

    /// The `k` rows most similar to a distorted copy of each of the images `queries`, the image itself excluded. `copies[i]` is of
    /// row `i`; both are of length one.
    ///
    /// # Errors
    /// If `stop` was set meanwhile.
    pub fn of_copies(
        rows: &Embedding,
        copies: &Embedding,
        queries: &[u32],
        k: usize,
        device: &Device,
        stop: &AtomicBool,
    ) -> Result<Vec<Vec<u32>>, ClusterError> {
        let mut best = Best::new(rows.len(), k.min(rows.len().saturating_sub(1)));
        best.among_all(rows, copies, queries, device, stop, &mut |_| ())?;
        Ok(queries.iter().map(|query| best.of(*query).to_vec()).collect())
    }

    /// What `advance` counts up to: rows.
    pub fn work(rows: &Embedding) -> u64 {
        rows.len() as u64
    }

    /// Neighbours of each row.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.indices.len().checked_div(self.k).unwrap_or(0)
    }

    /// Whether no row has a neighbour.
    pub fn is_empty(&self) -> bool {
        self.indices.is_empty()
    }

    /// The neighbours of `row`, best first.
    pub fn of(&self, row: usize) -> &[u32] {
        &self.indices[row * self.k..(row + 1) * self.k]
    }

    /// Their cosines.
    pub fn similarities(&self, row: usize) -> &[f32] {
        &self.similarities[row * self.k..(row + 1) * self.k]
    }

    /// Share of (row, neighbour) pairs in one group, and what it would be if groups were drawn by lot.
    pub fn agreement(&self, groups: &[u32]) -> (f64, f64) {
        let mut sizes = std::collections::BTreeMap::<u32, f64>::new();
        groups.iter().for_each(|group| *sizes.entry(*group).or_default() += 1.0);
        let total = groups.len().max(1) as f64;
        let chance = sizes.values().map(|size| (size / total).powi(2)).sum();
        if self.is_empty() {
            return (chance, chance);
        }
        let same = |row: usize| self.of(row).iter().filter(|n| groups[**n as usize] == groups[row]).count();
        let together: usize = (0..self.len()).map(same).sum();
        (together as f64 / self.indices.len() as f64, chance)
    }
}

/// The best found so far of every row.
struct Best {
    k: usize,
    indices: Vec<u32>,
    similarities: Vec<f32>,
}

impl Best {
    fn new(rows: usize, k: usize) -> Self {
        Self { k, indices: vec![u32::MAX; rows * k], similarities: vec![f32::NEG_INFINITY; rows * k] }
    }

    /// Looks for `queries`, which are rows of `seekers`, among all `rows`.
    fn among_all(
        &mut self,
        rows: &Embedding,
        seekers: &Embedding,
        queries: &[u32],
        device: &Device,
        stop: &AtomicBool,
        advance: &mut dyn FnMut(u64),
    ) -> Result<(), ClusterError> {
        let all: Vec<u32> = (0..rows.len() as u32).collect();
        for candidates in all.chunks(CANDIDATES) {
            self.compare(rows, seekers, queries, candidates, device, stop)?;
            advance(candidates.last().map_or(0, |last| u64::from(*last) + 1));
        }
        Ok(())
    }

    fn among_cells(
        &mut self,
        rows: &Embedding,
        seed: u64,
        device: &Device,
        stop: &AtomicBool,
        advance: &mut dyn FnMut(u64),
    ) -> Result<(), ClusterError> {
        let cells = KMeans::cells(rows, rows.len().div_ceil(CELL_ROWS), seed, device, stop)?;
        let members = cells.members();
        let centres = cells.centres().clone().normalised();
        let near = Neighbours::search(&centres, PROBES - 1, Search::Exact, seed, device, stop, &mut |_| ())?;
        let mut done = 0;
        for (cell, queries) in members.iter().enumerate() {
            let others = if near.is_empty() { &[][..] } else { near.of(cell) };
            let mut candidates: Vec<u32> =
                others.iter().flat_map(|other| &members[*other as usize]).chain(queries).copied().collect();
            candidates.sort_unstable();
            self.compare(rows, rows, queries, &candidates, device, stop)?;
            done += queries.len() as u64;
            advance(done);
        }
        // Where like cells hold fewer rows than are wanted.
        let short: Vec<u32> =
            (0..rows.len() as u32).filter(|row| self.of(*row).contains(&u32::MAX)).collect();
        self.among_all(rows, rows, &short, device, stop, &mut |_| ())
    }

    fn of(&self, row: u32) -> &[u32] {
        &self.indices[row as usize * self.k..][..self.k]
    }

    /// Shows each of `queries` its products with `candidates`, which ascend.
    fn compare(
        &mut self,
        rows: &Embedding,
        seekers: &Embedding,
        queries: &[u32],
        candidates: &[u32],
        device: &Device,
        stop: &AtomicBool,
    ) -> Result<(), ClusterError> {
        if candidates.is_empty() || self.k == 0 {
            return Ok(());
        }
        let table = rows.select(candidates).to_tensor(device).transpose();
        for queries in queries.chunks(QUERIES) {
            if stop.load(Ordering::Relaxed) {
                return Err(ClusterError::Interrupted);
            }
            let products = seekers.select(queries).to_tensor(device).matmul(table.clone()).into_data();
            let products = products.as_slice::<f32>().expect("similarities are f32");
            let found: Vec<(Vec<u32>, Vec<f32>)> = queries
                .par_iter()
                .zip(products.par_chunks_exact(candidates.len()))
                .map(|(&query, products)| {
                    let mut best = self.row(query);
                    offer(&mut best, query, candidates, products);
                    best
                })
                .collect();
            for (&query, (indices, similarities)) in queries.iter().zip(&found) {
                let place = query as usize * self.k;
                self.indices[place..][..self.k].copy_from_slice(indices);
                self.similarities[place..][..self.k].copy_from_slice(similarities);
            }
        }
        Ok(())
    }

    /// What is known of a row so far.
    fn row(&self, row: u32) -> (Vec<u32>, Vec<f32>) {
        let place = row as usize * self.k;
        (self.of(row).to_vec(), self.similarities[place..][..self.k].to_vec())
    }

    fn finish(self) -> Neighbours {
        Neighbours { k: self.k, indices: self.indices, similarities: self.similarities }
    }
}

/// Takes over the candidates that are more similar than the last of the best.
fn offer(
    (indices, similarities): &mut (Vec<u32>, Vec<f32>),
    query: u32,
    candidates: &[u32],
    products: &[f32],
) {
    let last = similarities.len() - 1;
    for (&candidate, &similarity) in candidates.iter().zip(products) {
        // Candidates ascend, so an equal that comes later stays behind. One seen before is not taken twice.
        if similarity > similarities[last] && candidate != query && !indices.contains(&candidate) {
            let place = similarities.partition_point(|known| *known >= similarity);
            similarities[place..].rotate_right(1);
            indices[place..].rotate_right(1);
            (similarities[place], indices[place]) = (similarity, candidate);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, stream};
    use proptest::prelude::*;
    use rand::RngExt;

    fn random(rows: usize, dim: usize, seed: u64) -> Embedding {
        let mut rng = stream(seed, Purpose::Cluster, [0; 3]);
        let values = (0..rows * dim).map(|_| rng.random::<f32>() - 0.5).collect();
        Embedding::new(values, dim).expect("finite")
    }

    fn search(rows: &Embedding, k: usize, how: Search) -> Neighbours {
        Neighbours::search(rows, k, how, 0, &Device::flex(), &AtomicBool::new(false), &mut |_| ())
            .expect("runs")
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        /// Every pair compared one by one, over sizes around and beyond one block of queries.
        #[test]
        fn the_blocks_find_what_sorting_finds(rows in 1usize..1300, dim in 1usize..9, k in 0usize..7, seed: u64) {
            let embedding = random(rows, dim, seed).normalised();
            let found = search(&embedding, k, Search::Exact);
            let k = k.min(rows - 1);
            prop_assert_eq!(found.k(), k);
            for row in (0..rows).step_by(97) {
                let cosine = |other: usize| -> f32 {
                    embedding.row(row).iter().zip(embedding.row(other)).map(|(a, b)| a * b).sum()
                };
                let mut all: Vec<f32> = (0..rows).filter(|other| *other != row).map(cosine).collect();
                all.sort_by(|a, b| b.total_cmp(a));
                for ((name, similarity), best) in found.of(row).iter().zip(found.similarities(row)).zip(all) {
                    prop_assert!((similarity - best).abs() < 1e-5);
                    prop_assert!((similarity - cosine(*name as usize)).abs() < 1e-5 && *name as usize != row);
                }
            }
        }
    }

    #[test]
    fn the_cells_miss_little_where_there_is_something_to_find() {
        // 60 clouds of 100.
        let (centres, noise) = (random(60, 16, 1), random(6000, 16, 2));
        let values = (0..6000).flat_map(|row| {
            let pair = centres.row(row % 60).iter().zip(noise.row(row));
            pair.map(|(centre, noise)| centre + 0.4 * noise).collect::<Vec<_>>()
        });
        let rows = Embedding::new(values.collect(), 16).expect("finite");
        let (exact, near) = (search(&rows, 10, Search::Exact), search(&rows, 10, Search::Approximate));
        let found: usize =
            (0..6000).map(|row| near.of(row).iter().filter(|n| exact.of(row).contains(n)).count()).sum();
        assert!(found >= 59_000, "{found} of 60000");
        let groups: Vec<u32> = (0..6000).map(|row| row % 60).collect();
        let (agreement, chance) = exact.agreement(&groups);
        assert!(agreement > 0.5 && (chance - 1.0 / 60.0).abs() < 1e-9, "{agreement} {chance}");
    }

    #[test]
    fn equal_images_and_few_images_have_neighbours_all_the_same() {
        let equal = Embedding::new(vec![1.0; 40], 4).expect("finite");
        for how in [Search::Exact, Search::Approximate] {
            let found = search(&equal, 3, how);
            assert_eq!((found.of(0), found.of(9)), (&[1, 2, 3][..], &[0, 1, 2][..]));
            assert_eq!(search(&equal, 50, how).k(), 9);
            assert!(search(&Embedding::new(vec![1.0; 4], 4).expect("finite"), 3, how).is_empty());
        }
        let zeros = Embedding::new(vec![0.0; 12], 4).expect("finite");
        assert_eq!(search(&zeros, 1, Search::Exact).similarities(2), [0.0]);
    }

    #[test]
    fn a_stop_is_heard() {
        let (rows, stop) = (random(10, 2, 0), AtomicBool::new(true));
        let found = Neighbours::search(&rows, 2, Search::Exact, 0, &Device::flex(), &stop, &mut |_| ());
        assert!(matches!(found, Err(ClusterError::Interrupted)));
    }
}
