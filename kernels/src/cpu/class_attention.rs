//! The attention of one query an image: that of the first token over all of them.

use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::simd::{exp, max, mul_add, multiversion, sum};
use super::{contiguous, linear, tensor, values, values_mut};
use crate::products::Arithmetic;

multiversion! {
    /// One head: `out ← softmax(scale · q Kᵀ) V`. `pairs` starts at the first key; keys are `stride` apart and values
    /// `stride / 2` behind their keys. Returns the logarithm of the sum of the exponentials.
    pub(super) fn attend<FMA>(query: &[f32], pairs: &[f32], stride: usize, scale: f32, scores: &mut [f32], out: &mut [f32]) -> f32 {
        let width = query.len();
        for (score, pair) in scores.iter_mut().zip(pairs.chunks(stride)) {
            let key = &pair[..width];
            *score = scale * sum([query, key], |[query, key]| query * key);
        }
        let most = max(scores);
        for score in scores.iter_mut() {
            *score = exp::<FMA>(*score - most);
        }
        let total = sum([scores], |[score]| score);
        out.fill(0.0);
        for (score, pair) in scores.iter().zip(pairs.chunks(stride)) {
            let share = score / total;
            let value = &pair[stride / 2..][..width];
            for (out, value) in out.iter_mut().zip(value) {
                *out = mul_add::<FMA>(share, *value, *out);
            }
        }
        most + total.ln()
    }
}

/// One head of one image, as [`attend`] saw it.
pub(super) struct Head<'a> {
    query: &'a [f32],
    pairs: &'a [f32],
    stride: usize,
    scale: f32,
    log_sum: f32,
    out: &'a [f32],
    /// Gradient of `out`.
    dout: &'a [f32],
}

multiversion! {
    /// The gradients of the query, and of keys and values where those lie in `pairs`.
    pub(super) fn attend_gradients<FMA>(head: &Head<'_>, dquery: &mut [f32], dpairs: &mut [f32]) {
        let Head { query, pairs, stride, scale, log_sum, out, dout } = *head;
        let width = query.len();
        let mean = sum([out, dout], |[out, dout]| out * dout);
        dquery.fill(0.0);
        for (pair, dpair) in pairs.chunks(stride).zip(dpairs.chunks_mut(stride)) {
            let (key, value) = (&pair[..width], &pair[stride / 2..][..width]);
            let share = exp::<FMA>(scale * sum([query, key], |[query, key]| query * key) - log_sum);
            let change = share * (scale * (sum([dout, value], |[dout, value]| dout * value) - mean));
            let (dkey, dvalue) = dpair.split_at_mut(stride / 2);
            for i in 0..width {
                dquery[i] = mul_add::<FMA>(change, key[i], dquery[i]);
                dkey[i] = change * query[i];
                dvalue[i] = share * dout[i];
            }
        }
    }
}

/// What the backward pass needs beside input and weight.
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    /// The first token's query: `[batch, 1, dim]`.
    query: FlexTensor,
    /// Keys, then values: `[batch, tokens, 2 · dim]`.
    pairs: FlexTensor,
    /// Of the sums of exponentials: `[batch, heads]`.
    log_sums: Vec<f32>,
    /// `[batch, 1, dim]`
    out: FlexTensor,
}

/// `x`: `[batch, tokens, in]`; `weight`: `[in, 3 · dim]`; `bias`: `[3 · dim]`. Returns `[batch, 1, dim]`.
pub(crate) fn forward(
    arithmetic: Arithmetic,
    x: FlexTensor,
    weight: FlexTensor,
    bias: FlexTensor,
    heads: usize,
) -> (FlexTensor, Parts) {
    let (x, weight, bias) = (contiguous(x), contiguous(weight), contiguous(bias));
    let [batch, tokens, _] = x.layout().shape().dims();
    let dim = bias.layout().num_elements() / 3;
    let part = |range: std::ops::Range<usize>| {
        let bias = tensor(values(&bias)[range.clone()].to_vec(), [range.len()].into());
        (columns(&weight, range), Some(bias))
    };
    let ((of_query, query_bias), (of_pairs, pair_bias)) = (part(0..dim), part(dim..3 * dim));
    let query = linear::forward(arithmetic, first_tokens(&x), of_query, query_bias);
    let pairs = linear::forward(arithmetic, x, of_pairs, pair_bias);

    let (width, stride) = (dim / heads, 2 * dim);
    let scale = (width as f32).powf(-0.5);
    let mut out = vec![0f32; batch * dim];
    let mut log_sums = vec![0f32; batch * heads];
    out.par_chunks_mut(dim)
        .zip(log_sums.par_chunks_mut(heads))
        .zip(values(&query).par_chunks(dim))
        .zip(values(&pairs).par_chunks(tokens * stride))
        .for_each_init(
            || vec![0f32; tokens],
            |scores, (((out, log_sums), query), pairs)| {
                let heads = out.chunks_exact_mut(width).zip(query.chunks_exact(width)).zip(log_sums);
                for (head, ((out, query), log_sum)) in heads.enumerate() {
                    *log_sum = attend(query, &pairs[head * width..], stride, scale, scores, out);
                }
            },
        );
    let out = tensor(out, [batch, 1, dim].into());
    (out.clone(), Parts { query, pairs, log_sums, out })
}

/// The gradients of `x` (if `weight` is given), of the weight (if `x` is given) and of the bias (if `bias`).
pub(crate) fn backward(
    arithmetic: Arithmetic,
    x: Option<FlexTensor>,
    weight: Option<FlexTensor>,
    parts: Parts,
    gradient: FlexTensor,
    bias: bool,
) -> linear::Gradients {
    let (x, weight, gradient) = (x.map(contiguous), weight.map(contiguous), contiguous(gradient));
    let Parts { query, pairs, log_sums, out } = parts;
    let [batch, tokens, stride] = pairs.layout().shape().dims();
    let (dim, heads) = (stride / 2, log_sums.len() / batch);
    let width = dim / heads;

    let mut dquery = vec![0f32; batch * dim];
    let mut dpairs = vec![0f32; batch * tokens * stride];
    dquery.par_chunks_mut(dim).zip(dpairs.par_chunks_mut(tokens * stride)).enumerate().for_each(
        |(image, (dquery, dpairs))| {
            for (head, dquery) in dquery.chunks_exact_mut(width).enumerate() {
                let own = image * dim + head * width..image * dim + (head + 1) * width;
                let head = Head {
                    query: &values(&query)[own.clone()],
                    pairs: &values(&pairs)[image * tokens * stride..][head * width..tokens * stride],
                    stride,
                    scale: (width as f32).powf(-0.5),
                    log_sum: log_sums[image * heads + head],
                    out: &values(&out)[own.clone()],
                    dout: &values(&gradient)[own.clone()],
                };
                attend_gradients(&head, dquery, &mut dpairs[own.start - image * dim..]);
            }
        },
    );
    let dquery = tensor(dquery, [batch, 1, dim].into());
    let dpairs = tensor(dpairs, [batch, tokens, stride].into());

    let part = |range: std::ops::Range<usize>| weight.as_ref().map(|weight| columns(weight, range));
    let of_query = linear::backward(arithmetic, x.as_ref().map(first_tokens), part(0..dim), dquery, bias);
    let of_pairs = linear::backward(arithmetic, x, part(dim..3 * dim), dpairs, bias);
    linear::Gradients {
        x: of_pairs.x.zip(of_query.x).map(|(all, first)| added_to_first_tokens(all, &first)),
        weight: of_query.weight.zip(of_pairs.weight).map(|(left, right)| beside(&left, &right)),
        bias: of_query
            .bias
            .zip(of_pairs.bias)
            .map(|(left, right)| tensor([values(&left), values(&right)].concat(), [3 * dim].into())),
    }
}

/// The first token of each image: `[batch, tokens, in]` → `[batch, 1, in]`.
fn first_tokens(x: &FlexTensor) -> FlexTensor {
    let [batch, tokens, width] = x.layout().shape().dims();
    let first = values(x).chunks_exact(tokens * width).flat_map(|image| &image[..width]).copied();
    tensor(first.collect(), [batch, 1, width].into())
}

/// `all` `[batch, tokens, in]`, which nobody else holds, with `first` `[batch, 1, in]` added to the first token of each image.
fn added_to_first_tokens(mut all: FlexTensor, first: &FlexTensor) -> FlexTensor {
    let [_, tokens, width] = all.layout().shape().dims();
    let images = values_mut(&mut all).expect("just made").chunks_exact_mut(tokens * width);
    for (image, first) in images.zip(values(first).chunks_exact(width)) {
        image.iter_mut().zip(first).for_each(|(all, first)| *all += first);
    }
    all
}

/// These columns of a matrix.
fn columns(matrix: &FlexTensor, range: std::ops::Range<usize>) -> FlexTensor {
    let [rows, width] = matrix.layout().shape().dims();
    let chosen = values(matrix).chunks_exact(width).flat_map(|row| &row[range.clone()]).copied();
    tensor(chosen.collect(), [rows, range.len()].into())
}

/// The columns of `left`, then those of `right`.
fn beside(left: &FlexTensor, right: &FlexTensor) -> FlexTensor {
    let ([rows, a], [_, b]) = (left.layout().shape().dims(), right.layout().shape().dims());
    let lines = values(left).chunks_exact(a).zip(values(right).chunks_exact(b));
    tensor(lines.flat_map(|(left, right)| left.iter().chain(right)).copied().collect(), [rows, a + b].into())
}
