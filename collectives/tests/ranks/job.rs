//! Starts ranks as processes of this machine, and waits for their end, but not for ever.

use std::io::Read;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

/// The program in `tests/program`.
pub const RANK: &str = env!("CARGO_BIN_EXE_harvest-test-rank");

/// A job on a port of its own.
pub struct Job {
    pub port: u16,
    pub world_size: usize,
    /// What the ranks do.
    pub task: &'static str,
    pub limit: Duration,
}

/// A process that is killed should nobody wait for it.
pub struct Process {
    child: Child,
    output: [JoinHandle<String>; 2],
}

/// One that has ended.
#[derive(Debug)]
pub struct Ended {
    /// None if it was killed.
    pub code: Option<i32>,
    /// What it printed, and what it complained of.
    pub text: String,
}

impl Job {
    pub fn new(world_size: usize, task: &'static str) -> Self {
        Self { port: free_port(), world_size, task, limit: Duration::from_secs(2) }
    }

    /// Rank `rank`, with more variables.
    pub fn rank(&self, rank: usize, variables: &[(&str, &str)]) -> Process {
        let mut command = Command::new(RANK);
        command
            .arg(self.task)
            .env("RANK", rank.to_string())
            .env("WORLD_SIZE", self.world_size.to_string())
            .env("MASTER_ADDR", "127.0.0.1")
            .env("MASTER_PORT", self.port.to_string())
            .env("HARVEST_JOB", format!("test on port {}", self.port))
            .env("TEST_LIMIT", self.limit.as_secs_f64().to_string())
            .envs(variables.iter().copied());
        Process::start(&mut command)
    }

    /// All ranks, with the same variables.
    pub fn all(&self, variables: &[(&str, &str)]) -> Vec<Process> {
        (0..self.world_size).map(|rank| self.rank(rank, variables)).collect()
    }
}

impl Process {
    pub fn start(command: &mut Command) -> Self {
        Self::start_with(command, [])
    }

    /// With variables of a launcher, and without what this test's own environment may say about ranks.
    pub fn start_with<'a>(
        command: &mut Command,
        variables: impl IntoIterator<Item = (String, &'a str)>,
    ) -> Self {
        let wanted: Vec<_> = command.get_envs().map(|(name, _)| name.to_owned()).collect();
        for (name, _) in std::env::vars_os() {
            let is_launchers = |name: &str| {
                ["SLURM", "OMPI_", "PMI", "HARVEST_", "MPI_"].iter().any(|prefix| name.starts_with(prefix))
                    || ["RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"].contains(&name)
            };
            if is_launchers(&name.to_string_lossy()) && !wanted.contains(&name) {
                command.env_remove(name);
            }
        }
        command.envs(variables);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let output = [read_all(child.stdout.take()), read_all(child.stderr.take())];
        Self { child, output }
    }

    pub fn id(&self) -> i32 {
        self.child.id() as i32
    }

    /// Its end, which must come before `limit` has passed.
    pub fn end(mut self, limit: Duration) -> Ended {
        let deadline = Instant::now() + limit;
        let status = loop {
            match self.child.try_wait().expect("it is our child") {
                Some(status) => break Some(status),
                None if Instant::now() > deadline => break None,
                None => sleep(Duration::from_millis(10)),
            }
        };
        if status.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        let text = self.output.each_mut().map(|output| {
            let output = std::mem::replace(output, spawn(String::new));
            output.join().expect("reading does not panic")
        });
        let text = text.concat();
        let code = status.unwrap_or_else(|| panic!("it still runs after {limit:?}: {text}")).code();
        Ended { code, text }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// All of them; the limit is for each.
pub fn end_all(ranks: Vec<Process>, limit: Duration) -> Vec<Ended> {
    ranks.into_iter().map(|rank| rank.end(limit)).collect()
}

fn read_all(from: Option<impl Read + Send + 'static>) -> JoinHandle<String> {
    spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.map(|mut from| from.read_to_end(&mut bytes));
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Free a moment ago.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
    listener.local_addr().expect("it listens").port()
}
