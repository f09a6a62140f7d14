//! ConvNeXt: Liu et al., arXiv:2201.03545, with timm's parameter names.
//!
//! `B` images, `D` channels. A block mixes places with a depthwise 7×7 convolution, then channels with a two-layer
//! perceptron at each place; there is no batch normalisation, so an image's output depends on that image alone.

use burn::Tensor;
use burn::module::{Module, Param};
use serde::{Deserialize, Serialize};

use crate::Output;
use crate::config::ConfigError;
use crate::initial::{Initialiser, Start};
use crate::layers::{DepthwiseConv, LayerNorm, Linear, Patches};
use crate::mode::{Mode, Precision, leave};

/// Shape of a [`ConvNext`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConvNextConfig {
    /// Side of the images it is meant for, in pixels; the network takes any size that leaves a place in the last stage.
    pub image_size: usize,
    /// Stages, each after the first at half the resolution.
    pub stages: Vec<StageConfig>,
    /// Starting value of each branch's factors.
    #[serde(default = "layer_scale")]
    pub layer_scale: f64,
    /// Stochastic depth: drop rate of the last block, from 0 at the first in equal steps; in `[0, 1)`.
    #[serde(default)]
    pub drop_path: f64,
    /// Number of classes.
    pub classes: usize,
}

fn layer_scale() -> f64 {
    1e-6
}

/// One resolution of a [`ConvNext`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageConfig {
    /// Number of blocks.
    pub blocks: usize,
    /// Channels.
    pub dim: usize,
}

/// Side of the patches that the stem makes a value of.
const PATCH: usize = 4;
/// Side of the depthwise kernels.
const KERNEL: usize = 7;
/// Width of a block's hidden layer over its channels.
const MLP_RATIO: usize = 4;

impl ConvNextConfig {
    /// `convnext_tiny`, as in the paper and timm.
    pub fn convnext_tiny(classes: usize) -> Self {
        let stages = [(3, 96), (3, 192), (9, 384), (3, 768)];
        Self {
            image_size: 224,
            stages: stages.map(|(blocks, dim)| StageConfig { blocks, dim }).to_vec(),
            layer_scale: layer_scale(),
            drop_path: 0.0,
            classes,
        }
    }

    /// What is wrong with this configuration, if anything.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let sizes = [("image_size", self.image_size), ("classes", self.classes)];
        let stages =
            self.stages.iter().flat_map(|stage| [("stages.blocks", stage.blocks), ("stages.dim", stage.dim)]);
        if let Some((field, _)) = sizes.into_iter().chain(stages).find(|(_, value)| *value == 0) {
            return Err(ConfigError::Zero { field });
        }
        if self.stages.is_empty() {
            return Err(ConfigError::NoStages);
        }
        let halvings = self.stages.len() as u32 - 1;
        if (self.image_size / PATCH).checked_shr(halvings).unwrap_or(0) == 0 {
            let (field, value) = ("image_size", self.image_size as f64);
            return Err(ConfigError::Range {
                field,
                value,
                range: "at least 4, doubled for each stage more",
            });
        }
        if !(0.0..1.0).contains(&self.drop_path) {
            return Err(ConfigError::Range { field: "drop_path", value: self.drop_path, range: "[0, 1)" });
        }
        if !self.layer_scale.is_finite() {
            return Err(ConfigError::Range {
                field: "layer_scale",
                value: self.layer_scale,
                range: "finite",
            });
        }
        Ok(())
    }

    /// Number of blocks.
    pub fn blocks(&self) -> usize {
        self.stages.iter().map(|stage| stage.blocks).sum()
    }
}

/// A ConvNeXt with a linear classifier.
#[derive(Module, Debug)]
pub struct ConvNext {
    stem: (Patches, LayerNorm),
    stages: Vec<Stage>,
    head: Head,
    /// Drop rate of each block's branch.
    #[module(skip)]
    rates: Vec<f32>,
    #[module(skip)]
    precision: Precision,
}

/// Every matrix and kernel (timm truncates at ±2, a hundred deviations away).
const WEIGHT: Start = Start::Normal(0.02);
const ZERO: Start = Start::Constant(0.0);

impl ConvNext {
    /// A network of this shape; parameters start as timm's.
    pub fn new(config: &ConvNextConfig, init: &Initialiser) -> Result<Self, ConfigError> {
        config.validate()?;
        let dims: Vec<usize> = config.stages.iter().map(|stage| stage.dim).collect();
        let (first, last) = (dims[0], dims[dims.len() - 1]);
        let stages = config.stages.iter().enumerate().map(|(i, stage)| {
            let d_in = i.checked_sub(1).map(|before| dims[before]);
            Stage::new(stage, d_in, config.layer_scale, &init.part("stages").part(i))
        });
        let steps = config.blocks().saturating_sub(1).max(1) as f64;
        let (stem, head) = (init.part("stem"), init.part("head"));
        Ok(ConvNext {
            stem: (
                Patches::new(&stem.part(0), 3, first, PATCH, WEIGHT, ZERO),
                LayerNorm::new(&stem.part(1), first),
            ),
            stages: stages.collect(),
            head: Head {
                norm: LayerNorm::new(&head.part("norm"), last),
                fc: Linear::new(&head.part("fc"), last, config.classes, WEIGHT, ZERO),
            },
            rates: (0..config.blocks()).map(|i| (config.drop_path * i as f64 / steps) as f32).collect(),
            precision: Precision::F32,
        })
    }

    /// Images `[B, 3, H, W]` → features `[B, D of the last stage]` and logits `[B, classes]`.
    pub fn forward(&self, images: Tensor<4>, mode: Mode<'_>) -> Output {
        let path = mode.drop_path(&self.rates, &images);
        let (patches, norm) = &self.stem;
        let mut x = channels_first(norm.forward(leave(patches.forward(images, self.precision))));
        let count: usize = self.stages.iter().map(|stage| stage.blocks.len()).sum();
        let mut index = 0;
        for stage in &self.stages {
            // What leads to a stage counts to its first block.
            x = mode.tap(x, count - index);
            if let Some((norm, patches)) = &stage.downsample {
                let normal = channels_first(norm.forward(channels_last(x)));
                x = channels_first(leave(patches.forward(normal, self.precision)));
            }
            for (i, block) in stage.blocks.iter().enumerate() {
                if i > 0 {
                    x = mode.tap(x, count - index);
                }
                x = block.forward(x, path.keep(index), self.precision);
                index += 1;
            }
        }
        let [batch, dim, height, width] = x.dims();
        let mean = x.reshape([batch, dim, height * width]).mean_dim(2).reshape([batch, dim]);
        let features = mode.tap(self.head.norm.forward(mean), 0);
        let logits = self.head.fc.forward(features.clone(), Precision::F32);
        Output { features, logits }
    }

    pub(crate) fn set_precision(&mut self, precision: Precision) {
        self.precision = precision;
    }
}

/// `[B, D, H, W]` → `[B, H, W, D]`
fn channels_last(x: Tensor<4>) -> Tensor<4> {
    x.permute([0, 2, 3, 1])
}

/// `[B, H, W, D]` → `[B, D, H, W]`
fn channels_first(x: Tensor<4>) -> Tensor<4> {
    x.permute([0, 3, 1, 2])
}

/// The norm is of the mean over all places.
#[derive(Module, Debug)]
struct Head {
    norm: LayerNorm,
    fc: Linear,
}

/// Blocks of one resolution; all stages but the first begin by halving it.
#[derive(Module, Debug)]
struct Stage {
    downsample: Option<(LayerNorm, Patches)>,
    blocks: Vec<Block>,
}

impl Stage {
    /// `d_in`: channels of the stage before.
    fn new(config: &StageConfig, d_in: Option<usize>, scale: f64, init: &Initialiser) -> Self {
        let downsample = d_in.map(|d_in| {
            let init = init.part("downsample");
            let patches = Patches::new(&init.part(1), d_in, config.dim, 2, WEIGHT, ZERO);
            (LayerNorm::new(&init.part(0), d_in), patches)
        });
        let init = init.part("blocks");
        let blocks = (0..config.blocks).map(|i| Block::new(config.dim, scale, &init.part(i))).collect();
        Stage { downsample, blocks }
    }
}

/// `x + gamma · mlp(norm(depthwise(x)))`
#[derive(Module, Debug)]
struct Block {
    /// Factor of each channel of the branch, `[D]`.
    gamma: Param<Tensor<1>>,
    conv_dw: DepthwiseConv,
    norm: LayerNorm,
    mlp: Mlp,
}

#[derive(Module, Debug)]
struct Mlp {
    fc1: Linear,
    fc2: Linear,
}

impl Block {
    fn new(dim: usize, scale: f64, init: &Initialiser) -> Self {
        let mlp = init.part("mlp");
        Block {
            gamma: init.parameter("gamma", [dim], Start::Constant(scale as f32)),
            conv_dw: DepthwiseConv::new(&init.part("conv_dw"), dim, KERNEL, 1, WEIGHT, Some(ZERO)),
            norm: LayerNorm::new(&init.part("norm"), dim),
            mlp: Mlp {
                fc1: Linear::new(&mlp.part("fc1"), dim, MLP_RATIO * dim, WEIGHT, ZERO),
                fc2: Linear::new(&mlp.part("fc2"), MLP_RATIO * dim, dim, WEIGHT, ZERO),
            },
        }
    }

    /// `x`: `[B, D, H, W]`; `keep`: the branch's factors from stochastic depth, `[B]`.
    fn forward(&self, x: Tensor<4>, keep: Option<Tensor<1>>, precision: Precision) -> Tensor<4> {
        let mixed = channels_last(leave(self.conv_dw.forward(x.clone(), precision)));
        let hidden = self.mlp.fc1.forward_gelu(self.norm.forward(mixed), precision);
        let y = self.mlp.fc2.forward(hidden, precision);
        let y = channels_first(leave(y) * self.gamma.val().unsqueeze());
        harvest_kernels::residual(x, y, keep)
    }
}
