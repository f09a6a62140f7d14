//! The operations on GPUs: one kernel forward, one or a few backward, in CubeCL.
//!
//! Kernels read and write `f32`, `f16` or `bf16` and compute in `f32`. None waits for the GPU or reads from it. Sums run over
//! fixed pieces in a fixed order, without atomics, so that a device gives the same bits every time.
//!
//! Every launch goes past CubeCL's bound checks, which would double the reads of small kernels; instead the faces check
//! shapes, [`contiguous`] makes the layout what the kernels expect, and each kernel compares its position with its sizes.
#![expect(
    clippy::manual_checked_ops,
    clippy::manual_div_ceil,
    clippy::manual_swap,
    reason = "kernels know a part of Rust only, without what clippy would have there"
)]

pub(crate) mod adamw;
mod attention;
pub(crate) mod augment;
pub(crate) mod batch_norm;
mod columns;
pub(crate) mod cross_entropy;
mod gelu;
mod layer_norm;

use burn::backend::cubecl::dtype_to_elem_type;
use burn::backend::{DispatchDevice, TensorMetadata};
use burn::tensor::{DType, Shape, Tensor};
pub(crate) use burn_cubecl::kernel::into_contiguous as contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

/// Units of a cube that work on their own.
const UNITS: u32 = 256;
/// Planes of a cube in which every plane works on a row.
const PLANES: u32 = 4;

/// Whether `tensor` may take the path of this module: on a GPU, of a type that the kernels read, not empty.
pub(crate) fn serves<const D: usize>(tensor: &Tensor<D>) -> bool {
    matches!(tensor.dtype(), DType::F32 | DType::F16 | DType::BF16)
        && matches!(tensor.device().inner().as_dispatch(), DispatchDevice::Cube(_))
        && tensor.shape().num_elements() > 0
}

/// Memory for a result, not yet written, beside `like`.
fn empty(like: &CubeTensor, shape: Shape, dtype: DType) -> CubeTensor {
    empty_device_contiguous_dtype(like.client.clone(), like.device.clone(), shape, dtype)
}

/// Memory for a result of the shape and type of `like`.
fn empty_like(like: &CubeTensor) -> CubeTensor {
    empty(like, like.shape(), like.dtype)
}

/// How the kernels name the type of `tensor`.
fn elem(tensor: &CubeTensor) -> ElemType {
    dtype_to_elem_type(tensor.dtype)
}

/// A launch with a unit for every one of `count` things, and at most [`UNITS`] more than that.
fn unit_each(tensor: &CubeTensor, count: usize) -> (CubeCount, CubeDim) {
    let dim = CubeDim::new_1d(UNITS);
    (cubecl::calculate_cube_count_elemwise(&tensor.client, count, dim), dim)
}

/// A launch with a plane for every one of `rows` rows: `UNIT_POS_X` is the place in the plane, see [`plane_row`].
fn plane_each(tensor: &CubeTensor, rows: usize) -> (CubeCount, CubeDim) {
    let width = tensor.client.properties().hardware.plane_size_max;
    let dim = CubeDim::new_2d(width, PLANES);
    (cubecl::calculate_cube_count_elemwise(&tensor.client, rows * width as usize, dim), dim)
}

/// The row of this plane.
#[cube]
fn plane_row() -> usize {
    CUBE_POS * CUBE_DIM_Y as usize + UNIT_POS_Y as usize
}

/// How many neighbouring values a unit takes at once.
fn vector(count: usize) -> usize {
    if count.is_multiple_of(4) { 4 } else { 1 }
}

#[cfg(test)]
mod testing;

#[cfg(test)]
mod composed_tests;
