//! Why a weight file is refused.

use std::path::PathBuf;

/// A weight file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The file cannot be read.
    #[error("cannot read the weight file `{path}`", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Its content is refused.
    #[error("the weight file `{path}` is refused", path = path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Problem,
    },
}

/// What is wrong with the bytes of a weight file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// Neither of the formats.
    #[error(
        "it is neither a safetensors nor a PyTorch file; safetensors begins with the length of its header, PyTorch's \
         with a zip archive or a pickle"
    )]
    Unknown,
    /// A PyTorch program.
    #[error("it is a TorchScript program, not weights; save `model.state_dict()` from Python instead")]
    TorchScript,
    /// A pickle that wants something called which is no part of a weight file. Nothing was called.
    #[error(
        "the file asks to run `{name}`; a weight file has no business doing that (nothing was run). If you trust its \
         maker, save `model.state_dict()` alone from Python, or take the .safetensors file"
    )]
    Code {
        /// Module and name, as the file says.
        name: String,
    },
    /// It ends before it should, or contradicts itself.
    #[error("it is cut short or damaged: {what}")]
    Damaged {
        /// Where and how.
        what: String,
    },
    /// More than any weight file needs.
    #[error("it asks for more than a weight file of its size can need: {what}")]
    Excessive {
        /// Of what.
        what: String,
    },
    /// A type of numbers that no layer here has.
    #[error("`{name}` holds {found}, which is neither a float nor an integer type known here")]
    Type {
        /// The tensor.
        name: String,
        /// As the file says.
        found: String,
    },
    /// No tensors in it.
    #[error("there is no state dict in it: no names with tensors")]
    NoTensors,
}

impl Problem {
    pub(super) fn damaged(what: impl Into<String>) -> Self {
        Self::Damaged { what: what.into() }
    }

    pub(super) fn excessive(what: impl Into<String>) -> Self {
        Self::Excessive { what: what.into() }
    }
}
