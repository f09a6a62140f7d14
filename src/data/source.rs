//! Where images and known labels come from.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{DataError, IdxFiles, Part};

/// A place with images, and with labels if they are known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Source {
    /// A folder with any nesting, no labels.
    Folder {
        /// The folder.
        root: PathBuf,
    },
    /// A folder with a subfolder for each class, or with `train/` and `test/` (or `val/`) that hold those.
    /// Files elsewhere in the folder are unlabelled.
    ClassFolders {
        /// The folder.
        root: PathBuf,
    },
    /// A table of `path,label` with an optional third column `part`.
    Csv {
        /// The table.
        file: PathBuf,
        /// `None`: the source is what the table lists, relative to the folder the table is in.
        /// `Some`: the source is everything in that folder, and the table labels some of it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        root: Option<PathBuf>,
    },
    /// A folder with IDX files, as of MNIST.
    Idx {
        /// The folder.
        root: PathBuf,
    },
}

/// A kind of source, where a user names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SourceKind {
    /// [`Source::Folder`].
    Folder,
    /// [`Source::ClassFolders`].
    ClassFolders,
    /// [`Source::Csv`].
    Csv,
    /// [`Source::Idx`].
    Idx,
}

impl Source {
    /// What `path` most likely is:
    ///
    /// - a file: a table of labels;
    /// - a folder with IDX files of images: those;
    /// - a folder with a file `labels.csv`: all its images, labelled by that table;
    /// - `train/` and `test/` (or `val/`) with two or more class folders in `train/` and no others in the second, or
    ///   two or more folders of files and nothing deeper, no images beside them: class folders;
    /// - else a folder of unlabelled images.
    ///
    /// Folders by date or camera look just like folders by class: say [`SourceKind::Folder`] for those.
    ///
    /// # Errors
    /// [`DataError::Missing`] and [`DataError::Read`].
    pub fn detect(path: &Path) -> Result<Self, DataError> {
        let kind = if !is_folder(path)? {
            SourceKind::Csv
        } else if !IdxFiles::find(path)?.is_empty() {
            SourceKind::Idx
        } else if path.join("labels.csv").is_file() {
            SourceKind::Csv
        } else if looks_like_class_folders(path)? {
            SourceKind::ClassFolders
        } else {
            SourceKind::Folder
        };
        Self::of_kind(kind, path)
    }

    /// A source of a kind the user named. A folder given as [`SourceKind::Csv`] must hold `labels.csv`.
    ///
    /// # Errors
    /// [`DataError::Missing`], [`DataError::NotAFolder`], [`DataError::Read`].
    pub fn of_kind(kind: SourceKind, path: &Path) -> Result<Self, DataError> {
        let folder = is_folder(path)?;
        let root = path.to_owned();
        match kind {
            SourceKind::Csv if folder => {
                let file = path.join("labels.csv");
                is_folder(&file)?; // says that the table is missing
                Ok(Self::Csv { file, root: Some(root) })
            }
            SourceKind::Csv => Ok(Self::Csv { file: root, root: None }),
            _ if !folder => Err(DataError::NotAFolder { path: root }),
            SourceKind::Folder => Ok(Self::Folder { root }),
            SourceKind::ClassFolders => Ok(Self::ClassFolders { root }),
            SourceKind::Idx => Ok(Self::Idx { root }),
        }
    }

    /// The folder that paths are relative to.
    pub fn root(&self) -> &Path {
        match self {
            Self::Folder { root } | Self::ClassFolders { root } | Self::Idx { root } => root,
            Self::Csv { root: Some(root), .. } => root,
            Self::Csv { file, root: None } => match file.parent() {
                Some(folder) if !folder.as_os_str().is_empty() => folder,
                _ => Path::new("."),
            },
        }
    }

    /// The kind, as a user would name it.
    pub fn kind(&self) -> SourceKind {
        match self {
            Self::Folder { .. } => SourceKind::Folder,
            Self::ClassFolders { .. } => SourceKind::ClassFolders,
            Self::Csv { .. } => SourceKind::Csv,
            Self::Idx { .. } => SourceKind::Idx,
        }
    }
}

/// How class folders are laid out below a root.
pub(super) struct ClassLayout {
    /// Names of the folders that hold class folders, with the part they stand for; empty if the root holds them.
    parts: Vec<(String, Option<Part>)>,
}

impl ClassLayout {
    /// `train/` with folders in it beside `test/` or `val/` is a division. With `test/` there, `val/` counts as
    /// training: it is what its authors chose models by.
    pub(super) fn of(root: &Path) -> Result<Self, DataError> {
        let top = subfolders(root)?.folders;
        let called = |names: &[&str]| {
            top.iter().find(|folder| names.contains(&folder.to_lowercase().as_str())).cloned()
        };
        let train = called(&["train", "training"]);
        let test = called(&["test", "testing"]);
        let val = called(&["val", "valid", "validation"]);
        let mut parts = Vec::new();
        if let (Some(train), true) = (train, test.is_some() || val.is_some())
            && !subfolders(&root.join(&train))?.folders.is_empty()
        {
            parts.push((train, Some(Part::Train)));
            parts.extend(val.map(|val| (val, Some(if test.is_some() { Part::Train } else { Part::Test }))));
            parts.extend(test.map(|test| (test, Some(Part::Test))));
        }
        Ok(Self { parts })
    }

    /// The class folder and part of a file, by its path relative to the root.
    pub(super) fn place<'a>(&self, path: &'a str) -> (Option<&'a str>, Option<Part>) {
        let Some((first, rest)) = path.split_once('/') else { return (None, None) };
        if self.parts.is_empty() {
            return (Some(first), None);
        }
        match self.parts.iter().find(|(folder, _)| folder == first) {
            Some((_, part)) => (rest.split_once('/').map(|(class, _)| class), *part),
            None => (None, None),
        }
    }
}

fn looks_like_class_folders(root: &Path) -> Result<bool, DataError> {
    let layout = ClassLayout::of(root)?;
    if layout.parts.is_empty() {
        return Ok(!subfolders(root)?.images && class_names(root)?.is_some());
    }
    let mut classes: Option<BTreeSet<String>> = None;
    for (folder, _) in &layout.parts {
        match (class_names(&root.join(folder))?, &classes) {
            (None, _) => return Ok(false),
            (Some(found), None) => classes = Some(found),
            (Some(found), Some(known)) if found.is_subset(known) => {}
            _ => return Ok(false),
        }
    }
    Ok(true)
}

/// The subfolders, if there are two or more and each holds files and no folders.
fn class_names(root: &Path) -> Result<Option<BTreeSet<String>>, DataError> {
    let folders = subfolders(root)?.folders;
    if folders.len() < 2 {
        return Ok(None);
    }
    for folder in &folders {
        let inside = subfolders(&root.join(folder))?;
        if !inside.images || !inside.folders.is_empty() {
            return Ok(None);
        }
    }
    Ok(Some(folders.into_iter().collect()))
}

struct Inside {
    /// Names of visible subfolders, sorted.
    folders: Vec<String>,
    /// Whether a visible file has an extension that images have.
    images: bool,
}

fn subfolders(root: &Path) -> Result<Inside, DataError> {
    let unreadable = |source| DataError::Read { path: root.into(), source };
    let mut inside = Inside { folders: Vec::new(), images: false };
    for entry in std::fs::read_dir(root).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let kind = entry.file_type().map_err(unreadable)?;
        if name.starts_with('.') {
            continue;
        }
        if kind.is_dir() || (kind.is_symlink() && entry.path().is_dir()) {
            inside.folders.push(name);
        } else if !inside.images {
            let extension = Path::new(&name).extension().unwrap_or_default().to_ascii_lowercase();
            inside.images =
                ["jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff"].iter().any(|known| extension == *known);
        }
    }
    inside.folders.sort_unstable();
    Ok(inside)
}

fn is_folder(path: &Path) -> Result<bool, DataError> {
    match std::fs::metadata(path) {
        Ok(metadata) => Ok(metadata.is_dir()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(DataError::Missing { path: path.into() })
        }
        Err(source) => Err(DataError::Read { path: path.into(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detected(files: &[&str]) -> SourceKind {
        let folder = tempfile::tempdir().expect("temporary folder");
        for file in files {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().expect("below the root")).expect("creates");
            std::fs::write(path, b"x").expect("writes");
        }
        Source::detect(folder.path()).expect("detects").kind()
    }

    #[test]
    fn sources_are_told_by_their_layout() {
        use SourceKind::{ClassFolders, Csv, Folder, Idx};
        assert_eq!(detected(&[]), Folder);
        assert_eq!(detected(&["a.png", "b.png"]), Folder);
        assert_eq!(detected(&["a/1.png", "b/1.PNG", "notes.txt"]), ClassFolders);
        assert_eq!(detected(&["a/1.png", "b/1.png", "loose.jpg"]), Folder);
        assert_eq!(detected(&["a/1.png"]), Folder);
        assert_eq!(detected(&["2024/may/1.png", "2024/june/1.png", "2025/1.png"]), Folder);
        assert_eq!(
            detected(&["train/a/1.png", "train/b/1.png", "test/a/1.png", "test/b/1.png"]),
            ClassFolders
        );
        assert_eq!(detected(&["train/a/1.png", "train/b/1.png", "val/a/1.png", "val/b/1.png"]), ClassFolders);
        assert_eq!(detected(&["train/a/1.png", "train/b/1.png", "test/c/1.png", "test/d/1.png"]), Folder);
        assert_eq!(detected(&["train/1.png", "test/1.png"]), ClassFolders);
        assert_eq!(detected(&["labels.csv", "x/1.png", "y/1.png"]), Csv);
        assert_eq!(detected(&["train-images-idx3-ubyte.gz"]), Idx);
    }

    #[test]
    fn what_is_not_there_is_said_so() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let missing = folder.path().join("missing");
        assert!(matches!(Source::detect(&missing), Err(DataError::Missing { .. })));
        assert!(matches!(Source::of_kind(SourceKind::Csv, folder.path()), Err(DataError::Missing { .. })));
        let file = folder.path().join("list.csv");
        std::fs::write(&file, "path,label\n").expect("writes");
        assert_eq!(Source::detect(&file).expect("a table"), Source::Csv { file: file.clone(), root: None });
        assert!(matches!(Source::of_kind(SourceKind::Folder, &file), Err(DataError::NotAFolder { .. })));
    }

    #[test]
    fn a_division_by_the_source_is_recognised() {
        let layout = ClassLayout {
            parts: vec![("train".into(), Some(Part::Train)), ("test".into(), Some(Part::Test))],
        };
        assert_eq!(layout.place("train/rust/x/1.png"), (Some("rust"), Some(Part::Train)));
        assert_eq!(layout.place("test/rust/1.png"), (Some("rust"), Some(Part::Test)));
        assert_eq!(layout.place("test/1.png"), (None, Some(Part::Test)));
        assert_eq!(layout.place("unlabelled/1.png"), (None, None));
        let plain = ClassLayout { parts: vec![] };
        assert_eq!(plain.place("rust/deep/1.png"), (Some("rust"), None));
        assert_eq!(plain.place("1.png"), (None, None));
    }
}
