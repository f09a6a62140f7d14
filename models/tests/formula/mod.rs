//! Full-size networks whose weights follow from their names, as described in `tests/reference/README.md`.

use burn::tensor::TensorData;
use harvest_models::ClassifierConfig;
use harvest_models::resnet::{BlockKind, ResNetConfig, Stem};
use harvest_models::vit::VitConfig;
use serde::Deserialize;

#[derive(Deserialize)]
pub struct Entry {
    pub kind: String,
    pub weight_seed: u64,
    pub num_classes: usize,
    pub input_shape: [usize; 4],
    pub first_tensor: String,
}

impl Entry {
    /// The network that the name describes: `usb_vit_<size>_patch<p>_<image>[_depth<n>]`, `torchvision_resnet50`,
    /// `torchvision_resnet_<blocks>_width<w>`.
    pub fn config(&self, name: &str) -> ClassifierConfig {
        let image_size = self.input_shape[3];
        let classes = self.num_classes;
        let words: Vec<&str> = name.split('_').collect();
        let number = |key: &str| words.iter().find_map(|w| w.strip_prefix(key)?.parse::<usize>().ok());
        if self.kind != "resnet" {
            let dim = match words[2] {
                "tiny" => 192,
                "small" => 384,
                "base" => 768,
                other => panic!("{name}: how many values has a token of size `{other}`?"),
            };
            return ClassifierConfig::Vit(VitConfig {
                image_size,
                patch: number("patch").expect("a patch size"),
                dim,
                depth: number("depth").unwrap_or(12),
                heads: dim / 64,
                mlp_ratio: 4.0,
                drop_path: 0.0,
                pooling: super::stored::pooling(&self.kind),
                registers: 0,
                layer_scale: None,
                class_position: true,
                classes,
            });
        }
        let (block, blocks) = match number("resnet") {
            Some(18) => (BlockKind::Basic, vec![2, 2, 2, 2]),
            Some(34) => (BlockKind::Basic, vec![3, 4, 6, 3]),
            Some(50) => (BlockKind::Bottleneck, vec![3, 4, 6, 3]),
            Some(101) => (BlockKind::Bottleneck, vec![3, 4, 23, 3]),
            _ => {
                let digits = words[2].bytes().map(|b| usize::from(b - b'0')).collect();
                (BlockKind::Bottleneck, digits)
            }
        };
        let width = number("width").unwrap_or(64);
        let stem = Stem::Standard;
        ClassifierConfig::ResNet(ResNetConfig { image_size, stem, block, blocks, planes: 64, width, classes })
    }

    /// The input images.
    pub fn input(&self) -> TensorData {
        tensor("input", &self.input_shape, self.weight_seed)
    }
}

pub fn tensor(name: &str, shape: &[usize], seed: u64) -> TensorData {
    let count: usize = shape.iter().product();
    if name.ends_with("num_batches_tracked") {
        return TensorData::new(vec![0i64; count], shape.to_vec());
    }
    let fan = shape.iter().skip(1).product::<usize>().max(1);
    let (offset, scale): (f32, f32) = match name {
        "input" => (0.0, 1.0),
        "pos_embed" | "cls_token" => (0.0, 0.5),
        _ if name.ends_with("running_mean") => (0.0, 0.1),
        _ if name.ends_with("running_var") => (1.0, 0.25),
        _ if shape.len() > 1 => (0.0, (3.0 / fan as f64).sqrt() as f32),
        _ if name.ends_with("weight") => (1.0, 0.25),
        _ => (0.0, 0.1),
    };
    let key =
        name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    let key = key.wrapping_add(seed.wrapping_mul(0xD134_2543_DE82_EF95));
    let value = |i: u64| {
        let mut z = key.wrapping_add((i + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        let s = (z >> 40) as f32 * (1.0 / (1 << 24) as f32) * 2.0 - 1.0;
        offset + scale * s
    };
    TensorData::new((0..count as u64).map(value).collect::<Vec<f32>>(), shape.to_vec())
}
