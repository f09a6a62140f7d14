use burn::tensor::{Device, Tensor};
use harvest_models::convnext::{self, ConvNextConfig};
use harvest_models::efficientnet::{self, EfficientNetConfig};
use harvest_models::resnet::{BlockKind, ResNetConfig, Stem};
use harvest_models::vit::{Pooling, VitConfig};
use harvest_models::{Classifier, Mode};
use rand::RngExt;

use super::*;
use crate::inference::{Predictor, largest_difference};
use crate::random::{Purpose, stream};

/// A small network of each kind of each family.
fn networks() -> Vec<(&'static str, ClassifierConfig)> {
    let vit = |pooling, registers: usize| {
        ClassifierConfig::Vit(VitConfig {
            image_size: 16,
            patch: 4,
            dim: 24,
            depth: 2,
            heads: 3,
            mlp_ratio: 2.0,
            drop_path: 0.1,
            pooling,
            registers,
            layer_scale: (registers > 0).then_some(0.5),
            class_position: registers == 0,
            classes: 5,
        })
    };
    let resnet = |stem, block| {
        ClassifierConfig::ResNet(ResNetConfig {
            image_size: 16,
            stem,
            block,
            blocks: vec![1, 2],
            planes: 8,
            width: 64,
            classes: 5,
        })
    };
    let stage = |blocks, kernel, stride, expansion, channels| efficientnet::StageConfig {
        blocks,
        kernel,
        stride,
        expansion,
        channels,
    };
    let inverted = ClassifierConfig::EfficientNet(EfficientNetConfig {
        image_size: 16,
        stem: 8,
        stages: vec![stage(1, 3, 1, 1, 8), stage(2, 5, 2, 3, 12)],
        features: 20,
        drop_path: 0.0,
        classes: 5,
    });
    let stages = [(1, 12), (2, 16)].map(|(blocks, dim)| convnext::StageConfig { blocks, dim }).to_vec();
    let convnext = ClassifierConfig::ConvNext(ConvNextConfig {
        image_size: 16,
        stages,
        layer_scale: 0.5,
        drop_path: 0.0,
        classes: 5,
    });
    vec![
        ("class token", vit(Pooling::ClassToken, 0)),
        ("mean of patches", vit(Pooling::MeanOfPatches, 0)),
        ("class token and registers", vit(Pooling::ClassToken, 2)),
        ("mean of patches, not of registers", vit(Pooling::MeanOfPatches, 2)),
        ("basic", resnet(Stem::SmallImage, BlockKind::Basic)),
        ("bottleneck", resnet(Stem::Standard, BlockKind::Bottleneck)),
        ("inverted residuals", inverted),
        ("convnext", convnext),
    ]
}

/// Random weights, none of which is 0 or 1 as a new network's are, and running statistics that have moved.
fn network(config: &ClassifierConfig) -> Classifier {
    let device = Device::flex();
    let mut network = config.init(5, &device).expect("valid");
    let mut rng = stream(9, Purpose::Demo, [1; 3]);
    let mut tensors = network.to_tensors();
    for (name, data) in &mut tensors {
        if data.shape().as_slice().len() == 1 && !name.contains("running") {
            let moved = data.iter::<f32>().map(|v| v + rng.random_range(-0.3..0.3)).collect();
            *data = burn::tensor::TensorData::new(moved, data.shape().clone());
        }
    }
    network.load_tensors(&tensors).expect("the same names and shapes");
    let size = config.image_size();
    for seed in 0..3 {
        let noise = burn::tensor::Distribution::Normal(0.3, 1.5);
        network.forward(Tensor::random([4, 3, size, size], noise, &device), Mode::train(seed));
    }
    network
}

fn images(count: usize, size: usize) -> Vec<u8> {
    let mut rng = stream(4, Purpose::Demo, [2; 3]);
    (0..count * size * size * 3).map(|_| rng.random()).collect()
}

fn preprocessing(size: usize) -> Preprocessing {
    let normalisation = Normalisation { mean: [0.2, 0.5, 0.4], std: [0.2, 0.3, 0.25] };
    Preprocessing { size: size as u32, resize: "bilinear".into(), normalisation }
}

fn model(config: &ClassifierConfig, network: &Classifier, storage: Storage) -> OnnxModel {
    let classes: Vec<String> = (0..config.classes()).map(|class| format!("class {class}")).collect();
    let preprocessing = preprocessing(config.image_size());
    let surroundings = Surroundings { preprocessing: &preprocessing, classes: &classes, temperature: 2.0 };
    OnnxModel::new(config, &network.to_tensors(), surroundings, storage).expect("a sound network")
}

fn burn_logits(network: &Classifier, images: &[u8], size: usize) -> Vec<f32> {
    let normalisation = preprocessing(size).normalisation;
    let mut all = Vec::new();
    Predictor::new(network, size, &normalisation, 8).logits(images.chunks(size * size * 3), |_, logits| {
        all.extend(logits);
        true
    });
    all
}

#[test]
fn another_runtime_gives_the_same_logits_for_every_family_and_batch() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("model.onnx");
    for (name, config) in networks() {
        let size = config.image_size();
        let network = network(&config);
        model(&config, &network, Storage::Float32).write(&path).expect("writable");
        for count in [1, 3] {
            let images = images(count, size);
            let expected = burn_logits(&network, &images, size);
            let found = run_onnx(&path, &images, count, size, config.classes()).expect("it runs");
            // Sums of up to a few hundred f32 in another order.
            let off = largest_difference(&expected, &found);
            assert!(off < 1e-4, "{name}, batch {count}: {off}");
        }
    }
}

#[test]
fn eight_bits_compute_with_the_weights_they_stand_for_and_stay_close() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("model.int8.onnx");
    for (name, config) in networks() {
        let size = config.image_size();
        let network = network(&config);
        let small = model(&config, &network, Storage::Int8);
        small.write(&path).expect("writable");
        let images = images(2, size);
        let found = run_onnx(&path, &images, 2, size, config.classes()).expect("it runs");
        let mut stands_for = config.blank(&Device::flex()).expect("valid");
        stands_for.load_tensors(&small.effective).expect("the same names and shapes");
        let off = largest_difference(&burn_logits(&stands_for, &images, size), &found);
        assert!(off < 1e-4, "{name}: {off}");
        let lost = largest_difference(&burn_logits(&network, &images, size), &found);
        // Every weight is off by up to half a 127th of its channel's largest.
        assert!(lost > 0.0 && lost < 0.1, "{name}: {lost}");
    }
}

#[test]
fn probabilities_are_of_logits_over_the_temperature_and_only_common_operators_are_used() {
    let allowed = "Cast Transpose Sub Mul Add Div Conv BatchNormalization Relu Clip MaxPool GlobalAveragePool Flatten \
                   Gemm MatMul LayerNormalization Softmax Erf Reshape Shape Slice Concat Expand ReduceMean Split Squeeze \
                   Unsqueeze Sigmoid DequantizeLinear";
    let allowed: Vec<&str> = allowed.split_whitespace().collect();
    for (name, config) in networks() {
        let OnnxModel { model, .. } = model(&config, &network(&config), Storage::Int8);
        let graph = model.graph.expect("a graph");
        for node in &graph.node {
            assert!(allowed.contains(&node.op_type()), "{name}: {}", node.op_type());
        }
        let [.., divide, softmax] = &graph.node[..] else { panic!("two nodes at least") };
        assert_eq!(divide.input, ["logits", "temperature"]);
        assert_eq!(softmax.output, ["probabilities"]);
        let temperature = graph.initializer.iter().find(|tensor| tensor.name() == "temperature");
        assert_eq!(temperature.expect("stored").raw_data(), 2.0f32.to_le_bytes());
        let classes = model.metadata_props.iter().find(|entry| entry.key() == "classes").expect("told");
        assert_eq!(classes.value(), r#"["class 0","class 1","class 2","class 3","class 4"]"#);
    }
}

#[test]
fn missing_and_senseless_weights_are_named() {
    let (_, config) = networks().remove(0);
    let sound = network(&config).to_tensors();
    let preprocessing = preprocessing(16);
    let surroundings = Surroundings { preprocessing: &preprocessing, classes: &[], temperature: 1.0 };
    let refused = |tensors: &NamedTensors| {
        let error = OnnxModel::new(&config, tensors, surroundings, Storage::Float32).map(|_| ());
        error.expect_err("not usable").to_string()
    };
    let mut tensors = sound.clone();
    tensors.remove("blocks.1.attn.proj.bias");
    assert!(refused(&tensors).contains("`blocks.1.attn.proj.bias` is missing"));
    let mut tensors = sound.clone();
    tensors.insert("norm.bias".into(), burn::tensor::TensorData::new(vec![f32::NAN; 24], [24]));
    assert!(refused(&tensors).contains("`norm.bias` holds NaN"));
    let mut tensors = sound;
    tensors.insert("patch_embed.proj.weight".into(), burn::tensor::TensorData::new(vec![1.0f32; 4], [2, 2]));
    assert!(refused(&tensors).contains("4 axes"));
}

#[test]
fn a_damaged_file_is_an_error() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("model.onnx");
    let (_, config) = networks().remove(4);
    model(&config, &network(&config), Storage::Float32).write(&path).expect("writable");
    let sound = std::fs::read(&path).expect("just written");
    for damaged in [&b""[..], b"no protobuf", &sound[..sound.len() / 2], &sound[sound.len() / 3..]] {
        std::fs::write(&path, damaged).expect("writable");
        let error = run_onnx(&path, &images(1, 16), 1, 16, 5).expect_err("it is damaged");
        assert!(error.to_string().contains("model.onnx"), "{error}");
    }
}
