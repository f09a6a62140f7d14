//! Bundles that tests of this room share.

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor, TensorData};
use harvest_models::{Classifier, ClassifierConfig, Mode};

use super::{Bundle, Preprocessing};
use crate::augment::Normalisation;
use crate::data::ClassKind;

/// A small network of three classes, one of whose names needs quoting: `vit`, or a preset.
pub(crate) fn bundle(name: &str) -> (Bundle, Classifier) {
    let model = match name {
        "vit" => {
            let shape =
                r#"{"vit": {"image_size": 16, "patch": 4, "dim": 12, "depth": 2, "heads": 3, "classes": 3}}"#;
            serde_json::from_str(shape).expect("a configuration")
        }
        preset => ClassifierConfig::preset(preset, 3).expect("a preset"),
    };
    let network = model.init(1, &Device::flex()).expect("a valid network");
    let size = model.image_size();
    // Running statistics that are not those of a new network.
    network.forward(images(size), Mode::train(0));
    let classes = ["bee", "wasp", "ä, \"ö\""].map(str::to_owned).to_vec();
    let preprocessing = Preprocessing {
        size: size as u32,
        resize: "bilinear".into(),
        normalisation: Normalisation::IMAGENET,
    };
    let about = BTreeMap::from([("steps".to_owned(), "12".to_owned())]);
    (Bundle::new(model, classes, ClassKind::Categorical, preprocessing, about), network)
}

/// Two images of `size`, as a network takes them.
pub(crate) fn images(size: usize) -> Tensor<4> {
    let count = 2 * 3 * size * size;
    let values: Vec<f32> = (0..count).map(|i| ((i * 37 % 101) as f32) / 50.0 - 1.0).collect();
    Tensor::from_data(TensorData::new(values, [2, 3, size, size]), &Device::flex())
}
