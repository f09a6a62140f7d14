//! A rank for the tests: joins as its environment says, and does what its first argument says.
//!
//! `TEST_LIMIT`: seconds. `TEST_TRANSPORT`: `mpi`, `nccl`, or none. `TEST_CONFIG`, `TEST_DATA`: of the passport. `TEST_STUCK`: the
//! rank that stops in the middle.

use std::env;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use harvest_collectives::{Identity, JoinOptions, Passport, Team, Transport, host_name, join};

mod data;

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("failed: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Failure> {
    let identity = Identity::from_environment()?.ok_or("started alone")?;
    let text = |name: &str| env::var(name).unwrap_or_default();
    let passport = Passport {
        host: host_name(),
        device: "none".to_owned(),
        version: "1".to_owned(),
        config: text("TEST_CONFIG"),
        data: text("TEST_DATA"),
        ..Passport::default()
    };
    let transport = match text("TEST_TRANSPORT").as_str() {
        "mpi" => Transport::Mpi,
        "nccl" => Transport::Nccl,
        _ => Transport::None,
    };
    let options = JoinOptions {
        transport,
        limit: Duration::from_secs_f64(text("TEST_LIMIT").parse().unwrap_or(10.0)),
        device_index: (transport == Transport::Nccl).then_some(0),
    };
    let team = join(&identity, passport, &options)?;
    let is_stuck = text("TEST_STUCK") == identity.rank.to_string();
    println!("rank {} has joined\n{}", identity.rank, team.table());
    match env::args().nth(1).unwrap_or_default().as_str() {
        "meet" => {}
        "agree" => {
            team.agree("data", "the same")?;
            team.agree("seed", &text("TEST_SEED"))?;
        }
        "step" => step(&team, identity.rank, is_stuck),
        "evaluate" => evaluate(&team, identity.rank, options.limit),
        "fail" if is_stuck => return Err("an error of its own".into()),
        "fail" => sleep(Duration::from_secs(60)),
        "abort" if is_stuck => team.communicator().abort("what it computed is no number"),
        "abort" => sleep(Duration::from_secs(60)),
        "train" => data::train(&team, is_stuck)?,
        "sums" => data::check(team.communicator().as_ref())?,
        "overlap" => data::overlap(team.communicator().as_ref())?,
        "wait" => data::wait_quietly(team.communicator().as_ref())?,
        other => return Err(format!("no such test: {other}").into()),
    }
    team.leave();
    Ok(())
}

/// Steps until something happens.
fn step(team: &Team, rank: usize, is_stuck: bool) {
    team.on_loss(move |reason| println!("rank {rank} notes: {reason}"));
    for step in 0..10_000 {
        team.progress(step);
        if is_stuck && step == 7 {
            sleep(Duration::from_secs(60));
        }
        sleep(Duration::from_millis(10));
    }
}

/// Stands still for longer than the limit, with leave.
fn evaluate(team: &Team, rank: usize, limit: Duration) {
    team.progress(1);
    // The others wait for rank 0, which they know nothing of.
    let guard = (rank == 0).then(|| team.pause());
    sleep(limit * 2);
    drop(guard);
    team.progress(2);
    sleep(limit / 4);
}
