//! The ranks of a run, and how the batch of a step is divided over them.

use std::error::Error;
use std::ops::Range;
use std::sync::Arc;

use harvest_collectives::{CollectiveError, Communicator, Paused, Pending, Solo, Team};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::errors::chain;

/// The ranks of a run, seen from one of them.
///
/// What a step is made of is settled without them: `training.batch` counts the labelled images of a step over all ranks,
/// and each rank takes its own rows of it. So a run is the same on any number of ranks, and can go on with another.
#[derive(Debug, Clone)]
pub struct Crew {
    communicator: Arc<dyn Communicator>,
    /// Who watches over them, if they are processes.
    watch: Option<Arc<Team>>,
    batch: usize,
}

/// What signals ask of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Asked {
    /// To come to an orderly end.
    pub stop: bool,
    /// To be started again after it.
    pub come_back: bool,
}

impl Asked {
    /// As bits, which ranks can join.
    pub fn bits(self) -> u32 {
        u32::from(self.stop) | u32::from(self.come_back) << 1
    }

    /// From [`Self::bits`].
    pub fn from_bits(bits: u32) -> Self {
        Self { stop: bits & 1 != 0, come_back: bits & 2 != 0 }
    }
}

/// A batch that cannot be divided.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a step has {batch} labelled images, too few for {world_size} ranks; raise `training.batch`, or use {batch} ranks or less"
)]
pub struct TooManyRanks {
    /// Labelled images of a step.
    pub batch: usize,
    /// Ranks there are.
    pub world_size: usize,
}

impl Crew {
    /// A run of one rank.
    pub fn alone(batch: usize) -> Self {
        Self { communicator: Arc::new(Solo), watch: None, batch }
    }

    /// The ranks of `communicator` with `batch` labelled images a step over all of them.
    ///
    /// # Errors
    /// If a rank would get none.
    pub fn new(communicator: Arc<dyn Communicator>, batch: usize) -> Result<Self, TooManyRanks> {
        let world_size = communicator.world_size();
        if batch < world_size {
            return Err(TooManyRanks { batch, world_size });
        }
        Ok(Self { communicator, watch: None, batch })
    }

    /// Processes that watch over each other as `team`.
    pub fn watched(self, team: Arc<Team>) -> Self {
        Self { watch: Some(team), ..self }
    }

    /// Tells the others that `step` steps are done: a rank that falls behind and stays there is lost.
    pub fn progress(&self, step: u64) {
        if let Some(team) = &self.watch {
            team.progress(step);
        }
    }

    /// Until what comes back is dropped, standing still is no sign of being lost: an evaluation takes as long as it takes.
    pub fn pause(&self) -> Option<Paused<'_>> {
        self.watch.as_ref().map(|team| team.pause())
    }

    /// Which rank this is.
    pub fn rank(&self) -> usize {
        self.communicator.rank()
    }

    /// How many there are.
    pub fn world_size(&self) -> usize {
        self.communicator.world_size()
    }

    /// Whether this is the rank that writes files.
    pub fn is_first(&self) -> bool {
        self.rank() == 0
    }

    /// How ranks talk.
    pub fn communicator(&self) -> &Arc<dyn Communicator> {
        &self.communicator
    }

    /// Rows of this rank among the labelled images of a step. The first ranks have one more where they do not divide
    /// evenly.
    pub fn rows(&self) -> Range<usize> {
        self.rows_of(self.rank())
    }

    /// Rows of rank `rank`; see [`Self::rows`].
    pub fn rows_of(&self, rank: usize) -> Range<usize> {
        let (each, more) = (self.batch / self.world_size(), self.batch % self.world_size());
        let start = |rank: usize| rank * each + rank.min(more);
        start(rank)..start(rank + 1)
    }

    /// What the first rank finds by `find`, on every rank; the others wait for it and do not look themselves, for they might
    /// find something else.
    ///
    /// # Errors
    /// What the first rank met: its own error there, its words on the others.
    pub fn decide<T, E>(&self, find: impl FnOnce() -> Result<T, E>) -> Result<T, Undecided<E>>
    where
        T: Serialize + DeserializeOwned,
        E: Error,
    {
        decide(self.communicator.as_ref(), find)
    }

    /// The values of all ranks, in the order of ranks. Their lengths may differ.
    pub fn all(&self, values: Vec<f32>) -> Vec<Vec<f32>> {
        done(self.communicator.as_ref(), self.communicator.all_gather(values))
    }

    /// This rank's part of `count` equal pieces of work: what comes before other ranks' parts, and after.
    pub fn part(&self, count: usize) -> Range<usize> {
        let (rank, world_size) = (self.rank(), self.world_size());
        count * rank / world_size..count * (rank + 1) / world_size
    }

    /// This rank's part of a step, in `(0, 1]`: the weight of its means among those of all ranks.
    pub fn share(&self) -> f64 {
        self.rows().len() as f64 / self.batch as f64
    }
}

/// Why the first rank decided nothing.
#[derive(Debug)]
pub enum Undecided<E> {
    /// On the first rank, its error.
    Here(E),
    /// On the others, what it said.
    Elsewhere(String),
}

/// See [`Crew::decide`].
pub(crate) fn decide<T, E>(
    ranks: &dyn Communicator,
    find: impl FnOnce() -> Result<T, E>,
) -> Result<T, Undecided<E>>
where
    T: Serialize + DeserializeOwned,
    E: Error,
{
    /// What the first rank tells the others.
    #[derive(Serialize, Deserialize)]
    enum Told<T> {
        Found(T),
        Failed(String),
    }
    if ranks.world_size() == 1 {
        return find().map_err(Undecided::Here);
    }
    if ranks.rank() == 0 {
        let found = find();
        let told = match &found {
            Ok(found) => Told::Found(found),
            Err(error) => Told::Failed(chain(error)),
        };
        let bytes = serde_json::to_vec(&told).expect("what is decided is plain data");
        done(ranks, ranks.broadcast(bytes, 0));
        return found.map_err(Undecided::Here);
    }
    match serde_json::from_slice(&done(ranks, ranks.broadcast(Vec::new(), 0))) {
        Ok(Told::Found(found)) => Ok(found),
        Ok(Told::Failed(reason)) => Err(Undecided::Elsewhere(reason)),
        Err(error) => ranks.abort(&format!("rank 0 said what this rank does not understand: {error}")),
    }
}

/// The result of a collective operation. There is no going on without it.
pub(crate) fn done<T>(ranks: &dyn Communicator, pending: Pending<T>) -> T {
    pending.wait().unwrap_or_else(|error: CollectiveError| ranks.abort(&error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use harvest_collectives::Threads;

    #[test]
    fn every_row_has_one_rank() {
        for (batch, world_size) in [(8, 4), (32, 3), (3, 3), (7, 2)] {
            let mut next = 0;
            for rank in Threads::ring(world_size) {
                let crew = Crew::new(Arc::new(rank), batch).expect("a row for each");
                assert_eq!(crew.rows().start, next);
                assert!(!crew.rows().is_empty());
                next = crew.rows().end;
            }
            assert_eq!(next, batch);
        }
        let rank = Threads::ring(3).into_iter().next().expect("three were made");
        let error = Crew::new(Arc::new(rank), 2).expect_err("one would be idle").to_string();
        assert!(error.contains("2 labelled images") && error.contains("3 ranks"), "{error}");
    }
}
