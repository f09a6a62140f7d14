//! The ranks that work on an experiment together: who decides, who writes, who waits.
//!
//! Files are written by the first rank alone, and what is read off them to decide something (is there an unfinished run?) is
//! read by it alone too: what it finds is told to the others, so that all do the same. Everything else is done by every
//! rank for itself.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use harvest_collectives::{Communicator, Solo, Team as Joined};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::ExperimentError;
use crate::training::{Crew, TooManyRanks, TrainError, Undecided, decide};

/// The ranks that work on an experiment, seen from one of them.
#[derive(Debug, Clone)]
pub struct Team {
    communicator: Arc<dyn Communicator>,
    /// How they have met, if they are processes.
    joined: Option<Arc<Joined>>,
    come_back: Arc<AtomicBool>,
}

impl Team {
    /// One rank.
    pub fn alone() -> Self {
        Self::of(Arc::new(Solo))
    }

    /// The ranks of `communicator`.
    pub fn of(communicator: Arc<dyn Communicator>) -> Self {
        Self { communicator, joined: None, come_back: Arc::default() }
    }

    /// With the other processes that this one has met.
    pub fn joined(self, joined: Joined) -> Self {
        Self { communicator: joined.communicator(), joined: Some(Arc::new(joined)), ..self }
    }

    /// With the flag that is set where an end is to be followed by another start: the time is up, or others go first.
    pub fn told_by(self, come_back: Arc<AtomicBool>) -> Self {
        Self { come_back, ..self }
    }

    /// Whether to be started again was asked for.
    pub fn come_back(&self) -> &AtomicBool {
        &self.come_back
    }

    /// Whether this rank decides and writes.
    pub fn is_first(&self) -> bool {
        self.communicator.rank() == 0
    }

    /// How many ranks there are.
    pub fn world_size(&self) -> usize {
        self.communicator.world_size()
    }

    /// The ranks of a run with `batch` labelled images a step over all of them.
    ///
    /// # Errors
    /// If a rank would get none.
    pub fn crew(&self, batch: usize) -> Result<Crew, TooManyRanks> {
        let crew = Crew::new(self.communicator.clone(), batch)?;
        Ok(match &self.joined {
            Some(joined) => crew.watched(joined.clone()),
            None => crew,
        })
    }

    /// Refuses to go on unless `value` is the same on every rank.
    ///
    /// # Errors
    /// With the values of all ranks.
    pub fn agree(&self, what: &str, value: &str) -> Result<(), ExperimentError> {
        match &self.joined {
            Some(joined) => Ok(joined.agree(what, value)?),
            None => Ok(()),
        }
    }

    /// What the first rank finds by `find`, on every rank; the others wait for it.
    ///
    /// # Errors
    /// What the first rank met; on the others as [`ExperimentError::Elsewhere`].
    pub fn decide<T, E>(&self, find: impl FnOnce() -> Result<T, E>) -> Result<T, ExperimentError>
    where
        T: Serialize + DeserializeOwned,
        E: Into<ExperimentError>,
    {
        let found = decide(self.communicator.as_ref(), || find().map_err(Into::into));
        found.map_err(|undecided| match undecided {
            Undecided::Here(error) => error,
            Undecided::Elsewhere(reason) => ExperimentError::Elsewhere { reason },
        })
    }

    /// Lets the first rank do `work`, which may write files, and the others afterwards, who find them.
    ///
    /// # Errors
    /// Those of `work`, and [`ExperimentError::Elsewhere`] if the first rank failed.
    pub fn first_then_all<T>(
        &self,
        work: impl FnOnce() -> Result<T, ExperimentError>,
    ) -> Result<T, ExperimentError> {
        if self.is_first() {
            let mut done = None;
            self.decide(|| work().map(|result| done = Some(result)))?;
            return Ok(done.expect("it was done without an error"));
        }
        self.decide(|| Ok::<(), ExperimentError>(()))?;
        work()
    }

    /// The end of this rank's work. A good one, and one that all ranks were asked for, waits until every rank is there, for none
    /// may end while others still need it. Otherwise the others are told that this rank has failed.
    pub fn end<T>(&self, result: Result<T, anyhow::Error>) -> Result<T, anyhow::Error> {
        let orderly = result.as_ref().err().is_none_or(|error| error.chain().any(is_asked_for));
        match (&self.joined, orderly) {
            (Some(joined), true) => joined.leave(),
            (Some(joined), false) => {
                joined.fail(&result.as_ref().err().map_or_else(String::new, |error| format!("{error:#}")));
            }
            (None, _) => {}
        }
        result
    }
}

/// Whether an error is an end that was asked for.
fn is_asked_for(error: &(dyn std::error::Error + 'static)) -> bool {
    let train = match error.downcast_ref() {
        Some(ExperimentError::Train(error)) => Some(error),
        _ => error.downcast_ref(),
    };
    matches!(train, Some(TrainError::Interrupted { .. }))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::thread;

    use harvest_collectives::Threads;

    use super::*;

    fn on_all<T: Send>(world_size: usize, work: impl Fn(Team) -> T + Sync) -> Vec<T> {
        let work = &work;
        thread::scope(|scope| {
            let ranks = Threads::ring(world_size).into_iter().map(|rank| Team::of(Arc::new(rank)));
            let ranks: Vec<_> = ranks.map(|team| scope.spawn(move || work(team))).collect();
            ranks.into_iter().map(|rank| rank.join().expect("the rank ends well")).collect()
        })
    }

    #[test]
    fn what_the_first_rank_finds_all_ranks_know() {
        let found = on_all(3, |team| {
            let first = team.is_first();
            team.decide(|| Ok::<_, ExperimentError>(if first { "run-7".to_owned() } else { panic!("asked") }))
        });
        assert!(found.iter().all(|found| found.as_deref().is_ok_and(|run| run == "run-7")), "{found:?}");
    }

    #[test]
    fn why_the_first_rank_found_nothing_all_ranks_know() {
        let found = on_all(2, |team| team.decide(|| Err::<u32, _>(ExperimentError::NoRoot)));
        for error in found.iter().map(|found| found.as_ref().expect_err("nothing was found")) {
            assert!(error.to_string().contains("no images are named"), "{error}");
        }
        assert!(matches!(found[1], Err(ExperimentError::Elsewhere { .. })));
    }

    #[test]
    fn the_first_rank_works_before_the_others() {
        let order = Mutex::new(Vec::new());
        on_all(3, |team| {
            let work = || {
                order.lock().expect("no rank panics").push(team.is_first());
                Ok(())
            };
            team.first_then_all(work).expect("it can be done");
        });
        assert_eq!(order.into_inner().expect("no rank panics"), [true, false, false]);
    }
}
