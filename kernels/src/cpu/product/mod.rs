//! Products of matrices on processors with AVX2 or AVX-512, in `f32`, or of operands rounded to bf16 where the processor multiplies
//! pairs of those.
//!
//! The columns of the result are taken in strips of two vectors. A strip of the right operand, at most [`DEPTH`] values deep,
//! lies side by side in memory and stays in the first-level cache while all rows pass by, as many at a time as there are
//! registers for their sums: two vectors of the right operand and one value of the left, spread over a vector, feed twelve (AVX2)
//! or 24 (AVX-512) independent chains, which hides the latency of the multiply-add. The left operand is read where it lies if its
//! rows are contiguous, for it is read a value at a time; else it is copied into panels. A right operand of many products, a
//! weight, is copied once for all of them ([`Packed`]).
//!
//! Pairs of neighbours on the inner axis, rounded, take the place of one `f32` in copies of both operands, the left one's too; from
//! there on only the multiply-add is another. Operands and result are `f32` in memory and the sums are as well: nobody else needs to
//! know.
//!
//! A row of the result depends on its own row of the left operand alone, not on how many others there are: what is not a whole
//! tile is computed as one, in memory of its own.
#![cfg_attr(
    not(any(test, target_arch = "x86_64")),
    expect(dead_code, reason = "other processors have no unit yet, and the `gemm` crate")
)]
#![expect(
    unsafe_code,
    reason = "functions compiled for instructions found at run time; writing through addresses"
)]

mod copies;
mod lanes;
mod pairs;
mod rounds;
#[cfg(test)]
mod tests;
mod tile;
mod units;

use std::cell::Cell;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use self::copies::{copy_columns, copy_rows, copy_strip, panel_size};
use self::lanes::BLOCK;
use self::tile::{Ahead, LINE, Rows, Strip, Tiles};
use super::Pieces;
use super::matmul::{Matrix, Target, Write};

/// Places on the inner axis between two visits to the result, at most: half of the first-level cache with AVX2. With AVX-512 more
/// than all of it, which is no slower: the second level is read as fast as a strip is used.
const DEPTH: usize = 288;

thread_local! {
    /// Copies of this thread, kept from call to call.
    static BUFFERS: Cell<Buffers> = const { Cell::new(Buffers { panels: Vec::new(), strip: Vec::new(), edge: Vec::new() }) };
}

/// The memory of what was [packed](Unit::pack) last.
static PACKED: Mutex<Vec<f32>> = Mutex::new(Vec::new());

/// Puts other memory in the place of that, which it gives back.
fn exchange_packed(values: Vec<f32>) -> Vec<f32> {
    std::mem::replace(&mut *PACKED.lock().unwrap_or_else(PoisonError::into_inner), values)
}

#[derive(Default)]
struct Buffers {
    /// Of the left operand.
    panels: Vec<f32>,
    /// Of the right operand.
    strip: Vec<f32>,
    /// Tiles of the result that are not all there.
    edge: Vec<f32>,
}

/// What computes tiles on this processor.
pub(super) struct Unit {
    /// Rows of a tile.
    rows: usize,
    /// Columns of a tile.
    width: usize,
    /// See [`lanes::Lanes::VALUES`].
    values: usize,
    tiles: Tiles,
    transpose: Transpose,
    /// How pairs are copied, if that is what it multiplies.
    pairs: Option<pairs::Copies>,
}

/// See [`lanes::Lanes::transpose`], for `count` blocks whose lines follow each other.
type Transpose = unsafe fn(count: usize, from: *const f32, stride: usize, to: *mut f32, to_stride: usize);

impl Unit {
    /// Places that so many values of the inner axis take.
    fn places(&self, values: usize) -> usize {
        values.div_ceil(self.values)
    }

    /// The inner axis, cut between two visits to the result.
    fn blocks(&self, inner: usize) -> impl Iterator<Item = Range<usize>> {
        let blocks = Pieces::new(inner, DEPTH * self.values, self.values);
        (0..blocks.count()).map(move |block| blocks.range(block))
    }

    /// Whether a right operand of products of so many rows in all is worth a copy for all of them.
    pub(super) fn packs_for(&self, rows: usize) -> bool {
        rows > self.rows
    }

    /// Whether there is something to compute and to sum. Few rows are served as well, as a tile that is not all there: else their
    /// sums would be another's, in another order.
    pub(super) fn serves(&self, left: Matrix<'_>, right: Matrix<'_>) -> bool {
        left.rows() > 0 && left.columns() > 0 && right.columns() > 0
    }

    /// [`BLOCK`] lines of a matrix from `first` on, transposed: what belongs in place `p` of line `l` goes to `to[p · to_stride + l]`.
    fn transpose(
        &self,
        matrix: Matrix<'_>,
        first: usize,
        range: Range<usize>,
        to: &mut [f32],
        to_stride: usize,
    ) {
        let lines: [&[f32]; BLOCK] = std::array::from_fn(|line| matrix.line(first + line, range.clone()));
        let (from, stride) = (matrix.address(first, range.start), matrix.line_stride());
        let depth = self.places(range.len());
        assert!(depth == 0 || to.len() >= (depth - 1) * to_stride + BLOCK, "room for all lines");
        let whole = range.len() / (BLOCK * self.values);
        // SAFETY: there is room, and so many lines of this length, `stride` apart.
        unsafe { (self.transpose)(whole, from, stride, to.as_mut_ptr(), to_stride) };
        for place in whole * BLOCK..depth {
            for (to, line) in to[place * to_stride..].iter_mut().zip(lines) {
                *to = self.place(line, place);
            }
        }
    }

    /// What belongs in this place of a line.
    fn place(&self, line: &[f32], place: usize) -> f32 {
        match self.values {
            1 => line[place],
            _ => pairs::place_of(line[2 * place], line.get(2 * place + 1).copied().unwrap_or(0.0)),
        }
    }

    /// The columns of a strip of the right operand.
    fn columns(&self, strip: usize, columns: usize) -> Range<usize> {
        strip * self.width..((strip + 1) * self.width).min(columns)
    }

    /// A right operand, copied for several products, on all threads.
    pub(super) fn pack(&self, right: Matrix<'_>) -> Packed {
        let strips = right.columns().div_ceil(self.width);
        let mut values = exchange_packed(Vec::new());
        let size = strips * self.width * self.places(right.rows());
        let mut rest = room(&mut values, size);
        for inner in self.blocks(right.rows()) {
            let depth = self.places(inner.len());
            let (own, after) = rest.split_at_mut(strips * self.width * depth);
            own.par_chunks_exact_mut(self.width * depth).enumerate().for_each(|(strip, to)| {
                copy_strip(self, right, inner.clone(), self.columns(strip, right.columns()), to)
            });
            rest = after;
        }
        Packed(values)
    }

    /// `target ← scale · left · right`, or as the target says, for operands that this unit [serves](Self::serves). `packed` is made
    /// of `right`, if it is given.
    ///
    /// # Safety
    /// As for [`super::matmul::multiply`].
    pub(super) unsafe fn multiply(
        &self,
        mut target: Target<'_>,
        left: Matrix<'_>,
        right: Matrix<'_>,
        packed: Option<&Packed>,
    ) {
        assert_eq!(left.columns(), right.rows(), "inner sizes of a product agree");
        let mut buffers = BUFFERS.take();
        let strips = right.columns().div_ceil(self.width);
        for inner in self.blocks(left.columns()) {
            let depth = self.places(inner.len());
            let [whole, last] = self.left(left, inner.clone(), &mut buffers.panels);
            for strip in 0..strips {
                let (columns, size) = (self.columns(strip, right.columns()), self.width * depth);
                let values = match packed {
                    Some(packed) => {
                        let start = self.places(inner.start) * strips * self.width + strip * size;
                        &packed.values()[start..start + size]
                    }
                    None => {
                        let values = room(&mut buffers.strip, size);
                        copy_strip(self, right, inner.clone(), columns.clone(), values);
                        values
                    }
                };
                let count = inner.len().div_ceil((left.rows() / self.rows).max(1));
                let next = match packed {
                    // The next strip follows, or the first of the next block.
                    Some(_) => Ahead { start: values.as_ptr_range().end, apart: self.width, count },
                    None if right.by_rows() && columns.end < right.columns() => Ahead {
                        start: right.address(inner.start, columns.end),
                        apart: right.line_stride(),
                        count,
                    },
                    None => Ahead::NONE,
                };
                let strip = Strip { start: values.as_ptr(), depth, next };
                // SAFETY: both are parts of the target, which the caller answers for, and `left` says where their rows lie.
                unsafe {
                    let rows = left.rows() / self.rows * self.rows;
                    self.strip(
                        whole,
                        strip,
                        target.part(0, columns.start),
                        [rows, columns.len()],
                        &mut buffers.edge,
                    );
                    if rows < left.rows() {
                        let size = [left.rows() - rows, columns.len()];
                        self.strip(last, strip, target.part(rows, columns.start), size, &mut buffers.edge);
                    }
                }
            }
            target.write = Write::Add;
        }
        BUFFERS.set(buffers);
    }

    /// Where the inner loop finds the values `inner` of the left operand's whole tiles, and of the rows behind them.
    fn left(&self, left: Matrix<'_>, inner: Range<usize>, panels: &mut Vec<f32>) -> [Rows; 2] {
        let (rows, depth) = (left.rows(), self.places(inner.len()));
        let (whole, size) = (rows / self.rows, panel_size(self, depth));
        let in_panels =
            |start: &[f32]| Rows { start: start.as_ptr(), tile: size, row: 1, step: self.rows, apart: LINE };
        if let (Some(pairs), true) = (&self.pairs, left.by_rows()) {
            let copy = room(panels, rows.next_multiple_of(self.rows) * depth);
            pairs.rows(self, left, inner, copy);
            let rows =
                Rows { start: copy.as_ptr(), tile: self.rows * depth, row: depth, step: 1, apart: depth };
            [rows, Rows { start: rows.start.wrapping_add(whole * rows.tile), ..rows }]
        } else if left.by_rows() {
            let panel = room(panels, size);
            copy_rows(self, left, whole * self.rows..rows, inner.clone(), panel);
            let (start, row) = (left.address(0, inner.start), left.line_stride());
            [Rows { start, tile: self.rows * row, row, step: 1, apart: row }, in_panels(panel)]
        } else {
            let panels = room(panels, rows.div_ceil(self.rows) * size);
            copy_columns(self, left, inner, panels);
            let last = whole * size;
            [in_panels(panels), in_panels(&panels[last.min(panels.len())..])]
        }
    }

    /// `rows` by `columns` of the product with one strip.
    ///
    /// # Safety
    /// `target` has so many rows and columns, under the contract of [`tile::tiles`]; `left` as many rows, filled up to whole tiles.
    unsafe fn strip(
        &self,
        left: Rows,
        strip: Strip,
        target: Target<'_>,
        [rows, columns]: [usize; 2],
        edge: &mut Vec<f32>,
    ) {
        let count = rows.div_ceil(self.rows);
        if rows.is_multiple_of(self.rows) && columns == self.width {
            // SAFETY: whole tiles, and the caller's contract.
            unsafe { (self.tiles)(count, left, strip, target) };
            return;
        }
        // Whole tiles in memory of their own, for the part that is there.
        let edge = room(edge, (count * self.rows + 1) * self.width);
        let (filler, edge) = edge.split_at_mut(self.width);
        let lines = |edge: &mut [f32], copy: &dyn Fn(*mut f32, &mut [f32])| {
            for (row, line) in edge.chunks_exact_mut(self.width).take(rows).enumerate() {
                // SAFETY: a row of the target.
                copy(unsafe { target.start.add(row * target.row_stride) }, &mut line[..columns]);
            }
        };
        let write = match target.write {
            Write::Replace => Write::Replace,
            Write::Add => {
                // SAFETY: `columns` values of the target, which have been written.
                lines(edge, &|from, line| unsafe {
                    std::ptr::copy_nonoverlapping(from, line.as_mut_ptr(), columns)
                });
                Write::Add
            }
            Write::Row(values) => {
                filler[..columns].copy_from_slice(&values[..columns]);
                Write::Row(filler)
            }
        };
        // SAFETY: the edge has whole tiles, written (once a buffer has grown) and nobody else's; the instructions are there.
        unsafe {
            let target = Target { start: edge.as_mut_ptr(), row_stride: self.width, write, ..target };
            (self.tiles)(count, left, strip, target);
        }
        // SAFETY: `columns` values of the target.
        lines(edge, &|to, line| unsafe { std::ptr::copy_nonoverlapping(line.as_ptr(), to, columns) });
    }
}

/// A right operand as [`Unit`] reads it: for each block of the inner axis one strip after the other.
pub(super) struct Packed(Vec<f32>);

impl Packed {
    /// From a cache line's start, and what else there is room for.
    fn values(&self) -> &[f32] {
        &self.0[first_line(&self.0)..]
    }
}

impl Drop for Packed {
    fn drop(&mut self) {
        exchange_packed(std::mem::take(&mut self.0));
    }
}

/// `size` values of a buffer that grows to it, from a cache line's start: a vector across two lines takes two loads. What they
/// hold is not defined.
fn room(buffer: &mut Vec<f32>, size: usize) -> &mut [f32] {
    if buffer.len() < size + LINE {
        buffer.resize(size + LINE, 0.0);
    }
    let start = first_line(buffer);
    &mut buffer[start..start + size]
}

/// The first value at the start of a cache line.
fn first_line(buffer: &[f32]) -> usize {
    buffer.as_ptr().align_offset(LINE * size_of::<f32>()).min(LINE)
}
