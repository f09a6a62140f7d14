//! The ranks of one job: who they are, how they meet, how they sum, and how they notice that one is gone.
//!
//! [`Communicator`] is what training sees. All its operations are collective: every rank calls the same ones in the same
//! order. They begin in that order and end in the background; [`Pending`] is where the result arrives.

mod communicator;
#[cfg(feature = "nccl")]
pub mod nccl;
mod solo;
mod threads;

pub use communicator::{Bucket, CollectiveError, Communicator, HostBucket, Pending, Wire};
pub use solo::Solo;
pub use threads::Threads;
