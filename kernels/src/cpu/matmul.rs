//! Matrix products on one thread, with strides: no transposed copies.
#![expect(unsafe_code, reason = "the product's kernel takes addresses and strides")]

use std::marker::PhantomData;

use crate::products::Arithmetic;

/// A matrix to read.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    start: *const f32,
    rows: usize,
    columns: usize,
    row_stride: isize,
    column_stride: isize,
    values: PhantomData<&'a [f32]>,
}

impl<'a> Matrix<'a> {
    /// `rows` × `columns` from `values`, whose rows start `row_stride` apart.
    pub(super) fn new(values: &'a [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        assert!(
            rows == 0 || columns == 0 || (rows - 1) * row_stride + columns <= values.len(),
            "a {rows} × {columns} matrix with stride {row_stride} does not fit in {} values",
            values.len()
        );
        let (row_stride, column_stride) = (row_stride as isize, 1);
        Self { start: values.as_ptr(), rows, columns, row_stride, column_stride, values: PhantomData }
    }

    /// The transposed matrix, of the same memory.
    pub(super) fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }
}

/// What a product needs that reads the values itself.
#[cfg(any(test, target_arch = "x86_64"))]
impl<'a> Matrix<'a> {
    /// Number of rows.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub(super) fn columns(&self) -> usize {
        self.columns
    }

    /// Whether the values of a row lie side by side; else those of a column do.
    pub(super) fn by_rows(&self) -> bool {
        self.column_stride == 1
    }

    /// The values `range` of row `index` if the matrix lies [by rows](Self::by_rows), else of column `index`.
    #[inline(always)]
    pub(super) fn line(&self, index: usize, range: std::ops::Range<usize>) -> &'a [f32] {
        let (lines, length, stride) = match self.by_rows() {
            true => (self.rows, self.columns, self.row_stride),
            false => (self.columns, self.rows, self.column_stride),
        };
        assert!(index < lines && range.start <= range.end && range.end <= length, "inside the matrix");
        // SAFETY: inside the matrix, which was checked against its slice when made; lines are contiguous.
        unsafe {
            let start = self.start.add(index * stride as usize + range.start);
            std::slice::from_raw_parts(start, range.len())
        }
    }
}

/// What becomes of the values a product is written over.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Write {
    /// Replaced; they need not have been written before.
    Replace,
    /// Added to.
    Add,
}

/// `target ← scale · left · right`, or added to `target`; its rows start `row_stride` apart.
///
/// # Safety
/// `target` has room for all rows, nobody else reads or writes them meanwhile, and for [`Write::Add`] they have been
/// written before.
pub(super) unsafe fn multiply(
    target: *mut f32,
    row_stride: usize,
    left: Matrix<'_>,
    right: Matrix<'_>,
    scale: f32,
    write: Write,
) {
    assert_eq!(left.columns, right.rows, "inner sizes of a product agree");
    // SAFETY: both operands were checked against their slices when made; the caller answers for the target.
    unsafe {
        gemm::gemm(
            left.rows,
            right.columns,
            left.columns,
            target,
            1,
            row_stride as isize,
            write == Write::Add,
            left.start,
            left.column_stride,
            left.row_stride,
            right.start,
            right.column_stride,
            right.row_stride,
            1.0,
            scale,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

impl Arithmetic {
    /// [`multiply`] in this arithmetic.
    ///
    /// # Safety
    /// As for [`multiply`].
    pub(super) unsafe fn multiply(
        self,
        target: *mut f32,
        row_stride: usize,
        left: Matrix<'_>,
        right: Matrix<'_>,
        scale: f32,
        write: Write,
    ) {
        // SAFETY: the caller's contract; `Bf16` is made where its instructions are.
        unsafe {
            match self {
                Arithmetic::F32 => multiply(target, row_stride, left, right, scale, write),
                #[cfg(target_arch = "x86_64")]
                Arithmetic::Bf16(_) => super::bf16::multiply(target, row_stride, left, right, scale, write),
                #[cfg(test)]
                Arithmetic::Emulated => {
                    super::bf16::multiply_emulated(target, row_stride, left, right, scale, write)
                }
            }
        }
    }
}
