//! Loops compiled for several instruction sets, and the functions they share.
//!
//! The compiler vectorises the loops; which version runs is decided at run time. Sums go through a fixed number of
//! lanes, so a result depends on the processor's instruction set at most by the rounding of fused multiply-adds.

/// Defines a function `fn name<FMA>(..)` compiled for AVX-512, AVX2 and the build's own target.
///
/// The body may use the constant `FMA`: whether fused multiply-add is one instruction.
macro_rules! multiversion {
    ($(#[$meta:meta])* pub(super) fn $name:ident<$fma:ident>($($arg:ident: $type:ty),* $(,)?) $(-> $result:ty)? $body:block) => {
        $(#[$meta])*
        #[cfg_attr(
            target_arch = "x86_64",
            expect(unsafe_code, reason = "calls of functions compiled for instruction sets found at run time")
        )]
        pub(super) fn $name($($arg: $type),*) $(-> $result)? {
            #[inline(always)]
            fn body<const $fma: bool>($($arg: $type),*) $(-> $result)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma")]
                fn avx512($($arg: $type),*) $(-> $result)? {
                    body::<true>($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $type),*) $(-> $result)? {
                    body::<true>($($arg),*)
                }
                match crate::cpu::simd::instructions() {
                    // SAFETY: the processor has these instructions.
                    crate::cpu::simd::Instructions::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: the processor has these instructions.
                    crate::cpu::simd::Instructions::Avx2 => return unsafe { avx2($($arg),*) },
                    crate::cpu::simd::Instructions::Base => {}
                }
            }
            body::<{ cfg!(any(target_feature = "fma", target_arch = "aarch64")) }>($($arg),*)
        }
    };
}
pub(super) use multiversion;

/// The widest set of instructions the processor has, of those compiled for.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(super) enum Instructions {
    Avx512,
    Avx2,
    Base,
}

/// Looks at the processor (the standard library remembers the answer).
#[cfg(target_arch = "x86_64")]
#[inline]
pub(super) fn instructions() -> Instructions {
    let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    let avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq");
    match (avx2, avx512) {
        (true, true) => Instructions::Avx512,
        (true, false) => Instructions::Avx2,
        _ => Instructions::Base,
    }
}

/// `a · b + c`.
#[inline(always)]
pub(super) fn mul_add<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// Lanes of a sum: two registers of AVX-512.
pub(super) const LANES: usize = 32;

/// Sum of the terms of slices' values, all slices as long as the first, through [`LANES`] partial sums.
// Whole arrays of lanes, and halves whose sizes are constants: with an index into the slices, or a width that is a variable, the
// sums live in memory.
#[inline(always)]
pub(super) fn sum<const N: usize>(slices: [&[f32]; N], term: impl Fn([f32; N]) -> f32) -> f32 {
    let length = slices[0].len();
    let parts = slices.map(|slice| slice[..length].as_chunks::<LANES>());
    let mut lanes = [0f32; LANES];
    for block in 0..length / LANES {
        let blocks: [&[f32; LANES]; N] = std::array::from_fn(|slice| &parts[slice].0[block]);
        for (lane, total) in lanes.iter_mut().enumerate() {
            *total += term(std::array::from_fn(|slice| blocks[slice][lane]));
        }
    }
    for (lane, total) in lanes.iter_mut().enumerate().take(length % LANES) {
        *total += term(std::array::from_fn(|slice| parts[slice].1[lane]));
    }
    folded(lanes, |one, other| one + other)
}

/// All lanes in one, by halves.
#[inline(always)]
pub(super) fn folded(mut lanes: [f32; LANES], join: impl Fn(f32, f32) -> f32) -> f32 {
    macro_rules! halve {
        ($($width:literal)*) => {$(
            for lane in 0..$width {
                lanes[lane] = join(lanes[lane], lanes[lane + $width]);
            }
        )*};
    }
    const { assert!(LANES == 32) };
    halve!(16 8 4 2 1);
    lanes[0]
}

/// The largest value; NaN is passed over.
#[inline(always)]
pub(super) fn max(values: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let larger = |most: f32, value: f32| if value > most { value } else { most };
    let (blocks, rest) = values.as_chunks::<LANES>();
    for block in blocks {
        for (most, &value) in lanes.iter_mut().zip(block) {
            *most = larger(*most, value);
        }
    }
    for (most, &value) in lanes.iter_mut().zip(rest) {
        *most = larger(*most, value);
    }
    folded(lanes, larger)
}

/// `exp(x)` for `x ≤ 0`, to 1.5 units in the last place; below -87 the smallest normal number. NaN stays NaN.
///
/// `x = n ln 2 + r`, `|r| ≤ ln 2 / 2`; `exp(r)` by a polynomial interpolated at the Chebyshev nodes (2e-9).
#[inline(always)]
pub(super) fn exp<const FMA: bool>(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 · 2²³: adding it leaves the integer in the low bits
    const LN2_HIGH: f32 = 0.693_359_4; // 355/512, exact times small integers
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let x = if -87.0 > x { -87.0 } else { x };
    let shifted = mul_add::<FMA>(x, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = mul_add::<FMA>(n, -LN2_LOW, mul_add::<FMA>(n, -LN2_HIGH, x));
    let mut p = 0.001_394_110_8;
    for c in [0.008_375_126, 0.041_666_35, 0.166_664_16, 0.5, 1.0, 1.0] {
        p = mul_add::<FMA>(p, r, c);
    }
    f32::from_bits(p.to_bits().wrapping_add(shifted.to_bits() << 23))
}
