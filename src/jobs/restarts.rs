//! When a job is not to be started again: it gets no further, or it failed for good.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::files::{WriteError, atomic_write};

/// Starts at the same step after which the next one is refused.
pub const MOST_STARTS_AT_ONE_STEP: usize = 3;

/// Its file in a run's folder.
const FILE: &str = "starts.json";

/// Names the file in which a rank says that it failed for good; set by a job's script.
pub const FAILED_VARIABLE: &str = "HARVEST_JOB_FAILED";

/// A job that is not to go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NoProgress {
    /// Started again and again, it never got further.
    #[error(
        "this job was started {starts} times at step {step} and never got beyond it, so it is not started again; its output \
         tells how each start ended. Once that is mended, give the same command again: the run goes on (starts are kept in \
         `{path}`)",
        path = path.display()
    )]
    Stuck {
        /// Where it is.
        step: u64,
        /// How often it was tried there.
        starts: usize,
        /// The file that tells.
        path: PathBuf,
    },
    /// The starts cannot be noted.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Steps at which a job's starts went on.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Starts {
    steps: Vec<u64>,
}

/// Notes in the run folder `folder` that a job goes on at `step`; `restart_count` is how often the scheduler has started it
/// again, 0 for a job that a person has just handed in.
///
/// # Errors
/// If this is a restart and the last [`MOST_STARTS_AT_ONE_STEP`] starts were at this step already.
pub fn note_start(folder: &Path, restart_count: u32, step: u64) -> Result<(), NoProgress> {
    let path = folder.join(FILE);
    let earlier = match restart_count {
        // A person has looked at it.
        0 => Starts::default(),
        _ => read(&path),
    };
    let starts = earlier.steps.iter().rev().take_while(|earlier| **earlier == step).count();
    if starts >= MOST_STARTS_AT_ONE_STEP {
        return Err(NoProgress::Stuck { step, starts, path });
    }
    // More than what the next start asks for is of no use.
    let kept = earlier.steps.len().saturating_sub(MOST_STARTS_AT_ONE_STEP - 1);
    let steps = earlier.steps[kept..].iter().copied().chain([step]).collect();
    let bytes = serde_json::to_vec(&Starts { steps }).expect("numbers are plain data");
    Ok(atomic_write(&path, &bytes)?)
}

/// A file that is missing or damaged only means that counting starts anew: it guards against loops, no result depends on it.
fn read(path: &Path) -> Starts {
    fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

/// Tells a job on this machine how often it was started again, as Slurm tells its own; set by the job's script.
pub(super) const RESTARTS_VARIABLE: &str = "HARVEST_RESTART_COUNT";

/// How often this job was started again; 0 outside of jobs.
pub fn restart_count() -> u32 {
    let count = std::env::var("SLURM_RESTART_COUNT").or_else(|_| std::env::var(RESTARTS_VARIABLE)).ok();
    count.and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// Tells the job's script, if this runs in one, that this rank failed for a reason that another start would meet again. Its
/// exit code alone does not tell: Slurm ends the other ranks at once, and the script sees the highest code of all.
pub fn note_failure(reason: &str) {
    if let Some(path) = std::env::var_os(FAILED_VARIABLE) {
        let rank = std::env::var("SLURM_PROCID").unwrap_or_else(|_| "?".into());
        // Ranks write the same file, the last one wins; if none can, the number of restarts is still limited.
        let _ = fs::write(path, format!("rank {rank}: {reason}\n"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_starts_at_one_step_are_enough() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for restart in 0..3 {
            note_start(folder.path(), restart, 40).expect("it may try");
        }
        let error = note_start(folder.path(), 3, 40).expect_err("it got no further");
        assert!(error.to_string().contains("3 times at step 40"), "{error}");
        // And so it stays.
        assert!(matches!(note_start(folder.path(), 4, 40), Err(NoProgress::Stuck { .. })));
        note_start(folder.path(), 0, 40).expect("a person may try again");
        note_start(folder.path(), 1, 40).expect("counted anew");
    }

    #[test]
    fn a_job_that_gets_on_may_be_started_any_number_of_times() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for restart in 0..20 {
            note_start(folder.path(), restart, u64::from(restart) / 3).expect("it got on");
        }
        let size = fs::metadata(folder.path().join(FILE)).expect("noted").len();
        assert!(size < 100, "only the last starts are kept: {size} bytes");
    }

    #[test]
    fn a_damaged_file_starts_the_count_anew_and_a_missing_folder_is_an_error() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::write(folder.path().join(FILE), "{\"steps\":[4").expect("it is written");
        note_start(folder.path(), 7, 4).expect("counted anew");
        let gone = note_start(&folder.path().join("gone"), 0, 0).expect_err("there is no such folder");
        assert!(gone.to_string().contains("does not exist"), "{gone}");
    }
}
