//! `x + keep[image] · branch`, one pass.

use burn::tensor::Shape;
use burn_flex::FlexTensor;

use super::pointwise::map;
use super::simd::{mul_add, multiversion};
use super::{contiguous, values};

multiversion! {
    /// `branch ← x + keep · branch`.
    pub(super) fn add<FMA>(x: &[f32], keep: f32, branch: &mut [f32]) {
        for (&x, branch) in x.iter().zip(branch) {
            *branch = mul_add::<FMA>(*branch, keep, x);
        }
    }
}

multiversion! {
    /// `x ← x + keep · branch`; `branch` may be longer.
    pub(super) fn add_to<FMA>(x: &mut [f32], keep: f32, branch: &[f32]) {
        for (x, &branch) in x.iter_mut().zip(branch) {
            *x = mul_add::<FMA>(branch, keep, *x);
        }
    }
}

multiversion! {
    /// `values ← keep · values`.
    pub(super) fn scale<FMA>(keep: f32, values: &mut [f32]) {
        values.iter_mut().for_each(|value| *value *= keep);
    }
}

/// The sum; `keep`: `[batch]`, else 1 for all. Overwrites `branch` where nobody else holds it.
pub(crate) fn forward(x: FlexTensor, branch: FlexTensor, keep: Option<FlexTensor>) -> FlexTensor {
    let x = contiguous(x);
    let x = values(&x);
    let keep = Factors::new(keep, branch.layout().shape());
    map(contiguous(branch), |offset, branch| {
        keep.pieces(offset, branch).for_each(|(keep, offset, branch)| add(&x[offset..], keep, branch));
    })
}

/// The gradient of `branch`: `keep · gradient`.
pub(crate) fn backward(gradient: FlexTensor, keep: FlexTensor) -> FlexTensor {
    let keep = Factors::new(Some(keep), gradient.layout().shape());
    map(contiguous(gradient), |offset, gradient| {
        keep.pieces(offset, gradient).for_each(|(keep, _, gradient)| scale(keep, gradient));
    })
}

/// A factor for each image.
pub(super) struct Factors {
    keep: Option<FlexTensor>,
    /// Values of an image.
    pub(super) size: usize,
}

impl Factors {
    pub(super) fn new(keep: Option<FlexTensor>, shape: &Shape) -> Self {
        Self { keep: keep.map(contiguous), size: shape.num_elements() / shape[0] }
    }

    /// Cuts values that begin at `offset` of the tensor where images end: factor, offset and values of each part.
    pub(super) fn pieces<'a>(
        &'a self,
        offset: usize,
        part: &'a mut [f32],
    ) -> impl Iterator<Item = (f32, usize, &'a mut [f32])> {
        let (mut offset, mut rest) = (offset, part);
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let length = (self.size - offset % self.size).min(rest.len());
            let (piece, later) = std::mem::take(&mut rest).split_at_mut(length);
            let keep = self.keep.as_ref().map_or(1.0, |keep| values(keep)[offset / self.size]);
            let start = offset;
            (offset, rest) = (offset + length, later);
            Some((keep, start, piece))
        })
    }
}
