//! Where a convolution's operands lie in memory on the CPU.
//!
//! The image is copied once into zero-padded planes. For stride `s` there is a plane for every pair of row and column
//! remainders modulo `s` (the *phases*), so that one tap `(c, a, b)` of the kernel always reads a contiguous run: the
//! output position `i · pitch + j` meets `plane(c, a mod s, b mod s)[(i + a/s) · pitch + (j + b/s)]`. The few columns
//! between an output row's end and the pitch are computed and dropped: 7% at 28 pixels, against a ninefold `im2col` copy.
//!
//! The gradient of the data is the same product with the kernel transposed: each phase of the image is a stride 1
//! convolution of the padded output gradient with the taps of that phase.

use crate::conv_product::{CORRELATE_ROWS, whole_runs};

/// The sizes of one convolution; the same stride and padding on both axes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) batch: usize,
    pub(crate) channels: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) outputs: usize,
    pub(crate) kernel: [usize; 2],
    pub(crate) stride: usize,
    pub(crate) padding: usize,
}

impl Shape {
    /// Output height and width, or none where the kernel does not fit.
    pub(crate) fn output(&self) -> Option<[usize; 2]> {
        let size = |n: usize, k: usize| {
            let free = (n + 2 * self.padding).checked_sub(k)?;
            free.checked_div(self.stride).map(|steps| steps + 1)
        };
        Some([size(self.height, self.kernel[0])?, size(self.width, self.kernel[1])?])
    }
}

/// One phase of the image gradient: which pixels it writes and which taps make them.
#[derive(Debug)]
pub(crate) struct Phase {
    /// First row and column of the image.
    pub(crate) first: [usize; 2],
    /// Number of rows and columns, a stride apart.
    pub(crate) count: [usize; 2],
    /// Kernel rows and columns of this phase: `remainder, remainder + stride, …`.
    pub(crate) kernel: [Vec<usize>; 2],
    /// Offsets into the padded gradient, ordered output channel, kernel row, kernel column.
    pub(crate) taps: Vec<u32>,
    /// Length of the run.
    pub(crate) len: usize,
}

/// Offsets and sizes for one [`Shape`].
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) shape: Shape,
    /// Output height and width.
    pub(crate) output: [usize; 2],
    /// Distance between rows in both padded buffers.
    pub(crate) pitch: usize,
    /// Phases kept of the image: `min(stride, kernel)` on each axis.
    pub(crate) phases: [usize; 2],
    /// Rows of one image plane.
    pub(crate) rows: usize,
    /// Values of one padded image.
    pub(crate) image: usize,
    /// Offset of each tap `(channel, kernel row, kernel column)` in the padded image.
    pub(crate) taps: Vec<u32>,
    /// Length of the run of output positions.
    pub(crate) len: usize,
    /// Offset of the gradient's first value in its padded plane.
    pub(crate) gradient_base: usize,
    /// Values of one padded gradient plane.
    pub(crate) gradient_plane: usize,
    /// Gradient planes, padded to whole groups of [`correlate`](crate::conv_product::correlate).
    pub(crate) gradient_planes: usize,
    /// Values of one padded gradient.
    pub(crate) gradient: usize,
    /// The image gradient.
    pub(crate) parts: Vec<Phase>,
}

impl Layout {
    /// None for shapes without output, or too large for 32 bit offsets.
    pub(crate) fn new(shape: Shape) -> Option<Self> {
        let Shape { channels, height, width, outputs, kernel: [kh, kw], stride, padding, .. } = shape;
        let output = shape.output()?;
        let [oh, ow] = output;
        if kh == 0 || kw == 0 || oh == 0 || ow == 0 {
            return None;
        }
        // Zero rows and columns before the gradient, so that no tap reads before it.
        let before = |k: usize| ((k - 1) / stride).saturating_sub(padding / stride);
        let extent = |n: usize, k: usize, o: usize| {
            before(k) + ((n + padding).max(1) - 1).div_euclid(stride).max(o - 1) + 1
        };
        let pitch = (ow + (kw - 1) / stride).max(extent(width, kw, ow));
        let rows = oh + (kh - 1) / stride;
        let phases = [stride.min(kh), stride.min(kw)];
        let len = (oh - 1) * pitch + ow;

        let plane = rows * pitch;
        let mut taps = Vec::with_capacity(channels * kh * kw);
        for c in 0..channels {
            for a in 0..kh {
                for b in 0..kw {
                    let index = (c * phases[0] + a % stride) * phases[1] + b % stride;
                    taps.push(u32::try_from(index * plane + a / stride * pitch + b / stride).ok()?);
                }
            }
        }
        let furthest = taps.iter().max().map_or(0, |&t| t as usize);
        let image = whole_runs((channels * phases[0] * phases[1] * plane).max(furthest + whole_runs(len)));

        let gradient_base = before(kh) * pitch + before(kw);
        let gradient_plane =
            whole_runs((extent(height, kh, oh) * pitch).max(gradient_base + whole_runs(len)));
        let gradient_planes = outputs.next_multiple_of(CORRELATE_ROWS);
        let mut gradient = gradient_planes * gradient_plane;
        let mut parts = Vec::new();
        for row in 0..stride {
            for column in 0..stride {
                let axis = |n: usize, k: usize, phase: usize| {
                    let first = padding.saturating_sub(phase).div_ceil(stride);
                    let pixel = (first * stride + phase).saturating_sub(padding);
                    let count = n.saturating_sub(pixel).div_ceil(stride);
                    (first, pixel, count, (phase..k).step_by(stride).collect::<Vec<_>>())
                };
                let (first_row, y, count_y, kernel_y) = axis(height, kh, row);
                let (first_column, x, count_x, kernel_x) = axis(width, kw, column);
                if count_y == 0 || count_x == 0 {
                    continue;
                }
                let len = (count_y - 1) * pitch + count_x;
                let mut taps = Vec::with_capacity(outputs * kernel_y.len() * kernel_x.len());
                for o in 0..outputs {
                    for a in &kernel_y {
                        for b in &kernel_x {
                            let y = first_row + before(kh) - a / stride;
                            let x = first_column + before(kw) - b / stride;
                            taps.push(u32::try_from(o * gradient_plane + y * pitch + x).ok()?);
                        }
                    }
                }
                let furthest = taps.iter().max().map_or(0, |&t| t as usize);
                gradient = gradient.max(furthest + whole_runs(len));
                parts.push(Phase {
                    first: [y, x],
                    count: [count_y, count_x],
                    kernel: [kernel_y, kernel_x],
                    taps,
                    len,
                });
            }
        }
        Some(Self {
            shape,
            output,
            pitch,
            phases,
            rows,
            image,
            taps,
            len,
            gradient_base,
            gradient_plane,
            gradient_planes,
            gradient: whole_runs(gradient),
            parts,
        })
    }

    /// Copies an image `[channels, height, width]` into its padded planes; `padded` is zero where no pixel goes.
    pub(crate) fn pad_image(&self, image: &[f32], padded: &mut [f32]) {
        let Shape { channels, height, width, stride, padding, .. } = self.shape;
        for c in 0..channels {
            let plane = &image[c * height * width..(c + 1) * height * width];
            for row in 0..self.phases[0] {
                for column in 0..self.phases[1] {
                    let index = (c * self.phases[0] + row) * self.phases[1] + column;
                    let to =
                        &mut padded[index * self.rows * self.pitch..(index + 1) * self.rows * self.pitch];
                    let lead = padding.saturating_sub(column).div_ceil(stride);
                    let first = (lead * stride + column).saturating_sub(padding);
                    let count =
                        width.saturating_sub(first).div_ceil(stride).min(self.pitch - lead.min(self.pitch));
                    for (i, to) in to.chunks_exact_mut(self.pitch).enumerate() {
                        let Some(y) = (i * stride + row).checked_sub(padding).filter(|&y| y < height) else {
                            continue;
                        };
                        if count == 0 {
                            continue;
                        }
                        let from = &plane[y * width + first..(y + 1) * width];
                        let to = &mut to[lead..lead + count];
                        match stride {
                            1 => copy(to, &from[..count]),
                            2 => take_even(to, from),
                            _ => to
                                .iter_mut()
                                .zip(from.iter().step_by(stride))
                                .for_each(|(to, from)| *to = *from),
                        }
                    }
                }
            }
        }
    }

    /// Copies an output gradient `[outputs, oh, ow]` into its padded planes; `padded` is zero where no value goes.
    pub(crate) fn pad_gradient(&self, gradient: &[f32], padded: &mut [f32]) {
        let [oh, ow] = self.output;
        for (from, to) in gradient.chunks_exact(oh * ow).zip(padded.chunks_exact_mut(self.gradient_plane)) {
            for (from, to) in from.chunks_exact(ow).zip(to[self.gradient_base..].chunks_mut(self.pitch)) {
                copy(&mut to[..ow], from);
            }
        }
    }

    /// Takes `planes` output planes out of a product's rows, adding each row's bias.
    pub(crate) fn take_output(
        &self,
        product: &[f32],
        product_pitch: usize,
        bias: Option<&[f32]>,
        out: &mut [f32],
    ) {
        let [oh, ow] = self.output;
        for (o, (to, from)) in
            out.chunks_exact_mut(oh * ow).zip(product.chunks_exact(product_pitch)).enumerate()
        {
            for (to, from) in to.chunks_exact_mut(ow).zip(from.chunks(self.pitch)) {
                match bias {
                    None => copy(to, &from[..ow]),
                    Some(bias) => to.iter_mut().zip(from).for_each(|(to, from)| *to = from + bias[o]),
                }
            }
        }
    }

    /// Writes one phase of the image gradient from its product's rows.
    pub(crate) fn take_phase(&self, phase: &Phase, product: &[f32], product_pitch: usize, image: &mut [f32]) {
        let Shape { height, width, stride, .. } = self.shape;
        for (to, from) in image.chunks_exact_mut(height * width).zip(product.chunks_exact(product_pitch)) {
            let rows = to.chunks_exact_mut(width).skip(phase.first[0]).step_by(stride);
            for (to, from) in rows.zip(from.chunks(self.pitch)).take(phase.count[0]) {
                let (to, from) = (&mut to[phase.first[1]..], &from[..phase.count[1]]);
                match stride {
                    1 => copy(&mut to[..from.len()], from),
                    2 => put_even(to, from),
                    _ => to.iter_mut().step_by(stride).zip(from).for_each(|(to, from)| *to = *from),
                }
            }
        }
    }
}

/// Every second value of `from`. Pairs of a constant length, for the compiler to make vectors of.
#[inline(always)]
fn take_even(to: &mut [f32], from: &[f32]) {
    let (pairs, last) = from.as_chunks::<2>();
    for (to, pair) in to.iter_mut().zip(pairs) {
        *to = pair[0];
    }
    if let (Some(to), Some(&last)) = (to.get_mut(pairs.len()), last.first()) {
        *to = last;
    }
}

/// `from` to every second place of `to`.
#[inline(always)]
fn put_even(to: &mut [f32], from: &[f32]) {
    let (pairs, last) = to.as_chunks_mut::<2>();
    for (pair, from) in pairs.iter_mut().zip(from) {
        pair[0] = *from;
    }
    if let (Some(to), Some(&from)) = (last.first_mut(), from.get(pairs.len())) {
        *to = from;
    }
}

/// Copies rows of a few pixels, for which a call to `memcpy` costs more than the copy.
#[inline(always)]
fn copy(to: &mut [f32], from: &[f32]) {
    let n = to.len();
    assert_eq!(n, from.len());
    let mut i = 0;
    macro_rules! steps {
        ($($size:literal)*) => {$(
            while n - i >= $size {
                to[i..i + $size].copy_from_slice(&from[i..i + $size]);
                i += $size;
            }
        )*};
    }
    steps!(16 8 4 2 1);
}
