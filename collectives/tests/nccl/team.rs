//! Processes that join as a team over NCCL: the program in `tests/program`, with the stand-ins in its way.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use super::{compile, cuda};

/// Rank `rank` of `world_size`, which does `task` with this NCCL. It ends by itself, for its limits are short.
fn start(port: u16, rank: usize, world_size: usize, task: &str, nccl: &Path) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_harvest-test-rank"));
    command.arg(task).stdout(Stdio::piped()).stderr(Stdio::piped());
    for (name, _) in std::env::vars_os() {
        let is_launchers =
            |name: &str| ["SLURM", "OMPI_", "PMI"].iter().any(|prefix| name.starts_with(prefix));
        if is_launchers(&name.to_string_lossy()) {
            command.env_remove(name);
        }
    }
    command.envs([("RANK", rank.to_string()), ("WORLD_SIZE", world_size.to_string())]);
    command.envs([("MASTER_ADDR", "127.0.0.1".to_owned()), ("MASTER_PORT", port.to_string())]);
    command.envs([("HARVEST_JOB", format!("test on port {port}")), ("TEST_LIMIT", "5".to_owned())]);
    let driver = cuda().parent().expect("it is in a folder");
    command.env("TEST_TRANSPORT", "nccl").env("HARVEST_NCCL", nccl).env("LD_LIBRARY_PATH", driver);
    command.spawn().expect("the program starts")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
    listener.local_addr().expect("it listens").port()
}

#[test]
fn a_team_of_one_sums_over_nccl() {
    let nccl = compile("fake.c", "team", &["VERSION=22705"]);
    let rank = start(free_port(), 0, 1, "sums", &nccl).wait_with_output().expect("it ends");
    assert!(rank.status.success(), "{}", text(&rank));
}

#[test]
fn a_rank_without_nccl_ends_all_at_the_start_and_is_named() {
    let (nccl, port) = (compile("fake.c", "half", &["VERSION=22705"]), free_port());
    let ranks = [0, 1].map(|rank| {
        let library = if rank == 1 { Path::new("/nowhere/libnccl.so.2") } else { &nccl };
        start(port, rank, 2, "sums", library)
    });
    let [first, second] = ranks.map(|rank| rank.wait_with_output().expect("it ends"));
    assert!(!first.status.success() && text(&first).contains("rank 1"), "{}", text(&first));
    let said = text(&second);
    assert!(!second.status.success() && said.contains("/nowhere/libnccl.so.2"), "{said}");
}
