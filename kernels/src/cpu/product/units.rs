//! The units there are.

use super::Unit;
#[cfg(any(test, target_arch = "x86_64"))]
use super::{
    lanes::{BLOCK, Lanes},
    tile::{VECTORS, tiles},
};

/// # Safety
/// As for [`Lanes::transpose`].
#[cfg(any(test, target_arch = "x86_64"))]
#[inline(always)]
unsafe fn transpose<L: Lanes>(count: usize, from: *const f32, stride: usize, to: *mut f32, to_stride: usize) {
    for block in 0..count {
        // SAFETY: the caller's contract.
        unsafe {
            L::transpose(from.add(block * BLOCK), stride, to.add(block * BLOCK * to_stride), to_stride)
        };
    }
}

#[cfg(target_arch = "x86_64")]
impl Unit {
    /// The best there is, if it is worth it.
    pub(in crate::cpu) fn of_this_processor() -> Option<&'static Unit> {
        use super::lanes::x86::{Avx2, Avx512};
        use super::tile::{Rows, Strip};
        use crate::cpu::matmul::Target;
        use crate::cpu::simd::{Instructions, instructions};

        macro_rules! unit {
            ($lanes:ident, $rows:literal, $features:literal) => {{
                #[target_feature(enable = $features)]
                unsafe fn compiled_tiles(count: usize, left: Rows, strip: Strip, target: Target<'_>) {
                    // SAFETY: the caller's contract; the instructions are those of this function.
                    unsafe { tiles::<$lanes, $rows>(count, left, strip, target) };
                }
                #[target_feature(enable = $features)]
                unsafe fn compiled_transpose(
                    count: usize,
                    from: *const f32,
                    stride: usize,
                    to: *mut f32,
                    to_stride: usize,
                ) {
                    // SAFETY: as above.
                    unsafe { transpose::<$lanes>(count, from, stride, to, to_stride) };
                }
                static UNIT: Unit = Unit {
                    rows: $rows,
                    width: VECTORS * $lanes::LANES,
                    tiles: compiled_tiles,
                    transpose: compiled_transpose,
                };
                Some(&UNIT)
            }};
        }
        match instructions() {
            Instructions::Avx512 => unit!(Avx512, 12, "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma"),
            Instructions::Avx2 => unit!(Avx2, 6, "avx2,fma"),
            Instructions::Base => None,
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
impl Unit {
    /// None: the `gemm` crate knows other processors.
    pub(in crate::cpu) fn of_this_processor() -> Option<&'static Unit> {
        None
    }
}

#[cfg(test)]
impl Unit {
    /// As that of AVX-512, in plain arithmetic.
    pub(super) fn emulated() -> &'static Unit {
        use super::lanes::Emulated;
        static UNIT: Unit = Unit {
            rows: 12,
            width: VECTORS * Emulated::LANES,
            tiles: tiles::<Emulated, 12>,
            transpose: transpose::<Emulated>,
        };
        &UNIT
    }
}
