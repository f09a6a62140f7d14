//! When reductions end, seen from beside the step that waits for them.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use harvest_collectives::{Bucket, CollectiveError, Pending};

/// A thread that takes in buckets as they arrive, so that their time is known though nobody waits for them yet.
#[derive(Debug)]
pub(super) struct Arrivals {
    sent: Sender<(Instant, Pending<Bucket>)>,
    arrived: Receiver<Arrival>,
}

/// A bucket that is back.
#[derive(Debug)]
pub(super) struct Arrival {
    pub bucket: Result<Bucket, CollectiveError>,
    /// How long it was on its way, without the time it waited for the one before.
    pub took: Duration,
}

impl Arrivals {
    pub fn new() -> Self {
        let (sent, orders) = channel::<(Instant, Pending<Bucket>)>();
        let (home, arrived) = channel();
        // Ends when `sent` is dropped.
        thread::spawn(move || {
            let mut before: Option<Instant> = None;
            for (sent, pending) in orders {
                let bucket = pending.wait();
                let now = Instant::now();
                let began = before.map_or(sent, |before| before.max(sent));
                before = Some(now);
                if home.send(Arrival { bucket, took: now - began }).is_err() {
                    return;
                }
            }
        });
        Self { sent, arrived }
    }

    /// Expects `pending`, which has just been begun.
    pub fn expect(&self, pending: Pending<Bucket>) {
        // If the thread has ended, the wait tells.
        let _ = self.sent.send((Instant::now(), pending));
    }

    /// The next one, in the order in which they were sent.
    pub fn next(&self) -> Arrival {
        let lost = || CollectiveError::Lost("the thread that takes in buckets has ended".to_owned());
        let none = |_| Arrival { bucket: Err(lost()), took: Duration::ZERO };
        self.arrived.recv().unwrap_or_else(none)
    }
}
