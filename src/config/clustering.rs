//! The section `[clustering]`: how unlabelled images are grouped.

use serde::{Deserialize, Serialize};

use super::{OptimizerName, Precision, Switch};
use crate::bounds::Lower::{Above, From};
use crate::bounds::Upper::{Below, Upto};
use crate::bounds::{Invalid, at_least_one, range};

/// How unlabelled images are grouped.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClusteringConfig {
    /// How clusters are found.
    pub method: ClusteringMethod,
    /// What images are compared by.
    pub features: FeatureSource,
    /// How many clusters. Unset: as many as classes. With more, SCAN's are merged afterwards.
    pub clusters: Option<u32>,
    /// k: nearest neighbours of each image. SCAN: 20.
    pub neighbours: u32,
    /// How neighbours are searched.
    pub search: Search,
    /// Seed of everything in this section.
    pub seed: u64,
    /// Pretraining without labels.
    pub simclr: SimClrConfig,
    /// Clusters learned from neighbours.
    pub scan: ScanConfig,
}

impl Default for ClusteringConfig {
    fn default() -> Self {
        Self {
            method: ClusteringMethod::Auto,
            features: FeatureSource::Network,
            clusters: None,
            neighbours: 20,
            search: Search::Auto,
            seed: 0,
            simclr: SimClrConfig::default(),
            scan: ScanConfig::default(),
        }
    }
}

/// How neighbours are searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Search {
    /// Exact for up to 250,000 images, approximate beyond.
    #[default]
    Auto,
    /// Every pair of images is compared.
    Exact,
    /// Only images of like cells are compared.
    Approximate,
}

/// How clusters are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClusteringMethod {
    /// k-means, unless SCAN is better by an internal measure.
    #[default]
    Auto,
    /// k-means on the features.
    KMeans,
    /// SCAN.
    Scan,
}

/// What images are compared by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FeatureSource {
    /// What a network sees: one with the weights of `model.pretrained`, else one that learns from the images (SimCLR).
    #[default]
    Network,
    /// The pixels themselves: what features are to be better than.
    Pixels,
}

/// SimCLR (arXiv:2002.05709). The views are those of `[views.contrast]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SimClrConfig {
    /// Passes over the images. SimCLR: 100 to 1000.
    pub epochs: u32,
    /// Optimiser steps, in place of `epochs`.
    pub steps: Option<u32>,
    /// Images a step, each with two views; of fewer images, all. SimCLR: 256 to 8192.
    pub batch: u32,
    /// τ. SimCLR: 0.5 for CIFAR-10, 0.1 for ImageNet; MoCo v2: 0.2, which was best here in 200 steps on Fashion-MNIST.
    pub temperature: f64,
    /// Length of the projections that are compared. SimCLR: 128.
    pub projection: u32,
    /// Which optimizer.
    pub optimizer: OptimizerName,
    /// Learning rate at the end of warm-up; it then falls to 0 along half a cosine.
    pub lr: f64,
    /// Weight decay; biases and norms have none. SCAN: 1e-4.
    pub weight_decay: f64,
    /// Momentum of SGD, from 0 to below 1; AdamW does not use it.
    pub momentum: f64,
    /// Steps during which the learning rate rises from 0; unset, a tenth of all, as SimCLR's 10 of 100 epochs.
    pub warmup_steps: Option<u32>,
    /// Steps between checkpoints.
    pub checkpoint_every: u32,
    /// Steps between lines of `metrics.csv`.
    pub log_every: u32,
    /// Numbers used for the forward and backward pass.
    pub precision: Precision,
}

impl Default for SimClrConfig {
    fn default() -> Self {
        Self {
            epochs: 100,
            steps: None,
            batch: 256,
            temperature: 0.2,
            projection: 128,
            optimizer: OptimizerName::AdamW,
            lr: 1e-3,
            weight_decay: 1e-4,
            momentum: 0.9,
            warmup_steps: None,
            checkpoint_every: 200,
            log_every: 10,
            precision: Precision::Auto,
        }
    }
}

/// SCAN (arXiv:2005.12320): clusters are learned from neighbours, then from the clusters' own confident images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScanConfig {
    /// Whether the network stays as it is and heads alone learn, on stored features: `auto`, on the CPU. SCAN: off.
    pub frozen: Switch,
    /// Augmented copies of each image whose features are stored for a frozen network, beside those of the image itself.
    pub copies: u32,
    /// Passes over the images. SCAN: 50 to 100; the published harvest of unlabelled images: 25.
    pub epochs: u32,
    /// Passes over the images in which confident ones teach; 0: none.
    pub self_label_epochs: u32,
    /// Images a step. SCAN: 128.
    pub batch: u32,
    /// Heads learned side by side, of which the one with the lowest loss is kept.
    pub heads: u32,
    /// Where heads begin.
    pub start: HeadStart,
    /// λ: weight of the entropy that keeps clusters filled, and of equal size; less where classes are unequal. SCAN: 5.
    pub entropy_weight: f64,
    /// Probability above which an image teaches its own strong view. SCAN: 0.99.
    pub confidence: f64,
    /// Learning rate; unset, 3e-3 for heads on a frozen network, else 1e-4 as in SCAN.
    pub lr: Option<f64>,
    /// Weight decay; biases and norms have none. SCAN: 1e-4.
    pub weight_decay: f64,
    /// Steps between checkpoints.
    pub checkpoint_every: u32,
    /// Steps between lines of `metrics.csv`.
    pub log_every: u32,
    /// Numbers used for the forward and backward pass.
    pub precision: Precision,
}

impl Default for ScanConfig {
    fn default() -> Self {
        Self {
            frozen: Switch::Auto,
            copies: 1,
            epochs: 25,
            self_label_epochs: 25,
            batch: 128,
            heads: 5,
            start: HeadStart::KMeans,
            entropy_weight: 5.0,
            confidence: 0.99,
            lr: None,
            weight_decay: 1e-4,
            checkpoint_every: 500,
            log_every: 20,
            precision: Precision::Auto,
        }
    }
}

/// Where SCAN's heads begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HeadStart {
    /// At the centres of k-means, each head at those of another start.
    #[default]
    KMeans,
    /// At random, as published. A head that divides one group and joins two others seldom mends that.
    Random,
}

impl ClusteringConfig {
    /// Refuses values that cannot work.
    ///
    /// # Errors
    /// The first of them.
    pub fn check(&self) -> Result<(), Invalid> {
        let (simclr, scan) = (&self.simclr, &self.scan);
        for (key, value) in [
            ("clustering.clusters", self.clusters.unwrap_or(1)),
            ("clustering.neighbours", self.neighbours),
            ("clustering.simclr.epochs", simclr.epochs),
            ("clustering.simclr.steps", simclr.steps.unwrap_or(1)),
            ("clustering.simclr.batch", simclr.batch),
            ("clustering.simclr.projection", simclr.projection),
            ("clustering.simclr.checkpoint_every", simclr.checkpoint_every),
            ("clustering.simclr.log_every", simclr.log_every),
            ("clustering.scan.epochs", scan.epochs),
            ("clustering.scan.batch", scan.batch),
            ("clustering.scan.heads", scan.heads),
            ("clustering.scan.checkpoint_every", scan.checkpoint_every),
            ("clustering.scan.log_every", scan.log_every),
        ] {
            at_least_one(key, value)?;
        }
        range("clustering.simclr.temperature", simclr.temperature, Above(0.0), Upto(f64::MAX))?;
        range("clustering.simclr.lr", simclr.lr, Above(0.0), Upto(f64::MAX))?;
        range("clustering.simclr.weight_decay", simclr.weight_decay, From(0.0), Upto(f64::MAX))?;
        range("clustering.simclr.momentum", simclr.momentum, From(0.0), Below(1.0))?;
        range("clustering.scan.entropy_weight", scan.entropy_weight, From(0.0), Upto(f64::MAX))?;
        range("clustering.scan.confidence", scan.confidence, From(0.0), Below(1.0))?;
        range("clustering.scan.lr", scan.lr.unwrap_or(1.0), Above(0.0), Upto(f64::MAX))?;
        range("clustering.scan.weight_decay", scan.weight_decay, From(0.0), Upto(f64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_work_and_nonsense_is_named() {
        ClusteringConfig::default().check().expect("sound");
        for (text, key) in [
            ("clusters = 0", "clustering.clusters"),
            ("simclr.batch = 0", "clustering.simclr.batch"),
            ("simclr.temperature = 0.0", "clustering.simclr.temperature"),
            ("scan.confidence = 1.0", "clustering.scan.confidence"),
            ("scan.heads = 0", "clustering.scan.heads"),
            ("scan.lr = 0.0", "clustering.scan.lr"),
        ] {
            let config: ClusteringConfig = toml::from_str(text).expect("known keys");
            assert_eq!(config.check().expect_err("nonsense").key, key);
        }
        assert!(toml::from_str::<ClusteringConfig>("scan.head = 3").is_err());
        let config: ClusteringConfig =
            toml::from_str("method = \"kmeans\"\nscan.start = \"random\"").expect("words");
        assert_eq!((config.method, config.scan.start), (ClusteringMethod::KMeans, HeadStart::Random));
    }
}
