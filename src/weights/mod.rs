//! Weights to start from: files, and a store of files by name.
//!
//! A stored file was read whole once and is kept as safetensors under the names its maker gave; beside it a small JSON file
//! tells where it came from and what it must hash to. The store is `$HARVEST_WEIGHTS`, else `harvest/weights` in the user's
//! data folder.

mod store;

use std::path::{Path, PathBuf};

use harvest_models::checkpoint::{CheckpointError, read_weights};
use harvest_models::{Classifier, LoadOptions, LoadReport, PretrainedError};

pub use store::{Entry, Store};

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
         `harvest weights add {name} FILE`"
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
    /// A file of the store cannot be read.
    #[error("cannot read `{path}` in the store of weights", path = path.display())]
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
    #[error("`{path}`", path = path.display())]
    Misfit {
        /// The file.
        path: PathBuf,
        /// Why.
        source: PretrainedError,
    },
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
