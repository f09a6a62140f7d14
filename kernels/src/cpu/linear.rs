//! `x W + b` and its gradients, cut by rows of `x`.
#![expect(unsafe_code, reason = "threads write disjoint rows of buffers that are not zeroed first")]

use burn::tensor::Shape;
use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::matmul::{Matrix, Write, multiply};
use super::memory::{Shared, filled, fresh};
use super::simd::multiversion;
use super::{Pieces, contiguous, for_each_piece, tensor, values};

/// Rows a thread takes at a time: their part of the result stays in the second-level cache.
const ROWS: usize = 256;
/// Rows whose products are added up into one partial gradient of the weight ...
const GROUP: usize = 1024;
/// ... of which there are at most so many.
const MOST_GROUPS: usize = 16;

multiversion! {
    /// Adds the rows, as long as `total`, to `total`.
    pub(super) fn add_rows<FMA>(rows: &[f32], total: &mut [f32]) {
        for row in rows.chunks_exact(total.len()) {
            for (total, value) in total.iter_mut().zip(row) {
                *total += value;
            }
        }
    }
}

/// `x`: `[.., in]`; `weight`: `[in, out]`; `bias`: `[out]`. Returns `[.., out]`.
pub(crate) fn forward(x: FlexTensor, weight: FlexTensor, bias: Option<FlexTensor>) -> FlexTensor {
    let (x, weight, bias) = (contiguous(x), contiguous(weight), bias.map(contiguous));
    let (input, bias) = (values(&x), bias.as_ref().map(values));
    let [d_in, d_out] = weight.layout().shape().dims();
    let rows = input.len() / d_in;

    let pieces = Pieces::new(rows, ROWS, 8);
    let mut y = fresh(rows * d_out);
    let output = Shared::new(&mut y);
    for_each_piece(pieces.count(), |piece| {
        let rows = pieces.range(piece);
        let left = Matrix::new(&input[rows.start * d_in..rows.end * d_in], rows.len(), d_in, d_in);
        let right = Matrix::new(values(&weight), d_in, d_out, d_out);
        // SAFETY: these rows of `y` are this piece's alone; with a bias they are written before they are added to.
        unsafe {
            let target = output.at(rows.start * d_out);
            if let Some(bias) = bias {
                for row in 0..rows.len() {
                    std::ptr::copy_nonoverlapping(bias.as_ptr(), target.add(row * d_out), d_out);
                }
            }
            let write = if bias.is_some() { Write::Add } else { Write::Replace };
            multiply(target, d_out, left, right, 1.0, write);
        }
    });
    // SAFETY: the pieces cover all rows.
    tensor(unsafe { filled(y) }, with_last(x.layout().shape(), d_out))
}

/// The gradient of `x`: `dy Wᵀ`.
pub(crate) fn backward_input(weight: FlexTensor, dy: FlexTensor) -> FlexTensor {
    let (weight, dy) = (contiguous(weight), contiguous(dy));
    let gradient = values(&dy);
    let [d_in, d_out] = weight.layout().shape().dims();
    let rows = gradient.len() / d_out;

    let pieces = Pieces::new(rows, ROWS, 8);
    let mut dx = fresh(rows * d_in);
    let output = Shared::new(&mut dx);
    for_each_piece(pieces.count(), |piece| {
        let rows = pieces.range(piece);
        let left = Matrix::new(&gradient[rows.start * d_out..rows.end * d_out], rows.len(), d_out, d_out);
        let right = Matrix::new(values(&weight), d_in, d_out, d_out).transposed();
        // SAFETY: these rows of `dx` are this piece's alone.
        unsafe { multiply(output.at(rows.start * d_in), d_in, left, right, 1.0, Write::Replace) };
    });
    // SAFETY: the pieces cover all rows.
    tensor(unsafe { filled(dx) }, with_last(dy.layout().shape(), d_in))
}

/// The gradients of the weight, `xᵀ dy`, and of the bias, the sum of `dy`'s rows (not computed unless `bias`).
///
/// Groups of rows give partial gradients, added in the order of the rows.
pub(crate) fn backward_weight(x: FlexTensor, dy: FlexTensor, bias: bool) -> (FlexTensor, Option<FlexTensor>) {
    let (x, dy) = (contiguous(x), contiguous(dy));
    let (input, gradient) = (values(&x), values(&dy));
    let (d_in, d_out) = (last(x.layout().shape()), last(dy.layout().shape()));
    let rows = gradient.len() / d_out;

    let groups = Pieces::new(rows, GROUP.max(rows.div_ceil(MOST_GROUPS)), 1);
    let size = d_in * d_out;
    let mut partial: Vec<_> = (0..groups.count()).map(|_| fresh(size)).collect();
    let outputs: Vec<_> = partial.iter_mut().map(|part| Shared::new(part)).collect();
    for_each_piece(groups.count(), |group| {
        let rows = groups.range(group);
        let left =
            Matrix::new(&input[rows.start * d_in..rows.end * d_in], rows.len(), d_in, d_in).transposed();
        let right = Matrix::new(&gradient[rows.start * d_out..rows.end * d_out], rows.len(), d_out, d_out);
        // SAFETY: a buffer of its own for each group.
        unsafe { multiply(outputs[group].at(0), d_out, left, right, 1.0, Write::Replace) };
    });
    // SAFETY: each group's product has written all of its buffer.
    let mut partial = partial.into_iter().map(|part| unsafe { filled(part) });
    let mut dw = partial.next().expect("at least one row: empty tensors take the reference");
    let partial: Vec<_> = partial.collect();
    if !partial.is_empty() {
        let pieces = Pieces::new(size, 1 << 14, 16);
        let total = Shared::new(&mut dw);
        for_each_piece(pieces.count(), |piece| {
            let range = pieces.range(piece);
            // SAFETY: this range of `dw` is this piece's alone.
            let total = unsafe { std::slice::from_raw_parts_mut(total.at(range.start), range.len()) };
            partial.iter().for_each(|part| add_rows(&part[range.clone()], total));
        });
    }

    let dbias = bias.then(|| backward_bias(dy.clone()));
    (tensor(dw, Shape::from([d_in, d_out])), dbias)
}

/// The gradient of the bias: the sum of `dy`'s rows.
pub(crate) fn backward_bias(dy: FlexTensor) -> FlexTensor {
    let dy = contiguous(dy);
    let gradient = values(&dy);
    let d_out = last(dy.layout().shape());
    let groups = Pieces::new(gradient.len() / d_out, ROWS, 1);
    let mut sums = vec![0f32; groups.count() * d_out];
    sums.par_chunks_mut(d_out)
        .zip(gradient.par_chunks(groups.piece * d_out))
        .for_each(|(sum, rows)| add_rows(rows, sum));
    let mut total = vec![0f32; d_out];
    add_rows(&sums, &mut total);
    tensor(total, Shape::from([d_out]))
}

/// The size of the last axis.
fn last(shape: &Shape) -> usize {
    shape[shape.num_dims() - 1]
}

/// The shape with another size of its last axis.
fn with_last(shape: &Shape, size: usize) -> Shape {
    let mut shape = shape.clone();
    let axis = shape.num_dims() - 1;
    shape[axis] = size;
    shape
}
