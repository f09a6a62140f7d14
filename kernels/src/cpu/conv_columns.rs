//! Convolution of small pictures as three matrix products.
//!
//! The loops of `conv_cpu` lie along the positions of one image, and compute several times too much where it has few: the last
//! stages of a ResNet see 4 × 4 to 1 × 1 of them, with hundreds of channels. There what every position sees is written down
//! as a row (`[batch · positions, taps]`), which costs little beside so many channels, and positions of all images are rows of
//! one product.
#![expect(unsafe_code, reason = "the product writes through an address")]

use std::ops::Range;

use rayon::prelude::*;

use super::matmul::{Matrix, Write};
use crate::conv_layout::{Layout, Shape};
use crate::conv_product::whole_runs;
use crate::products::Arithmetic;

/// Output channels, or input channels, that a thread takes at a time.
const CHANNELS: usize = 32;
/// Rows below which a product would mostly copy.
const FEWEST_ROWS: usize = 6;

/// Whether at most half of what the loops along the positions compute would be used.
pub(crate) fn suits(layout: &Layout) -> bool {
    let positions = layout.output[0] * layout.output[1];
    2 * positions <= whole_runs(layout.len) && layout.shape.batch * positions >= FEWEST_ROWS
}

/// The convolution of `x` `[batch, channels, height, width]` with `weight` `[outputs, channels, kh, kw]`.
pub(crate) fn forward(
    arithmetic: Arithmetic,
    layout: &Layout,
    x: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
) -> Vec<f32> {
    let (Shape { batch, outputs, .. }, taps) = (layout.shape, layout.taps.len());
    let rows = batch * layout.output[0] * layout.output[1];
    let seen = columns(layout, x);
    let mut y = vec![0f32; outputs * rows];
    y.par_chunks_mut(CHANNELS * rows).zip(weight.par_chunks(CHANNELS * taps)).for_each(|(y, weight)| {
        let weight = Matrix::new(weight, y.len() / rows, taps, taps);
        let seen = Matrix::new(&seen, rows, taps, taps).transposed();
        // SAFETY: `y` has a row for each of the weight's.
        unsafe { arithmetic.multiply(y.as_mut_ptr(), rows, weight, seen, 1.0, Write::Replace) };
    });
    if let Some(bias) = bias {
        for (y, bias) in y.chunks_exact_mut(rows).zip(bias) {
            y.iter_mut().for_each(|y| *y += bias);
        }
    }
    swapped(&y, outputs, batch)
}

/// Gradients of image and weight from `dy` `[batch, outputs, oh, ow]`, each only where wanted.
pub(crate) fn backward(
    arithmetic: Arithmetic,
    layout: &Layout,
    x: &[f32],
    weight: &[f32],
    dy: &[f32],
    [want_image, want_weight]: [bool; 2],
) -> [Option<Vec<f32>>; 2] {
    let (Shape { batch, channels, outputs, kernel, .. }, taps) = (layout.shape, layout.taps.len());
    let rows = batch * layout.output[0] * layout.output[1];
    let dy = swapped(dy, batch, outputs);
    let dx = want_image.then(|| {
        let (own, size) = (kernel[0] * kernel[1], layout.shape.height * layout.shape.width);
        let mut dx = vec![0f32; channels * batch * size];
        dx.par_chunks_mut(CHANNELS * batch * size).enumerate().for_each(|(piece, dx)| {
            let first = piece * CHANNELS * own;
            let width = dx.len() / (batch * size) * own;
            let mut gradient = vec![0f32; rows * width];
            let dy = Matrix::new(&dy, outputs, rows, rows).transposed();
            let weight = Matrix::new(&weight[first..], outputs, width, taps);
            // SAFETY: `gradient` has a row for each position.
            unsafe {
                arithmetic.multiply(gradient.as_mut_ptr(), width, dy, weight, 1.0, Write::Replace);
            }
            for (channel, dx) in dx.chunks_exact_mut(batch * size).enumerate() {
                each_pixel(layout, |row, tap, pixel| {
                    dx[pixel] += gradient[row * width + channel * own + tap]
                });
            }
        });
        swapped(&dx, channels, batch)
    });
    let dw = want_weight.then(|| {
        let seen = columns(layout, x);
        let mut dw = vec![0f32; outputs * taps];
        dw.par_chunks_mut(CHANNELS * taps).zip(dy.par_chunks(CHANNELS * rows)).for_each(|(dw, dy)| {
            let dy = Matrix::new(dy, dw.len() / taps, rows, rows);
            let seen = Matrix::new(&seen, rows, taps, taps);
            // SAFETY: `dw` has a row for each of `dy`'s.
            unsafe { arithmetic.multiply(dw.as_mut_ptr(), taps, dy, seen, 1.0, Write::Replace) };
        });
        dw
    });
    [dx, dw]
}

/// What each output position sees: `[batch · positions, taps]`, zeros outside of the image.
fn columns(layout: &Layout, x: &[f32]) -> Vec<f32> {
    let (Shape { channels, kernel, height, width, .. }, taps) = (layout.shape, layout.taps.len());
    let (own, size) = (kernel[0] * kernel[1], height * width);
    let positions = layout.output[0] * layout.output[1];
    let alone = Layout::new(Shape { batch: 1, ..layout.shape }).expect("as the whole batch");
    let mut seen = vec![0f32; layout.shape.batch * positions * taps];
    let images = seen.par_chunks_mut(positions * taps).zip(x.par_chunks(channels * size));
    images.for_each(|(seen, image)| {
        for (channel, plane) in image.chunks_exact(size).enumerate() {
            each_pixel(&alone, |row, tap, pixel| seen[row * taps + channel * own + tap] = plane[pixel]);
        }
    });
    seen
}

/// Calls `visit(row, tap, pixel)` for every output position of every image, every tap of one channel that lies inside, and the
/// pixel it meets, in planes of all images one after the other.
#[inline(always)]
fn each_pixel(layout: &Layout, mut visit: impl FnMut(usize, usize, usize)) {
    let Shape { batch, height, width, kernel: [kh, kw], stride, padding, .. } = layout.shape;
    let [oh, ow] = layout.output;
    // Taps that lie inside at output row or column `at`.
    let inside = |at: usize, taps: usize, size: usize| -> Range<usize> {
        let start = at * stride;
        padding.saturating_sub(start)..taps.min((size + padding).saturating_sub(start))
    };
    for image in 0..batch {
        for i in 0..oh {
            for j in 0..ow {
                let row = (image * oh + i) * ow + j;
                for a in inside(i, kh, height) {
                    let line = (image * height + i * stride + a - padding) * width;
                    for b in inside(j, kw, width) {
                        visit(row, a * kw + b, line + j * stride + b - padding);
                    }
                }
            }
        }
    }
}

/// `[a, b, ..]` → `[b, a, ..]`
fn swapped(values: &[f32], a: usize, b: usize) -> Vec<f32> {
    let length = values.len() / (a * b).max(1);
    let mut out = vec![0f32; values.len()];
    out.par_chunks_mut((a * length).max(1)).enumerate().for_each(|(second, out)| {
        for (first, out) in out.chunks_exact_mut(length.max(1)).enumerate() {
            out.copy_from_slice(&values[(first * b + second) * length..][..length]);
        }
    });
    out
}
