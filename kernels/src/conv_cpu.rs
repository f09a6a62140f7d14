//! Convolution and its two gradients on the CPU, parallel over images.
//!
//! Each image is worked on by one thread from buffers that fit its cache: pad, multiply ([`product`]), take the output.
//! The weight gradient is summed over fixed groups of images and the groups are added in order, so that no result
//! depends on the number of threads.

use std::cell::Cell;

use rayon::prelude::*;

use crate::conv_lanes::Level;
use crate::conv_layout::Layout;
use crate::conv_memory;
use crate::conv_product::{Images, PackedRows, correlate, product, whole_runs};

thread_local! {
    /// Padded images, gradients and products of this thread, kept from call to call.
    static BUFFERS: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Runs `work` with a buffer of `size` values of this thread. The first `zeroed` of them are zero, the others anything.
fn with_buffer<R>(size: usize, zeroed: usize, work: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut buffer = BUFFERS.take();
    if buffer.len() < size {
        buffer.resize(size, 0.0);
    }
    buffer[..zeroed].fill(0.0);
    let result = work(&mut buffer[..size]);
    BUFFERS.set(buffer);
    result
}

/// The convolution of `x` `[batch, channels, height, width]` with `weight` `[outputs, channels, kh, kw]`.
pub(crate) fn forward(
    level: Level,
    layout: &Layout,
    x: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
) -> Vec<f32> {
    let shape = layout.shape;
    let taps = layout.taps.len();
    let packed = PackedRows::new(level, shape.outputs, taps, |o, tap| weight[o * taps + tap]);
    let positions = layout.output[0] * layout.output[1];
    let mut out = conv_memory::take(shape.batch * shape.outputs * positions);
    if out.is_empty() {
        return out;
    }
    // A few large images keep all threads busy by output channels, many images by image.
    let threads = rayon::current_num_threads();
    let splits = threads.div_ceil(shape.batch).min(packed.blocks());
    let blocks = packed.blocks().div_ceil(splits);
    let rows = blocks * packed.rows_per_block();
    let images = shape.channels * shape.height * shape.width;
    let pitch = whole_runs(layout.len);

    let part = |image: usize, first_row: usize, out: &mut [f32], buffer: &mut [f32]| {
        let (padded, products) = buffer.split_at_mut(layout.image);
        layout.pad_image(&x[image * images..(image + 1) * images], padded);
        let first = first_row / packed.rows_per_block();
        let last = (first + blocks).min(packed.blocks());
        product(&packed, first..last, &layout.taps, padded, layout.len, products, pitch);
        layout.take_output(products, pitch, bias.map(|b| &b[first_row..]), out);
    };
    let size = layout.image + rows * pitch;
    if splits > 1 {
        out.par_chunks_mut(shape.outputs * positions).enumerate().for_each(|(image, out)| {
            out.par_chunks_mut(rows * positions).enumerate().for_each(|(split, out)| {
                with_buffer(size, layout.image, |buffer| part(image, split * rows, out, buffer));
            });
        });
    } else {
        let group = shape.batch.div_ceil(4 * threads).clamp(1, 16);
        out.par_chunks_mut(group * shape.outputs * positions).enumerate().for_each(|(index, out)| {
            with_buffer(size, layout.image, |buffer| {
                for (i, out) in out.chunks_exact_mut(shape.outputs * positions).enumerate() {
                    part(index * group + i, 0, out, buffer);
                }
            });
        });
    }
    out
}

/// The gradients that [`backward`] was asked for.
pub(crate) struct Gradients {
    pub(crate) image: Option<Vec<f32>>,
    pub(crate) weight: Option<Vec<f32>>,
}

/// Gradients of the image and the weight from `dy` `[batch, outputs, oh, ow]`, each only where wanted.
pub(crate) fn backward(
    level: Level,
    layout: &Layout,
    x: &[f32],
    weight: &[f32],
    dy: &[f32],
    [want_image, want_weight]: [bool; 2],
) -> Gradients {
    let shape = layout.shape;
    let taps = layout.taps.len();
    let [kh, kw] = shape.kernel;
    let transposed: Vec<PackedRows> = layout
        .parts
        .iter()
        .filter(|_| want_image)
        .map(|part| {
            let per_output = part.kernel[0].len() * part.kernel[1].len();
            PackedRows::new(level, shape.channels, part.taps.len(), |c, tap| {
                let (o, rest) = (tap / per_output, tap % per_output);
                let (a, b) = (
                    part.kernel[0][rest / part.kernel[1].len()],
                    part.kernel[1][rest % part.kernel[1].len()],
                );
                weight[((o * shape.channels + c) * kh + a) * kw + b]
            })
        })
        .collect();
    let product_size = layout.parts.iter().zip(&transposed).map(|(p, w)| w.padded_rows() * whole_runs(p.len));
    let product_size = product_size.max().unwrap_or(0);
    // Pixels that no kernel tap reached: between strides, or cut off at the lower and right edge.
    let covered: usize = layout
        .parts
        .iter()
        .filter(|part| !part.taps.is_empty())
        .map(|part| part.count[0] * part.count[1])
        .sum();

    let image = shape.channels * shape.height * shape.width;
    let positions = shape.outputs * layout.output[0] * layout.output[1];
    // Enough positions in a group that folding the vectors of sums costs little; a function of the shape alone.
    let group = (2048 / whole_runs(layout.len)).clamp(1, 16);
    let groups = shape.batch.div_ceil(group);

    let mut dx = conv_memory::take(if want_image { shape.batch * image } else { 0 });
    if covered < shape.height * shape.width {
        dx.par_chunks_mut(1 << 16).for_each(|part| part.fill(0.0));
    }
    let parts = if want_weight { layout.gradient_planes * taps } else { 0 };
    let mut partial = vec![0.0; groups * parts];

    let padded_images = if want_weight { group * layout.image } else { 0 };
    let zeroed = padded_images + group * layout.gradient;
    let work = |index: usize, dx: &mut [f32], partial: &mut [f32]| {
        let images = index * group..((index + 1) * group).min(shape.batch);
        with_buffer(zeroed + product_size, zeroed, |buffer| {
            let (padded, buffer) = buffer.split_at_mut(padded_images);
            let (gradients, products) = buffer.split_at_mut(group * layout.gradient);
            for (i, gradient) in images.clone().zip(gradients.chunks_exact_mut(layout.gradient)) {
                layout.pad_gradient(&dy[i * positions..(i + 1) * positions], gradient);
            }
            if want_weight {
                for (i, padded) in images.clone().zip(padded.chunks_exact_mut(layout.image)) {
                    layout.pad_image(&x[i * image..(i + 1) * image], padded);
                }
                correlate(
                    level,
                    Images { count: images.len(), row_stride: layout.gradient, tap_stride: layout.image },
                    gradients,
                    layout.gradient_base,
                    layout.gradient_plane,
                    layout.gradient_planes,
                    padded,
                    &layout.taps,
                    layout.len,
                    partial,
                );
            }
            if want_image {
                for (dx, gradient) in dx.chunks_exact_mut(image).zip(gradients.chunks_exact(layout.gradient))
                {
                    for (part, weights) in
                        layout.parts.iter().zip(&transposed).filter(|(part, _)| !part.taps.is_empty())
                    {
                        let pitch = whole_runs(part.len);
                        product(
                            weights,
                            0..weights.blocks(),
                            &part.taps,
                            gradient,
                            part.len,
                            products,
                            pitch,
                        );
                        layout.take_phase(part, products, pitch, dx);
                    }
                }
            }
        });
    };
    match (want_image && image > 0, parts > 0) {
        (true, true) => dx
            .par_chunks_mut(group * image)
            .zip(partial.par_chunks_mut(parts))
            .enumerate()
            .for_each(|(index, (dx, partial))| work(index, dx, partial)),
        (true, false) => {
            dx.par_chunks_mut(group * image).enumerate().for_each(|(index, dx)| work(index, dx, &mut []))
        }
        (false, true) => {
            partial
                .par_chunks_mut(parts)
                .enumerate()
                .for_each(|(index, partial)| work(index, &mut [], partial));
        }
        (false, false) => {}
    }
    Gradients {
        image: want_image.then_some(dx),
        weight: want_weight.then(|| {
            let mut sum = vec![0.0; shape.outputs * taps];
            for partial in partial.chunks_exact(parts.max(1)) {
                sum.iter_mut().zip(partial).for_each(|(sum, part)| *sum += part);
            }
            sum
        }),
    }
}

/// The gradient of the bias: `dy` summed over images and positions, in order.
pub(crate) fn bias_gradient(layout: &Layout, dy: &[f32]) -> Vec<f32> {
    let outputs = layout.shape.outputs;
    let mut sums = vec![0.0f64; outputs];
    for (i, plane) in dy.chunks_exact(layout.output[0] * layout.output[1]).enumerate() {
        sums[i % outputs] += plane.iter().map(|&v| f64::from(v)).sum::<f64>();
    }
    sums.into_iter().map(|sum| sum as f32).collect()
}
