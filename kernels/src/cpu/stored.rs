//! Matrices in memory, and products of them against sums in `f64`, for tests.

use super::matmul::{Matrix, Write};
use super::testing::noise;

/// Between the rows of the target, where nothing may be written.
const UNTOUCHED: f32 = 77.0;

/// A matrix in memory.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) values: Vec<f32>,
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) stride: usize,
    pub(super) transposed: bool,
}

impl Stored {
    /// Of `rows` × `columns`, stored with `gap` values between lines; as its transpose if `transposed`.
    pub(super) fn new(rows: usize, columns: usize, gap: usize, transposed: bool, seed: u64) -> Self {
        let (lines, length) = if transposed { (columns, rows) } else { (rows, columns) };
        let stride = length + gap;
        Self { values: noise(lines * stride, seed), rows, columns, stride, transposed }
    }

    pub(super) fn matrix(&self) -> Matrix<'_> {
        match self.transposed {
            true => Matrix::new(&self.values, self.columns, self.rows, self.stride).transposed(),
            false => Matrix::new(&self.values, self.rows, self.columns, self.stride),
        }
    }

    fn at(&self, row: usize, column: usize) -> f32 {
        let (line, place) = if self.transposed { (column, row) } else { (row, column) };
        self.values[line * self.stride + place]
    }
}

/// All ways of writing.
pub(super) fn writes(row: &[f32]) -> [Write<'_>; 3] {
    [Write::Replace, Write::Add, Write::Row(row)]
}

/// A target of rows with `gap` values between them, before `multiply` was called with it and its stride, and after.
pub(super) fn multiply(
    [left, right]: [&Stored; 2],
    gap: usize,
    multiply: impl FnOnce(*mut f32, usize, Matrix<'_>, Matrix<'_>),
) -> [Vec<f32>; 2] {
    let stride = right.columns + gap;
    let mut before = noise(left.rows * stride, 3);
    for row in before.chunks_exact_mut(stride.max(1)) {
        row[right.columns..].fill(UNTOUCHED);
    }
    let mut target = before.clone();
    multiply(target.as_mut_ptr(), stride, left.matrix(), right.matrix());
    [before, target]
}

/// Asserts that `after` is what `write` makes of `before` and the product of operands that were `rounded` first, but for one
/// rounding of each addition.
pub(super) fn assert_product(
    name: &str,
    [left, right]: [&Stored; 2],
    rounded: fn(f32) -> f32,
    scale: f32,
    write: Write<'_>,
    [before, after]: &[Vec<f32>; 2],
) {
    let stride = before.len() / left.rows.max(1);
    for (place, (&before, &found)) in before.iter().zip(after).enumerate() {
        let (row, column) = (place / stride, place % stride);
        if column >= right.columns {
            assert_eq!(found, UNTOUCHED, "{name} wrote between the rows");
            continue;
        }
        let (mut sum, mut size) = (0.0, 0.0);
        for inner in 0..left.columns {
            let [left, right] = [left.at(row, inner), right.at(inner, column)].map(rounded);
            sum += f64::from(left) * f64::from(right);
            size += (f64::from(left) * f64::from(right)).abs();
        }
        let start = match write {
            Write::Replace => 0.0,
            Write::Add => f64::from(before),
            Write::Row(values) => f64::from(values[column]),
        };
        let expected = start + f64::from(scale) * sum;
        // Each addition rounds once, by 2⁻²⁴ of at most `size`.
        let bound = (size * f64::from(scale.abs()) + start.abs()) * (left.columns + 2) as f64 / 2f64.powi(24);
        let error = (f64::from(found) - expected).abs();
        assert!(error <= bound, "{name} [{row}, {column}]: {found}, expected {expected}");
    }
}
