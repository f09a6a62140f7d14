//! The two inner loops of the CPU convolution, written once over [`Lanes`].
//!
//! Both read their operand through a list of *taps*: offsets into a zero-padded copy of the image at which a contiguous
//! run of positions starts ([`crate::conv_layout`]). So one loop serves every kernel size, stride and padding, and
//! vectors lie along the image, whatever the number of channels.

#![expect(unsafe_code, reason = "unchecked vector loads and stores; the safe callers assert every bound")]

#[cfg(any(test, target_arch = "x86_64"))]
use crate::conv_bf16::{self, Loops as _};
#[cfg(target_arch = "aarch64")]
use crate::conv_lanes::neon::Neon;
use crate::conv_lanes::{Lanes, Level, Portable};

/// Every run of positions may be read and written up to the next multiple of this.
pub(crate) const RUN: usize = 16;

/// Rows of the gradient operand handled together by [`correlate`]; its plane count is a multiple of this.
pub(crate) const CORRELATE_ROWS: usize = 4;

/// `n` rounded up to whole runs.
pub(crate) fn whole_runs(n: usize) -> usize {
    n.next_multiple_of(RUN)
}

/// A matrix `[rows, taps]` cut into blocks of [`Level::rows`] rows, each stored tap by tap; missing rows are zero.
pub(crate) struct PackedRows {
    data: Vec<f32>,
    /// In place of `data` for levels that round: two taps by two taps.
    #[cfg(any(test, target_arch = "x86_64"))]
    pairs: Vec<u32>,
    blocks: usize,
    taps: usize,
    level: Level,
}

impl PackedRows {
    pub(crate) fn new(level: Level, rows: usize, taps: usize, value: impl Fn(usize, usize) -> f32) -> Self {
        let height = level.rows();
        let blocks = rows.div_ceil(height);
        #[cfg(any(test, target_arch = "x86_64"))]
        if level.rounds() {
            let size = taps.div_ceil(2) * height;
            let mut pairs = vec![0; blocks * size];
            for row in 0..rows {
                for tap in (0..taps).step_by(2) {
                    let second = if tap + 1 < taps { value(row, tap + 1) } else { 0.0 };
                    pairs[row / height * size + tap / 2 * height + row % height] =
                        crate::cpu::bf16::pair(value(row, tap), second);
                }
            }
            return Self { data: Vec::new(), pairs, blocks, taps, level };
        }
        let mut data = vec![0.0; blocks * taps * height];
        for row in 0..rows {
            let (block, lane) = (row / height, row % height);
            let block = &mut data[block * taps * height..(block + 1) * taps * height];
            for (tap, slot) in block.chunks_exact_mut(height).enumerate() {
                slot[lane] = value(row, tap);
            }
        }
        Self {
            data,
            #[cfg(any(test, target_arch = "x86_64"))]
            pairs: Vec::new(),
            blocks,
            taps,
            level,
        }
    }

    /// Rows with the zero rows that complete the last block.
    pub(crate) fn padded_rows(&self) -> usize {
        self.blocks * self.level.rows()
    }

    pub(crate) fn blocks(&self) -> usize {
        self.blocks
    }

    pub(crate) fn rows_per_block(&self) -> usize {
        self.level.rows()
    }
}

/// `out[r · pitch + p] = Σ_t weights[r, t] · source[taps[t] + p]` for the rows `r` of the given blocks (counted from the
/// first of them) and positions `p < len`. Positions up to the next whole run are overwritten too.
///
/// The sum runs over the taps in order, so a result depends neither on the blocks asked for nor on the threads.
pub(crate) fn product(
    weights: &PackedRows,
    blocks: std::ops::Range<usize>,
    taps: &[u32],
    source: &[f32],
    len: usize,
    out: &mut [f32],
    pitch: usize,
) {
    let height = weights.level.rows();
    let furthest = taps.iter().copied().max().unwrap_or(0) as usize;
    assert!(blocks.start <= blocks.end && blocks.end <= weights.blocks && taps.len() == weights.taps);
    assert!(furthest + whole_runs(len) <= source.len(), "a tap reads past the padded image");
    assert!(
        whole_runs(len) <= pitch && blocks.len() * height * pitch <= out.len(),
        "output buffer too small"
    );
    #[cfg(any(test, target_arch = "x86_64"))]
    if weights.level.rounds() {
        let size = weights.taps.div_ceil(2) * height;
        let pairs = &weights.pairs[blocks.start * size..blocks.end * size];
        let work = conv_bf16::Product { pairs, blocks: blocks.len(), taps, source, len, out, pitch };
        // SAFETY: as below.
        unsafe { work.run_at(weights.level) };
        return;
    }
    let size = weights.taps * height;
    let data = &weights.data[blocks.start * size..blocks.end * size];
    // SAFETY: the level was detected on this processor; the asserts above bound every load and store.
    unsafe {
        match weights.level {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => x86::product_avx512(data, blocks.len(), taps, source, len, out, pitch),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => x86::product_avx2(data, blocks.len(), taps, source, len, out, pitch),
            #[cfg(target_arch = "aarch64")]
            Level::Neon => product_over::<Neon, 8>(data, blocks.len(), taps, source, len, out, pitch),
            // Those that round have been served above.
            _ => product_over::<Portable, 4>(data, blocks.len(), taps, source, len, out, pitch),
        }
    }
}

/// The images that [`correlate`] sums over, as strides into its two operands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Images {
    pub(crate) count: usize,
    /// From one image to the next in the row operand.
    pub(crate) row_stride: usize,
    /// From one image to the next in the tap operand.
    pub(crate) tap_stride: usize,
}

/// `out[r · taps + t] = Σ_image Σ_{p < len} rows[base + r · plane + p] · source[taps[t] + p]`, `r < planes`.
///
/// `planes` is a multiple of [`CORRELATE_ROWS`]. Positions from `len` to the next whole run enter the sum: `rows` must be
/// zero there.
#[expect(
    clippy::too_many_arguments,
    reason = "two strided operands and their sizes; private to the convolution"
)]
pub(crate) fn correlate(
    level: Level,
    images: Images,
    rows: &[f32],
    base: usize,
    plane: usize,
    planes: usize,
    source: &[f32],
    taps: &[u32],
    len: usize,
    out: &mut [f32],
) {
    let furthest = taps.iter().copied().max().unwrap_or(0) as usize;
    let last = images.count.saturating_sub(1);
    assert!(planes.is_multiple_of(CORRELATE_ROWS) && planes * taps.len() <= out.len());
    assert!(
        last * images.tap_stride + furthest + whole_runs(len) <= source.len(),
        "a tap reads past the image"
    );
    let last_plane = planes.saturating_sub(1) * plane;
    assert!(
        last * images.row_stride + base + last_plane + whole_runs(len) <= rows.len(),
        "a row reads past the end"
    );
    let rows = &rows[base..];
    #[cfg(any(test, target_arch = "x86_64"))]
    if level.rounds() {
        let work = conv_bf16::Correlation { images, rows, plane, planes, source, taps, len, out };
        // SAFETY: as below.
        unsafe { work.run_at(level) };
        return;
    }
    // SAFETY: the level was detected on this processor; the asserts above bound every load.
    unsafe {
        match level {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => x86::correlate_avx512(images, rows, plane, planes, source, taps, len, out),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => x86::correlate_avx2(images, rows, plane, planes, source, taps, len, out),
            #[cfg(target_arch = "aarch64")]
            Level::Neon => correlate_over::<Neon, 4>(images, rows, plane, planes, source, taps, len, out),
            _ => correlate_over::<Portable, 2>(images, rows, plane, planes, source, taps, len, out),
        }
    }
}

#[inline(always)]
unsafe fn product_over<L: Lanes, const M: usize>(
    data: &[f32],
    blocks: usize,
    taps: &[u32],
    source: &[f32],
    len: usize,
    out: &mut [f32],
    pitch: usize,
) {
    let vectors = len.div_ceil(L::LANES);
    // Up to three vectors wide, as even as can be: a lone last vector would not hide the latency of its own sums.
    let strips = vectors.div_ceil(3);
    let mut done = 0;
    for strip in 0..strips {
        let width = (vectors - done) / (strips - strip);
        let position = done * L::LANES;
        for block in 0..blocks {
            // SAFETY: `block < blocks`, and `position + width · LANES` stays within the whole runs the caller asserted.
            unsafe {
                let w = data.as_ptr().add(block * taps.len() * M);
                let from = source.as_ptr().add(position);
                let to = out.as_mut_ptr().add(block * M * pitch + position);
                match width {
                    1 => tile::<L, M, 1>(w, taps, from, to, pitch),
                    2 => tile::<L, M, 2>(w, taps, from, to, pitch),
                    _ => tile::<L, M, 3>(w, taps, from, to, pitch),
                }
            }
        }
        done += width;
    }
}

#[inline(always)]
unsafe fn tile<L: Lanes, const M: usize, const N: usize>(
    weights: *const f32,
    taps: &[u32],
    from: *const f32,
    to: *mut f32,
    pitch: usize,
) {
    // SAFETY: see `product`; `weights` holds `taps.len() · M` values.
    unsafe {
        let mut sums = [[L::splat(0.0); N]; M];
        let mut w = weights;
        for &tap in taps {
            L::tap(&mut sums, w, from.add(tap as usize));
            w = w.add(M);
        }
        for (m, sums) in sums.iter().enumerate() {
            for (n, &sum) in sums.iter().enumerate() {
                L::store(to.add(m * pitch + n * L::LANES), sum);
            }
        }
    }
}

#[inline(always)]
#[expect(
    clippy::too_many_arguments,
    reason = "two strided operands and their sizes; private to the convolution"
)]
unsafe fn correlate_over<L: Lanes, const N: usize>(
    images: Images,
    rows: &[f32],
    plane: usize,
    planes: usize,
    source: &[f32],
    taps: &[u32],
    len: usize,
    out: &mut [f32],
) {
    const M: usize = CORRELATE_ROWS;
    let vectors = len.div_ceil(L::LANES);
    // Rows outside: they stay in the first-level cache while the planes of all channels pass by.
    for row in (0..planes).step_by(M) {
        for first_tap in (0..taps.len()).step_by(N) {
            let width = N.min(taps.len() - first_tap);
            // A short last group repeats its last tap and drops the copies.
            let mut group = [0usize; N];
            for (n, offset) in group.iter_mut().enumerate() {
                *offset = taps[first_tap + n.min(width - 1)] as usize;
            }
            // SAFETY: see `correlate`: the last image, row and tap with a whole run each stay inside the slices.
            unsafe {
                let mut sums = [[L::splat(0.0); N]; M];
                for image in 0..images.count {
                    let dy = rows.as_ptr().add(image * images.row_stride + row * plane);
                    let x = source.as_ptr().add(image * images.tap_stride);
                    let runs = group.map(|offset| x.add(offset));
                    for place in (0..vectors).map(|v| v * L::LANES) {
                        L::meet(&mut sums, dy.add(place), plane, &runs, place);
                    }
                }
                for (m, sums) in sums.iter().enumerate() {
                    for (n, &sum) in sums.iter().enumerate().take(width) {
                        out[(row + m) * taps.len() + first_tap + n] = L::sum(sum);
                    }
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Images, correlate_over, product_over};
    use crate::conv_lanes::x86::{Avx2, Avx512};

    /// # Safety
    /// AVX-512F is present and the bounds of [`super::product`] hold.
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn product_avx512(
        data: &[f32],
        blocks: usize,
        taps: &[u32],
        source: &[f32],
        len: usize,
        out: &mut [f32],
        pitch: usize,
    ) {
        // SAFETY: this function's own contract.
        unsafe { product_over::<Avx512, 8>(data, blocks, taps, source, len, out, pitch) }
    }

    /// # Safety
    /// AVX2 and FMA are present and the bounds of [`super::product`] hold.
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn product_avx2(
        data: &[f32],
        blocks: usize,
        taps: &[u32],
        source: &[f32],
        len: usize,
        out: &mut [f32],
        pitch: usize,
    ) {
        // SAFETY: this function's own contract.
        unsafe { product_over::<Avx2, 4>(data, blocks, taps, source, len, out, pitch) }
    }

    /// # Safety
    /// AVX-512F is present and the bounds of [`super::correlate`] hold.
    #[target_feature(enable = "avx512f")]
    #[expect(clippy::too_many_arguments, reason = "as `correlate_over`")]
    pub(super) unsafe fn correlate_avx512(
        images: Images,
        rows: &[f32],
        plane: usize,
        planes: usize,
        source: &[f32],
        taps: &[u32],
        len: usize,
        out: &mut [f32],
    ) {
        // SAFETY: this function's own contract.
        unsafe { correlate_over::<Avx512, 6>(images, rows, plane, planes, source, taps, len, out) }
    }

    /// # Safety
    /// AVX2 and FMA are present and the bounds of [`super::correlate`] hold.
    #[target_feature(enable = "avx2,fma")]
    #[expect(clippy::too_many_arguments, reason = "as `correlate_over`")]
    pub(super) unsafe fn correlate_avx2(
        images: Images,
        rows: &[f32],
        plane: usize,
        planes: usize,
        source: &[f32],
        taps: &[u32],
        len: usize,
        out: &mut [f32],
    ) {
        // SAFETY: this function's own contract.
        unsafe { correlate_over::<Avx2, 3>(images, rows, plane, planes, source, taps, len, out) }
    }
}
