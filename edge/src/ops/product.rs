//! Matrix products: `MatMul`, `Gemm`, and what convolution is made of. The only place outside the web module that
//! hands pointers on.

use crate::error::{Limits, OpError};
use crate::tensor::Tensor;

/// A matrix inside a slice.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Matrix<'a> {
    pub values: &'a [f32],
    pub rows: usize,
    pub columns: usize,
    /// Distance from one row to the next.
    pub row_stride: usize,
    /// Distance from one column to the next.
    pub column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Row by row without gaps.
    pub fn new(values: &'a [f32], rows: usize, columns: usize) -> Self {
        Self { values, rows, columns, row_stride: columns, column_stride: 1 }
    }

    pub fn transposed(self) -> Self {
        Self {
            values: self.values,
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
        }
    }

    /// One past the last number it reaches.
    fn reach(&self) -> usize {
        reach(self.rows, self.columns, self.row_stride, self.column_stride)
    }
}

fn reach(rows: usize, columns: usize, row_stride: usize, column_stride: usize) -> usize {
    if rows == 0 || columns == 0 {
        return 0;
    }
    let last =
        (rows - 1).saturating_mul(row_stride).saturating_add((columns - 1).saturating_mul(column_stride));
    last.saturating_add(1)
}

/// `out = left · right`, or `out += left · right` with `add`; rows of `out` are `out_stride` apart.
///
/// # Panics
/// If a matrix reaches beyond its slice or the sides do not go together; callers have checked the shapes.
pub(crate) fn multiply(left: Matrix, right: Matrix, out: &mut [f32], out_stride: usize, add: bool) {
    let (rows, columns, inner) = (left.rows, right.columns, left.columns);
    assert_eq!(inner, right.rows, "sides that are summed over");
    assert!(
        left.reach() <= left.values.len() && right.reach() <= right.values.len(),
        "matrices in their slices"
    );
    assert!(
        out_stride >= columns && reach(rows, columns, out_stride, 1) <= out.len(),
        "the product in its slice, rows apart"
    );
    if rows == 0 || columns == 0 {
        return;
    }
    if inner == 0 {
        if !add {
            out.chunks_mut(out_stride).take(rows).for_each(|row| row[..columns].fill(0.0));
        }
        return;
    }
    #[expect(unsafe_code, reason = "the product library takes pointers")]
    // SAFETY: all three matrices lie in their slices (asserted above; strides of a slice fit isize), `out` is borrowed
    // mutably, its rows do not overlap, and every number is initialised.
    unsafe {
        gemm::gemm(
            rows,
            columns,
            inner,
            out.as_mut_ptr(),
            1,
            out_stride as isize,
            add,
            left.values.as_ptr(),
            left.column_stride as isize,
            left.row_stride as isize,
            right.values.as_ptr(),
            right.column_stride as isize,
            right.row_stride as isize,
            1.0f32,
            1.0f32,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// `MatMul`: products of the last two sides, the others matched as in arithmetic.
pub(crate) fn matmul(left: &Tensor, right: &Tensor, limits: &Limits) -> Result<Tensor, OpError> {
    let mismatch = || OpError::shapes("matrix product", &[left, right]);
    let (a, b) = (left.shape(), right.shape());
    let ([.., rows, inner], [.., right_inner, columns]) = (a, b) else { return Err(mismatch()) };
    let (rows, inner, columns) = (*rows, *inner, *columns);
    if inner != *right_inner {
        return Err(mismatch());
    }
    let (a_batch, b_batch) = (&a[..a.len() - 2], &b[..b.len() - 2]);
    let batch = super::arithmetic::broadcast(a_batch, b_batch).ok_or_else(mismatch)?;
    let mut shape = batch.clone();
    shape.extend([rows, columns]);
    let count = limits.count(&shape)?;
    limits.work(&[count, inner])?;
    let mut out = vec![0.0; count];
    let (x, y) = (left.floats()?, right.floats()?);
    if b_batch.iter().all(|&side| side == 1) {
        // One right side for all: a single tall product.
        let tall = count.checked_div(columns).unwrap_or(0);
        multiply(Matrix::new(x, tall, inner), Matrix::new(y, inner, columns), &mut out, columns, false);
    } else if count > 0 {
        let a_places = super::arithmetic::places(a_batch, &batch);
        let b_places = super::arithmetic::places(b_batch, &batch);
        for ((out, a), b) in out.chunks_exact_mut(rows * columns).zip(a_places).zip(b_places) {
            let (a, b) = (a * rows * inner, b * inner * columns);
            let left = Matrix::new(&x[a..a + rows * inner], rows, inner);
            let right = Matrix::new(&y[b..b + inner * columns], inner, columns);
            multiply(left, right, out, columns, false);
        }
    }
    Tensor::new(shape, out)
}

/// `Gemm`: `alpha · A · B + beta · C`, either side transposed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Gemm {
    pub alpha: f32,
    pub beta: f32,
    pub transpose_left: bool,
    pub transpose_right: bool,
}

impl Gemm {
    pub fn run(
        &self,
        left: &Tensor,
        right: &Tensor,
        offset: Option<&Tensor>,
        limits: &Limits,
    ) -> Result<Tensor, OpError> {
        let mismatch = || OpError::shapes("Gemm", &[left, right]);
        let ([a_rows, a_columns], [b_rows, b_columns]) = (left.shape(), right.shape()) else {
            return Err(mismatch());
        };
        let mut a = Matrix::new(left.floats()?, *a_rows, *a_columns);
        let mut b = Matrix::new(right.floats()?, *b_rows, *b_columns);
        if self.transpose_left {
            a = a.transposed();
        }
        if self.transpose_right {
            b = b.transposed();
        }
        if a.columns != b.rows {
            return Err(mismatch());
        }
        let shape = vec![a.rows, b.columns];
        let count = limits.count(&shape)?;
        limits.work(&[count, a.columns])?;
        let mut out = vec![0.0; count];
        multiply(a, b, &mut out, b.columns, false);
        if self.alpha != 1.0 {
            out.iter_mut().for_each(|value| *value *= self.alpha);
        }
        if let Some(offset) = offset {
            let add = offset.floats()?;
            if super::arithmetic::broadcast(offset.shape(), &shape).as_ref() != Some(&shape) {
                return Err(OpError::shapes("Gemm's offset", &[left, right, offset]));
            }
            let places = super::arithmetic::places(offset.shape(), &shape);
            for (value, place) in out.iter_mut().zip(places) {
                *value += self.beta * add[place];
            }
        }
        Tensor::new(shape, out)
    }
}
