//! Operations on each value by itself.

use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::memory::{copied, filled, fresh};
use super::{tensor, values, values_mut};

/// Values a thread takes at a time.
const PIECE: usize = 1 << 15;
/// Values copied before they are changed, so that they are still in the nearest cache.
pub(super) const BLOCK: usize = 1 << 12;

/// Applies `change(offset, values[offset..])` to all values of a contiguous tensor, a block at a time; in place where
/// nobody else holds the tensor, else on the way into a new one.
#[expect(unsafe_code, reason = "the new tensor's memory is not zeroed first")]
pub(super) fn map(mut x: FlexTensor, change: impl Fn(usize, &mut [f32]) + Send + Sync) -> FlexTensor {
    let blocks = |piece: usize| (0..PIECE / BLOCK).map(move |block| piece * PIECE + block * BLOCK);
    if let Some(x) = values_mut(&mut x) {
        x.par_chunks_mut(PIECE).enumerate().for_each(|(piece, x)| {
            blocks(piece).zip(x.chunks_mut(BLOCK)).for_each(|(offset, x)| change(offset, x));
        });
    } else {
        let mut y = fresh(x.layout().num_elements());
        y.par_chunks_mut(PIECE).zip(values(&x).par_chunks(PIECE)).enumerate().for_each(|(piece, (y, x))| {
            for (offset, (y, x)) in blocks(piece).zip(y.chunks_mut(BLOCK).zip(x.chunks(BLOCK))) {
                change(offset, copied(y, x));
            }
        });
        // SAFETY: as long as `x`, and copied from it in whole.
        x = tensor(unsafe { filled(y) }, x.layout().shape().clone());
    }
    x
}
