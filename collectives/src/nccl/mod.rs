//! NVIDIA's NCCL: sums between GPUs, over NVLink within a machine and InfiniBand or TCP between machines.
//!
//! The library is opened when it is first asked for, so that one program serves machines with and without it. It is opened
//! here and not by `cudarc`, which has bindings too, because `cudarc` looks for `libnccl.so` and for endings that NCCL never
//! had; what distributions and Python packages install is `libnccl.so.2`. The dozen functions in use have not changed since
//! NCCL 2.14.
//!
//! [`Library`] finds it and makes the id that ranks meet by; [`Nccl`] is the communicator. With the feature `cuda` it sums
//! buckets of burn's CUDA tensors where they lie.

mod comm;
mod communicator;
#[cfg(feature = "cuda")]
mod device_bucket;
mod error;
mod library;
mod sys;
mod worker;

pub use comm::Comm;
pub use communicator::{Nccl, NcclOptions};
#[cfg(feature = "cuda")]
pub use device_bucket::DeviceBucket;
pub use error::NcclError;
pub use library::{Library, UniqueId, Version};
pub use sys::DataType;
