//! What ranks do together.

use std::fmt::Debug;
use std::sync::mpsc::{Receiver, Sender, channel};

/// The ranks of a job, seen from one of them.
///
/// Every rank must call the same operations in the same order. They begin in that order, whatever the caller does in
/// between, and none waits for its result to be fetched.
pub trait Communicator: Debug + Send + Sync {
    /// Which rank this is, below [`Self::world_size`].
    fn rank(&self) -> usize;

    /// How many ranks there are, 1 or more.
    fn world_size(&self) -> usize;

    /// The sum of a bucket over all ranks, element by element, the same bits on every rank. The bucket comes back with
    /// `sum` filled, so that its memory serves the next step too.
    fn all_reduce_sum(&self, bucket: Bucket) -> Pending<Bucket>;

    /// The values of all ranks, in the order of ranks. Their lengths may differ.
    fn all_gather(&self, values: Vec<f32>) -> Pending<Vec<Vec<f32>>>;

    /// The bytes of rank `root`, on every rank. Those of the others are ignored.
    fn broadcast(&self, bytes: Vec<u8>, root: usize) -> Pending<Vec<u8>>;

    /// Arrives when every rank has called it.
    fn barrier(&self) -> Pending<()>;

    /// Ends this rank and, as far as it can, all others: there is no going on once a collective operation has failed.
    /// `reason` is shown on every rank that can be reached.
    fn abort(&self, reason: &str) -> !;

    /// Whether buckets on a GPU can be summed; elsewhere they must be in the memory of the host.
    fn sums_on_gpus(&self) -> bool {
        false
    }

    /// The last call: what has been begun is ended, and connections close, on all ranks together. Later operations fail.
    fn finish(&self) {}
}

/// Numbers that are reduced as one.
#[derive(Debug)]
#[non_exhaustive]
pub enum Bucket {
    /// In the memory of the host.
    Host(HostBucket),
    /// In the memory of a GPU.
    #[cfg(feature = "cuda")]
    Device(Box<crate::nccl::DeviceBucket>),
}

impl Bucket {
    /// The bucket, for a communicator that sums in the memory of the host.
    ///
    /// # Errors
    /// If it lies elsewhere.
    pub fn on_the_host(self) -> Result<HostBucket, CollectiveError> {
        match self {
            Self::Host(bucket) => Ok(bucket),
            #[cfg(feature = "cuda")]
            Self::Device(_) => {
                let reason = "only NCCL sums buckets in the memory of a GPU".to_owned();
                Err(CollectiveError::Library { library: "this communicator", reason })
            }
        }
    }
}

/// A bucket in the memory of the host; both buffers live as long as the run.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct HostBucket {
    /// What this rank contributes.
    pub local: Vec<f32>,
    /// The sum over all ranks; as long as `local` once reduced.
    pub sum: Vec<f32>,
    /// How the numbers travel.
    pub wire: Wire,
    /// What rounding to bf16 has left out so far; it is added to the next contribution. Empty before the first step, and
    /// always with [`Wire::F32`].
    pub residual: Vec<f32>,
}

impl HostBucket {
    /// Zeros, of `length` numbers.
    pub fn new(length: usize, wire: Wire) -> Self {
        Self { local: vec![0.0; length], sum: vec![0.0; length], wire, residual: Vec::new() }
    }
}

/// How the numbers of a bucket travel between ranks.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// As they are.
    #[default]
    F32,
    /// Rounded to bfloat16, half the bytes. Sums are taken in `f32`, and what rounding leaves out is carried over to the
    /// next step.
    Bf16,
}

/// Why a collective operation failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CollectiveError {
    /// A rank is gone, or does not answer.
    #[error("{0}")]
    Lost(String),
    /// Ranks did not do the same.
    #[error("ranks did not call the same operation: {0}")]
    Mismatch(String),
    /// The library underneath.
    #[error("{library}: {reason}")]
    Library {
        /// MPI or NCCL.
        library: &'static str,
        /// Its words.
        reason: String,
    },
}

/// The result of a collective operation, on its way.
#[derive(Debug)]
#[must_use = "ranks may differ in what they do next before the operation has ended"]
pub struct Pending<T>(Receiver<Result<T, CollectiveError>>);

impl<T> Pending<T> {
    /// One that is already there.
    pub fn ready(result: Result<T, CollectiveError>) -> Self {
        let (sender, pending) = Self::new();
        // The receiver is in `pending`.
        let _ = sender.send(result);
        pending
    }

    /// One that arrives through the sender.
    pub fn new() -> (Sender<Result<T, CollectiveError>>, Self) {
        let (sender, receiver) = channel();
        (sender, Self(receiver))
    }

    /// Waits for it.
    ///
    /// # Errors
    /// [`CollectiveError`], if the operation failed or the thread that carried it out ended.
    pub fn wait(self) -> Result<T, CollectiveError> {
        let ended = || CollectiveError::Lost("the communication thread ended before its work".to_owned());
        self.0.recv().map_err(|_| ended())?
    }
}
