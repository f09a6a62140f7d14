//! Holds the networks for small devices, ConvNeXt and the registers and factors of vision transformers to timm's numbers.
//!
//! Reads the folder `HARVEST_BACKBONES` names, else `tests/backbones`, where `generate.py` made the files. Tolerances are
//! relative to the largest value of each tensor, as `f32` sums in another order are off by a fraction of their terms.

use std::collections::BTreeMap;
use std::path::PathBuf;

use burn::module::ParamId;
use burn::optim::GradientsParams;
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Int, Tensor, TensorData};
use harvest_models::convnext::{self, ConvNextConfig};
use harvest_models::efficientnet::{EfficientNetConfig, StageConfig};
use harvest_models::pretrained::resize_patches;
use harvest_models::vit::{Pooling, VitConfig};
use harvest_models::{
    Classifier, ClassifierConfig, Head, LoadOptions, Mode, NamedTensors, Outcome, read_safetensors,
};
use serde::Deserialize;

/// Of the largest value. Passes with batch statistics, too: dividing by the deviation of 12 values a channel enlarges what
/// sums in another order leave, and still the furthest gradient is off by 1.4e-5.
const TOLERANCE: f64 = 1e-4;

const CLASSES: usize = 5;

/// The shapes of `generate.py`.
fn networks() -> [(&'static str, ClassifierConfig); 5] {
    let stage = |blocks, kernel, stride, expansion, channels| StageConfig {
        blocks,
        kernel,
        stride,
        expansion,
        channels,
    };
    let efficientnet = EfficientNetConfig {
        image_size: 37,
        stem: 6,
        stages: vec![stage(1, 3, 1, 1, 6), stage(2, 3, 2, 6, 8), stage(2, 5, 2, 4, 8), stage(2, 5, 1, 2, 10)],
        features: 20,
        drop_path: 0.0,
        classes: CLASSES,
    };
    let dinov2 = VitConfig {
        image_size: 28,
        patch: 7,
        dim: 24,
        depth: 2,
        heads: 3,
        mlp_ratio: 4.0,
        drop_path: 0.0,
        pooling: Pooling::ClassToken,
        registers: 0,
        layer_scale: Some(1e-5),
        class_position: true,
        classes: CLASSES,
    };
    let reg4 = VitConfig { registers: 4, class_position: false, ..dinov2.clone() };
    let with_positions = VitConfig {
        image_size: 16,
        patch: 8,
        dim: 16,
        depth: 1,
        heads: 2,
        registers: 2,
        layer_scale: None,
        ..dinov2.clone()
    };
    let stages = [(1, 6), (1, 8), (2, 12), (1, 16)];
    let convnext = ConvNextConfig {
        image_size: 40,
        stages: stages.map(|(blocks, dim)| convnext::StageConfig { blocks, dim }).to_vec(),
        layer_scale: 1e-6,
        drop_path: 0.0,
        classes: CLASSES,
    };
    [
        ("efficientnet", ClassifierConfig::EfficientNet(efficientnet)),
        ("dinov2", ClassifierConfig::Vit(dinov2)),
        ("dinov2_reg4", ClassifierConfig::Vit(reg4)),
        ("registers_with_positions", ClassifierConfig::Vit(with_positions)),
        ("convnext", ClassifierConfig::ConvNext(convnext)),
    ]
}

#[test]
fn evaluation_and_its_gradients_are_timms() {
    for (name, config) in networks() {
        let stored = read(name);
        let net = network(&config, &stored);
        let out = net.forward(image(&stored["input"]), Mode::Evaluate);
        close(&format!("{name} features"), &out.features.to_data(), &stored["eval/features"], TOLERANCE);
        close(&format!("{name} logits"), &out.logits.to_data(), &stored["eval/logits"], TOLERANCE);
        let loss = cross_entropy(out.logits, &stored["label"]);
        close(&format!("{name} loss"), &loss.to_data(), &stored["loss"], TOLERANCE);
        assert_gradients(name, &net, loss, &stored, "grad/", TOLERANCE);
    }
}

#[test]
fn training_with_batch_statistics_is_timms() {
    let mut compared = 0;
    for (name, config) in networks() {
        let stored = read(name);
        if !stored.contains_key("train/logits") {
            assert!(config.rows_are_independent(), "{name}");
            continue;
        }
        let net = network(&config, &stored);
        let out = net.forward(image(&stored["input"]), Mode::train(0));
        close(&format!("{name} features"), &out.features.to_data(), &stored["train/features"], TOLERANCE);
        close(&format!("{name} logits"), &out.logits.to_data(), &stored["train/logits"], TOLERANCE);
        let now = net.to_tensors();
        for (key, expected) in &stored {
            let Some(buffer) = key.strip_prefix("train/").filter(|key| now.contains_key(*key)) else {
                continue;
            };
            close(&format!("{name} {buffer}"), &now[buffer], expected, TOLERANCE);
            compared += 1;
        }
        let loss = cross_entropy(out.logits, &stored["label"]);
        assert_gradients(name, &net, loss, &stored, "train_grad/", TOLERANCE);
    }
    assert!(compared > 0, "no running statistics in the reference");
}

#[test]
fn what_was_loaded_leaves_unchanged() {
    for (name, config) in networks() {
        let weights = weights(&read(name));
        let mut net = config.blank(&Device::flex()).expect("a valid configuration");
        net.load_tensors(&weights).expect("weights of this network");
        assert_eq!(net.to_tensors(), weights, "{name}");
    }
}

#[test]
fn torchvisions_convnext_is_taken_whole_and_answers_alike() {
    let stored = read("torchvision_convnext");
    let (_, config) =
        networks().into_iter().find(|(name, _)| *name == "convnext").expect("one of the networks");
    let mut net = config.blank(&Device::flex()).expect("a valid configuration");
    let options = LoadOptions { head: Head::Keep, ..LoadOptions::default() };
    let report = net.load_pretrained(&weights(&stored), options).expect("weights of this network");
    assert_eq!(report.count(Outcome::Loaded), net.to_tensors().len(), "{report}");
    assert_eq!(report.rows().len(), net.to_tensors().len(), "{report}");
    let out = net.forward(image(&stored["input"]), Mode::Evaluate);
    close("torchvision's logits", &out.logits.to_data(), &stored["eval/logits"], TOLERANCE);
}

#[test]
fn patch_kernels_are_resized_as_timms() {
    let stored = read("patch_kernels");
    let mut compared = 0;
    for (key, expected) in &stored {
        let Some(case) = key.strip_suffix("/out") else { continue };
        let found = resize_patches(&stored[&format!("{case}/in")], expected).expect("kernels of one network");
        // timm inverts in `f32`.
        close(case, &found, expected, 1e-5);
        compared += 1;
    }
    assert_eq!(compared, 6);
}

#[test]
fn weights_of_another_patch_size_are_taken() {
    let vit = |patch, image_size| {
        let (_, config) =
            networks().into_iter().find(|(name, _)| *name == "dinov2").expect("one of the networks");
        let ClassifierConfig::Vit(config) = config else { panic!("a vision transformer") };
        ClassifierConfig::Vit(VitConfig { patch, image_size, ..config })
    };
    let source = vit(7, 28).init(1, &Device::flex()).expect("valid").to_tensors();
    let mut net = vit(8, 40).init(2, &Device::flex()).expect("valid");
    let report = net.load_pretrained(&source, LoadOptions::default()).expect("fits");
    assert_eq!(report.count(Outcome::Resized), 2, "{report}");
    assert!(report.to_string().contains("patches of 7 × 7 → 8 × 8 pixels"), "{report}");
    let expected = resize_patches(
        &source["patch_embed.proj.weight"],
        &TensorData::new(vec![0f32; 24 * 3 * 64], [24, 3, 8, 8]),
    );
    assert_eq!(net.to_tensors()["patch_embed.proj.weight"], expected.expect("kernels"));
}

#[test]
fn names_and_shapes_of_the_published_networks_are_timms() {
    #[derive(Deserialize)]
    struct Names {
        parameters: BTreeMap<String, Vec<usize>>,
        buffers: BTreeMap<String, Vec<usize>>,
        parameter_count: usize,
    }
    let path = folder().join("names.json");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let all: BTreeMap<String, Names> = serde_json::from_str(&text).expect("names and shapes");
    assert_eq!(all.len(), 5);
    for (preset, expected) in all {
        let config = ClassifierConfig::preset(&preset, 10).expect("a preset");
        let net = config.blank(&Device::flex().autodiff()).expect("a valid preset");
        let parameters: BTreeMap<String, Vec<usize>> = net
            .parameters()
            .into_iter()
            .inspect(|p| assert!(p.tracked && p.depth <= config.max_depth()))
            .map(|p| (p.name, p.shape))
            .collect();
        assert_eq!(parameters, expected.parameters, "{preset}");
        assert_eq!(net.num_parameters(), expected.parameter_count, "{preset}");
        let mut tensors = net.to_tensors();
        tensors.retain(|name, _| !parameters.contains_key(name));
        let buffers: BTreeMap<_, _> = tensors.into_iter().map(|(k, t)| (k, t.shape().to_vec())).collect();
        assert_eq!(buffers, expected.buffers, "{preset}");
    }
}

fn network(config: &ClassifierConfig, stored: &NamedTensors) -> Classifier {
    let mut net = config.blank(&Device::flex().autodiff()).expect("a valid configuration");
    net.load_tensors(&weights(stored)).expect("weights of this network");
    net
}

fn weights(stored: &NamedTensors) -> NamedTensors {
    let named =
        |(key, data): (&String, &TensorData)| Some((key.strip_prefix("weight/")?.to_owned(), data.clone()));
    stored.iter().filter_map(named).collect()
}

/// Every parameter has the gradient that the file has under `prefix`.
fn assert_gradients(
    name: &str,
    net: &Classifier,
    loss: Tensor<1>,
    stored: &NamedTensors,
    prefix: &str,
    tolerance: f64,
) {
    let gradients = GradientsParams::from_grads(loss.backward(), net);
    let parameters = net.parameters();
    assert_eq!(parameters.len(), stored.keys().filter(|key| key.starts_with(prefix)).count(), "{name}");
    for parameter in parameters {
        let key = format!("{prefix}{}", parameter.name);
        let found = gradient(&gradients, parameter.id, parameter.shape.len());
        close(&format!("{name} {key}"), &found, &stored[&key], tolerance);
    }
}

/// In PyTorch's layout.
fn gradient(gradients: &GradientsParams, id: ParamId, rank: usize) -> TensorData {
    let found = match rank {
        1 => gradients.get::<1>(id).map(|g| g.into_data()),
        2 => gradients.get::<2>(id).map(|g| g.transpose().into_data()),
        3 => gradients.get::<3>(id).map(|g| g.into_data()),
        _ => gradients.get::<4>(id).map(|g| g.into_data()),
    };
    found.expect("every parameter has a gradient")
}

fn cross_entropy(logits: Tensor<2>, labels: &TensorData) -> Tensor<1> {
    let [rows, _] = logits.dims();
    let labels = Tensor::<1, Int>::from_data(labels.clone(), &logits.device().inner());
    log_softmax(logits, 1).gather(1, labels.reshape([rows, 1])).mean().neg()
}

fn image(data: &TensorData) -> Tensor<4> {
    Tensor::from_data(data.clone(), &Device::flex())
}

fn close(what: &str, found: &TensorData, expected: &TensorData, tolerance: f64) {
    assert_eq!(found.shape(), expected.shape(), "{what}");
    let expected: Vec<f64> = expected.iter::<f64>().collect();
    let largest = expected.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    let worst = found.iter::<f64>().zip(&expected).fold(0.0f64, |m, (f, e)| m.max((f - e).abs()));
    // A gradient that is zero but for rounding: the bias in front of a softmax or of a batch norm.
    let scale = largest.max(1e-2);
    println!("{what}: off by {:.1e} of {largest:.2e}", worst / scale);
    assert!(worst <= tolerance * scale, "{what}: off by {worst:e}, the largest value is {largest:e}");
}

fn read(name: &str) -> NamedTensors {
    let path = folder().join(format!("{name}.safetensors"));
    read_safetensors(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn folder() -> PathBuf {
    match std::env::var_os("HARVEST_BACKBONES") {
        Some(folder) => folder.into(),
        None => concat!(env!("CARGO_MANIFEST_DIR"), "/tests/backbones").into(),
    }
}
