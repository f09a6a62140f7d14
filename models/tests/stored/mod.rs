//! Small networks of `tests/reference/models`, whose weights are stored; their shapes follow from these.

use burn::tensor::Device;
use harvest_models::resnet::{BlockKind, ResNetConfig, Stem};
use harvest_models::vit::{Pooling, VitConfig};
use harvest_models::{Classifier, ClassifierConfig, NamedTensors};
use serde::Deserialize;

use super::read;

#[derive(Deserialize)]
pub struct StoredEntry {
    description: String,
    kind: String,
    weights: String,
    io: String,
    input_size: usize,
}

pub struct Stored {
    config: ClassifierConfig,
    weights: NamedTensors,
    /// Its input and what it must answer.
    pub io: NamedTensors,
}

impl Stored {
    pub fn read(name: &str, entry: &StoredEntry) -> Self {
        let weights = read(&format!("models/{}", entry.weights));
        let shape = |name: &str| weights[name].shape().to_vec();
        let stage = |prefix: &str| {
            let blocks =
                weights.keys().filter_map(|k| k.strip_prefix(prefix)?.split('.').next()?.parse().ok());
            blocks.map(|block: usize| block + 1).max().unwrap_or(0)
        };
        let config = match entry.kind.as_str() {
            "resnet" => {
                let (stem, inner) = (shape("conv1.weight"), shape("layer1.0.conv1.weight")[0]);
                ClassifierConfig::ResNet(ResNetConfig {
                    image_size: entry.input_size,
                    stem: if stem[2] == 7 { Stem::Standard } else { Stem::SmallImage },
                    block: match weights.contains_key("layer1.0.conv3.weight") {
                        true => BlockKind::Bottleneck,
                        false => BlockKind::Basic,
                    },
                    blocks: (1..=4).map(|i| stage(&format!("layer{i}."))).filter(|n| *n > 0).collect(),
                    planes: stem[0],
                    width: 64 * inner / stem[0],
                    classes: shape("fc.weight")[0],
                })
            }
            kind => {
                let dim = shape("cls_token")[2];
                let words: Vec<&str> = entry.description.split([' ', ',', ')', '(']).collect();
                let heads = words.windows(2).find(|w| w[0] == "heads").and_then(|w| w[1].parse().ok());
                ClassifierConfig::Vit(VitConfig {
                    image_size: entry.input_size,
                    patch: shape("patch_embed.proj.weight")[2],
                    dim,
                    depth: stage("blocks."),
                    heads: heads.unwrap_or(dim / 64),
                    mlp_ratio: shape("blocks.0.mlp.fc1.weight")[0] as f64 / dim as f64,
                    drop_path: 0.0,
                    pooling: pooling(kind),
                    registers: 0,
                    layer_scale: None,
                    class_position: true,
                    classes: shape("head.weight")[0],
                })
            }
        };
        println!("{name}: {config:?}");
        Stored { config, io: read(&format!("models/{}", entry.io)), weights }
    }

    pub fn network(&self, device: &Device) -> Classifier {
        let mut net = self.config.blank(device).expect("a valid configuration");
        net.load_tensors(&self.weights).expect("weights of this network");
        net
    }
}

pub fn pooling(kind: &str) -> Pooling {
    match kind {
        "usb_vit" | "timm_vit" => Pooling::ClassToken,
        other => panic!("unknown kind of network `{other}`"),
    }
}
