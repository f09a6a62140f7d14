//! Where jobs run: this machine, or a cluster's queue.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::process::Process;
use super::{JobError, JobId};

/// Where a job is to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// On this machine, at once.
    #[default]
    Here,
    /// On a cluster, when its turn comes.
    Slurm,
}

impl Place {
    /// Name of a job's script in its folder.
    pub fn script_name(self) -> &'static str {
        match self {
            Self::Here => "job.sh",
            Self::Slurm => super::SCRIPT,
        }
    }
}

/// By what a job that was started is found again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Handle {
    /// A process on a machine.
    Here(Process),
    /// A number of Slurm's.
    Slurm(JobId),
}

impl Handle {
    /// Where it runs.
    pub fn place(&self) -> Place {
        match self {
            Self::Here(_) => Place::Here,
            Self::Slurm(_) => Place::Slurm,
        }
    }
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Here(process) => write!(f, "process {} on {}", process.pid, process.host),
            Self::Slurm(job) => write!(f, "Slurm's job {job}"),
        }
    }
}

/// How a job stands.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum JobStatus {
    /// In the queue, with Slurm's word for why: `Resources`, `Priority`, `BeginTime`.
    Waiting(String),
    /// At work, on these nodes.
    Running(String),
    /// At its end, with the scheduler's word for how: Slurm's `COMPLETED`, `FAILED`, `CANCELLED`, `TIMEOUT`, or the exit code of
    /// a job on this machine.
    Ended(String),
    /// The scheduler knows nothing of it: it ended some time ago, or was killed before it could say how it ended.
    Forgotten,
}

/// Starts scripts as jobs, watches and ends them.
pub trait Scheduler {
    /// Starts the script of the job in `folder`, or puts it in the queue.
    ///
    /// # Errors
    /// If it is not taken.
    fn submit(&self, folder: &Path) -> Result<Handle, JobError>;

    /// How the job in `folder` stands.
    ///
    /// # Errors
    /// If the scheduler does not answer.
    fn status(&self, folder: &Path, handle: &Handle) -> Result<JobStatus, JobError>;

    /// Asks for an orderly end: what runs saves first. It is not started again.
    ///
    /// # Errors
    /// If the scheduler does not let this user.
    fn cancel(&self, handle: &Handle) -> Result<(), JobError>;
}
