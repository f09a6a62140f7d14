//! What the program needs of an exported bundle: `config.json` and one of its ONNX files.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::ModelError;

/// Which of a bundle's models is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Weights {
    /// `model.onnx`, 32-bit numbers.
    #[default]
    Float,
    /// `model.int8.onnx`, a quarter of the size.
    Int8,
}

impl Weights {
    /// The file's name in the bundle.
    pub fn file(self) -> &'static str {
        match self {
            Self::Float => "model.onnx",
            Self::Int8 => "model.int8.onnx",
        }
    }
}

/// `config.json`, as far as it matters here; other fields are for other programs.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Config {
    format: u32,
    /// Class names in the order of the model's numbers.
    pub classes: Vec<String>,
    /// From image to input.
    pub preprocessing: Preprocessing,
    /// What confidences mean. Without it the model's own are told, and every image gets an answer.
    #[serde(default)]
    pub confidence: Confidence,
}

/// From logits to a confidence that can be taken at its word.
#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize)]
pub struct Confidence {
    /// Logits are divided by it. Without it: 1.
    pub temperature: Option<f64>,
    /// A confidence below it is no answer. Without it there always is one.
    pub reject_below: Option<f64>,
}

/// How an image becomes the model's input.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Preprocessing {
    /// Side of the square in pixels.
    pub size: u32,
    /// Resampling, as Pillow names it.
    pub resize: String,
    /// For models that take normalised numbers in place of bytes.
    #[serde(default)]
    pub normalisation: Option<Normalisation>,
}

/// `(level / 255 − mean) / std` for each channel.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub struct Normalisation {
    /// Subtracted.
    pub mean: [f32; 3],
    /// Divided by.
    pub std: [f32; 3],
}

/// Why a bundle cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// A file is not there, or not readable.
    #[error("`{path}` cannot be read ({source}); name a folder that `harvest export` made")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The description is not of this form.
    #[error("`config.json` of the bundle: {0}")]
    Config(String),
    /// The model.
    #[error("the model of the bundle: {0}")]
    Model(#[from] ModelError),
}

impl Config {
    /// Reads and checks the description.
    ///
    /// # Errors
    /// If it is not JSON, of another format, or impossible.
    pub fn parse(text: &[u8]) -> Result<Self, BundleError> {
        let refused = |reason: String| Err(BundleError::Config(reason));
        let config: Self =
            serde_json::from_slice(text).map_err(|error| BundleError::Config(error.to_string()))?;
        if config.format != 1 {
            return refused(format!("it is of format {}, not 1; export it with this version", config.format));
        }
        if config.classes.is_empty() {
            return refused("it names no classes".into());
        }
        let Preprocessing { size, resize, normalisation } = &config.preprocessing;
        if !(1..=4096).contains(size) {
            return refused(format!("images of {size} × {size} pixels; 1 to 4096 are possible"));
        }
        if resize != harvest_picture::FIT_FILTER {
            return refused(format!(
                "resizing `{resize}` is not known, only `{}`",
                harvest_picture::FIT_FILTER
            ));
        }
        let usable = |value: f64| value.is_finite() && value > 0.0;
        if normalisation.is_some_and(|n| {
            !n.std.iter().all(|&std| usable(f64::from(std))) || !n.mean.iter().all(|m| m.is_finite())
        }) {
            return refused("its normalisation has no usable numbers".into());
        }
        if let Some(temperature) = config.confidence.temperature.filter(|&temperature| !usable(temperature)) {
            return refused(format!("temperature {temperature} is not above 0"));
        }
        if let Some(least) = config.confidence.reject_below.filter(|least| !(0.0..=1.0).contains(least)) {
            return refused(format!("`reject_below` is {least}, no confidence from 0 to 1"));
        }
        Ok(config)
    }
}

/// Reads a file of the bundle.
pub(crate) fn read(folder: &Path, file: &str) -> Result<Vec<u8>, BundleError> {
    let path = folder.join(file);
    std::fs::read(&path).map_err(|source| BundleError::Read { path, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOUND: &str = r#"{"format": 1, "harvest": "9.9", "model": {"vit": {}}, "classes": ["bee", "wasp"],
        "class_kind": "categorical", "about": {}, "confidence": {"temperature": 1.5, "reject_below": 0.6, "images": 90},
        "preprocessing": {"size": 32, "resize": "bilinear", "normalisation": {"mean": [0, 0, 0], "std": [1, 1, 1]}}}"#;

    #[test]
    fn fields_of_other_programs_do_no_harm() {
        let config = Config::parse(SOUND.as_bytes()).expect("sound");
        assert_eq!(
            (config.confidence.temperature, config.confidence.reject_below, config.classes.len()),
            (Some(1.5), Some(0.6), 2)
        );
        let plain =
            SOUND.replace(r#""confidence": {"temperature": 1.5, "reject_below": 0.6, "images": 90},"#, "");
        let config = Config::parse(plain.as_bytes()).expect("both may be absent");
        assert_eq!(config.confidence, Confidence::default());
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        for (from, to, word) in [
            ("\"format\": 1", "\"format\": 2", "format 2"),
            ("[\"bee\", \"wasp\"]", "[]", "classes"),
            ("\"size\": 32", "\"size\": 0", "0 × 0"),
            ("bilinear", "lanczos", "lanczos"),
            ("\"std\": [1, 1, 1]", "\"std\": [1, 0, 1]", "normalisation"),
            ("\"temperature\": 1.5", "\"temperature\": 0", "temperature"),
            ("\"reject_below\": 0.6", "\"reject_below\": 60", "reject_below"),
            ("{", "[", "config.json"),
        ] {
            let error =
                Config::parse(SOUND.replacen(from, to, 1).as_bytes()).expect_err("refused").to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
