//! A bundle: all that is needed to classify an image, in one folder.
//!
//! ```text
//! bundle/
//!   model.safetensors   weights under PyTorch's names (timm, torchvision)
//!   config.json         network, classes, preprocessing, confidence, and what is known of the model
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use harvest_models::{Classifier, ClassifierConfig, ConfigError, WeightsError};
use serde::{Deserialize, Serialize};

use super::onnx::OnnxError;
use super::{Confidence, Prediction};
use crate::augment::Normalisation;
use crate::data::ClassKind;
use crate::files::{WriteError, atomic_write};

/// Version of the format; others are refused.
const FORMAT: u32 = 1;
pub(super) const WEIGHTS: &str = "model.safetensors";
const CONFIG: &str = "config.json";

/// How an image becomes the network's input: upright, RGB, resized to a square whatever its shape, then normalised.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preprocessing {
    /// Side of the square in pixels.
    pub size: u32,
    /// Resampling, as Pillow names it.
    pub resize: String,
    /// `(level / 255 − mean) / std` for each channel.
    pub normalisation: Normalisation,
}

/// A network with its classes and preprocessing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bundle {
    format: u32,
    /// Version of the program that wrote it.
    pub harvest: String,
    /// The network.
    pub model: ClassifierConfig,
    /// Class names in the order of the logits.
    pub classes: Vec<String>,
    /// What kind of classes they are.
    pub class_kind: ClassKind,
    /// From image to input.
    pub preprocessing: Preprocessing,
    /// What its confidences mean and when it abstains; absent in bundles of runs without evaluation images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<Confidence>,
    /// Facts for a reader: algorithm, steps, scores.
    pub about: BTreeMap<String, String>,
}

/// Why a bundle cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// It is not there, or not readable.
    #[error(
        "`{path}` holds no model bundle (no readable {CONFIG}); name the folder `bundle` of a finished run"
    )]
    Missing {
        /// The folder.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// Not JSON, or not of this form.
    #[error("`{path}` is no bundle of format {FORMAT}: {reason}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The network it describes cannot exist.
    #[error("the network of the bundle is impossible")]
    Model(#[from] ConfigError),
    /// The weights are not the network's.
    #[error("the weights of the bundle")]
    Weights(#[from] WeightsError),
    /// Nothing can be written there.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The network cannot be written as ONNX, or the file not run.
    #[error(transparent)]
    Onnx(#[from] OnnxError),
    /// A file of an exported bundle does not answer as it should.
    #[error("`{path}` fails the bundle's self-test: {reason}", path = path.display())]
    SelfTest {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// An export that was not handed out.
    #[error("the export to `{path}` was refused and nothing of it kept", path = path.display())]
    Refused {
        /// The folder that was asked for.
        path: PathBuf,
        /// Which file is wrong, and how.
        source: Box<BundleError>,
    },
}

impl Bundle {
    /// A description; [`Bundle::write`] puts it beside the weights.
    pub fn new(
        model: ClassifierConfig,
        classes: Vec<String>,
        class_kind: ClassKind,
        preprocessing: Preprocessing,
        about: BTreeMap<String, String>,
    ) -> Self {
        let harvest = env!("CARGO_PKG_VERSION").to_owned();
        Self { format: FORMAT, harvest, model, classes, class_kind, preprocessing, confidence: None, about }
    }

    /// What the network says of an image with these logits: calibrated, and abstaining where it should.
    pub fn predict(&self, logits: &[f32]) -> Prediction {
        match &self.confidence {
            Some(confidence) => confidence.predict(logits),
            None => Prediction::from_logits(logits),
        }
    }

    /// What [`Self::about`] says of the networks this one learned from: name and fact of each.
    pub fn members(&self) -> impl Iterator<Item = (&str, &str)> {
        let facts = self.about.iter().map(|(key, fact)| (key.as_str(), fact.as_str()));
        facts.filter(|(key, _)| key.starts_with("member "))
    }

    /// What logits are divided by before they become probabilities.
    pub(super) fn temperature(&self) -> f32 {
        self.confidence.as_ref().map_or(1.0, |confidence| confidence.temperature as f32)
    }

    /// Writes the folder, replacing a bundle that is there.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub fn write(&self, folder: &Path, network: &Classifier) -> Result<(), BundleError> {
        std::fs::create_dir_all(folder).map_err(WriteError::at(folder))?;
        network.save_safetensors(&folder.join(WEIGHTS))?;
        let text = serde_json::to_string_pretty(self).expect("a bundle's description is plain data");
        Ok(atomic_write(&folder.join(CONFIG), text.as_bytes())?)
    }

    /// Reads the folder; the network is on `device`.
    ///
    /// # Errors
    /// If there is no bundle, it is of another format, or its weights are not its network's.
    pub fn read(folder: &Path, device: &Device) -> Result<(Self, Classifier), BundleError> {
        let bundle = Self::describe(folder)?;
        let mut network = bundle.model.blank(device)?;
        network.load_safetensors(&folder.join(WEIGHTS))?;
        Ok((bundle, network))
    }

    /// Reads what the folder says of itself, without the weights.
    ///
    /// # Errors
    /// If there is no bundle, or it is of another format.
    pub fn describe(folder: &Path) -> Result<Self, BundleError> {
        let path = folder.join(CONFIG);
        let text = std::fs::read_to_string(&path)
            .map_err(|source| BundleError::Missing { path: folder.to_owned(), source })?;
        let format = |reason: String| BundleError::Format { path: path.clone(), reason };
        let bundle: Self = serde_json::from_str(&text).map_err(|error| format(error.to_string()))?;
        if bundle.format != FORMAT {
            return Err(format(format!("it is of format {}", bundle.format)));
        }
        if bundle.classes.len() != bundle.model.classes() {
            let reason =
                format!("{} class names for {} logits", bundle.classes.len(), bundle.model.classes());
            return Err(format(reason));
        }
        Ok(bundle)
    }
}

#[cfg(test)]
mod tests {
    use harvest_models::Mode;

    use super::*;
    use crate::inference::testing::{bundle, images};

    fn logits(network: &Classifier) -> Vec<f32> {
        network.detached().forward(images(16), Mode::Evaluate).logits.into_data().iter::<f32>().collect()
    }

    fn refused(folder: &Path) -> BundleError {
        Bundle::read(folder, &Device::flex()).map(|_| ()).expect_err("it is no usable bundle")
    }

    #[test]
    fn a_bundle_brings_back_every_bit() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for name in ["resnet8", "vit"] {
            let (written, network) = bundle(name);
            // The second replaces the first.
            written.write(folder.path(), &network).expect("the folder is writable");
            let (read, loaded) = Bundle::read(folder.path(), &Device::flex()).expect("its own folder");
            assert_eq!(read, written);
            assert_eq!(loaded.to_tensors(), network.to_tensors());
            assert_eq!(logits(&loaded), logits(&network));
        }
    }

    #[test]
    fn a_folder_without_a_bundle_is_named() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let nowhere = folder.path().join("nowhere");
        for folder in [folder.path(), nowhere.as_path()] {
            let error = refused(folder);
            assert!(matches!(error, BundleError::Missing { .. }), "{error:?}");
            assert!(error.to_string().contains(&*folder.to_string_lossy()), "{error}");
        }
        let (bundle, network) = bundle("vit");
        bundle.write(folder.path(), &network).expect("the folder is writable");
        std::fs::remove_file(folder.path().join(WEIGHTS)).expect("just written");
        assert!(matches!(refused(folder.path()), BundleError::Weights(WeightsError::Read { .. })));
    }

    #[test]
    fn another_format_is_refused() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (bundle, network) = bundle("vit");
        bundle.write(folder.path(), &network).expect("the folder is writable");
        let path = folder.path().join(CONFIG);
        let sound = std::fs::read_to_string(&path).expect("just written");
        for (from, to, word) in [
            ("\"format\": 1", "\"format\": 2", "format 2"),
            ("\"wasp\",", "", "2 class names for 3 logits"),
            ("\"size\": 16", "\"size\": \"large\"", "config.json"),
            ("{", "", "config.json"),
        ] {
            let changed = sound.replacen(from, to, 1);
            assert_ne!(changed, sound);
            std::fs::write(&path, changed).expect("writable");
            let error = refused(folder.path());
            assert!(matches!(error, BundleError::Format { .. }), "{error:?}");
            assert!(error.to_string().contains(word), "{error}");
        }
        std::fs::write(&path, sound.replacen("\"dim\": 12", "\"dim\": 13", 1)).expect("writable");
        assert!(matches!(refused(folder.path()), BundleError::Model(_)));
    }

    #[test]
    fn foreign_or_damaged_weights_are_refused() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (own, network) = bundle("vit");
        own.write(folder.path(), &network).expect("the folder is writable");
        let path = folder.path().join(WEIGHTS);
        let sound = std::fs::read(&path).expect("just written");
        bundle("resnet8").1.save_safetensors(&path).expect("writable");
        let error = refused(folder.path());
        assert!(matches!(error, BundleError::Weights(WeightsError::Missing { .. })), "{error:?}");
        std::fs::write(&path, &sound[..sound.len() - 1]).expect("writable");
        let error = refused(folder.path());
        assert!(matches!(error, BundleError::Weights(WeightsError::Format { .. })), "{error:?}");
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_named() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("file");
        std::fs::write(&file, b"").expect("writable");
        let (bundle, network) = bundle("vit");
        // Below a file there can be no folder, whoever asks.
        let error = bundle.write(&file.join("bundle"), &network).expect_err("it cannot be made");
        assert!(matches!(error, BundleError::Write(_)), "{error:?}");
        assert!(error.to_string().contains(&*file.to_string_lossy()), "{error}");
    }
}
