//! The units there are.

use super::Unit;
#[cfg(any(test, target_arch = "x86_64"))]
use super::{
    lanes::{BLOCK, Lanes},
    pairs::{Copies, ROWS},
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
            let from = from.add(block * BLOCK * L::VALUES);
            L::transpose(from, stride, to.add(block * BLOCK * to_stride), to_stride)
        };
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::super::lanes::x86::{Avx2, Avx512, Avx512Bf16};
    use super::super::tile::{Rows, Strip};
    use super::*;
    use crate::cpu::matmul::Target;
    use crate::cpu::simd::{Instructions, instructions};
    use crate::products::Found;

    /// A unit of these lanes: with so many rows to a tile, and the copies of pairs if it takes them.
    macro_rules! unit {
        ($lanes:ident, $rows:expr, $features:literal, $copies:expr) => {{
            #[target_feature(enable = $features)]
            unsafe fn compiled_tiles(count: usize, left: Rows, strip: Strip, target: Target<'_>) {
                // SAFETY: the caller's contract; the instructions are those of this function.
                unsafe { tiles::<$lanes, { $rows }>(count, left, strip, target) };
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
                values: $lanes::VALUES,
                tiles: compiled_tiles,
                transpose: compiled_transpose,
                pairs: $copies,
            };
            Some(&UNIT)
        }};
    }

    impl Unit {
        /// The best there is, if it is worth it.
        pub(in crate::cpu) fn of_this_processor() -> Option<&'static Unit> {
            match instructions() {
                Instructions::Avx512 => {
                    unit!(Avx512, 12, "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma", None)
                }
                Instructions::Avx2 => unit!(Avx2, 6, "avx2,fma", None),
                Instructions::Base => None,
            }
        }

        /// That of pairs, where the processor multiplies them.
        pub(in crate::cpu) fn of_pairs(_: Found) -> Option<&'static Unit> {
            unit!(
                Avx512Bf16,
                ROWS,
                "avx512f,avx512vl,avx512bw,avx512dq,avx512bf16,avx2,fma",
                Some(Copies::of_avx512_bf16())
            )
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
            width: VECTORS * Emulated::<false>::LANES,
            values: Emulated::<false>::VALUES,
            tiles: tiles::<Emulated<false>, 12>,
            transpose: transpose::<Emulated<false>>,
            pairs: None,
        };
        &UNIT
    }

    /// As that of pairs, in plain arithmetic.
    pub(in crate::cpu) fn emulated_pairs() -> &'static Unit {
        use super::lanes::Emulated;
        static UNIT: Unit = Unit {
            rows: ROWS,
            width: VECTORS * Emulated::<true>::LANES,
            values: Emulated::<true>::VALUES,
            tiles: tiles::<Emulated<true>, ROWS>,
            transpose: transpose::<Emulated<true>>,
            pairs: Some(Copies::emulated()),
        };
        &UNIT
    }
}
