//! What runs on the GPU, and what it reads plans from.

use cubecl::prelude::*;

/// Units of a cube: one for each level.
pub(super) const LEVELS: usize = 256;
/// Levels of three channels.
const CHANNELS: usize = 3 * LEVELS;

/// Words of a plan before its steps: picture, top, left, flip, the patch's columns, rows and colour.
pub(super) const HEADER: usize = 9;
/// Words of a step: what it is, and up to six parameters.
pub(super) const STEP: usize = 7;

/// Kinds of steps. What is left of a plan with fewer steps than others is nothing.
const NOTHING: u32 = 0;
pub(super) const AUTO_CONTRAST: u32 = 1;
pub(super) const EQUALIZE: u32 = 2;
pub(super) const CONTRAST: u32 = 3;
pub(super) const BRIGHTNESS: u32 = 4;
pub(super) const POSTERIZE: u32 = 5;
pub(super) const SOLARIZE: u32 = 6;
/// Up to here steps map levels to levels.
const LAST_MAP: u32 = 6;
pub(super) const COLOUR: u32 = 7;
pub(super) const SHARPNESS: u32 = 8;
pub(super) const MOVE: u32 = 9;

/// The level of a channel, 0 to 2.
#[cube]
fn level(pixel: u32, channel: u32) -> u32 {
    (pixel >> (8 * channel)) & 255
}

/// ITU-R 601 luma.
#[cube]
fn grey(pixel: u32) -> u32 {
    (19595 * level(pixel, 0) + 38470 * level(pixel, 1) + 7471 * level(pixel, 2) + 32768) >> 16
}

/// `poor + value (level − poor)`, given the products of `value` with 0 to 255.
#[cube]
fn blend(poor: u32, level: u32, products: &Shared<[f32]>) -> u32 {
    let mut mixed = f32::cast_from(poor);
    if level >= poor {
        mixed += products[(level - poor) as usize];
    } else {
        mixed -= products[(poor - level) as usize];
    }
    u32::cast_from(min(max(mixed, 0.0f32), 255.0f32))
}

/// The place in `0..size` that `place` shows when the line goes on mirrored.
#[cube]
fn mirrored(place: i32, size: usize) -> usize {
    let last = i32::cast_from(size) - 1;
    let mut shown = 0i32;
    if last > 0 {
        let period = 2 * last;
        let folded = ((place % period) + period) % period;
        shown = min(folded, period - folded);
    }
    usize::cast_from(shown)
}

/// Of this unit's level, given how many pixels of a channel have each.
#[cube]
fn equalized(counts: &Shared<[u32]>, channel: usize, pixels: u32) -> u32 {
    let own = UNIT_POS as usize;
    let mut below = 0u32;
    let mut highest = 0u32;
    for other in 0..LEVELS {
        let count = counts[channel * LEVELS + other];
        if other < own {
            below += count;
        }
        if count > 0 {
            highest = count;
        }
    }
    let step = (pixels - highest) / 255;
    let mut new = UNIT_POS;
    if step > 0 {
        new = min((step / 2 + below) / step, 255u32);
    }
    new
}

/// As [`equalized`].
#[cube]
fn auto_contrasted(counts: &Shared<[u32]>, channel: usize, shortfalls: &[u32]) -> u32 {
    let own = UNIT_POS as usize;
    let mut low = 256usize;
    let mut high = 0usize;
    for other in 0..LEVELS {
        if counts[channel * LEVELS + other] > 0 {
            low = min(low, other);
            high = other;
        }
    }
    let mut new = UNIT_POS;
    // No pixel has a level outside.
    if low < high && own >= low && own <= high {
        let range = high - low;
        let above = own - low;
        let bits = shortfalls[(range * LEVELS + low) * 8 + above / 32];
        new = u32::cast_from(above * 255 / range) - ((bits >> u32::cast_from(above % 32)) & 1);
    }
    new
}

/// The pixel at `(x, y)` of the picture from `start` on, sharpened.
#[cube]
fn sharpened(work: &[u32], start: usize, x: usize, y: usize, size: usize, products: &Shared<[f32]>) -> u32 {
    let here = work[start + y * size + x];
    let mut new = here;
    if x > 0 && y > 0 && x + 1 < size && y + 1 < size {
        // Sums of up to 13 levels: red and blue fit into one word.
        let mut red_blue = 4 * (here & 0x00ff_00ff);
        let mut green = 4 * level(here, 1);
        for row in 0..3usize {
            for column in 0..3usize {
                let pixel = work[start + (y + row - 1) * size + x + column - 1];
                red_blue += pixel & 0x00ff_00ff;
                green += level(pixel, 1);
            }
        }
        let red = blend(((red_blue & 0xffff) + 6) / 13, level(here, 0), products);
        let green = blend((green + 6) / 13, level(here, 1), products);
        let blue = blend(((red_blue >> 16) + 6) / 13, level(here, 2), products);
        new = red | (green << 8) | (blue << 16);
    }
    new
}

/// The input's place along one side, in 16.16 fixed point, as the six numbers of a step from `at` on say.
#[cube]
fn moved(table: &[i32], at: usize, x: usize, y: usize) -> i32 {
    (table[at] + table[at + 1] * i32::cast_from(x) + table[at + 2] * i32::cast_from(y)) >> 16
}

/// `work`: two halves of a word for each pixel of each view. A cube has a unit for each level.
#[cube(launch_unchecked)]
pub(super) fn make(
    pictures: &[u32],
    table: &[i32],
    shortfalls: &[u32],
    work: &mut [u32],
    out: &mut [f32],
    views: usize,
    size: usize,
    steps: usize,
) {
    let view = CUBE_POS;
    if view >= views {
        terminate!();
    }
    let unit = UNIT_POS as usize;
    let pixels = size * size;
    let plan = view * (HEADER + steps * STEP);
    let half = views * pixels;
    let mut from = view * pixels;
    let mut to = from + half;

    let tallies = Shared::<[Atomic<u32>]>::new_slice(comptime!(CHANNELS + 1));
    let mut counts = Shared::<[u32]>::new_slice(comptime!(CHANNELS));
    let mut maps = Shared::<[u32]>::new_slice(comptime!(CHANNELS));
    let mut products = Shared::<[f32]>::new_slice(comptime!(LEVELS));

    // Crop and mirror.
    let picture = usize::cast_from(table[plan]) * pixels;
    let top = table[plan + 1];
    let left = table[plan + 2];
    let flip = table[plan + 3] > 0;
    let mut at = unit;
    while at < pixels {
        let mut x = at % size;
        if flip {
            x = size - 1 - x;
        }
        let row = mirrored(i32::cast_from(at / size) + top, size);
        let byte = (picture + row * size + mirrored(i32::cast_from(x) + left, size)) * 3;
        let shift = 8 * u32::cast_from(byte % 4);
        let mut pixel = pictures[byte / 4] >> shift;
        if shift > 8 {
            pixel |= pictures[byte / 4 + 1] << (32 - shift);
        }
        work[from + at] = pixel & 0x00ff_ffff;
        at += LEVELS;
    }

    for step in 0..steps {
        let parameters = plan + HEADER + step * STEP;
        let kind = u32::cast_from(table[parameters]);
        let value = table[parameters + 1];
        for channel in 0..3usize {
            tallies[channel * LEVELS + unit].store(0u32);
        }
        if unit == 0 {
            tallies[CHANNELS].store(0u32);
        }
        // What the step before wrote is there for all from here on, and nobody needs its products any more.
        sync_storage();
        products[unit] = f32::reinterpret(value) * f32::cast_from(UNIT_POS);
        if kind == AUTO_CONTRAST || kind == EQUALIZE {
            let mut at = unit;
            while at < pixels {
                let pixel = work[from + at];
                for channel in 0..3u32 {
                    let place = channel as usize * LEVELS + level(pixel, channel) as usize;
                    tallies[place].fetch_add(1u32);
                }
                at += LEVELS;
            }
        }
        if kind == CONTRAST {
            let mut sum = 0u32;
            let mut at = unit;
            while at < pixels {
                sum += grey(work[from + at]);
                at += LEVELS;
            }
            tallies[CHANNELS].fetch_add(sum);
        }
        sync_cube();
        for channel in 0..3usize {
            counts[channel * LEVELS + unit] = tallies[channel * LEVELS + unit].load();
        }
        sync_cube();
        if kind <= LAST_MAP {
            let mut poor = 0u32;
            if kind == CONTRAST {
                let sum = tallies[CHANNELS].load();
                let count = u32::cast_from(pixels);
                poor = sum / count;
                // Half a level and more is rounded up.
                if (sum % count) * 2 >= count {
                    poor += 1;
                }
            }
            for channel in 0..3usize {
                let mut new = UNIT_POS;
                if kind == AUTO_CONTRAST {
                    new = auto_contrasted(&counts, channel, shortfalls);
                }
                if kind == EQUALIZE {
                    new = equalized(&counts, channel, u32::cast_from(pixels));
                }
                if kind == CONTRAST || kind == BRIGHTNESS {
                    new = blend(poor, UNIT_POS, &products);
                }
                if kind == POSTERIZE {
                    new = UNIT_POS & u32::cast_from(value);
                }
                if kind == SOLARIZE && UNIT_POS >= u32::cast_from(value) {
                    new = 255 - UNIT_POS;
                }
                maps[channel * LEVELS + unit] = new;
            }
        }
        sync_cube();
        if kind != NOTHING {
            let mut at = unit;
            while at < pixels {
                let pixel = work[from + at];
                let mut new = 0u32;
                if kind <= LAST_MAP {
                    for channel in 0..3u32 {
                        let place = channel as usize * LEVELS + level(pixel, channel) as usize;
                        new |= maps[place] << (8 * channel);
                    }
                }
                if kind == COLOUR {
                    let poor = grey(pixel);
                    for channel in 0..3u32 {
                        new |= blend(poor, level(pixel, channel), &products) << (8 * channel);
                    }
                }
                if kind == SHARPNESS {
                    new = sharpened(&*work, from, at % size, at / size, size, &products);
                }
                if kind == MOVE {
                    let column = moved(table, parameters + 1, at % size, at / size);
                    let row = moved(table, parameters + 4, at % size, at / size);
                    let side = i32::cast_from(size);
                    if column >= 0 && column < side && row >= 0 && row < side {
                        new = work[from + usize::cast_from(row) * size + usize::cast_from(column)];
                    }
                }
                work[to + at] = new;
                at += LEVELS;
            }
            let read = from;
            from = to;
            to = read;
        }
    }

    // Each unit has written these pixels itself.
    let fill = u32::cast_from(table[plan + 8]);
    let mut at = unit;
    while at < pixels {
        let x = i32::cast_from(at % size);
        let y = i32::cast_from(at / size);
        let mut pixel = work[from + at];
        if x >= table[plan + 4] && x < table[plan + 5] && y >= table[plan + 6] && y < table[plan + 7] {
            pixel = fill;
        }
        for channel in 0..3u32 {
            out[(view * 3 + channel as usize) * pixels + at] = f32::cast_from(level(pixel, channel));
        }
        at += LEVELS;
    }
}
