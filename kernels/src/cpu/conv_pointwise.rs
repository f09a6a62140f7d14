//! Convolution with kernels of one pixel: for each image the product of the weight with the planes where they lie.
//!
//! The loops of `conv_cpu` read a piece of every channel's plane, a page or more apart, for each few output channels. Half of a
//! ResNet's arithmetic is in such kernels, with up to 2,048 channels.
#![expect(unsafe_code, reason = "the product writes through an address")]

use rayon::prelude::*;

use super::linear::add_rows;
use super::matmul::{Matrix, Write};
use super::memory::Shared;
use super::{Pieces, for_each_piece};
use crate::conv_layout::{Layout, Shape};
use crate::conv_memory;
use crate::products::Arithmetic;

/// Channels below which a product would mostly begin and end.
const FEWEST_CHANNELS: usize = 32;
/// Positions a thread takes at a time, about.
const POSITIONS: usize = 448;
/// Whole strips of any product, in positions and channels.
const STRIP: usize = 32;
/// Input channels a thread takes at a time for the gradient of the weight.
const CHANNELS: usize = 64;
/// Parts that this gradient is divided into, about, by channels and images.
const PARTS: usize = 16;

/// Whether this is such a convolution, and large enough.
pub(crate) fn suits(layout: &Layout) -> bool {
    let Shape { batch, channels, outputs, kernel, stride, padding, .. } = layout.shape;
    kernel == [1, 1] && stride == 1 && padding == 0 && channels >= FEWEST_CHANNELS && batch * outputs > 0
}

/// The convolution of `x` `[batch, channels, height, width]` with `weight` `[outputs, channels, 1, 1]`.
pub(crate) fn forward(
    arithmetic: Arithmetic,
    layout: &Layout,
    x: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
) -> Vec<f32> {
    let Shape { batch, channels, outputs, .. } = layout.shape;
    let positions = positions(layout);
    let mut y = each_image(arithmetic, weight, [outputs, channels], x, batch, positions);
    if let Some(bias) = bias {
        y.par_chunks_mut(outputs * positions).for_each(|y| {
            for (y, bias) in y.chunks_exact_mut(positions).zip(bias) {
                y.iter_mut().for_each(|y| *y += bias);
            }
        });
    }
    y
}

/// Gradients of image and weight from `dy` `[batch, outputs, height, width]`, each only where wanted.
pub(crate) fn backward(
    arithmetic: Arithmetic,
    layout: &Layout,
    x: &[f32],
    weight: &[f32],
    dy: &[f32],
    [want_image, want_weight]: [bool; 2],
) -> [Option<Vec<f32>>; 2] {
    let Shape { batch, channels, outputs, .. } = layout.shape;
    let dx = want_image.then(|| {
        let mut transposed = vec![0f32; weight.len()];
        transposed.par_chunks_mut(outputs).enumerate().for_each(|(channel, to)| {
            let column = weight[channel..].iter().step_by(channels);
            to.iter_mut().zip(column).for_each(|(to, from)| *to = *from);
        });
        each_image(arithmetic, &transposed, [channels, outputs], dy, batch, positions(layout))
    });
    [dx, want_weight.then(|| weight_gradient(arithmetic, layout, x, dy))]
}

fn positions(layout: &Layout) -> usize {
    layout.output[0] * layout.output[1]
}

/// `weight` `[rows, columns]` times each of `batch` matrices `[columns, positions]`.
fn each_image(
    arithmetic: Arithmetic,
    weight: &[f32],
    [rows, columns]: [usize; 2],
    images: &[f32],
    batch: usize,
    positions: usize,
) -> Vec<f32> {
    let mut out = conv_memory::take(batch * rows * positions);
    let target = Shared::new(&mut out);
    let pieces = Pieces::new(positions, POSITIONS, STRIP);
    let weight = Matrix::new(weight, rows, columns, columns);
    for_each_piece(batch * pieces.count(), |piece| {
        let (image, part) = (piece / pieces.count(), pieces.range(piece % pieces.count()));
        let planes = &images[image * columns * positions + part.start..];
        let planes = Matrix::new(planes, columns, part.len(), positions);
        // SAFETY: these positions of this image's result are this piece's alone.
        unsafe {
            let target = target.at(image * rows * positions + part.start);
            arithmetic.multiply(target, positions, weight, planes, 1.0, Write::Replace);
        }
    });
    out
}

/// The sum over images of `dy · xᵀ`, in groups that are added in order.
fn weight_gradient(arithmetic: Arithmetic, layout: &Layout, x: &[f32], dy: &[f32]) -> Vec<f32> {
    let Shape { batch, channels, outputs, .. } = layout.shape;
    let positions = positions(layout);
    let pieces = Pieces::new(channels, CHANNELS, STRIP);
    let groups = Pieces::new(batch, (batch * pieces.count()).div_ceil(PARTS).clamp(1, batch), 1);
    let size = outputs * channels;
    let mut partial = conv_memory::take(groups.count() * size);
    let target = Shared::new(&mut partial);
    for_each_piece(groups.count() * pieces.count(), |task| {
        let (group, part) = (task / pieces.count(), pieces.range(task % pieces.count()));
        for (place, image) in groups.range(group).enumerate() {
            let dy = Matrix::new(&dy[image * outputs * positions..], outputs, positions, positions);
            let x = &x[(image * channels + part.start) * positions..];
            let x = Matrix::new(x, part.len(), positions, positions).transposed();
            let write = if place == 0 { Write::Replace } else { Write::Add };
            // SAFETY: these columns of this group's sum are this task's alone.
            unsafe {
                let target = target.at(group * size + part.start);
                arithmetic.multiply(target, channels, dy, x, 1.0, write);
            }
        }
    });
    let (first, rest) = partial.split_at_mut(size);
    first.par_chunks_mut(1 << 14).enumerate().for_each(|(piece, total)| {
        for part in rest.chunks_exact(size) {
            add_rows(&part[piece << 14..][..total.len()], total);
        }
    });
    partial.truncate(size);
    partial
}
