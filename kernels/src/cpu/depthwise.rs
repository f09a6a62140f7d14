//! Depthwise convolution on slices, parallel over planes (one channel of one image).
//!
//! For stride `s` a padded plane is split into phases, one for every pair of row and column remainders modulo `s`, all
//! with rows of one pitch. The tap `(a, b)` of the kernel then reads, for all output positions together, one run of
//! memory: output `(i, j)`, at `i · pitch + j`, meets the run `a/s · pitch + b/s` further on in phase `(a mod s, b mod
//! s)`. The columns between the end of an output row and the pitch are computed and dropped. The gradient of the image
//! is the same sum with the runs shifted the other way, that of a weight the product of two runs.

use burn::tensor::Shape;
use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::simd::{mul_add, multiversion, sum};
use super::{contiguous, tensor, values};
use crate::conv_memory;

/// Positions worked on together.
const RUN: usize = 32;

/// Sizes of one convolution, and where its taps read.
struct Layout {
    batch: usize,
    channels: usize,
    image: [usize; 2],
    output: [usize; 2],
    stride: usize,
    padding: usize,
    /// Phases on each axis.
    phases: [usize; 2],
    /// Rows of a phase.
    rows: usize,
    /// Distance between rows, in phases and outputs.
    pitch: usize,
    /// Phase and offset in it of every tap.
    taps: Vec<(usize, usize)>,
    /// Columns of the image that some tap reads, each with its offset from its row's start in the first phase.
    columns: Vec<(usize, usize)>,
}

impl Layout {
    /// `None` where the kernel does not fit the padded image.
    fn new(x: &[usize], weight: &[usize], stride: usize, padding: usize) -> Option<Self> {
        let (&[batch, channels, height, width], &[_, _, kh, kw]) = (x, weight) else { return None };
        let size = |n: usize, k: usize| Some((n + 2 * padding).checked_sub(k)?.checked_div(stride)? + 1);
        let output = [size(height, kh)?, size(width, kw)?];
        let phases = [stride.min(kh), stride.min(kw)];
        let pitch = output[1] + kw.checked_sub(1)? / stride;
        let tap = |tap: usize| {
            let (a, b) = (tap / kw, tap % kw);
            (a % stride * phases[1] + b % stride, a / stride * pitch + b / stride)
        };
        let mut layout = Self {
            batch,
            channels,
            image: [height, width],
            output,
            stride,
            padding,
            phases,
            rows: output[0] + kh.checked_sub(1)? / stride,
            pitch,
            taps: (0..kh * kw).map(tap).collect(),
            columns: Vec::new(),
        };
        layout.columns = (0..width)
            .map(|x| (x, (x + padding) % stride, (x + padding) / stride))
            .filter(|&(_, phase, column)| phase < phases[1] && column < pitch)
            .map(|(x, phase, column)| (x, phase * layout.phase() + column))
            .collect();
        Some(layout)
    }

    /// Length of the run of all outputs, a multiple of [`RUN`].
    fn run(&self) -> usize {
        (self.output[0] * self.pitch).next_multiple_of(RUN)
    }

    /// Room of a phase: every run of every tap ends in it.
    fn phase(&self) -> usize {
        self.rows * self.pitch + self.pitch + RUN
    }

    fn positions(&self) -> usize {
        self.output[0] * self.output[1]
    }

    /// Rows of the image that some tap reads, each with where its first phase has it.
    fn image_rows(&self) -> impl Iterator<Item = (usize, usize)> {
        (0..self.image[0]).filter_map(|y| {
            let (row, phase) = ((y + self.padding) / self.stride, (y + self.padding) % self.stride);
            let read = phase < self.phases[0] && row < self.rows;
            read.then(|| (y, phase * self.phases[1] * self.phase() + row * self.pitch))
        })
    }

    /// Splits a plane into padded phases; `to` holds zeros or an earlier plane of this layout.
    fn split(&self, plane: &[f32], to: &mut [f32]) {
        let width = self.image[1];
        for (y, start) in self.image_rows() {
            let (from, to) = (&plane[y * width..][..width], &mut to[start..]);
            if self.stride == 1 {
                to[self.padding..][..width].copy_from_slice(from);
            } else {
                self.columns.iter().for_each(|&(x, at)| to[at] = from[x]);
            }
        }
    }

    /// The inverse of [`Layout::split`]; what no tap read stays.
    fn join(&self, from: &[f32], plane: &mut [f32]) {
        let width = self.image[1];
        for (y, start) in self.image_rows() {
            let (from, to) = (&from[start..], &mut plane[y * width..][..width]);
            if self.stride == 1 {
                to.copy_from_slice(&from[self.padding..][..width]);
            } else {
                self.columns.iter().for_each(|&(x, at)| to[x] = from[at]);
            }
        }
    }

    /// Output rows to rows of the pitch; `to` holds zeros between them.
    fn spread(&self, plane: &[f32], to: &mut [f32]) {
        for (row, from) in plane.chunks_exact(self.output[1]).enumerate() {
            to[row * self.pitch..][..from.len()].copy_from_slice(from);
        }
    }
}

multiversion! {
    /// `to[i] = start + Σ weight · from[offset + i]` over the taps `(offset, weight)`.
    pub(super) fn correlate<FMA>(taps: &[(usize, f32)], from: &[f32], start: f32, to: &mut [f32]) {
        for (run, to) in to.chunks_exact_mut(RUN).enumerate() {
            let from = &from[run * RUN..];
            let mut total = [start; RUN];
            for &(offset, weight) in taps {
                let from = &from[offset..offset + RUN];
                for (total, &from) in total.iter_mut().zip(from) {
                    *total = mul_add::<FMA>(weight, from, *total);
                }
            }
            to.copy_from_slice(&total);
        }
    }
}

multiversion! {
    /// `Σ a[i] · b[i]`.
    pub(super) fn dot<FMA>(a: &[f32], b: &[f32]) -> f32 {
        sum([a, b], |[a, b]| a * b)
    }
}

/// The convolution, of sizes that [`fits`] accepts.
pub(crate) fn forward(
    x: FlexTensor,
    weight: FlexTensor,
    bias: Option<FlexTensor>,
    [stride, padding]: [usize; 2],
) -> FlexTensor {
    let (x, weight, bias) = (contiguous(x), contiguous(weight), bias.map(contiguous));
    let layout = layout(&x, &weight, stride, padding);
    let (from, weight, bias) = (values(&x), values(&weight), bias.as_ref().map(values));
    let image = layout.image[0] * layout.image[1];
    let count = layout.taps.len();
    let mut y = conv_memory::take(layout.batch * layout.channels * layout.positions());
    let phases = layout.phases[0] * layout.phases[1] * layout.phase();
    y.par_chunks_exact_mut(layout.positions()).enumerate().for_each_init(
        || (vec![0.0; phases], vec![0.0; layout.run()], Vec::with_capacity(count)),
        |(padded, run, taps), (plane, y)| {
            let channel = plane % layout.channels;
            layout.split(&from[plane * image..][..image], padded);
            let weights = &weight[channel * count..][..count];
            taps.clear();
            taps.extend(
                layout.taps.iter().zip(weights).map(|(&(phase, at), &w)| (phase * layout.phase() + at, w)),
            );
            correlate(taps, padded, bias.map_or(0.0, |bias| bias[channel]), run);
            for (y, run) in y.chunks_exact_mut(layout.output[1]).zip(run.chunks(layout.pitch)) {
                y.copy_from_slice(&run[..y.len()]);
            }
        },
    );
    let [height, width] = layout.output;
    conv_memory::tensor(y, [layout.batch, layout.channels, height, width])
}

/// Gradients of image, weight and bias, those that are wanted.
pub(crate) struct Gradients {
    pub(crate) x: Option<FlexTensor>,
    pub(crate) weight: Option<FlexTensor>,
    pub(crate) bias: Option<FlexTensor>,
}

/// Gradients of [`forward`].
pub(crate) fn backward(
    x: FlexTensor,
    weight: FlexTensor,
    dy: FlexTensor,
    [stride, padding]: [usize; 2],
    wanted: [bool; 3],
) -> Gradients {
    let (x, weight, dy) = (contiguous(x), contiguous(weight), contiguous(dy));
    let layout = layout(&x, &weight, stride, padding);
    let (x_shape, weight_shape) = (x.layout().shape().dims::<4>(), weight.layout().shape().clone());
    let dy = values(&dy);
    let channels = layout.channels;
    let weight_gradient = wanted[1].then(|| weight_gradients(&layout, values(&x), dy));
    let bias_gradient = wanted[2].then(|| {
        let mut sums = vec![0f64; channels];
        for (plane, dy) in dy.chunks_exact(layout.positions()).enumerate() {
            sums[plane % channels] += f64::from(dy.iter().sum::<f32>());
        }
        tensor(sums.into_iter().map(|sum| sum as f32).collect(), Shape::from([channels]))
    });
    Gradients {
        x: wanted[0].then(|| conv_memory::tensor(image_gradient(&layout, values(&weight), dy), x_shape)),
        weight: weight_gradient.map(|values| tensor(values, weight_shape)),
        bias: bias_gradient,
    }
}

fn image_gradient(layout: &Layout, weight: &[f32], dy: &[f32]) -> Vec<f32> {
    let image = layout.image[0] * layout.image[1];
    let count = layout.taps.len();
    // Room for the largest shift in front, so that no run starts before the buffer.
    let front = layout.taps.iter().map(|tap| tap.1).max().unwrap_or(0);
    let run = (layout.rows * layout.pitch).next_multiple_of(RUN);
    let phases = layout.phases[0] * layout.phases[1];
    // A stride beyond the kernel, or a rest at the edge, leaves pixels that no tap reads.
    let all_read = layout.columns.len() == layout.image[1] && layout.image_rows().count() == layout.image[0];
    let mut dx = conv_memory::take(layout.batch * layout.channels * image);
    dx.par_chunks_exact_mut(image).enumerate().for_each_init(
        || (vec![0.0; front + run], vec![0.0; phases * layout.phase()], vec![Vec::new(); phases]),
        |(spread, parts, taps), (plane, dx)| {
            layout.spread(&dy[plane * layout.positions()..][..layout.positions()], &mut spread[front..]);
            let weights = &weight[plane % layout.channels * count..][..count];
            taps.iter_mut().for_each(Vec::clear);
            for (&(phase, at), &w) in layout.taps.iter().zip(weights) {
                taps[phase].push((front - at, w));
            }
            for (taps, part) in taps.iter().zip(parts.chunks_exact_mut(layout.phase())) {
                correlate(taps, spread, 0.0, &mut part[..run]);
            }
            if !all_read {
                dx.fill(0.0);
            }
            layout.join(parts, dx);
        },
    );
    dx
}

/// Plane by plane, then added up over the images in order.
fn weight_gradients(layout: &Layout, x: &[f32], dy: &[f32]) -> Vec<f32> {
    let image = layout.image[0] * layout.image[1];
    let count = layout.taps.len();
    let phases = layout.phases[0] * layout.phases[1] * layout.phase();
    let mut found = vec![0.0; layout.batch * layout.channels * count];
    found.par_chunks_exact_mut(count).enumerate().for_each_init(
        || (vec![0.0; phases], vec![0.0; layout.run()]),
        |(padded, spread), (plane, found)| {
            layout.split(&x[plane * image..][..image], padded);
            layout.spread(&dy[plane * layout.positions()..][..layout.positions()], spread);
            for (&(phase, at), found) in layout.taps.iter().zip(found) {
                *found = dot(spread, &padded[phase * layout.phase() + at..]);
            }
        },
    );
    let mut sums = vec![0f64; layout.channels * count];
    for image in found.chunks_exact(sums.len()) {
        for (sum, &found) in sums.iter_mut().zip(image) {
            *sum += f64::from(found);
        }
    }
    sums.into_iter().map(|sum| sum as f32).collect()
}

/// Whether [`forward`] can do it.
pub(crate) fn fits(x: &[usize], weight: &[usize], stride: usize, padding: usize) -> bool {
    matches!((x, weight), ([_, channels, _, _], [outputs, 1, _, _]) if channels == outputs)
        && Layout::new(x, weight, stride, padding).is_some()
}

fn layout(x: &FlexTensor, weight: &FlexTensor, stride: usize, padding: usize) -> Layout {
    let (x, weight) = (x.layout().shape(), weight.layout().shape());
    Layout::new(x.as_slice(), weight.as_slice(), stride, padding).expect("checked before dispatch")
}
