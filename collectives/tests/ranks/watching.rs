//! Ranks that are real processes notice that one of them is gone, and end.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::job::{Job, Process, end_all};
use harvest_collectives::EXIT_LOST;
use rustix::process::{Pid, Signal, kill_process};

const LIMIT: Duration = Duration::from_secs(2);

fn send(rank: &Process, signal: Signal) {
    let pid = Pid::from_raw(rank.id()).expect("it is no group");
    kill_process(pid, signal).expect("it is our child");
}

/// All of them end as they should, soon, and say `part`.
#[track_caller]
fn assert_all_lost(ranks: Vec<Process>, limit: Duration, part: &str) {
    let start = Instant::now();
    for ended in end_all(ranks, limit) {
        assert_eq!(ended.code, Some(EXIT_LOST), "{}", ended.text);
        assert!(ended.text.contains(part), "{part}: {}", ended.text);
    }
    assert!(start.elapsed() < limit);
}

/// Ranks in the middle of their steps.
fn steps(world_size: usize, variables: &[(&str, &str)]) -> Vec<Process> {
    let job = Job { limit: LIMIT, ..Job::new(world_size, "step") };
    let ranks = job.all(variables);
    sleep(Duration::from_millis(1000));
    ranks
}

#[test]
fn a_killed_rank_ends_all_at_once() {
    for killed in [0, 2] {
        let mut ranks = steps(4, &[]);
        send(&ranks[killed], Signal::KILL);
        drop(ranks.remove(killed));
        // Far below the limit.
        assert_all_lost(ranks, LIMIT / 2, &format!("rank {killed} on node "));
    }
}

#[test]
fn the_message_reaches_the_hook_of_every_rank() {
    let mut ranks = steps(3, &[]);
    send(&ranks[1], Signal::KILL);
    drop(ranks.remove(1));
    for ended in end_all(ranks, LIMIT) {
        let (_, note) = ended.text.split_once(" notes: rank 1 on node ").expect("the hook has said so");
        let (_, step) = note.split_once(" last seen at step ").expect("it says where");
        let step: u64 = step.split(':').next().and_then(|step| step.parse().ok()).expect("a number");
        assert!((1..200).contains(&step), "{}", ended.text);
    }
}

#[test]
fn a_stopped_rank_is_noticed_by_its_silence() {
    for stopped in [0, 1] {
        let mut ranks = steps(3, &[]);
        send(&ranks[stopped], Signal::STOP);
        let one = ranks.remove(stopped);
        let part = format!("rank {stopped} on node ");
        assert_all_lost(ranks, LIMIT + Duration::from_secs(2), &part);
        // Should it go on, it notices that the others are gone.
        send(&one, Signal::CONT);
        assert_all_lost(vec![one], LIMIT, " last seen at step ");
    }
}

#[test]
fn a_rank_that_hangs_while_its_heart_beats_is_noticed() {
    let ranks = steps(3, &[("TEST_STUCK", "1")]);
    // The rank that hangs is ended too.
    let part = "last seen at step 7: it lives, but has not moved for ";
    assert_all_lost(ranks, LIMIT * 3, part);
}

#[test]
fn an_evaluation_is_no_hang() {
    let job = Job { limit: LIMIT, ..Job::new(3, "evaluate") };
    let ended = end_all(job.all(&[]), Duration::from_secs(10));
    assert!(ended.iter().all(|ended| ended.code == Some(0)), "{ended:?}");
}

#[test]
fn a_rank_that_fails_or_aborts_says_why() {
    for (task, code, part) in [
        ("fail", 1, "rank 1 on node {host} last seen at step 0: it ended with an error"),
        ("abort", EXIT_LOST, "rank 1 on node {host} last seen at step 0: what it computed is no number"),
    ] {
        let job = Job { limit: LIMIT, ..Job::new(3, task) };
        let mut ranks = job.all(&[("TEST_STUCK", "1")]);
        let one = ranks.remove(1).end(LIMIT);
        assert_eq!(one.code, Some(code), "{}", one.text);
        let part = part.replace("{host}", &harvest_collectives::host_name());
        assert_all_lost(ranks, LIMIT, &part);
    }
}
