//! Jobs on this machine: a script in a session of its own, which outlives whoever started it.
//!
//! ```text
//! jobs/ID/job.sh       the script
//!         output.txt   what it and all it starts print
//!         exit         its exit code, once it has ended by itself
//! ```

use std::fs::{self, OpenOptions};
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::process::{Life, Process};
use super::{Handle, JobError, JobStatus, OUTPUT, Place, Scheduler};
use crate::files::WriteError;

/// Name of the file with a job's exit code.
pub const EXIT: &str = "exit";

/// How long a job that was asked to end may take to save what it has.
const GRACE: Duration = Duration::from_secs(120);

/// Runs the script and notes how it ended. It stays when the script is told to stop, to tell of it.
const KEEPER: &str = "trap : TERM INT HUP USR2
bash \"$1/$2\"
code=$?
echo \"$code\" >\"$1/.exit-$$\" && mv \"$1/.exit-$$\" \"$1/exit\"";

/// Variables by which a launcher tells what it started of ranks. A job is not a rank of whatever its planner runs in.
const LAUNCHERS: [&str; 8] = ["SLURM_", "SRUN_", "PMI_", "PMIX_", "OMPI_", "MPI_", "HYDRA_", "SBATCH_"];

/// Jobs on this machine.
#[derive(Debug, Clone, Copy)]
pub struct Local {
    grace: Duration,
}

impl Default for Local {
    fn default() -> Self {
        Self { grace: GRACE }
    }
}

impl Local {
    /// A job that was asked to end is killed after `grace`.
    pub fn with_grace(grace: Duration) -> Self {
        Self { grace }
    }

    /// Kills a job and all of its group, without letting it save.
    ///
    /// # Errors
    /// If the system does not let us.
    pub fn kill(&self, process: &Process) -> Result<(), JobError> {
        process.signal_group("KILL").map_err(|source| JobError::Start { program: "kill", source })
    }
}

impl Scheduler for Local {
    fn submit(&self, folder: &Path) -> Result<Handle, JobError> {
        let path = folder.join(OUTPUT);
        let output = OpenOptions::new().append(true).create(true).open(&path);
        let output = output.map_err(WriteError::at(&path))?;
        let errors = output.try_clone().map_err(WriteError::at(&path))?;
        let mut command = Command::new("setsid");
        command
            .args(["bash", "-c", KEEPER, "harvest-job"])
            .arg(folder)
            .arg(Place::Here.script_name())
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors);
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            let rank = ["RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"];
            if LAUNCHERS.iter().any(|prefix| name.starts_with(prefix)) || rank.contains(&&*name) {
                command.env_remove(&*name);
            }
        }
        let mut child = command.spawn().map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => JobError::NoProgram { program: "setsid" },
            _ => JobError::Start { program: "setsid", source },
        })?;
        // `setsid` becomes the shell, so that its number is that of the session.
        let process = Process::of(child.id()).ok_or(JobError::Vanished)?;
        // Its end is asked for, or it stays in the table of processes as long as we run.
        std::thread::spawn(move || child.wait());
        Ok(Handle::Here(process))
    }

    fn status(&self, folder: &Path, handle: &Handle) -> Result<JobStatus, JobError> {
        let Handle::Here(process) = handle else { return Ok(JobStatus::Forgotten) };
        let ended = || exit_code(folder).map(|code| JobStatus::Ended(code.to_string()));
        if let Some(ended) = ended() {
            return Ok(ended);
        }
        Ok(match process.life() {
            Life::Alive => JobStatus::Running(process.host.clone()),
            // It may have ended between the two looks.
            Life::Gone => ended().unwrap_or(JobStatus::Forgotten),
            Life::Elsewhere if is_fresh(folder) => JobStatus::Running(process.host.clone()),
            Life::Elsewhere => JobStatus::Forgotten,
        })
    }

    fn cancel(&self, handle: &Handle) -> Result<(), JobError> {
        let Handle::Here(process) = handle else { return Ok(()) };
        if process.life() == Life::Elsewhere {
            return Err(JobError::OtherMachine { host: process.host.clone() });
        }
        process.signal_group("TERM").map_err(|source| JobError::Start { program: "kill", source })?;
        let (process, grace) = (process.clone(), self.grace);
        std::thread::spawn(move || {
            let end = Instant::now() + grace;
            while process.life() == Life::Alive {
                if Instant::now() >= end {
                    // Nobody is left to tell if it cannot be killed either.
                    let _ = process.signal_group("KILL");
                    return;
                }
                std::thread::sleep(Duration::from_millis(200));
            }
        });
        Ok(())
    }
}

/// The exit code that the job in `folder` has left.
pub fn exit_code(folder: &Path) -> Option<i32> {
    fs::read_to_string(folder.join(EXIT)).ok()?.trim().parse().ok()
}

/// Whether a job that we cannot look at gives a sign of life: the program writes its progress now and then, whatever it does.
fn is_fresh(folder: &Path) -> bool {
    let modified = |name: &str| fs::metadata(folder.join(name)).and_then(|file| file.modified()).ok();
    let newest = [super::PROGRESS, OUTPUT].into_iter().filter_map(modified).max();
    // A clock that differs between machines makes a file from the future, which is fresh.
    newest.is_some_and(|time| time.elapsed().map_or(true, |age| age < Duration::from_secs(180)))
}
