//! A process that is found again: by its number and when it was started, on the machine and since the start of that machine
//! that gave the number. A number alone is given to others later.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

/// A process that leads a session of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Name of its machine.
    pub host: String,
    /// Which start of that machine.
    pub boot: String,
    /// Its number there.
    pub pid: u32,
    /// When it was started, in ticks of the machine's clock.
    pub started: u64,
}

/// What is known of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// It runs, or others of its session do.
    Alive,
    /// It has ended.
    Gone,
    /// It was started on another machine, where we cannot look.
    Elsewhere,
}

/// The fields of `/proc/PID/stat` that we need.
struct Stat {
    state: char,
    session: u32,
    started: u64,
}

impl Process {
    /// The one of this number, on this machine, if there is one.
    pub fn of(pid: u32) -> Option<Self> {
        let started = stat(pid)?.started;
        Some(Self { host: host(), boot: boot(), pid, started })
    }

    /// Whether it runs. A number is not given to others as long as anyone in the session that has it is left, so that members of
    /// the session tell even when its leader was killed.
    pub fn life(&self) -> Life {
        if self.host != host() {
            return Life::Elsewhere;
        }
        if self.boot != boot() {
            return Life::Gone;
        }
        match stat(self.pid) {
            Some(stat) if stat.started != self.started => Life::Gone,
            Some(stat) if stat.state != 'Z' => Life::Alive,
            _ if session_has_members(self.pid) => Life::Alive,
            _ => Life::Gone,
        }
    }

    /// Sends `signal`, such as `TERM`, to all of its group. Nothing happens if it is not alive.
    ///
    /// # Errors
    /// If there is no shell, or the system does not let us.
    pub fn signal_group(&self, signal: &str) -> io::Result<()> {
        if self.life() != Life::Alive {
            return Ok(());
        }
        // The shell's own command: not every machine has a program of that name.
        let mut kill = Command::new("bash");
        kill.args(["-c", "kill -s \"$1\" -- \"-$2\"", "bash", signal, &self.pid.to_string()]);
        let output = kill.output()?;
        if output.status.success() || self.life() != Life::Alive {
            return Ok(());
        }
        Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }
}

fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        session: fields.get(3)?.parse().ok()?,
        started: fields.get(19)?.parse().ok()?,
    })
}

fn session_has_members(session: u32) -> bool {
    let Ok(entries) = fs::read_dir("/proc") else { return false };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter_map(stat)
        .any(|stat| stat.session == session && stat.state != 'Z')
}

/// Name of this machine.
pub fn host() -> String {
    harvest_collectives::host_name()
}

/// This start of the machine; empty where the system does not tell.
fn boot() -> String {
    let text = fs::read_to_string(Path::new("/proc/sys/kernel/random/boot_id")).unwrap_or_default();
    text.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_more_than_its_number() {
        let own = Process::of(std::process::id()).expect("we run");
        assert_eq!(own.life(), Life::Alive);
        assert_eq!(Process { started: own.started + 1, ..own.clone() }.life(), Life::Gone);
        assert_eq!(Process { boot: "another".into(), ..own.clone() }.life(), Life::Gone);
        assert_eq!(Process { host: "another".into(), ..own }.life(), Life::Elsewhere);
        assert!(Process::of(u32::MAX).is_none());
    }

    #[test]
    fn one_that_nobody_has_waited_for_is_gone() {
        let mut child = Command::new("sleep").arg("0.1").spawn().expect("there is sleep");
        let process = Process::of(child.id()).expect("it runs");
        assert_eq!(process.life(), Life::Alive);
        std::thread::sleep(std::time::Duration::from_millis(400));
        assert_eq!(process.life(), Life::Gone);
        child.wait().expect("it ended");
    }
}
