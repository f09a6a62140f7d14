//! Rounding to bfloat16, and vectors of pairs of such numbers for convolutions. Products of matrices multiply them in
//! [`super::product`].
//!
//! Operands and result are `f32` in memory and the sums are as well. A pair holds the values at two neighbouring positions of the
//! inner axis, the first in the low half; the second is zero where there is none.

#[cfg(any(test, target_arch = "x86_64"))]
pub(crate) mod lanes;

/// Whether this processor has the instructions.
#[cfg(target_arch = "x86_64")]
pub(crate) fn available() -> bool {
    use std::arch::is_x86_feature_detected as has;
    has!("avx512f") && has!("avx512vl") && has!("avx512bw") && has!("avx512dq") && has!("avx512bf16")
}

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
