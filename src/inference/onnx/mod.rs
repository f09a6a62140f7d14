//! A trained network as an ONNX graph: from the bytes of resized images to logits and probabilities.
//!
//! ```text
//! images u8 [batch, size, size, 3] ─ normalise ─ network ─┬─▶ logits [batch, classes]
//!                                                        └─ / temperature ─ softmax ─▶ probabilities
//! ```
//!
//! One file for each family says which nodes stand for its layers; constants carry PyTorch's names. Only common operators
//! of operator set 17 are used, so that small runners can run the graph. Resizing is not part of it: what a runner must do
//! before is told in the model's metadata.

mod convnext;
mod efficientnet;
mod graph;
mod lowering;
mod quantise;
mod resnet;
mod run;
mod vit;

use std::path::{Path, PathBuf};

use harvest_models::{ClassifierConfig, NamedTensors};
use harvest_onnx::ModelProto;
use harvest_onnx::prost::Message;
use harvest_onnx::tensor_proto::DataType;

use super::Preprocessing;
use crate::augment::Normalisation;
use crate::files::{WriteError, atomic_write};
use graph::{Axis, int, port};
use lowering::Lowering;

pub use quantise::{Quantised, quantise};
pub use run::run_onnx;

const IMAGES: &str = "images";
const LOGITS: &str = "logits";
const PROBABILITIES: &str = "probabilities";

/// How matrices and kernels are stored; everything else is in single precision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// As they are.
    Float32,
    /// In eight bits with a scale for each output channel; computed with in single precision.
    Int8,
}

/// A network as a graph.
#[derive(Debug)]
pub struct OnnxModel {
    model: ModelProto,
    /// The weights that the graph computes with: the network's own, or what their eight bits stand for.
    pub effective: NamedTensors,
}

/// What surrounds a network: from an image's bytes to its input, from logits to probabilities.
#[derive(Debug, Clone, Copy)]
pub struct Surroundings<'a> {
    /// Resizing, told in the metadata, and normalisation, part of the graph.
    pub preprocessing: &'a Preprocessing,
    /// Class names in the order of the logits.
    pub classes: &'a [String],
    /// Logits are divided by it before they become probabilities.
    pub temperature: f32,
}

impl OnnxModel {
    /// The graph of the network `config` with the weights `tensors`.
    ///
    /// # Errors
    /// If a weight is missing, of another rank, or no number.
    pub fn new(
        config: &ClassifierConfig,
        tensors: &NamedTensors,
        surroundings: Surroundings<'_>,
        storage: Storage,
    ) -> Result<Self, OnnxError> {
        let mut lowering = Lowering::new(tensors, storage);
        let images = normalise(&mut lowering, &surroundings.preprocessing.normalisation);
        match config {
            ClassifierConfig::Vit(config) => vit::lower(config, &mut lowering, &images)?,
            ClassifierConfig::ResNet(config) => resnet::lower(config, &mut lowering, &images)?,
            ClassifierConfig::EfficientNet(config) => efficientnet::lower(config, &mut lowering, &images)?,
            ClassifierConfig::ConvNext(config) => convnext::lower(config, &mut lowering, &images)?,
        }
        let Lowering { mut graph, effective, .. } = lowering;
        let temperature = graph.floats("temperature", &[], &[surroundings.temperature]);
        let scaled = graph.node("Div", &[LOGITS, &temperature], Vec::new());
        graph.named("Softmax", &[&scaled], vec![int("axis", -1)], PROBABILITIES);
        let (batch, classes) = (Axis::Named("batch"), Axis::Fixed(config.classes()));
        let side = Axis::Fixed(surroundings.preprocessing.size as usize);
        let inputs = vec![port(IMAGES, DataType::Uint8, &[batch, side, side, Axis::Fixed(3)])];
        let outputs = [LOGITS, PROBABILITIES].map(|name| port(name, DataType::Float, &[batch, classes]));
        let model = graph.into_model(inputs, outputs.to_vec(), metadata(surroundings));
        Ok(Self { model, effective })
    }

    /// Writes the file; what was there is replaced whole.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), WriteError> {
        atomic_write(path, &self.model.encode_to_vec())
    }
}

/// `[B, H, W, 3]` bytes → `[B, 3, H, W]`, `(level − 255 mean) / (255 std)`.
fn normalise(lowering: &mut Lowering<'_>, normalisation: &Normalisation) -> String {
    let graph = &mut lowering.graph;
    let mean = normalisation.mean.map(|mean| mean * 255.0);
    let scale = normalisation.std.map(|std| 1.0 / (std * 255.0));
    let mean = graph.floats("mean", &[1, 3, 1, 1], &mean);
    let scale = graph.floats("1 / std", &[1, 3, 1, 1], &scale);
    let levels = graph.node("Cast", &[IMAGES], vec![int("to", DataType::Float as i64)]);
    let levels = graph.transpose(&levels, &[0, 3, 1, 2]);
    let centred = graph.node("Sub", &[&levels, &mean], Vec::new());
    graph.node("Mul", &[&centred, &scale], Vec::new())
}

/// What a program needs that has only this file.
fn metadata(surroundings: Surroundings<'_>) -> Vec<(&'static str, String)> {
    let Preprocessing { size, resize, normalisation } = surroundings.preprocessing;
    let json = |value: serde_json::Value| value.to_string();
    vec![
        ("size", size.to_string()),
        ("resize", resize.clone()),
        ("mean", json(serde_json::json!(normalisation.mean))),
        ("std", json(serde_json::json!(normalisation.std))),
        ("classes", json(serde_json::json!(surroundings.classes))),
    ]
}

/// Why a network cannot become an ONNX file, or the file cannot be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OnnxError {
    /// The weights lack a tensor.
    #[error("the weight `{name}` is missing")]
    Missing {
        /// PyTorch's name.
        name: String,
    },
    /// A weight has more or fewer axes than its layer.
    #[error("the weight `{name}` has shape {found:?}, it needs {rank} axes")]
    Rank {
        /// PyTorch's name.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// Axes it should have.
        rank: usize,
    },
    /// A weight is infinite or no number.
    #[error("the weight `{name}` holds {value}; such a model gives no answers, train it anew")]
    NotFinite {
        /// PyTorch's name.
        name: String,
        /// What it holds.
        value: f32,
    },
    /// The file is no ONNX file, or one that cannot be run.
    #[error("`{path}` cannot be run: {reason}", path = path.display())]
    Run {
        /// The file.
        path: PathBuf,
        /// What the runtime says.
        reason: String,
    },
}

#[cfg(test)]
mod tests;
