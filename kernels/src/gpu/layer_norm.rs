//! Layer normalisation: a plane for each row, and for the gradients of `gamma` and `beta` a unit for each column.
//!
//! With `x̂ = (x − mean) / √(var + eps)` and `n` values in a row:
//!
//! ```text
//! dβ = Σ dy    dγ = Σ dy x̂    dx = (γ dy − Σ γ dy / n − x̂ Σ γ dy x̂ / n) / √(var + eps)
//! ```
//!
//! The backward pass computes mean and variance anew: it reads the row anyway, and the second time from the cache.
#![expect(unsafe_code, reason = "launches without bound checks, see the parent module")]

use burn::backend::tensor::FloatTensor;
use burn::tensor::DType;
use burn_cubecl::{CubeBackend, tensor::CubeTensor};
use cubecl::prelude::*;

use super::columns::{self, sum_over_y};
use super::{contiguous, elem, empty, empty_like, plane_each, plane_row};
use crate::layer_norm::{LayerNormGradients, LayerNormOps};

/// Rows whose part of `dγ` and `dβ` one cube sums up, at least.
const GROUP: usize = 128;
/// Groups of rows, at most.
const GROUPS: usize = 1024;

/// Mean of the row that begins at `start`.
#[cube]
fn mean<F: Float>(x: &[F], start: usize, #[comptime] width: usize) -> f32 {
    let mut sum = 0.0f32;
    let mut column = UNIT_POS_X as usize;
    while column < width {
        sum += f32::cast_from(x[start + column]);
        column += CUBE_DIM_X as usize;
    }
    plane_sum(sum) / comptime!(width as f32)
}

/// `1 / √(var + eps)` of that row.
#[cube]
fn scale<F: Float>(x: &[F], start: usize, mean: f32, eps: f32, #[comptime] width: usize) -> f32 {
    let mut sum = 0.0f32;
    let mut column = UNIT_POS_X as usize;
    while column < width {
        let distance = f32::cast_from(x[start + column]) - mean;
        sum += distance * distance;
        column += CUBE_DIM_X as usize;
    }
    1.0f32 / f32::sqrt(plane_sum(sum) / comptime!(width as f32) + eps)
}

#[cube(launch_unchecked)]
fn normalise<F: Float>(
    x: &[F],
    gamma: &[F],
    beta: &[F],
    y: &mut [F],
    rows: usize,
    eps: f32,
    #[comptime] width: usize,
    #[define(F)] _dtype: ElemType,
) {
    let row = plane_row();
    if row >= rows {
        terminate!();
    }
    let start = row * width;
    let mean = mean::<F>(x, start, width);
    let scale = scale::<F>(x, start, mean, eps, width);
    let mut column = UNIT_POS_X as usize;
    while column < width {
        let normal = (f32::cast_from(x[start + column]) - mean) * scale;
        y[start + column] =
            F::cast_from(normal * f32::cast_from(gamma[column]) + f32::cast_from(beta[column]));
        column += CUBE_DIM_X as usize;
    }
}

/// `dx`; leaves mean and scale of every row in `statistics`, `[rows, 2]`.
#[cube(launch_unchecked)]
fn input_gradient<F: Float>(
    x: &[F],
    gamma: &[F],
    dy: &[F],
    dx: &mut [F],
    statistics: &mut [f32],
    rows: usize,
    eps: f32,
    #[comptime] width: usize,
    #[define(F)] _dtype: ElemType,
) {
    let row = plane_row();
    if row >= rows {
        terminate!();
    }
    let start = row * width;
    let mean = mean::<F>(x, start, width);
    let scale = scale::<F>(x, start, mean, eps, width);
    if UNIT_POS_X == 0 {
        statistics[2 * row] = mean;
        statistics[2 * row + 1] = scale;
    }
    let mut plain = 0.0f32;
    let mut along = 0.0f32;
    let mut column = UNIT_POS_X as usize;
    while column < width {
        let gradient = f32::cast_from(dy[start + column]) * f32::cast_from(gamma[column]);
        plain += gradient;
        along += gradient * (f32::cast_from(x[start + column]) - mean) * scale;
        column += CUBE_DIM_X as usize;
    }
    let plain = plane_sum(plain) / comptime!(width as f32);
    let along = plane_sum(along) / comptime!(width as f32);
    let mut column = UNIT_POS_X as usize;
    while column < width {
        let gradient = f32::cast_from(dy[start + column]) * f32::cast_from(gamma[column]);
        let normal = (f32::cast_from(x[start + column]) - mean) * scale;
        dx[start + column] = F::cast_from(scale * (gradient - plain - normal * along));
        column += CUBE_DIM_X as usize;
    }
}

/// `dγ` and `dβ` over the rows of each group, `[groups, width]` each.
#[cube(launch_unchecked)]
fn weight_gradients<F: Float>(
    x: &[F],
    dy: &[F],
    statistics: &[f32],
    dgamma: &mut [f32],
    dbeta: &mut [f32],
    rows: usize,
    group: usize,
    #[comptime] width: usize,
    #[define(F)] _dtype: ElemType,
) {
    let column = (CUBE_POS_X * CUBE_DIM_X + UNIT_POS_X) as usize;
    let mut by_normal = 0.0f32;
    let mut plain = 0.0f32;
    if column < width {
        let first = CUBE_POS_Y as usize * group;
        let last = min(first + group, rows);
        let mut row = first + UNIT_POS_Y as usize;
        while row < last {
            let gradient = f32::cast_from(dy[row * width + column]);
            let distance = f32::cast_from(x[row * width + column]) - statistics[2 * row];
            by_normal += gradient * distance * statistics[2 * row + 1];
            plain += gradient;
            row += CUBE_DIM_Y as usize;
        }
    }
    let by_normal = sum_over_y(by_normal);
    let plain = sum_over_y(plain);
    if UNIT_POS_Y == 0 && column < width {
        dgamma[CUBE_POS_Y as usize * width + column] = by_normal;
        dbeta[CUBE_POS_Y as usize * width + column] = plain;
    }
}

impl LayerNormOps for CubeBackend {
    fn layer_norm_forward(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        eps: f32,
    ) -> FloatTensor<Self> {
        let (x, gamma, beta) = (contiguous(x), contiguous(gamma), contiguous(beta));
        let width = gamma.meta.num_elements();
        let rows = x.meta.num_elements() / width;
        let (y, client, dtype) = (empty_like(&x), x.client.clone(), elem(&x));
        let (count, dim) = plane_each(&x, rows);
        // SAFETY: `x` and `y` hold `rows` rows of `width` values, `gamma` and `beta` one (the face checks it).
        unsafe {
            normalise::launch_unchecked(
                &client,
                count,
                dim,
                x.into_buffer_arg(),
                gamma.into_buffer_arg(),
                beta.into_buffer_arg(),
                y.clone().into_buffer_arg(),
                rows,
                eps,
                width,
                dtype,
            );
        }
        y
    }

    fn layer_norm_backward(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        eps: f32,
    ) -> LayerNormGradients<Self> {
        let (x, gamma, dy) = (contiguous(x), contiguous(gamma), contiguous(dy));
        let width = gamma.meta.num_elements();
        let rows = x.meta.num_elements() / width;
        let group = rows.div_ceil(GROUPS).max(GROUP);
        let groups = rows.div_ceil(group);
        let (dx, client, dtype) = (empty_like(&x), x.client.clone(), elem(&x));
        let single = |shape: [usize; 2]| empty(&x, shape.into(), DType::F32);
        let statistics = single([rows, 2]);
        let partial: [CubeTensor; 2] = [single([groups, width]), single([groups, width])];
        let (count, dim) = plane_each(&x, rows);
        // SAFETY: `x`, `dy` and `dx` hold `rows` rows of `width` values, `gamma` one, `statistics` two values for each row.
        unsafe {
            input_gradient::launch_unchecked(
                &client,
                count,
                dim,
                x.clone().into_buffer_arg(),
                gamma.clone().into_buffer_arg(),
                dy.clone().into_buffer_arg(),
                dx.clone().into_buffer_arg(),
                statistics.clone().into_buffer_arg(),
                rows,
                eps,
                width,
                dtype,
            );
        }
        let (count, dim) = columns::launch(width, groups);
        let [by_normal, plain] = partial;
        // SAFETY: as above; the sums hold a row of `width` values for each group.
        unsafe {
            weight_gradients::launch_unchecked(
                &client,
                count,
                dim,
                x.into_buffer_arg(),
                dy.into_buffer_arg(),
                statistics.into_buffer_arg(),
                by_normal.clone().into_buffer_arg(),
                plain.clone().into_buffer_arg(),
                rows,
                group,
                width,
                dtype,
            );
        }
        let [gamma, beta] = [by_normal, plain].map(|partial| columns::sum(partial, width, gamma.dtype));
        LayerNormGradients { x: dx, gamma, beta }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor};

    use super::super::serves;
    use super::super::testing::{assert_agree, device, narrow_types, read, rough, weighted};
    use super::DType;
    use crate::{layer_norm, layer_norm_reference};

    /// Output and the three gradients.
    fn run(
        shape: [usize; 3],
        (device, dtype): (&Device, DType),
        norm: fn(Tensor<3>, Tensor<1>, Tensor<1>, f32) -> Tensor<3>,
    ) -> Vec<Vec<f32>> {
        let device = device.clone().autodiff();
        let place = (&device, dtype);
        let x = rough(shape, 1, place).require_grad();
        let gamma = rough([shape[2]], 2, place).require_grad();
        let beta = rough([shape[2]], 3, place).require_grad();
        let y = norm(x.clone(), gamma.clone(), beta.clone(), 1e-6);
        let grads = weighted(y.clone(), rough(shape, 4, place)).backward();
        let gradient = |t: &Tensor<1>| read(t.grad(&grads).expect("tracked"));
        vec![read(y.inner()), read(x.grad(&grads).expect("tracked")), gradient(&gamma), gradient(&beta)]
    }

    #[test]
    fn layer_norm_on_a_gpu_equals_its_reference() {
        let (gpu, _held) = device();
        assert!(serves(&rough([1], 1, (&gpu, DType::F32))));
        for shape in [[1, 1, 5], [2, 3, 33], [3, 65, 192], [1, 700, 7], [1, 1, 1025], [2, 150, 40]] {
            let expected = run(shape, (&Device::flex(), DType::F32), layer_norm_reference);
            // Narrow rows can have a variance near 0, which magnifies rounding.
            let tolerance = if shape[2] < 8 { 1e-3 } else { 1e-5 };
            let found = run(shape, (&gpu, DType::F32), layer_norm);
            assert_agree(&format!("{shape:?}"), &found, &expected, tolerance);
            for dtype in narrow_types(&gpu) {
                let found = run(shape, (&gpu, dtype), layer_norm);
                assert_agree(&format!("{shape:?} {dtype:?}"), &found, &expected, 1e-2);
            }
        }
    }
}
