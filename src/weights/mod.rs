//! Weights to start from: files, and a store of files by name, into which published ones can be fetched.
//!
//! A stored file was read whole once and is kept as safetensors under the names its maker gave; beside it a small JSON file
//! tells where it came from and what it must hash to. The store is `$HARVEST_WEIGHTS`, else `harvest/weights` in the user's
//! data folder.

mod download;
mod fetch;
mod known;
mod store;

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use harvest_models::checkpoint::{CheckpointError, Weights, read_weights};
use harvest_models::{Classifier, ClassifierConfig, ConfigError, LoadOptions, LoadReport, PretrainedError};

pub use download::{DownloadError, Limits};
pub use fetch::{Checksum, FetchError, Fetched, Wanted};
pub use known::{KNOWN, Known, known};
pub use store::{Added, Entry, Store};

use crate::files::WriteError;

/// Weights that cannot be stored, found or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WeightsError {
    /// The file.
    #[error(transparent)]
    File(#[from] CheckpointError),
    /// Neither a file nor a name in the store.
    #[error(
        "there is no weight file `{path}` and none stored as `{name}`; stored are: {known}; store one with \
         `harvest weights add {name} FILE`, or {}",
        fetching(name)
    )]
    Unknown {
        /// As configured, from the current folder.
        path: PathBuf,
        /// Its last part.
        name: String,
        /// Stored names, in words.
        known: String,
    },
    /// No such name in the store.
    #[error("no weights are stored as `{name}`; stored are: {known}")]
    NotStored {
        /// As asked for.
        name: String,
        /// Stored names, in words.
        known: String,
    },
    /// A name that could be taken for something else.
    #[error(
        "`{name}` is no name for weights: use letters, digits, `-`, `_` and `.`, beginning with a letter or digit"
    )]
    Name {
        /// As asked for.
        name: String,
    },
    /// There is one already.
    #[error("weights are already stored as `{name}`, from {origin}; choose another name, or delete `{path}`", path = path.display())]
    Taken {
        /// As asked for.
        name: String,
        /// Where those came from.
        origin: String,
        /// Their file.
        path: PathBuf,
    },
    /// A tensor that is no number.
    #[error("`{tensor}` in `{path}` holds {value}; the file is damaged or its training diverged", path = path.display())]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// Its name.
        tensor: String,
        /// The first such value.
        value: f32,
    },
    /// Not what was stored.
    #[error("the stored weights `{path}` have changed since they were stored; store them again from their source", path = path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// A file cannot be read.
    #[error("cannot read `{path}`", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Nowhere to keep weights.
    #[error("there is no folder for weights: set HARVEST_WEIGHTS")]
    NoFolder,
    /// Writing.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// They are not this network's.
    #[error("`{path}`{}", hint(source), path = path.display())]
    Misfit {
        /// The file.
        path: PathBuf,
        /// Why.
        source: PretrainedError,
    },
    /// The network that they should fit.
    #[error("`{model}`")]
    Preset {
        /// As asked for.
        model: String,
        /// Why there is none.
        source: ConfigError,
    },
}

/// How to get weights of that name from their publisher.
fn fetching(name: &str) -> String {
    match known(name) {
        Some(_) => format!("fetch it with `harvest weights fetch {name}`"),
        None => {
            format!("fetch published ones with `harvest weights fetch` ({}, or any address)", known::names())
        }
    }
}

/// What can be done about weights that do not fit; nothing about damaged ones.
fn hint(error: &PretrainedError) -> &'static str {
    match error {
        PretrainedError::Misfit { .. } => {
            " (`--allow-unexpected`, or `model.allow_unexpected = true`, leaves out what does not fit)"
        }
        _ => "",
    }
}

/// The file that `named` means: that file, else the one stored under the last part of `named`, which is how a name in a
/// configuration looks once it has been taken from its folder.
///
/// # Errors
/// If there is neither.
pub fn find(named: &Path) -> Result<PathBuf, WeightsError> {
    if named.is_file() {
        return Ok(named.to_owned());
    }
    let name = named.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let store = Store::of_this_user()?;
    match store.get(&name) {
        Ok(entry) => Ok(store.file(&entry.name)),
        Err(WeightsError::NotStored { known, .. }) => {
            Err(WeightsError::Unknown { path: named.to_owned(), name, known })
        }
        Err(other) => Err(other),
    }
}

/// Starts `network` from the weights that `named` means; see [`find`].
///
/// # Errors
/// If they are not found, damaged or not this network's.
pub fn start_from(
    network: &mut Classifier,
    named: &Path,
    options: LoadOptions,
) -> Result<LoadReport, WeightsError> {
    let path = find(named)?;
    if let Ok(store) = Store::of_this_user()
        && path.parent() == Some(store.folder())
    {
        store.check(&path)?;
    }
    let weights = read_weights(&path)?;
    network.load_pretrained(&weights.tensors, options).map_err(|source| WeightsError::Misfit { path, source })
}

/// What becomes of each of `weights`, which are those of `file`, in a network of the preset `model` with a new classifier.
fn fit(
    weights: &Weights,
    file: &Path,
    model: &str,
    options: LoadOptions,
) -> Result<LoadReport, WeightsError> {
    let network = ClassifierConfig::preset(model, 2).and_then(|config| config.blank(&Device::flex()));
    let mut network = network.map_err(|source| WeightsError::Preset { model: model.to_owned(), source })?;
    let loaded = network.load_pretrained(&weights.tensors, options);
    loaded.map_err(|source| WeightsError::Misfit { path: file.to_owned(), source })
}

/// BLAKE3 of a file's content.
///
/// # Errors
/// If it cannot be read.
pub fn content(file: &Path) -> Result<blake3::Hash, WeightsError> {
    let mut hasher = blake3::Hasher::new();
    let read = std::fs::File::open(file).and_then(|open| hasher.update_reader(open).map(|_| ()));
    read.map_err(|source| WeightsError::Read { path: file.to_owned(), source })?;
    Ok(hasher.finalize())
}
