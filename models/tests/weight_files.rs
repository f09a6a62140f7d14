//! Weight files of other programs (`checkpoints/generate.py`), whole, cut short, altered and hostile.

use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device, Tensor, TensorData};
use harvest_models::checkpoint::{CheckpointError, Format, Problem, Weights, parse_weights, read_weights};
use harvest_models::vit::{Pooling, VitConfig};
use harvest_models::{
    Classifier, ClassifierConfig, Head, LoadOptions, LoadReport, Mode, NamedTensors, Outcome,
    PretrainedError, read_safetensors,
};

#[path = "checkpoints/mutation.rs"]
mod mutation;

use mutation::{Random, mutate, repaired};

const FILES: [&str; 8] = [
    "training.pth",
    "legacy.pth",
    "half.safetensors",
    "huggingface.safetensors",
    "torchvision.pth",
    "dino.pth",
    "kinds.pth",
    "kinds_legacy.pth",
];

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/checkpoints").join(name)
}

fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(path(name)).expect("a file of the repository")
}

fn weights(name: &str) -> Weights {
    read_weights(&path(name)).expect("a file of PyTorch")
}

fn expected() -> NamedTensors {
    read_safetensors(&path("expected.safetensors")).expect("a file of the repository")
}

fn values(data: &TensorData) -> Vec<f32> {
    data.iter::<f32>().collect()
}

fn network(classes: usize) -> Classifier {
    let config = VitConfig {
        image_size: 8,
        patch: 4,
        dim: 8,
        depth: 2,
        heads: 2,
        mlp_ratio: 2.0,
        drop_path: 0.0,
        pooling: Pooling::ClassToken,
        registers: 0,
        layer_scale: None,
        class_position: true,
        classes,
    };
    ClassifierConfig::Vit(config).init(7, &Device::flex()).expect("a valid shape")
}

fn load(name: &str, head: Head) -> (Classifier, LoadReport) {
    let mut net = network(5);
    let options = LoadOptions { head, ..LoadOptions::default() };
    let report = net.load_pretrained(&weights(name).tensors, options);
    (net, report.unwrap_or_else(|error| panic!("{name}: {error}")))
}

/// Largest difference of the logits for the image in `expected` from those recorded there as `key`.
fn difference(net: &Classifier, key: &str) -> f32 {
    let expected = expected();
    let image = Tensor::from_data(expected["image"].clone(), (&Device::flex(), DType::F32));
    let logits = net.forward(image, Mode::Evaluate).logits.into_data();
    let pairs = values(&logits).into_iter().zip(values(&expected[key]));
    pairs.map(|(found, wanted)| (found - wanted).abs()).fold(0.0, f32::max)
}

#[test]
fn every_container_and_naming_gives_the_logits_of_its_maker() {
    // Half precision keeps 8 to 11 bits of each weight.
    for (name, key, tolerance) in [
        ("training.pth", "logits", 1e-5),
        ("legacy.pth", "logits", 1e-5),
        ("huggingface.safetensors", "logits", 1e-5),
        ("half.safetensors", "logits", 5e-2),
        ("torchvision.pth", "torchvision/logits", 1e-5),
    ] {
        let (net, report) = load(name, Head::Keep);
        let off = difference(&net, key);
        assert!(off < tolerance, "{name}: {off}\n{report}");
        assert_eq!(report.count(Outcome::Loaded), net.to_tensors().len(), "{name}");
        assert_eq!(report.rows().len(), net.to_tensors().len(), "{name}: nothing else in it");
    }
}

#[test]
fn of_a_self_supervised_checkpoint_the_teacher_is_taken_without_its_head() {
    let found = weights("dino.pth");
    assert_eq!((found.format, &*found.within), (Format::Torch, "teacher"));
    let (net, report) = load("dino.pth", Head::New);
    let expected = expected();
    for (name, data) in net.to_tensors() {
        if !name.starts_with("head.") {
            assert_eq!(data, expected[&format!("timm/{name}")], "{name}");
        }
    }
    assert_eq!((report.count(Outcome::New), report.count(Outcome::Ignored)), (2, 2), "{report}");
    let text = report.to_string();
    assert!(text.contains("backbone.norm.bias") && text.contains("head.projection"), "{text}");
}

#[test]
fn a_training_checkpoint_gives_its_weights_and_forgets_the_rest() {
    let found = weights("training.pth");
    assert_eq!(found.within, "model");
    assert!(found.tensors.keys().all(|name| name.starts_with("module.")));
    assert_eq!(weights("legacy.pth").format, Format::TorchLegacy);
}

#[test]
fn strides_types_and_parameters_are_read_as_python_sees_them() {
    for name in ["kinds.pth", "kinds_legacy.pth"] {
        let found = weights(name).tensors;
        let get = |key: &str| (found[key].shape().to_vec(), values(&found[key]));
        let transposed: Vec<f32> = (0..6).flat_map(|c| (0..4).map(move |r| (r * 6 + c) as f32)).collect();
        assert_eq!(get("transposed"), (vec![6, 4], transposed));
        assert_eq!(get("window"), (vec![2, 3], vec![8.0, 9.0, 10.0, 14.0, 15.0, 16.0]));
        assert_eq!((found["scalar"].dtype(), get("scalar")), (DType::I64, (vec![], vec![7.0])));
        assert_eq!(get("empty"), (vec![0, 3], vec![]));
        assert_eq!(get("parameter"), (vec![2], vec![1.5, -2.0]));
        assert_eq!(get("half"), (vec![4], vec![1.0, -0.5, 5.960_464_5e-8, 65504.0]));
        assert_eq!(get("bfloat16"), (vec![2], vec![1.0, -3.0]));
        assert_eq!(get("double"), (vec![1], vec![0.1]));
        assert_eq!(get("int16"), (vec![2], vec![-2.0, 300.0]));
        assert_eq!(get("uint8"), (vec![1], vec![255.0]));
        assert_eq!(get("bool"), (vec![2], vec![1.0, 0.0]));
    }
}

#[test]
fn a_file_that_wants_to_run_something_is_refused_by_name_and_runs_nothing() {
    for name in ["hostile.pth", "hostile.bin"] {
        let error = read_weights(&path(name)).expect_err("hostile");
        let CheckpointError::Refused { source, .. } = error else { panic!("{error}") };
        let words = source.to_string();
        assert!(words.contains("asks to run `posix.system`"), "{words}");
        assert!(words.contains("state_dict"), "what to do: {words}");
    }
    let text = b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.";
    let error = parse_weights(text).expect_err("hostile");
    assert!(matches!(error, Problem::Code { name } if name == "os.system"));
    for folder in [Path::new("."), &path(".")] {
        assert!(!folder.join("harvest-was-here").exists());
    }
}

#[test]
fn a_file_cut_short_anywhere_is_an_error() {
    for name in FILES {
        let whole = bytes(name);
        for length in (0..whole.len()).step_by(7) {
            assert!(parse_weights(&whole[..length]).is_err(), "{name} cut at {length}");
        }
    }
}

#[test]
fn sizes_out_of_nothing_are_refused_before_memory_is_asked_for() {
    let claim = |header: &str| {
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend_from_slice(header.as_bytes());
        file
    };
    for header in [
        r#"{"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}"#,
        r#"{"a":{"dtype":"F32","shape":[18446744073709551615,4],"data_offsets":[0,8]}}"#,
        r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}"#,
    ] {
        assert!(parse_weights(&claim(header)).is_err(), "{header}");
    }
    assert!(parse_weights(&u64::MAX.to_le_bytes()).is_err());
    // A storage of one number seen as a tensor of very many, all in the same place.
    let legacy = bytes("kinds_legacy.pth");
    let at = legacy.windows(4).position(|w| w == b"K\x06K\x04").expect("the shape of `transposed`");
    let mut huge = legacy.clone();
    huge.splice(at..at + 4, *b"J\xff\xff\xff\x7fJ\xff\xff\xff\x7f");
    assert!(matches!(parse_weights(&huge), Err(Problem::Excessive { .. } | Problem::Damaged { .. })));
    // As deep as a file can say, without a deep stack.
    let mut deep = b"\x80\x02".to_vec();
    deep.extend(std::iter::repeat_n(b')', 1));
    deep.extend(std::iter::repeat_n(0x85, 2_000_000));
    deep.push(b'.');
    assert!(parse_weights(&deep).is_err());
}

#[test]
fn weights_of_another_network_are_refused_in_words() {
    let mut net = network(5);
    let mut tensors = weights("training.pth").tensors;
    let error = ClassifierConfig::preset("resnet8", 5)
        .and_then(|config| config.init(1, &Device::flex()))
        .expect("a preset")
        .load_pretrained(&tensors, LoadOptions::default())
        .expect_err("another network");
    let PretrainedError::Misfit { problems } = &error else { panic!("{error}") };
    assert!(problems.len() > 20 && error.to_string().contains("more"), "{error}");
    tensors.remove("module.blocks.1.attn.qkv.weight");
    let error = net.load_pretrained(&tensors, LoadOptions::default()).expect_err("incomplete").to_string();
    assert!(error.contains("`blocks.1.attn.qkv.weight` [24, 8] is missing"), "{error}");
}

/// Names and shapes of the published networks, as recorded from timm, torchvision and USB.
#[test]
fn published_names_and_shapes_load_whole_into_the_presets() {
    let file = path("../../../tests/reference/models/parameter_names.json");
    let text = std::fs::read_to_string(file).expect("recorded names");
    let lists: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let mut compared = 0;
    for (name, preset) in [
        ("usb/vit_tiny_patch2_32", "vit_tiny_patch2_32"),
        ("timm/vit_tiny_patch16_224", "vit_tiny_patch16_224"),
        ("torchvision/resnet50", "resnet50"),
    ] {
        let mut tensors = NamedTensors::new();
        for kind in ["parameters", "buffers"] {
            for (name, shape) in lists[name][kind].as_object().expect("a list") {
                let shape: Vec<usize> = serde_json::from_value(shape.clone()).expect("sizes");
                let count = shape.iter().product();
                let data = match name.ends_with("num_batches_tracked") {
                    true => TensorData::new(vec![0i64; count], shape),
                    false => TensorData::new(vec![0.5f32; count], shape),
                };
                tensors.insert(format!("module.{name}"), data);
            }
        }
        let mut net =
            ClassifierConfig::preset(preset, 3).and_then(|c| c.blank(&Device::flex())).expect("a preset");
        let report = net.load_pretrained(&tensors, LoadOptions::default()).expect("its own names");
        assert_eq!((report.count(Outcome::New), report.count(Outcome::Ignored)), (2, 2), "{name}");
        assert_eq!(report.count(Outcome::Loaded) + 2, tensors.len(), "{name}");
        compared += 1;
    }
    assert_eq!(compared, 3);
}

/// Altered files end in an error or in weights, never in a panic. `HARVEST_FUZZ_CASES` says how many.
#[test]
fn altered_files_never_panic() {
    let cases =
        std::env::var("HARVEST_FUZZ_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(20_000u64);
    let files: Vec<Vec<u8>> = FILES.iter().chain(&["hostile.pth"]).map(|name| bytes(name)).collect();
    let (mut read, mut refused) = (0u64, 0u64);
    for case in 0..cases {
        let mut random = Random::new(case);
        let file = &files[random.below(files.len())];
        let other = &files[random.below(files.len())];
        let mut altered = mutate(file, other, &mut random);
        if random.below(2) == 0 {
            // Checksums made right again, so that what they guard is reached.
            repaired(&mut altered);
        }
        match parse_weights(&altered) {
            Ok(weights) => {
                let values: usize = weights.tensors.values().map(TensorData::num_elements).sum();
                assert!(values <= altered.len(), "case {case}: {values} values of {} bytes", altered.len());
                // What could be read is also named without a panic.
                if case % 16 == 0 {
                    drop(network(5).load_pretrained(&weights.tensors, LoadOptions::default()));
                }
                read += 1;
            }
            Err(error) => {
                assert!(!error.to_string().is_empty());
                refused += 1;
            }
        }
    }
    println!("{cases} altered files: {read} read, {refused} refused");
    assert!(cases < 1000 || (read > 0 && refused > 0));
}
