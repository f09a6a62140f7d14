//! Vectors of AVX-512 and AVX2.

use std::arch::asm;
use std::arch::x86_64::*;

use super::Lanes;

pub(crate) struct Avx512;

impl Lanes for Avx512 {
    type V = __m512;
    const LANES: usize = 16;
    #[inline(always)]
    unsafe fn splat(x: f32) -> __m512 {
        // SAFETY: AVX-512 is present (contract of the trait), here and below; bounds are the caller's.
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, v: __m512) {
        // SAFETY: as above.
        unsafe { _mm512_storeu_ps(to, v) }
    }
    #[inline(always)]
    unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn sum(v: __m512) -> f32 {
        // SAFETY: as above.
        unsafe { _mm512_reduce_add_ps(v) }
    }
}

pub(crate) struct Avx2;

/// Three vectors, each times four others, added to twelve sums: all 16 registers. The compiler moves the loads until one of the
/// sums lives in memory, where a store and a load follow each multiply-add; so it took two and a half times as long.
macro_rules! four_by_three {
    (
        $sums:ident, [$load:literal, $x0:literal, $x1:literal, $x2:literal],
        [$spread:literal, $a0:literal, $a1:literal, $a2:literal, $a3:literal], $($input:tt)*
    ) => {
        asm!(
            concat!($load, " ymm12, [", $x0, "]"),
            concat!($load, " ymm13, [", $x1, "]"),
            concat!($load, " ymm14, [", $x2, "]"),
            concat!($spread, " ymm15, [", $a0, "]"),
            "vfmadd231ps ymm0, ymm15, ymm12",
            "vfmadd231ps ymm1, ymm15, ymm13",
            "vfmadd231ps ymm2, ymm15, ymm14",
            concat!($spread, " ymm15, [", $a1, "]"),
            "vfmadd231ps ymm3, ymm15, ymm12",
            "vfmadd231ps ymm4, ymm15, ymm13",
            "vfmadd231ps ymm5, ymm15, ymm14",
            concat!($spread, " ymm15, [", $a2, "]"),
            "vfmadd231ps ymm6, ymm15, ymm12",
            "vfmadd231ps ymm7, ymm15, ymm13",
            "vfmadd231ps ymm8, ymm15, ymm14",
            concat!($spread, " ymm15, [", $a3, "]"),
            "vfmadd231ps ymm9, ymm15, ymm12",
            "vfmadd231ps ymm10, ymm15, ymm13",
            "vfmadd231ps ymm11, ymm15, ymm14",
            $($input)*
            inout("ymm0") $sums[0][0], inout("ymm1") $sums[0][1], inout("ymm2") $sums[0][2],
            inout("ymm3") $sums[1][0], inout("ymm4") $sums[1][1], inout("ymm5") $sums[1][2],
            inout("ymm6") $sums[2][0], inout("ymm7") $sums[2][1], inout("ymm8") $sums[2][2],
            inout("ymm9") $sums[3][0], inout("ymm10") $sums[3][1], inout("ymm11") $sums[3][2],
            out("ymm12") _, out("ymm13") _, out("ymm14") _, out("ymm15") _,
            options(pure, readonly, nostack, preserves_flags),
        )
    };
}

impl Lanes for Avx2 {
    type V = __m256;
    const LANES: usize = 8;
    #[inline(always)]
    unsafe fn splat(x: f32) -> __m256 {
        // SAFETY: AVX2 and FMA are present (contract of the trait), here and below; bounds are the caller's.
        unsafe { _mm256_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, v: __m256) {
        // SAFETY: as above.
        unsafe { _mm256_storeu_ps(to, v) }
    }
    #[inline(always)]
    unsafe fn fma(a: __m256, b: __m256, c: __m256) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn sum(v: __m256) -> f32 {
        // SAFETY: as above.
        unsafe {
            let half = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let pair = _mm_add_ps(half, _mm_movehl_ps(half, half));
            _mm_cvtss_f32(_mm_add_ss(pair, _mm_shuffle_ps::<1>(pair, pair)))
        }
    }
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn tap<const M: usize, const N: usize>(
        sums: &mut [[__m256; N]; M],
        weights: *const f32,
        run: *const f32,
    ) {
        // SAFETY: the caller's contract; a reference to an array of these very sizes.
        unsafe {
            if M == 4 && N == 3 {
                let sums = &mut *std::ptr::from_mut(sums).cast::<[[__m256; 3]; 4]>();
                four_by_three!(
                    sums,
                    ["vmovups", "{run}", "{run} + 32", "{run} + 64"],
                    ["vbroadcastss", "{weights}", "{weights} + 4", "{weights} + 8", "{weights} + 12"],
                    run = in(reg) run,
                    weights = in(reg) weights,
                );
            } else {
                super::tap::<Self, M, N>(sums, weights, run);
            }
        }
    }
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn meet<const M: usize, const N: usize>(
        sums: &mut [[__m256; N]; M],
        rows: *const f32,
        plane: usize,
        runs: &[*const f32; N],
        place: usize,
    ) {
        // SAFETY: as above.
        unsafe {
            if M == 4 && N == 3 {
                let sums = &mut *std::ptr::from_mut(sums).cast::<[[__m256; 3]; 4]>();
                four_by_three!(
                    sums,
                    ["vmovups", "{first} + 4 * {place}", "{second} + 4 * {place}", "{third} + 4 * {place}"],
                    ["vmovups", "{rows}", "{rows} + 4 * {plane}", "{rows} + 8 * {plane}", "{last} + 4 * {plane}"],
                    first = in(reg) runs[0],
                    second = in(reg) runs[1],
                    third = in(reg) runs[2],
                    place = in(reg) place,
                    rows = in(reg) rows,
                    plane = in(reg) plane,
                    last = in(reg) rows.wrapping_add(2 * plane),
                );
            } else {
                super::meet::<Self, M, N>(sums, rows, plane, runs, place);
            }
        }
    }
}
