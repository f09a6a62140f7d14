//! What can be wrong with a model, found when it is loaded or run; a hostile file gets one of these, never a panic.

use crate::tensor::Tensor;

/// Why one operation cannot be done.
#[derive(Debug, Clone, thiserror::Error, PartialEq)]
#[non_exhaustive]
pub enum OpError {
    /// Numbers and shape do not go together.
    #[error("{found} numbers do not fill the shape {shape:?}")]
    Count {
        /// The shape.
        shape: Vec<usize>,
        /// The numbers there are.
        found: usize,
    },
    /// Another kind of number.
    #[error("numbers of kind {found} where {wanted} is needed")]
    Kind {
        /// The kind needed.
        wanted: &'static str,
        /// The kind found.
        found: &'static str,
    },
    /// Sides that do not go together.
    #[error("{what}: shapes {shapes:?} do not go together")]
    Shapes {
        /// What was tried.
        what: &'static str,
        /// The shapes of the inputs.
        shapes: Vec<Vec<usize>>,
    },
    /// A side that is not there.
    #[error("axis {axis} of a tensor with {rank} sides")]
    Axis {
        /// The axis asked for.
        axis: i64,
        /// Sides there are.
        rank: usize,
    },
    /// An input that is not given.
    #[error("input {index} is missing")]
    MissingInput {
        /// Its place, from 0.
        index: usize,
    },
    /// A setting out of its range.
    #[error("attribute `{name}` {reason}")]
    Attribute {
        /// The attribute.
        name: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// Beyond [`Limits`].
    #[error("{what} would take {needed}, more than the limit of {limit}")]
    TooLarge {
        /// Numbers or multiplications.
        what: &'static str,
        /// How many; the largest number where it cannot be counted.
        needed: usize,
        /// The limit.
        limit: usize,
    },
}

impl OpError {
    pub(crate) fn shapes(what: &'static str, tensors: &[&Tensor]) -> Self {
        Self::Shapes { what, shapes: tensors.iter().map(|tensor| tensor.shape().to_vec()).collect() }
    }

    pub(crate) fn attribute(name: &'static str, reason: impl Into<String>) -> Self {
        Self::Attribute { name, reason: reason.into() }
    }
}

/// Why a model cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// Not an ONNX file, or cut off.
    #[error("this is no ONNX model, or it is cut off: {0}")]
    Decode(#[from] harvest_onnx::prost::DecodeError),
    /// A part every model has is not there.
    #[error("the ONNX model has no {0}")]
    Missing(&'static str),
    /// A version of the operators that is not known.
    #[error("the model needs operators of version {found}; {first} to {last} are known")]
    OperatorVersion {
        /// The version the model names.
        found: i64,
        /// Oldest version known.
        first: i64,
        /// Newest version known.
        last: i64,
    },
    /// A stored tensor that cannot be read.
    #[error("the stored tensor `{name}` cannot be used: {reason}")]
    Weights {
        /// Its name.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// An operation that is not built in.
    #[error(
        "node `{node}` is a `{operator}`, which this program does not compute; export the model with `harvest export`"
    )]
    Operator {
        /// The node's name.
        node: String,
        /// The operator.
        operator: String,
    },
    /// A name used before it is computed, or computed twice.
    #[error("value `{value}` at node `{node}` {reason}")]
    Value {
        /// The value's name.
        value: String,
        /// The node's name.
        node: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// An operation that cannot be done.
    #[error("node `{node}` ({operator}): {source}")]
    Node {
        /// The node's name.
        node: String,
        /// The operator.
        operator: &'static str,
        /// Why.
        source: OpError,
    },
    /// The caller's input does not fit.
    #[error("the model's input `{name}`: {reason}")]
    Input {
        /// The input's name.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// An output asked for that the model lacks.
    #[error("the model has no output `{0}`")]
    NoOutput(String),
}

/// What a model may cost; the rest is refused before memory is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most numbers of one tensor. Default: 2²⁷, half a gigabyte as floats.
    pub elements: usize,
    /// Most numbers of all tensors at one time, weights and results apart. Default: 2²⁸.
    pub live: usize,
    /// Most multiplications of one operation. Default: 2⁴⁰.
    pub multiplications: usize,
    /// Most sides of one tensor. Default: 16.
    pub rank: usize,
}

impl Default for Limits {
    fn default() -> Self {
        // A 32-bit machine (a web page) cannot address more.
        let multiplications = usize::try_from(1u64 << 40).unwrap_or(usize::MAX);
        Self { elements: 1 << 27, live: 1 << 28, multiplications, rank: 16 }
    }
}

impl Limits {
    /// How many numbers the shape holds.
    pub(crate) fn count(&self, shape: &[usize]) -> Result<usize, OpError> {
        if shape.len() > self.rank {
            return Err(OpError::TooLarge { what: "the sides", needed: shape.len(), limit: self.rank });
        }
        product(shape, "the numbers of a tensor", self.elements)
    }

    /// Refuses work of more multiplications than allowed.
    pub(crate) fn work(&self, factors: &[usize]) -> Result<(), OpError> {
        product(factors, "the multiplications", self.multiplications).map(|_| ())
    }
}

fn product(factors: &[usize], what: &'static str, limit: usize) -> Result<usize, OpError> {
    if factors.contains(&0) {
        // Nothing to compute, but strides and offsets are still products of the others.
        let others = factors.iter().filter(|&&side| side > 0);
        let all = others.fold(1usize, |product, &side| product.saturating_mul(side));
        return if all > limit { Err(OpError::TooLarge { what, needed: all, limit }) } else { Ok(0) };
    }
    let needed = factors.iter().fold(1usize, |product, &side| product.saturating_mul(side));
    if needed > limit { Err(OpError::TooLarge { what, needed, limit }) } else { Ok(needed) }
}
