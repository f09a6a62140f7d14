//! Pictures that are nearly the same: bursts of a camera, the same photograph scaled or compressed once more.
//!
//! Two signs must agree: a perceptual hash of brightness gradients (the sign of the difference of neighbouring places on a
//! 17 × 16 grid), and the features of a network. The hash alone mistakes plain pictures for each other, features alone
//! mistake what the network was taught to overlook.

use image::RgbImage;
use image::imageops::{FilterType, grayscale, resize};
use rayon::prelude::*;

use super::Neighbours;

/// Rows of a hash, and bits in each; 256 in all.
const SIDE: u32 = 16;
/// Hashes of near-duplicates differ in at most so many of 256 bits. Scaling and compressing photographs again flips a few.
const BITS: u32 = 12;
/// Features of near-duplicates are at least this alike (cosine).
const COSINE: f32 = 0.95;

/// The perceptual hash of a picture, 256 bits: whether it gets brighter from each place to the one on its right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look([u16; SIDE as usize]);

impl Look {
    /// Hashes of square pictures of `size * size * 3` bytes each, in order.
    pub fn of_all<'a>(pictures: impl IndexedParallelIterator<Item = &'a [u8]>, size: u32) -> Vec<Self> {
        pictures.map(|bytes| Self::of(bytes, size)).collect()
    }

    fn of(bytes: &[u8], size: u32) -> Self {
        // A picture of another length has no look of its own; all of those are black.
        let picture = RgbImage::from_raw(size, size, bytes.to_vec()).unwrap_or_else(|| RgbImage::new(1, 1));
        let grid = resize(&grayscale(&picture), SIDE + 1, SIDE, FilterType::Lanczos3);
        let brighter = |x, y| grid.get_pixel(x, y)[0] < grid.get_pixel(x + 1, y)[0];
        let row = |y| (0..SIDE).fold(0, |bits, x| bits << 1 | u16::from(brighter(x, y as u32)));
        Self(std::array::from_fn(row))
    }

    /// In how many of 256 bits two differ.
    pub fn distance(&self, other: &Self) -> u32 {
        self.0.iter().zip(&other.0).map(|(own, other)| (own ^ other).count_ones()).sum()
    }
}

/// For each image the first image it is nearly the same as, or itself.
///
/// Images join the group of an image they resemble themselves, never of one that only resembles a third: chains of like
/// pictures do not grow into one group.
pub fn near_duplicates(looks: &[Look], neighbours: &Neighbours) -> Vec<u32> {
    let mut first: Vec<u32> = (0..looks.len() as u32).collect();
    if neighbours.is_empty() {
        return first;
    }
    // Being among somebody's nearest is not mutual; either counts.
    let mut like: Vec<Vec<u32>> = vec![Vec::new(); looks.len()];
    for row in 0..neighbours.len() {
        for (&other, &cosine) in neighbours.of(row).iter().zip(neighbours.similarities(row)) {
            if cosine >= COSINE && looks[row].distance(&looks[other as usize]) <= BITS {
                like[row.max(other as usize)].push(row.min(other as usize) as u32);
            }
        }
    }
    for (row, earlier) in like.iter().enumerate() {
        let heads = earlier.iter().copied().filter(|other| first[*other as usize] == *other);
        if let Some(head) = heads.min() {
            first[row] = head;
        }
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clustering::{Embedding, Search};
    use burn::tensor::Device;
    use std::sync::atomic::AtomicBool;

    /// A few soft blots; `seed` says where.
    fn picture(seed: u32) -> RgbImage {
        RgbImage::from_fn(64, 64, |x, y| {
            let blot = |n: u32| {
                let (cx, cy) = ((seed * 31 + n * 17) % 64, (seed * 13 + n * 29) % 64);
                let distance =
                    (f64::from(x) - f64::from(cx)).powi(2) + (f64::from(y) - f64::from(cy)).powi(2);
                200.0 * (-distance / 150.0).exp()
            };
            let level = (0..4).map(blot).sum::<f64>().min(255.0) as u8;
            image::Rgb([level, level / 2, 255 - level])
        })
    }

    fn looks(pictures: &[RgbImage]) -> Vec<Look> {
        Look::of_all(pictures.par_iter().map(|picture| picture.as_raw().as_slice()), 64)
    }

    #[test]
    fn a_picture_scaled_down_and_up_again_is_nearly_the_same_and_another_is_not() {
        let pictures: Vec<RgbImage> = (0..6)
            .map(picture)
            .chain((0..6).map(|seed| {
                let small = resize(&picture(seed), 40, 40, FilterType::Triangle);
                resize(&small, 64, 64, FilterType::Triangle)
            }))
            .collect();
        let looks = looks(&pictures);
        // Features that hardly tell pictures apart.
        let values: Vec<f32> = (0..12).flat_map(|i| [1.0, 0.01 * (i % 6) as f32]).collect();
        let rows = Embedding::new(values, 2).expect("finite");
        let stop = AtomicBool::new(false);
        let near = Neighbours::search(&rows, 11, Search::Exact, 0, &Device::flex(), &stop, &mut |_| ());
        let near = near.expect("runs");
        assert_eq!(near_duplicates(&looks, &near), [0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5]);
        // Features that say otherwise are heard.
        let values: Vec<f32> = (0..12).flat_map(|i| [if i < 6 { 1.0 } else { -1.0 }, 0.0]).collect();
        let rows = Embedding::new(values, 2).expect("finite");
        let near = Neighbours::search(&rows, 11, Search::Exact, 0, &Device::flex(), &stop, &mut |_| ());
        assert!(near_duplicates(&looks, &near.expect("runs")).into_iter().eq(0..12));
    }

    #[test]
    fn chains_do_not_become_one_group() {
        // Each differs from the next in 8 bits: neighbours are alike, the first and the third are not.
        let look = |i: usize| {
            let mut rows = [0; SIDE as usize];
            (0..i).for_each(|eight| rows[eight / 2] |= 0xff << (8 * (eight % 2)));
            Look(rows)
        };
        let looks: Vec<Look> = (0..5).map(look).collect();
        let rows = Embedding::new(vec![1.0; 5], 1).expect("finite");
        let stop = AtomicBool::new(false);
        let near = Neighbours::search(&rows, 4, Search::Exact, 0, &Device::flex(), &stop, &mut |_| ());
        assert_eq!(near_duplicates(&looks, &near.expect("runs")), [0, 0, 2, 2, 4]);
    }
}
