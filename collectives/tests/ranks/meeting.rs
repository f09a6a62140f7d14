//! Ranks that are real processes meet, or learn on every rank why they do not.

use std::net::TcpListener;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use crate::job::{Ended, Job, Process, RANK, end_all, free_port};

/// More than any limit in here.
const ENOUGH: Duration = Duration::from_secs(15);

#[track_caller]
fn assert_all_fail(ended: &[Ended], part: &str) {
    for ended in ended {
        assert_eq!(ended.code, Some(1), "{}", ended.text);
        assert!(ended.text.contains(part), "{part}: {}", ended.text);
    }
}

#[test]
fn all_meet_and_see_the_table() {
    let job = Job::new(5, "meet");
    // Rank 0 comes last.
    let mut ranks: Vec<_> = (1..5).map(|rank| job.rank(rank, &[])).collect();
    sleep(Duration::from_millis(300));
    ranks.push(job.rank(0, &[]));
    for ended in end_all(ranks, ENOUGH) {
        assert_eq!(ended.code, Some(0), "{}", ended.text);
        assert!(ended.text.contains("rank  host") && ended.text.contains("\n4     "), "{}", ended.text);
    }
}

#[test]
fn different_configurations_and_data_are_shown_to_all() {
    for name in ["config", "data"] {
        let job = Job::new(3, "meet");
        let variable = format!("TEST_{}", name.to_uppercase());
        let ranks =
            (0..3).map(|rank| job.rank(rank, &[(&variable, if rank == 1 { "5eed" } else { "c0de" })]));
        let ended = end_all(ranks.collect(), ENOUGH);
        assert_all_fail(&ended, &format!("ranks must have the same {name}"));
        assert_all_fail(&ended, &format!("{name} (differs)"));
        assert_all_fail(&ended, "5eed");
    }
}

#[test]
fn values_are_compared_later_too() {
    let job = Job::new(3, "agree");
    let ended = end_all(job.all(&[("TEST_SEED", "7")]), ENOUGH);
    assert!(ended.iter().all(|ended| ended.code == Some(0)), "{ended:?}");
    let job = Job::new(3, "agree");
    let ranks = (0..3).map(|rank| job.rank(rank, &[("TEST_SEED", if rank == 2 { "8" } else { "7" })]));
    assert_all_fail(&end_all(ranks.collect(), ENOUGH), "ranks differ in seed\nrank  host  seed");
}

#[test]
fn ranks_that_disagree_on_their_number_are_told() {
    let job = Job::new(3, "meet");
    let ranks = (0..3).map(|rank| job.rank(rank, if rank == 2 { &[("WORLD_SIZE", "4")] } else { &[] }));
    let ended = end_all(ranks.collect(), ENOUGH);
    assert_all_fail(&ended, "rank 2 (process");
    assert_all_fail(&ended, "as one of 4, rank 0");
}

#[test]
fn a_rank_that_comes_twice_is_told() {
    let job = Job::new(3, "meet");
    let ranks = [0, 1, 1].map(|rank| job.rank(rank, &[]));
    assert_all_fail(&end_all(ranks.into(), ENOUGH), "rank 1 has come twice");
}

#[test]
fn a_missing_rank_is_named() {
    let job = Job::new(4, "meet");
    let ranks = [0, 1, 3].map(|rank| job.rank(rank, &[]));
    assert_all_fail(&end_all(ranks.into(), ENOUGH), "of 4 ranks, 1 did not come to rank 0");
    assert_all_fail(
        &end_all([0].map(|rank| job.rank(rank, &[])).into(), ENOUGH),
        "within 2 s: rank 1, 2, 3;",
    );
}

#[test]
fn one_that_dies_before_all_have_met_is_named() {
    let job = Job { limit: Duration::from_secs(4), ..Job::new(3, "meet") };
    let [first, second] = [0, 1].map(|rank| job.rank(rank, &[]));
    sleep(Duration::from_millis(500));
    // Its drop kills it.
    drop(second);
    let ended = first.end(ENOUGH);
    assert_all_fail(&[ended], "ended before all ranks had met");
}

#[test]
fn where_rank_0_is_not_the_others_say_so() {
    let job = Job::new(3, "meet");
    let ended = end_all([1, 2].map(|rank| job.rank(rank, &[])).into(), ENOUGH);
    assert_all_fail(&ended, "to reach rank 0 at 127.0.0.1, port");
    let ended = job.rank(1, &[("MASTER_ADDR", "no-such-node.invalid")]).end(ENOUGH);
    assert_all_fail(&[ended], "the name `no-such-node.invalid` does not resolve");
    // Takes connections and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
    let port = silent.local_addr().expect("it listens").port().to_string();
    let ended = job.rank(1, &[("MASTER_PORT", &port)]).end(ENOUGH);
    assert_all_fail(&[ended], "something listens there and does not answer as rank 0 does");
}

#[test]
fn a_port_that_is_taken_is_told() {
    let job = Job::new(2, "meet");
    let _taken = TcpListener::bind(("0.0.0.0", job.port)).expect("it was free");
    let ended = job.rank(0, &[]).end(ENOUGH);
    assert_all_fail(&[ended], &format!("rank 0 cannot listen on port {}", job.port));
}

#[test]
fn two_jobs_on_one_port_do_not_mix() {
    // The first waits for its rank 1 while ranks of the second come.
    let first = Job { limit: Duration::from_secs(10), ..Job::new(2, "meet") };
    let second = Job { port: first.port, ..Job::new(2, "meet") };
    let head = first.rank(0, &[]);
    sleep(Duration::from_millis(300));
    let strangers = [0, 1].map(|rank| second.rank(rank, &[("HARVEST_JOB", "another")]));
    let [stranger_head, stranger] = strangers.map(|rank| rank.end(ENOUGH));
    assert_all_fail(&[stranger_head], "set `HARVEST_PORT`");
    assert_all_fail(&[stranger], "belongs to another job (test on port");
    let ended = end_all(vec![head, first.rank(1, &[])], ENOUGH);
    assert!(ended.iter().all(|ended| ended.code == Some(0)), "{ended:?}");
}

#[test]
fn other_programs_on_the_port_do_no_harm() {
    let job = Job::new(2, "meet");
    let head = job.rank(0, &[]);
    sleep(Duration::from_millis(300));
    for words in ["GET / HTTP/1.1\r\n\r\n", ""] {
        use std::io::Write;
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", job.port)).expect("rank 0 listens");
        stream.write_all(words.as_bytes()).expect("rank 0 listens");
    }
    let ended = end_all(vec![head, job.rank(1, &[])], ENOUGH);
    assert!(ended.iter().all(|ended| ended.code == Some(0)), "{ended:?}");
}

#[test]
fn environments_that_make_no_sense_are_refused() {
    let start = |variables: &[(&str, &str)]| {
        let mut command = Command::new(RANK);
        Process::start(command.arg("meet").envs(variables.iter().copied())).end(ENOUGH)
    };
    let port = free_port().to_string();
    for (variables, part) in [
        (&[("RANK", "2"), ("WORLD_SIZE", "2")][..], "`RANK=2` must be below `WORLD_SIZE=2`"),
        (&[("WORLD_SIZE", "2")], "`RANK` is not set"),
        (&[("RANK", "0"), ("WORLD_SIZE", "2"), ("MASTER_PORT", &port)], "`MASTER_ADDR` is not set"),
        (&[], "started alone"),
    ] {
        assert_all_fail(&[start(variables)], part);
    }
}
