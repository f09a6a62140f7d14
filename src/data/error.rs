//! What keeps a source from being scanned at all. Trouble with single files never ends here; see
//! [`SetAside`](super::SetAside).

use std::path::PathBuf;

use super::{ClassesError, IdxError, LabelsError};

/// Why a source cannot be detected or scanned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// Nothing is there.
    #[error("`{path}` does not exist; check the spelling, and that the disk is connected")]
    Missing {
        /// What was asked for.
        path: PathBuf,
    },
    /// A folder was expected.
    #[error("`{path}` is not a folder; name the folder that holds the images, or a CSV file of path,label")]
    NotAFolder {
        /// What was asked for.
        path: PathBuf,
    },
    /// The operating system refuses.
    #[error("cannot read `{path}`")]
    Read {
        /// What was to be read.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A manifest is text, so the path to the images has to be.
    #[error("the folder `{path}` has a name that is not valid UTF-8; rename it")]
    FolderName {
        /// The name, with replacement characters.
        path: String,
    },
    /// Every file was set aside, or there is none.
    #[error("no usable image in `{root}`{}", set_aside_hint(*.set_aside, .example.as_deref()))]
    NoImages {
        /// The source's root.
        root: PathBuf,
        /// How many files were set aside.
        set_aside: usize,
        /// The first of them with its reason.
        example: Option<String>,
    },
    /// Classes were to be subfolders, and there is none.
    #[error("`{root}` has no subfolders with files; with labels by folder, each class is a subfolder")]
    NoClassFolders {
        /// The source's root.
        root: PathBuf,
    },
    /// A subfolder that is not in the list of classes.
    #[error("the folder `{folder}` in `{root}` is none of the classes ({known}); rename it or add the class")]
    UnknownClassFolder {
        /// The source's root.
        root: PathBuf,
        /// The folder's name.
        folder: String,
        /// The classes there are.
        known: String,
    },
    /// Indices have 32 bits.
    #[error("{found} files are more than the 4294967295 that can be counted")]
    TooManyImages {
        /// How many there are.
        found: usize,
    },
    /// Labels have 16 bits.
    #[error(
        "{found} different labels are more than the 65535 classes possible; is the right column the label?"
    )]
    TooManyClasses {
        /// How many there are.
        found: usize,
    },
    /// A label file.
    #[error(transparent)]
    Labels(#[from] LabelsError),
    /// An IDX file.
    #[error(transparent)]
    Idx(#[from] IdxError),
    /// A list of classes.
    #[error(transparent)]
    Classes(#[from] ClassesError),
    /// The caller asked to stop.
    #[error("interrupted")]
    Interrupted,
}

fn set_aside_hint(count: usize, example: Option<&str>) -> String {
    match example {
        Some(example) => format!("; {count} files were set aside, the first: {example}"),
        None => "; it holds no files (hidden ones are not looked at)".into(),
    }
}
