//! Who was heard when, and who therefore is lost.

use std::time::{Duration, Instant};

use crate::wire::Beat;

/// What is known of each rank's life.
#[derive(Debug)]
pub(crate) struct Ledger {
    limit: Duration,
    ranks: Vec<Life>,
    /// Since when every rank is expected to move.
    stepping_since: Option<Instant>,
}

#[derive(Debug, Clone)]
struct Life {
    beat: Beat,
    heard: Instant,
    moved: Instant,
    has_left: bool,
}

/// A rank that is lost.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Loss {
    pub rank: usize,
    pub why: String,
}

impl Ledger {
    pub fn new(world_size: usize, limit: Duration, now: Instant) -> Self {
        let life = Life { beat: Beat::default(), heard: now, moved: now, has_left: false };
        Self { limit, ranks: vec![life; world_size], stepping_since: None }
    }

    pub fn hear(&mut self, rank: usize, beat: Beat, now: Instant) {
        let Some(life) = self.ranks.get_mut(rank) else { return };
        if beat != life.beat {
            life.moved = now;
        }
        (life.beat, life.heard) = (beat, now);
        let all_step = self.ranks.iter().all(|life| life.beat.stepping && !life.has_left);
        self.stepping_since = all_step.then(|| self.stepping_since.unwrap_or(now));
    }

    /// It has ended in good order.
    pub fn leave(&mut self, rank: usize) {
        self.ranks[rank].has_left = true;
        self.stepping_since = None;
    }

    pub fn has_left(&self, rank: usize) -> bool {
        self.ranks[rank].has_left
    }

    pub fn step(&self, rank: usize) -> u64 {
        self.ranks[rank].beat.step
    }

    /// A rank that was silent for the limit, or stands still for as long while all are expected to move.
    ///
    /// Ranks wait for each other within every step, so the one that is behind is the one that hangs.
    pub fn judge(&self, now: Instant) -> Option<Loss> {
        let seconds = |since: Instant| now.saturating_duration_since(since).as_secs_f64();
        let is_silent =
            |life: &Life| !life.has_left && now.saturating_duration_since(life.heard) > self.limit;
        if let Some(rank) = self.ranks.iter().position(is_silent) {
            let why = format!(
                "nothing was heard of it for {:.0} s: it is stopped, or cut off from the network",
                seconds(self.ranks[rank].heard)
            );
            return Some(Loss { rank, why });
        }
        let since = self.stepping_since?;
        let place = |life: &Life| (life.beat.step, life.beat.operations);
        let (rank, last) = self.ranks.iter().enumerate().min_by_key(|(_, life)| place(life))?;
        let since = since.max(last.moved);
        if now.saturating_duration_since(since) <= self.limit {
            return None;
        }
        let seconds = seconds(since);
        let why = match self.ranks.iter().all(|life| place(life) == place(last)) {
            true => format!("no rank has moved for {seconds:.0} s, all wait for each other"),
            false => format!("it lives, but has not moved for {seconds:.0} s while the others wait for it"),
        };
        Some(Loss { rank, why })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    fn beat(step: u64, operations: u64) -> Beat {
        Beat { step, operations, stepping: true }
    }

    /// All ranks beat every second for `seconds`, each as `at` says.
    fn live(
        ledger: &mut Ledger,
        from: Instant,
        seconds: u64,
        at: impl Fn(usize, u64) -> Option<Beat>,
    ) -> Option<Loss> {
        (0..seconds).find_map(|second| {
            let now = from + Duration::from_secs(second);
            for rank in 0..ledger.ranks.len() {
                if let Some(beat) = at(rank, second) {
                    ledger.hear(rank, beat, now);
                }
            }
            ledger.judge(now)
        })
    }

    #[test]
    fn the_silent_one_is_lost() {
        let start = Instant::now();
        let mut ledger = Ledger::new(3, LIMIT, start);
        let loss = live(&mut ledger, start, 60, |rank, second| {
            (rank != 1 || second < 10).then(|| Beat { stepping: false, ..beat(second, 0) })
        });
        let loss = loss.expect("rank 1 is silent");
        assert!(loss.rank == 1 && loss.why.contains("nothing was heard of it for 31 s"), "{loss:?}");
        assert_eq!(ledger.step(1), 9);
    }

    #[test]
    fn the_one_behind_is_lost() {
        let start = Instant::now();
        let mut ledger = Ledger::new(3, LIMIT, start);
        // All hang in step 12; the others have begun one operation more and wait for rank 2.
        let at = |rank, second: u64| Some(beat(second.min(12), second.min(12) * 4 + u64::from(rank != 2)));
        let loss = live(&mut ledger, start, 60, at).expect("rank 2 hangs");
        assert!(loss.rank == 2 && loss.why.contains("has not moved for 31 s while"), "{loss:?}");
    }

    #[test]
    fn a_network_that_stands_is_told() {
        let start = Instant::now();
        let mut ledger = Ledger::new(2, LIMIT, start);
        let loss = live(&mut ledger, start, 60, |_, second| Some(beat(second.min(3), 9))).expect("all hang");
        assert!(loss.why.contains("no rank has moved"), "{loss:?}");
    }

    #[test]
    fn who_is_not_expected_to_move_may_stand() {
        let start = Instant::now();
        let mut ledger = Ledger::new(2, LIMIT, start);
        // Rank 0 evaluates from second 5 to 100, and rank 1 waits for it.
        let at = |rank, second: u64| {
            let stands = (5..100).contains(&second);
            Some(Beat { stepping: !(stands && rank == 0), ..beat(if stands { 5 } else { second }, 0) })
        };
        assert_eq!(live(&mut ledger, start, 125, at), None);
        // Who has left is silent by right.
        let now = start + Duration::from_secs(125);
        ledger.leave(1);
        let at = |rank: usize, second: u64| (rank == 0).then(|| beat(second.min(1), 0));
        assert_eq!(live(&mut ledger, now, 100, at), None);
    }
}
