//! Everything a run needs to go on as if never interrupted, on disk.
//!
//! ```text
//! checkpoints/
//!   step-000000500/   model, ema, optimizer, algorithm .safetensors; state.json
//!   last              name of the newest complete folder
//!   best              name of the folder with the best evaluation
//! ```
//!
//! A folder is written under another name, flushed and renamed; then `last` is replaced in the same way. A kill at any
//! moment leaves the old checkpoint or the new one. Order of images and random streams are functions of the step, so the
//! step is all that is kept of them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use harvest_models::{NamedTensors, WeightsError, read_safetensors, write_safetensors};
use serde::{Deserialize, Serialize};

use crate::files::{WriteError, atomic_write, publish_folder};

const STATE: &str = "state.json";

/// What is known beside tensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// Steps done.
    pub step: u64,
    /// Best accuracy on the evaluation images so far, and after how many steps.
    pub best: Option<(f64, u64)>,
    /// Seconds spent in training, over all sessions of the run.
    pub seconds: f64,
    /// Identifies network, classes and algorithm; a checkpoint of another is refused.
    pub kind: String,
}

/// One checkpoint.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// Where the run stands.
    pub progress: Progress,
    /// Weights and running statistics.
    pub model: NamedTensors,
    /// The averaged network.
    pub ema: NamedTensors,
    /// State of the optimizer.
    pub optimizer: NamedTensors,
    /// State of the algorithm.
    pub algorithm: NamedTensors,
}

/// Why a checkpoint cannot be written or used. A run never goes on without it as if it were new.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// Something cannot be written.
    #[error("the checkpoint was not saved; the one before it is untouched")]
    Write(#[from] WriteError),
    /// Tensors cannot be written or read.
    #[error("the checkpoint `{path}`", path = path.display())]
    Tensors {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: WeightsError,
    },
    /// A file cannot be read.
    #[error("cannot read the checkpoint `{path}`; restore it, or start anew with --fresh", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A file is not what was written.
    #[error("the checkpoint `{path}` is damaged: {reason}; restore it, or start anew with --fresh", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// In what way.
        reason: String,
    },
    /// Of another network, class count or algorithm.
    #[error("the checkpoint `{path}` is of {found}, this run is of {expected}; start anew with --fresh", path = path.display())]
    OtherModel {
        /// The folder.
        path: PathBuf,
        /// What it is of.
        found: String,
        /// What it should be of.
        expected: String,
    },
    /// It does not fit, although it says it does.
    #[error("the checkpoint does not fit: {0}")]
    Misfit(String),
}

/// The checkpoints of one run.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    folder: PathBuf,
}

impl Checkpoints {
    /// Those in `folder`, which is made if needed.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn open(folder: &Path) -> Result<Self, CheckpointError> {
        std::fs::create_dir_all(folder).map_err(WriteError::at(folder))?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// Saves a checkpoint as the newest one, and as the best one if `is_best`. Removes folders nothing points to.
    ///
    /// # Errors
    /// If anything cannot be written; earlier checkpoints are then untouched.
    pub fn save(&self, checkpoint: &Checkpoint, is_best: bool) -> Result<(), CheckpointError> {
        let name = format!("step-{:09}", checkpoint.progress.step);
        let writing = self.folder.join(format!(".writing-{name}"));
        let fresh = || -> std::io::Result<()> {
            if writing.exists() {
                std::fs::remove_dir_all(&writing)?;
            }
            std::fs::create_dir(&writing)
        };
        fresh().map_err(WriteError::at(&writing))?;
        let written = self.fill(&writing, checkpoint);
        if written.is_err() {
            // Half a checkpoint is of no use, and on a full disk it is in the way.
            let _ = std::fs::remove_dir_all(&writing);
        }
        written?;
        let folder = self.folder.join(&name);
        if folder.exists() {
            // The same step of a run that was resumed from before it: same content, written once more.
            std::fs::remove_dir_all(&folder).map_err(WriteError::at(&folder))?;
        }
        publish_folder(&writing, &folder)?;
        if is_best {
            atomic_write(&self.folder.join("best"), name.as_bytes())?;
        }
        atomic_write(&self.folder.join("last"), name.as_bytes())?;
        self.remove_unreferenced();
        Ok(())
    }

    fn fill(&self, folder: &Path, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
        for (name, tensors) in [
            ("model", &checkpoint.model),
            ("ema", &checkpoint.ema),
            ("optimizer", &checkpoint.optimizer),
            ("algorithm", &checkpoint.algorithm),
        ] {
            let path = folder.join(format!("{name}.safetensors"));
            write_safetensors(&path, tensors, HashMap::new())
                .map_err(|source| CheckpointError::Tensors { path: folder.to_owned(), source })?;
            let flush = std::fs::File::open(&path).and_then(|file| file.sync_all());
            flush.map_err(WriteError::at(&path))?;
        }
        let state = serde_json::to_vec_pretty(&checkpoint.progress).expect("progress is plain data");
        Ok(atomic_write(&folder.join(STATE), &state)?)
    }

    /// The newest checkpoint, if there is one.
    ///
    /// # Errors
    /// If there is one that cannot be used.
    pub fn last(&self, kind: &str) -> Result<Option<Checkpoint>, CheckpointError> {
        self.named("last").map(|folder| folder.map(|folder| read(&folder, kind)).transpose())?
    }

    /// The averaged network of the best checkpoint, else of the newest.
    ///
    /// # Errors
    /// If there is none, or it cannot be used.
    pub fn best_network(&self, kind: &str) -> Result<Checkpoint, CheckpointError> {
        let best = self.named("best")?.map_or_else(|| self.named("last"), |best| Ok(Some(best)))?;
        let folder = best.ok_or_else(|| CheckpointError::Read {
            path: self.folder.join("last"),
            source: std::io::ErrorKind::NotFound.into(),
        })?;
        read(&folder, kind)
    }

    /// The folder that the file `pointer` names.
    fn named(&self, pointer: &str) -> Result<Option<PathBuf>, CheckpointError> {
        let path = self.folder.join(pointer);
        match std::fs::read_to_string(&path) {
            Ok(name) => Ok(Some(self.folder.join(name.trim()))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(CheckpointError::Read { path, source }),
        }
    }

    /// Deletes what neither `last` nor `best` names. A failure only costs space; the next save tries again.
    fn remove_unreferenced(&self) {
        let kept: Vec<PathBuf> =
            ["last", "best"].into_iter().filter_map(|pointer| self.named(pointer).ok().flatten()).collect();
        let Ok(entries) = std::fs::read_dir(&self.folder) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let ours = name.to_str().is_some_and(|n| n.starts_with("step-") || n.starts_with(".writing-"));
            if ours && !kept.contains(&entry.path()) {
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
    }
}

fn read(folder: &Path, kind: &str) -> Result<Checkpoint, CheckpointError> {
    let path = folder.join(STATE);
    let text = std::fs::read(&path).map_err(|source| CheckpointError::Read { path: path.clone(), source })?;
    let progress: Progress = serde_json::from_slice(&text)
        .map_err(|error| CheckpointError::Damaged { path, reason: error.to_string() })?;
    if progress.kind != kind {
        return Err(CheckpointError::OtherModel {
            path: folder.to_owned(),
            found: progress.kind,
            expected: kind.to_owned(),
        });
    }
    let tensors = |name: &str| {
        read_safetensors(&folder.join(format!("{name}.safetensors")))
            .map_err(|source| CheckpointError::Tensors { path: folder.to_owned(), source })
    };
    Ok(Checkpoint {
        progress,
        model: tensors("model")?,
        ema: tensors("ema")?,
        optimizer: tensors("optimizer")?,
        algorithm: tensors("algorithm")?,
    })
}
