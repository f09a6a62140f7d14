//! Networks that timm and torchvision saved, loaded as `--pretrained` loads them and asked for the logits of their images.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use harvest::weights::start_from;
use harvest_models::{ClassifierConfig, Head, LoadOptions, Outcome};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

/// For each folder `saved/PRESET` with a `reference.safetensors` writes `answers.safetensors`: the logits by the weights of
/// each other file, under its name.
pub fn answer(saved: &Path) {
    for folder in sorted(saved) {
        let preset = folder.file_name().expect("a folder's name").to_string_lossy().into_owned();
        let bytes = std::fs::read(folder.join("reference.safetensors")).expect("images and logits");
        let reference = SafeTensors::deserialize(&bytes).expect("safetensors");
        let images = reference.tensor("images").expect("images");
        let classes = reference.tensor("logits").expect("logits").shape()[1];
        let config = ClassifierConfig::preset(&preset, classes).expect("a preset");
        let mut answers: Vec<(String, Vec<u8>)> = Vec::new();
        let mut first = None;
        for file in sorted(&folder).into_iter().filter(|file| !file.ends_with("reference.safetensors")) {
            let mut network = config.init(1, &Device::flex()).expect("a valid network");
            let keep = LoadOptions { head: Head::Keep, ..LoadOptions::default() };
            let report = start_from(&mut network, &file, keep)
                .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            assert_eq!(
                (report.count(Outcome::New), report.count(Outcome::Resized)),
                (0, 0),
                "{}",
                file.display()
            );
            let tensors = network.to_tensors();
            // Equal weights need not be run again.
            let logits = match &first {
                Some((known, logits)) if *known == tensors => Vec::clone(logits),
                _ => super::logits(&network, images.data(), config.image_size()),
            };
            let name = file.file_name().expect("a file's name").to_string_lossy().into_owned();
            answers.push((name, logits.iter().flat_map(|logit| logit.to_le_bytes()).collect()));
            first.get_or_insert((tensors, logits));
        }
        let shape = vec![images.shape()[0], classes];
        let views = answers.iter().map(|(name, bytes)| {
            (
                name,
                TensorView::new(Dtype::F32, shape.clone(), bytes).expect("a logit for each class and image"),
            )
        });
        safetensors::serialize_to_file(views, None, &folder.join("answers.safetensors")).expect("writable");
    }
}

fn sorted(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("readable").path());
    let mut paths: Vec<PathBuf> = entries.collect();
    paths.sort();
    paths
}
