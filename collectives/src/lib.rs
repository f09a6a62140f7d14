//! The ranks of one job: who they are, how they meet, how they sum, and how they notice that one is gone.
//!
//! [`Communicator`] is what training sees. All its operations are collective: every rank calls the same ones in the same
//! order. They begin in that order and end in the background; [`Pending`] is where the result arrives.
//!
//! Ranks are joined twice. The **control plane** is a TCP connection from each rank to rank 0. It exists before any
//! library for data is asked, and lives when that library hangs: over it ranks meet and show their [`Passport`]s, compare
//! values ([`Team::agree`]), tell how far they are, and learn that one is lost. It carries a few bytes a second. The **data
//! plane** carries gradients and rows: MPI or NCCL between processes, [`Threads`] within one, nothing at all for [`Solo`].
//! MPI and NCCL do not notice a death by themselves; the watch on the control plane does, and ends the process.
//!
//! [`Identity::from_environment`] says which rank this is, [`join`] makes it a member of the [`Team`], [`Team::leave`] ends
//! that in good order.

mod address;
mod bf16;
mod communicator;
mod hostlist;
mod identity;
mod join;
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
pub use join::{JoinError, JoinOptions, Transport, join};
pub use rendezvous::MeetError;
pub use solo::Solo;
pub use table::{Disagreement, Passport, RankTable, host_name};
pub use team::{Paused, Team};
pub use threads::Threads;
pub use watch::EXIT_LOST;
