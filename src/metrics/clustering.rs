//! How well clusters, which know no names, fit classes: matched accuracy, normalised mutual information, adjusted Rand
//! index.
//!
//! Definitions as in the SCAN paper (arXiv:2005.12320, section 3.2) and scikit-learn: the accuracy is that of the best
//! one-to-one assignment of clusters to classes (Kuhn 1955), NMI is normalised by the arithmetic mean of both entropies, ARI is
//! Hubert and Arabie's (1985).

use pathfinding::prelude::{Matrix, kuhn_munkres};
use serde::{Deserialize, Serialize};

use super::{Confusion, MetricsError};

/// How clusters and classes of the same images go together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClusterScores {
    /// Images with a known class.
    pub samples: u64,
    /// Share of images whose cluster stands for their class.
    pub accuracy: f64,
    /// Share of images that are of their cluster's most frequent class.
    pub purity: f64,
    /// Normalised mutual information, in 0..=1.
    pub nmi: f64,
    /// Adjusted Rand index: 1 for equal partitions, around 0 by chance, below for worse.
    pub ari: f64,
    /// The class each cluster stands for; none for an empty cluster that is left over.
    pub class_of: Vec<Option<usize>>,
    /// Classes against the classes their clusters stand for; images of clusters that stand for none are not counted.
    pub confusion: Confusion,
}

impl ClusterScores {
    /// Compares `clusters[i]`, below `cluster_count`, with `targets[i]`, below `classes`.
    ///
    /// With as many clusters as classes or fewer, each stands for another class. With more, each stands for the most frequent
    /// class in it, as over-clustering is judged.
    ///
    /// # Errors
    /// If the two differ in length, or name what does not exist.
    pub fn of(
        clusters: &[usize],
        targets: &[usize],
        cluster_count: usize,
        classes: usize,
    ) -> Result<Self, MetricsError> {
        if clusters.len() != targets.len() {
            let (targets, found) = (targets.len(), clusters.len());
            return Err(MetricsError::Length { targets, expected: targets, found });
        }
        let mut votes = vec![vec![0u64; classes]; cluster_count];
        for (&cluster, &target) in clusters.iter().zip(targets) {
            let beyond = |class, classes| MetricsError::Class { class, classes };
            let row = votes.get_mut(cluster).ok_or_else(|| beyond(cluster, cluster_count))?;
            *row.get_mut(target).ok_or_else(|| beyond(target, classes))? += 1;
        }
        let class_of = if cluster_count <= classes { assignment(&votes) } else { majorities(&votes) };
        let mut confusion = Confusion::new(classes);
        for (&cluster, &target) in clusters.iter().zip(targets) {
            if let Some(class) = class_of[cluster] {
                confusion.add(target, class)?;
            }
        }
        let samples = clusters.len() as u64;
        let share = |count: u64| if samples == 0 { 0.0 } else { count as f64 / samples as f64 };
        Ok(Self {
            samples,
            accuracy: share((0..classes).map(|class| confusion.count(class, class)).sum()),
            purity: share(votes.iter().map(|row| row.iter().copied().max().unwrap_or(0)).sum()),
            nmi: normalised_mutual_information(&votes),
            ari: adjusted_rand_index(&votes),
            class_of,
            confusion,
        })
    }
}

/// The assignment of clusters (rows, not more than columns) to different classes with the most votes.
fn assignment(votes: &[Vec<u64>]) -> Vec<Option<usize>> {
    if votes.is_empty() {
        return Vec::new();
    }
    let rows = votes.iter().map(|row| row.iter().map(|&count| count as i64).collect::<Vec<_>>());
    let weights = Matrix::from_rows(rows).expect("every row holds one count for each class");
    kuhn_munkres(&weights).1.into_iter().map(Some).collect()
}

fn majorities(votes: &[Vec<u64>]) -> Vec<Option<usize>> {
    let most = |row: &Vec<u64>| {
        let (class, count) =
            row.iter().enumerate().max_by_key(|(class, count)| (**count, usize::MAX - class))?;
        (*count > 0).then_some(class)
    };
    votes.iter().map(most).collect()
}

/// Sums over rows, over columns, and of all.
fn margins(votes: &[Vec<u64>]) -> (Vec<f64>, Vec<f64>, f64) {
    let rows: Vec<f64> = votes.iter().map(|row| row.iter().sum::<u64>() as f64).collect();
    let width = votes.first().map_or(0, Vec::len);
    let columns = (0..width).map(|j| votes.iter().map(|row| row[j]).sum::<u64>() as f64).collect();
    let total = rows.iter().sum();
    (rows, columns, total)
}

fn normalised_mutual_information(votes: &[Vec<u64>]) -> f64 {
    let (rows, columns, total) = margins(votes);
    let entropy = |counts: &[f64]| -> f64 {
        counts.iter().filter(|n| **n > 0.0).map(|n| -(n / total) * (n / total).ln()).sum()
    };
    let mean = (entropy(&rows) + entropy(&columns)) / 2.0;
    if mean == 0.0 {
        // Both have one group: they agree, whatever it is worth.
        return if total > 0.0 { 1.0 } else { 0.0 };
    }
    let mut mutual = 0.0;
    for (row, cluster) in votes.iter().zip(&rows) {
        for (&both, class) in row.iter().zip(&columns).filter(|(both, _)| **both > 0) {
            let both = both as f64;
            mutual += both / total * (both * total / (cluster * class)).ln();
        }
    }
    (mutual / mean).clamp(0.0, 1.0)
}

fn adjusted_rand_index(votes: &[Vec<u64>]) -> f64 {
    let (rows, columns, total) = margins(votes);
    let pairs = |n: f64| n * (n - 1.0) / 2.0;
    let together: f64 = votes.iter().flatten().map(|&n| pairs(n as f64)).sum();
    let (in_clusters, in_classes): (f64, f64) =
        (rows.iter().map(|n| pairs(*n)).sum(), columns.iter().map(|n| pairs(*n)).sum());
    let by_chance = if total > 1.0 { in_clusters * in_classes / pairs(total) } else { 0.0 };
    let best = (in_clusters + in_classes) / 2.0;
    if best == by_chance { 1.0 } else { (together - by_chance) / (best - by_chance) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn renamed_classes_are_a_perfect_clustering() {
        let scores = ClusterScores::of(&[2, 2, 0, 0, 1], &[0, 0, 1, 1, 2], 3, 3).expect("sound");
        assert_eq!((scores.accuracy, scores.purity, scores.nmi, scores.ari), (1.0, 1.0, 1.0, 1.0));
        assert_eq!(scores.class_of, [Some(1), Some(2), Some(0)]);
    }

    #[test]
    fn more_clusters_than_classes_stand_for_their_majority() {
        let scores = ClusterScores::of(&[0, 0, 1, 1, 2, 2, 2], &[0, 0, 0, 0, 1, 1, 0], 4, 2).expect("sound");
        assert_eq!(scores.class_of, [Some(0), Some(0), Some(1), None]);
        assert_eq!(scores.accuracy, 6.0 / 7.0);
    }

    #[test]
    fn clusters_that_do_not_exist_are_refused() {
        assert!(ClusterScores::of(&[3], &[0], 3, 2).is_err());
        assert!(ClusterScores::of(&[0], &[2], 3, 2).is_err());
        assert!(ClusterScores::of(&[0, 1], &[0], 3, 2).is_err());
        assert_eq!(ClusterScores::of(&[], &[], 3, 2).expect("sound").accuracy, 0.0);
    }

    proptest! {
        /// The assignment found is as good as the best of all, tried one by one.
        #[test]
        fn no_assignment_is_better(pairs in prop::collection::vec((0usize..4, 0usize..4), 1..60)) {
            let (clusters, targets): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
            let scores = ClusterScores::of(&clusters, &targets, 4, 4).expect("sound");
            let mut best = 0;
            for code in 0..256usize {
                let class = |cluster: usize| code >> (2 * cluster) & 3;
                let mut seen = [false; 4];
                (0..4).for_each(|cluster| seen[class(cluster)] = true);
                if seen == [true; 4] {
                    best = best.max(clusters.iter().zip(&targets).filter(|(c, t)| class(**c) == **t).count());
                }
            }
            prop_assert!((scores.accuracy * clusters.len() as f64 - best as f64).abs() < 1e-9);
            prop_assert!(scores.purity >= scores.accuracy);
            prop_assert!(scores.ari <= 1.0 + 1e-12);
        }
    }
}
