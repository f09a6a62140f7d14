//! Seconds that the nearest neighbours of very many images take, and how many of them the approximate search finds.

use std::sync::atomic::AtomicBool;
use std::time::Instant;

use rand::Rng;
use rayon::prelude::*;
use serde::Serialize;

use super::process::{peak_host_mib, program};
use super::{BenchError, significant};
use crate::clustering::{Embedding, Neighbours, Search};
use crate::device::{by_name, describe};
use crate::random::{Purpose, stream};

/// Rows around one centre, on average: features of images come in groups.
const GROUP: usize = 500;
/// Rows whose exact neighbours are searched for comparison.
const CHECKED: usize = 200;

/// What to measure.
#[derive(Debug, Clone, PartialEq, clap::Args)]
pub struct NeighbourOptions {
    /// Number of images.
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(100..))]
    pub rows: u32,
    /// Features of each.
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..))]
    pub dim: u32,
    /// Neighbours of each.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub neighbours: u32,
    /// Look into like cells only.
    #[arg(long)]
    pub approximate: bool,
    /// cpu, cuda, cuda:N, or auto for the best there is.
    #[arg(long, default_value = "cpu")]
    pub device: String,
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NeighbourReport {
    /// Program and version.
    pub program: String,
    /// Where.
    pub device: String,
    /// Number of images.
    pub rows: u32,
    /// Features of each.
    pub dim: u32,
    /// Neighbours of each.
    pub neighbours: u32,
    /// Whether only like cells were looked into.
    pub approximate: bool,
    /// The whole search.
    pub seconds: f64,
    /// Share of the true neighbours that was found, over some rows compared one by one.
    pub recall: f64,
    /// Most memory of the process.
    pub peak_mib: Option<u64>,
}

/// Measures; see the [module](self).
///
/// # Errors
/// If there is no such device.
pub fn neighbours(options: &NeighbourOptions) -> Result<NeighbourReport, BenchError> {
    let device = by_name(&options.device)?;
    let rows = generate(options.rows as usize, options.dim as usize);
    let search = if options.approximate { Search::Approximate } else { Search::Exact };
    let (k, stop) = (options.neighbours as usize, AtomicBool::new(false));
    let began = Instant::now();
    let found = Neighbours::search(&rows, k, search, 0, &device, &stop, &mut |_| ());
    let seconds = began.elapsed().as_secs_f64();
    let found = found.expect("nobody stops it");
    Ok(NeighbourReport {
        program: program(),
        device: describe(&device).to_owned(),
        rows: options.rows,
        dim: options.dim,
        neighbours: options.neighbours,
        approximate: options.approximate,
        seconds: significant(seconds),
        recall: significant(recall(&rows, &found)),
        peak_mib: peak_host_mib(),
    })
}

/// Groups around centres, rows of length one.
fn generate(rows: usize, dim: usize) -> Embedding {
    let noise = |key: u64, row: &mut [f32]| {
        let mut rng = stream(1, Purpose::Cluster, [key, 0, 0]);
        row.iter_mut().for_each(|value| *value = rng.next_u32() as f32 / u32::MAX as f32 - 0.5);
    };
    let groups = rows.div_ceil(GROUP);
    let mut values = vec![0f32; rows * dim];
    values.par_chunks_exact_mut(dim).enumerate().for_each(|(row, values)| {
        let mut centre = vec![0f32; dim];
        noise((row % groups) as u64, &mut centre);
        noise((groups + row) as u64, values);
        values.iter_mut().zip(centre).for_each(|(value, centre)| *value = centre + 0.7 * *value);
    });
    Embedding::new(values, dim).expect("noise is finite").normalised()
}

/// Share of the neighbours found that are true, over rows spread evenly.
fn recall(rows: &Embedding, found: &Neighbours) -> f64 {
    if found.k() == 0 {
        return 1.0;
    }
    let every = rows.len().div_ceil(CHECKED);
    let checked: Vec<usize> = (0..rows.len()).step_by(every).collect();
    let hits: usize = checked
        .par_iter()
        .map(|&row| {
            let cosine =
                |other: usize| rows.row(row).iter().zip(rows.row(other)).map(|(a, b)| a * b).sum::<f32>();
            let mut all: Vec<f32> = (0..rows.len()).filter(|other| *other != row).map(cosine).collect();
            let (_, least, _) = all.select_nth_unstable_by(found.k() - 1, |a, b| b.total_cmp(a));
            // Equal to rounding counts as found.
            let least = *least - 1e-5;
            found.similarities(row).iter().filter(|similarity| **similarity >= least).count()
        })
        .sum();
    hits as f64 / (checked.len() * found.k()) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exact_search_finds_all_and_cells_find_most() {
        for approximate in [false, true] {
            let options =
                NeighbourOptions { rows: 3000, dim: 16, neighbours: 5, approximate, device: "cpu".into() };
            let report = neighbours(&options).expect("a CPU");
            assert!(report.recall >= if approximate { 0.9 } else { 1.0 }, "{report:?}");
        }
    }
}
