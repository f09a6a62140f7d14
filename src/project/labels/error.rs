//! What can go wrong with a label history, in words.

use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

use crate::project::lock::LockError;

/// A label history that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LabelError {
    /// Somebody else writes.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The database does not work.
    #[error("the label history `{path}` cannot be used", path = path.display())]
    Database {
        /// Its file.
        path: PathBuf,
        /// SQLite's words.
        source: rusqlite::Error,
    },
    /// Another program holds the database.
    #[error(
        "nothing was saved: another program is using the label history `{path}` (a database browser, or a backup); \
         close it and try again",
        path = path.display()
    )]
    Busy {
        /// Its file.
        path: PathBuf,
    },
    /// No room.
    #[error(
        "nothing was saved: the disk of `{path}` is full or your quota used up; free some space and try again. \
         Everything saved before is safe",
        path = path.display()
    )]
    Full {
        /// Its file.
        path: PathBuf,
    },
    /// The folder or the file is not there any more.
    #[error(
        "nothing was saved: `{path}` is not there any more; if its folder was moved, move it back, if its disk was \
         taken away, connect it again, then try again",
        path = path.display()
    )]
    Gone {
        /// Its file.
        path: PathBuf,
    },
    /// A later program made it.
    #[error("the label history `{path}` was made by a newer HARVEST (its version is {version}); update this one",
        path = path.display())]
    Newer {
        /// Its file.
        path: PathBuf,
        /// Version of its tables.
        version: i64,
    },
    /// A label of a class that the project does not have.
    #[error("the project has no class number {class}")]
    UnknownClass {
        /// Its number.
        class: u16,
    },
    /// What is to be taken back needs a class that is no more.
    #[error("class {class} was merged or deleted; it must come back first")]
    RetiredClass {
        /// Its number.
        class: u16,
    },
    /// Labels of a class that has gone from the project's file.
    #[error(
        "{count} images are labelled as class {class}, which is missing from harvest.toml; put the line back \
        (to rename a class, change its name and keep its number)"
    )]
    LostClass {
        /// Its number.
        class: u16,
        /// Images that have it as their current label.
        count: u64,
    },
}

/// SQLite's extended code for a file that lies elsewhere now.
const MOVED: i32 = 1032;

impl LabelError {
    /// For use in `map_err`.
    pub(super) fn at(path: &Path) -> impl Fn(rusqlite::Error) -> Self {
        let path = path.to_path_buf();
        move |source| {
            let path = path.clone();
            let code = source.sqlite_error().map(|error| (error.code, error.extended_code));
            match code {
                Some((ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked, _)) => Self::Busy { path },
                Some((ErrorCode::DiskFull, _)) => Self::Full { path },
                Some((_, MOVED)) => Self::Gone { path },
                Some((ErrorCode::CannotOpen | ErrorCode::SystemIoFailure | ErrorCode::ReadOnly, _))
                    if !path.exists() =>
                {
                    Self::Gone { path }
                }
                _ => Self::Database { path, source },
            }
        }
    }

    /// Whether the database must be opened anew before anything else can succeed.
    pub fn needs_reopening(&self) -> bool {
        matches!(self, Self::Database { .. } | Self::Gone { .. })
    }
}
