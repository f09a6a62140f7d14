//! Ranks as real processes of this machine.

mod job;
mod meeting;
#[cfg(feature = "mpi")]
mod mpi;
mod watching;
