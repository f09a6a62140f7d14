//! Classifies images with an exported bundle on small devices: no training, no GPU, no threads.
//!
//! ```text
//! file ──picture──▶ upright RGB ──fit──▶ size × size ──graph──▶ logits ──decide──▶ class, confidence, abstained
//! ```
//!
//! [`Graph`] is a small ONNX runner: operators in `ops/`, checked when loaded, merged where several always go together,
//! values dropped after their last use. Decoding and resizing are those of training. A hostile model or image is an
//! error, never a panic, and costs no more than [`Limits`].

mod bundle;
mod decision;
mod error;
mod graph;
mod merge;
mod ops;
mod preprocess;
mod run;
mod tensor;
#[cfg(target_arch = "wasm32")]
mod wasm;
mod weights;

use std::path::Path;

pub use bundle::{BundleError, Confidence, Config, Normalisation, Preprocessing, Weights};
pub use decision::{Prediction, decide};
pub use error::{Limits, ModelError, OpError};
pub use graph::{Graph, Input};
pub use harvest_picture::{DecodeError, DecodeLimits};
pub use tensor::{Data, Element, Tensor};

/// A bundle, ready to classify.
#[derive(Debug)]
pub struct Classifier {
    config: Config,
    graph: Graph,
    /// Place of the logits among the outputs.
    logits: usize,
}

/// Why an image has no prediction.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClassifyError {
    /// The file is no usable image.
    #[error(transparent)]
    Image(#[from] DecodeError),
    /// The model failed on it.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The model's answer cannot be read.
    #[error("the model answered {found} numbers for {classes} classes")]
    Classes {
        /// Numbers of the answer.
        found: usize,
        /// Class names in the bundle.
        classes: usize,
    },
    /// Weights or image lead to no numbers.
    #[error("the model's answer is no number; its weights are damaged")]
    NotANumber,
}

impl Classifier {
    /// Reads a bundle's folder.
    ///
    /// # Errors
    /// If a file is missing, or is not what it should be.
    pub fn open(folder: &Path, weights: Weights) -> Result<Self, BundleError> {
        Self::from_bytes(&bundle::read(folder, "config.json")?, &bundle::read(folder, weights.file())?)
    }

    /// Of the content of a bundle's files.
    ///
    /// # Errors
    /// If one is not what it should be.
    pub fn from_bytes(config: &[u8], model: &[u8]) -> Result<Self, BundleError> {
        let config = Config::parse(config)?;
        let graph = Graph::load(model, Limits::default())?;
        let named = graph.outputs().position(|name| name == "logits");
        // Models of other exporters have one output, whatever it is called.
        let logits = named.or((graph.outputs().count() == 1).then_some(0));
        let logits = logits.ok_or_else(|| ModelError::NoOutput("logits".into()))?;
        Ok(Self { config, graph, logits })
    }

    /// What the bundle says of itself.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The model.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Classifies the content of an image file.
    ///
    /// # Errors
    /// If it is no usable image, or the model is damaged.
    pub fn classify(&self, file: &[u8]) -> Result<Prediction, ClassifyError> {
        let image = harvest_picture::decode(file, &DecodeLimits::default())?;
        let input = self.graph.input();
        let batch = preprocess::batch(image, &self.config.preprocessing, input)
            .map_err(|error| ModelError::Input { name: input.name.clone(), reason: error.to_string() })?;
        let outputs = self.graph.run(batch)?;
        let logits = outputs[self.logits]
            .floats()
            .map_err(|error| ModelError::Input { name: "logits".into(), reason: error.to_string() })?;
        let classes = self.config.classes.len();
        if logits.len() != classes {
            return Err(ClassifyError::Classes { found: logits.len(), classes });
        }
        decide(logits, self.config.confidence).ok_or(ClassifyError::NotANumber)
    }

    /// Classifies an image file.
    ///
    /// # Errors
    /// As [`Classifier::classify`].
    pub fn classify_file(&self, path: &Path) -> Result<Prediction, ClassifyError> {
        self.classify(&harvest_picture::read_file(path, &DecodeLimits::default())?)
    }
}
