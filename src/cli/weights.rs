//! `harvest weights`: published weights to start from, by name.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use clap::Subcommand;
use harvest_models::checkpoint::read_weights;
use harvest_models::{ClassifierConfig, LoadOptions, LoadReport};

use crate::report::thousands;
use crate::weights::{Store, find, start_from};

/// Keep published weights to start from, by name.
#[derive(Debug, Subcommand)]
pub enum Weights {
    /// Read a weight file (.safetensors, .pth, .pt or .bin) whole and keep it under a name.
    ///
    /// Nothing in the file is run, and nothing is kept of a damaged one.
    Add {
        /// Name to keep it under.
        name: String,
        /// The file.
        file: PathBuf,
        /// Preset that the weights must fit, such as resnet50.
        #[arg(long, value_name = "PRESET")]
        model: Option<String>,
    },
    /// List what is kept.
    List,
    /// Show every tensor of a weight file, or what would become of each in a network.
    Show {
        /// A name of the list, or a file.
        #[arg(value_name = "NAME|FILE")]
        weights: PathBuf,
        /// Preset to load them into.
        #[arg(long, value_name = "PRESET")]
        model: Option<String>,
    },
}

impl Weights {
    pub fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Add { name, file, model } => {
                let report = model.as_deref().map(|model| fits(&file, model)).transpose()?;
                let store = Store::of_this_user()?;
                let entry = store.add(&name, &file, model.as_deref())?;
                let values = thousands(entry.values as u64);
                println!("{}: {} tensors, {values} values ({})", entry.name, entry.tensors, entry.format);
                if let Some(report) = report {
                    println!("fits {}: {}", model.unwrap_or_default(), report.summary());
                }
                println!("kept in {}", store.file(&entry.name).display());
            }
            Self::List => {
                let store = Store::of_this_user()?;
                let entries = store.list()?;
                let width = entries.iter().map(|entry| entry.name.len()).max().unwrap_or(0);
                for entry in &entries {
                    let values = thousands(entry.values as u64);
                    let model = entry.model.as_deref().unwrap_or("");
                    println!("{:width$}  {values:>13} values  {model}  from {}", entry.name, entry.origin);
                }
                if entries.is_empty() {
                    println!("nothing in {}; `harvest weights add NAME FILE`", store.folder().display());
                }
            }
            Self::Show { weights, model: Some(model) } => print!("{}", fits(&weights, &model)?),
            Self::Show { weights, model: None } => {
                let weights = read_weights(&find(&weights)?)?;
                let width = weights.tensors.keys().map(|name| name.chars().count()).max().unwrap_or(0);
                for (name, data) in &weights.tensors {
                    println!("{name:width$}  {:?} {:?}", data.dtype(), data.shape().to_vec());
                }
                println!("{} tensors ({})", weights.tensors.len(), weights.format);
            }
        }
        Ok(())
    }
}

/// What becomes of each tensor in a network of that preset, with a new classifier.
fn fits(weights: &Path, model: &str) -> anyhow::Result<LoadReport> {
    let mut network = ClassifierConfig::preset(model, 2)?.blank(&Device::flex())?;
    Ok(start_from(&mut network, weights, LoadOptions::default())?)
}
