//! What runs on the GPU.
//!
//! The values of a channel are numbered by image and position, `k = image · size + position`; `size` positions make an image.
//! With channels last a cube works on 32 channels and 8 values of each at a time, so that neighbouring units read
//! neighbouring values; with channels first on one channel and 256 of its values.

use cubecl::prelude::*;

use super::super::columns::{COLUMNS, ROWS};

/// Where the value `k` of `channel` lies.
#[cube]
fn place(channel: usize, k: usize, channels: usize, size: usize, #[comptime] last: bool) -> usize {
    if last { k * channels + channel } else { ((k / size) * channels + channel) * size + k % size }
}

/// The channel of this unit.
#[cube]
fn own_channel(#[comptime] last: bool) -> usize {
    let mut channel = CUBE_POS_X as usize;
    if last {
        channel = (CUBE_POS_X * COLUMNS + UNIT_POS_X) as usize;
    }
    channel
}

/// The first of its values in a group, and how far the next is.
#[cube]
fn own_first(#[comptime] last: bool) -> usize {
    if last { UNIT_POS_Y as usize } else { UNIT_POS as usize }
}

/// The sum of `value` over the units that work on the same channel, for those that [`speak`].
#[cube]
fn sum_of_channel(value: f32, #[comptime] last: bool) -> f32 {
    let mut shared = Shared::<[f32]>::new_slice(comptime!((COLUMNS * ROWS) as usize));
    // Two sums one after the other may share the memory.
    sync_cube();
    shared[UNIT_POS as usize] = value;
    sync_cube();
    if last {
        let mut sum = 0.0f32;
        if UNIT_POS_Y == 0 {
            for y in 0..ROWS {
                sum += shared[(y * COLUMNS + UNIT_POS_X) as usize];
            }
        }
        sum
    } else {
        // Halves are folded onto each other.
        #[unroll]
        for fold in 0..8u32 {
            let half = comptime!((COLUMNS * ROWS) >> (fold + 1));
            if UNIT_POS < half {
                let other = shared[(UNIT_POS + half) as usize];
                shared[UNIT_POS as usize] += other;
            }
            sync_cube();
        }
        shared[0]
    }
}

/// Whether this unit writes down the sums of its channel.
#[cube]
fn speaks(channel: usize, channels: usize, #[comptime] last: bool) -> bool {
    let first = if last { UNIT_POS_Y == 0 } else { UNIT_POS == 0 };
    first && channel < channels
}

/// For each group of values and each channel `Σ d` and `Σ d²`, `d` the distance from the channel's first value: close enough
/// to the mean for little to cancel. `[groups, channels]` each.
#[cube(launch_unchecked)]
pub(super) fn moments<F: Float>(
    x: &[F],
    distances: &mut [f32],
    squares: &mut [f32],
    channels: usize,
    size: usize,
    count: usize,
    group: usize,
    #[comptime] last: bool,
    #[define(F)] _dtype: ElemType,
) {
    let step = comptime!((if last { ROWS } else { COLUMNS * ROWS }) as usize);
    let channel = own_channel(last);
    let mut plain = 0.0f32;
    let mut squared = 0.0f32;
    if channel < channels {
        let origin = f32::cast_from(x[place(channel, 0usize, channels, size, last)]);
        let first = CUBE_POS_Y as usize * group;
        let end = min(first + group, count);
        let mut k = first + own_first(last);
        while k < end {
            let distance = f32::cast_from(x[place(channel, k, channels, size, last)]) - origin;
            plain += distance;
            squared += distance * distance;
            k += step;
        }
    }
    let plain = sum_of_channel(plain, last);
    let squared = sum_of_channel(squared, last);
    if speaks(channel, channels, last) {
        let at = CUBE_POS_Y as usize * channels + channel;
        distances[at] = plain;
        squares[at] = squared;
    }
}

/// Mean, biased variance and `1 / √(var + eps)` of each channel.
#[cube(launch_unchecked)]
pub(super) fn statistics<F: Float>(
    x: &[F],
    distances: &[f32],
    squares: &[f32],
    mean: &mut [f32],
    variance: &mut [f32],
    inverse: &mut [f32],
    channels: usize,
    size: usize,
    count: f32,
    groups: usize,
    eps: f32,
    #[comptime] last: bool,
    #[define(F)] _dtype: ElemType,
) {
    let channel = ABSOLUTE_POS;
    if channel >= channels {
        terminate!();
    }
    let mut plain = 0.0f32;
    let mut squared = 0.0f32;
    for group in 0..groups {
        plain += distances[group * channels + channel];
        squared += squares[group * channels + channel];
    }
    let distance = plain / count;
    let spread = max(squared / count - distance * distance, 0.0f32);
    mean[channel] = f32::cast_from(x[place(channel, 0usize, channels, size, last)]) + distance;
    variance[channel] = spread;
    inverse[channel] = 1.0f32 / f32::sqrt(spread + eps);
}

/// The channel of the value at `at`.
#[cube]
fn channel_at(at: usize, channels: usize, size: usize, #[comptime] last: bool) -> usize {
    if last { at % channels } else { (at / size) % channels }
}

/// `y = (x − mean) · inverse · gamma + beta (+ residual)`, with `rectify` at least 0; a unit for each value.
#[cube(launch_unchecked)]
pub(super) fn normalise<F: Float>(
    x: &[F],
    mean: &[f32],
    inverse: &[f32],
    gamma: &[F],
    beta: &[F],
    residual: &[F],
    y: &mut [F],
    channels: usize,
    size: usize,
    count: usize,
    #[comptime] last: bool,
    #[comptime] add: bool,
    #[comptime] rectify: bool,
    #[define(F)] _dtype: ElemType,
) {
    let at = ABSOLUTE_POS;
    if at >= count {
        terminate!();
    }
    let channel = channel_at(at, channels, size, last);
    let normal = (f32::cast_from(x[at]) - mean[channel]) * inverse[channel];
    let mut value = normal * f32::cast_from(gamma[channel]) + f32::cast_from(beta[channel]);
    if add {
        value += f32::cast_from(residual[at]);
    }
    if rectify {
        // Keeps what is not a number.
        value = select(value < 0.0f32, 0.0f32, value);
    }
    y[at] = F::cast_from(value);
}

/// The gradient before the ReLU; `y`, the output, is looked at if there was one.
#[cube]
fn before_gate<F: Float>(dy: &[F], y: &[F], at: usize, #[comptime] rectify: bool) -> f32 {
    let mut gradient = f32::cast_from(dy[at]);
    if rectify {
        gradient = select(f32::cast_from(y[at]) > 0.0f32, gradient, 0.0f32);
    }
    gradient
}

/// For each group of values and each channel `Σ g x̂` and `Σ g`: `[groups, channels]` each.
#[cube(launch_unchecked)]
pub(super) fn sums<F: Float>(
    x: &[F],
    dy: &[F],
    y: &[F],
    mean: &[f32],
    inverse: &[f32],
    by_normal: &mut [f32],
    plain: &mut [f32],
    channels: usize,
    size: usize,
    count: usize,
    group: usize,
    #[comptime] last: bool,
    #[comptime] rectify: bool,
    #[define(F)] _dtype: ElemType,
) {
    let step = comptime!((if last { ROWS } else { COLUMNS * ROWS }) as usize);
    let channel = own_channel(last);
    let mut along = 0.0f32;
    let mut sum = 0.0f32;
    if channel < channels {
        let first = CUBE_POS_Y as usize * group;
        let end = min(first + group, count);
        let mut k = first + own_first(last);
        while k < end {
            let at = place(channel, k, channels, size, last);
            let gradient = before_gate::<F>(dy, y, at, rectify);
            along += gradient * (f32::cast_from(x[at]) - mean[channel]) * inverse[channel];
            sum += gradient;
            k += step;
        }
    }
    let along = sum_of_channel(along, last);
    let sum = sum_of_channel(sum, last);
    if speaks(channel, channels, last) {
        let at = CUBE_POS_Y as usize * channels + channel;
        by_normal[at] = along;
        plain[at] = sum;
    }
}

/// `dx = gamma · inverse · (g − dbeta / n − x̂ dgamma / n)` and `d residual = g`; a unit for each value.
#[cube(launch_unchecked)]
pub(super) fn input_gradient<F: Float>(
    x: &[F],
    dy: &[F],
    y: &[F],
    mean: &[f32],
    inverse: &[f32],
    gamma: &[F],
    dgamma: &[f32],
    dbeta: &[f32],
    dx: &mut [F],
    residual: &mut [F],
    channels: usize,
    size: usize,
    count: usize,
    share: f32,
    #[comptime] last: bool,
    #[comptime] rectify: bool,
    #[comptime] add: bool,
    #[define(F)] _dtype: ElemType,
) {
    let at = ABSOLUTE_POS;
    if at >= count {
        terminate!();
    }
    let channel = channel_at(at, channels, size, last);
    let gradient = before_gate::<F>(dy, y, at, rectify);
    let normal = (f32::cast_from(x[at]) - mean[channel]) * inverse[channel];
    let slope = gradient - (dbeta[channel] + normal * dgamma[channel]) * share;
    dx[at] = F::cast_from(slope * inverse[channel] * f32::cast_from(gamma[channel]));
    if add {
        residual[at] = F::cast_from(gradient);
    }
}
