//! Slurm's own programs, called and understood.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde::{Deserialize, Serialize};

use super::{Handle, JobPlan, JobStatus, Place, SCRIPT, Scheduler};
use crate::files::{WriteError, atomic_write};

/// A job that cannot be handed in, watched or cancelled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JobError {
    /// Not on a cluster, or its programs are not loaded.
    #[error(
        "there is no `{program}` here: give this command on a node of the cluster from which jobs are handed in, and see that \
         Slurm's programs are in PATH (some clusters want `module load slurm`)"
    )]
    NoSlurm {
        /// The program.
        program: &'static str,
    },
    /// A program of the system that jobs on this machine need.
    #[error("there is no `{program}` here, which jobs on this machine need; ask the administrators for it")]
    NoProgram {
        /// The program.
        program: &'static str,
    },
    /// It ended before we could look at it.
    #[error("the job ended at once, before it could be noted; its output tells why")]
    Vanished,
    /// Its process is on another machine.
    #[error("the job runs on {host}, and can be stopped only from there: open the page on that machine")]
    OtherMachine {
        /// The machine.
        host: String,
    },
    /// It is there, but does not start.
    #[error("cannot start `{program}`")]
    Start {
        /// The program.
        program: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Slurm says no.
    #[error("Slurm refused: {words}{advice}")]
    Refused {
        /// What it said.
        words: String,
        /// What can be done, after a semicolon; empty if nobody knows.
        advice: &'static str,
    },
    /// Slurm said something else than it should.
    #[error("`{program}` answered `{answer}`, which was not expected")]
    Answer {
        /// The program.
        program: &'static str,
        /// Its words.
        answer: String,
    },
    /// Slurm's directives are lines of text.
    #[error("the {what}, {value:?}, cannot be written on a line of a script; choose another")]
    Unwritable {
        /// What it is.
        what: &'static str,
        /// Its value.
        value: String,
    },
    /// The job's folder.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Number of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct JobId(pub u64);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Slurm's programs.
#[derive(Debug, Clone, Default)]
pub struct Slurm {
    folder: Option<PathBuf>,
}

impl Slurm {
    /// Those in PATH.
    pub fn new() -> Self {
        Self::default()
    }

    /// Those in `folder`.
    pub fn in_folder(folder: PathBuf) -> Self {
        Self { folder: Some(folder) }
    }

    /// Writes the script of `plan` into its folder, which is made, and hands it in.
    ///
    /// # Errors
    /// If it cannot be written, or Slurm does not take it; the script is left for a look at it.
    pub fn submit(&self, plan: &JobPlan) -> Result<JobId, JobError> {
        let script = plan.script()?;
        fs::create_dir_all(&plan.folder).map_err(WriteError::at(&plan.folder))?;
        let path = plan.folder.join(SCRIPT);
        atomic_write(&path, script.as_bytes())?;
        self.hand_in(&path)
    }

    /// Hands in the script at `path`.
    ///
    /// # Errors
    /// If Slurm does not take it.
    pub fn hand_in(&self, path: &Path) -> Result<JobId, JobError> {
        let mut sbatch = self.command("sbatch");
        // Slurm lets the variables of an `sbatch` inside another job through to the new one.
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name != "SLURM_CONF" && (name.starts_with("SLURM_") || name.starts_with("SRUN_")) {
                sbatch.env_remove(&*name);
            }
        }
        let answer = run("sbatch", sbatch.arg("--parsable").arg(path))?;
        // With several clusters: `17;name`.
        let number = answer.trim().split(';').next().and_then(|number| number.parse().ok());
        number.map(JobId).ok_or(JobError::Answer { program: "sbatch", answer })
    }

    /// How `job` stands.
    ///
    /// # Errors
    /// If Slurm does not answer.
    pub fn status(&self, job: JobId) -> Result<JobStatus, JobError> {
        let mut squeue = self.command("squeue");
        squeue.args(["--noheader", "--states=all", "--format=%T|%r|%N"]).arg(format!("--jobs={job}"));
        let answer = match run("squeue", &mut squeue) {
            Err(JobError::Refused { words, .. }) if words.contains("Invalid job id") => {
                return Ok(JobStatus::Forgotten);
            }
            answer => answer?,
        };
        let Some(line) = answer.lines().next() else { return Ok(JobStatus::Forgotten) };
        let fields: Vec<&str> = line.trim().split('|').collect();
        let [state, reason, nodes] = fields[..] else {
            return Err(JobError::Answer { program: "squeue", answer });
        };
        Ok(match state {
            "PENDING" | "REQUEUED" | "REQUEUE_HOLD" | "SPECIAL_EXIT" => JobStatus::Waiting(reason.to_owned()),
            "RUNNING" | "CONFIGURING" | "COMPLETING" | "SUSPENDED" | "STOPPED" | "SIGNALING"
            | "STAGE_OUT" | "RESIZING" => JobStatus::Running(nodes.to_owned()),
            ended => JobStatus::Ended(ended.to_owned()),
        })
    }

    /// Ends `job`, wherever it stands; it is not started again.
    ///
    /// # Errors
    /// If Slurm does not let this user.
    pub fn cancel(&self, job: JobId) -> Result<(), JobError> {
        run("scancel", self.command("scancel").arg(job.to_string())).map(drop)
    }

    /// Whether jobs can be handed in from here.
    pub fn is_here(&self) -> bool {
        let mut sbatch = self.command("sbatch");
        sbatch.arg("--version").output().is_ok_and(|output| output.status.success())
    }

    pub(super) fn command(&self, program: &str) -> Command {
        match &self.folder {
            Some(folder) => Command::new(folder.join(program)),
            None => Command::new(program),
        }
    }
}

impl Scheduler for Slurm {
    fn submit(&self, folder: &Path) -> Result<Handle, JobError> {
        self.hand_in(&folder.join(Place::Slurm.script_name())).map(Handle::Slurm)
    }

    fn status(&self, _: &Path, handle: &Handle) -> Result<JobStatus, JobError> {
        let Handle::Slurm(job) = handle else { return Ok(JobStatus::Forgotten) };
        match self.status(*job)? {
            JobStatus::Forgotten => Ok(self.recorded(*job).map_or(JobStatus::Forgotten, JobStatus::Ended)),
            known => Ok(known),
        }
    }

    fn cancel(&self, handle: &Handle) -> Result<(), JobError> {
        let Handle::Slurm(job) = handle else { return Ok(()) };
        self.cancel(*job)
    }
}

/// What a program said; what it complained about, if it failed.
pub(super) fn run(program: &'static str, command: &mut Command) -> Result<String, JobError> {
    let Output { status, stdout, stderr } = command.output().map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => JobError::NoSlurm { program },
        _ => JobError::Start { program, source },
    })?;
    if status.success() {
        return Ok(String::from_utf8_lossy(&stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&stderr);
    let prefix = format!("{program}: ");
    let lines = said.lines().map(|line| {
        let line = line.trim().trim_start_matches(&prefix);
        line.trim_start_matches("error: ").trim_start_matches("fatal: ")
    });
    let words = lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
    let words = if words.is_empty() { format!("`{program}` ended with {status}") } else { words };
    Err(JobError::Refused { advice: advice(&words), words })
}

/// What can be done about Slurm's words.
fn advice(words: &str) -> &'static str {
    const KNOWN: [(&str, &str); 9] = [
        ("partition", "; `sinfo --summarize` lists the partitions, `--partition` names one"),
        ("account", "; `sacctmgr show associations user=$USER` lists your accounts, `--account` names one"),
        ("time limit", "; ask for less `--time`: `sinfo --summarize` shows how much each partition gives"),
        ("node count", "; ask for fewer `--nodes`: `sinfo --summarize` shows how many each partition has"),
        (
            "node configuration",
            "; no node has so many processors or GPUs: `sinfo --Node --format='%N %P %c %G'` shows what there is",
        ),
        (
            "generic resource",
            "; no node has such GPUs: `sinfo --Node --format='%N %P %G'` shows what there is",
        ),
        ("qos", "; `sacctmgr show qos` lists the limits, and the cluster's administrators set them"),
        (
            "contact slurm controller",
            "; the scheduler is down or cannot be reached from here: try again later, or ask the administrators",
        ),
        (
            "configuration source",
            "; this machine does not belong to a cluster, or SLURM_CONF names the wrong file",
        ),
    ];
    let words = words.to_lowercase();
    KNOWN.iter().find(|(word, _)| words.contains(word)).map_or("", |(_, advice)| advice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::RanksPerNode;

    /// Programs that answer as Slurm's do.
    struct Pretended(tempfile::TempDir);

    impl Pretended {
        fn new() -> Self {
            Self(tempfile::tempdir().expect("a temporary folder"))
        }

        fn with(self, program: &str, text: &str) -> Self {
            let path = self.0.path().join(program);
            fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("it is written");
            Command::new("chmod").arg("+x").arg(&path).status().expect("there is chmod");
            self
        }

        fn slurm(&self) -> Slurm {
            Slurm::in_folder(self.0.path().to_owned())
        }

        fn plan(&self) -> JobPlan {
            JobPlan {
                name: "moths".into(),
                command: vec!["true".into()],
                working_folder: self.0.path().to_owned(),
                folder: self.0.path().join("jobs/1"),
                nodes: 1,
                ranks: RanksPerNode::Tasks(1),
                cpus_per_rank: Some(1),
                mpi: None,
                time: None,
                partition: None,
                account: None,
                most_restarts: 1,
                modules: Vec::new(),
                container: Vec::new(),
                environment: Vec::new(),
            }
        }
    }

    #[test]
    fn a_job_is_handed_in_by_its_script() {
        let pretended = Pretended::new().with("sbatch", "cp \"$2\" \"$2.seen\"; echo '17;hive'");
        let plan = pretended.plan();
        assert_eq!(pretended.slurm().submit(&plan).expect("it is taken"), JobId(17));
        let seen = fs::read_to_string(plan.folder.join("job.sbatch.seen")).expect("it was seen");
        assert_eq!(seen, plan.script().expect("it can be written"));
    }

    #[test]
    fn what_slurm_says_is_told_with_what_to_try() {
        let refusal = "echo 'sbatch: error: invalid partition specified: gpu' >&2\n\
                       echo 'sbatch: error: Batch job submission failed: Invalid partition name specified' >&2; exit 1";
        let pretended = Pretended::new().with("sbatch", refusal);
        let error = pretended.slurm().submit(&pretended.plan()).expect_err("refused").to_string();
        assert!(
            error.starts_with("Slurm refused: invalid partition specified: gpu; Batch job submission"),
            "{error}"
        );
        assert!(error.ends_with("`--partition` names one"), "{error}");

        let nothing = Pretended::new();
        let error = nothing.slurm().submit(&nothing.plan()).expect_err("there is none").to_string();
        assert!(error.contains("there is no `sbatch` here"), "{error}");

        let odd = Pretended::new().with("sbatch", "echo yes");
        let error = odd.slurm().submit(&odd.plan()).expect_err("no number").to_string();
        assert!(error.contains("answered `yes"), "{error}");
    }

    #[test]
    fn how_a_job_stands() {
        let status = |answer: &str| {
            let pretended = Pretended::new().with("squeue", answer);
            pretended.slurm().status(JobId(17)).expect("it answers")
        };
        assert_eq!(status("echo 'PENDING|BeginTime|'"), JobStatus::Waiting("BeginTime".into()));
        assert_eq!(status("echo 'RUNNING|None|n[1-2]'"), JobStatus::Running("n[1-2]".into()));
        assert_eq!(status("echo 'FAILED|NonZeroExitCode|n1'"), JobStatus::Ended("FAILED".into()));
        assert_eq!(status("true"), JobStatus::Forgotten);
        let gone = "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1";
        assert_eq!(status(gone), JobStatus::Forgotten);
    }

    #[test]
    fn cancelling_is_passed_on() {
        let pretended = Pretended::new().with("scancel", "[ \"$1\" = 17 ]");
        pretended.slurm().cancel(JobId(17)).expect("it is ended");
        assert!(matches!(pretended.slurm().cancel(JobId(18)), Err(JobError::Refused { .. })));
    }
}
