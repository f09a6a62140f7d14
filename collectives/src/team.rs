//! The job, seen from one of its ranks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::communicator::Communicator;
use crate::table::{Disagreement, RankTable};
use crate::watch::{Pulse, Watch};
use crate::wire::Exchanged;

/// The job, seen from one of its ranks.
///
/// Dropped without [`Team::leave`], it tells the others that this rank has failed, and they end.
#[derive(Debug)]
pub struct Team {
    communicator: Arc<dyn Communicator>,
    table: RankTable,
    pulse: Arc<Pulse>,
    /// None if there is nobody to watch.
    watch: Option<Watch>,
    has_left: AtomicBool,
}

impl Team {
    pub(crate) fn new(
        communicator: Arc<dyn Communicator>,
        table: RankTable,
        pulse: Arc<Pulse>,
        watch: Option<Watch>,
    ) -> Self {
        Self { communicator, table, pulse, watch, has_left: AtomicBool::new(false) }
    }

    /// How the ranks exchange data.
    pub fn communicator(&self) -> Arc<dyn Communicator> {
        Arc::clone(&self.communicator)
    }

    /// All ranks and what they brought.
    pub fn table(&self) -> &RankTable {
        &self.table
    }

    /// This rank begins step `step`. From now on it is expected to move, until it pauses.
    pub fn progress(&self, step: u64) {
        self.pulse.progress(step);
    }

    /// For what takes as long as it takes, like an evaluation: until the guard is dropped no rank is taken for hanging
    /// because it stands still. Silence and death are noticed as always.
    pub fn pause(&self) -> Paused<'_> {
        self.pulse.pause();
        Paused(&self.pulse)
    }

    /// Does `hook` with the message when a rank is lost, before this process ends. It has 10 seconds.
    pub fn on_loss(&self, hook: impl FnOnce(&str) + Send + 'static) {
        if let Some(watch) = &self.watch {
            watch.on_loss(hook);
        }
    }

    /// Compares a value over all ranks, all of which must call this. It waits for as long as the others live.
    ///
    /// # Errors
    /// [`Disagreement`] with the values of all, on every rank, if they are not the same. The job is then over: ranks no
    /// longer watch each other, so that each can print it and end.
    pub fn agree(&self, what: &str, own: &str) -> Result<(), Disagreement> {
        let disagreement = match self.exchange(what, own) {
            Exchanged::Same(_) => return Ok(()),
            Exchanged::Each(values) => {
                let hosts = self.table.0.iter().map(|row| row.host.clone());
                Disagreement { what: what.to_owned(), values: hosts.zip(values).collect() }
            }
            Exchanged::Mixed(reason) => {
                Disagreement { what: format!("{what}: {reason}"), values: Vec::new() }
            }
        };
        self.has_left.store(true, Relaxed);
        if let Some(watch) = &self.watch {
            watch.disband();
        }
        Err(disagreement)
    }

    fn exchange(&self, what: &str, own: &str) -> Exchanged {
        match &self.watch {
            Some(watch) => watch.exchange(what, own),
            None => Exchanged::Same(own.to_owned()),
        }
    }

    /// Tells the others that this rank has failed, and why; they end. It goes on to end by itself.
    pub fn fail(&self, why: &str) {
        if self.has_left.swap(true, Relaxed) {
            return;
        }
        if let Some(watch) = &self.watch {
            watch.fail(why);
        }
    }

    /// Ends this rank's part in good order: what it has begun is ended, and its connections close without alarm. All ranks
    /// do this, once.
    pub fn leave(&self) {
        if self.has_left.swap(true, Relaxed) {
            return;
        }
        self.pulse.pause();
        // Waits for the others, which are still watched.
        self.communicator.finish();
        if let Some(watch) = &self.watch {
            watch.leave();
        }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        if let Some(watch) = &self.watch
            && !self.has_left.load(Relaxed)
        {
            let why = if std::thread::panicking() { "it panicked" } else { "it ended with an error" };
            watch.fail(&format!("{why}; its own output says which"));
        }
    }
}

/// See [`Team::pause`].
#[derive(Debug)]
#[must_use = "the pause ends when this is dropped"]
pub struct Paused<'a>(&'a Pulse);

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        self.0.resume();
    }
}
