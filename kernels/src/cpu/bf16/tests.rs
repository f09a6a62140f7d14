//! The product against sums in `f64` over rounded operands, and the instructions against their emulation.
#![expect(unsafe_code, reason = "products write through an address")]

use proptest::prelude::*;

use super::rounded;
use crate::cpu::matmul::Write;
use crate::cpu::stored::{self, Stored, writes};
use crate::cpu::testing::noise;
use crate::products::{Arithmetic, testing::bf16_arithmetics};

/// `target` before and after.
fn multiply(
    arithmetic: Arithmetic,
    [left, right]: [&Stored; 2],
    gap: usize,
    scale: f32,
    write: Write,
) -> [Vec<f32>; 2] {
    stored::multiply([left, right], gap, |target, stride, left, right| {
        // SAFETY: the target has all rows, written.
        unsafe { arithmetic.multiply(target, stride, left, right, scale, write) };
    })
}

fn assert_product(operands: [&Stored; 2], gap: usize, scale: f32, write: Write) {
    for arithmetic in bf16_arithmetics() {
        let found = multiply(arithmetic, operands, gap, scale, write);
        stored::assert_product(&format!("{arithmetic:?}"), operands, rounded, scale, write, &found);
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
        write in 0usize..3,
    ) {
        let left = Stored::new(rows, inner, gaps[0], transposed[0], 1);
        let right = Stored::new(inner, columns, gaps[1], transposed[1], 2);
        assert_product([&left, &right], gaps[2], scale, writes(&noise(columns, 4))[write]);
    }
}

#[test]
fn sums_longer_than_a_block_go_on_where_the_last_one_ended() {
    for inner in [255, 256, 257, 511, 513, 600] {
        for transposed in [[false, false], [true, false], [false, true], [true, true]] {
            let left = Stored::new(7, inner, 1, transposed[0], 1);
            let right = Stored::new(inner, 65, 2, transposed[1], 2);
            for write in writes(&noise(65, 4)) {
                assert_product([&left, &right], 1, 0.5, write);
            }
        }
    }
}

#[test]
fn nothing_to_sum_gives_zeros_or_leaves_the_target() {
    let (left, right) = (Stored::new(3, 0, 1, false, 1), Stored::new(0, 20, 1, false, 2));
    for write in writes(&noise(20, 4)) {
        assert_product([&left, &right], 2, 1.0, write);
    }
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
    let of = |value| Stored { values: vec![value; 4], rows: 2, columns: 2, stride: 2, transposed: false };
    let (small, large) = (of(f32::MIN_POSITIVE / 4.0), of(1e38));
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
