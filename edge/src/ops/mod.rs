//! The operators, a file for each family: read from a node once, run many times.
//!
//! Meaning and names are those of ONNX; what is not implemented is refused when the model is loaded.

pub(crate) mod arithmetic;
mod attributes;
pub(crate) mod convolution;
pub(crate) mod normalisation;
mod pooling;
mod product;
mod quantised;
mod shape;
mod vector;
mod window;

use harvest_onnx::NodeProto;

use self::arithmetic::{Binary, Unary};
use self::attributes::Attributes;
use self::convolution::Conv;
use self::pooling::MaxPool;
use self::product::Gemm;
use crate::error::{Limits, OpError};
use crate::tensor::Tensor;

/// An operation with its settings.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    Identity,
    Constant(Tensor),
    Cast {
        to: i32,
    },
    Binary(Binary),
    Unary(Unary),
    /// Limits come as inputs; becomes [`Unary::Clip`] where they are constant.
    Clip,
    Conv(Conv),
    BatchNormalisation {
        epsilon: f32,
    },
    MaxPool(MaxPool),
    GlobalAveragePool,
    ReduceMean {
        axes: Option<Vec<i64>>,
        keep: bool,
        none_without_axes: bool,
    },
    Gemm(Gemm),
    MatMul,
    LayerNormalisation {
        axis: i64,
        epsilon: f32,
    },
    Softmax {
        axis: i64,
    },
    Flatten {
        axis: i64,
    },
    Reshape {
        allow_zero: bool,
    },
    Transpose {
        order: Option<Vec<i64>>,
    },
    Shape {
        start: i64,
        end: i64,
    },
    Slice,
    Concat {
        axis: i64,
    },
    Expand,
    Split {
        axis: i64,
        parts: usize,
    },
    Squeeze,
    Unsqueeze,
    Gather {
        axis: i64,
    },
    Dequantise {
        axis: i64,
    },
}

/// A side counted from the front; negative ones count from the back.
pub(crate) fn axis(axis: i64, rank: usize) -> Result<usize, OpError> {
    let found = if axis < 0 { axis.checked_add(rank as i64) } else { Some(axis) };
    let found = found.and_then(|axis| usize::try_from(axis).ok()).filter(|&axis| axis < rank);
    found.ok_or(OpError::Axis { axis, rank })
}

impl Op {
    /// The operation of a node; nothing if it is not implemented.
    pub fn parse(node: &NodeProto) -> Result<Option<Self>, OpError> {
        if !matches!(node.domain.as_deref(), None | Some("" | "ai.onnx")) {
            return Ok(None);
        }
        let attributes = Attributes(node);
        Ok(Some(match node.op_type.as_deref().unwrap_or_default() {
            "Identity" => Self::Identity,
            "Constant" => {
                let value = attributes.get("value").and_then(|attribute| attribute.t.as_ref());
                let value = value.ok_or_else(|| OpError::attribute("value", "is no tensor"))?;
                let tensor =
                    crate::weights::tensor(value).map_err(|reason| OpError::attribute("value", reason))?;
                Self::Constant(tensor)
            }
            "Cast" => Self::Cast { to: i32::try_from(attributes.integer("to", 0)?).unwrap_or(0) },
            "Add" => Self::Binary(Binary::Add),
            "Sub" => Self::Binary(Binary::Sub),
            "Mul" => Self::Binary(Binary::Mul),
            "Div" => Self::Binary(Binary::Div),
            "Relu" => Self::Unary(Unary::RELU),
            "Sigmoid" => Self::Unary(Unary::Sigmoid),
            "Erf" => Self::Unary(Unary::Erf),
            "Sqrt" => Self::Unary(Unary::Sqrt),
            "Clip" => Self::Clip,
            "Conv" => Self::Conv(Conv::parse(&attributes)?),
            "BatchNormalization" => {
                attributes.only("training_mode", 0)?;
                Self::BatchNormalisation { epsilon: attributes.float("epsilon", 1e-5)? }
            }
            "MaxPool" => Self::MaxPool(MaxPool::parse(&attributes)?),
            "GlobalAveragePool" => Self::GlobalAveragePool,
            "ReduceMean" => Self::ReduceMean {
                axes: attributes.integers("axes"),
                keep: attributes.integer("keepdims", 1)? != 0,
                none_without_axes: attributes.integer("noop_with_empty_axes", 0)? != 0,
            },
            "Gemm" => Self::Gemm(Gemm {
                alpha: attributes.float("alpha", 1.0)?,
                beta: attributes.float("beta", 1.0)?,
                transpose_left: attributes.integer("transA", 0)? != 0,
                transpose_right: attributes.integer("transB", 0)? != 0,
            }),
            "MatMul" => Self::MatMul,
            "LayerNormalization" => Self::LayerNormalisation {
                axis: attributes.integer("axis", -1)?,
                epsilon: attributes.float("epsilon", 1e-5)?,
            },
            "Softmax" => Self::Softmax { axis: attributes.integer("axis", -1)? },
            "Flatten" => Self::Flatten { axis: attributes.integer("axis", 1)? },
            "Reshape" => Self::Reshape { allow_zero: attributes.integer("allowzero", 0)? != 0 },
            "Transpose" => Self::Transpose { order: attributes.integers("perm") },
            "Shape" => Self::Shape {
                start: attributes.integer("start", 0)?,
                end: attributes.integer("end", i64::MAX)?,
            },
            "Slice" => Self::Slice,
            "Concat" => Self::Concat { axis: attributes.integer("axis", 0)? },
            "Expand" => Self::Expand,
            "Split" => Self::Split { axis: attributes.integer("axis", 0)?, parts: node.output.len() },
            "Squeeze" => Self::Squeeze,
            "Unsqueeze" => Self::Unsqueeze,
            "Gather" => Self::Gather { axis: attributes.integer("axis", 0)? },
            "DequantizeLinear" => {
                attributes.only("block_size", 0)?;
                Self::Dequantise { axis: attributes.integer("axis", 1)? }
            }
            _ => return Ok(None),
        }))
    }

    /// ONNX's name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Identity => "Identity",
            Self::Constant(_) => "Constant",
            Self::Cast { .. } => "Cast",
            Self::Binary(Binary::Add) => "Add",
            Self::Binary(Binary::Sub) => "Sub",
            Self::Binary(Binary::Mul) => "Mul",
            Self::Binary(Binary::Div) => "Div",
            Self::Unary(Unary::Sigmoid) => "Sigmoid",
            Self::Unary(Unary::Erf) => "Erf",
            Self::Unary(Unary::Gelu) => "Gelu",
            Self::Unary(Unary::Sqrt) => "Sqrt",
            Self::Unary(Unary::Clip(..)) | Self::Clip => "Clip",
            Self::Conv(_) => "Conv",
            Self::BatchNormalisation { .. } => "BatchNormalization",
            Self::MaxPool(_) => "MaxPool",
            Self::GlobalAveragePool => "GlobalAveragePool",
            Self::ReduceMean { .. } => "ReduceMean",
            Self::Gemm(_) => "Gemm",
            Self::MatMul => "MatMul",
            Self::LayerNormalisation { .. } => "LayerNormalization",
            Self::Softmax { .. } => "Softmax",
            Self::Flatten { .. } => "Flatten",
            Self::Reshape { .. } => "Reshape",
            Self::Transpose { .. } => "Transpose",
            Self::Shape { .. } => "Shape",
            Self::Slice => "Slice",
            Self::Concat { .. } => "Concat",
            Self::Expand => "Expand",
            Self::Split { .. } => "Split",
            Self::Squeeze => "Squeeze",
            Self::Unsqueeze => "Unsqueeze",
            Self::Gather { .. } => "Gather",
            Self::Dequantise { .. } => "DequantizeLinear",
        }
    }

    /// One tensor, or several where the operator has several outputs.
    pub fn run(&self, inputs: &[Option<&Tensor>], limits: &Limits) -> Result<Vec<Tensor>, OpError> {
        let optional = |index: usize| inputs.get(index).copied().flatten();
        let input = |index: usize| optional(index).ok_or(OpError::MissingInput { index });
        let numbers = |index: usize| input(index)?.whole_numbers();
        let optional_numbers = |index: usize| optional(index).map(Tensor::whole_numbers).transpose();
        let one = match self {
            Self::Constant(tensor) => tensor.clone(),
            Self::Identity => input(0)?.clone(),
            Self::Cast { to } => arithmetic::cast(input(0)?, *to)?,
            Self::Binary(work) => work.run(input(0)?, input(1)?, limits)?,
            Self::Unary(work) => work.run(input(0)?)?,
            Self::Clip => {
                let low = optional(1).map_or(Ok(f32::NEG_INFINITY), Tensor::scalar)?;
                let high = optional(2).map_or(Ok(f32::INFINITY), Tensor::scalar)?;
                Unary::Clip(low, high).run(input(0)?)?
            }
            Self::Conv(conv) => conv.run(input(0)?, input(1)?, optional(2), limits)?,
            Self::BatchNormalisation { epsilon } => {
                normalisation::Affine::new(input(1)?, input(2)?, input(3)?, input(4)?, *epsilon)?
                    .run(input(0)?)?
            }
            Self::MaxPool(pool) => pool.run(input(0)?, limits)?,
            Self::GlobalAveragePool => {
                let axes: Vec<usize> = (2..input(0)?.shape().len()).collect();
                pooling::mean(input(0)?, &axes, true, limits)?
            }
            Self::ReduceMean { axes, keep, none_without_axes } => {
                let x = input(0)?;
                let named = optional_numbers(1)?.or(axes.as_deref()).unwrap_or_default();
                match (named.is_empty(), none_without_axes) {
                    (true, true) => x.clone(),
                    (true, false) => {
                        pooling::mean(x, &(0..x.shape().len()).collect::<Vec<_>>(), *keep, limits)?
                    }
                    _ => pooling::mean(x, &shape::axes(named, x.shape().len())?, *keep, limits)?,
                }
            }
            Self::Gemm(gemm) => gemm.run(input(0)?, input(1)?, optional(2), limits)?,
            Self::MatMul => product::matmul(input(0)?, input(1)?, limits)?,
            Self::LayerNormalisation { axis, epsilon } => {
                normalisation::layer_normalisation(input(0)?, input(1)?, optional(2), *axis, *epsilon)?
            }
            Self::Softmax { axis } => normalisation::softmax(input(0)?, *axis)?,
            Self::Flatten { axis } => shape::flatten(input(0)?, *axis)?,
            Self::Reshape { allow_zero } => {
                limits.count(&vec![1; numbers(1)?.len()])?;
                shape::reshape(input(0)?, numbers(1)?, *allow_zero)?
            }
            Self::Transpose { order } => shape::transpose(input(0)?, order.as_deref(), limits)?,
            Self::Shape { start, end } => {
                let shape = input(0)?.shape();
                let rank = shape.len() as i64;
                let place =
                    |at: i64| (if at < 0 { at.saturating_add(rank) } else { at }).clamp(0, rank) as usize;
                let sides = shape.get(place(*start)..place(*end)).unwrap_or_default();
                Tensor::integers(sides.iter().map(|&side| side as i64).collect())
            }
            Self::Slice => {
                let (along, steps) = (optional_numbers(3)?, optional_numbers(4)?);
                shape::slice(input(0)?, [numbers(1)?, numbers(2)?], along, steps, limits)?
            }
            Self::Concat { axis } => {
                let all: Result<Vec<&Tensor>, OpError> = (0..inputs.len()).map(input).collect();
                shape::concat(&all?, *axis, limits)?
            }
            Self::Expand => shape::expand(input(0)?, numbers(1)?, limits)?,
            Self::Split { axis: along, parts } => {
                let x = input(0)?;
                let side = x.shape()[axis(*along, x.shape().len())?];
                let lengths = match optional_numbers(1)? {
                    Some(lengths) => lengths.to_vec(),
                    None => {
                        let length = side.div_ceil((*parts).max(1));
                        (0..*parts)
                            .map(|part| length.min(side.saturating_sub(part * length)) as i64)
                            .collect()
                    }
                };
                return shape::split(x, *along, &lengths, limits);
            }
            Self::Squeeze => shape::squeeze(input(0)?, optional_numbers(1)?)?,
            Self::Unsqueeze => shape::unsqueeze(input(0)?, numbers(1)?, limits)?,
            Self::Gather { axis } => shape::gather(input(0)?, input(1)?, *axis, limits)?,
            Self::Dequantise { axis } => quantised::dequantise(input(0)?, input(1)?, optional(2), *axis)?,
        };
        Ok(vec![one])
    }
}
