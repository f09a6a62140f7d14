//! Vectors of `f32` for the CPU convolution and the choice among them at run time.

#![expect(unsafe_code, reason = "vector intrinsics; callers see to the instruction set and the bounds")]

#[cfg(any(test, target_arch = "x86_64"))]
use crate::conv_bf16;
use crate::products::Arithmetic;

/// The instruction set in use, found once for each call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// AVX-512 BF16, on rounded operands.
    #[cfg(target_arch = "x86_64")]
    Bf16(crate::products::Found),
    /// The same without the instructions.
    #[cfg(test)]
    Emulated,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "aarch64")]
    Neon,
    Portable,
}

impl Level {
    /// The level that computes this arithmetic.
    pub(crate) fn of(arithmetic: Arithmetic) -> Self {
        match arithmetic {
            Arithmetic::F32 => Self::detect(),
            #[cfg(target_arch = "x86_64")]
            Arithmetic::Bf16(found) => Self::Bf16(found),
            #[cfg(test)]
            Arithmetic::Emulated => Self::Emulated,
        }
    }

    /// Whether operands are rounded to bf16.
    #[cfg(any(test, target_arch = "x86_64"))]
    pub(crate) fn rounds(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Bf16(_) => true,
            #[cfg(test)]
            Self::Emulated => true,
            _ => false,
        }
    }

    /// The best level in `f32` that this processor has.
    pub(crate) fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if std::arch::is_x86_feature_detected!("avx512f") {
                return Self::Avx512;
            }
            if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
                return Self::Avx2;
            }
        }
        #[cfg(target_arch = "aarch64")]
        if std::arch::is_aarch64_feature_detected!("neon") {
            return Self::Neon;
        }
        Self::Portable
    }

    /// Every level in `f32` that this processor can run, for tests.
    #[cfg(test)]
    pub(crate) fn available() -> Vec<Self> {
        let mut levels = vec![Self::Portable];
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
            levels.push(Self::Avx2);
        }
        if Self::detect() != Self::Portable && !levels.contains(&Self::detect()) {
            levels.push(Self::detect());
        }
        levels
    }

    /// Weight rows (output channels) that share one pass over the taps.
    pub(crate) fn rows(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Bf16(_) => conv_bf16::ROWS,
            #[cfg(test)]
            Self::Emulated => conv_bf16::ROWS,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => 8,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => 4,
            #[cfg(target_arch = "aarch64")]
            Self::Neon => 8,
            Self::Portable => 4,
        }
    }
}

/// A vector of `f32`.
///
/// # Safety
/// Every function may only be called where the implementation's instruction set is present: callers are compiled for it
/// with `target_feature` and chosen at run time.
pub(crate) trait Lanes {
    /// The vector itself.
    type V: Copy;
    /// Number of `f32` in it.
    const LANES: usize;
    /// `x` in every lane.
    ///
    /// # Safety
    /// See the trait.
    unsafe fn splat(x: f32) -> Self::V;
    /// `LANES` values from `from`, which need not be aligned.
    ///
    /// # Safety
    /// See the trait; `from` must be valid for reading `LANES` values.
    unsafe fn load(from: *const f32) -> Self::V;
    /// `LANES` values to `to`, which need not be aligned.
    ///
    /// # Safety
    /// See the trait; `to` must be valid for writing `LANES` values.
    unsafe fn store(to: *mut f32, v: Self::V);
    /// `a · b + c` in every lane.
    ///
    /// # Safety
    /// See the trait.
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The sum of all lanes.
    ///
    /// # Safety
    /// See the trait.
    unsafe fn sum(v: Self::V) -> f32;

    /// One tap of a product: `sums[m][n] += weights[m] · run[n]`, of the vectors `run[n]` that follow each other.
    ///
    /// # Safety
    /// See the trait; `weights` must be valid for reading `M` values, `run` for `N` vectors.
    #[inline(always)]
    unsafe fn tap<const M: usize, const N: usize>(
        sums: &mut [[Self::V; N]; M],
        weights: *const f32,
        run: *const f32,
    ) {
        // SAFETY: the caller's contract.
        unsafe { tap::<Self, M, N>(sums, weights, run) };
    }

    /// One vector of a correlation: `sums[m][n] += rows[m] · runs[n]`, of the vectors at `rows + m · plane` and at `runs[n] + place`.
    ///
    /// # Safety
    /// See the trait; all of these must be valid for reading a vector.
    #[inline(always)]
    unsafe fn meet<const M: usize, const N: usize>(
        sums: &mut [[Self::V; N]; M],
        rows: *const f32,
        plane: usize,
        runs: &[*const f32; N],
        place: usize,
    ) {
        // SAFETY: the caller's contract.
        unsafe { meet::<Self, M, N>(sums, rows, plane, runs, place) };
    }
}

/// What [`Lanes::tap`] does where the compiler finds registers for all of it.
#[inline(always)]
unsafe fn tap<L: Lanes + ?Sized, const M: usize, const N: usize>(
    sums: &mut [[L::V; N]; M],
    weights: *const f32,
    run: *const f32,
) {
    // SAFETY: the caller's contract.
    unsafe {
        let mut x = [L::splat(0.0); N];
        for (n, x) in x.iter_mut().enumerate() {
            *x = L::load(run.add(n * L::LANES));
        }
        for (m, sums) in sums.iter_mut().enumerate() {
            let a = L::splat(*weights.add(m));
            for (sum, &x) in sums.iter_mut().zip(&x) {
                *sum = L::fma(a, x, *sum);
            }
        }
    }
}

/// What [`Lanes::meet`] does where the compiler finds registers for all of it.
#[inline(always)]
unsafe fn meet<L: Lanes + ?Sized, const M: usize, const N: usize>(
    sums: &mut [[L::V; N]; M],
    rows: *const f32,
    plane: usize,
    runs: &[*const f32; N],
    place: usize,
) {
    // SAFETY: the caller's contract.
    unsafe {
        let mut a = [L::splat(0.0); M];
        for (m, a) in a.iter_mut().enumerate() {
            *a = L::load(rows.add(m * plane));
        }
        for (n, run) in runs.iter().enumerate() {
            let b = L::load(run.add(place));
            for m in 0..M {
                sums[m][n] = L::fma(a[m], b, sums[m][n]);
            }
        }
    }
}

/// Arrays the compiler turns into whatever vectors the target has.
pub(crate) struct Portable;

// SAFETY of what is not marked: plain arithmetic; `unsafe` only because the trait's contract is.
impl Lanes for Portable {
    type V = [f32; 4];
    const LANES: usize = 4;
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::V {
        [x; 4]
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::V {
        // SAFETY: the caller's bounds; arrays of `f32` need no more alignment than `f32`.
        unsafe { from.cast::<[f32; 4]>().read() }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, v: Self::V) {
        // SAFETY: as `load`.
        unsafe { to.cast::<[f32; 4]>().write(v) }
    }
    #[inline(always)]
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    unsafe fn sum(v: Self::V) -> f32 {
        (v[0] + v[2]) + (v[1] + v[3])
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) mod x86;

#[cfg(target_arch = "aarch64")]
pub(crate) mod neon {
    use std::arch::aarch64::*;

    use super::Lanes;

    pub(crate) struct Neon;

    impl Lanes for Neon {
        type V = float32x4_t;
        const LANES: usize = 4;
        #[inline(always)]
        unsafe fn splat(x: f32) -> float32x4_t {
            // SAFETY: NEON is part of every AArch64 target, here and below; bounds are the caller's.
            unsafe { vdupq_n_f32(x) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> float32x4_t {
            // SAFETY: as above.
            unsafe { vld1q_f32(from) }
        }
        #[inline(always)]
        unsafe fn store(to: *mut f32, v: float32x4_t) {
            // SAFETY: as above.
            unsafe { vst1q_f32(to, v) }
        }
        #[inline(always)]
        unsafe fn fma(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
            // SAFETY: as above.
            unsafe { vfmaq_f32(c, a, b) }
        }
        #[inline(always)]
        unsafe fn sum(v: float32x4_t) -> f32 {
            // SAFETY: as above.
            unsafe { vaddvq_f32(v) }
        }
    }
}
