//! Operations that map each level of a channel to another level, whatever the pixel's place.

use super::blend::{blend, grey};
use super::canvas::{Canvas, Pixel};

/// The new level for each old one.
type Table = [u8; 256];

fn table(map: impl Fn(u8) -> u8) -> Table {
    std::array::from_fn(|level| map(level as u8))
}

fn map_all(canvas: &mut Canvas, table: &Table) {
    for level in canvas.pixels.as_flattened_mut() {
        *level = table[usize::from(*level)];
    }
}

fn map_channels(canvas: &mut Canvas, tables: &[Table; 3]) {
    let [red, green, blue] = tables;
    for pixel in canvas.pixels.iter_mut() {
        let [r, g, b] = pixel.map(usize::from);
        *pixel = [red[r], green[g], blue[b]];
    }
}

/// Stretches each channel to the full range of levels: `k = 255 / (hi - lo)`, level `i` becomes `i k - lo k`,
/// truncated. A channel of one level stays.
pub(super) fn auto_contrast(canvas: &mut Canvas) {
    let (low, high) = extremes(canvas.pixels);
    let tables = std::array::from_fn(|c| {
        let (low, high) = (low[c], high[c]);
        if high <= low {
            return table(|level| level);
        }
        let scale = 255.0 / f64::from(high - low);
        let offset = -f64::from(low) * scale;
        table(|level| (f64::from(level) * scale + offset) as u8) // `as` limits to 0..=255
    });
    map_channels(canvas, &tables);
}

/// The lowest and the highest level of each channel.
fn extremes(pixels: &[Pixel]) -> (Pixel, Pixel) {
    // Sixteen pixels side by side: whole vector registers instead of three bytes.
    let (blocks, rest) = pixels.as_chunks::<16>();
    let (mut low, mut high) = ([u8::MAX; 48], [0u8; 48]);
    for block in blocks {
        let levels = block.as_flattened();
        for i in 0..48 {
            low[i] = low[i].min(levels[i]);
            high[i] = high[i].max(levels[i]);
        }
    }
    let folded = |levels: &[u8; 48], start: u8, pick: fn(u8, u8) -> u8| {
        let lanes = levels.as_chunks::<3>().0.iter().chain(rest);
        lanes.fold([start; 3], |best, pixel| std::array::from_fn(|c| pick(best[c], pixel[c])))
    };
    (folded(&low, u8::MAX, u8::min), folded(&high, 0, u8::max))
}

/// Makes the levels of each channel about equally frequent.
///
/// With `step` = (pixels − those of the highest level present) div 255, level `i` becomes
/// (`step` div 2 + pixels below `i`) div `step`; a channel with `step` 0 stays.
pub(super) fn equalize(canvas: &mut Canvas) {
    let tables = histograms(canvas.pixels).map(|histogram| {
        let highest = histogram.iter().rfind(|&&count| count > 0).copied().unwrap_or(0);
        let step = (histogram.iter().sum::<u32>() - highest) / 255;
        if step == 0 {
            return table(|level| level);
        }
        let mut sum = step / 2;
        histogram.map(|count| {
            let level = (sum / step).min(255) as u8;
            sum += count;
            level
        })
    });
    map_channels(canvas, &tables);
}

/// Pixels at each level, for each channel.
fn histograms(pixels: &[Pixel]) -> [[u32; 256]; 3] {
    // Neighbours often have equal levels; counting them in turn in two places spares the wait for the last store.
    let mut counts = [[[0u32; 256]; 3]; 2];
    let [even, odd] = &mut counts;
    let (pairs, rest) = pixels.as_chunks::<2>();
    for [first, second] in pairs {
        for c in 0..3 {
            even[c][usize::from(first[c])] += 1;
            odd[c][usize::from(second[c])] += 1;
        }
    }
    for pixel in rest {
        for c in 0..3 {
            even[c][usize::from(pixel[c])] += 1;
        }
    }
    std::array::from_fn(|c| std::array::from_fn(|level| counts[0][c][level] + counts[1][c][level]))
}

/// 0 is black, 1 the picture as it is, more is brighter.
pub(super) fn brightness(canvas: &mut Canvas, value: f64) {
    map_all(canvas, &table(|level| blend(0, level, value as f32)));
}

/// 0 is the mean grey everywhere, 1 the picture as it is.
pub(super) fn contrast(canvas: &mut Canvas, value: f64) {
    if canvas.pixels.is_empty() {
        return;
    }
    let sum: u64 = canvas.pixels.iter().map(|&pixel| u64::from(grey(pixel))).sum();
    let mean = (sum as f64 / canvas.pixels.len() as f64 + 0.5) as u8;
    map_all(canvas, &table(|level| blend(mean, level, value as f32)));
}

/// Keeps the highest `value` bits of each level, rounded down, at least one.
pub(super) fn posterize(canvas: &mut Canvas, value: f64) {
    let mask = kept_bits(value);
    canvas.pixels.as_flattened_mut().iter_mut().for_each(|level| *level &= mask);
}

/// The bits that [`posterize`] keeps.
pub(super) fn kept_bits(value: f64) -> u8 {
    let bits = (value as i64).clamp(1, 8) as u32;
    (0xff00u32 >> bits) as u8
}

/// The level from which on [`solarize`] inverts; 256 if none is inverted.
pub(super) fn threshold(value: f64) -> u16 {
    value.ceil().clamp(0.0, 256.0) as u16
}

/// Inverts the levels at or above `value`.
pub(super) fn solarize(canvas: &mut Canvas, value: f64) {
    let Ok(threshold) = u8::try_from(threshold(value)) else { return };
    for level in canvas.pixels.as_flattened_mut() {
        *level = if *level >= threshold { !*level } else { *level };
    }
}

/// Negative.
pub(super) fn invert(canvas: &mut Canvas) {
    canvas.pixels.as_flattened_mut().iter_mut().for_each(|level| *level = !*level);
}
