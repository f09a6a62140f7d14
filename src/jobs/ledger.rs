//! All jobs of a project, as its folder `jobs` tells of them. Nothing is kept in memory: whoever starts anew knows as much as
//! whoever was there before.

use std::fs;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::record::now;
use super::{
    EXIT, Ended, Handle, JobError, JobStatus, Local, OUTPUT, PROGRESS, Place, Queue, Record, Scheduler,
    Slurm, Start, Stopping, exit_code,
};
use crate::files::{WriteError, atomic_write};

/// Most of a job's output that is read.
const TAIL_BYTES: u64 = 64 * 1024;

/// A job that cannot be found or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// No such job.
    #[error("there is no job `{id}`; it may have been forgotten")]
    Missing {
        /// Its folder's name.
        id: String,
    },
    /// It has not ended.
    #[error("this job has not ended yet; stop it first")]
    Busy,
    /// It has ended.
    #[error("this job has ended already")]
    Over,
    /// The scheduler.
    #[error(transparent)]
    Scheduler(#[from] JobError),
    /// A file.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// How a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// In the queue.
    Waiting,
    /// At work.
    Running,
    /// Asked to end, and saving.
    Stopping,
    /// At its end, as wished.
    Done,
    /// Ended early, since somebody wished so; can go on.
    Stopped,
    /// Ended early by itself; can be tried again.
    Failed,
}

impl JobState {
    /// As written down.
    pub fn word(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Done => "done",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        }
    }

    /// Whether nothing happens any more unless somebody starts it again.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Stopped | Self::Failed)
    }
}

/// How a job stands, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// In one word.
    pub state: JobState,
    /// The machines it runs on, as the scheduler names them.
    pub nodes: Option<String>,
    /// Its place in the queue.
    pub queue: Option<Queue>,
    /// Why the scheduler could not be asked; the state is the last one known then.
    pub trouble: Option<String>,
}

/// The jobs of a project.
#[derive(Debug, Clone)]
pub struct Ledger {
    folder: PathBuf,
    local: Local,
    slurm: Slurm,
}

/// A job in its folder.
#[derive(Debug, Clone)]
pub struct Job {
    /// Its folder, whose name is what it is called.
    pub folder: PathBuf,
    /// What is kept of it.
    pub record: Record,
}

impl Job {
    /// What it is called.
    pub fn id(&self) -> &str {
        self.folder.file_name().and_then(|name| name.to_str()).unwrap_or_default()
    }

    /// Its latest start.
    pub fn handle(&self) -> Option<&Handle> {
        self.record.starts.last().map(|start| &start.handle)
    }

    /// Its script.
    pub fn script(&self) -> PathBuf {
        self.folder.join(self.record.place.script_name())
    }

    /// The last lines of its output, at most `lines`.
    pub fn tail(&self, lines: usize) -> String {
        let read = || -> io::Result<String> {
            let mut file = fs::File::open(self.folder.join(OUTPUT))?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
            let mut bytes = Vec::new();
            file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        let text = read().unwrap_or_default();
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// What a rank said that failed for good, if one did: of the latest start.
    pub fn failure(&self) -> Option<String> {
        let files = fs::read_dir(&self.folder).ok()?.flatten();
        let failed = files.filter(|file| file.file_name().to_string_lossy().starts_with("failed-"));
        let newest = failed.max_by_key(|file| file.metadata().and_then(|file| file.modified()).ok())?;
        let text = fs::read_to_string(newest.path()).ok()?;
        let text = text.trim();
        let words = text
            .split_once(": ")
            .filter(|(rank, _)| rank.starts_with("rank "))
            .map_or(text, |(_, words)| words);
        (!words.is_empty()).then(|| words.to_owned())
    }
}

impl Ledger {
    /// Of the project in `dir`, or of a folder with jobs but no project.
    pub fn of(dir: &Path) -> Self {
        Self { folder: dir.join("jobs"), local: Local::default(), slurm: Slurm::new() }
    }

    /// With other ways to run jobs.
    pub fn with(self, local: Local, slurm: Slurm) -> Self {
        Self { local, slurm, ..self }
    }

    /// A new folder for a job of that kind; its name begins with the time.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn claim(&self, kind: &str) -> Result<PathBuf, WriteError> {
        fs::create_dir_all(&self.folder).map_err(WriteError::at(&self.folder))?;
        let time = self.next_name(kind);
        let mut count = 1;
        loop {
            let folder = self.folder.join(if count == 1 { time.clone() } else { format!("{time}-{count}") });
            match fs::create_dir(&folder) {
                Ok(()) => return Ok(folder),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => count += 1,
                Err(error) => return Err(WriteError::at(&folder)(error)),
            }
        }
    }

    /// The folder that a job planned now would have, if no other takes it.
    pub fn next(&self, kind: &str) -> PathBuf {
        self.folder.join(self.next_name(kind))
    }

    fn next_name(&self, kind: &str) -> String {
        format!("{}-{kind}", jiff::Zoned::now().strftime("%Y-%m-%dT%H-%M-%S"))
    }

    /// All jobs, the latest first; folders that tell of none are passed over.
    pub fn list(&self) -> Vec<Job> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut jobs: Vec<Job> = entries
            .filter_map(|entry| {
                let folder = entry.path();
                Some(Job { record: Record::read(&folder)?, folder })
            })
            .collect();
        jobs.sort_by(|a, b| (&b.record.created, &b.folder).cmp(&(&a.record.created, &a.folder)));
        jobs
    }

    /// The job of that name.
    ///
    /// # Errors
    /// If there is none.
    pub fn find(&self, id: &str) -> Result<Job, LedgerError> {
        let plain = !id.is_empty() && id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        let folder = self.folder.join(id);
        let record = plain.then(|| Record::read(&folder)).flatten();
        record.map(|record| Job { folder, record }).ok_or_else(|| LedgerError::Missing { id: id.to_owned() })
    }

    fn scheduler(&self, place: Place) -> &dyn Scheduler {
        match place {
            Place::Here => &self.local,
            Place::Slurm => &self.slurm,
        }
    }

    /// Writes a job that was planned into its folder, with its script, and starts it.
    ///
    /// # Errors
    /// If it cannot be written, or is not taken; the folder stays, for a look at the script.
    pub fn start(&self, folder: &Path, record: Record, script: &str) -> Result<Job, LedgerError> {
        let mut job = Job { folder: folder.to_owned(), record };
        atomic_write(&job.script(), script.as_bytes())?;
        // Before it is started: what runs must never be unknown.
        job.record.write(&job.folder)?;
        let who = job.record.who.clone();
        self.submit(&mut job, &who)?;
        Ok(job)
    }

    /// Starts a job again that has ended, with the same script and the same labels.
    ///
    /// # Errors
    /// If it has not ended, or is not taken.
    pub fn resume(&self, job: &mut Job, who: &str) -> Result<(), LedgerError> {
        if !self.look(job).state.is_over() {
            return Err(LedgerError::Busy);
        }
        self.submit(job, who)
    }

    fn submit(&self, job: &mut Job, who: &str) -> Result<(), LedgerError> {
        for entry in fs::read_dir(&job.folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name == EXIT || name == PROGRESS || name.starts_with("failed-") {
                // Of the last start; if it cannot be removed, the folder cannot be written to, which is told below.
                let _ = fs::remove_file(entry.path());
            }
        }
        let handle = self.scheduler(job.record.place).submit(&job.folder)?;
        job.record.starts.push(Start { who: who.to_owned(), at: now(), handle });
        (job.record.stopping, job.record.ended) = (None, None);
        Ok(job.record.write(&job.folder)?)
    }

    /// Asks for an orderly end; one on this machine that was asked before is killed.
    ///
    /// # Errors
    /// If it has ended, or cannot be reached.
    pub fn stop(&self, job: &mut Job, who: &str) -> Result<(), LedgerError> {
        let standing = self.look(job);
        let Some(handle) = job.handle().cloned().filter(|_| !standing.state.is_over()) else {
            return Err(LedgerError::Over);
        };
        if let (Handle::Here(process), true) = (&handle, job.record.stopping.is_some()) {
            return Ok(self.local.kill(process)?);
        }
        let before = job.record.stopping.replace(Stopping { who: who.to_owned(), at: now() });
        // Before it is asked: it may end before we could write.
        job.record.write(&job.folder)?;
        if let Err(error) = self.scheduler(handle.place()).cancel(&handle) {
            job.record.stopping = before;
            job.record.write(&job.folder)?;
            return Err(error.into());
        }
        Ok(())
    }

    /// Deletes the folder of a job that has ended. What it made, runs and clusters, stays.
    ///
    /// # Errors
    /// If it has not ended, or cannot be deleted.
    pub fn forget(&self, mut job: Job) -> Result<(), LedgerError> {
        if !self.look(&mut job).state.is_over() {
            return Err(LedgerError::Busy);
        }
        Ok(fs::remove_dir_all(&job.folder).map_err(WriteError::at(&job.folder))?)
    }

    /// How `job` stands; an end that is seen for the first time is noted.
    pub fn look(&self, job: &mut Job) -> Standing {
        let standing = |state| Standing { state, nodes: None, queue: None, trouble: None };
        if let Some(ended) = &job.record.ended {
            return standing(ended.state);
        }
        let stopping = job.record.stopping.is_some();
        let Some(handle) = job.handle().cloned() else {
            // Whoever planned it ended before it was started.
            return standing(self.note_end(job, JobState::Failed, None));
        };
        let going = |state| if stopping { JobState::Stopping } else { state };
        match self.scheduler(handle.place()).status(&job.folder, &handle) {
            Ok(JobStatus::Waiting(_)) => {
                let queue = match &handle {
                    Handle::Slurm(id) => self.slurm.queue(*id).ok().flatten(),
                    Handle::Here(_) => None,
                };
                Standing { queue, ..standing(going(JobState::Waiting)) }
            }
            Ok(JobStatus::Running(nodes)) => {
                Standing { nodes: Some(nodes), ..standing(going(JobState::Running)) }
            }
            Ok(JobStatus::Ended(word)) => {
                standing(self.note_end(job, ended_as(&word, stopping, &job.folder), Some(word)))
            }
            Ok(JobStatus::Forgotten) => {
                let code = exit_code(&job.folder).map(|code| code.to_string());
                let state = match &code {
                    Some(code) => ended_as(code, stopping, &job.folder),
                    None if stopping => JobState::Stopped,
                    None => JobState::Failed,
                };
                standing(self.note_end(job, state, code))
            }
            Err(error) => {
                Standing { trouble: Some(crate::errors::chain(&error)), ..standing(going(JobState::Running)) }
            }
        }
    }

    fn note_end(&self, job: &mut Job, state: JobState, word: Option<String>) -> JobState {
        // Who is starting it this moment has not written down what it is found by.
        if job.record.starts.is_empty() && is_young(&job.record.created) {
            return JobState::Waiting;
        }
        job.record.ended = Some(Ended { state, word, at: now() });
        // If it cannot be noted, it is found out again the next time.
        let _ = job.record.write(&job.folder);
        state
    }

    /// All that the scheduler tells of a job, for people who know it.
    pub fn details(&self, job: &Job) -> Option<String> {
        match job.handle()? {
            Handle::Slurm(id) => self.slurm.details(*id),
            Handle::Here(_) => None,
        }
    }
}

/// The state of a job that ended with this word.
fn ended_as(word: &str, stopping: bool, folder: &Path) -> JobState {
    match word {
        "0" | "COMPLETED" => JobState::Done,
        "130" | "CANCELLED" => JobState::Stopped,
        // Slurm's word for any code but 0.
        "FAILED" if exit_code(folder) == Some(130) => JobState::Stopped,
        _ if stopping => JobState::Stopped,
        _ => JobState::Failed,
    }
}

/// Whether a moment ago, by a clock that need not be right.
fn is_young(time: &str) -> bool {
    let age =
        time.parse::<jiff::Timestamp>().map(|then| jiff::Timestamp::now().as_second() - then.as_second());
    age.is_ok_and(|seconds| (0..60).contains(&seconds))
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
