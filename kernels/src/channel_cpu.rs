//! Scale and shift for each channel, with an optional residual and ReLU, forward and backward on the CPU.
//!
//! Batch normalisation and its evaluation-time form share these passes; they differ in where scale and shift come from
//! and in whether the batch's statistics depend on the input. Work is parallel over images; sums over the batch are made
//! of one sum for each plane, added in order in `f64`, so they do not depend on the number of threads.

use burn_flex::FlexTensor;
use rayon::prelude::*;

use crate::channel_loops::{self as loops, Slope};
use crate::conv_flex::{contiguous, dims, fills_storage, values};
use crate::conv_memory;

/// Where the images of a tensor `[batch, channels, height, width]` begin and end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Planes {
    pub(crate) batch: usize,
    pub(crate) channels: usize,
    /// Positions of one plane.
    pub(crate) size: usize,
}

impl Planes {
    pub(crate) fn of(x: &FlexTensor) -> Self {
        let [batch, channels, height, width] = dims(x);
        Self { batch, channels, size: height * width }
    }

    fn image(&self) -> usize {
        self.channels * self.size
    }

    /// Values that an average over the batch runs over.
    pub(crate) fn count(&self) -> usize {
        self.batch * self.size
    }

    /// True if there is nothing to work on.
    pub(crate) fn is_empty(&self) -> bool {
        self.count() * self.channels == 0
    }

    /// `of(image, channel)` for every plane, `[batch · channels]`.
    fn each(&self, of: impl Fn(usize, usize) -> [f32; 2] + Sync) -> Vec<[f32; 2]> {
        let mut found = vec![[0.0; 2]; self.batch * self.channels];
        found.par_chunks_mut(self.channels).enumerate().for_each(|(image, found)| {
            found.iter_mut().enumerate().for_each(|(channel, found)| *found = of(image, channel));
        });
        found
    }

    fn range(&self, image: usize, channel: usize) -> std::ops::Range<usize> {
        let start = (image * self.channels + channel) * self.size;
        start..start + self.size
    }

    /// Calls `work(channel, position range in the whole tensor, plane of out)` for every plane of `out`.
    fn write(&self, out: &mut [f32], work: impl Fn(usize, std::ops::Range<usize>, &mut [f32]) + Sync) {
        out.par_chunks_mut(self.image()).enumerate().for_each(|(image, out)| {
            for (channel, out) in out.chunks_exact_mut(self.size).enumerate() {
                work(channel, self.range(image, channel), out);
            }
        });
    }
}

/// Mean and biased variance of every channel, by the pairwise rule of Chan et al. (1983) over the planes.
pub(crate) fn moments(planes: Planes, x: &[f32]) -> [Vec<f64>; 2] {
    let found = planes.each(|image, channel| loops::moments(&x[planes.range(image, channel)]));
    let batch = planes.batch as f64;
    let channels = 0..planes.channels;
    let of_channel = |channel: usize| found.iter().skip(channel).step_by(planes.channels);
    let means: Vec<f64> = channels
        .clone()
        .map(|channel| of_channel(channel).map(|&[mean, _]| f64::from(mean)).sum::<f64>() / batch)
        .collect();
    let variances = channels
        .map(|channel| {
            let within: f64 = of_channel(channel).map(|&[_, squares]| f64::from(squares)).sum();
            let between: f64 =
                of_channel(channel).map(|&[mean, _]| (f64::from(mean) - means[channel]).powi(2)).sum();
            within / planes.count() as f64 + between / batch
        })
        .collect();
    [means, variances]
}

/// `y = x · scale + shift (+ residual)`, with `rectify` at least 0; takes the place of `x` where nobody else holds it.
pub(crate) fn affine(
    mut x: FlexTensor,
    scale: &[f32],
    shift: &[f32],
    residual: Option<&FlexTensor>,
    rectify: bool,
) -> FlexTensor {
    let planes = Planes::of(&x);
    let residual = residual.map(values);
    if planes.is_empty() {
        return x;
    }
    let whole = fills_storage(&x);
    if let Some(y) = x.try_storage_mut::<f32>().filter(|_| whole) {
        planes.write(y, |c, range, y| match residual {
            None => loops::affine_in_place(y, scale[c], shift[c], rectify),
            Some(residual) => loops::affine_add_in_place(y, scale[c], shift[c], &residual[range], rectify),
        });
        return x;
    }
    let from = values(&x);
    let mut y = conv_memory::take(from.len());
    planes.write(&mut y, |c, range, y| match residual {
        None => loops::affine(&from[range], scale[c], shift[c], rectify, y),
        Some(residual) => {
            loops::affine_add(&from[range.clone()], scale[c], shift[c], &residual[range], rectify, y);
        }
    });
    conv_memory::tensor(y, dims::<4>(&x))
}

/// What the backward pass of [`affine`] needs.
#[derive(Debug, Clone)]
pub(crate) struct Affine {
    pub(crate) x: FlexTensor,
    pub(crate) scale: Vec<f32>,
    pub(crate) shift: Vec<f32>,
    /// Point from which the distances in [`Sums::by_distance`] are measured, for each channel.
    pub(crate) mean: Vec<f32>,
    pub(crate) rectify: bool,
    /// The output, kept only where a ReLU followed a residual: elsewhere its sign follows from `x`.
    pub(crate) gate: Option<FlexTensor>,
}

/// For each channel `Σ dy` and `Σ dy · (x − mean)`, `dy` taken before the ReLU.
pub(crate) struct Sums {
    pub(crate) plain: Vec<f64>,
    pub(crate) by_distance: Vec<f64>,
}

impl Affine {
    /// Undoes a ReLU whose output was kept: afterwards `dy` is the gradient of the residual too.
    pub(crate) fn before_gate(&self, dy: FlexTensor) -> FlexTensor {
        let dy = contiguous(dy);
        match &self.gate {
            Some(y) => gated(dy, y),
            None => dy,
        }
    }

    fn by_sign(&self) -> bool {
        self.rectify && self.gate.is_none()
    }

    /// Sums over the batch; `dy` as [`Self::before_gate`] returns it.
    pub(crate) fn sums(&self, dy: &FlexTensor) -> Sums {
        let planes = Planes::of(&self.x);
        let (x, dy) = (values(&self.x), values(dy));
        let found = planes.each(|image, c| {
            let range = planes.range(image, c);
            let (x, dy) = (&x[range.clone()], &dy[range]);
            if self.by_sign() {
                loops::sums_rectified(dy, x, self.mean[c], self.scale[c], self.shift[c])
            } else {
                loops::sums(dy, x, self.mean[c])
            }
        });
        let mut sums = Sums { plain: vec![0.0; planes.channels], by_distance: vec![0.0; planes.channels] };
        for (i, [plain, by_distance]) in found.into_iter().enumerate() {
            sums.plain[i % planes.channels] += f64::from(plain);
            sums.by_distance[i % planes.channels] += f64::from(by_distance);
        }
        sums
    }

    /// The input gradient by each channel's [`Slope`]; takes the place of `dy` where nobody else holds it.
    pub(crate) fn input_gradient(&self, mut dy: FlexTensor, slopes: &[Slope]) -> FlexTensor {
        let planes = Planes::of(&self.x);
        let x = values(&self.x);
        if planes.is_empty() {
            return dy;
        }
        let whole = fills_storage(&dy);
        if !dy.is_unique() || !whole {
            let from = values(&dy);
            let mut dx = conv_memory::take(from.len());
            if !self.by_sign() {
                planes.write(&mut dx, |c, range, dx| {
                    loops::slope(&from[range.clone()], &x[range], slopes[c], dx)
                });
                return conv_memory::tensor(dx, dims::<4>(&self.x));
            }
            dx.copy_from_slice(from);
            dy = conv_memory::tensor(dx, dims::<4>(&self.x));
        }
        planes.write(dy.storage_mut::<f32>(), |c, range, dy| {
            if self.by_sign() {
                loops::slope_rectified_in_place(dy, &x[range], slopes[c], self.scale[c], self.shift[c]);
            } else {
                loops::slope_in_place(dy, &x[range], slopes[c]);
            }
        });
        dy
    }
}

/// `dy` where `y > 0`, else 0; takes the place of `dy` where nobody else holds it.
pub(crate) fn gated(mut dy: FlexTensor, y: &FlexTensor) -> FlexTensor {
    const PART: usize = 1 << 14;
    let y = values(y);
    let whole = fills_storage(&dy);
    if let Some(values) = dy.try_storage_mut::<f32>().filter(|_| whole) {
        values
            .par_chunks_mut(PART)
            .zip(y.par_chunks(PART))
            .for_each(|(dy, y)| loops::rectified_in_place(dy, y));
        return dy;
    }
    let from = values(&dy);
    let mut out = conv_memory::take(from.len());
    let parts = out.par_chunks_mut(PART).zip(from.par_chunks(PART)).zip(y.par_chunks(PART));
    parts.for_each(|((out, dy), y)| loops::rectified(dy, y, out));
    conv_memory::tensor_like(out, &dy)
}
