//! SCAN: an image belongs to the same cluster as its nearest neighbours; then confident images teach the others.
//!
//! Van Gansbeke et al., ECCV 2020, arXiv:2005.12320, algorithm 1.
//!
//! ```text
//! 1. for each image i a neighbour j, at random among its k:  min  mean -log <p_i, p_j>  -  λ H(mean p)       every head
//! 2. keep the head with the lowest loss over all images and neighbours
//! 3. self-labelling:  min  mean over images with max p_weak > 0.99 of w_c · CE(argmax p_weak, p_strong)
//! ```
//!
//! Departures, each for a few minutes of a small processor:
//! - the network may stay as it is; heads alone then learn on stored features ([`Learning::Frozen`]);
//! - heads begin at the centres of k-means, each at those of another start (`start = "random"`: as published);
//! - a cluster that no image of an epoch was assigned to is *repaired*: its row of the head becomes that of the largest cluster, a
//!   tenth of noise added, and the entropy drives the two apart;
//! - self-labelling is left out where fewer than a tenth of the images are confident, and undone where it leaves fewer clusters in use
//!   ([`Assignment::effective`], by more than a tenth): on features that hardly part the classes it was seen to cost up to 28 points of
//!   accuracy.

mod lessons;
mod material;
mod start;

use std::path::Path;
use std::sync::atomic::AtomicBool;

use burn::tensor::Device;
use harvest_models::{Classifier, ClusterHeads};
use rand::RngExt;

use self::lessons::{Clusters, SelfLabels};
pub use self::material::Learning;
use self::material::Material;
use super::course::{Course, LearnError};
use super::learner::Learner;
use super::{Assignment, ClusterError, Embedding, Neighbours};
use crate::config::{HeadStart, OptimizerName, ScanConfig};
use crate::data::{Order, Sampler};
use crate::files::WriteError;
use crate::random::{Purpose, stream};
use crate::report::Progress;
use crate::training::{OptimizerConfig, precision};

/// Share of the images that must be confident before they teach others.
const CONFIDENT: f64 = 0.1;
/// Share of the clusters in use that self-labelling must leave so.
const STILL_IN_USE: f64 = 0.9;

/// What clusters are learned from.
#[derive(Debug, Clone)]
pub struct Scan<'a> {
    /// How.
    pub config: &'a ScanConfig,
    /// How many clusters, 1 or more.
    pub clusters: usize,
    /// Seed of heads, order and draws.
    pub seed: u64,
    /// Features of each image.
    pub features: &'a Embedding,
    /// The neighbours of each of their rows.
    pub neighbours: &'a Neighbours,
    /// Where heads on frozen features learn, without autodiff.
    pub device: Device,
}

/// What was found.
#[derive(Debug, Clone)]
pub struct Scanned {
    /// The clusters.
    pub assignment: Assignment,
    /// Those before self-labelling.
    pub before: Assignment,
    /// Loss of each head over all images.
    pub losses: Vec<f64>,
    /// The head that was kept.
    pub head: usize,
    /// Rows of heads that were started anew because their cluster had emptied.
    pub repaired: u64,
    /// What became of self-labelling.
    pub self_labelling: SelfLabelling,
    /// The network, where it learned too (a single cluster leaves nothing to learn); off autodiff.
    pub network: Option<Classifier>,
}

/// What became of self-labelling.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SelfLabelling {
    /// Nobody asked for it, or there is one cluster only.
    Off,
    /// Fewer than a tenth of the images were confident: this share.
    TooFewConfident(f64),
    /// It gave clusters up and was undone.
    Undone,
    /// Its clusters are the result.
    Done,
}

impl Scanned {
    /// One cluster leaves nothing to learn.
    fn all_in_one(images: usize) -> Self {
        let assignment = Assignment::of_logits(vec![0.0; images], 1);
        Self {
            before: assignment.clone(),
            assignment,
            losses: vec![0.0],
            head: 0,
            repaired: 0,
            self_labelling: SelfLabelling::Off,
            network: None,
        }
    }
}

impl Scan<'_> {
    fn batch(&self) -> usize {
        (self.config.batch as usize).clamp(1, self.features.len().max(1))
    }

    fn per_epoch(&self) -> u64 {
        self.features.len().div_ceil(self.batch()) as u64
    }

    /// Steps of both parts.
    pub fn steps(&self) -> u64 {
        self.per_epoch() * u64::from(self.config.epochs + self.config.self_label_epochs)
    }

    /// Learns clusters, or goes on learning, in `folder`; `progress` counts [`Scan::steps`].
    ///
    /// # Errors
    /// [`LearnError`]; what was saved before stays.
    ///
    /// # Panics
    /// If neighbours, copies or images are not those of the features.
    pub fn learn(
        &self,
        learning: Learning<'_>,
        folder: &Path,
        stop: &AtomicBool,
        progress: &Progress,
    ) -> Result<Scanned, LearnError> {
        let rows = self.features.len();
        if rows == 0 || self.clusters == 0 {
            return Err(ClusterError::Empty.into());
        }
        assert!(self.neighbours.is_empty() || self.neighbours.len() == rows, "neighbours of every image");
        if self.clusters == 1 {
            progress.set(self.steps());
            return Ok(Scanned::all_in_one(rows));
        }
        let (network, material) = Material::new(learning, self.features, self.seed);
        let device = network.as_ref().map_or_else(|| self.device.clone(), |network| network.device().inner());
        let network =
            network.map(|network| network.with_precision(precision(self.config.precision, &device)));
        let run = Run { scan: self, material, device, folder, stop, progress };
        run.learn(network)
    }
}

/// A [`Scan`] with all that it needs.
struct Run<'a> {
    scan: &'a Scan<'a>,
    material: Material<'a>,
    device: Device,
    folder: &'a Path,
    stop: &'a AtomicBool,
    progress: &'a Progress,
}

impl Run<'_> {
    fn learn(&self, network: Option<Classifier>) -> Result<Scanned, LearnError> {
        let (scan, config) = (self.scan, self.scan.config);
        let trains = network.is_some();
        let mut clusters = Clusters::new(self.learner(network)?, scan, self.material.frame(&self.device));
        let scan_steps = scan.per_epoch() * u64::from(config.epochs);
        let course = self.course("SCAN", "scan", scan_steps, 0, trains)?;
        let mut sampler = self.sampler();
        let (material, neighbours, batch) = (&self.material, scan.neighbours, scan.batch());
        course.teach(&mut clusters, |step| material.neighbours(&sampler.batch(step, batch), neighbours))?;
        let (learner, repaired) = clusters.finish();

        let found = self.assignments(&learner)?;
        let losses: Vec<f64> =
            found.iter().map(|found| found.scan_loss(neighbours, config.entropy_weight)).collect();
        // A head with an empty cluster has given up, whatever its loss.
        let rank = |head: &usize| (found[*head].empty().len(), losses[*head]);
        let best = (0..found.len()).min_by(|a, b| {
            let (a, b) = (rank(a), rank(b));
            a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
        });
        let head = best.expect("there is a head");
        let before = found[head].clone();
        let network = learner.network().map(|network| network.detached().separate());
        let mut scanned = Scanned {
            assignment: before.clone(),
            before,
            losses,
            head,
            repaired,
            self_labelling: SelfLabelling::Off,
            network: network.clone(),
        };
        let confident = scanned.before.confident(config.confidence as f32);
        if config.self_label_epochs == 0 {
            return Ok(scanned);
        }
        if confident < CONFIDENT {
            scanned.self_labelling = SelfLabelling::TooFewConfident(confident);
            self.progress.set(scan.steps());
            return Ok(scanned);
        }
        let heads = learner.head().clone().only(head);
        let mut labels = SelfLabels::new(
            Learner::new(network, heads, self.optimizer()),
            scan,
            material.frame(&self.device),
        );
        let steps = scan.per_epoch() * u64::from(config.self_label_epochs);
        let course = self.course("self-labelling", "self_label", steps, scan_steps, trains)?;
        let mut sampler = self.sampler();
        let epochs = u64::from(config.epochs);
        course.teach(&mut labels, |step| material.weak_and_strong(&sampler.batch(step, batch), epochs))?;
        let learner = labels.finish();
        let after = self.assignments(&learner)?.remove(0);
        scanned.self_labelling = SelfLabelling::Undone;
        if after.effective() >= STILL_IN_USE * scanned.before.effective() {
            scanned.self_labelling = SelfLabelling::Done;
            scanned.assignment = after;
            scanned.network = learner.network().map(|network| network.detached().separate());
        }
        Ok(scanned)
    }

    /// Rows in an order of their own in each epoch.
    fn sampler(&self) -> Sampler {
        let rows = (0..self.scan.features.len() as u32).collect();
        Sampler::new(rows, Order::Unlabelled, self.scan.seed).expect("there are images")
    }

    fn optimizer(&self) -> OptimizerConfig {
        OptimizerConfig {
            rule: OptimizerName::AdamW,
            weight_decay: self.scan.config.weight_decay,
            momentum: 0.0,
            layer_decay: 1.0,
        }
    }

    fn learner(&self, network: Option<Classifier>) -> Result<Learner<ClusterHeads>, LearnError> {
        let (scan, device) = (self.scan, self.device.clone().autodiff());
        let count = scan.config.heads as usize;
        let seed = stream(scan.seed, Purpose::Initialisation, [4, 0, 0]).random();
        let mut heads = ClusterHeads::new(scan.features.dim(), scan.clusters, count, seed, &device);
        let begun = self.folder.join("scan/checkpoints/last").exists();
        if scan.config.start == HeadStart::KMeans && !begun {
            let rows = self.material.plain();
            start::at_centres(&mut heads, rows, scan.clusters, scan.seed, &self.device, self.stop)?;
        }
        Ok(Learner::new(network, heads, self.optimizer()))
    }

    fn course<'c>(
        &'c self,
        name: &'static str,
        folder: &str,
        steps: u64,
        before: u64,
        trains: bool,
    ) -> Result<OwnedCourse<'c>, LearnError> {
        let (scan, config) = (self.scan, self.scan.config);
        let folder = self.folder.join(folder);
        std::fs::create_dir_all(&folder).map_err(WriteError::at(&folder))?;
        let settings = serde_json::to_string(config).expect("plain data");
        let kind = format!(
            "{name} of {} images, features {}, in {} clusters, {}, seed {}, {settings}",
            scan.features.len(),
            self.material.fingerprint(),
            scan.clusters,
            if trains { "network and heads" } else { "heads" },
            scan.seed
        );
        let lr = config.lr.unwrap_or(if trains { 1e-4 } else { 3e-3 });
        Ok(OwnedCourse { run: self, name, kind, folder, steps, before, lr })
    }

    /// What every head says of every image.
    fn assignments(&self, learner: &Learner<ClusterHeads>) -> Result<Vec<Assignment>, LearnError> {
        let logits = self.material.logits(learner, &self.device, self.stop)?;
        Ok(logits.into_iter().map(|logits| Assignment::of_logits(logits, self.scan.clusters)).collect())
    }
}

/// A [`Course`] with a folder and a rate of its own.
struct OwnedCourse<'a> {
    run: &'a Run<'a>,
    name: &'static str,
    kind: String,
    folder: std::path::PathBuf,
    steps: u64,
    before: u64,
    lr: f64,
}

impl OwnedCourse<'_> {
    fn teach<L: super::course::Lesson>(
        &self,
        lesson: &mut L,
        batch: impl FnMut(u64) -> L::Batch + Send,
    ) -> Result<(), LearnError> {
        let config = self.run.scan.config;
        let course = Course {
            name: self.name,
            kind: self.kind.clone(),
            folder: &self.folder,
            steps: self.steps,
            rate: &|_| self.lr,
            rate_key: "clustering.scan.lr",
            checkpoint_every: config.checkpoint_every,
            log_every: config.log_every,
            stop: self.run.stop,
            progress: self.run.progress,
            before: self.before,
        };
        course.teach(lesson, batch)
    }
}
