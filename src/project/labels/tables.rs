//! The tables of the database, and how those of earlier versions become them.

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

/// Version of the tables below.
pub(super) const VERSION: i64 = 2;

/// Version 1: the history itself, which no version may change.
const HISTORY: &str = "
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
CREATE TRIGGER label_history_stays BEFORE DELETE ON label_history
    BEGIN SELECT raise(ABORT, 'the label history is append-only'); END;
";

/// Guards the history against changes; also part of version 1.
const KEEPS: &str = "
CREATE TRIGGER label_history_keeps BEFORE UPDATE ON label_history
    BEGIN SELECT raise(ABORT, 'the label history is append-only'); END;
";

/// Version 2: what was done, by whom, and what of it was taken back; an action may leave every image as it is. And the
/// requests of pages, so that one which is sent twice counts once.
///
/// `restores` of an entry made by undo or redo: the entry that gave the image the label it has again, 0 if none did.
/// `retires` of an action: the class that it ends; an undo of it brings that back.
const ACTIONS: &str = "
ALTER TABLE label_history ADD COLUMN restores INTEGER;
CREATE INDEX label_history_class ON label_history (class);
CREATE TABLE actions (
    action  INTEGER PRIMARY KEY,
    kind    TEXT    NOT NULL CHECK (kind IN ('label', 'undo', 'redo')),
    who     TEXT    NOT NULL,
    at      TEXT    NOT NULL,
    origin  TEXT    NOT NULL,
    undoes  INTEGER,
    changed INTEGER NOT NULL,
    skipped INTEGER NOT NULL,
    retires INTEGER CHECK (retires BETWEEN 0 AND 65535),
    CHECK ((kind = 'label') = (undoes IS NULL))
) STRICT;
CREATE INDEX actions_who ON actions (who, kind, action);
CREATE UNIQUE INDEX actions_undoes ON actions (undoes) WHERE undoes IS NOT NULL;
CREATE TABLE requests (
    who     TEXT NOT NULL,
    request TEXT NOT NULL,
    action  INTEGER,
    PRIMARY KEY (who, request)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER actions_keep BEFORE UPDATE ON actions
    BEGIN SELECT raise(ABORT, 'the label history is append-only'); END;
CREATE TRIGGER actions_stay BEFORE DELETE ON actions
    BEGIN SELECT raise(ABORT, 'the label history is append-only'); END;
PRAGMA user_version = 2;
";

/// Makes the tables, or brings them up to date, in one transaction. Returns the version found, which may be too new: nothing
/// is touched then.
pub(super) fn prepare(database: &mut Connection) -> rusqlite::Result<i64> {
    let version = |database: &Connection| database.pragma_query_value(None, "user_version", |row| row.get(0));
    if version(database)? >= VERSION {
        return version(database);
    }
    let transaction = database.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found: i64 = version(&transaction)?;
    match found {
        0 => {
            transaction.execute_batch(HISTORY)?;
            transaction.execute_batch(ACTIONS)?;
            transaction.execute_batch(KEEPS)?;
        }
        1 => from_version_1(&transaction)?,
        _ => {}
    }
    transaction.commit()?;
    Ok(found)
}

fn from_version_1(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute_batch("DROP TRIGGER label_history_keeps")?;
    transaction.execute_batch(ACTIONS)?;
    // All entries of an action were made by one call. Version 1 knew no redo.
    transaction.execute_batch(
        "INSERT INTO actions (action, kind, who, at, origin, undoes, changed, skipped)
            SELECT action, iif(max(undoes) IS NULL, 'label', 'undo'), max(who), max(at), max(origin), max(undoes),
                count(*), 0
            FROM label_history GROUP BY action ORDER BY action",
    )?;
    let mut undone = transaction
        .prepare("SELECT id, image, undoes FROM label_history WHERE undoes IS NOT NULL ORDER BY id")?;
    let undone = undone
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<Result<Vec<(i64, [u8; 32], i64)>, _>>()?;
    let mut before = transaction.prepare(
        "SELECT coalesce(restores, id) FROM label_history WHERE image = ?1
            AND id < (SELECT min(id) FROM label_history WHERE action = ?2 AND image = ?1)
            ORDER BY id DESC LIMIT 1",
    )?;
    let mut keep = transaction.prepare("UPDATE label_history SET restores = ?2 WHERE id = ?1")?;
    for (id, image, action) in undone {
        // In the order of ids, so that what an undo of an undo refers to is known already.
        let restores: Option<i64> = before.query_row(params![image, action], |row| row.get(0)).optional()?;
        keep.execute(params![id, restores.unwrap_or(0)])?;
    }
    transaction.execute_batch(KEEPS)
}
