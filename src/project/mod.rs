//! A user's project on disk.
//!
//! ```text
//! PROJECT/
//!   harvest.toml   name, classes, image root, defaults: for people to edit
//!   project.db     label history, see [`LabelStore`]
//!   cache/         rebuildable
//!   runs/          one folder for each run, see [`Run`]
//! ```

mod class_file;
mod class_table;
mod classes;
mod cluster_table;
mod colour;
mod frozen;
mod label_csv;
mod labels;
mod lock;
mod plan;
mod run;

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::{self, ConfigError, PROJECT_TABLES, SourceKind, Tables};
use crate::files::{WriteError, atomic_write};

pub use class_file::ClassChange;
pub use classes::{Class, ClassKind, Classes, ClassesError};
pub use cluster_table::{ClusterRow, ClusterTableError, read_clusters, write_clusters};
pub use colour::{Colour, NoColour};
pub use frozen::{FrozenError, FrozenLabels};
pub use label_csv::{CHOSEN_BY, CsvError, export_labels, import_labels, write_labels};
pub use labels::{Act, Deed, Done, HistoryPage, ImageHash, Label, LabelEntry, LabelError, LabelStore};
pub use lock::{Lock, LockError};
pub use plan::{Input, RunPlan};
pub use run::{BURN_VERSION, Environment, Run, RunError, RunState, Session, features};

/// Name of a project's file.
pub const FILE: &str = "harvest.toml";

/// A project that cannot be made or opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProjectError {
    /// One is there already.
    #[error("`{dir}` already holds a project; choose another folder, or edit its {FILE}", dir = dir.display())]
    Exists {
        /// Its folder.
        dir: PathBuf,
    },
    /// No project here or above.
    #[error("there is no project in `{start}` or above it; make one with `harvest init`", start = start.display())]
    None {
        /// Where the search began.
        start: PathBuf,
    },
    /// The folder named is none.
    #[error("`{path}` is not a folder; make it first, or name another", path = path.display())]
    NoFolder {
        /// As named.
        path: PathBuf,
    },
    /// The images are not where they are said to be.
    #[error("there are no images at `{root}`: it does not exist", root = root.display())]
    NoImages {
        /// As named.
        root: PathBuf,
    },
    /// TOML holds text only.
    #[error("`{path}` cannot be written into {FILE}: its name is not UTF-8", path = path.display())]
    NotText {
        /// As named.
        path: PathBuf,
    },
    /// The project's file is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The classes are wrong.
    #[error(transparent)]
    Classes(#[from] ClassesError),
    /// The file's classes are written in a way that no program can change and leave the rest alone.
    #[error("`{file}` could not be changed without touching what else is in it; change the classes there by hand", file = file.display())]
    ByHand {
        /// The file.
        file: PathBuf,
    },
    /// Something cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// An opened project.
#[derive(Debug, Clone)]
pub struct Project {
    dir: PathBuf,
    name: String,
    classes: Classes,
}

/// The tables of the file that are the project's own; the others are configuration.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ProjectFile {
    project: About,
    classes: class_table::ClassTable,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct About {
    name: String,
}

impl Project {
    /// Makes a project in `dir`, which may exist and hold other things, but no project.
    ///
    /// `root` is the folder or file of the images; it must exist. It is written relative to `dir` if it lies within,
    /// so that the whole can be moved.
    pub fn init(
        dir: &Path,
        name: &str,
        root: &Path,
        kind: SourceKind,
        classes: &Classes,
    ) -> Result<Self, ProjectError> {
        if !root.exists() {
            return Err(ProjectError::NoImages { root: root.to_path_buf() });
        }
        let dir = std::path::absolute(dir).map_err(WriteError::at(dir))?;
        let file = dir.join(FILE);
        if file.exists() {
            return Err(ProjectError::Exists { dir });
        }
        if !dir.exists() {
            // Only the last folder: a missing parent is more likely a typo.
            fs::create_dir(&dir).map_err(WriteError::at(&dir))?;
        } else if !dir.is_dir() {
            return Err(ProjectError::NoFolder { path: dir });
        }
        let root = std::path::absolute(root).map_err(WriteError::at(root))?;
        let inside = root.strip_prefix(&dir).ok().filter(|inside| !inside.as_os_str().is_empty());
        let root = inside.unwrap_or(&root);
        let root = root.to_str().ok_or_else(|| ProjectError::NotText { path: root.to_path_buf() })?;
        atomic_write(&file, file_text(name, root, kind, classes).as_bytes())?;
        Self::open(&dir)
    }

    /// The project whose file lies in `dir`.
    pub fn open(dir: &Path) -> Result<Self, ProjectError> {
        let dir = std::path::absolute(dir).map_err(WriteError::at(dir))?;
        let file = dir.join(FILE);
        if !file.is_file() {
            return Err(ProjectError::None { start: dir });
        }
        let document = config::read_document::<ProjectFile>(&file, Tables::Only(&PROJECT_TABLES))?;
        let classes = document.value.classes.check().map_err(|invalid| document.locate(invalid))?;
        let name = match document.value.project.name.trim() {
            "" => dir.file_name().map_or("project".into(), |name| name.to_string_lossy().into_owned()),
            name => name.to_string(),
        };
        Ok(Self { dir, name, classes })
    }

    /// The project that `start` lies in: its file is there or in the nearest folder above.
    pub fn find(start: &Path) -> Result<Self, ProjectError> {
        let absolute = std::path::absolute(start).map_err(WriteError::at(start))?;
        match absolute.ancestors().find(|folder| folder.join(FILE).is_file()) {
            Some(dir) => Self::open(dir),
            None => Err(ProjectError::None { start: absolute }),
        }
    }

    /// Its folder, absolute.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its classes.
    pub fn classes(&self) -> &Classes {
        &self.classes
    }

    /// Its file, the project layer of a configuration.
    pub fn file(&self) -> PathBuf {
        self.dir.join(FILE)
    }

    /// Folder of its runs, which the first run makes.
    pub fn runs(&self) -> PathBuf {
        self.dir.join("runs")
    }

    /// Folder of what can be rebuilt, which the first user makes.
    pub fn cache(&self) -> PathBuf {
        self.dir.join("cache")
    }

    /// Opens the label history for writing. Only one process can at a time.
    pub fn labels(&self) -> Result<LabelStore, LabelError> {
        LabelStore::open(&self.dir, &self.classes)
    }
}

fn file_text(name: &str, root: &str, kind: SourceKind, classes: &Classes) -> String {
    let quoted = |text: &str| toml::Value::from(text).to_string();
    let kind = match kind {
        SourceKind::Auto => "auto",
        SourceKind::Folder => "folder",
        SourceKind::ClassFolders => "class_folders",
        SourceKind::Csv => "csv",
        SourceKind::Idx => "idx",
    };
    let lines = |value: &dyn Fn(&Class) -> Option<String>| -> String {
        let line = |class: &Class| Some(format!("{} = {}\n", class.id, quoted(&value(class)?)));
        classes.iter().filter_map(line).collect()
    };
    let table = |name: &str, lines: String| match lines.as_str() {
        "" => String::new(),
        lines => format!("\n[classes.{name}]\n{lines}"),
    };
    let class_lines = lines(&|class| Some(class.name.clone()));
    let colours =
        lines(&|class| (class.colour != Colour::default_of(class.id)).then(|| class.colour.to_string()));
    let descriptions = lines(&|class| (!class.description.is_empty()).then(|| class.description.clone()));
    let (colours, descriptions) = (table("colours", colours), table("descriptions", descriptions));
    let shown: Vec<u16> = classes.displayed().map(|class| class.id).collect();
    let order = if shown.is_sorted() { String::new() } else { format!("order = {shown:?}\n") };
    format!(
        "# A HARVEST project, yours to edit.

[project]
name = {name}

# categorical, binary (two classes) or percentage (bins, in order)
[classes]
kind = \"{class_kind}\"
{order}
# Rename classes as you like. A number stays with its class for ever: labels refer to it.
[classes.names]
{class_lines}{colours}{descriptions}
# The images. Kinds: auto, folder, class_folders, csv, idx.
[data]
root = {root}
kind = \"{kind}\"

# Every key that `harvest config show` lists can be set here, for example:
# [training]
# epochs = 60
",
        name = quoted(name),
        class_kind = classes.kind().as_str(),
        root = quoted(root),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, resolve};

    fn classes(names: &[&str]) -> Classes {
        Classes::categorical(names.iter().copied()).expect("the names are good")
    }

    fn temporary() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let images = folder.path().join("pictures \"2026\"");
        fs::create_dir(&images).expect("the folder is writable");
        (folder, images)
    }

    #[test]
    fn what_init_writes_opens_as_a_project_and_as_configuration() {
        let (folder, images) = temporary();
        let dir = folder.path().join("leaves");
        let names = classes(&["healthy", "rust = \"bad\""]);
        let made =
            Project::init(&dir, "My leaves", &images, SourceKind::Folder, &names).expect("all is well");
        fs::create_dir_all(dir.join("deep/below")).expect("the folder is writable");
        let found = Project::find(&dir.join("deep/below")).expect("it lies above");
        assert_eq!((found.name(), found.classes(), found.dir()), ("My leaves", &names, dir.as_path()));
        let sources = Sources { project: Some(made.file()), ..Sources::default() };
        let config = resolve(&sources).expect("the file is valid configuration").value;
        assert_eq!(config.data.root.expect("was written").0, images);
        assert_eq!(config.data.kind, SourceKind::Folder);
    }

    #[test]
    fn images_inside_the_project_move_with_it() {
        let (folder, images) = temporary();
        let project = Project::init(folder.path(), "p", &images, SourceKind::Auto, &classes(&["a", "b"]));
        let text = fs::read_to_string(project.expect("all is well").file()).expect("it was written");
        assert!(text.contains("root = 'pictures \"2026\"'\n"), "{text}");
    }

    #[test]
    fn a_project_is_never_overwritten() {
        let (folder, images) = temporary();
        let init =
            |name| Project::init(folder.path(), name, &images, SourceKind::Auto, &classes(&["a", "b"]));
        init("first").expect("the folder holds no project yet");
        assert!(matches!(init("second"), Err(ProjectError::Exists { .. })));
        assert_eq!(Project::open(folder.path()).expect("untouched").name(), "first");
    }

    #[test]
    fn missing_and_unwritable_folders_are_named() {
        let (folder, images) = temporary();
        let init = |dir: &Path, root: &Path| {
            Project::init(dir, "p", root, SourceKind::Auto, &classes(&["a", "b"]))
                .map(drop)
                .map_err(|e| e.to_string())
        };
        let path = |name: &str| folder.path().join(name);
        let message = init(&path("p"), &path("nothing")).expect_err("no images");
        assert_eq!(
            message,
            format!("there are no images at `{}`: it does not exist", path("nothing").display())
        );
        assert!(!path("p").exists(), "nothing was made");
        let message = init(&path("no/parent"), &images).expect_err("no parent");
        assert_eq!(
            message,
            format!("cannot write `{}` (its folder does not exist)", path("no/parent").display())
        );
        fs::write(path("file"), "").expect("the folder is writable");
        let message = init(&path("file"), &images).expect_err("a file");
        assert!(message.contains("is not a folder"), "{message}");
        // Nobody, root included, can make files here.
        let message = init(Path::new("/proc/self"), &images).expect_err("unwritable");
        assert!(message.starts_with("cannot write `/proc/self/harvest.toml`"), "{message}");
        let message = Project::find(Path::new("/proc")).map(drop).expect_err("no project");
        assert!(message.to_string().contains("there is no project in `/proc`"), "{message}");
    }

    #[test]
    fn mistakes_in_the_file_name_their_line() {
        let (folder, _) = temporary();
        for (text, message) in [
            (
                "[project]\nnam = \"x\"",
                "harvest.toml:2: unknown key `project.nam`; did you mean `project.name`?",
            ),
            (
                "[classes.names]\n0 = 3",
                "harvest.toml:1: `classes.names` must be a table, each value a string, not a table",
            ),
            (
                "[classes]\nnames = { x = \"a\" }",
                "harvest.toml:2: `classes.names` has the class number `x`; numbers go from 0 to 65535",
            ),
            (
                "[classes]\nnames = { 0 = \"a\", 1 = \"a\" }",
                "harvest.toml:2: `classes.names` has the name `a` twice",
            ),
            (
                "[classes]\nkind = \"binary\"",
                "harvest.toml:2: `classes.kind` is binary, which takes exactly two classes; there are 0",
            ),
        ] {
            fs::write(folder.path().join(FILE), text).expect("the folder is writable");
            let error = Project::open(folder.path()).map(drop).expect_err(text).to_string();
            assert_eq!(error.replace(&format!("{}/", folder.path().display()), ""), message);
        }
        fs::write(folder.path().join(FILE), "[clases]\n[trainig]").expect("the folder is writable");
        let sources = Sources { project: Some(folder.path().join(FILE)), ..Sources::default() };
        let error = resolve(&sources).map(drop).expect_err("misspelt").to_string();
        assert!(error.ends_with("unknown key `clases`; did you mean `classes`?"), "{error}");
    }
}
