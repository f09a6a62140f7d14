//! Products against sums in `f64`, by the processor's units and by emulated ones.
#![expect(unsafe_code, reason = "products write through an address")]

use proptest::prelude::*;

use super::{DEPTH, Unit};
use crate::cpu::bf16::rounded;
use crate::cpu::matmul::{Target, Write};
use crate::cpu::stored::{self, Stored, writes};
use crate::cpu::testing::noise;
#[cfg(target_arch = "x86_64")]
use crate::products::{Arithmetic, Products};

/// The emulations, and those that the processor has.
fn units() -> impl Iterator<Item = &'static Unit> {
    [Unit::emulated(), Unit::emulated_pairs()].into_iter().chain(Unit::of_this_processor()).chain(of_pairs())
}

/// That of pairs, if the processor has it.
fn of_pairs() -> Option<&'static Unit> {
    #[cfg(target_arch = "x86_64")]
    if let Arithmetic::Bf16(found) = Products::Bf16.arithmetic() {
        return Unit::of_pairs(found);
    }
    None
}

/// `target` before and after.
fn multiply(
    unit: &Unit,
    operands: [&Stored; 2],
    gap: usize,
    packed: bool,
    scale: f32,
    write: Write<'_>,
) -> [Vec<f32>; 2] {
    stored::multiply(operands, gap, |start, row_stride, left, right| {
        let packed = packed.then(|| unit.pack(right));
        // SAFETY: the target has all rows, written.
        unsafe { unit.multiply(Target { start, row_stride, scale, write }, left, right, packed.as_ref()) };
    })
}

fn assert_product(operands: [&Stored; 2], gap: usize, scale: f32, write: Write<'_>) {
    for unit in units() {
        let [found, packed] = [false, true].map(|packed| multiply(unit, operands, gap, packed, scale, write));
        let name = format!("{} × {} × {}", unit.rows, unit.width, unit.values);
        let value: fn(f32) -> f32 = if unit.values == 2 { rounded } else { |value| value };
        stored::assert_product(&name, operands, value, scale, write, &found);
        assert_eq!(found[1], packed[1], "{name}: packed and not are the same to the bit");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn a_product_is_the_sum_of_its_parts(
        rows in 1usize..40,
        inner in 1usize..40,
        columns in 1usize..80,
        gaps in [0usize..5, 0usize..5, 0usize..5],
        transposed: [bool; 2],
        scale in prop_oneof![Just(1.0f32), -2.0f32..2.0],
        write in 0usize..3,
    ) {
        let left = Stored::new(rows, inner, gaps[0], transposed[0], 1);
        let right = Stored::new(inner, columns, gaps[1], transposed[1], 2);
        assert_product([&left, &right], gaps[2], scale, writes(&noise(columns, 4))[write]);
    }

    /// A row does not depend on how many others there are, nor on its place among them.
    #[test]
    fn a_row_is_the_same_alone_and_among_others(
        rows in 1usize..60,
        inner in 1usize..20,
        columns in 1usize..50,
        transposed: [bool; 2],
        first in 0usize..60,
    ) {
        let first = first % rows;
        let right = Stored::new(inner, columns, 0, transposed[1], 2);
        let left = Stored::new(rows, inner, 0, transposed[0], 1);
        let (lines, places) = if transposed[0] { (inner, first..rows) } else { (rows - first, 0..inner) };
        let skip = if transposed[0] { 0 } else { first };
        let values = left.values.chunks(left.stride).skip(skip).take(lines);
        let part = Stored {
            values: values.flat_map(|line| line[places.clone()].to_vec()).collect(),
            rows: rows - first,
            stride: places.len(),
            ..Stored::new(0, inner, 0, transposed[0], 1)
        };
        for unit in units() {
            let [_, all] = multiply(unit, [&left, &right], 0, false, 0.3, Write::Replace);
            let [_, some] = multiply(unit, [&part, &right], 0, false, 0.3, Write::Replace);
            assert_eq!(&all[first * columns..], &some[..]);
        }
    }
}

#[test]
fn sums_longer_than_a_block_go_on_where_the_last_one_ended() {
    for inner in [DEPTH - 1, DEPTH, DEPTH + 1, 2 * DEPTH - 1, 2 * DEPTH + 3, 4 * DEPTH + 1] {
        for transposed in [[false, false], [true, false], [false, true], [true, true]] {
            let left = Stored::new(25, inner, 1, transposed[0], 1);
            let right = Stored::new(inner, 35, 2, transposed[1], 2);
            for write in writes(&noise(35, 4)) {
                assert_product([&left, &right], 1, 0.5, write);
            }
        }
    }
}

/// Rows and columns that fill up a tile bring no NaN into those that are there.
#[test]
fn what_is_not_a_number_stays_in_its_row_and_column() {
    for transposed in [[false, false], [true, true]] {
        // One round of many together, and single ones.
        let inner = 25;
        let mut left = Stored::new(20, inner, 0, transposed[0], 1);
        let mut right = Stored::new(inner, 21, 0, transposed[1], 2);
        left.values[if transposed[0] { 4 * 20 + 3 } else { 3 * inner + 4 }] = f32::NAN;
        right.values[if transposed[1] { 20 * inner + 4 } else { 4 * 21 + 20 }] = f32::INFINITY;
        for unit in units() {
            let [_, found] = multiply(unit, [&left, &right], 0, false, 1.0, Write::Replace);
            for (place, value) in found.iter().enumerate() {
                let (row, column) = (place / 21, place % 21);
                let (nan, infinite) = (row == 3, row != 3 && column == 20);
                assert!(value.is_nan() == nan && value.is_infinite() == infinite, "{row} {column}: {value}");
            }
        }
    }
}

#[test]
fn subnormal_operands_of_pairs_count_as_zero() {
    let of = |value| Stored { values: vec![value; 4], rows: 2, columns: 2, stride: 2, transposed: false };
    let (small, large) = (of(f32::MIN_POSITIVE / 4.0), of(1e38));
    for unit in units().filter(|unit| unit.values == 2) {
        for operands in [[&small, &large], [&large, &small]] {
            let [_, found] = multiply(unit, operands, 0, false, 1.0, Write::Replace);
            assert_eq!(found, [0.0; 4]);
        }
    }
}

/// Where the processor has the instructions. Intel's manual gives the order of additions that the emulation follows; another
/// maker's may add a pair in one rounding, so rounding is all that may differ.
#[test]
fn the_instructions_for_pairs_compute_what_their_emulation_does() {
    let Some(unit) = of_pairs() else {
        // The emulation alone is held to the product by the other tests.
        assert!(!crate::products::has_bf16_products());
        return;
    };
    let left = Stored::new(50, 300, 3, false, 1);
    let right = Stored::new(300, 150, 1, true, 2);
    let [[_, expected], [_, found]] = [Unit::emulated_pairs(), unit]
        .map(|unit| multiply(unit, [&left, &right], 0, false, 1.0, Write::Replace));
    let same = found.iter().zip(&expected).filter(|(a, b)| a.to_bits() == b.to_bits()).count();
    println!("{same} of {} sums have the same bits", found.len());
    for (found, expected) in found.iter().zip(&expected) {
        // 300 roundings of sums of up to some 300.
        assert!((found - expected).abs() <= 300.0 * 300.0 / 2f32.powi(24), "{found}, emulated {expected}");
    }
}
