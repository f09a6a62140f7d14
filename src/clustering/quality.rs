//! Whether clusters carry information, told without labels, and with the few there are.

use std::collections::BTreeMap;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Embedding, Neighbours};
use crate::metrics::{Interval, wilson};
use crate::random::{Purpose, stream};

/// Images whose silhouettes are measured; of more, as many are drawn.
const SAMPLE: usize = 2000;
/// Clusters in which neighbours agree less than this much of the way from chance to always carry no information.
const LEAST_AGREEMENT: f64 = 0.2;

/// How good clusters look from inside.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// Mean silhouette (Rousseeuw 1987), from -1 to 1: how much nearer images are to their own cluster than to the next.
    pub silhouette: f64,
    /// Share of (image, neighbour) pairs in one cluster, 0 where chance would bring it and 1 where all are; below 0 if worse.
    pub agreement: f64,
    /// The same for (image, neighbour of its distorted copy) pairs: whether an image would be in its cluster whatever light and
    /// angle it was taken in. k-means and SCAN see it alike, while neighbours of the images themselves favour k-means.
    pub stability: Option<f64>,
}

impl Quality {
    /// Of `clusters[i]`, the cluster of each row.
    pub fn of(rows: &Embedding, neighbours: &Neighbours, clusters: &[u32], seed: u64) -> Self {
        let (together, chance) = neighbours.agreement(clusters);
        let agreement = beyond_chance(together, chance);
        Self { silhouette: silhouette(rows, clusters, seed), agreement, stability: None }
    }

    /// Measures [`Self::stability`] with the neighbours `near[i]` of a copy of image `queries[i]`.
    pub fn with_copies(mut self, clusters: &[u32], queries: &[u32], near: &[Vec<u32>]) -> Self {
        let mut sizes = BTreeMap::<u32, f64>::new();
        clusters.iter().for_each(|cluster| *sizes.entry(*cluster).or_default() += 1.0);
        let chance = sizes.values().map(|size| (size / clusters.len().max(1) as f64).powi(2)).sum();
        let pairs: usize = near.iter().map(Vec::len).sum();
        let same = |(query, near): (&u32, &Vec<u32>)| {
            near.iter().filter(|other| clusters[**other as usize] == clusters[*query as usize]).count()
        };
        let together: usize = queries.iter().zip(near).map(same).sum();
        self.stability = (pairs > 0).then(|| beyond_chance(together as f64 / pairs as f64, chance));
        self
    }

    /// The images whose copies are looked at: all, or a sample.
    pub fn judges(count: usize, seed: u64) -> Vec<u32> {
        let mut rng = stream(seed, Purpose::Cluster, [u64::MAX - 5, 0, 0]);
        let drawn = rand::seq::index::sample(&mut rng, count, count.min(SAMPLE));
        drawn.iter().map(|row| row as u32).collect()
    }

    /// Whether labelling cluster by cluster helps more than it hinders.
    pub fn is_informative(&self) -> bool {
        self.agreement >= LEAST_AGREEMENT
    }

    /// In plain words.
    pub fn sentence(&self) -> String {
        if self.is_informative() {
            let share = 100.0 * self.agreement;
            return format!(
                "like images are mostly in one cluster ({share:.0} % of the way from chance to always)"
            );
        }
        "the clusters hardly say more than chance; images are shown in random order instead".to_owned()
    }
}

/// 0 for what chance would bring, 1 for all.
fn beyond_chance(share: f64, chance: f64) -> f64 {
    if chance < 1.0 { (share - chance) / (1.0 - chance) } else { 0.0 }
}

/// Mean silhouette of a sample of rows within this sample.
fn silhouette(rows: &Embedding, clusters: &[u32], seed: u64) -> f64 {
    let mut rng = stream(seed, Purpose::Cluster, [u64::MAX - 1, 0, 0]);
    let mut sample = rand::seq::index::sample(&mut rng, rows.len(), rows.len().min(SAMPLE)).into_vec();
    sample.sort_unstable();
    let mut members: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for &row in &sample {
        members.entry(clusters[row]).or_default().push(row);
    }
    if members.len() < 2 {
        return 0.0;
    }
    let distance = |a: usize, b: usize| -> f64 {
        let squares = rows.row(a).iter().zip(rows.row(b)).map(|(a, b)| (a - b).powi(2));
        f64::from(squares.sum::<f32>()).sqrt()
    };
    let each: Vec<f64> = sample
        .par_iter()
        .map(|&row| {
            let own = clusters[row];
            let mean = |others: &[usize], count: usize| {
                others.iter().map(|other| distance(row, *other)).sum::<f64>() / count as f64
            };
            let alone = members[&own].len() == 1;
            let inside = if alone { 0.0 } else { mean(&members[&own], members[&own].len() - 1) };
            let others = members.iter().filter(|(cluster, _)| **cluster != own);
            let outside = others.map(|(_, others)| mean(others, others.len())).fold(f64::INFINITY, f64::min);
            let larger = inside.max(outside);
            if alone || larger == 0.0 { 0.0 } else { (outside - inside) / larger }
        })
        .collect();
    each.iter().sum::<f64>() / each.len() as f64
}

/// What the labels given so far say of one cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct Purity {
    /// Images in it.
    pub size: usize,
    /// Labelled among them.
    pub labelled: usize,
    /// The most frequent class among those and how many are of it.
    pub majority: Option<(u16, usize)>,
    /// Share of the cluster's images that are of this class, as far as the labels tell.
    pub share: Option<Interval>,
}

impl Purity {
    /// Of each of `count` clusters. `labels[i]`: the class of image `i`, where known.
    pub fn of_all(clusters: &[u32], count: usize, labels: &[Option<u16>]) -> Vec<Self> {
        let mut votes: Vec<BTreeMap<u16, usize>> = vec![BTreeMap::new(); count];
        let mut sizes = vec![0; count];
        for (&cluster, label) in clusters.iter().zip(labels) {
            sizes[cluster as usize] += 1;
            if let Some(label) = label {
                *votes[cluster as usize].entry(*label).or_default() += 1;
            }
        }
        let pure = |(votes, size): (BTreeMap<u16, usize>, usize)| {
            let labelled = votes.values().sum();
            let majority = votes.into_iter().max_by_key(|(class, votes)| (*votes, std::cmp::Reverse(*class)));
            let share = majority.map(|(_, most)| wilson(most as u64, labelled as u64));
            Self { size, labelled, majority, share }
        };
        votes.into_iter().zip(sizes).map(pure).collect()
    }

    /// In plain words, with the names of the classes.
    pub fn sentence(&self, classes: &[String]) -> String {
        let Some(((class, most), share)) = self.majority.zip(self.share) else {
            return format!("{} images, none labelled yet", self.size);
        };
        let name = classes.get(usize::from(class)).map_or("?", String::as_str);
        let (low, high) = (100.0 * share.low, 100.0 * share.high);
        format!(
            "{} images; {most} of {} labelled are {name} (so {low:.0} to {high:.0} % of all)",
            self.size, self.labelled
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clustering::Search;
    use burn::tensor::Device;
    use std::sync::atomic::AtomicBool;

    fn near(rows: &Embedding) -> Neighbours {
        let stop = AtomicBool::new(false);
        Neighbours::search(rows, 5, Search::Exact, 0, &Device::flex(), &stop, &mut |_| ()).expect("runs")
    }

    /// Two arcs of 50 directions each.
    fn arcs() -> (Embedding, Vec<u32>) {
        let values = (0..100).flat_map(|i| {
            let angle = f64::from(i % 50) * 0.002 + if i < 50 { 0.0 } else { 1.5 };
            [angle.cos() as f32, angle.sin() as f32]
        });
        (Embedding::new(values.collect(), 2).expect("finite"), (0..100).map(|i| u32::from(i >= 50)).collect())
    }

    #[test]
    fn true_groups_are_informative_and_drawn_ones_are_not() {
        let (rows, groups) = arcs();
        let found = Quality::of(&rows, &near(&rows), &groups, 0);
        assert!(found.silhouette > 0.9 && found.agreement > 0.99 && found.is_informative(), "{found:?}");
        let alternating: Vec<u32> = (0..100).map(|i| i * 7 % 13 % 2).collect();
        let found = Quality::of(&rows, &near(&rows), &alternating, 0);
        assert!(found.silhouette < 0.1 && !found.is_informative(), "{found:?}");
        assert!(found.sentence().contains("random order"));
    }

    #[test]
    fn one_cluster_or_equal_images_say_nothing() {
        let (rows, _) = arcs();
        assert!(!Quality::of(&rows, &near(&rows), &[0; 100], 0).is_informative());
        let equal = Embedding::new(vec![1.0; 20], 2).expect("finite");
        let found = Quality::of(&equal, &near(&equal), &[0, 1, 0, 1, 0, 1, 0, 1, 0, 1], 0);
        assert_eq!(found.silhouette, 0.0);
    }

    #[test]
    fn copies_that_stray_make_clusters_unstable() {
        let (rows, groups) = arcs();
        let (stop, queries) = (AtomicBool::new(false), Quality::judges(100, 0));
        let near = |copies: &Embedding| {
            Neighbours::of_copies(&rows, copies, &queries, 5, &Device::flex(), &stop).expect("runs")
        };
        let quality = Quality::of(&rows, &super::tests::near(&rows), &groups, 0);
        let faithful = near(&rows);
        assert!(queries.iter().zip(&faithful).all(|(query, near)| near.len() == 5 && !near.contains(query)));
        assert!(quality.with_copies(&groups, &queries, &faithful).stability.expect("copies") > 0.99);
        // Every second copy looks like an image of the other group.
        let astray: Vec<u32> = (0..100).map(|i| if i % 2 == 0 { (i + 50) % 100 } else { i }).collect();
        let stability = quality.with_copies(&groups, &queries, &near(&rows.select(&astray))).stability;
        assert!(stability.expect("copies").abs() < 0.1, "{stability:?}");
    }

    #[test]
    fn purity_is_estimated_from_the_labels_there_are() {
        let clusters = [0, 0, 0, 0, 1, 1, 2];
        let labels = [Some(1), Some(1), Some(0), None, None, None, Some(0)];
        let found = Purity::of_all(&clusters, 4, &labels);
        assert_eq!((found[0].size, found[0].labelled, found[0].majority), (4, 3, Some((1, 2))));
        assert_eq!((found[1].labelled, found[3].size), (0, 0));
        let names = ["wheat".to_owned(), "weed".to_owned()];
        assert!(
            found[0].sentence(&names).contains("2 of 3 labelled are weed"),
            "{}",
            found[0].sentence(&names)
        );
        assert!(found[1].sentence(&names).contains("none labelled"));
        let share = found[0].share.expect("labels");
        assert!(share.low < 2.0 / 3.0 && 2.0 / 3.0 < share.high);
    }
}
