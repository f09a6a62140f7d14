//! The norm of many gradients in one pass.

use burn_flex::FlexTensor;

use super::group::{of_each, pieces};
use super::simd::multiversion;
use super::{contiguous, tensor, values};

/// Values a thread takes at a time.
const PIECE: usize = 1 << 15;
/// Partial sums: two registers of AVX-512.
const LANES: usize = 16;

multiversion! {
    /// The sum of squares. A square of a single is exact in double precision, so the sum is the same with and without
    /// fused multiply-adds.
    pub(super) fn squares<_FMA>(values: &[f32]) -> f64 {
        let mut lanes = [0f64; LANES];
        let (blocks, rest) = values.as_chunks::<LANES>();
        for block in blocks {
            for (total, &value) in lanes.iter_mut().zip(block) {
                let value = f64::from(value);
                *total += value * value;
            }
        }
        for (total, &value) in lanes.iter_mut().zip(rest) {
            let value = f64::from(value);
            *total += value * value;
        }
        let mut width = LANES / 2;
        while width > 0 {
            for lane in 0..width {
                lanes[lane] += lanes[lane + width];
            }
            width /= 2;
        }
        lanes[0]
    }
}

/// The norm of all values, `[1]`.
pub(crate) fn norm(gradients: impl Iterator<Item = FlexTensor>) -> FlexTensor {
    let gradients: Vec<FlexTensor> = gradients.map(contiguous).collect();
    let pieces = pieces(gradients.iter().map(values), PIECE);
    let sums = of_each(pieces, |piece| piece.into_iter().map(squares).sum::<f64>());
    // In their order, whichever thread was first.
    tensor(vec![sums.into_iter().sum::<f64>().sqrt() as f32], [1].into())
}
