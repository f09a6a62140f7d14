//! Operations of MPI under way, with the memory that they use.
#![allow(
    unsafe_code,
    reason = "MPI keeps pointers to memory that Rust could free before the operation has ended"
)]

use mpi::collective::SystemOperation;
use mpi::request::{Request, StaticScope};
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator, CommunicatorCollectives, Equivalence, Root};

/// An operation that reads `sent` and writes `received`, both of which it owns until it has ended.
pub(super) struct Flight<S, R: 'static> {
    request: Option<Request<'static, [R], StaticScope>>,
    sent: Vec<S>,
    received: Vec<R>,
}

impl Flight<f32, f32> {
    /// `received` = the sum of all ranks' `sent`.
    pub fn sum(world: &SimpleCommunicator, sent: Vec<f32>, mut received: Vec<f32>) -> Self {
        let (from, to) = lend(&sent, &mut received);
        let request = world.immediate_all_reduce_into(StaticScope, from, to, SystemOperation::sum());
        Self { request: Some(request), sent, received }
    }
}

impl<T: Equivalence + Default + Clone + 'static> Flight<T, T> {
    /// As many equal chunks as there are ranks: chunk `r` of `sent` goes to rank `r`.
    pub fn exchange(world: &SimpleCommunicator, sent: Vec<T>) -> Self {
        let mut received = vec![T::default(); sent.len()];
        let (from, to) = lend(&sent, &mut received);
        let request = world.immediate_all_to_all_into(StaticScope, from, to);
        Self { request: Some(request), sent, received }
    }

    /// `sent` of all ranks, one after the other; it has the same length on each.
    pub fn gather(world: &SimpleCommunicator, sent: Vec<T>) -> Self {
        let mut received = vec![T::default(); sent.len() * world.size() as usize];
        let (from, to) = lend(&sent, &mut received);
        let request = world.immediate_all_gather_into(StaticScope, from, to);
        Self { request: Some(request), sent, received }
    }

    /// `received` of rank `root`; it has the same length on each.
    pub fn broadcast(world: &SimpleCommunicator, mut received: Vec<T>, root: i32) -> Self {
        let (_, to) = lend::<T, T>(&[], &mut received);
        let request = world.process_at_rank(root).immediate_broadcast_into(StaticScope, to);
        Self { request: Some(request), sent: Vec::<T>::new(), received }
    }
}

impl<S, R: 'static> Flight<S, R> {
    /// Gives MPI a chance to go on with this and all other operations.
    pub fn has_landed(&mut self) -> bool {
        if let Some(request) = self.request.take() {
            self.request = request.test().err();
        }
        self.request.is_none()
    }

    /// The memory, once the operation has ended.
    pub fn land(mut self) -> (Vec<S>, Vec<R>) {
        assert!(self.request.is_none(), "MPI still uses this memory");
        (std::mem::take(&mut self.sent), std::mem::take(&mut self.received))
    }
}

impl<S, R: 'static> Drop for Flight<S, R> {
    fn drop(&mut self) {
        if let Some(request) = self.request.take() {
            // MPI may write there until the process ends.
            std::mem::forget(request);
            std::mem::forget(std::mem::take(&mut self.sent));
            std::mem::forget(std::mem::take(&mut self.received));
        }
    }
}

/// The memory of two vectors, for as long as MPI needs it.
fn lend<S, R>(sent: &[S], received: &mut [R]) -> (&'static [S], &'static mut [R]) {
    // SAFETY: memory of a vector stays where it is when the vector moves. Both callers' vectors go into a `Flight`, which
    // touches them only after the request has ended, and leaks them if it never does.
    unsafe {
        let from = std::slice::from_raw_parts(sent.as_ptr(), sent.len());
        let to = std::slice::from_raw_parts_mut(received.as_mut_ptr(), received.len());
        (from, to)
    }
}
