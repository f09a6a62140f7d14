//! A command as a job of the scheduler Slurm: its script, how it is handed in, watched and cancelled, and when it is started
//! again. What the command computes is no business of this room.
//!
//! ```text
//! JobPlan ──script──▶ job.sbatch ──Slurm::submit──▶ JobId ──status, cancel──▶
//!                                      srun ends with 75, or a rank was killed: the script has itself requeued
//! ```

mod quoting;
mod restarts;
mod script;
mod slurm;

use std::path::PathBuf;

pub use restarts::{
    FAILED_VARIABLE, MOST_STARTS_AT_ONE_STEP, NoProgress, note_failure, note_start, restart_count,
};
pub use slurm::{JobError, JobId, JobStatus, Slurm};

/// Exit code of a command that is to be started again: stopped before its end, or left alone by another rank. `EX_TEMPFAIL`
/// of sysexits.h.
pub const COME_BACK: u8 = 75;

/// Name of the script in a job's folder.
pub const SCRIPT: &str = "job.sbatch";

/// Name of the file in a job's folder that all its starts write to.
pub const OUTPUT: &str = "output.txt";

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
    /// Processors for each rank.
    pub cpus_per_rank: u32,
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
