//! Networks of inverted residuals for small devices: MobileNetV2 (Sandler et al., arXiv:1801.04381) and the Lite variant
//! of EfficientNet (Tan & Le, arXiv:1905.11946), which has neither squeeze-and-excitation nor swish.
//!
//! Names, padding (symmetric) and constants are those of timm's `mobilenetv2_100` and `efficientnet_lite0`; its
//! `tf_efficientnet_lite0` pads otherwise. ReLU6 is the only nonlinearity. `B` images, `C` channels.

use burn::Tensor;
use burn::module::Module;
use serde::{Deserialize, Serialize};

use crate::Output;
use crate::batch_norm::BatchNorm;
use crate::config::ConfigError;
use crate::initial::{Initialiser, Start};
use crate::layers::{Conv, DepthwiseConv, Linear, at_most_six};
use crate::mode::{Mode, Precision};

/// Shape of an [`EfficientNet`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EfficientNetConfig {
    /// Side of the images it is meant for, in pixels. The network itself takes any size.
    pub image_size: usize,
    /// Channels of the first convolution, 3×3 with stride 2.
    #[serde(default = "stem")]
    pub stem: usize,
    /// What follows.
    pub stages: Vec<StageConfig>,
    /// Channels of the last convolution, 1×1: the features.
    #[serde(default = "features")]
    pub features: usize,
    /// Stochastic depth: block `i` of `n` drops at `drop_path · i / n`; in `[0, 1)`. EfficientNet: 0.2.
    #[serde(default)]
    pub drop_path: f64,
    /// Number of classes.
    pub classes: usize,
}

fn stem() -> usize {
    32
}

fn features() -> usize {
    1280
}

/// Blocks of one shape in an [`EfficientNet`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageConfig {
    /// How many.
    pub blocks: usize,
    /// Side of the depthwise kernels; odd.
    pub kernel: usize,
    /// Stride of the first block; the others have 1.
    pub stride: usize,
    /// Channels inside a block for each that enters it, in all rounded to a multiple of 8. 1: no expanding convolution (a
    /// depthwise separable block).
    pub expansion: usize,
    /// Channels that leave a block.
    pub channels: usize,
}

impl StageConfig {
    /// Channels inside a block that `d_in` enter: as timm rounds them, to the nearest multiple of 8, or to the next where
    /// that takes more than a tenth away.
    fn inner(&self, d_in: usize) -> usize {
        let exact = d_in * self.expansion;
        match ((exact + 4) / 8 * 8).max(8) {
            _ if self.expansion == 1 => exact,
            near if near * 10 < exact * 9 => near + 8,
            near => near,
        }
    }
}

impl EfficientNetConfig {
    /// timm's `efficientnet_lite0` for 1000 or any other number of classes.
    pub fn efficientnet_lite0(classes: usize) -> Self {
        Self::published(
            [(1, 3, 1, 16), (2, 3, 2, 24), (2, 5, 2, 40), (3, 3, 2, 80), (3, 5, 1, 112), (4, 5, 2, 192)],
            classes,
        )
    }

    /// timm's `mobilenetv2_100`.
    pub fn mobilenetv2_100(classes: usize) -> Self {
        Self::published(
            [(1, 3, 1, 16), (2, 3, 2, 24), (3, 3, 2, 32), (4, 3, 2, 64), (3, 3, 1, 96), (3, 3, 2, 160)],
            classes,
        )
    }

    /// (blocks, kernel, stride, channels) of all stages but the last, which both networks share.
    fn published(stages: [(usize, usize, usize, usize); 6], classes: usize) -> Self {
        let stage = |(index, (blocks, kernel, stride, channels))| StageConfig {
            blocks,
            kernel,
            stride,
            expansion: if index == 0 { 1 } else { 6 },
            channels,
        };
        let stages = stages.into_iter().chain([(1, 3, 1, 320)]).enumerate().map(stage).collect();
        Self { image_size: 224, stem: stem(), stages, features: features(), drop_path: 0.0, classes }
    }

    /// What is wrong with this configuration, if anything.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let sizes = [
            ("image_size", self.image_size),
            ("stem", self.stem),
            ("features", self.features),
            ("classes", self.classes),
        ];
        let stages = self.stages.iter().flat_map(|stage| {
            [
                ("stages.blocks", stage.blocks),
                ("stages.kernel", stage.kernel),
                ("stages.stride", stage.stride),
                ("stages.expansion", stage.expansion),
                ("stages.channels", stage.channels),
            ]
        });
        if let Some((field, _)) = sizes.into_iter().chain(stages).find(|(_, value)| *value == 0) {
            return Err(ConfigError::Zero { field });
        }
        if self.stages.is_empty() {
            return Err(ConfigError::NoStages);
        }
        if let Some(even) = self.stages.iter().map(|stage| stage.kernel).find(|side| side.is_multiple_of(2)) {
            return Err(ConfigError::Range { field: "stages.kernel", value: even as f64, range: "odd" });
        }
        if !(0.0..1.0).contains(&self.drop_path) {
            return Err(ConfigError::Range { field: "drop_path", value: self.drop_path, range: "[0, 1)" });
        }
        Ok(())
    }

    /// Number of blocks.
    pub fn blocks(&self) -> usize {
        self.stages.iter().map(|stage| stage.blocks).sum()
    }
}

/// A network of inverted residuals with a linear classifier.
#[derive(Module, Debug)]
pub struct EfficientNet {
    conv_stem: Conv,
    bn1: BatchNorm,
    blocks: Vec<Vec<Block>>,
    conv_head: Conv,
    bn2: BatchNorm,
    classifier: Linear,
    /// Drop rate of each block's branch; 0 where there is no shortcut.
    #[module(skip)]
    rates: Vec<f32>,
    #[module(skip)]
    precision: Precision,
}

impl EfficientNet {
    /// A network of this shape; parameters start as timm's.
    pub fn new(config: &EfficientNetConfig, init: &Initialiser) -> Result<Self, ConfigError> {
        config.validate()?;
        let mut channels = config.stem;
        let mut rates = Vec::with_capacity(config.blocks());
        let mut blocks = Vec::with_capacity(config.stages.len());
        for (i, stage) in config.stages.iter().enumerate() {
            let init = init.part("blocks").part(i);
            let mut of_stage = Vec::with_capacity(stage.blocks);
            for j in 0..stage.blocks {
                let stride = if j == 0 { stage.stride } else { 1 };
                let block = Block::new(stage, channels, stride, &init.part(j));
                let rate = config.drop_path * rates.len() as f64 / config.blocks() as f64;
                rates.push(if block.skips() { rate as f32 } else { 0.0 });
                of_stage.push(block);
                channels = stage.channels;
            }
            blocks.push(of_stage);
        }
        let classifier = Start::Uniform(1.0 / (config.classes as f64).sqrt());
        Ok(EfficientNet {
            conv_stem: Conv::new(&init.part("conv_stem"), 3, config.stem, 3, 2),
            bn1: BatchNorm::new(&init.part("bn1"), config.stem),
            blocks,
            conv_head: Conv::new(&init.part("conv_head"), channels, config.features, 1, 1),
            bn2: BatchNorm::new(&init.part("bn2"), config.features),
            classifier: Linear::new(
                &init.part("classifier"),
                config.features,
                config.classes,
                classifier,
                Start::Constant(0.0),
            ),
            rates,
            precision: Precision::F32,
        })
    }

    /// Images `[B, 3, H, W]` → features `[B, features]` and logits `[B, classes]`.
    pub fn forward(&self, images: Tensor<4>, mode: Mode<'_>) -> Output {
        let path = mode.drop_path(&self.rates, &images);
        let x = self.conv_stem.forward(images, self.precision);
        let mut x = at_most_six(self.bn1.forward(x, mode, None, true));
        let count = self.blocks.iter().flatten().count();
        for (i, block) in self.blocks.iter().flatten().enumerate() {
            x = block.forward(mode.tap(x, count - i), mode, path.keep(i), self.precision);
        }
        let x = self.conv_head.forward(x, self.precision);
        let x = at_most_six(self.bn2.forward(x, mode, None, true));
        let [batch, channels, height, width] = x.dims();
        let features = x.reshape([batch, channels, height * width]).mean_dim(2).reshape([batch, channels]);
        let features = mode.tap(features, 0);
        let logits = self.classifier.forward(features.clone(), Precision::F32);
        Output { features, logits }
    }

    pub(crate) fn set_precision(&mut self, precision: Precision) {
        self.precision = precision;
    }

    /// Every batch normalisation with its name, in the order of a forward pass.
    pub(crate) fn batch_norms(&self) -> Vec<(String, &BatchNorm)> {
        let mut norms = vec![("bn1".to_owned(), &self.bn1)];
        for (i, stage) in self.blocks.iter().enumerate() {
            for (j, block) in stage.iter().enumerate() {
                let named = |(k, norm)| (format!("blocks.{i}.{j}.bn{}", k + 1), norm);
                norms.extend(block.norms().into_iter().enumerate().map(named));
            }
        }
        norms.push(("bn2".to_owned(), &self.bn2));
        norms
    }

    /// Gives this copy running statistics of its own.
    pub(crate) fn separate(&mut self) {
        self.bn1.separate();
        for block in self.blocks.iter_mut().flatten() {
            block.norms_mut().into_iter().for_each(BatchNorm::separate);
        }
        self.bn2.separate();
    }
}

/// With the shortcut where size and channels stay: `x + branch(x)`. Nothing follows the sum: the bottleneck is linear.
#[derive(Module, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "a network has a score of blocks, one or two of the smaller kind"
)]
enum Block {
    Separable(Separable),
    Inverted(Inverted),
}

/// Depthwise, then down to the channels that leave.
#[derive(Module, Debug)]
struct Separable {
    conv_dw: DepthwiseConv,
    bn1: BatchNorm,
    conv_pw: Conv,
    bn2: BatchNorm,
    skip: bool,
}

/// Up to `expansion` times the channels, depthwise, then down to those that leave.
#[derive(Module, Debug)]
struct Inverted {
    conv_pw: Conv,
    bn1: BatchNorm,
    conv_dw: DepthwiseConv,
    bn2: BatchNorm,
    conv_pwl: Conv,
    bn3: BatchNorm,
    skip: bool,
}

impl Block {
    /// A block that takes `d_in` channels.
    fn new(stage: &StageConfig, d_in: usize, stride: usize, init: &Initialiser) -> Self {
        let (inner, d_out) = (stage.inner(d_in), stage.channels);
        let skip = stride == 1 && d_in == d_out;
        let point = |name: &str, d_in, d_out| Conv::new(&init.part(name), d_in, d_out, 1, 1);
        let norm = |name: &str, channels| BatchNorm::new(&init.part(name), channels);
        // One kernel is all that each output is made of: the fan-out counts one channel.
        let start = Start::kaiming_fan_out([1, 1, stage.kernel, stage.kernel]);
        let conv_dw = DepthwiseConv::new(&init.part("conv_dw"), inner, stage.kernel, stride, start, None);
        if stage.expansion == 1 {
            return Block::Separable(Separable {
                conv_dw,
                bn1: norm("bn1", inner),
                conv_pw: point("conv_pw", inner, d_out),
                bn2: norm("bn2", d_out),
                skip,
            });
        }
        Block::Inverted(Inverted {
            conv_pw: point("conv_pw", d_in, inner),
            bn1: norm("bn1", inner),
            conv_dw,
            bn2: norm("bn2", inner),
            conv_pwl: point("conv_pwl", inner, d_out),
            bn3: norm("bn3", d_out),
            skip,
        })
    }

    /// `keep`: the branch's factors from stochastic depth, `[B]`.
    fn forward(
        &self,
        x: Tensor<4>,
        mode: Mode<'_>,
        keep: Option<Tensor<1>>,
        precision: Precision,
    ) -> Tensor<4> {
        let (y, last, shortcut) = match self {
            Block::Separable(block) => {
                let shortcut = block.skip.then(|| x.clone());
                let y = block.conv_dw.forward(x, precision);
                let y = at_most_six(block.bn1.forward(y, mode, None, true));
                (block.conv_pw.forward(y, precision), &block.bn2, shortcut)
            }
            Block::Inverted(block) => {
                let shortcut = block.skip.then(|| x.clone());
                let y = block.conv_pw.forward(x, precision);
                let y = at_most_six(block.bn1.forward(y, mode, None, true));
                let y = block.conv_dw.forward(y, precision);
                let y = at_most_six(block.bn2.forward(y, mode, None, true));
                (block.conv_pwl.forward(y, precision), &block.bn3, shortcut)
            }
        };
        match (shortcut, keep) {
            (Some(shortcut), Some(keep)) => {
                harvest_kernels::residual(shortcut, last.forward(y, mode, None, false), Some(keep))
            }
            (shortcut, _) => last.forward(y, mode, shortcut, false),
        }
    }

    fn skips(&self) -> bool {
        match self {
            Block::Separable(block) => block.skip,
            Block::Inverted(block) => block.skip,
        }
    }

    fn norms(&self) -> Vec<&BatchNorm> {
        match self {
            Block::Separable(block) => vec![&block.bn1, &block.bn2],
            Block::Inverted(block) => vec![&block.bn1, &block.bn2, &block.bn3],
        }
    }

    fn norms_mut(&mut self) -> Vec<&mut BatchNorm> {
        match self {
            Block::Separable(block) => vec![&mut block.bn1, &mut block.bn2],
            Block::Inverted(block) => vec![&mut block.bn1, &mut block.bn2, &mut block.bn3],
        }
    }
}
