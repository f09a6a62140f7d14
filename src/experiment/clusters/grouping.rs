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
/// A way must be so much better than the one before, on the scale from chance to always, to be preferred.
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

/// The way whose clusters are clearly more stable, or without copies to judge by agree clearly more with neighbours, than
/// k-means'; else k-means.
fn preferred(candidates: &[Candidate]) -> usize {
    let judged = |candidate: &Candidate| candidate.quality.stability.unwrap_or(candidate.quality.agreement);
    let mut best = 0;
    for (place, candidate) in candidates.iter().enumerate() {
        if judged(candidate) > judged(&candidates[best]) + CLEARLY {
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
        let numbers = 0..u64::from(config.clustering.scan.copies);
        numbers.map(|number| self.copy(network, seen, number, progress, stop)).collect()
    }

    /// Neighbours of copies that no way has seen; none where there is but one way, or no network.
    fn neighbours_of_copies(
        &self,
        seen: &Seen<'_>,
        judges: &[u32],
        progress: &Shown,
        stop: &AtomicBool,
    ) -> Result<Vec<Vec<u32>>, ExperimentError> {
        let config = &self.config.value.clustering;
        let Some(network) = seen.network.filter(|_| config.method != ClusteringMethod::KMeans) else {
            return Ok(Vec::new());
        };
        let copies = self.copy(network, seen, u64::from(config.scan.copies), progress, stop)?;
        let k = config.neighbours as usize;
        let near = Neighbours::of_copies(seen.rows, &copies, judges, k, &self.device, stop);
        Ok(near.map_err(LearnError::from)?)
    }

    /// Features of one distorted copy of each image.
    fn copy(
        &self,
        network: &Classifier,
        seen: &Seen<'_>,
        number: u64,
        progress: &Shown,
        stop: &AtomicBool,
    ) -> Result<Embedding, ExperimentError> {
        let (views, seed) = (&self.config.value.views, self.config.value.clustering.seed);
        let copy = AugmentedCopy { views, view: View::Strong, number, seed };
        let bar = progress.begin("features of views", seen.all.len() as u64);
        let found = embed_copy(network, seen.cache, seen.all, copy, &self.store(), stop, &bar)?;
        bar.finish();
        Ok(found.normalised())
    }

    /// Where features are kept, by content.
    pub(super) fn store(&self) -> PathBuf {
        self.places.cache.join("features")
    }

    /// The ways with their quality, and the one to take.
    pub(super) fn judged(
        &self,
        seen: &Seen<'_>,
        found: Vec<Groups>,
        progress: &Shown,
        stop: &AtomicBool,
    ) -> Result<(Groups, Vec<Candidate>), ExperimentError> {
        let (labels, seed) = (self.labels(), self.config.value.clustering.seed);
        let judges = Quality::judges(seen.rows.len(), seed);
        let near = self.neighbours_of_copies(seen, &judges, progress, stop)?;
        let candidates: Vec<Candidate> = found
            .iter()
            .map(|groups| Candidate {
                found_by: groups.found_by,
                quality: Quality::of(seen.rows, seen.neighbours, &groups.clusters, seed).with_copies(
                    &groups.clusters,
                    &judges,
                    &near,
                ),
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
