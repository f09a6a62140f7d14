//! Ranks without a way for data.

use std::sync::Arc;

use crate::communicator::{Bucket, CollectiveError, Communicator, Pending};
use crate::watch::Pulse;
use crate::wire::Hello;

/// Ranks that watch each other and exchange no data: every operation fails.
#[derive(Debug)]
pub(crate) struct Unconnected {
    rank: usize,
    world_size: usize,
    pulse: Arc<Pulse>,
}

impl Unconnected {
    pub fn new(own: &Hello, pulse: &Arc<Pulse>) -> Self {
        Self { rank: own.rank, world_size: own.world_size, pulse: Arc::clone(pulse) }
    }

    fn refuse<T>(&self) -> Pending<T> {
        self.pulse.begin_operation();
        Pending::ready(Err(CollectiveError::Library {
            library: "no transport",
            reason: "these ranks have joined without a way for data".to_owned(),
        }))
    }
}

impl Communicator for Unconnected {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world_size(&self) -> usize {
        self.world_size
    }

    fn all_reduce_sum(&self, _bucket: Bucket) -> Pending<Bucket> {
        self.refuse()
    }

    fn all_gather(&self, _values: Vec<f32>) -> Pending<Vec<Vec<f32>>> {
        self.refuse()
    }

    fn broadcast(&self, _bytes: Vec<u8>, _root: usize) -> Pending<Vec<u8>> {
        self.refuse()
    }

    fn barrier(&self) -> Pending<()> {
        self.refuse()
    }

    fn abort(&self, reason: &str) -> ! {
        self.pulse.abort(reason)
    }
}
