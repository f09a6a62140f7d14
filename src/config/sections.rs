//! The sections of a configuration: what each key means, its unit, and where its default comes from.

use std::path::{Path, PathBuf};

use harvest_kernels::Kernels;
use harvest_models::LoadOptions;
use serde::{Deserialize, Serialize};

use super::{ClusteringConfig, ConfidenceConfig, DistributionConfig, LabelConfig, PublishedConfig};
use crate::algorithms::AlgorithmConfig;
use crate::augment::{ViewConfig, ViewConfigError};
use crate::bounds::Lower::{Above, From};
use crate::bounds::Upper::{Below, Upto};
use crate::bounds::{Invalid, at_least_one, range};

/// A path. Relative ones are taken from the folder of the file that says them, or from the current folder when
/// they come from the command line or the environment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ConfigPath(pub PathBuf);

impl std::ops::Deref for ConfigPath {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

/// All of a run.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Which images, and how they are divided.
    pub data: DataConfig,
    /// How weak and strong views are made.
    pub views: ViewConfig,
    /// Which network.
    pub model: ModelConfig,
    /// Which algorithm, and the settings of each.
    pub algorithm: AlgorithmConfig,
    /// Unequal classes and doubtful labels.
    pub labels: LabelConfig,
    /// How long, how fast, how often.
    pub training: TrainingConfig,
    /// What a confidence means, and when a prediction abstains.
    pub confidence: ConfidenceConfig,
    /// How unlabelled images are grouped.
    pub clustering: ClusteringConfig,
    /// How several ranks share a step.
    pub distribution: DistributionConfig,
    /// Where it runs; nothing here changes a result.
    pub run: RunConfig,
    /// What others published on the same images, for recipes that repeat it; nothing here changes a result.
    pub published: PublishedConfig,
}

/// Which images, and how they are divided.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataConfig {
    /// Folder of images, or the CSV file that lists them.
    pub root: Option<ConfigPath>,
    /// How to read `root`.
    pub kind: SourceKind,
    /// Labelled images of each class, training and evaluation together. The published study ends at 80.
    pub labels_per_class: u32,
    /// Use every label there is, whatever `labels_per_class` says: what few labels are measured against.
    pub fully_labelled: bool,
    /// Share of the labelled images kept for choosing the best model, from 0 (train on all and keep the last model) to
    /// below 1.
    pub evaluation_fraction: f64,
    /// Share of the images whose label is known that is kept for testing, from 0 to below 1. Sources with a test
    /// part of their own use that instead.
    pub test_fraction: f64,
    /// Seed of the division.
    pub seed: u64,
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            root: None,
            kind: SourceKind::Auto,
            labels_per_class: 80,
            fully_labelled: false,
            evaluation_fraction: 0.2,
            test_fraction: 0.2,
            seed: 0,
        }
    }
}

/// Kinds of image sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceKind {
    /// Look and see.
    #[default]
    Auto,
    /// Images without labels, nested in any way.
    Folder,
    /// A folder for each class.
    ClassFolders,
    /// A CSV file of `path,label`.
    Csv,
    /// IDX files, as MNIST is published.
    Idx,
}

/// Which network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelConfig {
    /// A preset's name. The published study's network for most comparisons is the default.
    pub name: String,
    /// Side of the square training images in pixels; unset, the preset's.
    pub image_size: Option<u32>,
    /// Weights to start from: a safetensors or PyTorch file with timm's, torchvision's or Hugging Face's names, or a name
    /// of `harvest weights list`.
    pub pretrained: Option<ConfigPath>,
    /// Leave out what of `pretrained` does not fit the network, and keep what the file has nothing for as the seed made it;
    /// else both are errors.
    pub allow_unexpected: bool,
    /// Largest probability of dropping a block, from 0 to below 1; unset, the preset's.
    pub drop_path: Option<f64>,
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            name: "vit_tiny_patch2_32".into(),
            image_size: None,
            pretrained: None,
            allow_unexpected: false,
            drop_path: None,
        }
    }
}

impl ModelConfig {
    /// How `pretrained` is to be taken.
    pub fn load_options(&self) -> LoadOptions {
        LoadOptions { allow_unexpected: self.allow_unexpected, ..LoadOptions::default() }
    }
}

/// How long, how fast, how often. Defaults without a word of their own are USB's for ViT on CIFAR-100.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainingConfig {
    /// Passes over the unlabelled images. Published: 60 for the two largest studies.
    pub epochs: u32,
    /// Optimiser steps, in place of `epochs`.
    pub steps: Option<u32>,
    /// Labelled images a step.
    pub batch: u32,
    /// Unlabelled images a step, in multiples of `batch`.
    pub unlabelled_ratio: u32,
    /// Learning rate at the end of warm-up.
    pub lr: f64,
    /// Which optimizer.
    pub optimizer: OptimizerName,
    /// Weight decay; biases and norms have none.
    pub weight_decay: f64,
    /// Momentum of SGD, from 0 to below 1; AdamW does not use it.
    pub momentum: f64,
    /// Learning rate of a layer relative to the one above it, above 0 and up to 1.
    pub layer_decay: f64,
    /// Largest norm, above 0, of all gradients of a step together: larger ones are scaled down to it before the update, as
    /// by PyTorch's `clip_grad_norm_`. Unset, as in USB's run files, they are used as they are.
    pub clip_norm: Option<f64>,
    /// Steps during which the learning rate rises from 0; unset, a fortieth of all, as USB's 5,120 of 204,800.
    pub warmup_steps: Option<u32>,
    /// How much of the network is trained. `lora` and `adapter` want pretrained weights and, as a rule, a `layer_decay` of 1
    /// and a rate ten times that of `full`.
    pub tuning: TuningName,
    /// Rank of LoRA's matrices, width of an adapter; unset, 8 and 64, as published for RoBERTa and in AdaptFormer.
    pub tuning_rank: Option<u32>,
    /// Factor on what is added, above 0: LoRA's α / r, an adapter's s; unset, 1 and 0.1, as published likewise.
    pub tuning_scale: Option<f64>,
    /// Steps at the start during which the classifier alone moves, on the network's fixed features; 0: none. Batch
    /// normalisation goes on as in training: with the statistics of each batch, and moving the running ones.
    pub head_warmup_steps: u32,
    /// Lowest blocks that are kept fixed, with the embedding below them; 0: nothing is, all blocks: all but the classifier.
    /// Fixed are the parameters; the running statistics of batch normalisation follow the images in fixed blocks too.
    pub frozen: u32,
    /// Decay of the averaged weights per step, from 0 (none) to below 1.
    pub ema: f64,
    /// What the averaged weights are normalised with, in networks with batch normalisation.
    pub ema_statistics: EmaStatistics,
    /// Steps between evaluations.
    pub evaluate_every: u32,
    /// Steps between checkpoints.
    pub checkpoint_every: u32,
    /// Steps between lines of `metrics.csv`.
    pub log_every: u32,
    /// Numbers used for the forward and backward pass.
    pub precision: Precision,
    /// Whether strong views whose pseudo-label is masked out are left out of the computation.
    pub skip_masked: Switch,
    /// Seed of weights, order and views.
    pub seed: u64,
}

impl Default for TrainingConfig {
    fn default() -> Self {
        Self {
            epochs: 60,
            steps: None,
            batch: 8,
            unlabelled_ratio: 1,
            lr: 5e-4,
            optimizer: OptimizerName::AdamW,
            weight_decay: 5e-4,
            momentum: 0.9,
            layer_decay: 0.5,
            clip_norm: None,
            warmup_steps: None,
            tuning: TuningName::Full,
            tuning_rank: None,
            tuning_scale: None,
            head_warmup_steps: 0,
            frozen: 0,
            ema: 0.0,
            ema_statistics: EmaStatistics::Averaged,
            evaluate_every: 500,
            checkpoint_every: 500,
            log_every: 20,
            precision: Precision::Auto,
            skip_masked: Switch::Auto,
            seed: 0,
        }
    }
}

/// How much of a network is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TuningName {
    /// All of it.
    #[default]
    Full,
    /// The classifier, and matrices of low rank added to the attention of each block (arXiv:2106.09685). Vision transformers.
    Lora,
    /// The classifier, and a bottleneck added beside the MLP of each block (arXiv:1902.00751, 2205.13535). Vision
    /// transformers.
    Adapter,
    /// The classifier alone.
    Linear,
}

/// Running statistics of an averaged network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EmaStatistics {
    /// Averaged like the weights.
    #[default]
    Averaged,
    /// The live network's, as in the established implementation; in short runs they do not fit the averaged weights.
    Live,
}

/// Optimizers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerName {
    /// AdamW.
    #[default]
    AdamW,
    /// SGD with Nesterov momentum.
    Sgd,
}

/// Numbers to compute with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// `bf16` on GPUs, `f32` on the CPU.
    #[default]
    Auto,
    /// 32-bit floats.
    F32,
    /// bfloat16 in the matrix products, 32-bit weights and sums. On a CPU without AVX-512 BF16 the same as `f32`.
    Bf16,
}

/// A choice that can be left to the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Switch {
    /// As measured to be faster.
    #[default]
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

/// What computes an operation that has a fused implementation and a plain reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KernelChoice {
    /// The fused one, where there is one for the device.
    #[default]
    Fused,
    /// The reference: slower, to see whether a kernel is at fault.
    Reference,
}

impl std::convert::From<KernelChoice> for Kernels {
    fn from(choice: KernelChoice) -> Self {
        match choice {
            KernelChoice::Fused => Self::Fused,
            KernelChoice::Reference => Self::Reference,
        }
    }
}

/// Who makes the weak and strong views of training images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ViewMaker {
    /// The threads of this machine, ahead of the step.
    #[default]
    Cpu,
    /// The GPU that trains: where there are few threads for each. On a CPU, and for pictures of more than 4096 pixels a side,
    /// as [`ViewMaker::Cpu`].
    Device,
}

/// Where a run takes place; nothing here changes a result but for rounding, nor tells one run from another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RunConfig {
    /// `auto`, `cpu`, `cuda` or `cuda:N`.
    pub device: String,
    /// `fused`, or `reference` for burn's own operations.
    pub kernels: KernelChoice,
    /// `cpu`, or `device` for the GPU that trains: who makes weak and strong views, with the same bytes.
    pub views: ViewMaker,
    /// Folder that holds the run folders; unset, `runs` in the project, else in the current folder.
    pub folder: Option<ConfigPath>,
    /// On several ranks: seconds without a sign of life after which a rank counts as lost, and the job ends.
    pub limit_seconds: u32,
    /// On several nodes: a folder on each node's own disk, to which the images are copied once.
    pub node_cache: Option<ConfigPath>,
}

impl Default for RunConfig {
    fn default() -> Self {
        Self {
            device: "auto".into(),
            kernels: KernelChoice::Fused,
            views: ViewMaker::Cpu,
            folder: None,
            limit_seconds: 600,
            node_cache: None,
        }
    }
}

impl Config {
    /// Refuses values that no run could use. What depends on the data or the device is checked when they are known.
    pub fn check(&self) -> Result<(), Invalid> {
        let (data, training) = (&self.data, &self.training);
        at_least_one("data.labels_per_class", data.labels_per_class)?;
        range("data.evaluation_fraction", data.evaluation_fraction, From(0.0), Below(1.0))?;
        range("data.test_fraction", data.test_fraction, From(0.0), Below(1.0))?;
        if let Some(size) = self.model.image_size {
            at_least_one("model.image_size", size)?;
        }
        if let Some(rate) = self.model.drop_path {
            range("model.drop_path", rate, From(0.0), Below(1.0))?;
        }
        if let Some(steps) = training.steps {
            at_least_one("training.steps", steps)?;
        }
        for (key, value) in [
            ("training.epochs", training.epochs),
            ("training.batch", training.batch),
            ("training.unlabelled_ratio", training.unlabelled_ratio),
            ("training.evaluate_every", training.evaluate_every),
            ("training.checkpoint_every", training.checkpoint_every),
            ("training.log_every", training.log_every),
            ("run.limit_seconds", self.run.limit_seconds),
        ] {
            at_least_one(key, value)?;
        }
        if let (Some(steps), Some(warmup)) = (training.steps, training.warmup_steps)
            && warmup >= steps
        {
            let reason = format!("is {warmup}, but there are only {steps} steps; it must be less");
            return Err(Invalid { key: "training.warmup_steps", reason });
        }
        if let Some(rank) = training.tuning_rank {
            at_least_one("training.tuning_rank", rank)?;
        }
        if let Some(scale) = training.tuning_scale {
            range("training.tuning_scale", scale, Above(0.0), Upto(f64::MAX))?;
        }
        range("training.lr", training.lr, Above(0.0), Upto(f64::MAX))?;
        range("training.weight_decay", training.weight_decay, From(0.0), Upto(f64::MAX))?;
        range("training.momentum", training.momentum, From(0.0), Below(1.0))?;
        range("training.layer_decay", training.layer_decay, Above(0.0), Upto(1.0))?;
        if let Some(limit) = training.clip_norm {
            range("training.clip_norm", limit, Above(0.0), Upto(f64::MAX))?;
        }
        range("training.ema", training.ema, From(0.0), Below(1.0))?;
        check_device(&self.run.device)?;
        let views = |problem: ViewConfigError| Invalid { key: "views", reason: problem.to_string() };
        self.views.check().map_err(views)?;
        self.views.contrast.check()?;
        self.labels.check(self.algorithm.name)?;
        self.confidence.check()?;
        self.clustering.check()?;
        self.distribution.check()?;
        self.published.check()?;
        super::members::check(self)?;
        self.algorithm.check()
    }
}

fn check_device(device: &str) -> Result<(), Invalid> {
    let known = matches!(device, "auto" | "cpu" | "cuda")
        || device.strip_prefix("cuda:").is_some_and(|index| index.parse::<u16>().is_ok());
    let reason = || format!("is \"{device}\"; it must be auto, cpu, cuda, or cuda:N with a device's number");
    if known { Ok(()) } else { Err(Invalid { key: "run.device", reason: reason() }) }
}
