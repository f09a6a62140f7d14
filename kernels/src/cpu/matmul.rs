//! Matrix products on one thread, with strides: no transposed copies.
#![expect(unsafe_code, reason = "the product's kernel takes addresses and strides")]

use std::marker::PhantomData;

use super::product::{Packed, Unit};
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

// SAFETY: a borrow of values that nobody writes meanwhile, whoever reads them.
unsafe impl Send for Matrix<'_> {}
// SAFETY: as above.
unsafe impl Sync for Matrix<'_> {}

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

    /// From one row to the next if the matrix lies [by rows](Self::by_rows), else from one column to the next.
    pub(super) fn line_stride(&self) -> usize {
        if self.by_rows() { self.row_stride as usize } else { self.column_stride as usize }
    }

    /// Where value `place` of a [line](Self::line) lies, to be read together with the following lines.
    pub(super) fn address(&self, line: usize, place: usize) -> *const f32 {
        self.start.wrapping_add(line * self.line_stride() + place)
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

/// A right operand of several products.
pub(super) struct Prepared<'a> {
    matrix: Matrix<'a>,
    /// For the [`Unit`] of the arithmetic.
    packed: Option<Packed>,
}

/// What becomes of the values a product is written over.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Write<'a> {
    /// Replaced; they need not have been written before.
    Replace,
    /// Added to.
    Add,
    /// Replaced, by the sum of the product and this row, as long as each of its rows. They need not have been written before.
    Row(&'a [f32]),
}

impl Write<'_> {
    /// The same for the columns from this one on.
    #[inline(always)]
    pub(super) fn starting_at(self, column: usize) -> Self {
        match self {
            Write::Row(values) => Write::Row(&values[column..]),
            other => other,
        }
    }
}

/// Where a product goes: to rows that start `row_stride` apart, times `scale`.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) start: *mut f32,
    pub(super) row_stride: usize,
    pub(super) scale: f32,
    pub(super) write: Write<'a>,
}

impl Target<'_> {
    /// The part that begins with this row and column.
    ///
    /// # Safety
    /// Inside the target.
    #[inline(always)]
    pub(super) unsafe fn part(self, row: usize, column: usize) -> Self {
        // SAFETY: the caller's contract.
        let start = unsafe { self.start.add(row * self.row_stride + column) };
        Self { start, write: self.write.starting_at(column), ..self }
    }
}

/// `target ← scale · left · right`, or as the target says.
///
/// # Safety
/// The target has room for all rows, nobody else reads or writes them meanwhile, and for [`Write::Add`] they have been
/// written before.
unsafe fn multiply(unit: Option<&Unit>, target: Target<'_>, left: Matrix<'_>, right: &Prepared<'_>) {
    let Prepared { matrix: right, packed } = right;
    assert_eq!(left.columns, right.rows, "inner sizes of a product agree");
    if let Some(unit) = unit.filter(|unit| unit.serves(left, *right)) {
        // SAFETY: the caller's contract.
        unsafe { unit.multiply(target, left, *right, packed.as_ref()) };
        return;
    }
    let Target { start, row_stride, scale, write } = target;
    // SAFETY: both operands were checked against their slices when made; the caller answers for the target.
    unsafe {
        if let Write::Row(values) = write {
            for row in 0..left.rows {
                std::ptr::copy_nonoverlapping(values.as_ptr(), start.add(row * row_stride), values.len());
            }
        }
        gemm::gemm(
            left.rows,
            right.columns,
            left.columns,
            start,
            1,
            row_stride as isize,
            write != Write::Replace,
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
    /// What computes products in it here; else the `gemm` crate does.
    fn unit(self) -> Option<&'static Unit> {
        match self {
            Arithmetic::F32 => Unit::of_this_processor(),
            #[cfg(target_arch = "x86_64")]
            Arithmetic::Bf16(found) => Unit::of_pairs(found),
            #[cfg(test)]
            Arithmetic::Emulated => Some(Unit::emulated_pairs()),
        }
    }

    /// A right operand of products with left operands of so many rows in all, copied once for all of them where that serves.
    pub(super) fn prepare(self, right: Matrix<'_>, rows: usize) -> Prepared<'_> {
        let unit = self.unit().filter(|unit| unit.packs_for(rows));
        Prepared { matrix: right, packed: unit.map(|unit| unit.pack(right)) }
    }

    /// `target ← scale · left · right` in this arithmetic, or as `write` says; its rows start `row_stride` apart.
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
        write: Write<'_>,
    ) {
        let right = Prepared { matrix: right, packed: None };
        // SAFETY: the caller's contract.
        unsafe { self.multiply_prepared(target, row_stride, left, &right, scale, write) };
    }

    /// [`Self::multiply`] by what was prepared in this arithmetic.
    ///
    /// # Safety
    /// As for [`multiply`].
    pub(super) unsafe fn multiply_prepared(
        self,
        target: *mut f32,
        row_stride: usize,
        left: Matrix<'_>,
        right: &Prepared<'_>,
        scale: f32,
        write: Write<'_>,
    ) {
        if let Write::Row(values) = write {
            assert_eq!(values.len(), right.matrix.columns, "a row is as long as the product's");
        }
        let target = Target { start: target, row_stride, scale, write };
        // SAFETY: the caller's contract.
        unsafe { multiply(self.unit(), target, left, right) };
    }
}
