//! The product against sums in `f64` over rounded operands, and the instructions against their emulation.
#![expect(unsafe_code, reason = "the product writes through an address")]

use proptest::prelude::*;

use super::rounded;
use crate::cpu::matmul::{Matrix, Write};
use crate::cpu::testing::noise;
use crate::products::{Arithmetic, testing::bf16_arithmetics};

/// Between the rows of the target, where nothing may be written.
const UNTOUCHED: f32 = 77.0;

/// A matrix in memory.
struct Stored {
    values: Vec<f32>,
    rows: usize,
    columns: usize,
    stride: usize,
    transposed: bool,
}

impl Stored {
    /// Of `rows` × `columns`, stored with `gap` values between lines; as its transpose if `transposed`.
    fn new(rows: usize, columns: usize, gap: usize, transposed: bool, seed: u64) -> Self {
        let (lines, length) = if transposed { (columns, rows) } else { (rows, columns) };
        let stride = length + gap;
        Self { values: noise(lines * stride, seed), rows, columns, stride, transposed }
    }

    fn matrix(&self) -> Matrix<'_> {
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

/// `target` before and after.
fn multiply(
    arithmetic: Arithmetic,
    [left, right]: [&Stored; 2],
    gap: usize,
    scale: f32,
    write: Write,
) -> [Vec<f32>; 2] {
    let stride = right.columns + gap;
    let mut before = noise(left.rows * stride, 3);
    for row in before.chunks_exact_mut(stride.max(1)) {
        row[right.columns..].fill(UNTOUCHED);
    }
    let mut target = before.clone();
    // SAFETY: the target has `rows` rows of `stride` values.
    unsafe { arithmetic.multiply(target.as_mut_ptr(), stride, left.matrix(), right.matrix(), scale, write) };
    [before, target]
}

fn assert_product([left, right]: [&Stored; 2], gap: usize, scale: f32, write: Write) {
    for arithmetic in bf16_arithmetics() {
        let [before, found] = multiply(arithmetic, [left, right], gap, scale, write);
        let stride = right.columns + gap;
        for (place, (&before, &found)) in before.iter().zip(&found).enumerate() {
            let (row, column) = (place / stride, place % stride);
            if column >= right.columns {
                assert_eq!(found, UNTOUCHED, "{arithmetic:?} wrote between the rows");
                continue;
            }
            let (mut sum, mut size) = (0.0, 0.0);
            for inner in 0..left.columns {
                let [left, right] = [left.at(row, inner), right.at(inner, column)].map(rounded);
                sum += f64::from(left) * f64::from(right);
                size += (f64::from(left) * f64::from(right)).abs();
            }
            let start = if write == Write::Add { f64::from(before) } else { 0.0 };
            let expected = start + f64::from(scale) * sum;
            // Each addition rounds once, by 2⁻²⁴ of at most `size`.
            let bound =
                (size * f64::from(scale.abs()) + start.abs()) * (left.columns + 2) as f64 / 2f64.powi(24);
            let error = (f64::from(found) - expected).abs();
            assert!(error <= bound, "{arithmetic:?} [{row}, {column}]: {found}, expected {expected}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn a_product_is_that_of_the_rounded_operands(
        rows in 1usize..30,
        inner in 1usize..40,
        columns in 1usize..150,
        gaps in [0usize..5, 0usize..5, 0usize..5],
        transposed: [bool; 2],
        scale in prop_oneof![Just(1.0f32), -2.0f32..2.0],
        add: bool,
    ) {
        let left = Stored::new(rows, inner, gaps[0], transposed[0], 1);
        let right = Stored::new(inner, columns, gaps[1], transposed[1], 2);
        let write = if add { Write::Add } else { Write::Replace };
        assert_product([&left, &right], gaps[2], scale, write);
    }
}

#[test]
fn sums_longer_than_a_block_go_on_where_the_last_one_ended() {
    for inner in [255, 256, 257, 511, 513, 600] {
        for transposed in [[false, false], [true, false], [false, true], [true, true]] {
            let left = Stored::new(7, inner, 1, transposed[0], 1);
            let right = Stored::new(inner, 65, 2, transposed[1], 2);
            assert_product([&left, &right], 1, 0.5, Write::Replace);
            assert_product([&left, &right], 1, 0.5, Write::Add);
        }
    }
}

#[test]
fn nothing_to_sum_gives_zeros_or_leaves_the_target() {
    let (left, right) = (Stored::new(3, 0, 1, false, 1), Stored::new(0, 20, 1, false, 2));
    assert_product([&left, &right], 2, 1.0, Write::Replace);
    assert_product([&left, &right], 2, 1.0, Write::Add);
    for [rows, columns] in [[0, 5], [5, 0]] {
        let (left, right) = (Stored::new(rows, 4, 0, false, 1), Stored::new(4, columns, 0, false, 2));
        assert_product([&left, &right], 0, 1.0, Write::Add);
    }
}

/// Padding is zero times zero: it brings no NaN into rows and columns that have none.
#[test]
fn what_is_not_a_number_stays_in_its_row_and_column() {
    let mut left = Stored::new(8, 5, 0, false, 1);
    let mut right = Stored::new(5, 21, 0, true, 2);
    left.values[3 * 5 + 4] = f32::NAN;
    right.values[20 * 5 + 4] = f32::INFINITY;
    for arithmetic in bf16_arithmetics() {
        let [_, found] = multiply(arithmetic, [&left, &right], 0, 1.0, Write::Replace);
        for (place, value) in found.iter().enumerate() {
            let (row, column) = (place / 21, place % 21);
            let (nan, infinite) = (row == 3, row != 3 && column == 20);
            assert!(value.is_nan() == nan && value.is_infinite() == infinite, "{row} {column}: {value}");
        }
    }
}

#[test]
fn subnormal_operands_count_as_zero() {
    let stored = |value| Stored { values: vec![value; 4], rows: 2, columns: 2, stride: 2, transposed: false };
    let (small, large) = (stored(f32::MIN_POSITIVE / 4.0), stored(1e38));
    for arithmetic in bf16_arithmetics() {
        for operands in [[&small, &large], [&large, &small]] {
            let [_, found] = multiply(arithmetic, operands, 0, 1.0, Write::Replace);
            assert_eq!(found, [0.0; 4], "{arithmetic:?}");
        }
    }
}

/// Where the processor has the instructions. Intel's manual gives the order of additions that the emulation follows; another
/// maker's may add a pair in one rounding, so rounding is all that may differ.
#[test]
fn the_instructions_compute_what_their_emulation_does() {
    let [found] = &bf16_arithmetics()[1..] else {
        // The emulation alone is held to the product by the other tests.
        assert!(!crate::products::has_bf16_products());
        return;
    };
    let left = Stored::new(50, 300, 3, false, 1);
    let right = Stored::new(300, 150, 1, true, 2);
    let [_, expected] = multiply(Arithmetic::Emulated, [&left, &right], 0, 1.0, Write::Replace);
    let [_, found] = multiply(*found, [&left, &right], 0, 1.0, Write::Replace);
    let same = found.iter().zip(&expected).filter(|(a, b)| a.to_bits() == b.to_bits()).count();
    println!("{same} of {} sums have the same bits", found.len());
    for (found, expected) in found.iter().zip(&expected) {
        // 300 roundings of sums of up to some 300.
        assert!((found - expected).abs() <= 300.0 * 300.0 / 2f32.powi(24), "{found}, emulated {expected}");
    }
}
