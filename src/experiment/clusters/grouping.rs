//! The ways to group, and which to take.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use harvest_models::Classifier;

use super::{Candidate, Clustering, FoundBy};
use crate::augment::View;
use crate::clustering::{
    Assignment, AugmentedCopy, Embedding, KMeans, LearnError, Learning, Neighbours, Quality, Scan, Scanned,
    SelfLabelling, embed_copy,
};
use crate::config::{ClusteringMethod, Switch};
use crate::data::ImageCache;
use crate::device;
use crate::experiment::{ExperimentError, Shown};
use crate::metrics::ClusterScores;

/// k-means starts.
const STARTS: u64 = 10;
/// Neighbours must agree by so much more than with k-means for SCAN to be preferred.
const CLEARLY: f64 = 0.01;

/// What clusters are made from.
pub(super) struct Seen<'a> {
    pub rows: &'a Embedding,
    pub neighbours: &'a Neighbours,
    /// None where the pixels themselves are the features.
    pub network: Option<&'a Classifier>,
    pub cache: &'a ImageCache,
    pub all: &'a [u32],
    pub folder: &'a Path,
}

/// One way's result.
#[derive(Debug, Clone)]
pub(super) struct Groups {
    pub found_by: FoundBy,
    pub clusters: Vec<u32>,
    pub confidence: Vec<f32>,
}

/// The way that is clearly better than k-means inside, without being worse by how far its clusters lie apart; else k-means.
fn preferred(candidates: &[Candidate]) -> usize {
    let mut best = 0;
    for (place, candidate) in candidates.iter().enumerate() {
        let (new, old) = (candidate.quality, candidates[best].quality);
        if new.agreement > old.agreement + CLEARLY && new.silhouette > old.silhouette - CLEARLY {
            best = place;
        }
    }
    best
}

impl Clustering<'_> {
    /// Groups in every way that is asked for, k-means first; with what a person should know.
    pub(super) fn group(
        &self,
        seen: &Seen<'_>,
        progress: &Shown,
        stop: &AtomicBool,
    ) -> Result<(Vec<Groups>, Vec<String>), ExperimentError> {
        let config = &self.config.value.clustering;
        let mut notes = Vec::new();
        let (clusters, seed) = (self.clusters(), config.seed);
        let found =
            KMeans::fit(seen.rows, clusters, STARTS, seed, &self.device, stop).map_err(LearnError::from)?;
        let mut groups = vec![(FoundBy::KMeans, Assignment::of_kmeans(seen.rows, &found))];
        if config.method != ClusteringMethod::KMeans {
            let scanned = self.scan(seen, progress, stop)?;
            groups.push((FoundBy::Scan, scanned.before));
            match scanned.self_labelling {
                SelfLabelling::Done => groups.push((FoundBy::SelfLabel, scanned.assignment)),
                SelfLabelling::Off => {}
                SelfLabelling::Undone => {
                    notes.push("self-labelling gave clusters up and was undone".to_owned())
                }
                SelfLabelling::TooFewConfident(share) => notes.push(format!(
                    "SCAN is sure of only {:.0} % of the images, too few for self-labelling",
                    100.0 * share
                )),
            }
            if scanned.repaired > 0 {
                notes.push(format!(
                    "{} times a cluster of SCAN emptied and was started anew",
                    scanned.repaired
                ));
            }
        }
        let count = self.kept();
        let grouped = groups.into_iter().map(|(found_by, found)| {
            let found = if found.clusters() > count { found.merged(seen.neighbours, count) } else { found };
            Groups { found_by, clusters: found.labels(), confidence: found.confidences() }
        });
        Ok((grouped.collect(), notes))
    }

    /// SCAN, on stored features or with the network.
    fn scan(&self, seen: &Seen<'_>, progress: &Shown, stop: &AtomicBool) -> Result<Scanned, ExperimentError> {
        let config = &self.config.value;
        let settings = &config.clustering.scan;
        let scan = Scan {
            config: settings,
            clusters: self.clusters(),
            seed: config.clustering.seed,
            features: seen.rows,
            neighbours: seen.neighbours,
            device: self.device.clone(),
        };
        let network = seen.network.filter(|_| match settings.frozen {
            Switch::On => false,
            Switch::Off => true,
            Switch::Auto => !device::is_cpu(&self.device),
        });
        let copies = match network {
            Some(_) => Vec::new(),
            None => self.copies(seen, progress, stop)?,
        };
        let learning = match network {
            None => Learning::Frozen { copies: &copies },
            Some(network) => {
                Learning::Whole { network, cache: seen.cache, indices: seen.all, views: &config.views }
            }
        };
        let bar = progress.begin("SCAN", scan.steps());
        let found = scan.learn(learning, &seen.folder.join("scan"), stop, &bar)?;
        bar.finish();
        Ok(found)
    }

    /// Features of views of the images, for heads on a frozen network.
    fn copies(
        &self,
        seen: &Seen<'_>,
        progress: &Shown,
        stop: &AtomicBool,
    ) -> Result<Vec<Embedding>, ExperimentError> {
        let config = &self.config.value;
        let Some(network) = seen.network else { return Ok(Vec::new()) };
        let mut copies = Vec::new();
        for number in 0..u64::from(config.clustering.scan.copies) {
            let (views, seed) = (&config.views, config.clustering.seed);
            let copy = AugmentedCopy { views, view: View::Strong, number, seed };
            let bar = progress.begin("features of views", seen.all.len() as u64);
            let found = embed_copy(network, seen.cache, seen.all, copy, &self.store(), stop, &bar)?;
            copies.push(found.normalised());
            bar.finish();
        }
        Ok(copies)
    }

    /// Where features are kept, by content.
    pub(super) fn store(&self) -> PathBuf {
        self.places.cache.join("features")
    }

    /// The ways with their quality, and the one to take.
    pub(super) fn judged(
        &self,
        rows: &Embedding,
        neighbours: &Neighbours,
        found: Vec<Groups>,
    ) -> Result<(Groups, Vec<Candidate>), ExperimentError> {
        let labels = self.labels();
        let candidates: Vec<Candidate> = found
            .iter()
            .map(|groups| Candidate {
                found_by: groups.found_by,
                quality: Quality::of(rows, neighbours, &groups.clusters, self.config.value.clustering.seed),
                scores: scores(&groups.clusters, &labels, self.kept(), self.manifest.classes.len()),
            })
            .collect();
        let asked_for = self.config.value.clustering.method == ClusteringMethod::Scan;
        let best = match asked_for {
            true => candidates.len() - 1,
            false => preferred(&candidates),
        };
        let best = found.into_iter().nth(best).expect("k-means never fails");
        Ok((best, candidates))
    }
}

/// Against the labels that are known, if any are.
pub(super) fn scores(
    clusters: &[u32],
    labels: &[Option<u16>],
    count: usize,
    classes: usize,
) -> Option<ClusterScores> {
    let known = clusters
        .iter()
        .zip(labels)
        .filter_map(|(cluster, label)| Some((*cluster as usize, usize::from((*label)?))));
    let (clusters, targets): (Vec<usize>, Vec<usize>) = known.unzip();
    if targets.is_empty() {
        return None;
    }
    ClusterScores::of(&clusters, &targets, count, classes).ok()
}
