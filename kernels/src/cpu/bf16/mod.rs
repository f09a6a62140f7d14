//! Matrix products whose operands are rounded to bfloat16 on the way in and whose sums are `f32`.
//!
//! Operands and result are `f32` in memory: nobody else needs to know. The columns of the result are taken in strips of
//! four vectors, its rows six at a time: 24 vectors of sums, four of the right operand and one of the left fit the 32
//! registers, and 24 independent chains hide the instruction's latency. A strip of the right operand, at most [`DEPTH`]
//! values deep, is 32 KiB when rounded and stays in the first-level cache while all rows pass by; the left operand is
//! rounded once for each [`DEPTH`] values of the inner axis and read once for each strip, a byte for each instruction.
//!
//! The whole of it runs without the instructions too, over [`lanes::Emulated`], in tests only: production takes `f32`
//! products there, which are far faster.
#![expect(
    unsafe_code,
    reason = "unchecked vector loads and stores; a function compiled for instructions found at run time"
)]

pub(crate) mod lanes;
mod pack;
#[cfg(test)]
mod tests;

use std::cell::Cell;

use self::lanes::{LANES, Lanes};
use self::pack::{Steps, TOGETHER, left_size, pack_left, pack_right};
use super::Pieces;
use super::matmul::{Matrix, Target, Write};
#[cfg(test)]
pub(crate) use pack::rounded;
pub(crate) use pack::{pair, round_all};

/// Rows of the result handled together.
const ROWS: usize = 6;
/// Vectors of a row handled together, at most.
const VECTORS: usize = 4;
/// Values of the inner axis between two visits to the result, at most.
const DEPTH: usize = 256;

thread_local! {
    /// The rounded operands of this thread, kept from call to call: left, and a strip of the right.
    static BUFFERS: Cell<[Vec<u32>; 2]> = const { Cell::new([Vec::new(), Vec::new()]) };
}

/// Whether this processor has the instructions.
#[cfg(target_arch = "x86_64")]
pub(crate) fn available() -> bool {
    use std::arch::is_x86_feature_detected as has;
    has!("avx512f") && has!("avx512vl") && has!("avx512bw") && has!("avx512dq") && has!("avx512bf16")
}

/// `target ← scale · left · right`, or as the target says.
///
/// # Safety
/// As for [`super::matmul::multiply`]; and [`available`].
#[cfg(target_arch = "x86_64")]
pub(super) unsafe fn multiply(target: Target<'_>, left: Matrix<'_>, right: Matrix<'_>) {
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx512bf16,avx2,fma")]
    unsafe fn compiled(target: Target<'_>, left: Matrix<'_>, right: Matrix<'_>, buffers: &mut [Vec<u32>; 2]) {
        // SAFETY: this function's caller has seen to the instructions and to the target.
        unsafe { product::<lanes::x86::Avx512>(target, left, right, buffers) };
    }
    let mut buffers = BUFFERS.take();
    // SAFETY: the caller's contract.
    unsafe { compiled(target, left, right, &mut buffers) };
    BUFFERS.set(buffers);
}

/// [`multiply`] in plain arithmetic.
///
/// # Safety
/// As for [`super::matmul::multiply`].
#[cfg(test)]
pub(super) unsafe fn multiply_emulated(target: Target<'_>, left: Matrix<'_>, right: Matrix<'_>) {
    let mut buffers = BUFFERS.take();
    // SAFETY: the caller's contract; plain arithmetic is always there.
    unsafe { product::<lanes::Emulated>(target, left, right, &mut buffers) };
    BUFFERS.set(buffers);
}

/// # Safety
/// As for [`multiply`], with the instructions of `L`.
#[inline(always)]
unsafe fn product<L: Lanes>(
    mut target: Target<'_>,
    left: Matrix<'_>,
    right: Matrix<'_>,
    [packed_left, packed_right]: &mut [Vec<u32>; 2],
) {
    assert_eq!(left.columns(), right.rows(), "inner sizes of a product agree");
    let (rows, columns) = (left.rows(), right.columns());
    if rows == 0 || columns == 0 {
        return;
    }
    let blocks = Pieces::new(left.columns(), DEPTH, 2);
    if blocks.count() == 0 && target.write != Write::Add {
        for row in 0..rows {
            // SAFETY: the caller answers for the target.
            let row =
                unsafe { std::slice::from_raw_parts_mut(target.start.add(row * target.row_stride), columns) };
            match target.write {
                Write::Row(values) => row.copy_from_slice(values),
                Write::Replace | Write::Add => row.fill(0.0),
            }
        }
    }
    let mut lines = [[0; DEPTH / 2]; TOGETHER];
    for block in 0..blocks.count() {
        let inner = blocks.range(block);
        let pairs = inner.len().div_ceil(2);
        let packed_left = room(packed_left, left_size(rows, inner.len()));
        let steps = pack_left(left, inner.clone(), packed_left);
        let mut first = 0;
        while first < columns {
            let strip = first..(first + VECTORS * LANES).min(columns);
            let vectors = strip.len().div_ceil(LANES);
            let packed_right = room(packed_right, pairs * vectors * LANES);
            pack_right(right, inner.clone(), strip.clone(), vectors * LANES, packed_right, &mut lines);
            for row in (0..rows).step_by(ROWS) {
                let size = [ROWS.min(rows - row), strip.len()];
                // SAFETY: `packed_left` holds whole blocks of rows, `packed_right` whole vectors; the tile is a part of
                // the target.
                unsafe {
                    let target = target.part(row, strip.start);
                    let left = packed_left.as_ptr().add(row * steps.row);
                    let right = packed_right.as_ptr();
                    match vectors {
                        1 => tile::<L, 1>(left, steps, right, pairs, target, size),
                        2 => tile::<L, 2>(left, steps, right, pairs, target, size),
                        3 => tile::<L, 3>(left, steps, right, pairs, target, size),
                        _ => tile::<L, VECTORS>(left, steps, right, pairs, target, size),
                    }
                }
            }
            first = strip.end;
        }
        target.write = Write::Add;
    }
}

/// The first `size` pairs of a buffer that grows to it; what they hold is not defined.
#[inline(always)]
fn room(buffer: &mut Vec<u32>, size: usize) -> &mut [u32] {
    if buffer.len() < size {
        buffer.resize(size, 0);
    }
    &mut buffer[..size]
}

/// [`ROWS`] rows of `V` vectors, of which `rows` and `columns` are written.
///
/// # Safety
/// As for [`multiply`], with the instructions of `L`; `left` holds [`ROWS`] rows of `pairs` pairs, `right` `V` vectors for each
/// pair.
#[inline(always)]
unsafe fn tile<L: Lanes, const V: usize>(
    left: *const u32,
    steps: Steps,
    right: *const u32,
    pairs: usize,
    target: Target<'_>,
    [rows, columns]: [usize; 2],
) {
    // SAFETY: the caller's contract; the target's tile has `rows` rows of `columns` values.
    unsafe {
        let mut sums = [[L::zero(); V]; ROWS];
        for pair in 0..pairs {
            let mut vectors = [L::splat(0); V];
            for (v, vector) in vectors.iter_mut().enumerate() {
                *vector = L::load(right.add((pair * V + v) * LANES));
            }
            for (row, sums) in sums.iter_mut().enumerate() {
                let pair = L::splat(*left.add(pair * steps.pair + row * steps.row));
                for (sum, &vector) in sums.iter_mut().zip(&vectors) {
                    *sum = L::dot(*sum, pair, vector);
                }
            }
        }
        for (row, sums) in sums.iter().enumerate() {
            // Rows counted at compile time: otherwise the sums live in memory.
            if row >= rows {
                break;
            }
            for (v, &sums) in sums.iter().enumerate() {
                let to = target.start.add(row * target.row_stride + v * LANES);
                let values = L::values(sums);
                // A constant length where the vector is whole: one store.
                let how = target.write.starting_at(v * LANES);
                match columns - v * LANES {
                    rest if rest < LANES => write(to, &values[..rest], target.scale, how),
                    _ => write(to, &values, target.scale, how),
                }
            }
        }
    }
}

/// # Safety
/// `to` is valid for writing as many values, and for reading them if they are added to.
#[inline(always)]
unsafe fn write(to: *mut f32, values: &[f32], scale: f32, write: Write<'_>) {
    for (index, &value) in values.iter().enumerate() {
        // SAFETY: the caller's contract.
        unsafe {
            let to = to.add(index);
            *to = match write {
                Write::Replace => scale * value,
                Write::Add => *to + scale * value,
                Write::Row(row) => row[index] + scale * value,
            };
        }
    }
}
