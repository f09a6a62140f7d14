//! A bundle: all that is needed to classify an image, in one folder.
//!
//! ```text
//! bundle/
//!   model.safetensors   weights under PyTorch's names (timm, torchvision)
//!   config.json         network, classes, preprocessing, and what is known of the model
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use harvest_models::{Classifier, ClassifierConfig, ConfigError, WeightsError};
use serde::{Deserialize, Serialize};

use crate::augment::Normalisation;
use crate::data::ClassKind;
use crate::files::{WriteError, atomic_write};

/// Version of the format; others are refused.
const FORMAT: u32 = 1;
const WEIGHTS: &str = "model.safetensors";
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
        Self { format: FORMAT, harvest, model, classes, class_kind, preprocessing, about }
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
        let mut network = bundle.model.blank(device)?;
        network.load_safetensors(&folder.join(WEIGHTS))?;
        Ok((bundle, network))
    }
}
