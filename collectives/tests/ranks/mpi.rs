//! Ranks exchange data over MPI, started by its own launcher.

use std::process::Command;
use std::time::Duration;

use harvest_collectives::EXIT_LOST;

use crate::job::{Ended, Job, Process, RANK, end_all};

/// With Open MPI's launcher.
fn mpirun(ranks: usize, task: &str) -> Ended {
    mpirun_with(ranks, task, &[])
}

fn mpirun_with(ranks: usize, task: &str, variables: &[(&str, &str)]) -> Ended {
    let mut command = Command::new("mpirun.openmpi");
    command.args(["--allow-run-as-root", "--oversubscribe", "-n", &ranks.to_string(), RANK, task]);
    // Machines without a network have loopback.
    command.env("OMPI_MCA_btl_tcp_if_include", "lo").env("TEST_TRANSPORT", "mpi");
    command.envs(variables.iter().copied());
    Process::start(&mut command).end(Duration::from_secs(30))
}

#[test]
fn sums_gathers_and_broadcasts_are_right() {
    for ranks in [2, 3, 4] {
        let ended = mpirun(ranks, "sums");
        assert_eq!(ended.code, Some(0), "{}", ended.text);
        assert_eq!(ended.text.matches("has joined").count(), ranks, "{}", ended.text);
    }
}

#[test]
fn operations_end_while_the_caller_does_something_else() {
    let ended = mpirun(2, "overlap");
    assert_eq!(ended.code, Some(0), "{}", ended.text);
}

#[test]
fn waiting_keeps_no_core_busy() {
    let ended = mpirun(2, "wait");
    assert_eq!(ended.code, Some(0), "{}", ended.text);
}

#[test]
fn of_ranks_that_wait_for_each_other_the_one_that_hangs_is_named() {
    // All are in the same step; the others have begun one operation more.
    let ended = mpirun_with(3, "train", &[("TEST_STUCK", "1"), ("TEST_LIMIT", "2")]);
    assert_eq!(ended.code, Some(EXIT_LOST), "{}", ended.text);
    let part = "last seen at step 7: it lives, but has not moved for ";
    assert!(ended.text.contains("rank 1 on node ") && ended.text.contains(part), "{}", ended.text);
}

#[test]
fn a_world_of_another_size_is_refused() {
    // No launcher of MPI: each rank would be a world of its own.
    let job = Job::new(2, "sums");
    for ended in end_all(job.all(&[("TEST_TRANSPORT", "mpi")]), Duration::from_secs(30)) {
        assert_eq!(ended.code, Some(1), "{}", ended.text);
        let part = "MPI has 1 ranks where RANK and WORLD_SIZE started 2";
        assert!(ended.text.contains(part) && ended.text.contains("srun --mpi=pmix"), "{}", ended.text);
    }
}

#[test]
fn srun_without_support_for_mpi_is_told() {
    let mut command = Command::new(RANK);
    command.arg("sums").env("TEST_TRANSPORT", "mpi").env("TEST_LIMIT", "2");
    let variables =
        [("PROCID", "1"), ("NTASKS", "2"), ("JOB_ID", "1"), ("STEP_ID", "0"), ("STEP_NODELIST", "n1")];
    let ended =
        Process::start_with(&mut command, variables.map(|(name, value)| (format!("SLURM_{name}"), value)));
    let ended = ended.end(Duration::from_secs(10));
    assert_eq!(ended.code, Some(1), "{}", ended.text);
    assert!(ended.text.contains("`srun` was not asked to start MPI programs"), "{}", ended.text);
}
