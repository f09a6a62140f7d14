//! What is done to labels: giving them, taking that back, and doing it again.
//!
//! Undo and redo follow from the history alone, for each person apart, so they reach back to the first day. An undo takes back
//! the person's latest label or redo that is not taken back; a redo takes back their latest undo that is not, if they labelled
//! nothing after it. An image is left alone if somebody else has labelled it since: its label no longer stems from what is
//! taken back. Where an undo gives an image its earlier label, the entry tells which entry that label stems from
//! (`restores`), so that labelling and undoing by somebody else in between changes nothing.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Savepoint, TransactionBehavior, params};

use super::{ImageHash, Label, LabelError, LabelStore, label_in};

/// Something to be written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Act {
    /// Who does it.
    pub who: String,
    /// What tells a request that comes twice, since its answer was lost, from two requests.
    pub request: Option<String>,
    /// What.
    pub deed: Deed,
}

/// What somebody does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// Labels images, each once; of one that is named twice the last label counts.
    Label {
        /// `None` takes a label away.
        labels: Vec<(ImageHash, Option<Label>)>,
        /// From where: a page, a file.
        from: String,
        /// The class that ends with it, since it is merged into another or deleted.
        retires: Option<u16>,
    },
    /// Takes back the latest thing they did.
    Undo,
    /// Does again what they took back last.
    Redo,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// Its number; `None` if there was nothing to undo or redo.
    pub action: Option<i64>,
    /// The action that it takes back.
    pub undoes: Option<i64>,
    /// The images, each with the label it has from now on.
    pub images: Vec<(ImageHash, Option<Label>)>,
    /// How many of them had another label before.
    pub changed: u64,
    /// Images left alone since somebody else has labelled them.
    pub skipped: u64,
    /// The class that ended with it; of an undo, the class that came back.
    pub retires: Option<u16>,
    /// Whether this request was answered before: this is that answer.
    pub repeated: bool,
}

/// Each act's outcome.
pub type Outcomes = Vec<Result<Done, Arc<LabelError>>>;

impl LabelStore {
    /// Does one thing.
    ///
    /// # Errors
    /// If it makes no sense or cannot be written; nothing is changed then.
    pub fn act(&mut self, act: &Act) -> Result<Done, LabelError> {
        let at = LabelError::at(&self.path);
        let mut transaction =
            self.database.transaction_with_behavior(TransactionBehavior::Immediate).map_err(&at)?;
        let savepoint = transaction.savepoint().map_err(&at)?;
        let done = Pen { page: &savepoint, classes: &self.classes, at: &at }.act(act)?;
        savepoint.commit().map_err(&at)?;
        transaction.commit().map_err(&at)?;
        Ok(done)
    }

    /// Does several things in one transaction, in their order; they are on the disk when this returns. Each succeeds or fails
    /// by itself. Where the whole cannot be written they are tried one after the other, unless that is as hopeless.
    ///
    /// Stops behind one that asks for a class which is not there: there are fewer outcomes than acts then. Whoever can make
    /// the class be there does so, tries that act again and goes on with the others, so that their order is kept.
    pub fn act_together(&mut self, acts: &[Act]) -> Outcomes {
        let error = match self.in_one_transaction(acts) {
            Ok(outcomes) => return outcomes,
            Err(error) => error,
        };
        let hopeless = error.needs_reopening() || matches!(error, LabelError::Busy { .. });
        if acts.len() > 1 && !hopeless {
            return acts.iter().map(|act| self.act(act).map_err(Arc::new)).collect();
        }
        let error = Arc::new(error);
        acts.iter().map(|_| Err(error.clone())).collect()
    }

    /// Whether this request was answered before.
    pub fn knows_request(&self, who: &str, request: &str) -> Result<bool, LabelError> {
        let query = "SELECT EXISTS (SELECT 1 FROM requests WHERE who = ?1 AND request = ?2)";
        let found = self.database.query_row(query, params![who, request], |row| row.get(0));
        found.map_err(LabelError::at(&self.path))
    }

    fn in_one_transaction(&mut self, acts: &[Act]) -> Result<Outcomes, LabelError> {
        let at = LabelError::at(&self.path);
        let mut transaction =
            self.database.transaction_with_behavior(TransactionBehavior::Immediate).map_err(&at)?;
        let mut outcomes = Vec::with_capacity(acts.len());
        for act in acts {
            // Rolled back when it is dropped.
            let savepoint = transaction.savepoint().map_err(&at)?;
            let done = Pen { page: &savepoint, classes: &self.classes, at: &at }.act(act);
            match done {
                Ok(done) => {
                    savepoint.commit().map_err(&at)?;
                    outcomes.push(Ok(done));
                }
                Err(error @ (LabelError::UnknownClass { .. } | LabelError::RetiredClass { .. })) => {
                    outcomes.push(Err(Arc::new(error)));
                    break;
                }
                // The database's own errors may have ended the whole transaction.
                Err(error) => return Err(error),
            }
        }
        transaction.commit().map_err(&at)?;
        Ok(outcomes)
    }
}

/// Writes one act down.
struct Pen<'a, F> {
    page: &'a Savepoint<'a>,
    classes: &'a super::Classes,
    at: &'a F,
}

/// The label an image has, and the entry which that stems from: 0 if none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Standing {
    label: Option<Label>,
    source: i64,
}

/// What an action that is taken back said of an image.
struct Said {
    entry: i64,
    image: ImageHash,
    source: i64,
}

struct Target {
    action: i64,
    retires: Option<u16>,
}

const LABEL: &str = "label";
const UNDO: &str = "undo";
const REDO: &str = "redo";

impl<F: Fn(rusqlite::Error) -> LabelError> Pen<'_, F> {
    fn act(&self, act: &Act) -> Result<Done, LabelError> {
        if let Some(done) = self.answered(act).map_err(self.at)? {
            return Ok(done);
        }
        let done = match &act.deed {
            Deed::Label { labels, from, retires } => self.label(&act.who, labels, from, *retires)?,
            Deed::Undo => self.take_back(&act.who, UNDO)?,
            Deed::Redo => self.take_back(&act.who, REDO)?,
        };
        if let Some(request) = &act.request {
            let insert = "INSERT INTO requests (who, request, action) VALUES (?1, ?2, ?3)";
            let write = || self.page.prepare_cached(insert)?.execute(params![act.who, request, done.action]);
            write().map_err(self.at)?;
        }
        Ok(done)
    }

    /// The answer this request got before.
    fn answered(&self, act: &Act) -> rusqlite::Result<Option<Done>> {
        let Some(request) = &act.request else { return Ok(None) };
        let query = "SELECT action FROM requests WHERE who = ?1 AND request = ?2";
        let found: Option<Option<i64>> = self
            .page
            .prepare_cached(query)?
            .query_row(params![act.who, request], |row| row.get(0))
            .optional()?;
        let Some(found) = found else { return Ok(None) };
        let Some(action) = found else { return Ok(Some(Done { repeated: true, ..Done::nothing() })) };
        let mut query = self
            .page
            .prepare_cached("SELECT image, state, class FROM label_history WHERE action = ?1 ORDER BY id")?;
        let images = query.query_map([action], |row| Ok((row.get(0)?, label_in(row, 1)?)))?;
        let images = images.collect::<Result<Vec<_>, _>>()?;
        let query = "SELECT undoes, changed, skipped, retires FROM actions WHERE action = ?1";
        let done = self.page.prepare_cached(query)?.query_row([action], |row| {
            Ok(Done {
                action: Some(action),
                undoes: row.get(0)?,
                images,
                changed: row.get(1)?,
                skipped: row.get(2)?,
                retires: row.get(3)?,
                repeated: true,
            })
        })?;
        Ok(Some(done))
    }

    fn label(
        &self,
        who: &str,
        labels: &[(ImageHash, Option<Label>)],
        from: &str,
        retires: Option<u16>,
    ) -> Result<Done, LabelError> {
        let mut places = HashMap::with_capacity(labels.len());
        let mut images: Vec<(ImageHash, Option<Label>)> = Vec::with_capacity(labels.len());
        for (image, label) in labels {
            if let Some(class) =
                label.and_then(Label::class).filter(|class| self.classes.get(*class).is_none())
            {
                return Err(LabelError::UnknownClass { class });
            }
            let place = *places.entry(*image).or_insert(images.len());
            match images.get_mut(place) {
                Some(earlier) => earlier.1 = *label,
                None => images.push((*image, *label)),
            }
        }
        let write = || {
            let mut changed = 0;
            for (image, label) in &images {
                changed += u64::from(self.standing(image, i64::MAX)?.label != *label);
            }
            let action = Action { kind: LABEL, who, from, undoes: None, changed, skipped: 0, retires };
            let entries = images.iter().map(|(image, label)| (*image, *label, None));
            let action = self.write(&action, entries)?;
            Ok(Done { action: Some(action), changed, retires, images, ..Done::nothing() })
        };
        write().map_err(self.at)
    }

    fn take_back(&self, who: &str, kind: &'static str) -> Result<Done, LabelError> {
        let Some(target) = self.target(who, kind).map_err(self.at)? else { return Ok(Done::nothing()) };
        let restored = || {
            let mut restored = Vec::new();
            let mut skipped = 0;
            for said in self.said(target.action)? {
                if self.standing(&said.image, i64::MAX)?.source == said.source {
                    restored.push((said.image, self.standing(&said.image, said.entry)?));
                } else {
                    skipped += 1;
                }
            }
            Ok((restored, skipped))
        };
        let (restored, skipped): (Vec<(ImageHash, Standing)>, u64) = restored().map_err(self.at)?;
        let needed = restored.iter().filter_map(|(_, before)| before.label?.class());
        let needed = needed.chain(target.retires.filter(|_| kind == UNDO));
        if let Some(class) = needed.into_iter().find(|class| self.classes.get(*class).is_none()) {
            return Err(LabelError::RetiredClass { class });
        }
        let action = Action {
            kind,
            who,
            from: kind,
            undoes: Some(target.action),
            changed: restored.len() as u64,
            skipped,
            retires: target.retires,
        };
        let entries = restored.iter().map(|(image, before)| (*image, before.label, Some(before.source)));
        let written = self.write(&action, entries).map_err(self.at)?;
        Ok(Done {
            action: Some(written),
            undoes: action.undoes,
            images: restored.into_iter().map(|(image, before)| (image, before.label)).collect(),
            changed: action.changed,
            skipped,
            retires: target.retires,
            repeated: false,
        })
    }

    /// What an undo or redo by `who` takes back.
    fn target(&self, who: &str, kind: &'static str) -> rusqlite::Result<Option<Target>> {
        // The latest of one kind that is not taken back and comes after action `?3`, walking back along the index.
        let latest = "SELECT action, retires FROM actions AS candidate
            WHERE who = ?1 AND kind = ?2 AND action > ?3
                AND NOT EXISTS (SELECT 1 FROM actions AS undo WHERE undo.undoes = candidate.action)
            ORDER BY action DESC LIMIT 1";
        let latest = |kind: &str, after: i64| {
            self.page
                .prepare_cached(latest)?
                .query_row(params![who, kind, after], |row| {
                    Ok(Target { action: row.get(0)?, retires: row.get(1)? })
                })
                .optional()
        };
        if kind == UNDO {
            let (label, redo) = (latest(LABEL, 0)?, latest(REDO, 0)?);
            return Ok(label.into_iter().chain(redo).max_by_key(|target| target.action));
        }
        let labelled = "SELECT coalesce(max(action), 0) FROM actions WHERE who = ?1 AND kind = 'label'";
        let labelled = self.page.prepare_cached(labelled)?.query_row([who], |row| row.get(0))?;
        latest(UNDO, labelled)
    }

    fn said(&self, action: i64) -> rusqlite::Result<Vec<Said>> {
        let query =
            "SELECT id, image, coalesce(restores, id) FROM label_history WHERE action = ?1 ORDER BY id";
        let mut query = self.page.prepare_cached(query)?;
        let rows = query.query_map([action], |row| {
            Ok(Said { entry: row.get(0)?, image: row.get(1)?, source: row.get(2)? })
        })?;
        rows.collect()
    }

    /// How an image stood before entry `before`.
    fn standing(&self, image: &ImageHash, before: i64) -> rusqlite::Result<Standing> {
        let query = "SELECT state, class, coalesce(restores, id) FROM label_history
            WHERE image = ?1 AND id < ?2 ORDER BY id DESC LIMIT 1";
        let found = self.page.prepare_cached(query)?.query_row(params![image, before], |row| {
            Ok(Standing { label: label_in(row, 0)?, source: row.get(2)? })
        });
        Ok(found.optional()?.unwrap_or(Standing { label: None, source: 0 }))
    }

    /// Writes an action with its entries: image, label, and what that stems from if not from this entry.
    fn write(
        &self,
        action: &Action<'_>,
        entries: impl Iterator<Item = (ImageHash, Option<Label>, Option<i64>)>,
    ) -> rusqlite::Result<i64> {
        let at = Timestamp::now().to_string();
        let Action { kind, who, from, undoes, changed, skipped, retires } = *action;
        self.page
            .prepare_cached(
                "INSERT INTO actions (kind, who, at, origin, undoes, changed, skipped, retires)
                VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute(params![kind, who, at, from, undoes, changed, skipped, retires])?;
        let number = self.page.last_insert_rowid();
        let mut insert = self.page.prepare_cached(
            "INSERT INTO label_history (action, image, state, class, who, at, origin, undoes, restores)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?;
        for (image, label, restores) in entries {
            let (state, class) = Label::stored(label);
            insert.execute(params![number, image, state, class, who, at, from, undoes, restores])?;
        }
        Ok(number)
    }
}

/// A row of `actions`.
struct Action<'a> {
    kind: &'static str,
    who: &'a str,
    from: &'a str,
    undoes: Option<i64>,
    changed: u64,
    skipped: u64,
    retires: Option<u16>,
}

impl Done {
    fn nothing() -> Self {
        Self {
            action: None,
            undoes: None,
            images: Vec::new(),
            changed: 0,
            skipped: 0,
            retires: None,
            repeated: false,
        }
    }
}

#[cfg(test)]
#[path = "acts_tests.rs"]
mod tests;
