//! Which images to label next.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use burn::tensor::Device;
use rand::seq::SliceRandom;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{ClusterError, Embedding, KMeans};
use crate::random::{Purpose, stream};

/// Neighbours that tell how typical an image is (TypiClust: 20).
const TYPICAL_NEIGHBOURS: usize = 20;
/// TypiClust divides into no more clusters than this.
const MOST_CLUSTERS: usize = 500;
/// For each image to choose, so many of the least sure are looked at for diversity.
const UNSURE_FOR_EACH: usize = 10;
/// k-means starts.
const STARTS: u64 = 3;

/// How images are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Selection {
    /// By lot.
    Random,
    /// By lot within clusters, one cluster after the other: the published order.
    Clusters,
    /// The most typical image of each of as many clusters as there will be labels (TypiClust, arXiv:2202.02794).
    Typical,
    /// The image farthest from all that are chosen or labelled (greedy k-center: Sener and Savarese, arXiv:1708.00489).
    Coverage,
    /// Where the current model's two best classes are closest (margin), spread over its predicted classes and over what images
    /// look like.
    Uncertain,
}

impl Selection {
    /// Every strategy.
    pub const ALL: [Self; 5] = [Self::Random, Self::Clusters, Self::Typical, Self::Coverage, Self::Uncertain];

    /// As written in configurations and files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Clusters => "clusters",
            Self::Typical => "typical",
            Self::Coverage => "coverage",
            Self::Uncertain => "uncertain",
        }
    }
}

/// What choices are made from. Images are known by their row.
#[derive(Debug, Clone, Copy)]
pub struct Pool<'a> {
    /// Features, rows of length one.
    pub rows: &'a Embedding,
    /// The cluster of each image.
    pub clusters: &'a [u32],
    /// The first image each is nearly the same as.
    pub first: &'a [u32],
    /// Images that have a label already.
    pub labelled: &'a [u32],
    /// Images that may be chosen, ascending.
    pub open: &'a [u32],
    /// The current model's class probabilities, `[N, C]`, and C; needed for [`Selection::Uncertain`].
    pub probabilities: Option<(&'a [f32], usize)>,
}

/// One image to label.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Choice {
    /// Its row.
    pub image: u32,
    /// Why it was chosen, larger being better: typicality, distance to the nearest labelled image, or 1 - margin; 0 for a lot.
    pub score: f32,
}

impl Pool<'_> {
    /// Up to `count` images, best first. Of images that are nearly the same only one is chosen, and none where one of them has
    /// a label, unless nothing else is left.
    ///
    /// # Errors
    /// If `stop` was set meanwhile, or a model is needed and there is none.
    pub fn choose(
        &self,
        strategy: Selection,
        count: usize,
        seed: u64,
        device: &Device,
        stop: &AtomicBool,
    ) -> Result<Vec<Choice>, ClusterError> {
        let open = self.distinct(seed);
        let count = count.min(open.len());
        if count == 0 {
            return Ok(Vec::new());
        }
        match strategy {
            Selection::Random => {
                Ok(open[..count].iter().map(|&image| Choice { image, score: 0.0 }).collect())
            }
            Selection::Clusters => Ok(self.cluster_by_cluster(&open, count)),
            Selection::Typical => self.typical(&open, count, seed, device, stop),
            Selection::Coverage => Ok(self.coverage(&open, count)),
            Selection::Uncertain => self.uncertain(&open, count, seed, device, stop),
        }
    }

    /// Images that may be chosen, in an order drawn by lot, one of each group of near-duplicates.
    fn distinct(&self, seed: u64) -> Vec<u32> {
        let mut order = self.open.to_vec();
        order.shuffle(&mut stream(seed, Purpose::Select, [0; 3]));
        let known = |images: &[u32]| -> std::collections::BTreeSet<u32> {
            images.iter().map(|image| self.first[*image as usize]).collect()
        };
        let labelled = known(self.labelled);
        let mut seen = std::collections::BTreeSet::new();
        order.retain(|image| seen.insert(self.first[*image as usize]));
        let (new, copies): (Vec<u32>, Vec<u32>) =
            order.into_iter().partition(|image| !labelled.contains(&self.first[*image as usize]));
        if new.is_empty() { copies } else { new }
    }

    fn cluster_by_cluster(&self, open: &[u32], count: usize) -> Vec<Choice> {
        let mut members: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        open.iter().for_each(|image| members.entry(self.clusters[*image as usize]).or_default().push(*image));
        // Rounds: the first of each cluster, then the second of each, …
        let longest = members.values().map(Vec::len).max().unwrap_or(0);
        let rounds = (0..longest).flat_map(|round| members.values().filter_map(move |all| all.get(round)));
        rounds.take(count).map(|&image| Choice { image, score: 0.0 }).collect()
    }

    /// TypiClust: as many clusters as there will be labels; from the largest of those with the fewest labels the most
    /// typical image.
    fn typical(
        &self,
        open: &[u32],
        count: usize,
        seed: u64,
        device: &Device,
        stop: &AtomicBool,
    ) -> Result<Vec<Choice>, ClusterError> {
        let all: Vec<u32> = self.labelled.iter().chain(open).copied().collect();
        let k = (self.labelled.len() + count).min(MOST_CLUSTERS);
        let found = KMeans::fit(&self.rows.select(&all), k, STARTS, seed, device, stop)?;
        let mut open_members: Vec<Vec<u32>> = vec![Vec::new(); k];
        let (mut sizes, mut labels) = (vec![0usize; k], vec![0usize; k]);
        for (place, &cluster) in found.assignment().iter().enumerate() {
            sizes[cluster as usize] += 1;
            match place < self.labelled.len() {
                true => labels[cluster as usize] += 1,
                false => open_members[cluster as usize].push(all[place]),
            }
        }
        let members = found.members();
        let mut ranked: Vec<Vec<Choice>> = open_members
            .par_iter()
            .zip(&members)
            .map(|(open, members)| {
                self.by_typicality(open, &members.iter().map(|m| all[*m as usize]).collect::<Vec<_>>())
            })
            .collect();
        let mut chosen = Vec::with_capacity(count);
        while chosen.len() < count {
            let candidates = (0..k).filter(|cluster| !ranked[*cluster].is_empty());
            let best = candidates
                .min_by_key(|&cluster| (labels[cluster], std::cmp::Reverse(sizes[cluster]), cluster));
            let Some(cluster) = best else { break };
            chosen.extend(ranked[cluster].pop());
            labels[cluster] += 1;
        }
        Ok(chosen)
    }

    /// `open` with their typicality, the inverse of the mean distance to the nearest of `members`; the most typical last.
    fn by_typicality(&self, open: &[u32], members: &[u32]) -> Vec<Choice> {
        let typicality = |image: u32| {
            let others = members.iter().filter(|other| **other != image);
            let mut distances: Vec<f32> = others.map(|other| self.distance(image, *other)).collect();
            let k = TYPICAL_NEIGHBOURS.min(distances.len());
            if k == 0 {
                return 0.0;
            }
            if k < distances.len() {
                distances.select_nth_unstable_by(k - 1, f32::total_cmp);
            }
            distances.truncate(k);
            distances.sort_by(f32::total_cmp);
            let mean = distances.iter().sum::<f32>() / k as f32;
            1.0 / mean.max(1e-6)
        };
        let mut ranked: Vec<Choice> =
            open.iter().map(|&image| Choice { image, score: typicality(image) }).collect();
        ranked.sort_by(|a, b| a.score.total_cmp(&b.score).then(b.image.cmp(&a.image)));
        ranked
    }

    fn coverage(&self, open: &[u32], count: usize) -> Vec<Choice> {
        let nearest = |image: &u32| {
            let distances = self.labelled.iter().map(|labelled| self.distance(*image, *labelled));
            distances.fold(f32::INFINITY, f32::min)
        };
        let mut nearest: Vec<f32> = open.par_iter().map(nearest).collect();
        let mut chosen = Vec::with_capacity(count);
        for _ in 0..count {
            let far = (0..open.len()).max_by(|a, b| nearest[*a].total_cmp(&nearest[*b]).then(b.cmp(a)));
            let Some(far) = far else { break };
            // Before the first label everything is equally far.
            let score = if nearest[far].is_finite() { nearest[far] } else { 0.0 };
            chosen.push(Choice { image: open[far], score });
            nearest.par_iter_mut().zip(open).for_each(|(nearest, image)| {
                *nearest = nearest.min(self.distance(*image, open[far]));
            });
            nearest[far] = f32::NEG_INFINITY;
        }
        chosen
    }

    /// The least sure of each predicted class in turn; then of each group of like images among them the least sure.
    fn uncertain(
        &self,
        open: &[u32],
        count: usize,
        seed: u64,
        device: &Device,
        stop: &AtomicBool,
    ) -> Result<Vec<Choice>, ClusterError> {
        let (probabilities, classes) = self.probabilities.ok_or(ClusterError::NoModel)?;
        let mut by_class: BTreeMap<usize, Vec<Choice>> = BTreeMap::new();
        for &image in open {
            let row = &probabilities[image as usize * classes..][..classes];
            let (class, margin) = margin(row);
            by_class.entry(class).or_default().push(Choice { image, score: 1.0 - margin });
        }
        by_class.values_mut().for_each(|images| images.sort_by(least_sure));
        let longest = by_class.values().map(Vec::len).max().unwrap_or(0);
        let in_turn =
            (0..longest).flat_map(|place| by_class.values().filter_map(move |images| images.get(place)));
        let unsure: Vec<Choice> = in_turn.take(count.saturating_mul(UNSURE_FOR_EACH)).copied().collect();
        let images: Vec<u32> = unsure.iter().map(|choice| choice.image).collect();
        let groups = KMeans::fit(&self.rows.select(&images), count, STARTS, seed, device, stop)?;
        let mut best: BTreeMap<u32, Choice> = BTreeMap::new();
        for (choice, group) in unsure.iter().zip(groups.assignment()) {
            let kept = best.entry(*group).or_insert(*choice);
            if least_sure(choice, kept).is_lt() {
                *kept = *choice;
            }
        }
        let mut chosen: Vec<Choice> = best.into_values().collect();
        // Equal images leave groups empty.
        let taken: std::collections::BTreeSet<u32> = chosen.iter().map(|choice| choice.image).collect();
        let others = unsure.iter().filter(|choice| !taken.contains(&choice.image));
        chosen.extend(others.take(count - chosen.len()));
        chosen.sort_by(least_sure);
        Ok(chosen)
    }

    fn distance(&self, a: u32, b: u32) -> f32 {
        let pairs = self.rows.row(a as usize).iter().zip(self.rows.row(b as usize));
        pairs.map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt()
    }
}

fn least_sure(a: &Choice, b: &Choice) -> std::cmp::Ordering {
    b.score.total_cmp(&a.score).then(a.image.cmp(&b.image))
}

/// The most likely class and how much likelier it is than the next.
fn margin(row: &[f32]) -> (usize, f32) {
    let (mut first, mut second) = ((0, f32::NEG_INFINITY), f32::NEG_INFINITY);
    for (class, &probability) in row.iter().enumerate() {
        if probability > first.1 {
            (first, second) = ((class, probability), first.1);
        } else if probability > second {
            second = probability;
        }
    }
    (first.0, if second.is_finite() { first.1 - second } else { 1.0 })
}

#[cfg(test)]
mod tests;
