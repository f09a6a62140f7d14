//! The inner loop: tiles of as many rows as there are registers for, two vectors wide.
#![expect(unsafe_code, reason = "unchecked vector loads and stores in the innermost loop")]

use super::super::matmul::{Target, Write};
use super::rounds::{Rounds, TOGETHER};

/// Vectors of a row handled together.
pub(super) const VECTORS: usize = 2;
/// Values in a cache line.
pub(super) const LINE: usize = 16;

/// Where the values of a left operand lie: value `k` of row `r` of tile `t` at `start + t · tile + r · row + k · step`.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    pub(super) start: *const f32,
    pub(super) tile: usize,
    pub(super) row: usize,
    pub(super) step: usize,
    /// The lines of the next tile lie so far apart: those of the rows themselves, or of a panel.
    pub(super) apart: usize,
}

/// A strip of the right operand, [`VECTORS`] vectors for each of `depth` values of the inner axis, and what to fetch for later
/// meanwhile.
#[derive(Clone, Copy)]
pub(super) struct Strip {
    pub(super) start: *const f32,
    pub(super) depth: usize,
    pub(super) next: Ahead,
}

/// Rows of the next strip, `apart` from each other: `count` of them for each tile.
#[derive(Clone, Copy)]
pub(super) struct Ahead {
    pub(super) start: *const f32,
    pub(super) apart: usize,
    pub(super) count: usize,
}

impl Ahead {
    /// Nothing.
    pub(super) const NONE: Self = Self { start: std::ptr::null(), apart: 0, count: 0 };
}

/// Products of `count` tiles of a left operand with a strip of a right one, into whole tiles of a target.
pub(super) type Tiles = unsafe fn(count: usize, left: Rows, strip: Strip, target: Target<'_>);

/// See [`Tiles`].
///
/// # Safety
/// The instructions of `L` are there; `left` has so many tiles of `R` rows of the strip's depth; the target has `R` rows of
/// [`VECTORS`] vectors for each tile, nobody else reads or writes them meanwhile, they have been written if they are added to,
/// and a [`Write::Row`] is as long.
// No closures in here: they are not compiled for the instructions of the function that this is inlined into.
#[inline(always)]
pub(super) unsafe fn tiles<L: Rounds<R>, const R: usize>(
    count: usize,
    left: Rows,
    mut strip: Strip,
    target: Target<'_>,
) {
    let width = VECTORS * L::LANES;
    // SAFETY: addresses inside the operands and the target by the caller's contract; of what is only fetched, none is wrong.
    unsafe {
        let scale = L::splat(target.scale);
        for tile in 0..count {
            let to = target.start.add(tile * R * target.row_stride);
            for row in 0..R {
                for last in [0, width - 1] {
                    L::fetch(to.add(row * target.row_stride + last));
                }
            }
            for _ in 0..strip.next.count {
                for first in (0..width).step_by(LINE) {
                    L::fetch_for_later(strip.next.start.wrapping_add(first));
                }
                strip.next.start = strip.next.start.wrapping_add(strip.next.apart);
            }
            let mut sums = [[L::zero(); VECTORS]; R];
            let mut rows = left.start.wrapping_add(tile * left.tile);
            let mut right = strip.start;
            for _ in 0..strip.depth / TOGETHER {
                for line in 0..R {
                    L::fetch(rows.wrapping_add(left.tile + line * left.apart));
                }
                L::several(&mut sums, rows, left.row, left.step, right);
                rows = rows.wrapping_add(TOGETHER * left.step);
                right = right.add(TOGETHER * width);
            }
            for _ in 0..strip.depth % TOGETHER {
                L::one(&mut sums, rows, left.row, right);
                rows = rows.wrapping_add(left.step);
                right = right.wrapping_add(width);
            }
            // Three plain loops, each short enough to be unrolled: a sum found by a counter would have to live in memory.
            macro_rules! write {
                (|$sum:ident, $to:ident, $place:ident| $value:expr) => {
                    for (row, sums) in sums.iter().enumerate() {
                        for (v, &$sum) in sums.iter().enumerate() {
                            let $place = v * L::LANES;
                            let $to = to.add(row * target.row_stride + $place);
                            L::store($value, $to);
                        }
                    }
                };
            }
            match target.write {
                Write::Replace => write!(|sum, to, _place| L::mul(sum, scale)),
                Write::Add => write!(|sum, to, _place| L::mul_add(sum, scale, L::load(to))),
                Write::Row(values) => {
                    write!(|sum, to, place| L::mul_add(sum, scale, L::load(values.as_ptr().add(place))))
                }
            }
        }
    }
}
