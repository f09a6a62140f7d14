//! The innermost loop: rounds of multiply-adds, in assembly.
//!
//! A round is one place on the inner axis: two vectors of the right operand, and a value of each row of the left one. It takes two
//! loads, a broadcast for each row and two multiply-adds for each row, and nothing else is written here: an address is a base, a
//! stride and a constant. From intrinsics the compiler makes 28 instructions of the 20 of six rows, with an addition for each
//! row's address; or it moves the loads of later rounds ahead until a sum loses its register. A core of its own hides that. One
//! that runs a second thread shares its instructions per cycle with it, and then the additions cost a fifth of the speed.
//!
//! With AVX-512 BF16 each value is a pair, and the multiply-add one of both products; nothing else differs.
#![expect(unsafe_code, reason = "assembly; callers see to the instruction set and the bounds")]

use super::lanes::Lanes;
use super::tile::VECTORS;

/// Rounds written out one after the other: a cache line of each row.
pub(super) const TOGETHER: usize = 16;

/// The sums of a tile.
pub(super) type Sums<L, const R: usize> = [[<L as Lanes>::Vector; VECTORS]; R];

/// Rounds on tiles of `R` rows.
///
/// Value `k` of row `r` of the left operand lies at `left + r · row + k · step`, with a `step` of 1 (rows where they lie) or `R`
/// (panels, where `row` is 1); vector `v` of round `k` of the right one at `right + (2 k + v) · LANES`.
pub(super) trait Rounds<const R: usize>: Lanes {
    /// Adds [`TOGETHER`] rounds.
    ///
    /// # Safety
    /// The instructions are there, and all values of the rounds.
    unsafe fn several(sums: &mut Sums<Self, R>, left: *const f32, row: usize, step: usize, right: *const f32)
    where
        Self: Sized;

    /// Adds one.
    ///
    /// # Safety
    /// As for [`Self::several`].
    unsafe fn one(sums: &mut Sums<Self, R>, left: *const f32, row: usize, right: *const f32)
    where
        Self: Sized;
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::asm;

    use super::super::lanes::x86::{Avx2, Avx512, Avx512Bf16};
    use super::{Rounds, Sums};

    /// Value `$k` of the row at `$at`, times both vectors, added to both sums of the row.
    macro_rules! row {
        (
            $multiply:literal, $at:literal, $step:literal, $k:literal,
            $value:literal * $vectors:literal, $more:literal => $sums:literal, $last:literal
        ) => {
            concat!(
                "vbroadcastss ",
                $value,
                ", dword ptr [",
                $at,
                " + ",
                $step,
                " * ",
                $k,
                "]\n",
                $multiply,
                " ",
                $sums,
                ", ",
                $value,
                ", ",
                $vectors,
                "\n",
                $multiply,
                " ",
                $last,
                ", ",
                $value,
                ", ",
                $more,
                "\n",
            )
        };
    }

    /// Round `$k`: six rows, 16 registers.
    macro_rules! avx2 {
        ($step:literal, $k:literal) => {
            concat!(
                "vmovups ymm12, ymmword ptr [{right} + 64 * ", $k, "]\n",
                "vmovups ymm13, ymmword ptr [{right} + 64 * ", $k, " + 32]\n",
                row!("vfmadd231ps", "{left_0}", $step, $k, "ymm14" * "ymm12", "ymm13" => "ymm0", "ymm1"),
                row!("vfmadd231ps", "{left_0} + {row}", $step, $k, "ymm15" * "ymm12", "ymm13" => "ymm2", "ymm3"),
                row!("vfmadd231ps", "{left_0} + 2 * {row}", $step, $k, "ymm14" * "ymm12", "ymm13" => "ymm4", "ymm5"),
                row!("vfmadd231ps", "{left_3}", $step, $k, "ymm15" * "ymm12", "ymm13" => "ymm6", "ymm7"),
                row!("vfmadd231ps", "{left_3} + {row}", $step, $k, "ymm14" * "ymm12", "ymm13" => "ymm8", "ymm9"),
                row!("vfmadd231ps", "{left_3} + 2 * {row}", $step, $k, "ymm15" * "ymm12", "ymm13" => "ymm10", "ymm11"),
            )
        };
    }

    /// Round `$k`: twelve rows, 28 of 32 registers.
    macro_rules! twelve_rows {
        ($multiply:literal, $step:literal, $k:literal) => {
            concat!(
                "vmovups zmm24, zmmword ptr [{right} + 128 * ", $k, "]\n",
                "vmovups zmm25, zmmword ptr [{right} + 128 * ", $k, " + 64]\n",
                row!($multiply, "{left_0}", $step, $k, "zmm26" * "zmm24", "zmm25" => "zmm0", "zmm1"),
                row!($multiply, "{left_0} + {row}", $step, $k, "zmm27" * "zmm24", "zmm25" => "zmm2", "zmm3"),
                row!($multiply, "{left_0} + 2 * {row}", $step, $k, "zmm26" * "zmm24", "zmm25" => "zmm4", "zmm5"),
                row!($multiply, "{left_3}", $step, $k, "zmm27" * "zmm24", "zmm25" => "zmm6", "zmm7"),
                row!($multiply, "{left_3} + {row}", $step, $k, "zmm26" * "zmm24", "zmm25" => "zmm8", "zmm9"),
                row!($multiply, "{left_3} + 2 * {row}", $step, $k, "zmm27" * "zmm24", "zmm25" => "zmm10", "zmm11"),
                row!($multiply, "{left_6}", $step, $k, "zmm26" * "zmm24", "zmm25" => "zmm12", "zmm13"),
                row!($multiply, "{left_6} + {row}", $step, $k, "zmm27" * "zmm24", "zmm25" => "zmm14", "zmm15"),
                row!($multiply, "{left_6} + 2 * {row}", $step, $k, "zmm26" * "zmm24", "zmm25" => "zmm16", "zmm17"),
                row!($multiply, "{left_9}", $step, $k, "zmm27" * "zmm24", "zmm25" => "zmm18", "zmm19"),
                row!($multiply, "{left_9} + {row}", $step, $k, "zmm26" * "zmm24", "zmm25" => "zmm20", "zmm21"),
                row!($multiply, "{left_9} + 2 * {row}", $step, $k, "zmm27" * "zmm24", "zmm25" => "zmm22", "zmm23"),
            )
        };
    }

    macro_rules! avx512 {
        ($step:literal, $k:literal) => {
            twelve_rows!("vfmadd231ps", $step, $k)
        };
    }

    macro_rules! avx512_bf16 {
        ($step:literal, $k:literal) => {
            twelve_rows!("vdpbf16ps", $step, $k)
        };
    }

    /// [`TOGETHER`](super::TOGETHER) rounds whose values lie `$step` bytes apart.
    macro_rules! several {
        ($round:ident, $step:literal) => {
            concat!(
                $round!($step, 0),
                $round!($step, 1),
                $round!($step, 2),
                $round!($step, 3),
                $round!($step, 4),
                $round!($step, 5),
                $round!($step, 6),
                $round!($step, 7),
                $round!($step, 8),
                $round!($step, 9),
                $round!($step, 10),
                $round!($step, 11),
                $round!($step, 12),
                $round!($step, 13),
                $round!($step, 14),
                $round!($step, 15),
            )
        };
    }

    /// The implementation for tiles of `$rows` rows, whose panels have values `$panel` bytes apart: the registers of the sums, for each row
    /// two; the others; and the rows that have an address of their own.
    macro_rules! rounds {
        (
            $lanes:ident, $rows:literal, $features:literal, $round:ident, $panel:literal,
            [$($row:literal: $sum:tt $last:tt),*], [$($other:tt),*], [$($left:ident = $third:literal),*]
        ) => {
            impl Rounds<$rows> for $lanes {
                #[inline]
                #[target_feature(enable = $features)]
                unsafe fn several(sums: &mut Sums<Self, $rows>, left: *const f32, row: usize, step: usize, right: *const f32) {
                    debug_assert!(step == 1 || step == $rows, "rows where they lie, or panels");
                    macro_rules! rounds {
                        ($text:expr) => {
                            // SAFETY: reads values of the operands, by the caller's contract, and changes no more than the registers
                            // named and flags.
                            unsafe {
                                asm!(
                                    $text,
                                    $($left = in(reg) left.wrapping_add($third * row),)*
                                    row = in(reg) size_of::<f32>() * row,
                                    right = in(reg) right,
                                    $(inout($sum) sums[$row][0], inout($last) sums[$row][1],)*
                                    $(out($other) _,)*
                                    options(pure, readonly, nostack),
                                )
                            }
                        };
                    }
                    if step == 1 { rounds!(several!($round, 4)) } else { rounds!(several!($round, $panel)) }
                }

                #[inline]
                #[target_feature(enable = $features)]
                unsafe fn one(sums: &mut Sums<Self, $rows>, left: *const f32, row: usize, right: *const f32) {
                    // SAFETY: as above.
                    unsafe {
                        asm!(
                            $round!(0, 0),
                            $($left = in(reg) left.wrapping_add($third * row),)*
                            row = in(reg) size_of::<f32>() * row,
                            right = in(reg) right,
                            $(inout($sum) sums[$row][0], inout($last) sums[$row][1],)*
                            $(out($other) _,)*
                            options(pure, readonly, nostack),
                        )
                    }
                }
            }
        };
    }
    rounds!(
        Avx2, 6, "avx2,fma", avx2, 24,
        [0: "ymm0" "ymm1", 1: "ymm2" "ymm3", 2: "ymm4" "ymm5", 3: "ymm6" "ymm7", 4: "ymm8" "ymm9", 5: "ymm10" "ymm11"],
        ["ymm12", "ymm13", "ymm14", "ymm15"],
        [left_0 = 0, left_3 = 3]
    );
    macro_rules! twelve_rows_of {
        ($lanes:ident, $round:ident) => {
            rounds!(
                $lanes, 12, "avx512f", $round, 48,
                [
                    0: "zmm0" "zmm1", 1: "zmm2" "zmm3", 2: "zmm4" "zmm5", 3: "zmm6" "zmm7",
                    4: "zmm8" "zmm9", 5: "zmm10" "zmm11", 6: "zmm12" "zmm13", 7: "zmm14" "zmm15",
                    8: "zmm16" "zmm17", 9: "zmm18" "zmm19", 10: "zmm20" "zmm21", 11: "zmm22" "zmm23"
                ],
                ["zmm24", "zmm25", "zmm26", "zmm27"],
                [left_0 = 0, left_3 = 3, left_6 = 6, left_9 = 9]
            );
        };
    }
    twelve_rows_of!(Avx512, avx512);
    twelve_rows_of!(Avx512Bf16, avx512_bf16);
}

#[cfg(test)]
impl<const R: usize, const PAIRS: bool> Rounds<R> for super::lanes::Emulated<PAIRS> {
    unsafe fn several(
        sums: &mut Sums<Self, R>,
        left: *const f32,
        row: usize,
        step: usize,
        right: *const f32,
    ) {
        for k in 0..TOGETHER {
            // SAFETY: the caller's contract.
            unsafe { Self::one(sums, left.add(k * step), row, right.add(k * VECTORS * Self::LANES)) };
        }
    }

    unsafe fn one(sums: &mut Sums<Self, R>, left: *const f32, row: usize, right: *const f32) {
        for (index, sums) in sums.iter_mut().enumerate() {
            for (v, sum) in sums.iter_mut().enumerate() {
                // SAFETY: the caller's contract.
                unsafe {
                    let value = Self::splat(*left.add(index * row));
                    let vector = Self::load(right.add(v * Self::LANES));
                    *sum = match PAIRS {
                        true => dot(*sum, value, vector),
                        false => Self::mul_add(value, vector, *sum),
                    };
                }
            }
        }
    }
}

/// `sums + left · right` of pairs, as the instruction adds them.
#[cfg(test)]
fn dot(sums: [f32; 16], left: [f32; 16], right: [f32; 16]) -> [f32; 16] {
    use crate::cpu::bf16::lanes::{Emulated, Lanes};
    // SAFETY: plain arithmetic.
    unsafe { Emulated::dot(sums, left.map(f32::to_bits), right.map(f32::to_bits)) }
}
