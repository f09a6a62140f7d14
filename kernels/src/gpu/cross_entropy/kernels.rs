//! What runs on the GPU.

use cubecl::prelude::*;

use super::super::plane_row;

/// The largest logit of the row that begins at `start`.
#[cube]
fn largest<F: Float>(x: &[F], start: usize, width: usize) -> f32 {
    let mut most = f32::new(-1e30f32);
    let mut column = UNIT_POS_X as usize;
    while column < width {
        most = max(most, f32::cast_from(x[start + column]));
        column += CUBE_DIM_X as usize;
    }
    plane_max(most)
}

/// The logarithm of the sum of the exponentials of that row, less its largest logit.
#[cube]
fn log_sum<F: Float>(x: &[F], start: usize, width: usize, most: f32) -> f32 {
    let mut sum = 0.0f32;
    let mut column = UNIT_POS_X as usize;
    while column < width {
        let distance = f32::cast_from(x[start + column]) - most;
        sum += distance.exp();
        column += CUBE_DIM_X as usize;
    }
    plane_sum(sum).ln()
}

#[cube(launch_unchecked)]
pub(super) fn loss_of_classes<F: Float, I: Int>(
    x: &[F],
    classes: &[I],
    weights: &[F],
    losses: &mut [F],
    log_sums: &mut [f32],
    rows: usize,
    width: usize,
    #[comptime] weighted: bool,
    #[define(F, I)] _dtypes: [ElemType; 2],
) {
    let row = plane_row();
    if row >= rows {
        terminate!();
    }
    let start = row * width;
    let most = largest::<F>(x, start, width);
    let log_sum = log_sum::<F>(x, start, width, most);
    if UNIT_POS_X == 0 {
        let class = u32::cast_from(classes[row]) as usize;
        // Not a number where there is no such class: a constant would not get through every compiler.
        let mut loss = f32::sqrt(-1.0f32 - most * most);
        if class < width {
            loss = (most - f32::cast_from(x[start + class])) + log_sum;
            if weighted {
                loss *= f32::cast_from(weights[class]);
            }
        }
        losses[row] = F::cast_from(loss);
        log_sums[row] = most + log_sum;
    }
}

#[cube(launch_unchecked)]
pub(super) fn loss_of_shares<F: Float>(
    x: &[F],
    shares: &[F],
    weights: &[F],
    losses: &mut [F],
    log_sums: &mut [f32],
    rows: usize,
    width: usize,
    #[comptime] weighted: bool,
    #[define(F)] _dtype: ElemType,
) {
    let row = plane_row();
    if row >= rows {
        terminate!();
    }
    let start = row * width;
    let most = largest::<F>(x, start, width);
    let log_sum = log_sum::<F>(x, start, width, most);
    let mut loss = 0.0f32;
    let mut column = UNIT_POS_X as usize;
    while column < width {
        let mut share = f32::cast_from(shares[start + column]);
        if weighted {
            share *= f32::cast_from(weights[column]);
        }
        loss += share * ((most - f32::cast_from(x[start + column])) + log_sum);
        column += CUBE_DIM_X as usize;
    }
    let loss = plane_sum(loss);
    if UNIT_POS_X == 0 {
        losses[row] = F::cast_from(loss);
        log_sums[row] = most + log_sum;
    }
}

/// A unit for each logit.
#[cube(launch_unchecked)]
pub(super) fn gradient_of_classes<F: Float, I: Int>(
    x: &[F],
    log_sums: &[f32],
    classes: &[I],
    weights: &[F],
    dy: &[F],
    dx: &mut [F],
    rows: usize,
    width: usize,
    #[comptime] weighted: bool,
    #[define(F, I)] _dtypes: [ElemType; 2],
) {
    let row = plane_row();
    if row >= rows {
        terminate!();
    }
    let start = row * width;
    let class = u32::cast_from(classes[row]) as usize;
    let mut factor = f32::cast_from(dy[row]);
    if weighted && class < width {
        factor *= f32::cast_from(weights[class]);
    }
    let mut column = UNIT_POS_X as usize;
    while column < width {
        let distance = f32::cast_from(x[start + column]) - log_sums[row];
        let mut slope = distance.exp();
        if column == class {
            slope -= 1.0f32;
        }
        dx[start + column] = F::cast_from(factor * slope);
        column += CUBE_DIM_X as usize;
    }
}

#[cube(launch_unchecked)]
pub(super) fn gradient_of_shares<F: Float>(
    x: &[F],
    log_sums: &[f32],
    shares: &[F],
    weights: &[F],
    dy: &[F],
    dx: &mut [F],
    rows: usize,
    width: usize,
    #[comptime] weighted: bool,
    #[define(F)] _dtype: ElemType,
) {
    let row = plane_row();
    if row >= rows {
        terminate!();
    }
    let start = row * width;
    let mut total = 0.0f32;
    let mut column = UNIT_POS_X as usize;
    while column < width {
        let mut share = f32::cast_from(shares[start + column]);
        if weighted {
            share *= f32::cast_from(weights[column]);
        }
        total += share;
        column += CUBE_DIM_X as usize;
    }
    let total = plane_sum(total);
    let factor = f32::cast_from(dy[row]);
    let mut column = UNIT_POS_X as usize;
    while column < width {
        let mut share = f32::cast_from(shares[start + column]);
        if weighted {
            share *= f32::cast_from(weights[column]);
        }
        let distance = f32::cast_from(x[start + column]) - log_sums[row];
        dx[start + column] = F::cast_from(factor * (total * distance.exp() - share));
        column += CUBE_DIM_X as usize;
    }
}
