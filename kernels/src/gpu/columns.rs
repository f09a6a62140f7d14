//! Sums over the rows of a matrix, the last part of many gradients.
#![expect(unsafe_code, reason = "launches without bound checks, see the parent module")]

use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{elem, empty};

/// Columns of a cube: a plane reads a piece of a row.
pub(super) const COLUMNS: u32 = 32;
/// Rows a cube works on at a time.
pub(super) const ROWS: u32 = 8;

/// `out[c] = Σ partial[r, c]`, one column for each unit in `x`.
#[cube(launch_unchecked)]
fn sum_rows<F: Float>(
    partial: &[f32],
    out: &mut [F],
    rows: usize,
    #[comptime] columns: usize,
    #[define(F)] _dtype: ElemType,
) {
    let column = CUBE_POS * CUBE_DIM_X as usize + UNIT_POS_X as usize;
    let mut sum = 0.0f32;
    if column < columns {
        let mut row = UNIT_POS_Y as usize;
        while row < rows {
            sum += partial[row * columns + column];
            row += CUBE_DIM_Y as usize;
        }
    }
    let sum = sum_over_y(sum);
    if UNIT_POS_Y == 0 && column < columns {
        out[column] = F::cast_from(sum);
    }
}

/// The sum of `value` over the units of a cube that differ in `y` only, for those with `y = 0`. All units have to come by.
#[cube]
pub(super) fn sum_over_y(value: f32) -> f32 {
    let mut shared = Shared::<[f32]>::new_slice(comptime!((COLUMNS * ROWS) as usize));
    // Two sums one after the other may share the memory.
    sync_cube();
    shared[UNIT_POS as usize] = value;
    sync_cube();
    let mut sum = 0.0f32;
    if UNIT_POS_Y == 0 {
        for y in 0..ROWS {
            sum += shared[(y * COLUMNS + UNIT_POS_X) as usize];
        }
    }
    sum
}

/// Sums over the rows of `partial`, `[rows, columns]` of `f32` for a vector of `columns` values of type `dtype`.
pub(super) fn sum(partial: CubeTensor, columns: usize, dtype: DType) -> CubeTensor {
    let rows = partial.meta.num_elements() / columns;
    let out = empty(&partial, [columns].into(), dtype);
    let (count, dim) = launch(columns, 1);
    let client = partial.client.clone();
    // SAFETY: `partial` holds `rows · columns` values, `out` `columns`; the kernel looks at no others.
    unsafe {
        sum_rows::launch_unchecked(
            &client,
            count,
            dim,
            partial.into_buffer_arg(),
            out.clone().into_buffer_arg(),
            rows,
            columns,
            elem(&out),
        );
    }
    out
}

/// A launch of [`COLUMNS`] × [`ROWS`] units for every piece of the columns (`x`) and each of `groups` groups of rows (`y`).
pub(super) fn launch(columns: usize, groups: usize) -> (CubeCount, CubeDim) {
    let pieces = (columns as u32).div_ceil(COLUMNS);
    (CubeCount::Static(pieces, groups as u32, 1), CubeDim::new_2d(COLUMNS, ROWS))
}
