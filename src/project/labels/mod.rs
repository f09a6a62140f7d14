//! The label history: every click is kept, the current label is a view of them, undo is one more entry.
//!
//! SQLite with a rollback journal and full synchronisation, which survives a power cut and works on the file
//! systems of clusters. One process writes; it holds the lock file beside the database. Images are known by their
//! content, so labels survive moving and renaming them. What came first is told by numbers, never by a clock.

mod acts;
mod error;
mod pages;
mod tables;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, OpenFlags, Row, params};

use super::classes::Classes;
use super::lock::Lock;

pub use acts::{Act, Deed, Done};
pub use error::LabelError;
pub use pages::HistoryPage;

/// What tells an image: [`crate::data::ContentHash`], of its pixels.
pub type ImageHash = [u8; 32];

/// How long to wait for another program that holds the database: a job that reads labels takes a second or two.
const PATIENCE: Duration = Duration::from_secs(5);

/// What somebody said about an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Label {
    /// It shows the class of this number.
    Class(u16),
    /// It may be one of several classes.
    NotSure,
    /// It shows none of the classes.
    NoneOfThese,
    /// It cannot be judged: blurred, black, not a photograph.
    BadImage,
}

impl Label {
    /// The labels that are no class, each with the words for it in files.
    pub const STATES: [(Self, &'static str); 3] =
        [(Self::NotSure, "not sure"), (Self::NoneOfThese, "none of these"), (Self::BadImage, "bad image")];

    /// The class, if it is one.
    pub fn class(self) -> Option<u16> {
        if let Self::Class(id) = self { Some(id) } else { None }
    }

    /// State and class as stored.
    fn stored(label: Option<Self>) -> (&'static str, Option<u16>) {
        match label {
            None => ("no label", None),
            Some(Self::Class(id)) => ("class", Some(id)),
            Some(Self::NotSure) => ("not sure", None),
            Some(Self::NoneOfThese) => ("none of these", None),
            Some(Self::BadImage) => ("bad image", None),
        }
    }

    fn from_stored(state: &str, class: Option<u16>) -> Option<Self> {
        let other = || Self::STATES.iter().find(|(_, word)| *word == state).map(|(label, _)| *label);
        class.map(Self::Class).or_else(other)
    }
}

/// One entry of the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelEntry {
    /// Position in the history, from 1.
    pub id: i64,
    /// Entries made together share it, and are undone together.
    pub action: i64,
    /// Which image.
    pub image: ImageHash,
    /// The label from now on; `None` takes it away.
    pub label: Option<Label>,
    /// Who said so.
    pub who: String,
    /// When.
    pub at: Timestamp,
    /// From where: a page, a file.
    pub from: String,
    /// The action that this entry takes back.
    pub undoes: Option<i64>,
}

/// The label history of a project, open for writing.
#[derive(Debug)]
pub struct LabelStore {
    path: PathBuf,
    database: Connection,
    classes: Classes,
    _lock: Lock,
}

impl LabelStore {
    /// Opens `project.db` in the project's folder, making it if need be.
    pub fn open(project: &Path, classes: &Classes) -> Result<Self, LabelError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
        Self::open_with(project, classes, flags)
    }

    /// Opens it again after it was lost on the way: one that is not there any more is not made anew, which would hide that
    /// everything has gone.
    pub fn reopen(project: &Path, classes: &Classes) -> Result<Self, LabelError> {
        let path = project.join(FILE);
        if !path.exists() {
            return Err(LabelError::Gone { path });
        }
        Self::open_with(project, classes, OpenFlags::SQLITE_OPEN_READ_WRITE)
    }

    fn open_with(project: &Path, classes: &Classes, flags: OpenFlags) -> Result<Self, LabelError> {
        let lock = Lock::take(&project.join("project.lock"), project)?;
        let path = project.join(FILE);
        let connect = || {
            let mut database = Connection::open_with_flags(&path, flags)?;
            database.busy_timeout(PATIENCE)?;
            database.pragma_update(None, "journal_mode", "DELETE")?;
            database.pragma_update(None, "synchronous", "FULL")?;
            // In KiB: a history of a million entries is searched by its indices, which then stay in memory.
            database.pragma_update(None, "cache_size", -65_536)?;
            database.set_prepared_statement_cache_capacity(64);
            let version = tables::prepare(&mut database)?;
            Ok((database, version))
        };
        let (database, version) = connect().map_err(LabelError::at(&path))?;
        if version > tables::VERSION {
            return Err(LabelError::Newer { path, version });
        }
        let store = Self { path, database, classes: classes.clone(), _lock: lock };
        store.check_classes(classes)?;
        Ok(store)
    }

    /// The current labels of a project without taking its lock, for reading while somebody labels.
    /// Empty if nothing was ever labelled.
    pub fn read(project: &Path) -> Result<BTreeMap<ImageHash, Label>, LabelError> {
        read_only(project, current)
    }

    /// The entry that gave each labelled image its current label, as [`Self::current_entries`], without taking the lock.
    pub fn read_entries(project: &Path) -> Result<Vec<LabelEntry>, LabelError> {
        read_only(project, |database| {
            database.prepare("SELECT * FROM current_labels ORDER BY id")?.query_map([], entry)?.collect()
        })
    }

    /// Writes labels down, all or none, as one action; returns the action. `None` takes a label away.
    pub fn append(
        &mut self,
        labels: &[(ImageHash, Option<Label>)],
        who: &str,
        from: &str,
    ) -> Result<i64, LabelError> {
        let deed = Deed::Label { labels: labels.to_vec(), from: from.to_owned(), retires: None };
        let done = self.act(&Act { who: who.to_owned(), request: None, deed })?;
        Ok(done.action.unwrap_or(0))
    }

    /// The current label of every image that has one.
    pub fn current(&self) -> Result<BTreeMap<ImageHash, Label>, LabelError> {
        current(&self.database).map_err(LabelError::at(&self.path))
    }

    /// The entry that gave each labelled image its current label, in the order they were made.
    pub fn current_entries(&self) -> Result<Vec<LabelEntry>, LabelError> {
        self.entries("SELECT * FROM current_labels ORDER BY id", params![])
    }

    /// The images that have this class now, in the order in which they got it.
    pub fn images_of(&self, class: u16) -> Result<Vec<ImageHash>, LabelError> {
        let read = || -> rusqlite::Result<Vec<_>> {
            let mut query = self.database.prepare_cached(LATEST_OF_CLASS)?;
            query.query_map([class], |row| row.get(0))?.collect()
        };
        read().map_err(LabelError::at(&self.path))
    }

    /// The highest class number that was ever given.
    pub fn highest_class(&self) -> Result<Option<u16>, LabelError> {
        let query = "SELECT max(class) FROM label_history";
        self.database.query_row(query, [], |row| row.get(0)).map_err(LabelError::at(&self.path))
    }

    /// The classes that labels may name.
    pub fn classes(&self) -> &Classes {
        &self.classes
    }

    /// Takes other classes over.
    ///
    /// # Errors
    /// If images have a label that would be lost; the classes are then as before.
    pub fn set_classes(&mut self, classes: &Classes) -> Result<(), LabelError> {
        let gone = self.classes.iter().any(|class| classes.get(class.id).is_none());
        if gone {
            self.check_classes(classes)?;
        }
        self.classes = classes.clone();
        Ok(())
    }

    fn entries(
        &self,
        query: &str,
        parameters: &[&dyn rusqlite::ToSql],
    ) -> Result<Vec<LabelEntry>, LabelError> {
        let read = || -> rusqlite::Result<Vec<_>> {
            self.database.prepare_cached(query)?.query_map(parameters, entry)?.collect()
        };
        read().map_err(LabelError::at(&self.path))
    }

    fn check_classes(&self, classes: &Classes) -> Result<(), LabelError> {
        // By index: every class that was ever given, and of those that are no more whether an image still has it.
        let lost = || -> rusqlite::Result<Option<(u16, u64)>> {
            let mut given = self
                .database
                .prepare_cached("SELECT DISTINCT class FROM label_history WHERE class IS NOT NULL")?;
            let given = given.query_map([], |row| row.get(0))?.collect::<Result<Vec<u16>, _>>()?;
            for class in given.into_iter().filter(|class| classes.get(*class).is_none()) {
                let count = format!("SELECT count(*) FROM ({LATEST_OF_CLASS})");
                let count = self.database.prepare_cached(&count)?.query_row([class], |row| row.get(0))?;
                if count > 0 {
                    return Ok(Some((class, count)));
                }
            }
            Ok(None)
        };
        match lost().map_err(LabelError::at(&self.path))? {
            Some((class, count)) => Err(LabelError::LostClass { class, count }),
            None => Ok(()),
        }
    }
}

/// What `read` finds in a project's database, while others may write; nothing if nothing was ever labelled.
fn read_only<T: Default>(
    project: &Path,
    read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> Result<T, LabelError> {
    let path = project.join(FILE);
    if !path.exists() {
        return Ok(T::default());
    }
    // Not for reading alone, though nothing is written: whoever finds the half of an action that a killed process
    // left must be able to take it back, or could read nothing. SQLite falls back to reading where it must.
    let found = || {
        let database = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        database.busy_timeout(PATIENCE)?;
        database.pragma_update(None, "query_only", true)?;
        read(&database)
    };
    found().map_err(LabelError::at(&path))
}

/// The images whose latest entry is of a class. Found by the class: looking at the latest entry of every image takes seconds.
const LATEST_OF_CLASS: &str = "SELECT image FROM label_history AS entry WHERE class = ?1
    AND NOT EXISTS (SELECT 1 FROM label_history AS later WHERE later.image = entry.image AND later.id > entry.id)
    ORDER BY id";

/// Name of the database in a project's folder.
const FILE: &str = "project.db";

fn current(database: &Connection) -> rusqlite::Result<BTreeMap<ImageHash, Label>> {
    // All entries in their order: looking for the last one of each image takes twice as long.
    let mut statement = database.prepare("SELECT image, state, class FROM label_history ORDER BY id")?;
    let mut rows = statement.query([])?;
    let mut labels = HashMap::new();
    while let Some(row) = rows.next()? {
        labels.insert(row.get(0)?, label_in(row, 1)?);
    }
    Ok(labels.into_iter().filter_map(|(image, label)| Some((image, label?))).collect())
}

/// The label in columns `at` (state) and the next (class).
fn label_in(row: &Row<'_>, at: usize) -> rusqlite::Result<Option<Label>> {
    Ok(Label::from_stored(row.get_ref(at)?.as_str()?, row.get(at + 1)?))
}

fn entry(row: &Row<'_>) -> rusqlite::Result<LabelEntry> {
    let at: String = row.get("at")?;
    Ok(LabelEntry {
        id: row.get("id")?,
        action: row.get("action")?,
        image: row.get("image")?,
        label: Label::from_stored(&row.get::<_, String>("state")?, row.get("class")?),
        who: row.get("who")?,
        at: at.parse().map_err(|error: jiff::Error| {
            rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(error))
        })?,
        from: row.get("origin")?,
        undoes: row.get("undoes")?,
    })
}

#[cfg(test)]
mod tests;
