//! SimCLR: a network learns to tell images apart whatever is done to them, and so what they have in common.
//!
//! Chen et al., ICML 2020, arXiv:2002.05709, algorithm 1. Two views of each of `N` images go through the network `f` and a
//! projection `g`; NT-Xent ([`nt_xent`]) wants the two close to each other and far from all others. `g` is thrown away.
//!
//! Batch normalisation takes its statistics over both views of a rank's images; the paper takes them over all ranks.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use harvest_models::{Classifier, Mode, ProjectionHead};
use rand::RngExt;

use super::course::{Course, LearnError, Lesson};
use super::features::fingerprint;
use super::learner::Learner;
use super::{ClusterError, nt_xent};
use crate::algorithms::Ranks;
use crate::augment::{Normalisation, View, ViewConfig, ViewRequest, fill_views};
use crate::config::SimClrConfig;
use crate::data::{ImageCache, Order, Pick, Sampler};
use crate::files::WriteError;
use crate::inference::images_to_tensor;
use crate::random::{Purpose, stream};
use crate::report::Progress;
use crate::training::checkpoint::{self, Checkpoint, CheckpointError};
use crate::training::{HalfCosine, OptimizerConfig, Scalars, precision};

/// File of the folder that holds the network when all is done.
pub const BACKBONE: &str = "backbone.safetensors";

/// What SimCLR learns from.
#[derive(Clone, Copy)]
pub struct SimClr<'a> {
    /// How.
    pub config: &'a SimClrConfig,
    /// Views and normalisation.
    pub views: &'a ViewConfig,
    /// The images at the network's size.
    pub cache: &'a ImageCache,
    /// Which of them.
    pub indices: &'a [u32],
    /// Seed of the projection, of order and views.
    pub seed: u64,
    /// Those that train together. Each has a [`SimClr`] and a folder of its own, and all come to the same weights; running
    /// statistics are each rank's own, and those of the first are in the result.
    pub ranks: &'a dyn Ranks,
}

impl SimClr<'_> {
    /// Images of a step on each rank: no image comes twice, for it would be contrasted with itself.
    fn batch(&self) -> usize {
        (self.config.batch as usize).min(self.indices.len() / self.ranks.world_size()).max(1)
    }

    /// Optimiser steps.
    pub fn steps(&self) -> u64 {
        let per_epoch = self.indices.len().div_ceil(self.batch() * self.ranks.world_size()).max(1) as u64;
        self.config.steps.map_or_else(|| u64::from(self.config.epochs) * per_epoch, u64::from)
    }

    /// Trains `network`, whose weights it starts from, or goes on training, in `folder`; `progress` counts
    /// [`SimClr::steps`]. The result is off autodiff and also in [`BACKBONE`]; its classifier is as it was.
    ///
    /// # Errors
    /// [`LearnError`]; what was saved before stays.
    pub fn pretrain(
        &self,
        network: &Classifier,
        folder: &Path,
        stop: &AtomicBool,
        progress: &Progress,
    ) -> Result<Classifier, LearnError> {
        let (config, ranks) = (self.config, self.ranks);
        if self.indices.is_empty() {
            return Err(ClusterError::Empty.into());
        }
        std::fs::create_dir_all(folder).map_err(WriteError::at(folder))?;
        let (rank, world) = (ranks.rank() as u32, ranks.world_size() as u32);
        let sampler = Sampler::new(self.indices.to_vec(), Order::Unlabelled, self.seed)
            .and_then(|sampler| sampler.for_rank(rank, world));
        let mut sampler = sampler.expect("there are images, and a rank is below the number of ranks");
        let (total, batch) = (self.steps(), self.batch());
        let warmup = config.warmup_steps.map_or(total / 10, u64::from);
        let schedule = HalfCosine { peak: config.lr, total_steps: total, warmup_steps: warmup };
        let settings = serde_json::to_string(config).expect("plain data");
        let kind = format!(
            "SimCLR of {} images on {world} ranks from weights {}, seed {}, {settings}",
            self.indices.len(),
            fingerprint(network),
            self.seed
        );
        let normalisation = &self.views.normalisation;
        let size = self.cache.size() as usize;
        let mut lesson = Contrast::new(config, normalisation, size, self.seed, ranks, network);
        let course = Course {
            name: "SimCLR",
            kind,
            folder,
            steps: total,
            rate: &|step| schedule.rate(step),
            rate_key: "clustering.simclr.lr",
            checkpoint_every: config.checkpoint_every,
            log_every: config.log_every,
            stop,
            progress,
            before: 0,
        };
        let (cache, views, seed) = (self.cache, self.views, self.seed);
        course
            .teach(&mut lesson, move |step| pair_of_views(&sampler.batch(step, batch), cache, views, seed))?;
        let network = lesson.network().detached().separate();
        if rank == 0 {
            network.save_safetensors(&folder.join(BACKBONE))?;
        }
        Ok(network)
    }
}

/// The first views of all images, then the second ones: `[2 B, S, S, 3]`.
fn pair_of_views(picks: &[Pick], cache: &ImageCache, views: &ViewConfig, seed: u64) -> Vec<u8> {
    let size = cache.size() as usize;
    let requests: Vec<ViewRequest<'_>> = [View::Contrast, View::ContrastSecond]
        .into_iter()
        .flat_map(|view| picks.iter().map(move |pick| (view, pick)))
        .map(|(view, pick)| ViewRequest {
            source: cache.image(pick.index),
            image: u64::from(pick.index),
            epoch: pick.epoch,
            view,
        })
        .collect();
    let mut out = vec![0; requests.len() * size * size * 3];
    fill_views(&requests, size, views, seed, &mut out);
    out
}

/// One run of SimCLR between two steps.
pub(crate) struct Contrast<'a> {
    config: &'a SimClrConfig,
    normalisation: &'a Normalisation,
    size: usize,
    seed: u64,
    ranks: &'a dyn Ranks,
    learner: Learner<ProjectionHead>,
}

impl<'a> Contrast<'a> {
    /// Before the first step, for pictures of `size` × `size` pixels.
    pub fn new(
        config: &'a SimClrConfig,
        normalisation: &'a Normalisation,
        size: usize,
        seed: u64,
        ranks: &'a dyn Ranks,
        network: &Classifier,
    ) -> Self {
        let device = network.device().inner();
        // Running statistics are shared among clones; the caller's stay as they are.
        let network = network.detached().separate().with_precision(precision(config.precision, &device));
        let of_head = stream(seed, Purpose::Initialisation, [3, 0, 0]).random();
        let outputs = config.projection as usize;
        let head = ProjectionHead::new(network.feature_size(), outputs, of_head, &device.autodiff());
        let optimizer = OptimizerConfig {
            rule: config.optimizer,
            weight_decay: config.weight_decay,
            momentum: config.momentum,
            layer_decay: 1.0,
        };
        let learner = Learner::new(Some(network), head, optimizer);
        Self { config, normalisation, size, seed, ranks, learner }
    }

    fn network(&self) -> &Classifier {
        self.learner.network().expect("the network learns")
    }

    /// One step on the first and then the second views of all images, `[2 B, S, S, 3]`.
    pub fn advance(&mut self, step: u64, views: Vec<u8>, lr: f64) -> Scalars {
        let device = self.network().device().inner();
        let images = images_to_tensor(views, self.size, self.normalisation, &device);
        let rows = images.dims()[0] / 2;
        let noise = stream(self.seed, Purpose::Network, [step, self.ranks.rank() as u64, 0]).random();
        let features = self.network().forward(images, Mode::train(noise)).features; // h
        let projected = self.learner.head().forward(features); // z
        let [first, second] = [0, 1].map(|view| projected.clone().narrow(0, view * rows, rows));
        let loss = nt_xent(first, second, self.config.temperature as f32, self.ranks);
        let scalars = vec![("loss", loss.clone().inner())];
        self.learner.descend(loss, lr, self.ranks);
        scalars
    }
}

impl Lesson for Contrast<'_> {
    /// Two views of each image.
    type Batch = Vec<u8>;

    fn step(&mut self, step: u64, batch: Vec<u8>, lr: f64) -> Scalars {
        self.advance(step, batch, lr)
    }

    fn save(&self, progress: checkpoint::Progress) -> Checkpoint {
        self.learner.save(progress)
    }

    fn restore(&mut self, checkpoint: Checkpoint) -> Result<(), CheckpointError> {
        let device = self.network().device().inner();
        self.learner.restore(checkpoint, &device)
    }
}
