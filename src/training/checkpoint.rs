//! Everything a run needs to go on as if never interrupted, on disk.
//!
//! ```text
//! checkpoints/
//!   step-000000500/   model, ema, optimizer, algorithm .safetensors; state.json
//!   last              name of the newest complete folder, whose state.json tells which one had the best evaluation
//! ```
//!
//! A folder is written under another name, flushed and renamed; then `last` is replaced in the same way, and with it
//! the newest and the best checkpoint change at once. A kill at any moment leaves the old state or the new one. Order of
//! images and random streams are functions of the step, so the step is all that is kept of them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use harvest_models::{NamedTensors, WeightsError, read_safetensors, write_safetensors};
use safetensors::SafeTensorError;
use serde::{Deserialize, Serialize};

use crate::files::{WriteError, atomic_write, publish_folder};

const STATE: &str = "state.json";
/// How the folders' names begin.
const FOLDER: &str = "step-";

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

impl Checkpoint {
    /// Whether every weight, averaged or not, is a number: what has diverged is not worth going on from.
    pub fn is_finite(&self) -> bool {
        let finite = |tensors: &NamedTensors| {
            tensors
                .values()
                .all(|data| data.as_slice::<f32>().map_or(true, |v| v.iter().all(|x| x.is_finite())))
        };
        finite(&self.model) && finite(&self.ema)
    }
}

/// Why a checkpoint cannot be written or used. A run never goes on without it as if it were new.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// Something cannot be written.
    #[error("the checkpoint was not saved; the one before it is untouched")]
    Write(#[from] WriteError),
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
        Ok(Self::written_elsewhere(folder))
    }

    /// Those in `folder`, which another rank opens and writes.
    pub fn written_elsewhere(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// Saves a checkpoint as the newest one. Removes what neither it nor its best step needs.
    ///
    /// `checkpoint.progress.best` must be this step or one that was saved as the best before.
    ///
    /// # Errors
    /// If anything cannot be written; earlier checkpoints are then untouched.
    pub fn save(&self, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
        let name = folder_name(checkpoint.progress.step);
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
            // Left by a kill before `last` named it: a run only ever saves steps after the one it started from.
            std::fs::remove_dir_all(&folder).map_err(WriteError::at(&folder))?;
        }
        publish_folder(&writing, &folder)?;
        atomic_write(&self.folder.join("last"), name.as_bytes())?;
        let best = checkpoint.progress.best.map(|(_, step)| folder_name(step));
        self.remove_others(&[Some(name), best]);
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
            write_safetensors(&path, tensors, HashMap::new()).map_err(|error| not_written(&path, error))?;
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
        self.newest()?.map(|name| self.read(&name, kind)).transpose()
    }

    /// The checkpoint with the best evaluation; without evaluations, the newest.
    ///
    /// # Errors
    /// If there is none, or it cannot be used.
    pub fn best(&self, kind: &str) -> Result<Checkpoint, CheckpointError> {
        self.read(&self.best_name(kind)?, kind)
    }

    /// The name of the newest checkpoint, if there is one.
    ///
    /// # Errors
    /// If that cannot be read.
    pub fn newest(&self) -> Result<Option<String>, CheckpointError> {
        let path = self.folder.join("last");
        match std::fs::read_to_string(&path) {
            Ok(name) => Ok(Some(name.trim().to_owned())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(CheckpointError::Read { path, source }),
        }
    }

    /// Steps done at the newest checkpoint, 0 without any.
    ///
    /// # Errors
    /// If that cannot be read.
    pub fn newest_step(&self) -> Result<u64, CheckpointError> {
        let Some(name) = self.newest()? else { return Ok(0) };
        let step = name.strip_prefix(FOLDER).and_then(|step| step.parse().ok());
        step.ok_or_else(|| CheckpointError::Damaged {
            path: self.folder.join("last"),
            reason: format!("`{name}` is no name of a checkpoint"),
        })
    }

    /// The name of the checkpoint with the best evaluation; without evaluations, of the newest.
    ///
    /// # Errors
    /// If there is none, or the newest cannot be used.
    pub fn best_name(&self, kind: &str) -> Result<String, CheckpointError> {
        let newest = self.newest()?.ok_or_else(|| CheckpointError::Read {
            path: self.folder.join("last"),
            source: std::io::ErrorKind::NotFound.into(),
        })?;
        let best = read_progress(&self.folder.join(&newest), kind)?.best;
        Ok(best.map_or(newest, |(_, step)| folder_name(step)))
    }

    /// The checkpoint of that name.
    ///
    /// # Errors
    /// If it cannot be used.
    pub fn read(&self, name: &str, kind: &str) -> Result<Checkpoint, CheckpointError> {
        read(&self.folder.join(name), kind)
    }

    /// Deletes our folders and unfinished files but those named. A failure only costs space; the next save tries again.
    fn remove_others(&self, kept: &[Option<String>]) {
        let Ok(entries) = std::fs::read_dir(&self.folder) else { return };
        for entry in entries.flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            let ours = name.starts_with("step-") || name.starts_with(".writing-");
            if ours && !kept.iter().flatten().any(|kept| *kept == name) {
                let path = entry.path();
                let _ =
                    if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
            }
        }
    }
}

fn folder_name(step: u64) -> String {
    format!("{FOLDER}{step:09}")
}

/// What the operating system said is told apart: a full disk has its own advice.
fn not_written(path: &Path, error: WeightsError) -> WriteError {
    WriteError::at(path)(match error {
        WeightsError::Write { source: SafeTensorError::IoError(source), .. } => source,
        other => std::io::Error::other(other),
    })
}

fn read(folder: &Path, kind: &str) -> Result<Checkpoint, CheckpointError> {
    let progress = read_progress(folder, kind)?;
    let tensors = |name: &str| {
        let path = folder.join(format!("{name}.safetensors"));
        read_safetensors(&path).map_err(|error| match error {
            WeightsError::Read { source, .. } => CheckpointError::Read { path, source },
            WeightsError::Format { source, .. } => {
                CheckpointError::Damaged { path, reason: source.to_string() }
            }
            other => CheckpointError::Damaged { path, reason: other.to_string() },
        })
    };
    Ok(Checkpoint {
        progress,
        model: tensors("model")?,
        ema: tensors("ema")?,
        optimizer: tensors("optimizer")?,
        algorithm: tensors("algorithm")?,
    })
}

fn read_progress(folder: &Path, kind: &str) -> Result<Progress, CheckpointError> {
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
    Ok(progress)
}
