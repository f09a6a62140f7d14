//! The label history: every click is kept, the current label is a view of them, undo is one more entry.
//!
//! SQLite with a rollback journal and full synchronisation, which survives a power cut and works on the file
//! systems of clusters. One process writes; it holds the lock file beside the database. Images are known by their
//! content, so labels survive moving and renaming them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rusqlite::{Connection, OpenFlags, Row, Transaction, params};

use super::classes::Classes;
use super::lock::{Lock, LockError};

/// BLAKE3 of an image file's bytes.
pub type ImageHash = [u8; 32];

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

/// What an undo took back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undone {
    /// The action.
    pub action: i64,
    /// Its images, each with the label it has again.
    pub images: Vec<(ImageHash, Option<Label>)>,
}

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

/// Version of the tables below.
const VERSION: i64 = 1;

const TABLES: &str = "
CREATE TABLE label_history (
    id     INTEGER PRIMARY KEY AUTOINCREMENT,
    action INTEGER NOT NULL,
    image  BLOB    NOT NULL CHECK (length(image) = 32),
    state  TEXT    NOT NULL CHECK (state IN ('class', 'not sure', 'none of these', 'bad image', 'no label')),
    class  INTEGER CHECK (class BETWEEN 0 AND 65535),
    who    TEXT    NOT NULL,
    at     TEXT    NOT NULL,
    origin TEXT    NOT NULL,
    undoes INTEGER,
    CHECK ((state = 'class') = (class IS NOT NULL))
) STRICT;
CREATE INDEX label_history_image ON label_history (image, id);
CREATE INDEX label_history_action ON label_history (action);
CREATE INDEX label_history_undoes ON label_history (undoes);
CREATE VIEW latest_labels AS
    SELECT * FROM label_history WHERE id IN (SELECT max(id) FROM label_history GROUP BY image);
CREATE VIEW current_labels AS SELECT * FROM latest_labels WHERE state <> 'no label';
CREATE TRIGGER label_history_keeps BEFORE UPDATE ON label_history
    BEGIN SELECT raise(ABORT, 'the label history is append-only'); END;
CREATE TRIGGER label_history_stays BEFORE DELETE ON label_history
    BEGIN SELECT raise(ABORT, 'the label history is append-only'); END;
PRAGMA user_version = 1;
";

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
        let lock = Lock::take(&project.join("project.lock"), project)?;
        let path = project.join("project.db");
        let connect = || {
            let database = Connection::open(&path)?;
            database.pragma_update(None, "journal_mode", "DELETE")?;
            database.pragma_update(None, "synchronous", "FULL")?;
            let version: i64 = database.pragma_query_value(None, "user_version", |row| row.get(0))?;
            if version == 0 {
                let transaction = database.unchecked_transaction()?;
                transaction.execute_batch(TABLES)?;
                transaction.commit()?;
            }
            Ok((database, version))
        };
        let (database, version) =
            connect().map_err(|source| LabelError::Database { path: path.clone(), source })?;
        if version > VERSION {
            return Err(LabelError::Newer { path, version });
        }
        let store = Self { path, database, classes: classes.clone(), _lock: lock };
        store.check_classes()?;
        Ok(store)
    }

    /// The current labels of a project without taking its lock, for reading while somebody labels.
    /// Empty if nothing was ever labelled.
    pub fn read(project: &Path) -> Result<BTreeMap<ImageHash, Label>, LabelError> {
        let path = project.join("project.db");
        if !path.exists() {
            return Ok(BTreeMap::new());
        }
        Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY)
            .and_then(|database| current(&database))
            .map_err(|source| LabelError::Database { path, source })
    }

    /// The entry that gave each labelled image its current label, as [`Self::current_entries`], without taking the lock.
    pub fn read_entries(project: &Path) -> Result<Vec<LabelEntry>, LabelError> {
        let path = project.join("project.db");
        if !path.exists() {
            return Ok(Vec::new());
        }
        let read = |database: Connection| -> rusqlite::Result<Vec<_>> {
            database.prepare("SELECT * FROM current_labels ORDER BY id")?.query_map([], entry)?.collect()
        };
        Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY)
            .and_then(read)
            .map_err(|source| LabelError::Database { path, source })
    }

    /// Writes labels down, all or none, as one action; returns the action. `None` takes a label away.
    pub fn append(
        &mut self,
        labels: &[(ImageHash, Option<Label>)],
        who: &str,
        from: &str,
    ) -> Result<i64, LabelError> {
        for (_, label) in labels {
            if let Some(Label::Class(class)) = label
                && self.classes.index_of(*class).is_none()
            {
                return Err(LabelError::UnknownClass { class: *class });
            }
        }
        self.in_transaction(|transaction| {
            let action = next_action(transaction)?;
            insert(transaction, action, labels, who, from, None)?;
            Ok(action)
        })
    }

    /// Takes back the latest action that is not taken back yet, by an action of its own. `None` if there is none.
    pub fn undo(&mut self, who: &str) -> Result<Option<Undone>, LabelError> {
        self.in_transaction(|transaction| {
            let latest = "SELECT max(action) FROM label_history AS entry WHERE undoes IS NULL
                AND NOT EXISTS (SELECT 1 FROM label_history AS undo WHERE undo.undoes = entry.action)";
            let Some(action) = transaction.query_row(latest, [], |row| row.get::<_, Option<i64>>(0))? else {
                return Ok(None);
            };
            // What each image had before the action: its last entry then, which may itself be an undo.
            let mut before = transaction.prepare(
                "SELECT image, earlier.state, earlier.class FROM
                    (SELECT image, (SELECT max(id) FROM label_history AS other
                        WHERE other.image = entry.image AND other.id < min(entry.id)) AS previous
                     FROM label_history AS entry WHERE action = ?1 GROUP BY image)
                LEFT JOIN (SELECT id, state, class FROM label_history) AS earlier ON earlier.id = previous",
            )?;
            let images = before
                .query_map([action], |row| {
                    let state: Option<String> = row.get(1)?;
                    Ok((row.get(0)?, state.and_then(|state| Label::from_stored(&state, row.get(2).ok()?))))
                })?
                .collect::<Result<Vec<_>, _>>()?;
            insert(transaction, next_action(transaction)?, &images, who, "undo", Some(action))?;
            Ok(Some(Undone { action, images }))
        })
    }

    /// The current label of every image that has one.
    pub fn current(&self) -> Result<BTreeMap<ImageHash, Label>, LabelError> {
        current(&self.database).map_err(self.database_error())
    }

    /// The entry that gave each labelled image its current label, in the order they were made.
    pub fn current_entries(&self) -> Result<Vec<LabelEntry>, LabelError> {
        self.entries("SELECT * FROM current_labels ORDER BY id", params![])
    }

    /// Everything ever said, of one image or of all, oldest first.
    pub fn history(&self, image: Option<&ImageHash>) -> Result<Vec<LabelEntry>, LabelError> {
        match image {
            Some(image) => {
                self.entries("SELECT * FROM label_history WHERE image = ?1 ORDER BY id", params![image])
            }
            None => self.entries("SELECT * FROM label_history ORDER BY id", params![]),
        }
    }

    /// The classes that labels may name.
    pub fn classes(&self) -> &Classes {
        &self.classes
    }

    fn entries(
        &self,
        query: &str,
        parameters: &[&dyn rusqlite::ToSql],
    ) -> Result<Vec<LabelEntry>, LabelError> {
        let read = || -> rusqlite::Result<Vec<_>> {
            self.database.prepare(query)?.query_map(parameters, entry)?.collect()
        };
        read().map_err(self.database_error())
    }

    fn check_classes(&self) -> Result<(), LabelError> {
        let mut counts = BTreeMap::<u16, u64>::new();
        for class in self.current()?.into_values().filter_map(Label::class) {
            *counts.entry(class).or_default() += 1;
        }
        match counts.into_iter().find(|(class, _)| self.classes.index_of(*class).is_none()) {
            Some((class, count)) => Err(LabelError::LostClass { class, count }),
            None => Ok(()),
        }
    }

    fn in_transaction<T>(
        &mut self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, LabelError> {
        let path = self.path.clone();
        let run = || {
            let transaction = self.database.transaction()?;
            let result = work(&transaction)?;
            transaction.commit()?;
            Ok(result)
        };
        run().map_err(|source| LabelError::Database { path, source })
    }

    fn database_error(&self) -> impl FnOnce(rusqlite::Error) -> LabelError {
        let path = self.path.clone();
        move |source| LabelError::Database { path, source }
    }
}

fn next_action(transaction: &Transaction<'_>) -> rusqlite::Result<i64> {
    transaction.query_row("SELECT coalesce(max(action), 0) + 1 FROM label_history", [], |row| row.get(0))
}

fn insert(
    transaction: &Transaction<'_>,
    action: i64,
    labels: &[(ImageHash, Option<Label>)],
    who: &str,
    from: &str,
    undoes: Option<i64>,
) -> rusqlite::Result<()> {
    let at = Timestamp::now().to_string();
    let mut statement = transaction.prepare(
        "INSERT INTO label_history (action, image, state, class, who, at, origin, undoes)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?;
    for (image, label) in labels {
        let (state, class) = Label::stored(*label);
        statement.execute(params![action, image, state, class, who, at, from, undoes])?;
    }
    Ok(())
}

fn current(database: &Connection) -> rusqlite::Result<BTreeMap<ImageHash, Label>> {
    let mut statement = database.prepare("SELECT image, state, class FROM current_labels")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, String>(1)?, row.get(2)?)))?;
    let mut labels = BTreeMap::new();
    for row in rows {
        let (image, state, class) = row?;
        labels.extend(Label::from_stored(&state, class).map(|label| (image, label)));
    }
    Ok(labels)
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
#[path = "labels_tests.rs"]
mod tests;
