//! Rounding to bf16, and the order in which the micro-kernel reads its operands.
//!
//! A pair holds the values at two neighbouring positions of the inner axis; the second is zero where there is none.

use std::ops::Range;

use super::{DEPTH, ROWS};
use crate::cpu::matmul::Matrix;

/// `x` rounded to bf16, to nearest and ties to even, in the upper half. NaN stays NaN.
#[inline(always)]
fn round(x: f32) -> u32 {
    let bits = x.to_bits();
    let nearest = bits.wrapping_add(0x7FFF + (bits >> 16 & 1));
    // Adding could carry a NaN into another number, and cutting off could leave an infinity.
    let quiet = bits | 0x0040_0000;
    (if x.is_nan() { quiet } else { nearest }) & 0xFFFF_0000
}

/// Two values in a pair.
#[inline(always)]
pub(crate) fn pair(first: f32, second: f32) -> u32 {
    round(first) >> 16 | round(second)
}

/// All of `from`, rounded to bf16.
#[inline(always)]
pub(crate) fn round_all(from: &[f32], to: &mut [u16]) {
    assert_eq!(from.len(), to.len(), "a copy has the length of its source");
    for (to, &from) in to.iter_mut().zip(from) {
        *to = (round(from) >> 16) as u16;
    }
}

/// Neighbours of one line in pairs.
#[inline(always)]
fn pair_neighbours(line: &[f32], pairs: &mut [u32]) {
    let (whole, rest) = line.as_chunks::<2>();
    for (to, &[first, second]) in pairs.iter_mut().zip(whole) {
        *to = pair(first, second);
    }
    if let [last] = rest {
        pairs[whole.len()] = pair(*last, 0.0);
    }
}

/// Two lines in pairs, zeros behind them; without a second line, zeros in its place.
#[inline(always)]
fn pair_lines(first: &[f32], second: Option<&[f32]>, pairs: &mut [u32]) {
    let (pairs, padding) = pairs.split_at_mut(first.len());
    match second {
        Some(second) => {
            for ((to, &first), &second) in pairs.iter_mut().zip(first).zip(second) {
                *to = pair(first, second);
            }
        }
        None => {
            for (to, &first) in pairs.iter_mut().zip(first) {
                *to = pair(first, 0.0);
            }
        }
    }
    padding.fill(0);
}

/// Where the pairs of a left operand lie: pair `p` of row `r` at `r · row + p · pair`.
#[derive(Clone, Copy)]
pub(super) struct Steps {
    pub(super) row: usize,
    pub(super) pair: usize,
}

/// Room that [`pack_left`] needs for `rows` rows of `depth` values.
pub(super) fn left_size(rows: usize, depth: usize) -> usize {
    rows.next_multiple_of(ROWS) * depth.div_ceil(2)
}

/// Rounds the columns `inner` of a left operand, with rows of zeros up to a multiple of [`ROWS`].
///
/// Each pair is spread over a vector when it is used, so pairs may lie in either order: the operand keeps the order it
/// has, and no value is moved across.
#[inline(always)]
pub(super) fn pack_left(left: Matrix<'_>, inner: Range<usize>, packed: &mut [u32]) -> Steps {
    let (rows, pairs) = (left.rows(), inner.len().div_ceil(2));
    if left.by_rows() {
        let (written, padding) = packed.split_at_mut(rows * pairs);
        for (row, to) in written.chunks_exact_mut(pairs).enumerate() {
            pair_neighbours(left.line(row, inner.clone()), to);
        }
        padding.fill(0);
        Steps { row: pairs, pair: 1 }
    } else {
        let width = rows.next_multiple_of(ROWS);
        for (k, to) in inner.clone().step_by(2).zip(packed.chunks_exact_mut(width)) {
            let second = (k + 1 < inner.end).then(|| left.line(k + 1, 0..rows));
            pair_lines(left.line(k, 0..rows), second, to);
        }
        Steps { row: 1, pair: width }
    }
}

/// Columns of a right operand that go to their places together: one store for each pair of rows.
pub(super) const TOGETHER: usize = 4;

/// Rounded columns.
pub(super) type Lines = [[u32; DEPTH / 2]; TOGETHER];

/// Rounds the rows `inner` of the columns `columns` of a right operand: `width` pairs side by side for each two rows,
/// those past the columns zero. `width` is a multiple of [`TOGETHER`].
#[inline(always)]
pub(super) fn pack_right(
    right: Matrix<'_>,
    inner: Range<usize>,
    columns: Range<usize>,
    width: usize,
    packed: &mut [u32],
    lines: &mut Lines,
) {
    if right.by_rows() {
        for (k, to) in inner.clone().step_by(2).zip(packed.chunks_exact_mut(width)) {
            let second = (k + 1 < inner.end).then(|| right.line(k + 1, columns.clone()));
            pair_lines(right.line(k, columns.clone()), second, to);
        }
    } else {
        // Rounded along the columns first, many values at a time; then each pair goes to its place.
        for place in (0..width).step_by(TOGETHER) {
            for (column, line) in (columns.start + place..).zip(lines.iter_mut()) {
                match column < columns.end {
                    true => pair_neighbours(right.line(column, inner.clone()), line),
                    false => line.fill(0),
                }
            }
            for (pair, to) in packed.chunks_exact_mut(width).enumerate() {
                to[place..place + TOGETHER].copy_from_slice(&lines.each_ref().map(|line| line[pair]));
            }
        }
    }
}

/// `x` as bf16 has it, for tests.
#[cfg(test)]
pub(crate) fn rounded(x: f32) -> f32 {
    f32::from_bits(round(x))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_to_nearest_and_ties_go_to_even() {
        // bf16 has 8 significant bits: neighbours of 1 are 1 ± 2⁻⁷ and 1 - 2⁻⁸.
        for (x, expected) in [
            (1.0, 1.0),
            (1.0 + 1.0 / 256.0, 1.0),
            (1.0 + 1.1 / 256.0, 1.0 + 1.0 / 128.0),
            (1.0 + 3.0 / 256.0, 1.0 + 2.0 / 128.0),
            (-1.0 - 3.0 / 256.0, -1.0 - 2.0 / 128.0),
            (f32::MAX, f32::INFINITY),
            (f32::NEG_INFINITY, f32::NEG_INFINITY),
            (-0.0, -0.0),
            (1e-42, f32::from_bits(0)),
        ] {
            assert_eq!(rounded(x).to_bits(), f32::to_bits(expected), "{x}");
        }
        // All of their bits above or below the cut, of either sign.
        for bits in [0x7FC0_0000, 0x7F80_0001, 0x7FFF_FFFF, 0xFF80_0001, 0xFFFF_FFFF] {
            assert!(rounded(f32::from_bits(bits)).is_nan(), "{bits:x}");
        }
    }

    #[test]
    fn rounding_agrees_with_burns_own_type() {
        for x in crate::cpu::testing::noise(10_000, 5) {
            for x in [x, x * 1e30, x * 1e-30, x * 1e-39] {
                let expected = burn::tensor::bf16::from_f32(x).to_f32();
                assert_eq!(rounded(x).to_bits(), expected.to_bits(), "{x:e}");
            }
        }
    }
}
