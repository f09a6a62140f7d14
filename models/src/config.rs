//! Which network: configurations, and the published ones by name.

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use crate::classifier::Classifier;
use crate::convnext::{ConvNext, ConvNextConfig};
use crate::efficientnet::{EfficientNet, EfficientNetConfig};
use crate::initial::Initialiser;
use crate::resnet::{BlockKind, ResNet, ResNetConfig, Stem};
use crate::vit::{Pooling, Vit, VitConfig};

/// A network by family and shape; in a file a table of the family's name, such as `vit`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ClassifierConfig {
    /// Vision transformer.
    #[serde(rename = "vit")]
    Vit(VitConfig),
    /// Residual network.
    #[serde(rename = "resnet")]
    ResNet(ResNetConfig),
    /// Inverted residuals, for small devices.
    #[serde(rename = "efficientnet")]
    EfficientNet(EfficientNetConfig),
    /// ConvNeXt.
    #[serde(rename = "convnext")]
    ConvNext(ConvNextConfig),
}

/// The names that [`ClassifierConfig::preset`] knows.
pub const PRESETS: [&str; 15] = [
    "vit_tiny_patch2_32",
    "vit_small_patch2_32",
    "vit_base_patch16_96",
    "vit_tiny_patch16_224",
    "vit_small_patch16_224",
    "vit_base_patch16_224",
    "resnet8",
    "resnet18",
    "resnet50",
    "resnet50_32",
    "vit_small_patch14_dinov2",
    "vit_small_patch14_reg4_dinov2",
    "mobilenetv2_100",
    "efficientnet_lite0",
    "convnext_tiny",
];

impl ClassifierConfig {
    /// The network published under `name`, for `classes` classes.
    ///
    /// `vit_*_patch2_32` and `vit_base_patch16_96` are USB's (stochastic depth 0.1 for tiny, else 0.2);
    /// `vit_*_patch16_224` are timm's; `resnet18` and `resnet50` torchvision's; `resnet50_32` the latter with the stem
    /// for small images; `resnet8` (16, 32, 64 planes, a basic block each, same stem) trains on a CPU. `vit_small_patch14_dinov2`
    /// and, with four registers, `vit_small_patch14_reg4_dinov2` are timm's with images of 224 pixels, where timm's have
    /// 518: published position tables are resized from 37 × 37 to 16 × 16 rows. `mobilenetv2_100`, `efficientnet_lite0` and
    /// `convnext_tiny` are timm's.
    pub fn preset(name: &str, classes: usize) -> Result<Self, ConfigError> {
        let vit = |image_size, patch, dim: usize, drop_path| {
            ClassifierConfig::Vit(VitConfig {
                image_size,
                patch,
                dim,
                depth: 12,
                heads: dim / 64,
                mlp_ratio: 4.0,
                drop_path,
                pooling: Pooling::ClassToken,
                registers: 0,
                layer_scale: None,
                class_position: true,
                classes,
            })
        };
        let timm = |dim| vit(224, 16, dim, 0.0);
        let dinov2 = |registers| {
            ClassifierConfig::Vit(VitConfig {
                image_size: 224,
                patch: 14,
                dim: 384,
                depth: 12,
                heads: 6,
                mlp_ratio: 4.0,
                drop_path: 0.0,
                pooling: Pooling::ClassToken,
                registers,
                layer_scale: Some(1e-5),
                class_position: registers == 0,
                classes,
            })
        };
        let resnet = |image_size, stem, block, blocks: &[usize], planes| {
            let blocks = blocks.to_vec();
            ClassifierConfig::ResNet(ResNetConfig {
                image_size,
                stem,
                block,
                blocks,
                planes,
                width: 64,
                classes,
            })
        };
        let config = match name {
            "vit_tiny_patch2_32" => vit(32, 2, 192, 0.1),
            "vit_small_patch2_32" => vit(32, 2, 384, 0.2),
            "vit_base_patch16_96" => vit(96, 16, 768, 0.2),
            "vit_tiny_patch16_224" => timm(192),
            "vit_small_patch16_224" => timm(384),
            "vit_base_patch16_224" => timm(768),
            "resnet8" => resnet(32, Stem::SmallImage, BlockKind::Basic, &[1, 1, 1], 16),
            "resnet18" => resnet(224, Stem::Standard, BlockKind::Basic, &[2, 2, 2, 2], 64),
            "resnet50" => resnet(224, Stem::Standard, BlockKind::Bottleneck, &[3, 4, 6, 3], 64),
            "resnet50_32" => resnet(32, Stem::SmallImage, BlockKind::Bottleneck, &[3, 4, 6, 3], 64),
            "vit_small_patch14_dinov2" => dinov2(0),
            "vit_small_patch14_reg4_dinov2" => dinov2(4),
            "mobilenetv2_100" => ClassifierConfig::EfficientNet(EfficientNetConfig::mobilenetv2_100(classes)),
            "efficientnet_lite0" => {
                ClassifierConfig::EfficientNet(EfficientNetConfig::efficientnet_lite0(classes))
            }
            "convnext_tiny" => ClassifierConfig::ConvNext(ConvNextConfig::convnext_tiny(classes)),
            _ => return Err(ConfigError::UnknownPreset { name: name.to_owned() }),
        };
        config.validate()?;
        Ok(config)
    }

    /// What is wrong with this configuration, if anything.
    pub fn validate(&self) -> Result<(), ConfigError> {
        match self {
            ClassifierConfig::Vit(config) => config.validate(),
            ClassifierConfig::ResNet(config) => config.validate(),
            ClassifierConfig::EfficientNet(config) => config.validate(),
            ClassifierConfig::ConvNext(config) => config.validate(),
        }
    }

    /// A network that starts from `seed`; on an autodiff device its parameters are tracked.
    pub fn init(&self, seed: u64, device: &Device) -> Result<Classifier, ConfigError> {
        self.build(&Initialiser::seeded(seed, device))
    }

    /// A network whose weights are loaded next: random ones are not drawn.
    pub fn blank(&self, device: &Device) -> Result<Classifier, ConfigError> {
        self.build(&Initialiser::blank(device))
    }

    fn build(&self, init: &Initialiser) -> Result<Classifier, ConfigError> {
        match self {
            ClassifierConfig::Vit(config) => Vit::new(config, init).map(Classifier::Vit),
            ClassifierConfig::ResNet(config) => ResNet::new(config, init).map(Classifier::ResNet),
            ClassifierConfig::EfficientNet(config) => {
                EfficientNet::new(config, init).map(Classifier::EfficientNet)
            }
            ClassifierConfig::ConvNext(config) => ConvNext::new(config, init).map(Classifier::ConvNext),
        }
    }

    /// Side of the square images it expects, in pixels.
    pub fn image_size(&self) -> usize {
        match self {
            ClassifierConfig::Vit(config) => config.image_size,
            ClassifierConfig::ResNet(config) => config.image_size,
            ClassifierConfig::EfficientNet(config) => config.image_size,
            ClassifierConfig::ConvNext(config) => config.image_size,
        }
    }

    /// For images of another size; `None` leaves it. [`Self::validate`] tells whether there is such a network.
    pub fn with_image_size(mut self, size: Option<usize>) -> Self {
        let own = match &mut self {
            ClassifierConfig::Vit(config) => &mut config.image_size,
            ClassifierConfig::ResNet(config) => &mut config.image_size,
            ClassifierConfig::EfficientNet(config) => &mut config.image_size,
            ClassifierConfig::ConvNext(config) => &mut config.image_size,
        };
        *own = size.unwrap_or(*own);
        self
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        match self {
            ClassifierConfig::Vit(config) => config.classes,
            ClassifierConfig::ResNet(config) => config.classes,
            ClassifierConfig::EfficientNet(config) => config.classes,
            ClassifierConfig::ConvNext(config) => config.classes,
        }
    }

    /// Whether in training an image's output is independent of the others in its batch: not with batch normalisation.
    pub fn rows_are_independent(&self) -> bool {
        match self {
            ClassifierConfig::Vit(_) | ClassifierConfig::ConvNext(_) => true,
            ClassifierConfig::ResNet(_) | ClassifierConfig::EfficientNet(_) => false,
        }
    }
}

/// Why a configuration describes no network.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// No preset has this name.
    #[error("there is no model `{name}`; the presets are {}", PRESETS.join(", "))]
    UnknownPreset {
        /// As asked for.
        name: String,
    },
    /// A size is 0.
    #[error("`{field}` must be at least 1")]
    Zero {
        /// Key in the configuration.
        field: &'static str,
    },
    /// Two sizes do not fit.
    #[error("`{field}` ({value}) must be a multiple of `{of}` ({divisor})")]
    NotAMultiple {
        /// Key in the configuration.
        field: &'static str,
        /// Its value.
        value: usize,
        /// Key of the divisor.
        of: &'static str,
        /// Its value.
        divisor: usize,
    },
    /// A number outside its range.
    #[error("`{field}` is {value}; it must be {range}")]
    Range {
        /// Key in the configuration.
        field: &'static str,
        /// Its value.
        value: f64,
        /// The range, in words.
        range: &'static str,
    },
    /// A network without stages.
    #[error("`stages` is empty; it must list at least one stage")]
    NoStages,
    /// Tuning of a network that has no such blocks.
    #[error("tuning by {tuning} adds to the blocks of a vision transformer; this network has none")]
    NoBlocksToTune {
        /// The kind of tuning.
        tuning: &'static str,
    },
    /// A residual network without stages, with too many, or with an empty one.
    #[error("`blocks` is {found:?}; it must list one to four stages of at least one block each")]
    Blocks {
        /// As configured.
        found: Vec<usize>,
    },
}
