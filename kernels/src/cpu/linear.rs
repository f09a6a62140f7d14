//! `x W + b` and its gradients, cut by rows of `x`, or by columns of the result where there are few rows.
#![expect(unsafe_code, reason = "threads write disjoint rows of buffers that are not zeroed first")]

use burn::tensor::Shape;
use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::gelu::{gelu_gradients, gelu_into, gelu_values};
use super::matmul::{Matrix, Write};
use super::memory::{Shared, filled, fresh};
use super::simd::multiversion;
use super::{Pieces, ROW_UNIT, contiguous, for_each_piece, owned, tensor, values, writable};
use crate::products::Arithmetic;

/// Rows a thread takes at a time: their part of the result stays in the second-level cache.
const ROWS: usize = 192;
/// Up to so many rows, fewer than all threads need, ...
const FEW_ROWS: usize = 2 * ROWS;
/// ... a thread takes columns of the result instead, so many at a time: whole strips of any product.
const COLUMNS: usize = 32;
/// Rows that add up to one partial gradient of the weight, ...
const GROUP: usize = 512;
/// ... of which there are at most so many.
const MOST_GROUPS: usize = 8;

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
pub(crate) fn forward(
    arithmetic: Arithmetic,
    x: FlexTensor,
    weight: FlexTensor,
    bias: Option<FlexTensor>,
) -> FlexTensor {
    forward_then(arithmetic, x, weight, bias, |_, _| {})
}

/// GELU of [`forward`], each block of values while it is in cache; and what [`forward`] gave, if that is to be kept.
pub(crate) fn forward_gelu(
    arithmetic: Arithmetic,
    x: FlexTensor,
    weight: FlexTensor,
    bias: FlexTensor,
    keep: bool,
) -> (FlexTensor, Option<FlexTensor>) {
    if !keep {
        return (forward_then(arithmetic, x, weight, Some(bias), |_, block| gelu_values(block)), None);
    }
    let [d_in, d_out] = weight.layout().shape().dims();
    let mut y = fresh(x.layout().num_elements() / d_in * d_out);
    let output = Shared::new(&mut y);
    let hidden = forward_then(arithmetic, x, weight, Some(bias), |offset, block| {
        // SAFETY: `y` is as long as the result, and this block of it is this call's alone.
        gelu_into(block, unsafe { std::slice::from_raw_parts_mut(output.at(offset).cast(), block.len()) });
    });
    // SAFETY: the blocks cover all values.
    (tensor(unsafe { filled(y) }, hidden.layout().shape().clone()), Some(hidden))
}

/// [`forward`]; calls `then` with each finished block of values that lie side by side, and where it starts in the result.
fn forward_then(
    arithmetic: Arithmetic,
    x: FlexTensor,
    weight: FlexTensor,
    bias: Option<FlexTensor>,
    then: impl Fn(usize, &mut [f32]) + Send + Sync,
) -> FlexTensor {
    let (x, weight, bias) = (contiguous(x), contiguous(weight), bias.map(contiguous));
    let (input, bias) = (values(&x), bias.as_ref().map(values));
    let [d_in, d_out] = weight.layout().shape().dims();
    let rows = input.len() / d_in;

    let mut y = fresh(rows * d_out);
    let output = Shared::new(&mut y);
    // Products of bf16 round all of `x` in each call.
    if arithmetic == Arithmetic::F32 && rows <= FEW_ROWS {
        let (left, weight) = (Matrix::new(input, rows, d_in, d_in), values(&weight));
        let pieces = Pieces::new(d_out, COLUMNS, COLUMNS);
        for_each_piece(pieces.count(), |piece| {
            let columns = pieces.range(piece);
            let right = Matrix::new(&weight[columns.start..], d_in, columns.len(), d_out);
            let write = bias.map_or(Write::Replace, |bias| Write::Row(&bias[columns.clone()]));
            // SAFETY: these columns of `y` are this piece's alone.
            unsafe {
                arithmetic.multiply(output.at(columns.start), d_out, left, right, 1.0, write);
                for start in (0..rows).map(|row| row * d_out + columns.start) {
                    then(start, std::slice::from_raw_parts_mut(output.at(start), columns.len()));
                }
            }
        });
        // SAFETY: the pieces cover all columns.
        return tensor(unsafe { filled(y) }, with_last(x.layout().shape(), d_out));
    }
    let right = arithmetic.prepare(Matrix::new(values(&weight), d_in, d_out, d_out), rows);
    let write = bias.map_or(Write::Replace, Write::Row);
    let pieces = Pieces::new(rows, ROWS, ROW_UNIT);
    for_each_piece(pieces.count(), |piece| {
        let rows = pieces.range(piece);
        let left = Matrix::new(&input[rows.start * d_in..rows.end * d_in], rows.len(), d_in, d_in);
        // SAFETY: these rows of `y` are this piece's alone.
        unsafe {
            let target = output.at(rows.start * d_out);
            arithmetic.multiply_prepared(target, d_out, left, &right, 1.0, write);
            then(rows.start * d_out, std::slice::from_raw_parts_mut(target, rows.len() * d_out));
        }
    });
    // SAFETY: the pieces cover all rows.
    tensor(unsafe { filled(y) }, with_last(x.layout().shape(), d_out))
}

/// The gradients [`backward`] was asked for.
pub(crate) struct Gradients {
    /// `dy Wᵀ`: `[.., in]`.
    pub(crate) x: Option<FlexTensor>,
    /// `xᵀ dy`: `[in, out]`.
    pub(crate) weight: Option<FlexTensor>,
    /// The sum of `dy`'s rows: `[out]`.
    pub(crate) bias: Option<FlexTensor>,
}

/// The gradients of `x` (if `weight` is given), of the weight (if `x` is given) and of the bias (if `bias`).
pub(crate) fn backward(
    arithmetic: Arithmetic,
    x: Option<FlexTensor>,
    weight: Option<FlexTensor>,
    dy: FlexTensor,
    bias: bool,
) -> Gradients {
    let dy = contiguous(dy);
    let gradient = values(&dy);
    backward_of(arithmetic, x, weight, dy.layout().shape(), bias, |block| &gradient[block])
}

/// Those of [`forward_gelu`], given the gradient of its result and what it kept.
pub(crate) fn backward_gelu(
    arithmetic: Arithmetic,
    x: Option<FlexTensor>,
    weight: Option<FlexTensor>,
    hidden: &FlexTensor,
    dy: FlexTensor,
    bias: bool,
) -> Gradients {
    let (mut dy, shape) = (owned(contiguous(dy)), hidden.layout().shape());
    let (hidden, gradient) = (values(hidden), Shared::new(writable(&mut dy)));
    backward_of(arithmetic, x, weight, shape, bias, |block| {
        // SAFETY: inside of `dy`, and each block is asked for once: nobody else looks at it.
        let dy = unsafe { std::slice::from_raw_parts_mut(gradient.at(block.start), block.len()) };
        gelu_gradients(&hidden[block], dy);
        dy
    })
}

/// [`backward`] for a gradient of this shape, of which `gradient` gives each block of whole rows; asked once for each.
///
/// Rows are taken in blocks that serve all three products while they are in cache. Groups of blocks give partial
/// gradients of weight and bias, which are added in the order of the rows.
fn backward_of<'a>(
    arithmetic: Arithmetic,
    x: Option<FlexTensor>,
    weight: Option<FlexTensor>,
    shape: &Shape,
    bias: bool,
    gradient: impl Fn(std::ops::Range<usize>) -> &'a [f32] + Send + Sync,
) -> Gradients {
    let (x, weight) = (x.map(contiguous), weight.map(contiguous));
    let d_out = last(shape);
    let rows = shape.num_elements() / d_out;
    // Two threads, and where there is enough for them four, end together.
    let groups = match rows.div_ceil(GROUP) {
        1 if rows > ROWS => 2,
        few @ ..=2 => few,
        more => more.next_multiple_of(4).min(MOST_GROUPS),
    };
    let groups = Pieces::new(rows, rows.div_ceil(groups), 1);

    let input = x.as_ref().map(|x| (values(x), last(x.layout().shape())));
    let matrix = weight.as_ref().map(|weight| {
        let d_in = weight.layout().shape()[0];
        let weight = Matrix::new(values(weight), d_in, d_out, d_out).transposed();
        (arithmetic.prepare(weight, rows), d_in)
    });
    let mut dx = matrix.as_ref().map(|(_, d_in)| fresh(rows * d_in));
    let mut dw = Vec::new();
    if let Some((_, d_in)) = input {
        dw.extend((0..groups.count()).map(|_| fresh(d_in * d_out)));
    }
    let mut db = vec![0f32; if bias { groups.count() * d_out } else { 0 }];
    let dx_target = dx.as_mut().map(|dx| Shared::new(dx));
    let dw_targets: Vec<_> = dw.iter_mut().map(|part| Shared::new(part)).collect();
    let db_target = Shared::new(&mut db);
    for_each_piece(groups.count(), |group| {
        let group_rows = groups.range(group);
        let blocks = Pieces::new(group_rows.len(), ROWS, ROW_UNIT);
        for block in (0..blocks.count()).map(|block| blocks.range(block)) {
            let rows = group_rows.start + block.start..group_rows.start + block.end;
            let dy = gradient(rows.start * d_out..rows.end * d_out);
            let left = Matrix::new(dy, rows.len(), d_out, d_out);
            if let (Some(target), &Some((ref weight, d_in))) = (dx_target, &matrix) {
                // SAFETY: these rows of `dx` are this block's alone.
                unsafe {
                    arithmetic.multiply_prepared(
                        target.at(rows.start * d_in),
                        d_in,
                        left,
                        weight,
                        1.0,
                        Write::Replace,
                    )
                };
            }
            if let (Some(target), Some((x, d_in))) = (dw_targets.get(group), input) {
                let x =
                    Matrix::new(&x[rows.start * d_in..rows.end * d_in], rows.len(), d_in, d_in).transposed();
                let write = if block.start == 0 { Write::Replace } else { Write::Add };
                // SAFETY: a buffer of its own for each group, written by its first block before others add.
                unsafe { arithmetic.multiply(target.at(0), d_out, x, left, 1.0, write) };
            }
            if bias {
                // SAFETY: a row of `db` for each group, zeroed above.
                add_rows(dy, unsafe { std::slice::from_raw_parts_mut(db_target.at(group * d_out), d_out) });
            }
        }
    });
    // SAFETY: the groups cover all rows.
    let dx = dx.map(|dx| unsafe { filled(dx) });
    // SAFETY: each group has at least one block, whose product has written all of the group's buffer.
    let dw = total(dw.into_iter().map(|part| unsafe { filled(part) }).collect());
    Gradients {
        x: dx.zip(matrix).map(|(dx, (_, d_in))| tensor(dx, with_last(shape, d_in))),
        weight: dw.zip(input).map(|(dw, (_, d_in))| tensor(dw, Shape::from([d_in, d_out]))),
        bias: bias.then(|| {
            let mut total = vec![0f32; d_out];
            add_rows(&db, &mut total);
            tensor(total, Shape::from([d_out]))
        }),
    }
}

/// The sum of the parts, in their order; `None` if there is none.
fn total(mut parts: Vec<Vec<f32>>) -> Option<Vec<f32>> {
    let (first, rest) = parts.split_first_mut()?;
    if !rest.is_empty() {
        first.par_chunks_mut(1 << 14).enumerate().for_each(|(piece, total)| {
            let start = piece << 14;
            rest.iter().for_each(|part| add_rows(&part[start..start + total.len()], total));
        });
    }
    Some(parts.swap_remove(0))
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
