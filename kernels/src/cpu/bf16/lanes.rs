//! Sixteen dot products of bf16 pairs at a time: the instruction, and the same arithmetic without it.
#![expect(unsafe_code, reason = "vector intrinsics; callers see to the instruction set and the bounds")]

/// Sums in a vector.
pub(crate) const LANES: usize = 16;

/// A vector of [`LANES`] sums in `f32`, and one of as many pairs of bf16. A pair is a `u32` with its first value in the low
/// half.
///
/// # Safety
/// Every function may only be called where the implementation's instruction set is present: callers are compiled for it
/// with `target_feature` and chosen at run time.
pub(crate) trait Lanes {
    /// The sums.
    type Sums: Copy;
    /// The pairs.
    type Pairs: Copy;
    /// Zeros.
    ///
    /// # Safety
    /// See the trait.
    unsafe fn zero() -> Self::Sums;
    /// The pairs at `from`, which need not be aligned.
    ///
    /// # Safety
    /// See the trait; `from` is valid for reading [`LANES`] pairs.
    unsafe fn load(from: *const u32) -> Self::Pairs;
    /// Half as many pairs at `from`, which need not be aligned, and zeros.
    ///
    /// # Safety
    /// See the trait; `from` is valid for reading `LANES / 2` pairs.
    unsafe fn load_half(from: *const u32) -> Self::Pairs;
    /// Pairs of a value at `first` and one at `second`, or zero.
    ///
    /// # Safety
    /// See the trait; both are valid for reading [`LANES`] values.
    unsafe fn zip(first: *const u16, second: Option<*const u16>) -> Self::Pairs;
    /// One pair in every lane.
    ///
    /// # Safety
    /// See the trait.
    unsafe fn splat(pair: u32) -> Self::Pairs;
    /// `sums + left₁ right₁ + left₀ right₀` in every lane, rounded to nearest after each addition; numbers below the
    /// smallest normal one count as zero, going in and coming out.
    ///
    /// # Safety
    /// See the trait.
    unsafe fn dot(sums: Self::Sums, left: Self::Pairs, right: Self::Pairs) -> Self::Sums;
    /// The sums in memory.
    ///
    /// # Safety
    /// See the trait.
    unsafe fn values(sums: Self::Sums) -> [f32; LANES];
}

/// `vdpbf16ps` of AVX-512 BF16 on 512 bits.
#[cfg(target_arch = "x86_64")]
pub(crate) mod x86 {
    use std::arch::x86_64::*;
    use std::mem::transmute;

    use super::{LANES, Lanes};

    pub(crate) struct Avx512;

    impl Lanes for Avx512 {
        type Sums = __m512;
        type Pairs = __m512i;
        #[inline(always)]
        unsafe fn zero() -> __m512 {
            // SAFETY: AVX-512 is present (contract of the trait), here and below; bounds are the caller's.
            unsafe { _mm512_setzero_ps() }
        }
        #[inline(always)]
        unsafe fn load(from: *const u32) -> __m512i {
            // SAFETY: as above.
            unsafe { _mm512_loadu_si512(from.cast()) }
        }
        #[inline(always)]
        unsafe fn load_half(from: *const u32) -> __m512i {
            // SAFETY: as above.
            unsafe { _mm512_zextsi256_si512(_mm256_loadu_si256(from.cast())) }
        }
        #[inline(always)]
        unsafe fn zip(first: *const u16, second: Option<*const u16>) -> __m512i {
            // SAFETY: as above.
            unsafe {
                let pairs = _mm512_cvtepu16_epi32(_mm256_loadu_si256(first.cast()));
                let Some(second) = second else { return pairs };
                let second = _mm512_cvtepu16_epi32(_mm256_loadu_si256(second.cast()));
                _mm512_or_si512(pairs, _mm512_slli_epi32::<16>(second))
            }
        }
        #[inline(always)]
        unsafe fn splat(pair: u32) -> __m512i {
            // SAFETY: as above.
            unsafe { _mm512_set1_epi32(pair as i32) }
        }
        #[inline(always)]
        unsafe fn dot(sums: __m512, left: __m512i, right: __m512i) -> __m512 {
            // SAFETY: as above, with AVX-512 BF16; both types are 512 bits without a meaning of their own.
            unsafe {
                let [left, right] = [left, right].map(|pairs| transmute::<__m512i, __m512bh>(pairs));
                _mm512_dpbf16_ps(sums, left, right)
            }
        }
        #[inline(always)]
        unsafe fn values(sums: __m512) -> [f32; LANES] {
            // SAFETY: 16 `f32` of 512 bits.
            unsafe { transmute(sums) }
        }
    }
}

/// The instruction's arithmetic in plain operations, as Intel's manual describes it (volume 2, VDPBF16PS): two fused
/// multiply-adds, the pair's second values first, without subnormal numbers. Two orders of magnitude slower.
#[cfg(test)]
pub(crate) struct Emulated;

// SAFETY of what is not marked: plain arithmetic; `unsafe` only because the trait's contract is.
#[cfg(test)]
impl Lanes for Emulated {
    type Sums = [f32; LANES];
    type Pairs = [u32; LANES];
    unsafe fn zero() -> [f32; LANES] {
        [0.0; LANES]
    }
    unsafe fn load(from: *const u32) -> [u32; LANES] {
        // SAFETY: the caller's bounds.
        unsafe { from.cast::<[u32; LANES]>().read_unaligned() }
    }
    unsafe fn load_half(from: *const u32) -> [u32; LANES] {
        // SAFETY: as above.
        let half = unsafe { from.cast::<[u32; LANES / 2]>().read_unaligned() };
        std::array::from_fn(|lane| half.get(lane).copied().unwrap_or(0))
    }
    unsafe fn zip(first: *const u16, second: Option<*const u16>) -> [u32; LANES] {
        // SAFETY: as above.
        let read = |from: *const u16| unsafe { from.cast::<[u16; LANES]>().read() };
        let (first, second) = (read(first), second.map_or([0; LANES], read));
        std::array::from_fn(|lane| u32::from(first[lane]) | u32::from(second[lane]) << 16)
    }
    unsafe fn splat(pair: u32) -> [u32; LANES] {
        [pair; LANES]
    }
    unsafe fn dot(sums: [f32; LANES], left: [u32; LANES], right: [u32; LANES]) -> [f32; LANES] {
        let first = |pair: u32| normal(f32::from_bits(pair << 16));
        let second = |pair: u32| normal(f32::from_bits(pair & 0xFFFF_0000));
        std::array::from_fn(|lane| {
            let (left, right) = (left[lane], right[lane]);
            let sum = normal(second(left).mul_add(second(right), normal(sums[lane])));
            normal(first(left).mul_add(first(right), sum))
        })
    }
    unsafe fn values(sums: [f32; LANES]) -> [f32; LANES] {
        sums
    }
}

/// A subnormal number becomes zero of its sign.
#[cfg(test)]
fn normal(x: f32) -> f32 {
    if x.is_subnormal() { 0f32.copysign(x) } else { x }
}
