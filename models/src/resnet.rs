//! Residual networks: He et al., arXiv:1512.03385, with torchvision's parameter names.
//!
//! Stride sits in the 3×3 convolution of a bottleneck, as in torchvision ("v1.5"). `B` images.

use burn::Tensor;
use burn::module::Module;
use burn::tensor::module::max_pool2d;
use burn::tensor::ops::MaxPoolOptions;
use serde::{Deserialize, Serialize};

use crate::Output;
use crate::batch_norm::BatchNorm;
use crate::config::ConfigError;
use crate::initial::{Initialiser, Start};
use crate::layers::{Conv, Linear};
use crate::mode::{Mode, Precision};

/// Shape of a [`ResNet`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResNetConfig {
    /// Side of the images it is meant for, in pixels. The network itself takes any size.
    pub image_size: usize,
    /// The first layers.
    #[serde(default)]
    pub stem: Stem,
    /// What the stages are made of.
    pub block: BlockKind,
    /// Blocks in each stage: one to four stages, each after the first at half the resolution and twice the planes.
    pub blocks: Vec<usize>,
    /// Planes of the stem and of the first stage. torchvision: 64.
    #[serde(default = "sixty_four")]
    pub planes: usize,
    /// Channels inside a bottleneck for every 64 planes (torchvision's `width_per_group`).
    #[serde(default = "sixty_four")]
    pub width: usize,
    /// Number of classes.
    pub classes: usize,
}

fn sixty_four() -> usize {
    64
}

/// The first layers of a [`ResNet`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stem {
    /// 7×7 convolution with stride 2, then 3×3 maximum with stride 2.
    #[default]
    Standard,
    /// 3×3 convolution with stride 1 and no pooling, for images of about 32 pixels.
    SmallImage,
}

/// The two kinds of residual block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockKind {
    /// Two 3×3 convolutions.
    Basic,
    /// 1×1 down, 3×3, 1×1 up to four times the planes.
    Bottleneck,
}

impl BlockKind {
    pub(crate) fn expansion(self) -> usize {
        match self {
            BlockKind::Basic => 1,
            BlockKind::Bottleneck => 4,
        }
    }
}

impl ResNetConfig {
    /// What is wrong with this configuration, if anything.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let positive = [
            ("image_size", self.image_size),
            ("planes", self.planes),
            ("classes", self.classes),
            ("width", self.inner(self.planes)),
        ];
        if let Some((field, _)) = positive.into_iter().find(|(_, value)| *value == 0) {
            return Err(ConfigError::Zero { field });
        }
        if !(1..=4).contains(&self.blocks.len()) || self.blocks.contains(&0) {
            return Err(ConfigError::Blocks { found: self.blocks.clone() });
        }
        Ok(())
    }

    /// Channels inside a block whose stage has `planes`.
    pub(crate) fn inner(&self, planes: usize) -> usize {
        match self.block {
            BlockKind::Basic => planes,
            BlockKind::Bottleneck => planes * self.width / 64,
        }
    }

    pub(crate) fn features(&self) -> usize {
        (self.planes << (self.blocks.len() - 1)) * self.block.expansion()
    }
}

/// A residual network with a linear classifier.
#[derive(Module, Debug)]
pub struct ResNet {
    conv1: Conv,
    bn1: BatchNorm,
    layer1: Vec<Block>,
    layer2: Vec<Block>,
    layer3: Vec<Block>,
    /// Stages that a configuration does not have are empty.
    layer4: Vec<Block>,
    fc: Linear,
    #[module(skip)]
    stem: Stem,
    #[module(skip)]
    precision: Precision,
}

impl ResNet {
    /// A network of this shape; parameters start as torchvision's.
    pub fn new(config: &ResNetConfig, init: &Initialiser) -> Result<Self, ConfigError> {
        config.validate()?;
        let (kernel, stride) = match config.stem {
            Stem::Standard => (7, 2),
            Stem::SmallImage => (3, 1),
        };
        let stage = |index: usize| -> Vec<Block> {
            let init = init.part(format_args!("layer{}", index + 1));
            let count = config.blocks.get(index).copied().unwrap_or(0);
            (0..count).map(|block| Block::new(config, index, block, &init.part(block))).collect()
        };
        let default = Start::torch_default(config.features());
        Ok(ResNet {
            conv1: Conv::new(&init.part("conv1"), 3, config.planes, kernel, stride),
            bn1: BatchNorm::new(&init.part("bn1"), config.planes),
            layer1: stage(0),
            layer2: stage(1),
            layer3: stage(2),
            layer4: stage(3),
            fc: Linear::new(&init.part("fc"), config.features(), config.classes, default, default),
            stem: config.stem,
            precision: Precision::F32,
        })
    }

    /// Images `[B, 3, H, W]` → features `[B, planes of the last stage × expansion]` and logits `[B, classes]`.
    pub fn forward(&self, images: Tensor<4>, mode: Mode<'_>) -> Output {
        let stem = self.bn1.forward(self.conv1.forward(images, self.precision), mode, None, true);
        let mut x = match self.stem {
            Stem::Standard => {
                max_pool2d(stem, MaxPoolOptions::new([3, 3]).with_stride([2, 2]).with_padding([1, 1]))
            }
            Stem::SmallImage => stem,
        };
        let count = self.stages().into_iter().flatten().count();
        for (i, block) in self.stages().into_iter().flatten().enumerate() {
            x = block.forward(mode.tap(x, count - i), mode, self.precision);
        }
        let [batch, channels, height, width] = x.dims();
        let features = x.reshape([batch, channels, height * width]).mean_dim(2).reshape([batch, channels]);
        let features = mode.tap(features, 0);
        let logits = self.fc.forward(features.clone(), Precision::F32);
        Output { features, logits }
    }

    fn stages(&self) -> [&Vec<Block>; 4] {
        [&self.layer1, &self.layer2, &self.layer3, &self.layer4]
    }

    pub(crate) fn set_precision(&mut self, precision: Precision) {
        self.precision = precision;
    }

    /// Every batch normalisation with its name, in the order of a forward pass.
    pub(crate) fn batch_norms(&self) -> Vec<(String, &BatchNorm)> {
        let mut norms = vec![("bn1".to_owned(), &self.bn1)];
        for (stage, blocks) in self.stages().into_iter().enumerate() {
            for (i, block) in blocks.iter().enumerate() {
                let name = |norm: &str| format!("layer{}.{i}.{norm}", stage + 1);
                norms.push((name("bn1"), &block.bn1));
                norms.push((name("bn2"), &block.bn2));
                norms.extend(block.bn3.iter().map(|norm| (name("bn3"), norm)));
                norms.extend(block.downsample.iter().map(|(_, norm)| (name("downsample.1"), norm)));
            }
        }
        norms
    }

    /// Gives this copy running statistics of its own.
    pub(crate) fn separate(&mut self) {
        self.bn1.separate();
        let stages = [&mut self.layer1, &mut self.layer2, &mut self.layer3, &mut self.layer4];
        for block in stages.into_iter().flatten() {
            block.bn1.separate();
            block.bn2.separate();
            block.bn3.iter_mut().for_each(BatchNorm::separate);
            block.downsample.iter_mut().for_each(|(_, norm)| norm.separate());
        }
    }
}

/// `relu(shortcut(x) + branch(x))`, a bottleneck where there is a third convolution.
#[derive(Module, Debug)]
struct Block {
    conv1: Conv,
    bn1: BatchNorm,
    conv2: Conv,
    bn2: BatchNorm,
    conv3: Option<Conv>,
    bn3: Option<BatchNorm>,
    downsample: Option<(Conv, BatchNorm)>,
}

impl Block {
    fn new(config: &ResNetConfig, stage: usize, index: usize, init: &Initialiser) -> Self {
        let planes = config.planes << stage;
        let inner = config.inner(planes);
        let d_out = planes * config.block.expansion();
        let (d_in, stride) = match (stage, index) {
            (0, 0) => (config.planes, 1),
            (_, 0) => (d_out / 2, 2),
            _ => (d_out, 1),
        };
        let bottleneck = config.block == BlockKind::Bottleneck;
        let conv = |name: &str, d_in, d_out, kernel, stride| {
            Conv::new(&init.part(name), d_in, d_out, kernel, stride)
        };
        let norm = |name: &str, channels| BatchNorm::new(&init.part(name), channels);
        Block {
            conv1: if bottleneck {
                conv("conv1", d_in, inner, 1, 1)
            } else {
                conv("conv1", d_in, inner, 3, stride)
            },
            bn1: norm("bn1", inner),
            conv2: conv("conv2", inner, inner, 3, if bottleneck { stride } else { 1 }),
            bn2: norm("bn2", inner),
            conv3: bottleneck.then(|| conv("conv3", inner, d_out, 1, 1)),
            bn3: bottleneck.then(|| norm("bn3", d_out)),
            downsample: (stride != 1 || d_in != d_out)
                .then(|| (conv("downsample.0", d_in, d_out, 1, stride), norm("downsample.1", d_out))),
        }
    }

    fn forward(&self, x: Tensor<4>, mode: Mode<'_>, precision: Precision) -> Tensor<4> {
        let y = self.conv1.forward(x.clone(), precision);
        let y = self.bn1.forward(y, mode, None, true);
        let y = self.conv2.forward(y, precision);
        let shortcut = match &self.downsample {
            Some((conv, norm)) => norm.forward(conv.forward(x, precision), mode, None, false),
            None => x,
        };
        match (&self.conv3, &self.bn3) {
            (Some(conv3), Some(bn3)) => {
                let y = self.bn2.forward(y, mode, None, true);
                bn3.forward(conv3.forward(y, precision), mode, Some(shortcut), true)
            }
            _ => self.bn2.forward(y, mode, Some(shortcut), true),
        }
    }
}
