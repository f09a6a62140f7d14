//! Bundles of full-sized networks, as other programs get them, and networks that other programs saved.
//! `scripts/interchange` has Python save the latter, and load and compare what is written here.

mod foreign;

use std::collections::BTreeMap;
use std::path::PathBuf;

use burn::tensor::{Device, Distribution, Tensor, TensorData};
use harvest::augment::Normalisation;
use harvest::data::ClassKind;
use harvest::inference::onnx::Storage;
use harvest::inference::{Bundle, Predictor, Preprocessing};
use harvest::random::{Purpose, stream};
use harvest_models::{Classifier, ClassifierConfig, Mode, ParameterInfo};
use rand::RngExt;
use safetensors::Dtype;
use safetensors::tensor::TensorView;

/// One of each family and kind of block.
const NETWORKS: [&str; 7] = [
    "vit_tiny_patch2_32",
    "vit_tiny_patch16_224",
    "vit_small_patch14_reg4_dinov2",
    "resnet18",
    "resnet50_32",
    "efficientnet_lite0",
    "convnext_tiny",
];
const CLASSES: usize = 7;
/// Few by default, since the other programs are not asked; `scripts/interchange` wants more.
const IMAGES: usize = 2;

#[test]
fn bundles_of_published_networks_pass_their_self_test() {
    let asked = std::env::var_os("HARVEST_INTERCHANGE").map(PathBuf::from);
    let count = if asked.is_some() { 64 } else { IMAGES };
    let temporary = tempfile::tempdir().expect("a temporary folder");
    let folder = asked.unwrap_or_else(|| temporary.path().to_owned());
    if folder.join("saved").is_dir() {
        foreign::answer(&folder.join("saved"));
    }
    for name in NETWORKS {
        let config = ClassifierConfig::preset(name, CLASSES).expect("a preset");
        let size = config.image_size();
        let images = images(count, size);
        let mut network = network(&config);
        if count > IMAGES {
            // Two images would be told apart by their rounding.
            name_every_class(&mut network, &images, size);
        }
        let classes = (0..CLASSES).map(|class| format!("class {class}")).collect();
        let preprocessing = Preprocessing {
            size: size as u32,
            resize: "bilinear".into(),
            normalisation: Normalisation::IMAGENET,
        };
        let bundle = Bundle::new(config, classes, ClassKind::Categorical, preprocessing, BTreeMap::new());
        let own = folder.join(name);
        bundle.export(&own.join("bundle"), &network, &images[..size * size * 3], true).expect("it verifies");

        let logits = logits(&network, &images, size);
        let onnx = bundle.onnx(&network, Storage::Int8).expect("a sound network");
        let int8 = bundle.network_of(&onnx, &Device::flex()).expect("the same shape");
        let int8_logits = self::logits(&int8, &images, size);
        let bytes = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
        let (logits, int8_logits) = (bytes(&logits), bytes(&int8_logits));
        let view =
            |kind, shape: &[usize], data| TensorView::new(kind, shape.to_vec(), data).expect("its size");
        let tensors = [
            ("images", view(Dtype::U8, &[count, size, size, 3], &images)),
            ("logits", view(Dtype::F32, &[count, CLASSES], &logits)),
            ("int8_logits", view(Dtype::F32, &[count, CLASSES], &int8_logits)),
        ];
        safetensors::serialize_to_file(tensors, None, &own.join("reference.safetensors")).expect("writable");
    }
}

/// Moves and scales the classifier so that over `images` each logit has mean 0 and deviation 1: as they are, random networks
/// name the same class for nearly all images.
fn name_every_class(network: &mut Classifier, images: &[u8], size: usize) {
    let logits = logits(network, images, size);
    let head =
        |rank| move |p: &&ParameterInfo| p.depth == 0 && p.shape.len() == rank && p.shape[0] == CLASSES;
    let parameters = network.parameters();
    let [weight, bias] =
        [2, 1].map(|rank| parameters.iter().find(head(rank)).expect("a linear classifier").name.clone());
    let mut tensors = network.to_tensors();
    let mut weights: Vec<f32> = tensors[&weight].iter().collect();
    let mut biases: Vec<f32> = tensors[&bias].iter().collect();
    let features = weights.len() / CLASSES;
    for (class, (weights, bias)) in weights.chunks_exact_mut(features).zip(&mut biases).enumerate() {
        let own = || logits.iter().skip(class).step_by(CLASSES);
        let count = own().count() as f32;
        let mean = own().sum::<f32>() / count;
        let deviation = (own().map(|logit| (logit - mean).powi(2)).sum::<f32>() / count).sqrt();
        weights.iter_mut().for_each(|weight| *weight /= deviation);
        *bias = (*bias - mean) / deviation;
    }
    tensors.insert(weight, TensorData::new(weights, [CLASSES, features]));
    tensors.insert(bias, TensorData::new(biases, [CLASSES]));
    network.load_tensors(&tensors).expect("the same names and shapes");
}

/// Random weights, none of which is 0 or 1 as a new network's are, and running statistics that have moved.
fn network(config: &ClassifierConfig) -> Classifier {
    let device = Device::flex();
    let mut network = config.init(11, &device).expect("a valid network");
    let mut rng = stream(7, Purpose::Demo, [1; 3]);
    let mut tensors = network.to_tensors();
    for (name, data) in &mut tensors {
        if data.shape().as_slice().len() == 1 && !name.contains("running") {
            let moved = data.iter::<f32>().map(|value| value + rng.random_range(-0.2..0.2)).collect();
            *data = TensorData::new(moved, data.shape().clone());
        }
    }
    network.load_tensors(&tensors).expect("the same names and shapes");
    if !config.rows_are_independent() {
        let size = config.image_size();
        for seed in 0..2 {
            let noise = Distribution::Normal(0.2, 1.2);
            network.forward(Tensor::random([4, 3, size, size], noise, &device), Mode::train(seed));
        }
    }
    network
}

/// Pictures that differ in more than their noise: each has a colour and a stripe of its own.
fn images(count: usize, size: usize) -> Vec<u8> {
    let mut rng = stream(8, Purpose::Demo, [2; 3]);
    let mut bytes = Vec::with_capacity(count * size * size * 3);
    for _ in 0..count {
        let colour: [u8; 3] = rng.random();
        let width = rng.random_range(1..size);
        for pixel in 0..size * size {
            let inside = ((pixel % size) / width).is_multiple_of(2);
            bytes.extend(
                colour.map(|level| (if inside { level } else { 255 - level }) / 2 + rng.random_range(0..128)),
            );
        }
    }
    bytes
}

fn logits(network: &Classifier, images: &[u8], size: usize) -> Vec<f32> {
    let mut all = Vec::new();
    let predictor = Predictor::new(network, size, &Normalisation::IMAGENET, 8);
    predictor.logits(images.chunks(size * size * 3), |_, logits| {
        all.extend(logits);
        true
    });
    all
}
