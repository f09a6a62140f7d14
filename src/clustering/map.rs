//! A plane on which like images lie close to each other.
//!
//! t-SNE (van der Maaten and Hinton 2008; interpolated forces: Linderman et al. 2019) on the neighbours that are known anyway,
//! starting from the first two principal components. Where there are too few images for it, the components are the map.

use std::sync::atomic::{AtomicBool, Ordering};

use bhtsne::{Neighbor, tSNE};
use burn::tensor::Device;
use rand::RngExt;
use rayon::prelude::*;

use super::kmeans::nearest;
use super::{ClusterError, Embedding, Neighbours, Search};
use crate::random::{Purpose, stream};

/// Neighbours an image is placed by, and the perplexity that goes with them.
const NEIGHBOURS: usize = 30;
const PERPLEXITY: f32 = 10.0;
const EPOCHS: usize = 500;
/// So many images are placed by t-SNE; further ones join their most similar placed image.
const PLACED: usize = 20_000;
/// With fewer images there is nothing to unfold.
const FEWEST: usize = 50;
/// Power iterations for the principal components.
const ITERATIONS: usize = 30;
/// Rows added up by one thread.
const CHUNK: usize = 512;

/// Where each image lies, within -1..=1 in both directions. `rows` are of length one.
///
/// # Errors
/// If `stop` was set meanwhile.
pub fn map(
    rows: &Embedding,
    seed: u64,
    device: &Device,
    stop: &AtomicBool,
) -> Result<Vec<[f32; 2]>, ClusterError> {
    if rows.len() <= PLACED {
        return place(rows, seed, device, stop);
    }
    let mut rng = stream(seed, Purpose::Cluster, [u64::MAX - 2, 0, 0]);
    let mut sample: Vec<u32> =
        rand::seq::index::sample(&mut rng, rows.len(), PLACED).iter().map(|row| row as u32).collect();
    sample.sort_unstable();
    let placed = place(&rows.select(&sample), seed, device, stop)?;
    let (nearest, _) = nearest(rows, &rows.select(&sample), device, stop)?;
    Ok(nearest.into_iter().map(|place| placed[place as usize]).collect())
}

fn place(
    rows: &Embedding,
    seed: u64,
    device: &Device,
    stop: &AtomicBool,
) -> Result<Vec<[f32; 2]>, ClusterError> {
    let components = principal_components(rows, seed);
    if rows.len() < FEWEST {
        return Ok(fitted(components));
    }
    let near = Neighbours::search(rows, NEIGHBOURS, Search::Auto, seed, device, stop, &mut |_| ())?;
    let neighbours: Vec<Vec<Neighbor<f32>>> = (0..rows.len())
        .map(|row| {
            let each = near.of(row).iter().zip(near.similarities(row));
            // Of rows of length one the distance follows from the cosine.
            each.map(|(&index, &cosine)| Neighbor {
                index: index as usize,
                distance: (2.0 - 2.0 * cosine).max(0.0).sqrt(),
            })
            .collect()
        })
        .collect();
    // Small at first, as is customary; equal images must not start in one place.
    let mut rng = stream(seed, Purpose::Cluster, [u64::MAX - 3, 0, 0]);
    let start: Vec<f32> = fitted(components)
        .into_iter()
        .flatten()
        .map(|value| 1e-2 * value + 1e-4 * (rng.random::<f32>() - 0.5))
        .collect();
    let unfold = || {
        let data: Vec<&[f32]> = (0..rows.len()).map(|row| rows.row(row)).collect();
        let mut tsne: tSNE<f32, &[f32], 2> = tSNE::new(&data);
        tsne.perplexity(PERPLEXITY).epochs(EPOCHS).initial_embedding(start.clone());
        tsne.fit_sne_with_neighbors(&neighbours);
        tsne.embedding()
    };
    // On one thread, since several add up forces in any order, and small differences grow to other maps.
    let points = match rayon::ThreadPoolBuilder::new().num_threads(1).build() {
        Ok(alone) => alone.install(unfold),
        Err(_) => unfold(),
    };
    if stop.load(Ordering::Relaxed) {
        return Err(ClusterError::Interrupted);
    }
    let points: Vec<[f32; 2]> = points.chunks_exact(2).map(|point| [point[0], point[1]]).collect();
    // Should the forces ever overflow, the components still are a map.
    let sound = points.iter().flatten().all(|value| value.is_finite());
    Ok(fitted(if sound { points } else { principal_components(rows, seed) }))
}

/// Centred, and scaled so that the farthest point is at distance 1 in its longer direction.
fn fitted(mut points: Vec<[f32; 2]>) -> Vec<[f32; 2]> {
    for axis in 0..2 {
        let (low, high) = points
            .iter()
            .fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), p| (low.min(p[axis]), high.max(p[axis])));
        let middle = (low + high) / 2.0;
        points.iter_mut().for_each(|point| point[axis] -= middle);
    }
    let reach = points.iter().flatten().fold(0f32, |reach, value| reach.max(value.abs()));
    if reach > 0.0 {
        points.iter_mut().flatten().for_each(|value| *value /= reach);
    }
    points
}

/// The rows in the plane in which they vary most, by power iteration.
fn principal_components(rows: &Embedding, seed: u64) -> Vec<[f32; 2]> {
    let (count, dim) = (rows.len().max(1) as f64, rows.dim());
    let mean: Vec<f64> = sum_over(rows, |row| row.iter().map(|value| f64::from(*value) / count).collect());
    let mut rng = stream(seed, Purpose::Cluster, [u64::MAX - 4, 0, 0]);
    let mut directions: Vec<Vec<f64>> = Vec::new();
    for _ in 0..2 {
        let mut direction: Vec<f64> = (0..dim).map(|_| rng.random::<f64>() - 0.5).collect();
        for _ in 0..ITERATIONS {
            for found in &directions {
                let along = dot(&direction, found);
                direction.iter_mut().zip(found).for_each(|(value, found)| *value -= along * found);
            }
            let length = dot(&direction, &direction).sqrt();
            if length < 1e-12 {
                // The rows do not vary in any further direction.
                direction.fill(0.0);
                break;
            }
            direction.iter_mut().for_each(|value| *value /= length);
            let unit = direction.clone();
            direction = sum_over(rows, |row| {
                let centred: Vec<f64> = row.iter().zip(&mean).map(|(x, mean)| f64::from(*x) - mean).collect();
                let along = dot(&centred, &unit);
                centred.into_iter().map(|value| along * value).collect()
            });
        }
        let length = dot(&direction, &direction).sqrt();
        if length > 0.0 {
            direction.iter_mut().for_each(|value| *value /= length);
        }
        directions.push(direction);
    }
    let along = |row: &[f32], direction: &[f64]| -> f32 {
        row.iter().zip(&mean).zip(direction).map(|((x, mean), d)| (f64::from(*x) - mean) * d).sum::<f64>()
            as f32
    };
    let row = |row| [along(rows.row(row), &directions[0]), along(rows.row(row), &directions[1])];
    (0..rows.len()).into_par_iter().map(row).collect()
}

/// A sum over rows of vectors as long as a row; added in order, so that threads change no bit.
fn sum_over(rows: &Embedding, each: impl Fn(&[f32]) -> Vec<f64> + Sync) -> Vec<f64> {
    let add = |mut sum: Vec<f64>, more: Vec<f64>| {
        sum.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
        sum
    };
    let parts: Vec<Vec<f64>> = rows
        .values()
        .par_chunks(CHUNK * rows.dim())
        .map(|chunk| chunk.chunks_exact(rows.dim()).map(&each).fold(vec![0.0; rows.dim()], add))
        .collect();
    parts.into_iter().fold(vec![0.0; rows.dim()], add)
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(values: Vec<f32>, dim: usize) -> Vec<[f32; 2]> {
        let rows = Embedding::new(values, dim).expect("finite").normalised();
        map(&rows, 3, &Device::flex(), &AtomicBool::new(false)).expect("places")
    }

    /// Mean distance within the groups `i % 3`, and between them.
    fn distances(points: &[[f32; 2]]) -> (f32, f32) {
        let (mut within, mut between) = ((0.0, 0), (0.0, 0));
        for (i, a) in points.iter().enumerate() {
            for (j, b) in points.iter().enumerate().skip(i + 1) {
                let distance = ((a[0] - b[0]).powi(2) + (a[1] - b[1]).powi(2)).sqrt();
                let sum = if i % 3 == j % 3 { &mut within } else { &mut between };
                *sum = (sum.0 + distance, sum.1 + 1);
            }
        }
        (within.0 / within.1 as f32, between.0 / between.1 as f32)
    }

    fn groups(count: usize) -> Vec<f32> {
        let value = |i: usize, d: usize| (i * 31 % 17 * (d + 3) % 13) as f32 / 60.0;
        (0..count)
            .flat_map(|i| (0..4).map(move |d| value(i, d) + if d == i % 3 { 1.0 } else { 0.0 }))
            .collect()
    }

    #[test]
    fn like_images_lie_together_by_components_and_by_t_sne() {
        for count in [30, 150] {
            let points = placed(groups(count), 4);
            assert!(points.iter().flatten().all(|value| value.abs() <= 1.0 + 1e-6));
            let (within, between) = distances(&points);
            assert!(2.0 * within < between, "{count}: {within} {between}");
            assert_eq!(points, placed(groups(count), 4));
        }
    }

    #[test]
    fn the_components_are_those_of_the_largest_variance() {
        let rows = (0..40).flat_map(|i| {
            let (a, b) = (i as f32 - 19.5, ((i * 7) % 40) as f32 - 19.5);
            [0.1 * b, 3.0 * a, 0.0]
        });
        let rows = Embedding::new(rows.collect(), 3).expect("finite");
        let points = principal_components(&rows, 0);
        for (i, point) in points.iter().enumerate() {
            assert!((point[0].abs() - 3.0 * (i as f32 - 19.5).abs()).abs() < 0.1, "{i}: {point:?}");
        }
    }

    #[test]
    fn equal_images_and_a_single_one_have_a_place() {
        assert_eq!(placed(vec![1.0; 8], 2), [[0.0; 2]; 4]);
        assert_eq!(placed(vec![1.0, 2.0], 2), [[0.0; 2]]);
        assert!(placed(vec![1.0; 240], 2).iter().flatten().all(|value| value.is_finite()));
    }
}
