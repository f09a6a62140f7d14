//! Jobs on this machine, with real processes.

use std::path::Path;
use std::time::{Duration, Instant};

use super::*;
use crate::jobs::{JobPlan, Life, RanksPerNode, Wish, explain};

/// A folder of jobs, and what takes part in them.
struct World(tempfile::TempDir);

impl World {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    /// Another one every time, as a server that was started anew has.
    fn ledger(&self) -> Ledger {
        let nothing = Slurm::in_folder(self.0.path().join("no-such-folder"));
        Ledger::of(self.0.path()).with(Local::with_grace(Duration::from_millis(700)), nothing)
    }

    /// Starts `command`, a line of the shell, by the script that every job on this machine has.
    fn start(&self, command: &str) -> Job {
        let ledger = self.ledger();
        let folder = ledger.claim("train").expect("writable");
        let plan = JobPlan {
            name: "test".into(),
            command: ["bash", "-c", command].map(str::to_owned).to_vec(),
            working_folder: self.0.path().to_owned(),
            folder: folder.clone(),
            nodes: 1,
            ranks: RanksPerNode::Tasks(1),
            cpus_per_rank: None,
            mpi: None,
            time: None,
            partition: None,
            account: None,
            most_restarts: 3,
            modules: Vec::new(),
            container: Vec::new(),
            environment: Vec::new(),
        };
        let record = Record::new("train", "Train a model", "ann", Place::Here, Wish::default(), &plan);
        let script = plan.script_for(Place::Here).expect("it can be written");
        ledger.start(&folder, record, &script).expect("it is started")
    }

    /// Waits until the job is in that state, as seen by ledgers that know nothing but the disk.
    fn until(&self, id: &str, wanted: JobState) -> Job {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            let ledger = self.ledger();
            let mut job = ledger.find(id).expect("it is there");
            let state = ledger.look(&mut job).state;
            if state == wanted {
                return job;
            }
            assert!(Instant::now() < end && !state.is_over(), "{state:?}, not {wanted:?}: {}", job.tail(20));
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    fn until_said(&self, job: &Job, words: &str) {
        let end = Instant::now() + Duration::from_secs(30);
        while !job.tail(50).contains(words) {
            assert!(Instant::now() < end, "`{words}` was not said: {}", job.tail(50));
            std::thread::sleep(Duration::from_millis(30));
        }
    }
}

fn process(job: &Job) -> crate::jobs::Process {
    match job.handle().expect("it was started") {
        Handle::Here(process) => process.clone(),
        Handle::Slurm(_) => panic!("it is on this machine"),
    }
}

#[test]
fn a_job_that_ends_well_is_done_and_stays_so_until_it_is_forgotten() {
    let world = World::new();
    let job = world.start("echo hello; echo trouble >&2");
    let job = world.until(job.id(), JobState::Done);
    assert!(job.tail(10).contains("hello\ntrouble"), "{}", job.tail(10));
    assert_eq!(explain(&job), None);
    let ledger = world.ledger();
    assert_eq!(ledger.list().len(), 1);
    assert!(matches!(ledger.stop(&mut job.clone(), "ann"), Err(LedgerError::Over)));
    ledger.forget(job).expect("it has ended");
    assert!(ledger.list().is_empty());
}

#[test]
fn a_job_is_found_again_by_whoever_comes_later() {
    let world = World::new();
    let job = world.start("echo begun; until [ -e go ]; do sleep 0.05; done");
    let job = world.until(job.id(), JobState::Running);
    let ledger = world.ledger();
    assert!(matches!(ledger.forget(job.clone()), Err(LedgerError::Busy)));
    assert!(matches!(ledger.resume(&mut job.clone(), "ann"), Err(LedgerError::Busy)));
    std::fs::write(world.0.path().join("go"), "").expect("writable");
    world.until(job.id(), JobState::Done);
    // A number that somebody else has by now is not it.
    let mut other = job.clone();
    let own = crate::jobs::Process::of(std::process::id()).expect("we run");
    other.record.ended = None;
    other.record.starts[0].handle = Handle::Here(crate::jobs::Process { started: 1, ..own });
    std::fs::remove_file(other.folder.join(EXIT)).expect("it was left");
    assert_eq!(ledger.look(&mut other).state, JobState::Failed);
}

#[test]
fn a_job_that_is_stopped_saves_and_can_go_on() {
    let world = World::new();
    let saves = "trap 'echo saved; exit 130' TERM; echo begun; [ -e saved-before ] && exit 0; while true; do sleep 0.05; done";
    let mut job = world.start(saves);
    world.until_said(&job, "begun");
    world.ledger().stop(&mut job, "bob").expect("it runs");
    let mut job = world.until(job.id(), JobState::Stopped);
    assert!(job.tail(10).contains("saved"), "{}", job.tail(10));
    assert_eq!(job.record.stopping.as_ref().map(|stopping| stopping.who.as_str()), Some("bob"));
    std::fs::write(world.0.path().join("saved-before"), "").expect("writable");
    world.ledger().resume(&mut job, "cem").expect("it was stopped");
    let job = world.until(job.id(), JobState::Done);
    assert_eq!(job.record.starts.len(), 2);
    assert_eq!(job.record.starts[1].who, "cem");
}

#[test]
fn a_job_that_does_not_end_when_asked_is_killed_with_all_it_started() {
    let world = World::new();
    let mut job = world.start("trap '' TERM; sleep 60 & echo begun; wait; while true; do sleep 0.05; done");
    world.until_said(&job, "begun");
    let process = process(&job);
    world.ledger().stop(&mut job, "ann").expect("it runs");
    world.until(job.id(), JobState::Stopped);
    assert_eq!(process.life(), Life::Gone);
    assert!(job.tail(10).contains("begun"));
}

#[test]
fn a_job_that_is_stopped_twice_is_killed_at_once() {
    let world = World::new();
    let ledger = Ledger::of(world.0.path()).with(Local::with_grace(Duration::from_secs(600)), Slurm::new());
    let mut job = world.start("trap '' TERM; echo begun; while true; do sleep 0.05; done");
    world.until_said(&job, "begun");
    ledger.stop(&mut job, "ann").expect("it runs");
    assert_eq!(ledger.look(&mut job).state, JobState::Stopping);
    ledger.stop(&mut job, "ann").expect("it still runs");
    world.until(job.id(), JobState::Stopped);
}

#[test]
fn a_job_that_somebody_kills_is_not_taken_for_running() {
    let world = World::new();
    let job = world.start("echo begun; while true; do sleep 0.05; done");
    world.until_said(&job, "begun");
    process(&job).signal_group("KILL").expect("it is ours");
    let job = world.until(job.id(), JobState::Failed);
    let explained = explain(&job).expect("it failed");
    assert!(explained.what.contains("killed") && explained.next.contains("Resume"), "{explained:?}");
}

#[test]
fn a_job_that_asks_for_it_is_started_again_some_times() {
    let world = World::new();
    let counts = "echo start $HARVEST_RESTART_COUNT; [ $HARVEST_RESTART_COUNT -ge 2 ] && exit 0; exit 75";
    let job = world.start(counts);
    let job = world.until(job.id(), JobState::Done);
    for start in 0..3 {
        assert!(job.tail(50).contains(&format!("start {start}")), "{}", job.tail(50));
    }
    let job = world.start("exit 75");
    let job = world.until(job.id(), JobState::Failed);
    assert!(job.tail(50).contains("started again 3 times, which is enough"), "{}", job.tail(50));
}

#[test]
fn a_failure_is_explained_by_the_programs_own_words() {
    let world = World::new();
    for (command, what, next) in [
        (
            "echo 'rank 0: class `oak` has 1 different labelled images, 2 are needed' >$HARVEST_JOB_FAILED; exit 1",
            "There are too few labels. It said: class `oak` has 1",
            "Label a few more",
        ),
        (
            "echo 'error: cannot write `x` (the disk is full)' >&2; exit 1",
            "The disk is full.",
            "Free some space",
        ),
        ("kill -9 $$", "The system killed it", "smaller images"),
        (
            "no-such-program --at-all",
            "The program, or something it is started with, is not there.",
            "Look at the script",
        ),
        ("echo 'error: something odd' >&2; exit 1", "something odd", "The last lines below"),
        ("exit 3", "It ended with `3`", "The last lines below"),
    ] {
        let job = world.start(command);
        let job = world.until(job.id(), JobState::Failed);
        let explained = explain(&job).expect("it failed");
        assert!(explained.what.starts_with(what), "{command}: {explained:?}");
        assert!(explained.next.contains(next), "{command}: {explained:?}");
    }
}

#[test]
fn a_job_that_was_never_started_says_so() {
    let world = World::new();
    let job = world.start("true");
    let mut job = world.until(job.id(), JobState::Done);
    (job.record.ended, job.record.starts) = (None, Vec::new());
    assert_eq!(world.ledger().look(&mut job).state, JobState::Waiting, "it may be being started");
    job.record.created = "2026-01-01T00:00:00Z".into();
    assert_eq!(world.ledger().look(&mut job).state, JobState::Failed);
    assert!(explain(&job).expect("it failed").what.contains("never started"));
}

#[test]
fn names_that_lead_elsewhere_are_no_jobs() {
    let world = World::new();
    for id in ["", "..", "../jobs", "a/b", "/etc", "a.b"] {
        assert!(matches!(world.ledger().find(id), Err(LedgerError::Missing { .. })), "{id}");
    }
    std::fs::create_dir_all(world.0.path().join("jobs/odd")).expect("writable");
    std::fs::write(world.0.path().join("jobs/odd/job.json"), "{\"kind\":").expect("writable");
    assert!(world.ledger().list().is_empty(), "what makes no sense is passed over");
}

/// A script that tells what it was told of ranks.
#[test]
fn a_job_is_no_rank_of_what_its_planner_runs_in() {
    let world = World::new();
    let job = world.start("env | grep -c -E '^(SLURM_|PMI|OMPI_|RANK=|WORLD_SIZE=)'; true");
    let job = world.until(job.id(), JobState::Done);
    assert!(job.tail(10).lines().any(|line| line == "0"), "{}", job.tail(10));
    assert!(Path::new(&job.script()).ends_with("job.sh"));
}
