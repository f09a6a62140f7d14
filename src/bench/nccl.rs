//! Whether NCCL sums rightly on the memory of a GPU, and how long a sum takes.
//!
//! One rank sums with itself, through the same calls as a thousand. Several may share a GPU where NCCL allows it
//! (`NCCL_MULTI_RANK_GPU_ENABLE=1`); this program then starts the others.

use std::sync::Arc;

use burn::tensor::Device;
use harvest_collectives::{Communicator, Solo};
use serde::Serialize;

use super::BenchError;
use crate::device;

#[cfg(feature = "cuda")]
mod sums;

/// What to sum.
#[derive(Debug, Clone, PartialEq, clap::Args)]
pub struct NcclOptions {
    /// cuda or cuda:N.
    #[arg(long, default_value = "cuda")]
    pub device: String,
    /// Size of the bucket, in MiB.
    #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub mib: u32,
    /// Measured sums of each kind.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub iterations: u32,
    /// Processes that share the GPU.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=8))]
    pub ranks: u32,
    /// Which of them this is; told to those that this program starts.
    #[arg(long, hide = true, requires = "id", default_value_t = 0)]
    pub rank: u32,
    /// What they meet by.
    #[arg(long, hide = true)]
    pub id: Option<String>,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NcclReport {
    /// Program and version.
    pub program: String,
    /// Version of NCCL.
    pub nccl: String,
    /// Where it was found.
    pub library: String,
    /// Processes.
    pub ranks: u32,
    /// Bytes of the bucket, in `f32`.
    pub bytes: u64,
    /// Numbers of the sums in `f32` that were not exact.
    pub wrong: u64,
    /// Numbers of gradients handed out that the next sum has changed.
    pub overwritten: u64,
    /// Values of the host that came wrong through gathering, broadcasting or summing.
    pub wrong_on_host: u64,
    /// Largest error of the total over 30 steps with bf16 on the wire, relative to the total.
    pub bf16_error: f64,
    /// What that may be.
    pub bf16_bound: f64,
    /// Of a sum in `f32`, median.
    pub seconds_f32: f64,
    /// Of a sum in bf16, with rounding, median.
    pub seconds_bf16: f64,
}

impl NcclReport {
    /// Whether all sums were right.
    pub fn passed(&self) -> bool {
        self.wrong + self.overwritten + self.wrong_on_host == 0 && self.bf16_error <= self.bf16_bound
    }
}

/// Sums and compares; see the [module](self).
///
/// # Errors
/// If there is no such GPU, no NCCL, or a sum fails.
pub fn nccl(options: &NcclOptions) -> Result<NcclReport, BenchError> {
    let device = device::by_name(&options.device)?;
    if device::is_cpu(&device) {
        let reason = "NCCL sums between GPUs; say --device cuda:N".to_owned();
        return Err(BenchError::Execution { reason });
    }
    #[cfg(feature = "cuda")]
    return sums::measure(options, &device);
    #[cfg(not(feature = "cuda"))]
    Err(device::DeviceError::NotBuilt.into())
}

/// What sums the gradients of one rank: NCCL on a GPU.
pub(super) fn of_one_rank(device: &Device) -> Result<Arc<dyn Communicator>, BenchError> {
    #[cfg(feature = "cuda")]
    if !device::is_cpu(device) {
        return Ok(Arc::new(sums::alone(device)?));
    }
    #[cfg(not(feature = "cuda"))]
    let _ = device;
    Ok(Arc::new(Solo))
}
