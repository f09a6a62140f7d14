//! Vectors of `f32`: those of AVX2 and of AVX-512, and the same without them. With AVX-512 BF16 operands are vectors of pairs, each in
//! the place of an `f32`, and the sums are `f32` as before.
#![expect(unsafe_code, reason = "vector intrinsics; callers see to the instruction set and the bounds")]

#[cfg(test)]
use super::pairs::place_of;

/// Lines and places of a block that is transposed at once.
pub(super) const BLOCK: usize = 8;

/// A vector of sums.
///
/// # Safety
/// Every function may only be called where the implementation's instruction set is present: callers are compiled for it with
/// `target_feature` and chosen at run time. Addresses are valid for a vector and need not be aligned.
pub(super) trait Lanes {
    type Vector: Copy;
    /// Sums in a vector.
    const LANES: usize;
    /// Values of an operand in the place of one: itself, or a pair.
    const VALUES: usize;
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
    /// A block of [`BLOCK`] lines, `stride` apart, of as many places, transposed: what belongs in place `p` of line `l` goes to
    /// `to[p · to_stride + l]`. Of lanes that multiply pairs, a place takes two values.
    ///
    /// # Safety
    /// See the trait; both are valid for whole blocks.
    unsafe fn transpose(from: *const f32, stride: usize, to: *mut f32, to_stride: usize);
}

/// Lanes that multiply pairs of values rounded to bf16 ([`crate::cpu::bf16`]). A pair takes the place of an `f32`.
///
/// # Safety
/// As for [`Lanes`]; addresses are valid for what is said to be read or written.
pub(super) trait Pairing: Lanes {
    /// Pairs of neighbours, of twice as many values as there are lanes.
    unsafe fn neighbours(from: *const f32) -> Self::Vector;
    /// `COUNT` pairs of a value of the first line and one of the second.
    unsafe fn zip<const COUNT: usize>(first: *const f32, second: *const f32) -> Self::Vector;
    /// The first `COUNT` lanes.
    unsafe fn store_some<const COUNT: usize>(values: Self::Vector, to: *mut f32);
}

#[cfg(target_arch = "x86_64")]
pub(super) mod x86 {
    use std::arch::x86_64::*;
    use std::mem::transmute;

    use super::{BLOCK, Lanes, Pairing};

    macro_rules! lanes {
        ($name:ident, $vector:ty, $lanes:literal, $values:literal, $zero:ident, $load:ident, $splat:ident, $mul:ident, $mul_add:ident, $store:ident, $line:ident) => {
            pub(crate) struct $name;

            impl Lanes for $name {
                type Vector = $vector;
                const LANES: usize = $lanes;
                const VALUES: usize = $values;
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
                    unsafe {
                        let mut lines = [_mm256_setzero_ps(); BLOCK];
                        for (index, line) in lines.iter_mut().enumerate() {
                            *line = $line(from.add(index * stride));
                        }
                        transpose(lines, to, to_stride)
                    }
                }
            }
        };
    }
    lanes!(
        Avx2,
        __m256,
        8,
        1,
        _mm256_setzero_ps,
        _mm256_loadu_ps,
        _mm256_set1_ps,
        _mm256_mul_ps,
        _mm256_fmadd_ps,
        _mm256_storeu_ps,
        _mm256_loadu_ps
    );
    lanes!(
        Avx512,
        __m512,
        16,
        1,
        _mm512_setzero_ps,
        _mm512_loadu_ps,
        _mm512_set1_ps,
        _mm512_mul_ps,
        _mm512_fmadd_ps,
        _mm512_storeu_ps,
        _mm256_loadu_ps
    );
    // Sums are those of AVX-512, whatever is multiplied.
    lanes!(
        Avx512Bf16,
        __m512,
        16,
        2,
        _mm512_setzero_ps,
        _mm512_loadu_ps,
        _mm512_set1_ps,
        _mm512_mul_ps,
        _mm512_fmadd_ps,
        _mm512_storeu_ps,
        line_of_pairs
    );

    /// Eight pairs of neighbours.
    ///
    /// # Safety
    /// AVX-512 BF16 is there, and so are 16 values.
    #[inline(always)]
    unsafe fn line_of_pairs(from: *const f32) -> __m256 {
        // SAFETY: the caller's contract; both types are 256 bits without a meaning of their own.
        unsafe { transmute::<__m256bh, __m256>(_mm512_cvtneps_pbh(_mm512_loadu_ps(from))) }
    }

    impl Pairing for Avx512Bf16 {
        #[inline(always)]
        unsafe fn neighbours(from: *const f32) -> __m512 {
            // SAFETY: the contract of the trait, here and below.
            unsafe {
                let (low, high) = (_mm512_loadu_ps(from), _mm512_loadu_ps(from.add(16)));
                transmute::<__m512bh, __m512>(_mm512_cvtne2ps_pbh(high, low))
            }
        }
        #[inline(always)]
        unsafe fn zip<const COUNT: usize>(first: *const f32, second: *const f32) -> __m512 {
            /// Values of both lines in turn.
            const ORDER: [i16; 32] = {
                let mut order = [0; 32];
                let mut place = 0;
                while place < 32 {
                    order[place] = (place / 2 + place % 2 * 16) as i16;
                    place += 1;
                }
                order
            };
            // SAFETY: as above; a mask keeps loads inside of their lines.
            unsafe {
                let mask = first_lanes(COUNT);
                let [first, second] = [first, second].map(|line| _mm512_maskz_loadu_ps(mask, line));
                let lines = transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(second, first));
                let order = _mm512_loadu_si512(ORDER.as_ptr().cast());
                _mm512_castsi512_ps(_mm512_permutexvar_epi16(order, lines))
            }
        }
        #[inline(always)]
        unsafe fn store_some<const COUNT: usize>(values: __m512, to: *mut f32) {
            // SAFETY: as above.
            unsafe { _mm512_mask_storeu_ps(to, first_lanes(COUNT), values) }
        }
    }

    /// The mask of the first `count` lanes.
    #[inline(always)]
    const fn first_lanes(count: usize) -> __mmask16 {
        ((1u32 << count) - 1) as __mmask16
    }

    /// # Safety
    /// That of [`Lanes::transpose`].
    #[inline(always)]
    unsafe fn transpose(lines: [__m256; BLOCK], to: *mut f32, to_stride: usize) {
        // SAFETY: the caller's contract.
        unsafe {
            let zero = _mm256_setzero_ps();
            let (mut pairs, mut quads) = ([zero; BLOCK], [zero; BLOCK]);
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

/// As wide as AVX-512, in plain arithmetic; of pairs if `PAIRS`.
#[cfg(test)]
pub(super) struct Emulated<const PAIRS: bool>;

#[cfg(test)]
impl<const PAIRS: bool> Lanes for Emulated<PAIRS> {
    type Vector = [f32; 16];
    const LANES: usize = 16;
    const VALUES: usize = 1 + PAIRS as usize;
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
            unsafe {
                let line_start = from.add(line * stride);
                *to.add(place * to_stride + line) = match PAIRS {
                    true => place_of(*line_start.add(2 * place), *line_start.add(2 * place + 1)),
                    false => *line_start.add(place),
                };
            }
        }
    }
}

#[cfg(test)]
impl Pairing for Emulated<true> {
    unsafe fn neighbours(from: *const f32) -> [f32; 16] {
        // SAFETY: as above, here and below.
        std::array::from_fn(|pair| unsafe { place_of(*from.add(2 * pair), *from.add(2 * pair + 1)) })
    }
    unsafe fn zip<const COUNT: usize>(first: *const f32, second: *const f32) -> [f32; 16] {
        std::array::from_fn(|pair| match pair < COUNT {
            // SAFETY: as above.
            true => unsafe { place_of(*first.add(pair), *second.add(pair)) },
            false => 0.0,
        })
    }
    unsafe fn store_some<const COUNT: usize>(values: [f32; 16], to: *mut f32) {
        // SAFETY: as above.
        unsafe { std::ptr::copy_nonoverlapping(values.as_ptr(), to, COUNT) }
    }
}
