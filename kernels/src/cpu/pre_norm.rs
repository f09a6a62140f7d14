//! The ends of a pre-norm residual connection: normalised rows of the images its branch acts on, and the sum.

use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::layer_norm::{add_gradients, normalise, total};
use super::memory::{copied, filled, fresh};
use super::pointwise::{BLOCK, map};
use super::residual::{self, Factors, add_to, scale};
use super::{Pieces, contiguous, layer_norm, owned, tensor, values, writable};

/// Rows of an image that a thread takes at a time.
const ROWS: usize = 256;

/// The images of a batch that a branch acts on.
#[derive(Debug)]
pub(crate) struct Chosen {
    /// Factor of each image, `[batch]`; 1 for all if absent.
    keep: Option<FlexTensor>,
    /// Numbers of the images, in order; at least one.
    images: Vec<usize>,
    /// Where each image of the batch stands among them.
    places: Vec<Option<usize>>,
}

impl Chosen {
    /// Those of `batch` images whose factor is not 0. If that is true of none, the first, to which nothing is added: a branch of no
    /// image would have no gradients, instead of gradients of 0.
    pub(crate) fn new(batch: usize, keep: Option<FlexTensor>) -> Self {
        let keep = keep.map(contiguous);
        let factors = keep.as_ref().map(values);
        let mut images: Vec<usize> =
            (0..batch).filter(|&image| factors.is_none_or(|factors| factors[image] != 0.0)).collect();
        if images.is_empty() {
            images.push(0);
        }
        let mut places = vec![None; batch];
        for (place, &image) in images.iter().enumerate() {
            places[image] = Some(place);
        }
        Self { keep, images, places }
    }

    /// Whether the branch acts on, and is added to, the whole batch.
    fn are_all(&self) -> bool {
        self.images.len() == self.places.len() && self.factor(self.images[0]) != 0.0
    }

    fn factor(&self, image: usize) -> f32 {
        self.keep.as_ref().map_or(1.0, |keep| values(keep)[image])
    }
}

/// Layer norm of the chosen images: `x` `[batch, tokens, width]` → `[chosen, tokens, width]`.
#[expect(unsafe_code, reason = "the result's memory is not zeroed first")]
pub(crate) fn norm(
    x: FlexTensor,
    gamma: FlexTensor,
    beta: FlexTensor,
    eps: f32,
    chosen: &Chosen,
) -> FlexTensor {
    if chosen.are_all() {
        return layer_norm::forward(x, gamma, beta, eps);
    }
    let (x, gamma, beta) = (contiguous(x), contiguous(gamma), contiguous(beta));
    let (input, gamma, beta) = (values(&x), values(&gamma), values(&beta));
    let [tokens, width] = [1, 2].map(|axis| x.layout().shape()[axis]);
    let size = tokens * width;
    let mut y = fresh(chosen.images.len() * size);
    y.par_chunks_mut(size).zip(&chosen.images).for_each(|(y, &image)| {
        let x = &input[image * size..][..size];
        let pieces = y.par_chunks_mut(ROWS * width).zip(x.par_chunks(ROWS * width));
        pieces.for_each(|(y, x)| normalise(x, gamma, beta, eps, y));
    });
    // SAFETY: all rows of all chosen images have been written.
    tensor(unsafe { filled(y) }, [chosen.images.len(), tokens, width].into())
}

/// Gradients of `x`, `gamma` and `beta`, given that of [`norm`]'s output. That of `x` is added to `earlier` if there is one.
pub(crate) fn norm_gradients(
    x: FlexTensor,
    gamma: FlexTensor,
    dy: FlexTensor,
    eps: f32,
    chosen: &Chosen,
    earlier: Option<FlexTensor>,
) -> [FlexTensor; 3] {
    let (x, gamma, dy) = (contiguous(x), contiguous(gamma), contiguous(dy));
    let (input, scale, gradient) = (values(&x), values(&gamma), values(&dy));
    let shape = x.layout().shape().clone();
    let [tokens, width] = [1, 2].map(|axis| shape[axis]);
    let size = tokens * width;
    let mut dx = match earlier {
        Some(earlier) => owned(contiguous(earlier)),
        None => tensor(vec![0.0; shape.num_elements()], shape.clone()),
    };

    let groups = Pieces::new(tokens, ROWS, 1);
    let mut partial = vec![0f32; chosen.images.len() * groups.count() * 2 * width];
    let sums = partial.par_chunks_mut(groups.count() * 2 * width);
    let images = writable(&mut dx).chunks_mut(size).enumerate();
    // Place by place, as the sums are.
    let images: Vec<_> =
        images.filter_map(|(image, dx)| chosen.places[image].map(|place| (image, place, dx))).collect();
    images.into_par_iter().zip(sums).for_each(|((image, place, dx), sums)| {
        let parts = dx.par_chunks_mut(groups.piece * width).zip(sums.par_chunks_mut(2 * width));
        parts.enumerate().for_each(|(group, (dx, sums))| {
            let rows = groups.range(group);
            let part = |first: usize| first * size + rows.start * width..first * size + rows.end * width;
            let (dgamma, dbeta) = sums.split_at_mut(width);
            add_gradients(&input[part(image)], scale, &gradient[part(place)], eps, dx, dgamma, dbeta);
        });
    });
    let [dgamma, dbeta] = total(partial, gamma.layout().shape());
    [dx, dgamma, dbeta]
}

/// `x` + factor · branch of its first tokens. `x`: `[batch, tokens, width]`; `branch`: `[chosen, first, width]`; returns
/// `[batch, first, width]`. Overwrites `x` or `branch` where nobody else holds it.
pub(crate) fn sum(x: FlexTensor, branch: FlexTensor, chosen: &Chosen) -> FlexTensor {
    let first = branch.layout().shape()[1];
    let x = first_tokens(x, first);
    if chosen.are_all() {
        return residual::forward(x, branch, chosen.keep.clone());
    }
    let branch = contiguous(branch);
    let branch = values(&branch);
    let factors = Factors::new(chosen.keep.clone(), x.layout().shape());
    let size = factors.size;
    map(x, |offset, x| {
        factors.pieces(offset, x).for_each(|(keep, offset, x)| {
            if let Some(place) = chosen.places[offset / size].filter(|_| keep != 0.0) {
                add_to(x, keep, &branch[place * size + offset % size..]);
            }
        });
    })
}

/// The gradient of the branch, given that of [`sum`]'s output.
#[expect(unsafe_code, reason = "the result's memory is not zeroed first")]
pub(crate) fn branch_gradient(dy: FlexTensor, chosen: &Chosen) -> FlexTensor {
    if chosen.are_all() {
        return match &chosen.keep {
            Some(keep) => residual::backward(dy, keep.clone()),
            None => dy,
        };
    }
    let dy = contiguous(dy);
    let mut shape = dy.layout().shape().clone();
    shape[0] = chosen.images.len();
    let size = shape[1] * shape[2];
    let mut branch = fresh(shape.num_elements());
    branch.par_chunks_mut(size).zip(&chosen.images).for_each(|(branch, &image)| {
        let dy = &values(&dy)[image * size..][..size];
        for (branch, dy) in branch.chunks_mut(BLOCK).zip(dy.chunks(BLOCK)) {
            scale(chosen.factor(image), copied(branch, dy));
        }
    });
    // SAFETY: all values of all chosen images have been written.
    tensor(unsafe { filled(branch) }, shape)
}

/// The gradient of `x` with `tokens` tokens an image, given that of [`sum`]'s output, which has the first of them.
pub(crate) fn sum_gradient(dy: FlexTensor, tokens: usize) -> FlexTensor {
    let mut shape = dy.layout().shape().clone();
    if shape[1] == tokens {
        return dy;
    }
    let dy = contiguous(dy);
    let (first, width) = (shape[1], shape[2]);
    shape[1] = tokens;
    let mut dx = vec![0.0; shape.num_elements()];
    for (dx, dy) in dx.chunks_mut(tokens * width).zip(values(&dy).chunks(first * width)) {
        dx[..dy.len()].copy_from_slice(dy);
    }
    tensor(dx, shape)
}

/// The first tokens of each image.
fn first_tokens(x: FlexTensor, first: usize) -> FlexTensor {
    let mut shape = x.layout().shape().clone();
    let x = contiguous(x);
    if shape[1] == first {
        return x;
    }
    let size = shape[1] * shape[2];
    shape[1] = first;
    let rows = values(&x).chunks(size).flat_map(|image| &image[..first * shape[2]]);
    tensor(rows.copied().collect(), shape)
}
