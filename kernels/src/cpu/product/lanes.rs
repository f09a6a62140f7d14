//! Vectors of `f32`: those of AVX2 and of AVX-512, and the same without them.
#![expect(unsafe_code, reason = "vector intrinsics; callers see to the instruction set and the bounds")]

/// Lines and places of a block that is transposed at once.
pub(super) const BLOCK: usize = 8;

/// A vector of sums.
///
/// # Safety
/// Every function may only be called where the implementation's instruction set is present: callers are compiled for it with
/// `target_feature` and chosen at run time. Addresses are valid for a vector and need not be aligned.
pub(super) trait Lanes {
    type Vector: Copy;
    /// Values in a vector.
    const LANES: usize;
    unsafe fn zero() -> Self::Vector;
    unsafe fn load(from: *const f32) -> Self::Vector;
    /// `value` in every lane.
    unsafe fn splat(value: f32) -> Self::Vector;
    /// `a · b`.
    unsafe fn mul(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a · b + c`, rounded once.
    unsafe fn mul_add(a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    unsafe fn store(values: Self::Vector, to: *mut f32);
    /// Has the processor fetch this line for soon, into the first-level cache. Any address will do.
    unsafe fn fetch(from: *const f32);
    /// As [`Self::fetch`], for later, into the second-level cache.
    unsafe fn fetch_for_later(from: *const f32);
    /// A block of [`BLOCK`] lines, `stride` apart, of as many values, transposed: value `p` of line `l` goes to
    /// `to[p · to_stride + l]`.
    ///
    /// # Safety
    /// See the trait; both are valid for whole blocks.
    unsafe fn transpose(from: *const f32, stride: usize, to: *mut f32, to_stride: usize);
}

#[cfg(target_arch = "x86_64")]
pub(super) mod x86 {
    use std::arch::x86_64::*;

    use super::{BLOCK, Lanes};

    macro_rules! lanes {
        ($name:ident, $vector:ty, $lanes:literal, $zero:ident, $load:ident, $splat:ident, $mul:ident, $mul_add:ident, $store:ident) => {
            pub(crate) struct $name;

            impl Lanes for $name {
                type Vector = $vector;
                const LANES: usize = $lanes;
                #[inline(always)]
                unsafe fn zero() -> $vector {
                    // SAFETY: the instructions are present (contract of the trait), here and below; bounds are the caller's.
                    unsafe { $zero() }
                }
                #[inline(always)]
                unsafe fn load(from: *const f32) -> $vector {
                    // SAFETY: as above.
                    unsafe { $load(from) }
                }
                #[inline(always)]
                unsafe fn splat(value: f32) -> $vector {
                    // SAFETY: as above.
                    unsafe { $splat(value) }
                }
                #[inline(always)]
                unsafe fn mul(a: $vector, b: $vector) -> $vector {
                    // SAFETY: as above.
                    unsafe { $mul(a, b) }
                }
                #[inline(always)]
                unsafe fn mul_add(a: $vector, b: $vector, c: $vector) -> $vector {
                    // SAFETY: as above.
                    unsafe { $mul_add(a, b, c) }
                }
                #[inline(always)]
                unsafe fn store(values: $vector, to: *mut f32) {
                    // SAFETY: as above.
                    unsafe { $store(to, values) }
                }
                #[inline(always)]
                unsafe fn fetch(from: *const f32) {
                    // SAFETY: a hint: no address is wrong.
                    unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
                }
                #[inline(always)]
                unsafe fn fetch_for_later(from: *const f32) {
                    // SAFETY: a hint: no address is wrong.
                    unsafe { _mm_prefetch::<_MM_HINT_T1>(from.cast()) }
                }
                #[inline(always)]
                unsafe fn transpose(from: *const f32, stride: usize, to: *mut f32, to_stride: usize) {
                    // SAFETY: AVX2 is among the instructions of all implementations.
                    unsafe { transpose(from, stride, to, to_stride) }
                }
            }
        };
    }
    lanes!(
        Avx2,
        __m256,
        8,
        _mm256_setzero_ps,
        _mm256_loadu_ps,
        _mm256_set1_ps,
        _mm256_mul_ps,
        _mm256_fmadd_ps,
        _mm256_storeu_ps
    );
    lanes!(
        Avx512,
        __m512,
        16,
        _mm512_setzero_ps,
        _mm512_loadu_ps,
        _mm512_set1_ps,
        _mm512_mul_ps,
        _mm512_fmadd_ps,
        _mm512_storeu_ps
    );

    /// # Safety
    /// That of [`Lanes::transpose`].
    #[inline(always)]
    unsafe fn transpose(from: *const f32, stride: usize, to: *mut f32, to_stride: usize) {
        // SAFETY: the caller's contract.
        unsafe {
            let zero = _mm256_setzero_ps();
            let (mut lines, mut pairs, mut quads) = ([zero; BLOCK], [zero; BLOCK], [zero; BLOCK]);
            for (index, line) in lines.iter_mut().enumerate() {
                *line = _mm256_loadu_ps(from.add(index * stride));
            }
            // Values of two lines alternate, then of four; last, the halves of lower and upper four lines meet.
            for index in (0..BLOCK).step_by(2) {
                pairs[index] = _mm256_unpacklo_ps(lines[index], lines[index + 1]);
                pairs[index + 1] = _mm256_unpackhi_ps(lines[index], lines[index + 1]);
            }
            for first in [0, 1, 4, 5] {
                let quad = first / 4 * 4 + first % 4 * 2;
                quads[quad] = _mm256_shuffle_ps::<0x44>(pairs[first], pairs[first + 2]);
                quads[quad + 1] = _mm256_shuffle_ps::<0xEE>(pairs[first], pairs[first + 2]);
            }
            for place in 0..BLOCK / 2 {
                let [upper, lower] = [quads[place], quads[place + BLOCK / 2]];
                _mm256_storeu_ps(to.add(place * to_stride), _mm256_permute2f128_ps::<0x20>(upper, lower));
                let place = place + BLOCK / 2;
                _mm256_storeu_ps(to.add(place * to_stride), _mm256_permute2f128_ps::<0x31>(upper, lower));
            }
        }
    }
}

/// As wide as AVX-512, in plain arithmetic.
#[cfg(test)]
pub(super) struct Emulated;

#[cfg(test)]
impl Lanes for Emulated {
    type Vector = [f32; 16];
    const LANES: usize = 16;
    unsafe fn zero() -> [f32; 16] {
        [0.0; 16]
    }
    unsafe fn load(from: *const f32) -> [f32; 16] {
        // SAFETY: the contract of the trait, here and below.
        unsafe { from.cast::<[f32; 16]>().read_unaligned() }
    }
    unsafe fn splat(value: f32) -> [f32; 16] {
        [value; 16]
    }
    unsafe fn mul(a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        std::array::from_fn(|lane| a[lane] * b[lane])
    }
    unsafe fn mul_add(a: [f32; 16], b: [f32; 16], c: [f32; 16]) -> [f32; 16] {
        std::array::from_fn(|lane| a[lane].mul_add(b[lane], c[lane]))
    }
    unsafe fn store(values: [f32; 16], to: *mut f32) {
        // SAFETY: as above.
        unsafe { to.cast::<[f32; 16]>().write_unaligned(values) }
    }
    unsafe fn fetch(_: *const f32) {}
    unsafe fn fetch_for_later(_: *const f32) {}
    unsafe fn transpose(from: *const f32, stride: usize, to: *mut f32, to_stride: usize) {
        for (line, place) in (0..BLOCK).flat_map(|line| (0..BLOCK).map(move |place| (line, place))) {
            // SAFETY: as above.
            unsafe { *to.add(place * to_stride + line) = *from.add(line * stride + place) };
        }
    }
}
