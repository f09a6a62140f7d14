//! A command as a job: on this machine in the background, or of the scheduler Slurm. Its script, how it is started, watched and
//! ended, when it is started again, and how it is found after the program that started it has ended. What the command computes
//! is no business of this room.
//!
//! ```text
//! Wish, Site ──plan──▶ JobPlan ──script──▶ job.sh     ──Local::submit──▶ a process ──status, cancel──▶
//!                                     └──▶ job.sbatch ──Slurm::submit──▶ a number  ──status, cancel──▶
//!                                          what it runs ends with 75, or a rank was killed: the script starts it again
//!
//! PROJECT/jobs/ID/   job.json: what, for whom, where; see [`Ledger`]
//! ```

mod failure;
mod ledger;
mod local;
mod planner;
mod process;
mod queue;
mod quoting;
mod record;
mod restarts;
mod scheduler;
mod script;
mod slurm;

use std::path::PathBuf;

pub use failure::{Explanation, explain};
pub use ledger::{Job, JobState, Ledger, LedgerError, Standing};
pub use local::{EXIT, Local, exit_code};
pub use planner::{PlanError, Task, Wish, plan};
pub use process::{Life, Process, host};
pub use queue::Queue;
pub use record::{Ended, Record, Start, Stopping};
pub use restarts::{
    FAILED_VARIABLE, MOST_STARTS_AT_ONE_STEP, NoProgress, note_failure, note_start, restart_count,
};
pub use scheduler::{Handle, JobStatus, Place, Scheduler};
pub use slurm::{JobError, JobId, Slurm};

/// Exit code of a command that is to be started again: stopped before its end, or left alone by another rank. `EX_TEMPFAIL`
/// of sysexits.h.
pub const COME_BACK: u8 = 75;

/// Name of the script in the folder of a job of Slurm.
pub const SCRIPT: &str = "job.sbatch";

/// Name of the file in a job's folder that all its starts write to.
pub const OUTPUT: &str = "output.txt";

/// Name of the file in a job's folder in which the program tells how far it is.
pub const PROGRESS: &str = "progress.json";

/// Names that file to the program; set by a job's script.
pub const PROGRESS_VARIABLE: &str = "HARVEST_PROGRESS";

/// Name of the file in a job's folder with the labels as they were when it was planned.
pub const LABELS: &str = "labels.json";

/// Name of the file in a job's folder with the project's file as it was when the job was planned.
pub const SETTINGS: &str = "settings.toml";

/// A command and what it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobPlan {
    /// What lists of jobs call it.
    pub name: String,
    /// The program and its arguments; every rank runs it.
    pub command: Vec<String>,
    /// Where it runs; all nodes must see it.
    pub working_folder: PathBuf,
    /// Where script and output are kept; all nodes must see it.
    pub folder: PathBuf,
    /// Machines.
    pub nodes: u32,
    /// Ranks on each.
    pub ranks: RanksPerNode,
    /// Processors for each rank; nothing: all of this machine, or what Slurm gives.
    pub cpus_per_rank: Option<u32>,
    /// How its ranks find each other through MPI (`pmix`, `pmi2`); nothing if they need no MPI.
    pub mpi: Option<String>,
    /// Most time at a stretch, in Slurm's words: `90` minutes, `1-12:00:00`. Nothing: what the partition gives.
    pub time: Option<String>,
    /// Group of nodes; nothing: Slurm's default.
    pub partition: Option<String>,
    /// Who pays; nothing: Slurm's default.
    pub account: Option<String>,
    /// How often it is started again at most, whatever the reason. A last resort: [`note_start`] is the real one.
    pub most_restarts: u32,
    /// Loaded first, with the command `module`.
    pub modules: Vec<String>,
    /// Words before the command's own, which start it inside of a container.
    pub container: Vec<String>,
    /// Variables of the command.
    pub environment: Vec<(String, String)>,
}

/// Ranks on each node, and what each computes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RanksPerNode {
    /// One for each of so many GPUs.
    Gpus(u32),
    /// So many, on processors.
    Tasks(u32),
}

impl RanksPerNode {
    /// How many.
    pub fn count(self) -> u32 {
        match self {
            Self::Gpus(count) | Self::Tasks(count) => count,
        }
    }
}

impl JobPlan {
    /// Ranks on all nodes.
    pub fn world_size(&self) -> u32 {
        self.nodes.saturating_mul(self.ranks.count())
    }

    /// Where its output goes.
    pub fn output(&self) -> PathBuf {
        self.folder.join(OUTPUT)
    }
}
