//! How long somebody who does not know the secret must wait before the next try.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Wrong tries in a row that cost nothing: people mistype.
const FREE: u32 = 5;
/// Wait after the first try beyond these; doubled by each further one.
const FIRST_WAIT: Duration = Duration::from_secs(15);
/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(15 * 60);
/// Wrong tries of everybody together within [`FORGOTTEN`] from which on everybody waits.
const FREE_TOGETHER: u32 = 60;
/// How long everybody waits then.
const WAIT_TOGETHER: Duration = Duration::from_secs(10);
/// A wrong try is forgotten after this time without another.
const FORGOTTEN: Duration = Duration::from_secs(60 * 60);
/// Addresses remembered; more than that many come only from somebody who makes them up.
const REMEMBERED: usize = 4096;

/// Wrong tries, by address and together.
#[derive(Debug, Default)]
pub struct Throttle {
    by_address: HashMap<String, Tries>,
    together: Tries,
}

#[derive(Debug, Clone, Copy, Default)]
struct Tries {
    wrong: u32,
    last: Option<Instant>,
}

impl Tries {
    /// What is left of a wait of `wait` after the last wrong try.
    fn left(&self, wait: Duration, now: Instant) -> Option<Duration> {
        let left = (self.last? + wait).saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }

    fn add(&mut self, now: Instant) {
        if self.forgotten(now) {
            self.wrong = 0;
        }
        self.wrong = self.wrong.saturating_add(1);
        self.last = Some(now);
    }

    fn forgotten(&self, now: Instant) -> bool {
        self.last.is_none_or(|last| now.saturating_duration_since(last) >= FORGOTTEN)
    }
}

impl Throttle {
    /// How long `address` must still wait, if at all.
    pub fn wait(&self, address: &str, now: Instant) -> Option<Duration> {
        let own = self.by_address.get(address).and_then(|tries| {
            let beyond = tries.wrong.checked_sub(FREE)?;
            let wait = FIRST_WAIT.saturating_mul(1 << beyond.min(16)).min(LONGEST_WAIT);
            tries.left(wait, now)
        });
        let together =
            (self.together.wrong >= FREE_TOGETHER).then(|| self.together.left(WAIT_TOGETHER, now)).flatten();
        own.max(together)
    }

    /// Notes a wrong try.
    pub fn wrong(&mut self, address: &str, now: Instant) {
        self.together.add(now);
        if self.by_address.len() >= REMEMBERED {
            self.by_address.retain(|_, tries| !tries.forgotten(now));
        }
        if self.by_address.len() < REMEMBERED || self.by_address.contains_key(address) {
            self.by_address.entry(address.to_owned()).or_default().add(now);
        }
    }

    /// Forgets the wrong tries of `address`, which has come in.
    pub fn right(&mut self, address: &str) {
        self.by_address.remove(address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_end_and_are_forgotten() {
        let mut throttle = Throttle::default();
        let start = Instant::now();
        for _ in 0..4 {
            throttle.wrong("a", start);
            assert_eq!(throttle.wait("a", start), None);
        }
        let waits: Vec<u64> = (0..9)
            .map(|_| {
                throttle.wrong("a", start);
                throttle.wait("a", start).expect("one too many").as_secs()
            })
            .collect();
        assert_eq!(waits, [15, 30, 60, 120, 240, 480, 900, 900, 900]);
        assert_eq!(throttle.wait("b", start), None, "others are not held up");
        assert_eq!(throttle.wait("a", start + LONGEST_WAIT), None);
        throttle.wrong("a", start + FORGOTTEN);
        assert_eq!(throttle.wait("a", start + FORGOTTEN), None, "an hour later it begins anew");
        throttle.right("a");
        assert!(throttle.by_address.is_empty());
    }

    #[test]
    fn made_up_addresses_meet_the_wait_of_all() {
        let mut throttle = Throttle::default();
        let now = Instant::now();
        for address in 0..REMEMBERED * 2 {
            throttle.wrong(&address.to_string(), now);
        }
        assert_eq!(throttle.by_address.len(), REMEMBERED);
        assert_eq!(throttle.wait("new", now), Some(WAIT_TOGETHER));
        assert_eq!(throttle.wait("new", now + WAIT_TOGETHER), None);
    }
}
