//! Copies of operands rounded to bf16, two values of the inner axis in the place of one `f32`: what was copied without rounding in
//! [`super::copies`].
#![expect(
    unsafe_code,
    reason = "unchecked vector loads and stores, in functions for instructions found at run time"
)]

use std::ops::Range;

use super::Unit;
use super::lanes::Pairing;
use super::tile::VECTORS;
use crate::cpu::bf16::pair;
use crate::cpu::matmul::Matrix;

/// Rows of a tile of pairs: as many sums as with AVX-512 in `f32`.
pub(super) const ROWS: usize = 12;

/// A pair as the inner loop finds it.
#[inline(always)]
pub(super) fn place_of(first: f32, second: f32) -> f32 {
    f32::from_bits(pair(first, second))
}

/// The copies' inner loops, compiled for the processor's instructions.
pub(super) struct Copies {
    /// So many vectors of a line: of neighbours, from the first address to the second.
    neighbours: unsafe fn(count: usize, from: *const f32, to: *mut f32),
    /// So many lines of a strip: of two rows each, which start `stride` apart.
    strip: unsafe fn(count: usize, from: *const f32, stride: usize, to: *mut f32),
    /// A tile's rows of two lines, for so many tiles, whose panels start `size` apart.
    panels: unsafe fn(count: usize, lines: [*const f32; 2], to: *mut f32, size: usize),
    /// Values that one vector of neighbours takes.
    vector: usize,
}

/// # Safety
/// The instructions of `L` are there, and all values; here and below.
#[inline(always)]
unsafe fn neighbours<L: Pairing>(count: usize, from: *const f32, to: *mut f32) {
    for vector in 0..count {
        // SAFETY: the caller's contract, here and below.
        unsafe { L::store(L::neighbours(from.add(2 * vector * L::LANES)), to.add(vector * L::LANES)) };
    }
}

#[inline(always)]
unsafe fn strip<L: Pairing>(count: usize, from: *const f32, stride: usize, to: *mut f32) {
    const { assert!(L::LANES == 16, "a whole vector is zipped") };
    for place in 0..count {
        for first in (0..VECTORS * L::LANES).step_by(L::LANES) {
            // SAFETY: see above.
            unsafe {
                let from = from.add(2 * place * stride + first);
                L::store(L::zip::<16>(from, from.add(stride)), to.add(place * VECTORS * L::LANES + first));
            }
        }
    }
}

#[inline(always)]
unsafe fn panels<L: Pairing, const R: usize>(
    count: usize,
    [first, second]: [*const f32; 2],
    to: *mut f32,
    size: usize,
) {
    for tile in 0..count {
        // SAFETY: see above.
        unsafe {
            let pairs = L::zip::<R>(first.add(tile * R), second.add(tile * R));
            L::store_some::<R>(pairs, to.add(tile * size));
        }
    }
}

impl Copies {
    #[cfg(target_arch = "x86_64")]
    pub(super) const fn of_avx512_bf16() -> Self {
        use super::lanes::{Lanes as _, x86::Avx512Bf16 as Vectors};
        /// `$name` for the processor's instructions.
        macro_rules! compiled {
            ($name:ident, $($generics:tt),* => $($argument:ident: $kind:ty),*) => {{
                #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx512bf16,avx2,fma")]
                unsafe fn compiled($($argument: $kind),*) {
                    // SAFETY: the caller's contract; the instructions are those of this function.
                    unsafe { $name::<$($generics),*>($($argument),*) }
                }
                compiled
            }};
        }
        Self {
            neighbours: compiled!(neighbours, Vectors => count: usize, from: *const f32, to: *mut f32),
            strip: compiled!(strip, Vectors => count: usize, from: *const f32, stride: usize, to: *mut f32),
            panels: compiled!(panels, Vectors, ROWS => count: usize, lines: [*const f32; 2], to: *mut f32, size: usize),
            vector: 2 * Vectors::LANES,
        }
    }

    /// The same in plain arithmetic.
    #[cfg(test)]
    pub(super) const fn emulated() -> Self {
        use super::lanes::{Emulated, Lanes as _};
        type Plain = Emulated<true>;
        Self {
            neighbours: neighbours::<Plain>,
            strip: strip::<Plain>,
            panels: panels::<Plain, ROWS>,
            vector: 2 * Plain::LANES,
        }
    }

    /// See [`super::copies::copy_columns`].
    pub(super) fn columns(
        &self,
        unit: &Unit,
        left: Matrix<'_>,
        inner: Range<usize>,
        size: usize,
        panels: &mut [f32],
    ) {
        let rows = left.rows();
        assert!(panels.len() >= rows.div_ceil(unit.rows) * size, "room for all panels");
        assert!(unit.rows == ROWS && size >= ROWS * unit.places(inner.len()), "room for all places in each");
        for (place, k) in inner.clone().step_by(2).enumerate() {
            let first = left.line(k, 0..rows);
            let second = (k + 1 < inner.end).then(|| left.line(k + 1, 0..rows));
            let start = place * unit.rows;
            let mut done = 0;
            if let Some(second) = second {
                let whole = rows / unit.rows;
                // SAFETY: both lines have rows for so many tiles, each of which has a panel.
                unsafe {
                    let to = panels.as_mut_ptr().add(start);
                    (self.panels)(whole, [first.as_ptr(), second.as_ptr()], to, size);
                }
                done = whole * unit.rows;
            }
            for row in done..rows {
                let second = second.map_or(0.0, |second| second[row]);
                panels[row / unit.rows * size + start + row % unit.rows] = place_of(first[row], second);
            }
        }
    }

    /// A left operand whose rows are contiguous, one row after the other.
    pub(super) fn rows(&self, unit: &Unit, left: Matrix<'_>, inner: Range<usize>, to: &mut [f32]) {
        let places = unit.places(inner.len());
        let whole = inner.len() / self.vector;
        for (row, to) in to.chunks_exact_mut(places).take(left.rows()).enumerate() {
            let line = left.line(row, inner.clone());
            // SAFETY: whole vectors of the line, and room for as many pairs.
            unsafe { (self.neighbours)(whole, line.as_ptr(), to.as_mut_ptr()) };
            for (place, to) in to.iter_mut().enumerate().skip(whole * self.vector / 2) {
                *to = unit.place(line, place);
            }
        }
    }

    /// See [`super::copies::copy_strip`], of a right operand whose rows are contiguous.
    pub(super) fn strip(
        &self,
        unit: &Unit,
        right: Matrix<'_>,
        inner: Range<usize>,
        own: Range<usize>,
        strip: &mut [f32],
    ) {
        let width = unit.width;
        let mut done = 0;
        if own.len() == width {
            done = inner.len() / 2;
            assert!(own.end <= right.columns() && inner.end <= right.rows() && strip.len() >= done * width);
            // SAFETY: inside of the matrix and of the strip.
            unsafe {
                let from = right.address(inner.start, own.start);
                (self.strip)(done, from, right.line_stride(), strip.as_mut_ptr());
            }
        }
        for (place, to) in strip.chunks_exact_mut(width).enumerate().skip(done) {
            let k = inner.start + 2 * place;
            let first = right.line(k, own.clone());
            let second = (k + 1 < inner.end).then(|| right.line(k + 1, own.clone()));
            for (column, to) in to.iter_mut().enumerate() {
                let value = |line: &[f32]| line.get(column).copied().unwrap_or(0.0);
                *to = place_of(value(first), second.map_or(0.0, value));
            }
        }
    }
}
