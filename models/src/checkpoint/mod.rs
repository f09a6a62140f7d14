//! Weight files as they are published: safetensors, and what PyTorch's `torch.save` writes.
//!
//! [`read_weights`] takes either, by content and not by ending. PyTorch's files are pickles, and a pickle can name any
//! program to be run when it is read; here only data is made of it, and a file that wants more is refused ([`Problem::Code`]).
//! Of a training's checkpoint only the weights are taken: the largest dictionary of tensors, and of several alike the
//! averaged ones.

mod error;
mod numbers;
mod pickle;
mod state_dict;
mod torch;

use std::path::Path;

use burn::tensor::{DType, TensorData};
use safetensors::{Dtype, SafeTensors};

pub use error::{CheckpointError, Problem};

use crate::NamedTensors;

/// The weights of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Weights {
    /// By the file's own names; floats as F32, integers as I64.
    pub tensors: NamedTensors,
    /// How they were stored.
    pub format: Format,
    /// Keys that led to them in a training's checkpoint, such as `teacher`; empty if they were all there is.
    pub within: String,
}

/// How weights are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// safetensors.
    Safetensors,
    /// PyTorch's zip archive, since version 1.6.
    Torch,
    /// PyTorch's row of pickles before.
    TorchLegacy,
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Safetensors => "safetensors",
            Self::Torch => "PyTorch",
            Self::TorchLegacy => "PyTorch before 1.6",
        })
    }
}

/// Reads all weights of a file.
///
/// # Errors
/// [`CheckpointError`]; nothing of a damaged file is returned, and nothing that it asks for is run.
pub fn read_weights(path: &Path) -> Result<Weights, CheckpointError> {
    let bytes =
        std::fs::read(path).map_err(|source| CheckpointError::Read { path: path.to_owned(), source })?;
    parse_weights(&bytes).map_err(|source| CheckpointError::Refused { path: path.to_owned(), source })
}

/// [`read_weights`] of a file's content.
///
/// # Errors
/// [`Problem`].
pub fn parse_weights(bytes: &[u8]) -> Result<Weights, Problem> {
    // A safetensors file begins with the length of its header, eight bytes of which the last are zero, and the header.
    if bytes.get(5..9) == Some(b"\0\0\0{") {
        let tensors = safetensors(bytes)?;
        if tensors.is_empty() {
            return Err(Problem::NoTensors);
        }
        Ok(Weights { tensors, format: Format::Safetensors, within: String::new() })
    } else if bytes.starts_with(b"PK\x03\x04") {
        torch::read_zip(bytes)
    } else if bytes.first() == Some(&0x80) {
        torch::read_legacy(bytes)
    } else {
        Err(Problem::Unknown)
    }
}

/// All tensors of a safetensors file, of which there may be none: floats as F32, integers as I64.
pub(crate) fn safetensors(bytes: &[u8]) -> Result<NamedTensors, Problem> {
    let file = SafeTensors::deserialize(bytes).map_err(|error| Problem::damaged(error.to_string()))?;
    let mut tensors = NamedTensors::new();
    for (name, view) in file.iter() {
        let (dtype, target) = match view.dtype() {
            Dtype::F64 => (DType::F64, DType::F32),
            Dtype::F32 => (DType::F32, DType::F32),
            Dtype::F16 => (DType::F16, DType::F32),
            Dtype::BF16 => (DType::BF16, DType::F32),
            Dtype::I64 => (DType::I64, DType::I64),
            Dtype::I32 => (DType::I32, DType::I64),
            Dtype::I16 => (DType::I16, DType::I64),
            Dtype::I8 => (DType::I8, DType::I64),
            Dtype::U8 => (DType::U8, DType::I64),
            other => return Err(Problem::Type { name: name.to_owned(), found: format!("{other:?}") }),
        };
        let data = TensorData::from_bytes_vec(view.data().to_vec(), view.shape().to_vec(), dtype);
        tensors.insert(name.to_owned(), if dtype == target { data } else { data.convert_dtype(target) });
    }
    Ok(tensors)
}
