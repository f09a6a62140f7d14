//! A job's place in Slurm's queue, and Slurm's words as plain ones.

use serde::Serialize;

use super::slurm::run;
use super::{JobError, JobId, Slurm};

/// Where a job stands in the queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Queue {
    /// From 1, among those that wait for the same partition, the most urgent first; nothing if Slurm does not tell.
    pub position: Option<usize>,
    /// How many wait there.
    pub waiting: usize,
    /// Slurm's word for why it waits.
    pub reason: String,
    /// The same for people.
    pub words: String,
    /// When Slurm expects it to start, in its own time; it changes its mind often.
    pub start: Option<String>,
}

impl Slurm {
    /// Where `job` stands; nothing if it does not wait.
    ///
    /// # Errors
    /// If Slurm does not answer.
    pub fn queue(&self, job: JobId) -> Result<Option<Queue>, JobError> {
        let mut own = self.command("squeue");
        own.args(["--noheader", "--states=PENDING", "--format=%P|%r|%S"]).arg(format!("--jobs={job}"));
        let answer = match run("squeue", &mut own) {
            Err(JobError::Refused { .. }) => return Ok(None),
            answer => answer?,
        };
        let fields: Vec<&str> = answer.lines().next().unwrap_or_default().trim().split('|').collect();
        let [partitions, reason, start] = fields[..] else { return Ok(None) };
        // A job may name several, and starts where a place is free first.
        let partition = partitions.split(',').next().unwrap_or_default();
        let mut all = self.command("squeue");
        all.args(["--noheader", "--states=PENDING", "--sort=-p,i", "--format=%A"])
            .arg(format!("--partition={partition}"));
        let waiting = run("squeue", &mut all)?;
        let waiting: Vec<&str> = waiting.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let own = job.to_string();
        Ok(Some(Queue {
            position: waiting.iter().position(|number| *number == own).map(|index| index + 1),
            waiting: waiting.len(),
            reason: reason.to_owned(),
            words: plain(reason),
            start: Some(start.trim()).filter(|time| !time.is_empty() && *time != "N/A").map(str::to_owned),
        }))
    }

    /// How a job that the queue has forgotten ended, from Slurm's accounts; nothing without such accounts.
    pub fn recorded(&self, job: JobId) -> Option<String> {
        let mut sacct = self.command("sacct");
        sacct
            .args(["--noheader", "--parsable2", "--allocations", "--format=State"])
            .arg(format!("--jobs={job}"));
        let answer = run("sacct", &mut sacct).ok()?;
        // `CANCELLED by 1000`
        let state = answer.lines().next()?.split_whitespace().next()?.to_owned();
        let ended = !["PENDING", "RUNNING", "REQUEUED", "SUSPENDED"].contains(&state.as_str());
        ended.then_some(state)
    }

    /// All that Slurm tells of a job, for people who know it.
    pub fn details(&self, job: JobId) -> Option<String> {
        run("scontrol", self.command("scontrol").args(["show", "job"]).arg(job.to_string())).ok()
    }
}

/// Slurm's reason in words.
fn plain(reason: &str) -> String {
    let words = match reason {
        "None" | "" => "Slurm has just received it",
        "Resources" => "it is next, and waits for machines to become free",
        "Priority" => "others are before it",
        "Dependency" => "it waits for another job to end",
        "DependencyNeverSatisfied" => "it waits for a job that failed, and will never start: stop it",
        "BeginTime" => "it was started again, and Slurm waits a moment before it",
        "JobHeldUser" => "it is held by its owner: `scontrol release` lets it go",
        "JobHeldAdmin" => "the administrators hold it: ask them",
        "PartitionDown" | "PartitionInactive" => "its group of nodes is closed for now",
        "PartitionNodeLimit" | "PartitionTimeLimit" => {
            "it asks for more than its group of nodes ever gives: stop it, and ask for less"
        }
        "ReqNodeNotAvail" | "ReservedForMaintenance" | "Reservation" => {
            "the nodes it needs are reserved, being repaired or kept for maintenance"
        }
        "Licenses" => "it waits for a licence",
        "Cleaning" => "its last start is being tidied up",
        "NodeDown" => "a node it needs is down",
        "InvalidAccount" => "its account is not valid: stop it, and choose another",
        "InvalidQOS" => "its quality of service is not valid: ask the administrators",
        _ if reason.starts_with("ReqNodeNotAvail") => "the nodes it needs are reserved or being repaired",
        _ if reason.starts_with("QOSMaxJobs") || reason.starts_with("AssocMaxJobs") => {
            "you have as many jobs running as you may have at once"
        }
        _ if reason.starts_with("QOSMax") || reason.starts_with("AssocMax") => {
            "it would take more than you may use at once"
        }
        _ if reason.starts_with("QOSGrp") || reason.starts_with("AssocGrp") => {
            "your group uses as much as it may use at once"
        }
        _ => return format!("Slurm's reason is `{reason}`"),
    };
    words.to_owned()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Slurm's programs, answering `squeue` and `sacct` with these scripts.
    fn pretended(squeue: &str, sacct: &str) -> (tempfile::TempDir, Slurm) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (program, text) in [("squeue", squeue), ("sacct", sacct)] {
            let path = folder.path().join(program);
            std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("it is written");
            Command::new("chmod").arg("+x").arg(&path).status().expect("there is chmod");
        }
        let slurm = Slurm::in_folder(folder.path().to_owned());
        (folder, slurm)
    }

    #[test]
    fn a_place_in_the_queue_is_counted_among_those_of_the_partition() {
        let squeue = "case \"$*\" in
            *--jobs=17*) echo 'gpu|Priority|2026-11-30T04:00:00';;
            *--partition=gpu*) printf '9\\n12\\n17\\n18\\n';;
        esac";
        let (_folder, slurm) = pretended(squeue, "exit 1");
        let queue = slurm.queue(JobId(17)).expect("it answers").expect("it waits");
        assert_eq!((queue.position, queue.waiting), (Some(3), 4));
        assert_eq!(queue.words, "others are before it");
        assert_eq!(queue.start.as_deref(), Some("2026-11-30T04:00:00"));
        let (_folder, slurm) = pretended("true", "exit 1");
        assert_eq!(slurm.queue(JobId(17)).expect("it answers"), None, "it does not wait");
    }

    #[test]
    fn accounts_tell_how_a_forgotten_job_ended_where_there_are_any() {
        let (_folder, slurm) = pretended("true", "echo 'CANCELLED by 1000'");
        assert_eq!(slurm.recorded(JobId(17)).as_deref(), Some("CANCELLED"));
        let (_folder, slurm) = pretended("true", "echo 'Slurm accounting storage is disabled' >&2; exit 1");
        assert_eq!(slurm.recorded(JobId(17)), None);
    }

    #[test]
    fn reasons_are_words() {
        assert!(plain("QOSMaxJobsPerUserLimit").contains("as many jobs running as you may"));
        assert!(plain("AssocGrpGRES").contains("your group"));
        assert_eq!(plain("Odd"), "Slurm's reason is `Odd`");
    }
}
