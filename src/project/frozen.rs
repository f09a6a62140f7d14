//! Labels, classes and settings as they were at one moment, in files of their own: what a job is given.
//!
//! A job reads neither the project's database, which may be on another machine, nor its list of classes and its settings: all
//! may change while it waits, and a run that goes on must find exactly what it began with. Class numbers lead from what the job
//! made back to the project's classes, whatever they are called by then.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Class, ClassKind, Classes, ClassesError, ImageHash, Label, LabelError, LabelStore, Project};
use crate::files::{WriteError, atomic_write};
use crate::jobs::{LABELS, SETTINGS};

/// Version of the file.
const VERSION: u32 = 1;

/// Labels that cannot be frozen, or read again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrozenError {
    /// The history they are taken from.
    #[error(transparent)]
    History(#[from] LabelError),
    /// Their classes.
    #[error(transparent)]
    Classes(#[from] ClassesError),
    /// The file cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The project's settings cannot be read.
    #[error("cannot read the settings `{path}`; nothing was started: look whether the project is still there", path = path.display())]
    Settings {
        /// The project's file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The job's folder has a name that cannot be part of a command.
    #[error("the path `{path}` is not text; rename its folders", path = path.display())]
    NotText {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be read.
    #[error("cannot read the labels `{path}`; if they are gone, start a new job", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not what we write.
    #[error("the labels `{path}` are damaged: {reason}; start a new job", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// In what way.
        reason: String,
    },
}

/// Labels and classes as they were.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrozenLabels {
    /// The classes, by the numbers they had and have.
    pub classes: Classes,
    /// The label of every image that had one.
    pub labels: BTreeMap<ImageHash, Label>,
}

/// The file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    kind: ClassKind,
    classes: BTreeMap<u16, String>,
    /// By content hash in hexadecimal.
    labels: BTreeMap<String, Code>,
}

/// A label: a class's number, or a word.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Code {
    Class(u16),
    State(String),
}

impl FrozenLabels {
    /// The project's, as they are now.
    ///
    /// # Errors
    /// If the history cannot be read.
    pub fn of(project: &Project) -> Result<Self, FrozenError> {
        Self::new(project.classes(), LabelStore::read(project.dir())?)
    }

    /// These labels of these classes; labels of classes that are no more are left out.
    ///
    /// # Errors
    /// If there can be no such classes.
    pub fn new(classes: &Classes, mut labels: BTreeMap<ImageHash, Label>) -> Result<Self, FrozenError> {
        // What classes look like on a page is no part of what is learned.
        let plain = classes.iter().map(|class| Class::plain(class.id, &class.name)).collect();
        let classes = Classes::new(classes.kind(), plain)?;
        labels.retain(|_, label| label.class().is_none_or(|class| classes.index_of(class).is_some()));
        Ok(Self { classes, labels })
    }

    /// Writes them, and the project's settings as they are now, into the folder of a job.
    ///
    /// # Errors
    /// If that cannot be written.
    pub fn write_for_job(&self, project: &Project, folder: &Path) -> Result<(), FrozenError> {
        let path = project.file();
        let settings = std::fs::read(&path).map_err(|source| FrozenError::Settings { path, source })?;
        atomic_write(&folder.join(SETTINGS), &settings)?;
        self.write(&folder.join(LABELS))
    }

    /// The arguments by which a command goes by what [`Self::write_for_job`] writes into `folder`.
    ///
    /// # Errors
    /// If the folder's path is not text.
    pub fn arguments(folder: &Path) -> Result<[String; 4], FrozenError> {
        let text = |name| match folder.join(name).into_os_string().into_string() {
            Ok(path) => Ok(path),
            Err(path) => Err(FrozenError::NotText { path: path.into() }),
        };
        Ok(["--labels".into(), text(LABELS)?, "--settings".into(), text(SETTINGS)?])
    }

    /// Writes them to `path`.
    ///
    /// # Errors
    /// If that cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), FrozenError> {
        let code = |label: Label| match label {
            Label::Class(class) => Code::Class(class),
            state => Code::State(word(state).to_owned()),
        };
        let file = File {
            version: VERSION,
            kind: self.classes.kind(),
            classes: self.classes.iter().map(|class| (class.id, class.name.clone())).collect(),
            labels: self.labels.iter().map(|(hash, label)| (hex(hash), code(*label))).collect(),
        };
        let bytes = serde_json::to_vec(&file).expect("plain fields always become JSON");
        Ok(atomic_write(path, &bytes)?)
    }

    /// Reads them back.
    ///
    /// # Errors
    /// If there are none, or they are damaged.
    pub fn read(path: &Path) -> Result<Self, FrozenError> {
        let bytes =
            std::fs::read(path).map_err(|source| FrozenError::Read { path: path.to_path_buf(), source })?;
        let damaged = |reason: String| FrozenError::Damaged { path: path.to_path_buf(), reason };
        let file: File = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        if file.version != VERSION {
            return Err(damaged(format!("its version is {}, not {VERSION}", file.version)));
        }
        let list = file.classes.iter().map(|(id, name)| Class::plain(*id, name)).collect();
        let classes = Classes::new(file.kind, list).map_err(|error| damaged(error.to_string()))?;
        let mut labels = BTreeMap::new();
        for (hash, code) in file.labels {
            let image = unhex(&hash).ok_or_else(|| damaged(format!("`{hash}` is no content hash")))?;
            let label = match code {
                Code::Class(class) if classes.index_of(class).is_some() => Label::Class(class),
                Code::Class(class) => return Err(damaged(format!("there is no class {class}"))),
                Code::State(said) => Label::STATES
                    .iter()
                    .map(|(label, _)| *label)
                    .find(|label| word(*label) == said)
                    .ok_or_else(|| damaged(format!("`{said}` is no label")))?,
            };
            labels.insert(image, label);
        }
        Ok(Self { classes, labels })
    }
}

/// The word for a label that is no class.
fn word(label: Label) -> &'static str {
    Label::STATES.iter().find(|(state, _)| *state == label).map_or("class", |(_, word)| word)
}

fn hex(hash: &ImageHash) -> String {
    hash.iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Option<ImageHash> {
    blake3::Hash::from_hex(text).ok().map(|hash| *hash.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_frozen_is_read_back_and_damage_is_named() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("labels.json");
        let classes = Classes::categorical(["oak", "ash"]).expect("good names");
        let labels = BTreeMap::from([
            ([1; 32], Label::Class(1)),
            ([2; 32], Label::NotSure),
            ([3; 32], Label::NoneOfThese),
            ([4; 32], Label::BadImage),
        ]);
        let frozen = FrozenLabels { classes, labels };
        frozen.write(&path).expect("writable");
        assert_eq!(FrozenLabels::read(&path).expect("whole"), frozen);

        let text = std::fs::read_to_string(&path).expect("readable");
        for (old, new, words) in [
            ("not sure", "perhaps", "`perhaps` is no label"),
            ("01\":1,", "01\":7,", "there is no class 7"),
            ("0101", "01xx", "is no content hash"),
            ("\"version\":1", "\"version\":2", "its version is 2"),
            ("{", "", "damaged"),
        ] {
            let text = text.replacen(old, new, 1);
            std::fs::write(&path, text).expect("writable");
            let error = FrozenLabels::read(&path).expect_err(words).to_string();
            assert!(error.contains(words) && error.contains("start a new job"), "{error}");
        }
        let error = FrozenLabels::read(&folder.path().join("gone")).expect_err("gone").to_string();
        assert!(error.contains("cannot read the labels"), "{error}");
    }
}
