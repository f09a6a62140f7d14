//! The two inner loops of the CPU convolution ([`crate::conv_product`]) on operands rounded to bf16, with sums in `f32`.
//!
//! The product takes two taps at a time, whose runs are zipped into pairs; the correlation's pairs are neighbouring
//! positions of both operands, as they lie. Both round what they are given, which is read once for each row of the other
//! operand.
#![expect(unsafe_code, reason = "unchecked vector loads and stores; the safe callers assert every bound")]

use std::cell::Cell;

use crate::conv_lanes::Level;
use crate::conv_product::{CORRELATE_ROWS, Images};
use crate::cpu::bf16::lanes::{self, LANES, Lanes};
use crate::cpu::bf16::round_all;

/// Weight rows that share one pass over the taps.
pub(crate) const ROWS: usize = 8;
/// Taps that share one pass over the gradient's rows.
const TAPS: usize = 6;

thread_local! {
    /// This thread's rounded operands, kept from call to call.
    static BUFFERS: Cell<[Vec<u16>; 2]> = const { Cell::new([Vec::new(), Vec::new()]) };
}

/// `values` rounded, in a buffer that grows as needed.
#[inline(always)]
fn rounded<'a>(values: &[f32], buffer: &'a mut Vec<u16>) -> &'a [u16] {
    if buffer.len() < values.len() {
        buffer.resize(values.len(), 0);
    }
    let rounded = &mut buffer[..values.len()];
    round_all(values, rounded);
    rounded
}

/// Rows of weights, and where their product goes.
pub(crate) struct Product<'a> {
    /// Blocks of [`ROWS`] rows, each stored two taps by two taps.
    pub(crate) pairs: &'a [u32],
    pub(crate) blocks: usize,
    pub(crate) taps: &'a [u32],
    pub(crate) source: &'a [f32],
    pub(crate) len: usize,
    pub(crate) out: &'a mut [f32],
    pub(crate) pitch: usize,
}

/// A correlation; the fields are the arguments of [`crate::conv_product::correlate`], with `rows` from its base on.
pub(crate) struct Correlation<'a> {
    pub(crate) images: Images,
    pub(crate) rows: &'a [f32],
    pub(crate) plane: usize,
    pub(crate) planes: usize,
    pub(crate) source: &'a [f32],
    pub(crate) taps: &'a [u32],
    pub(crate) len: usize,
    pub(crate) out: &'a mut [f32],
}

/// Work on vectors of one kind.
pub(crate) trait Loops {
    /// # Safety
    /// The instructions of `L` are present; the bounds that [`crate::conv_product`] asserts hold.
    unsafe fn run<L: Lanes>(self, buffers: &mut [Vec<u16>; 2]);

    /// On this level, which rounds.
    ///
    /// # Safety
    /// The processor has its instructions; the bounds hold.
    unsafe fn run_at(self, level: Level)
    where
        Self: Sized,
    {
        /// # Safety
        /// That of [`Loops::run`], with AVX-512 BF16.
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx512bf16,avx2,fma")]
        unsafe fn compiled<W: Loops>(work: W, buffers: &mut [Vec<u16>; 2]) {
            // SAFETY: this function's own contract.
            unsafe { work.run::<lanes::x86::Avx512>(buffers) };
        }
        let mut buffers = BUFFERS.take();
        // SAFETY: the caller's contract; plain arithmetic is always there.
        unsafe {
            match level {
                #[cfg(target_arch = "x86_64")]
                Level::Bf16(_) => compiled(self, &mut buffers),
                #[cfg(test)]
                Level::Emulated => self.run::<lanes::Emulated>(&mut buffers),
                _ => unreachable!("asked for levels that round only"),
            }
        }
        BUFFERS.set(buffers);
    }
}

impl Loops for Product<'_> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self, [buffer, _]: &mut [Vec<u16>; 2]) {
        let source = rounded(self.source, buffer);
        let size = self.taps.len().div_ceil(2) * ROWS;
        let vectors = self.len.div_ceil(LANES);
        // As even as can be, see `conv_product`.
        let strips = vectors.div_ceil(3);
        let mut done = 0;
        for strip in 0..strips {
            let width = (vectors - done) / (strips - strip);
            let position = done * LANES;
            for block in 0..self.blocks {
                // SAFETY: `block < blocks`, and `position + width · LANES` stays within the whole runs that were asserted.
                unsafe {
                    let pairs = self.pairs.as_ptr().add(block * size);
                    let from = source.as_ptr().add(position);
                    let to = self.out.as_mut_ptr().add(block * ROWS * self.pitch + position);
                    match width {
                        1 => tile::<L, 1>(pairs, self.taps, from, to, self.pitch),
                        2 => tile::<L, 2>(pairs, self.taps, from, to, self.pitch),
                        _ => tile::<L, 3>(pairs, self.taps, from, to, self.pitch),
                    }
                }
            }
            done += width;
        }
    }
}

/// `N` vectors of positions for [`ROWS`] rows of the result, which start `pitch` apart.
///
/// # Safety
/// The instructions of `L` are there; `pairs` holds [`ROWS`] pairs for each two taps, every tap can be read `N` vectors from `from`
/// on, and every row written from `to` on.
#[inline(always)]
unsafe fn tile<L: Lanes, const N: usize>(
    pairs: *const u32,
    taps: &[u32],
    from: *const u16,
    to: *mut f32,
    pitch: usize,
) {
    // SAFETY: see `conv_product::product`; `pairs` holds `ROWS` pairs for each two taps.
    unsafe {
        let mut sums = [[L::zero(); N]; ROWS];
        for (index, taps) in taps.chunks(2).enumerate() {
            let mut x = [L::splat(0); N];
            for (n, x) in x.iter_mut().enumerate() {
                let run = from.add(n * LANES);
                *x = match taps {
                    [first, second] => L::zip(run.add(*first as usize), Some(run.add(*second as usize))),
                    _ => L::zip(run.add(taps[0] as usize), None),
                };
            }
            for (m, sums) in sums.iter_mut().enumerate() {
                let weights = L::splat(*pairs.add(index * ROWS + m));
                for (sum, &x) in sums.iter_mut().zip(&x) {
                    *sum = L::dot(*sum, weights, x);
                }
            }
        }
        for (m, sums) in sums.iter().enumerate() {
            for (n, &sum) in sums.iter().enumerate() {
                to.add(m * pitch + n * LANES).cast::<[f32; LANES]>().write(L::values(sum));
            }
        }
    }
}

impl Loops for Correlation<'_> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self, [rows, source]: &mut [Vec<u16>; 2]) {
        const M: usize = CORRELATE_ROWS;
        let (rows, source) = (rounded(self.rows, rows), rounded(self.source, source));
        // Runs are whole vectors of positions, which are half vectors of pairs.
        let halves = self.len.div_ceil(LANES);
        let mut first_tap = 0;
        while first_tap < self.taps.len() {
            let width = TAPS.min(self.taps.len() - first_tap);
            // A short last group repeats its last tap and drops the copies.
            let mut group = [0usize; TAPS];
            for (n, offset) in group.iter_mut().enumerate() {
                *offset = self.taps[first_tap + n.min(width - 1)] as usize;
            }
            for row in (0..self.planes).step_by(M) {
                // SAFETY: see `conv_product::correlate`: the last image, row and tap with a whole run each stay inside.
                unsafe {
                    let mut sums = [[L::zero(); TAPS]; M];
                    for image in 0..self.images.count {
                        let dy = rows.as_ptr().add(image * self.images.row_stride + row * self.plane);
                        let x = source.as_ptr().add(image * self.images.tap_stride);
                        for vector in 0..halves / 2 {
                            let at = vector * 2 * LANES;
                            step::<L, false>(&mut sums, dy.add(at), self.plane, x.add(at), &group);
                        }
                        if halves % 2 == 1 {
                            let at = (halves - 1) * LANES;
                            step::<L, true>(&mut sums, dy.add(at), self.plane, x.add(at), &group);
                        }
                    }
                    // All at once: taken one by one, the sums would live in memory from the start.
                    let mut totals = [[[0.0; LANES]; TAPS]; M];
                    for (totals, sums) in totals.iter_mut().zip(&sums) {
                        for (total, &sum) in totals.iter_mut().zip(sums) {
                            *total = L::values(sum);
                        }
                    }
                    for (m, totals) in totals.into_iter().enumerate() {
                        for (n, values) in totals.into_iter().enumerate().take(width) {
                            self.out[(row + m) * self.taps.len() + first_tap + n] = total(values);
                        }
                    }
                }
            }
            first_tap += width;
        }
    }
}

/// Adds the products of a vector of positions, or half of one, of four rows and some taps.
#[inline(always)]
unsafe fn step<L: Lanes, const HALF: bool>(
    sums: &mut [[L::Sums; TAPS]; CORRELATE_ROWS],
    dy: *const u16,
    plane: usize,
    x: *const u16,
    group: &[usize; TAPS],
) {
    // SAFETY: the caller's bounds.
    unsafe {
        let mut rows = [L::splat(0); CORRELATE_ROWS];
        for (m, row) in rows.iter_mut().enumerate() {
            *row = load::<L, HALF>(dy.add(m * plane));
        }
        for (n, &offset) in group.iter().enumerate() {
            let run = load::<L, HALF>(x.add(offset));
            for (sums, &row) in sums.iter_mut().zip(&rows) {
                sums[n] = L::dot(sums[n], row, run);
            }
        }
    }
}

#[inline(always)]
unsafe fn load<L: Lanes, const HALF: bool>(from: *const u16) -> L::Pairs {
    // SAFETY: the caller's bounds.
    unsafe { if HALF { L::load_half(from.cast()) } else { L::load(from.cast()) } }
}

/// The sum of all lanes.
#[inline(always)]
fn total(mut values: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            values[lane] += values[lane + width];
        }
        width /= 2;
    }
    values[0]
}
