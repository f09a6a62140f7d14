//! What is kept of a job, `jobs/ID/job.json`: enough to find it again, whoever started it.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Handle, JobPlan, JobState, Place, Wish};
use crate::files::{WriteError, atomic_write};

/// Its file in a job's folder.
const FILE: &str = "job.json";

/// A job, as it was planned and as it went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// What it does, in one word: `scan`, `cluster`, `train`.
    pub kind: String,
    /// What it does, for people.
    pub title: String,
    /// What was chosen, as it was said.
    pub settings: serde_json::Value,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Where it is to run.
    pub place: Place,
    /// How much of it.
    pub wish: Wish,
    /// Who wanted it.
    pub who: String,
    /// When, UTC.
    pub created: String,
    /// Each time a person started it, the last one last.
    pub starts: Vec<Start>,
    /// Since when it is to end, if somebody asked.
    pub stopping: Option<Stopping>,
    /// How it ended; nothing as long as it is not known to have.
    pub ended: Option<Ended>,
}

/// A person started it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// Who.
    pub who: String,
    /// When, UTC.
    pub at: String,
    /// By what it is found.
    pub handle: Handle,
}

/// A person asked for its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopping {
    /// Who.
    pub who: String,
    /// When, UTC.
    pub at: String,
}

/// Its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// [`JobState::Done`], [`JobState::Stopped`] or [`JobState::Failed`].
    pub state: JobState,
    /// The scheduler's word: an exit code, `TIMEOUT`; nothing if it was gone without a word.
    pub word: Option<String>,
    /// When it was seen, UTC.
    pub at: String,
}

impl Record {
    /// Of a job that is about to be started.
    pub fn new(kind: &str, title: &str, who: &str, place: Place, wish: Wish, plan: &JobPlan) -> Self {
        Self {
            kind: kind.to_owned(),
            title: title.to_owned(),
            settings: serde_json::Value::Null,
            command: plan.command.clone(),
            place,
            wish,
            who: who.to_owned(),
            created: now(),
            starts: Vec::new(),
            stopping: None,
            ended: None,
        }
    }

    /// That of the job in `folder`; `None` if there is none that makes sense.
    pub fn read(folder: &Path) -> Option<Self> {
        let bytes = std::fs::read(folder.join(FILE)).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// Writes it down.
    ///
    /// # Errors
    /// If the folder cannot be written to.
    pub fn write(&self, folder: &Path) -> Result<(), WriteError> {
        let bytes = serde_json::to_vec_pretty(self).expect("plain fields always become JSON");
        atomic_write(&folder.join(FILE), &bytes)
    }
}

/// Now, UTC.
pub(super) fn now() -> String {
    format!("{:.3}", jiff::Timestamp::now())
}
