//! How much a network computes.

use crate::config::ClassifierConfig;
use crate::resnet::{BlockKind, ResNetConfig, Stem};
use crate::vit::VitConfig;

impl ClassifierConfig {
    /// Additions and multiplications of one image's forward pass in matrix products and convolutions, where all of it is
    /// computed; a backward pass takes about twice that. Transformers and residual networks only.
    pub fn forward_flops(&self) -> Option<f64> {
        match self {
            ClassifierConfig::Vit(config) => Some(config.forward_flops()),
            ClassifierConfig::ResNet(config) => Some(config.forward_flops()),
            ClassifierConfig::EfficientNet(_) | ClassifierConfig::ConvNext(_) => None,
        }
    }
}

impl VitConfig {
    /// See [`ClassifierConfig::forward_flops`].
    pub fn forward_flops(&self) -> f64 {
        self.embedding_flops() + self.depth as f64 * self.block_flops() + self.head_flops()
    }

    /// Of the patches' projection.
    pub fn embedding_flops(&self) -> f64 {
        2.0 * self.patches() as f64 * 3.0 * (self.patch as f64).powi(2) * self.dim as f64
    }

    /// Of one block: queries, keys, values, both products of the attention, the projection, both layers of the perceptron.
    pub fn block_flops(&self) -> f64 {
        let (dim, hidden) = (self.dim as f64, self.dim as f64 * self.mlp_ratio);
        let tokens = (self.patches() + 1 + self.registers) as f64;
        2.0 * tokens * (4.0 * dim * dim + 2.0 * dim * hidden) + 4.0 * tokens * tokens * dim
    }

    /// Of the classifier.
    pub fn head_flops(&self) -> f64 {
        2.0 * (self.dim * self.classes) as f64
    }
}

impl ResNetConfig {
    /// See [`ClassifierConfig::forward_flops`].
    pub fn forward_flops(&self) -> f64 {
        let conv = |side: usize, kernel: usize, d_in: usize, d_out: usize| {
            2.0 * (side * side * kernel * kernel * d_in * d_out) as f64
        };
        let (mut side, mut flops) = match self.stem {
            Stem::Standard => {
                let half = self.image_size.div_ceil(2);
                (half.div_ceil(2), conv(half, 7, 3, self.planes))
            }
            Stem::SmallImage => (self.image_size, conv(self.image_size, 3, 3, self.planes)),
        };
        let mut d_in = self.planes;
        for (stage, &blocks) in self.blocks.iter().enumerate() {
            let planes = self.planes << stage;
            let (inner, d_out) = (self.inner(planes), planes * self.block.expansion());
            for block in 0..blocks {
                let stride = if stage > 0 && block == 0 { 2 } else { 1 };
                let (before, after) = (side, side.div_ceil(stride));
                flops += match self.block {
                    BlockKind::Basic => conv(after, 3, d_in, inner) + conv(after, 3, inner, inner),
                    BlockKind::Bottleneck => {
                        conv(before, 1, d_in, inner)
                            + conv(after, 3, inner, inner)
                            + conv(after, 1, inner, d_out)
                    }
                };
                if stride != 1 || d_in != d_out {
                    flops += conv(after, 1, d_in, d_out);
                }
                (side, d_in) = (after, d_out);
            }
        }
        flops + 2.0 * (self.features() * self.classes) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_those_of_the_papers() {
        // Multiply-adds of an image as timm (ViT, by fvcore) and torchvision (ResNet) publish them.
        let published = [
            ("vit_small_patch16_224", 4.6e9),
            ("vit_base_patch16_224", 17.6e9),
            ("resnet18", 1.814e9),
            ("resnet50", 4.089e9),
        ];
        for (preset, macs) in published {
            let config = ClassifierConfig::preset(preset, 1000).expect("a preset");
            let counted = config.forward_flops().expect("counted") / 2.0;
            assert!((counted / macs - 1.0).abs() < 0.02, "{preset}: {counted:e}");
        }
    }
}
