//! The ranks of one job: who they are, how they meet, how they sum, and how they notice that one is gone.
//!
//! [`Communicator`] is what training sees. All its operations are collective: every rank calls the same ones in the same
//! order. They begin in that order and end in the background; [`Pending`] is where the result arrives.

mod address;
mod bf16;
mod communicator;
mod hostlist;
mod identity;
mod ledger;
#[cfg(feature = "mpi")]
mod mpi;
#[cfg(feature = "nccl")]
pub mod nccl;
mod rendezvous;
mod solo;
mod table;
mod team;
mod threads;
mod unconnected;
mod watch;
mod wire;

pub use communicator::{Bucket, CollectiveError, Communicator, HostBucket, Pending, Wire};
pub use hostlist::{HostListError, expand as expand_hosts};
pub use identity::{Head, Identity, IdentityError, Launcher};
pub use rendezvous::MeetError;
pub use solo::Solo;
pub use table::{Disagreement, Passport, RankTable, host_name};
pub use team::{JoinError, JoinOptions, Paused, Team, Transport, join};
pub use threads::Threads;
pub use watch::EXIT_LOST;
