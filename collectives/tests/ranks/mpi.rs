//! Ranks exchange data over MPI, started by its own launcher.

use std::process::Command;
use std::time::Duration;

use harvest_collectives::EXIT_LOST;

use crate::job::{Ended, Job, Process, RANK, end_all};

/// With Open MPI's launcher.
fn mpirun(ranks: usize, task: &str) -> Ended {
    let mut command = Command::new("mpirun.openmpi");
    command.args(["--allow-run-as-root", "--oversubscribe", "-n", &ranks.to_string(), RANK, task]);
    // Machines without a network have loopback.
    command.env("OMPI_MCA_btl_tcp_if_include", "lo").env("TEST_TRANSPORT", "mpi");
    Process::start(&mut command).end(Duration::from_secs(30))
}

#[test]
fn sums_gathers_and_broadcasts_are_right() {
    for ranks in [2, 3] {
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
fn a_world_of_another_size_is_refused() {
    // No launcher of MPI: each rank would be a world of its own. The first to notice may end the other.
    let job = Job::new(2, "sums");
    let ended = end_all(job.all(&[("TEST_TRANSPORT", "mpi")]), Duration::from_secs(30));
    for ended in &ended {
        assert!([Some(1), Some(EXIT_LOST)].contains(&ended.code), "{}", ended.text);
    }
    let text: String = ended.into_iter().map(|ended| ended.text).collect();
    assert!(text.contains("MPI has 1 ranks where RANK and WORLD_SIZE started 2"), "{text}");
    assert!(text.contains("srun --mpi=pmix"), "{text}");
}
