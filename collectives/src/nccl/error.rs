//! What can go wrong with NCCL, in words that say what to do.

use std::path::PathBuf;
use std::time::Duration;

use crate::communicator::CollectiveError;

/// Why NCCL cannot be used, or what it reported.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NcclError {
    /// There is no such library.
    #[error(
        "NCCL is not installed: there is no `libnccl.so.2` where the system looks for libraries (`LD_LIBRARY_PATH` included) \
         nor {}; `pip install nvidia-nccl-cu12` or the package `libnccl2` brings it, and `{variable}` can name the file",
        list(looked_in)
    )]
    Missing {
        /// Places that were looked into, besides the system's.
        looked_in: Vec<PathBuf>,
        /// The variable that names the file.
        variable: &'static str,
    },
    /// There is a file, and it cannot be opened as a library.
    #[error("NCCL cannot be loaded from `{}`: {reason}", path.display())]
    Unloadable {
        /// The file.
        path: PathBuf,
        /// The loader's words.
        reason: String,
    },
    /// The library lacks a function.
    #[error(
        "`{}` is no NCCL of 2.14 or later: it has no function `{function}`; install a newer one, or name its file in `{variable}`",
        path.display()
    )]
    TooOld {
        /// The file.
        path: PathBuf,
        /// What is missing.
        function: &'static str,
        /// The variable that names the file.
        variable: &'static str,
    },
    /// Bytes that are no id.
    #[error("an NCCL id has 128 bytes, this one {found}")]
    Id {
        /// How many there are.
        found: usize,
    },
    /// A rank that there cannot be.
    #[error("there is no rank {rank} among {world_size}")]
    Rank {
        /// The rank.
        rank: usize,
        /// How many ranks.
        world_size: usize,
    },
    /// A function failed.
    #[error("{function}: {meaning}{}", detail(last))]
    Call {
        /// Its name.
        function: &'static str,
        /// Its result.
        code: i32,
        /// What NCCL says the result means.
        meaning: String,
        /// The last error message NCCL kept, if there is one.
        last: String,
    },
    /// Not all ranks did their part in time.
    #[error("{function}: not all ranks did their part within {} s", limit.as_secs())]
    Timeout {
        /// What was waited for.
        function: &'static str,
        /// How long.
        limit: Duration,
    },
    /// The GPU or its driver.
    #[error("CUDA: {reason}")]
    Cuda {
        /// What it said.
        reason: String,
    },
}

fn list(paths: &[PathBuf]) -> String {
    let shown: Vec<_> = paths.iter().map(|path| format!("`{}`", path.display())).collect();
    if shown.is_empty() {
        "beside CUDA or among the packages of a Python on `PATH`".to_owned()
    } else {
        format!("in {}", shown.join(", "))
    }
}

fn detail(last: &str) -> String {
    if last.is_empty() { String::new() } else { format!(" ({last})") }
}

impl From<NcclError> for CollectiveError {
    fn from(error: NcclError) -> Self {
        match error {
            NcclError::Timeout { .. } => Self::Lost(format!("NCCL: {error}")),
            _ => Self::Library { library: "NCCL", reason: error.to_string() },
        }
    }
}
