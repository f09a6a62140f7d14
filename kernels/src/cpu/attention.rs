//! Self-attention for one image, one head and some queries at a time, on the fused projection where it lies: no permuted copies.
//!
//! The forward pass keeps, of the `T × T` probabilities, one number per query: the logarithm of the sum of the exponentials
//! (Dao et al., arXiv:2205.14135). The backward pass computes the probabilities anew from it.
#![expect(unsafe_code, reason = "threads write disjoint columns of buffers that are not zeroed first")]

use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::matmul::{Matrix, Write};
use super::memory::{Shared, filled, fresh, with_scratch};
use super::simd::{exp, max, multiversion, sum};
use super::{Pieces, ROW_UNIT, contiguous, for_each_piece, tensor, values};
use crate::products::Arithmetic;

/// Queries handled together: their scores stay in the second-level cache.
const QUERIES: usize = 288;
/// Below so many heads of all images together, ...
const FEW_HEADS: usize = 16;
/// ... so many queries, for heads alone would leave threads without work.
const FEW_QUERIES: usize = 60;

multiversion! {
    /// `scores ← exp(scores - max)`; returns the maximum and the sum.
    pub(super) fn exponentials<FMA>(scores: &mut [f32]) -> (f32, f32) {
        let most = max(scores);
        for score in scores.iter_mut() {
            *score = exp::<FMA>(*score - most);
        }
        (most, sum([scores], |[score]| score))
    }
}

multiversion! {
    /// `scores ← exp(scores - log_sum)`, the probabilities; `gradients ← probabilities · (gradients - mean) · scale`.
    pub(super) fn score_gradients<FMA>(
        scores: &mut [f32],
        gradients: &mut [f32],
        log_sum: f32,
        mean: f32,
        scale: f32,
    ) {
        for (score, gradient) in scores.iter_mut().zip(gradients) {
            let probability = exp::<FMA>(*score - log_sum);
            *score = probability;
            *gradient = probability * ((*gradient - mean) * scale);
        }
    }
}

multiversion! {
    /// `Σ a b`.
    pub(super) fn dot<FMA>(a: &[f32], b: &[f32]) -> f32 {
        sum([a, b], |[a, b]| a * b)
    }
}

/// Sizes, and where things lie.
#[derive(Clone, Copy)]
struct Layout {
    batch: usize,
    tokens: usize,
    heads: usize,
    /// Width of a head.
    width: usize,
}

impl Layout {
    fn new(qkv: &FlexTensor, heads: usize) -> Self {
        let [batch, tokens, width] = qkv.layout().shape().dims();
        Self { batch, tokens, heads, width: width / 3 / heads }
    }

    /// Width of all heads.
    fn dim(&self) -> usize {
        self.heads * self.width
    }

    /// Offset of head `task % heads` of image `task / heads` in a tensor of `parts · dim` columns.
    fn offset(&self, task: usize, parts: usize) -> usize {
        task / self.heads * self.tokens * parts * self.dim() + task % self.heads * self.width
    }

    /// Queries (0), keys (1) or values (2) of a head: `[tokens, width]`, `rows` of them.
    fn part<'a>(&self, qkv: &'a [f32], task: usize, part: usize, rows: std::ops::Range<usize>) -> Matrix<'a> {
        let stride = 3 * self.dim();
        let start = self.offset(task, 3) + part * self.dim() + rows.start * stride;
        Matrix::new(&qkv[start..], rows.len(), self.width, stride)
    }

    /// `1 / √width`.
    fn scale(&self) -> f32 {
        (self.width as f32).powf(-0.5)
    }
}

/// The result `[batch, tokens, dim]`, and the logarithms of the sums: `[batch, heads, tokens]`.
pub(crate) fn forward(arithmetic: Arithmetic, qkv: FlexTensor, heads: usize) -> (FlexTensor, Vec<f32>) {
    let qkv = contiguous(qkv);
    let layout = Layout::new(&qkv, heads);
    let input = values(&qkv);
    let (tokens, width, dim) = (layout.tokens, layout.width, layout.dim());
    let pairs = layout.batch * heads;
    let size = if pairs < FEW_HEADS { FEW_QUERIES } else { QUERIES };
    let tiles = Pieces::new(tokens, size, ROW_UNIT);

    let mut out = fresh(layout.batch * tokens * dim);
    let output = Shared::new(&mut out);
    let mut log_sums = fresh(pairs * tokens);
    let kept = Shared::new(&mut log_sums);
    for_each_piece(pairs * tiles.count(), |piece| {
        let (task, rows) = (piece / tiles.count(), tiles.range(piece % tiles.count()));
        let queries = layout.part(input, task, 0, rows.clone());
        let keys = layout.part(input, task, 1, 0..tokens);
        let vectors = layout.part(input, task, 2, 0..tokens);
        with_scratch(rows.len() * (tokens + 1), |scratch| {
            let (scores, sums) = scratch.split_at_mut(rows.len() * tokens);
            let start = scores.as_mut_ptr();
            // SAFETY: `scores` is this thread's, and as large as the product.
            unsafe {
                arithmetic.multiply(start, tokens, queries, keys.transposed(), layout.scale(), Write::Replace)
            };
            for ((row, scores), sum) in rows.clone().zip(scores.chunks_exact_mut(tokens)).zip(&mut *sums) {
                let (most, total) = exponentials(scores);
                // SAFETY: a value for each query.
                unsafe { *kept.at(task * tokens + row) = most + total.ln() };
                *sum = total;
            }
            let scores = Matrix::new(scores, rows.len(), tokens, tokens);
            // SAFETY: these rows and columns of `out` are this piece's alone, written before they are scaled.
            unsafe {
                let target = output.at(layout.offset(task, 1) + rows.start * dim);
                arithmetic.multiply(target, dim, scores, vectors, 1.0, Write::Replace);
                for (row, sum) in sums.iter().enumerate() {
                    let row = std::slice::from_raw_parts_mut(target.add(row * dim), width);
                    row.iter_mut().for_each(|value| *value /= sum);
                }
            }
        });
    });
    let shape = [layout.batch, tokens, dim];
    // SAFETY: the pieces cover all images, heads and tokens.
    unsafe { (tensor(filled(out), shape.into()), filled(log_sums)) }
}

/// The gradient of `qkv`, given what [`forward`] took and gave, and the gradient of its result.
pub(crate) fn backward(
    arithmetic: Arithmetic,
    qkv: FlexTensor,
    heads: usize,
    out: FlexTensor,
    log_sums: &[f32],
    gradient: FlexTensor,
) -> FlexTensor {
    let (qkv, out, gradient) = (contiguous(qkv), contiguous(out), contiguous(gradient));
    let layout = Layout::new(&qkv, heads);
    let (input, result, dout) = (values(&qkv), values(&out), values(&gradient));
    let (tokens, width, dim) = (layout.tokens, layout.width, layout.dim());
    let tiles = Pieces::new(tokens, QUERIES, 1);
    let scale = layout.scale();

    let mut dqkv = fresh(layout.batch * tokens * 3 * dim);
    let output = Shared::new(&mut dqkv);
    log_sums.par_chunks(tokens).enumerate().for_each(|(task, log_sums)| {
        with_scratch(2 * tiles.piece * tokens, |scratch| {
            for rows in (0..tiles.count()).map(|tile| tiles.range(tile)) {
                let (scores, changes) = scratch.split_at_mut(tiles.piece * tokens);
                let size = rows.len() * tokens;
                let (scores, changes) = (&mut scores[..size], &mut changes[..size]);
                let queries = layout.part(input, task, 0, rows.clone());
                let keys = layout.part(input, task, 1, 0..tokens);
                let vectors = layout.part(input, task, 2, 0..tokens);
                let start = layout.offset(task, 1) + rows.start * dim;
                let dout_tile = Matrix::new(&dout[start..], rows.len(), width, dim);
                // SAFETY: both buffers are this task's, and as large as the products.
                unsafe {
                    arithmetic.multiply(
                        scores.as_mut_ptr(),
                        tokens,
                        queries,
                        keys.transposed(),
                        scale,
                        Write::Replace,
                    );
                    arithmetic.multiply(
                        changes.as_mut_ptr(),
                        tokens,
                        dout_tile,
                        vectors.transposed(),
                        1.0,
                        Write::Replace,
                    );
                }
                let lines = scores.chunks_exact_mut(tokens).zip(changes.chunks_exact_mut(tokens));
                for ((row, (scores, changes)), log_sum) in (0..).zip(lines).zip(&log_sums[rows.clone()]) {
                    let line = start + row * dim..start + row * dim + width;
                    let mean = dot(&dout[line.clone()], &result[line]);
                    score_gradients(scores, changes, *log_sum, mean, scale);
                }
                let probabilities = Matrix::new(scores, rows.len(), tokens, tokens);
                let changes = Matrix::new(changes, rows.len(), tokens, tokens);
                // The first tile's products replace, the others' are added in order.
                let write = if rows.start == 0 { Write::Replace } else { Write::Add };
                let stride = 3 * dim;
                // SAFETY: this head's columns of this image's rows are this task's alone.
                unsafe {
                    let target = output.at(layout.offset(task, 3));
                    arithmetic.multiply(
                        target.add(rows.start * stride),
                        stride,
                        changes,
                        keys,
                        1.0,
                        Write::Replace,
                    );
                    arithmetic.multiply(target.add(dim), stride, changes.transposed(), queries, 1.0, write);
                    arithmetic.multiply(
                        target.add(2 * dim),
                        stride,
                        probabilities.transposed(),
                        dout_tile,
                        1.0,
                        write,
                    );
                }
            }
        });
    });
    // SAFETY: queries, keys and values of all images, heads and tokens have been written.
    tensor(unsafe { filled(dqkv) }, qkv.layout().shape().clone())
}
