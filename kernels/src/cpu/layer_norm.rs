//! Layer normalisation on rows: mean and variance in two passes over a row that stays in cache, recomputed in the
//! backward pass rather than stored.

use std::mem::MaybeUninit;

use burn::tensor::Shape;
use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::memory::{filled, fresh, zeroed};
use super::simd::{mul_add, multiversion, sum};
use super::{Pieces, contiguous, tensor, values};

/// Values a thread takes at a time in the forward pass.
const PIECE: usize = 1 << 15;
/// Rows whose contributions to the gradients of gamma and beta are added up before they meet the others'.
const GROUP: usize = 256;

/// Mean and `1 / √(variance + eps)` of a row.
#[inline(always)]
fn statistics<const FMA: bool>(row: &[f32], eps: f32) -> (f32, f32) {
    let count = row.len() as f32;
    let mean = sum([row], |[x]| x) / count;
    let variance = sum([row], |[x]| (x - mean) * (x - mean)) / count;
    (mean, 1.0 / (variance + eps).sqrt())
}

multiversion! {
    /// Normalises rows as long as `gamma`.
    pub(super) fn normalise<FMA>(x: &[f32], gamma: &[f32], beta: &[f32], eps: f32, y: &mut [MaybeUninit<f32>]) {
        let width = gamma.len();
        for (x, y) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)) {
            let (mean, inverse) = statistics::<FMA>(x, eps);
            for (((y, &x), &gamma), &beta) in y.iter_mut().zip(x).zip(gamma).zip(beta) {
                y.write(mul_add::<FMA>((x - mean) * inverse, gamma, beta));
            }
        }
    }
}

multiversion! {
    /// Adds the gradients of rows as long as `gamma`, and those of gamma and beta, to what is there.
    pub(super) fn add_gradients<FMA>(
        x: &[f32],
        gamma: &[f32],
        dy: &[f32],
        eps: f32,
        dx: &mut [f32],
        dgamma: &mut [f32],
        dbeta: &mut [f32],
    ) {
        let width = gamma.len();
        let (dgamma, dbeta) = (&mut dgamma[..width], &mut dbeta[..width]);
        for ((x, dy), dx) in x.chunks_exact(width).zip(dy.chunks_exact(width)).zip(dx.chunks_exact_mut(width)) {
            let (mean, inverse) = statistics::<FMA>(x, eps);
            // The mean of the scaled gradient, and of its product with the normalised row.
            let plain = sum([dy, gamma], |[dy, gamma]| dy * gamma) / width as f32;
            let along = sum([dy, gamma, x], |[dy, gamma, x]| dy * gamma * (x - mean)) * inverse / width as f32;
            for i in 0..width {
                let normal = (x[i] - mean) * inverse;
                dgamma[i] = mul_add::<FMA>(dy[i], normal, dgamma[i]);
                dbeta[i] += dy[i];
                dx[i] += inverse * (mul_add::<FMA>(dy[i], gamma[i], -plain) - normal * along);
            }
        }
    }
}

/// `x`: `[.., width]`; `gamma`, `beta`: `[width]`.
#[expect(unsafe_code, reason = "the result's memory is not zeroed first")]
pub(crate) fn forward(x: FlexTensor, gamma: FlexTensor, beta: FlexTensor, eps: f32) -> FlexTensor {
    let (x, gamma, beta) = (contiguous(x), contiguous(gamma), contiguous(beta));
    let (input, gamma, beta) = (values(&x), values(&gamma), values(&beta));
    let piece = (PIECE / gamma.len()).max(1) * gamma.len();
    let mut y = fresh(input.len());
    y.par_chunks_mut(piece).zip(input.par_chunks(piece)).for_each(|(y, x)| normalise(x, gamma, beta, eps, y));
    // SAFETY: as long as the input, whose length is a multiple of the rows' (the face checks it); all rows written.
    tensor(unsafe { filled(y) }, x.layout().shape().clone())
}

/// Gradients of `x`, `gamma` and `beta`.
#[expect(
    unsafe_code,
    reason = "the result's memory is zeroed by the threads that add to it, while it is in cache"
)]
pub(crate) fn backward(x: FlexTensor, gamma: FlexTensor, dy: FlexTensor, eps: f32) -> [FlexTensor; 3] {
    let (x, gamma, dy) = (contiguous(x), contiguous(gamma), contiguous(dy));
    let (input, scale, gradient) = (values(&x), values(&gamma), values(&dy));
    let width = scale.len();
    let groups = Pieces::new(input.len() / width, GROUP, 1);

    let mut dx = fresh(input.len());
    let mut partial = vec![0f32; groups.count() * 2 * width];
    dx.par_chunks_mut(groups.piece * width).zip(partial.par_chunks_mut(2 * width)).enumerate().for_each(
        |(group, (dx, partial))| {
            let rows = groups.range(group);
            let values = rows.start * width..rows.end * width;
            let (dgamma, dbeta) = partial.split_at_mut(width);
            add_gradients(&input[values.clone()], scale, &gradient[values], eps, zeroed(dx), dgamma, dbeta);
        },
    );
    let [dgamma, dbeta] = total(partial, gamma.layout().shape());
    // SAFETY: as long as the input, and every group's rows have been written.
    [tensor(unsafe { filled(dx) }, x.layout().shape().clone()), dgamma, dbeta]
}

/// The gradients of gamma and beta, `shape` each: sums of groups' `partial` ones, those of gamma before those of beta.
pub(super) fn total(mut partial: Vec<f32>, shape: &Shape) -> [FlexTensor; 2] {
    let width = shape.num_elements();
    let (first, rest) = partial.split_at_mut(2 * width);
    for other in rest.chunks_exact(2 * width) {
        first.iter_mut().zip(other).for_each(|(total, part)| *total += part);
    }
    let (dgamma, dbeta) = first.split_at(width);
    [dgamma, dbeta].map(|sum| tensor(sum.to_vec(), shape.clone()))
}
