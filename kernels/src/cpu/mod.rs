//! The transformer's operations on the CPU backend: plain slices of `f32`, vectorised, parallel over fixed pieces.
//!
//! Every reduction adds up the same pieces in the same order whatever the number of threads, so results are
//! bit-identical in pools of any size.

pub(crate) mod attention;
#[cfg_attr(
    not(any(test, target_arch = "x86_64")),
    expect(dead_code, reason = "no other processor is asked for pairs")
)]
pub(crate) mod bf16;
pub(crate) mod class_attention;
pub(crate) mod conv_columns;
pub(crate) mod conv_pointwise;
pub(crate) mod cross_entropy;
pub(crate) mod depthwise;
pub(crate) mod gelu;
pub(crate) mod gradient_norm;
mod group;
pub(crate) mod layer_norm;
pub(crate) mod linear;
mod matmul;
mod memory;
pub(crate) mod optimizer;
mod pointwise;
pub(crate) mod pre_norm;
mod product;
pub(crate) mod pseudo_label;
pub(crate) mod residual;
mod simd;
pub(crate) mod softmax;
#[cfg(test)]
mod stored;

use std::sync::Arc;

use burn::backend::Flex;
use burn::tensor::{DType, Device, Int, Shape, Tensor, TensorData};
use burn_flex::FlexTensor;
use rayon::prelude::*;

/// Whether `tensor` may take the path of this module: chosen, `f32`, on the CPU backend, in a graph or not, not empty.
pub(crate) fn serves<const D: usize>(tensor: &Tensor<D>) -> bool {
    crate::choice::fused()
        && tensor.dtype() == DType::F32
        && tensor.device() == Device::flex()
        && tensor.shape().num_elements() > 0
}

/// Whether these classes can be read by this module: it was chosen, they are on the CPU backend and there are some.
pub(crate) fn serves_classes(classes: &Tensor<1, Int>) -> bool {
    crate::choice::fused() && classes.device() == Device::flex() && classes.dims() != [0]
}

/// The tensor with its values in row-major order, without a copy where they are already.
pub(crate) fn contiguous(tensor: FlexTensor) -> FlexTensor {
    if tensor.is_contiguous() { tensor } else { tensor.to_contiguous() }
}

/// The values of a contiguous tensor.
pub(crate) fn values(tensor: &FlexTensor) -> &[f32] {
    tensor.as_slice().expect("contiguous and f32: checked before dispatch")
}

/// The values of a tensor nobody else holds, for writing; `None` if it is shared or a view.
pub(crate) fn values_mut(tensor: &mut FlexTensor) -> Option<&mut [f32]> {
    let elements = tensor.layout().num_elements();
    if !tensor.is_contiguous() || tensor.layout().start_offset() != 0 {
        return None;
    }
    tensor.try_storage_mut::<f32>().filter(|values| values.len() == elements)
}

/// The tensor, or a copy of it that may be written.
pub(crate) fn owned(mut tensor: FlexTensor) -> FlexTensor {
    if values_mut(&mut tensor).is_none() {
        let copy = values(&contiguous(tensor.clone())).to_vec();
        tensor = self::tensor(copy, tensor.layout().shape().clone());
    }
    tensor
}

/// The values of an [`owned`] tensor.
pub(crate) fn writable(tensor: &mut FlexTensor) -> &mut [f32] {
    values_mut(tensor).expect("made writable above")
}

/// A tensor of these values.
pub(crate) fn tensor(values: Vec<f32>, shape: Shape) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape))
}

/// A tensor of the CPU backend, in row-major order and off the graph.
pub(crate) fn constant<const D: usize>(tensor: Tensor<D>) -> FlexTensor {
    contiguous(tensor.inner().try_into_primitive::<Flex>().expect("on the CPU backend: checked before"))
}

/// The classes of rows, all below `count`.
///
/// # Panics
/// Where one is not, and names its row.
pub(crate) fn classes(classes: Tensor<1, Int>, count: usize) -> Arc<[u32]> {
    let class = |(row, class): (usize, i64)| match usize::try_from(class) {
        Ok(index) if index < count => index as u32,
        _ => panic!("row {row} is of class {class}, but there are {count} classes, counted from 0"),
    };
    classes.inner().into_data().iter::<i64>().enumerate().map(class).collect()
}

/// Rows of a product that is cut by rows: those of any tile divide it.
const ROW_UNIT: usize = 12;

/// Calls `work` with every number below `count`, in parallel; without the pool if there is one piece only.
fn for_each_piece(count: usize, work: impl Fn(usize) + Send + Sync) {
    if count == 1 {
        work(0);
    } else {
        (0..count).into_par_iter().for_each(work);
    }
}

/// Cuts `0..length` into pieces of about `size`, as equal as they come, boundaries at multiples of `unit`.
///
/// Depends on nothing but the arguments: the pieces are the same for every number of threads.
#[derive(Debug, Clone, Copy)]
struct Pieces {
    length: usize,
    piece: usize,
}

impl Pieces {
    fn new(length: usize, size: usize, unit: usize) -> Self {
        let count = length.div_ceil(size).max(1);
        Self { length, piece: length.div_ceil(count).next_multiple_of(unit).max(1) }
    }

    fn count(&self) -> usize {
        self.length.div_ceil(self.piece)
    }

    fn range(&self, index: usize) -> std::ops::Range<usize> {
        let start = index * self.piece;
        start..(start + self.piece).min(self.length)
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! What the tests of all operations share.

    use burn::tensor::{Device, Tensor, TensorData};

    /// Reproducible values in about (-1.7, 1.7), of variance one.
    pub(crate) fn noise(count: usize, seed: u64) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let next = |_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            ((state >> 40) as f32 / (1u64 << 23) as f32 - 1.0) * 1.732
        };
        (0..count).map(next).collect()
    }

    /// A tensor of [`noise`].
    pub(crate) fn random<const D: usize>(shape: [usize; D], seed: u64, device: &Device) -> Tensor<D> {
        Tensor::from_data(TensorData::new(noise(shape.iter().product(), seed), shape), device)
    }

    /// The values of a tensor.
    pub(crate) fn read<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
        tensor.into_data().try_to_vec::<f32>().expect("f32")
    }

    /// The values as bf16 has them.
    pub(crate) fn rounded<const D: usize>(tensor: Tensor<D>) -> Tensor<D> {
        let (shape, device) = (tensor.shape(), tensor.device());
        let values: Vec<f32> = read(tensor).into_iter().map(super::bf16::rounded).collect();
        Tensor::from_data(TensorData::new(values, shape), &device)
    }

    /// Asserts that the largest difference is at most `tolerance` times the largest value (at least one).
    pub(crate) fn assert_close(name: &str, found: &[f32], expected: &[f32], tolerance: f32) {
        assert_eq!(found.len(), expected.len(), "{name}: length");
        let scale = expected.iter().fold(1f32, |scale, value| scale.max(value.abs()));
        for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
            let error = (found - expected).abs();
            assert!(error <= tolerance * scale, "{name}[{index}]: {found}, expected {expected}");
        }
    }

    /// Whether products of `f32` are our own here, so that a sum does not depend on what else is computed with it.
    pub(crate) fn own_products() -> bool {
        super::product::Unit::of_this_processor().is_some()
    }

    /// Runs `work` in pools of one and of two threads and asserts equal bits.
    pub(crate) fn assert_same_in_all_pools(work: impl Fn() -> Vec<Vec<f32>> + Send + Sync) {
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
            pool.install(&work)
        };
        let bits = |all: Vec<Vec<f32>>| -> Vec<Vec<u32>> {
            all.into_iter().map(|values| values.into_iter().map(f32::to_bits).collect()).collect()
        };
        assert!(bits(run(1)) == bits(run(2)), "the result depends on the number of threads");
    }
}
