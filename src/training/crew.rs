//! The ranks of a run, and how the batch of a step is divided over them.

use std::ops::Range;
use std::sync::Arc;

use harvest_collectives::{Communicator, Solo};

/// The ranks of a run, seen from one of them.
///
/// What a step is made of is settled without them: `training.batch` counts the labelled images of a step over all ranks,
/// and each rank takes its own rows of it. So a run is the same on any number of ranks, and can go on with another.
#[derive(Debug, Clone)]
pub struct Crew {
    communicator: Arc<dyn Communicator>,
    batch: usize,
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
        Self { communicator: Arc::new(Solo), batch }
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
        Ok(Self { communicator, batch })
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

    /// This rank's part of a step, in `(0, 1]`: the weight of its means among those of all ranks.
    pub fn share(&self) -> f64 {
        self.rows().len() as f64 / self.batch as f64
    }
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
