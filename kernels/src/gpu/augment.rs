//! Views of pictures, a cube for each: all its steps in one launch, the same bytes as on the CPU.
//!
//! A picture being worked on is a word for each pixel, red in the lowest byte, in two halves of the GPU's memory: a step
//! reads one and writes the other. Which step it is is the same for all units of a cube, so that nobody waits at a branch.
//!
//! Bytes are the same because numbers are: places and counts are whole, and where the CPU blends in floating point, products
//! are computed before, and apart from, the sums, which leaves a compiler nothing to fuse. `AutoContrast` is in double
//! precision on the CPU, where rounding makes some whole results fall short by one: [`shortfalls`] tells which.
#![expect(unsafe_code, reason = "launches without bound checks, see the parent module")]

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch, DispatchDevice, backend_extension};
use burn::tensor::{DType, Device, Int, Shape, Tensor, TensorData};
use burn_cubecl::CubeBackend;
use cubecl::prelude::*;

use super::{contiguous, empty};
use crate::augment::{Affine, Step, ViewPlan, stretched};

/// Units of a cube: one for each level.
const LEVELS: usize = 256;
/// Levels of three channels.
const CHANNELS: usize = 3 * LEVELS;

/// Words of a plan before its steps: picture, top, left, flip, the patch's columns, rows and colour.
const HEADER: usize = 9;
/// Words of a step: what it is, and up to six parameters.
const STEP: usize = 7;

const NOTHING: u32 = 0;
const AUTO_CONTRAST: u32 = 1;
const EQUALIZE: u32 = 2;
const CONTRAST: u32 = 3;
const BRIGHTNESS: u32 = 4;
const POSTERIZE: u32 = 5;
const SOLARIZE: u32 = 6;
/// Up to here steps map levels to levels.
const LAST_MAP: u32 = 6;
const COLOUR: u32 = 7;
const SHARPNESS: u32 = 8;
const MOVE: u32 = 9;

/// What stays on a GPU between two batches.
#[derive(Debug, Clone)]
pub(crate) struct Kernel {
    device: Device,
    shortfalls: Tensor<1, Int>,
}

impl Kernel {
    /// For `device`, outside the graph, if it is a GPU.
    pub(crate) fn on(device: &Device) -> Option<Self> {
        matches!(device.as_dispatch(), DispatchDevice::Cube(_))
            .then(|| Self { shortfalls: words(shortfalls(), device), device: device.clone() })
    }

    /// Checked plans for checked pictures, of each at least one pixel: `[plans, 3, size, size]`.
    pub(crate) fn views(&self, pictures: &[u8], size: usize, plans: &[ViewPlan]) -> Tensor<4> {
        // One word more than there may be, for a pixel is read from two.
        let mut packed: Vec<u32> = Vec::with_capacity(pictures.len() / 4 + 2);
        let (whole, rest) = pictures.as_chunks::<4>();
        packed.extend(whole.iter().map(|bytes| u32::from_le_bytes(*bytes)));
        let mut last = [0; 4];
        last[..rest.len()].copy_from_slice(rest);
        packed.extend([u32::from_le_bytes(last), 0]);
        let steps = plans.iter().map(|plan| plan.steps.len()).max().unwrap_or(0);
        let table: Vec<i32> = plans.iter().flat_map(|plan| encoded(plan, steps)).collect();
        let table = TensorData::new(table, [plans.len(), HEADER + steps * STEP]);
        let table = Tensor::<2, Int>::from_data(table, (&self.device, DType::I32));
        Tensor::from_dispatch(Dispatch::make_views(
            words(packed, &self.device).into_dispatch(),
            table.into_dispatch(),
            self.shortfalls.clone().into_dispatch(),
            size,
        ))
    }
}

fn words(words: Vec<u32>, device: &Device) -> Tensor<1, Int> {
    let count = words.len();
    Tensor::from_data(TensorData::new(words, [count]), (device, DType::U32))
}

/// `HEADER + steps · STEP` words.
fn encoded(plan: &ViewPlan, steps: usize) -> impl Iterator<Item = i32> {
    let [columns, rows, fill] = match plan.patch {
        Some(patch) => [patch.columns, patch.rows, [u32::from_le_bytes(word(patch.fill)), 0]],
        None => [[0; 2]; 3],
    };
    let place = [plan.picture as i32, plan.top, plan.left, i32::from(plan.flip)];
    let patch = [columns[0], columns[1], rows[0], rows[1], fill[0]].map(u32::cast_signed);
    let nothing = [0; STEP];
    let steps = plan.steps.iter().map(encoded_step).chain(std::iter::repeat(nothing)).take(steps);
    place.into_iter().chain(patch).chain(steps.flatten())
}

fn word([red, green, blue]: [u8; 3]) -> [u8; 4] {
    [red, green, blue, 0]
}

fn encoded_step(step: &Step) -> [i32; STEP] {
    let value = |kind: u32, value: i32| [kind.cast_signed(), value, 0, 0, 0, 0, 0];
    let factor = |kind, factor: f32| value(kind, factor.to_bits().cast_signed());
    match *step {
        Step::AutoContrast => value(AUTO_CONTRAST, 0),
        Step::Equalize => value(EQUALIZE, 0),
        Step::Contrast(by) => factor(CONTRAST, by),
        Step::Brightness(by) => factor(BRIGHTNESS, by),
        Step::Colour(by) => factor(COLOUR, by),
        Step::Sharpness(by) => factor(SHARPNESS, by),
        Step::Posterize(mask) => value(POSTERIZE, i32::from(mask)),
        Step::Solarize(from) => value(SOLARIZE, i32::from(from)),
        Step::Move(Affine { column: [a, b, c], row: [d, e, f] }) => [MOVE.cast_signed(), a, b, c, d, e, f],
    }
}

/// Where [`stretched`] is one less than whole numbers have it: bit `level − low` of the eight words at
/// `8 (256 (high − low) + low)`.
fn shortfalls() -> Vec<u32> {
    let mut bits = vec![0; LEVELS * LEVELS * 8];
    for low in 0..255u8 {
        for high in low + 1..=255 {
            let range = u32::from(high - low);
            for level in low..=high {
                let above = u32::from(level - low);
                if u32::from(stretched(low, high, level)) != above * 255 / range {
                    let at = (range as usize * LEVELS + usize::from(low)) * 8;
                    bits[at + above as usize / 32] |= 1 << (above % 32);
                }
            }
        }
    }
    bits
}

/// The operation as burn's dispatch sees it.
#[backend_extension(Cube, Fusion)]
pub(crate) trait AugmentOps: Backend {
    /// `pictures`: bytes in words, and a word more; `table`: `[views, words]` of plans → levels `[views, 3, size, size]`.
    #[fusion(dtype = DType::F32, shape = Shape::from([table[0], 3, *size, *size]))]
    fn make_views(
        pictures: IntTensor<Self>,
        table: IntTensor<Self>,
        shortfalls: IntTensor<Self>,
        size: usize,
    ) -> FloatTensor<Self>;
}

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
fn make(
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

impl AugmentOps for CubeBackend {
    fn make_views(
        pictures: IntTensor<Self>,
        table: IntTensor<Self>,
        shortfalls: IntTensor<Self>,
        size: usize,
    ) -> FloatTensor<Self> {
        let [pictures, table, shortfalls] = [pictures, table, shortfalls].map(contiguous);
        let [views, words] = table.meta.shape().dims();
        let out = empty(&table, [views, 3, size, size].into(), DType::F32);
        let work = empty(&table, [2, views, size * size].into(), DType::U32);
        let client = table.client.clone();
        let dim = CubeDim::new_1d(LEVELS as u32);
        let count = cubecl::calculate_cube_count_elemwise(&client, views * LEVELS, dim);
        // SAFETY: `table` has whole plans of `views` views, each of a picture that is there, as [`Kernel::views`] and its caller
        // see to; `pictures` has a word more than its bytes need; mirrored and moved places are inside the picture.
        unsafe {
            make::launch_unchecked(
                &client,
                count,
                dim,
                pictures.into_buffer_arg(),
                table.into_buffer_arg(),
                shortfalls.into_buffer_arg(),
                work.into_buffer_arg(),
                out.clone().into_buffer_arg(),
                views,
                size,
                (words - HEADER) / STEP,
            );
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::{Config, TestRunner};

    use super::super::testing::device;
    use super::*;
    use crate::augment::tests::{LEFT_AS_IT_IS, pictures, plan, step};
    use crate::{Augmenter, augment_reference};

    /// Asserts the bytes of the reference.
    fn assert_same(augmenter: &Augmenter, pictures: &[u8], size: usize, plans: &[ViewPlan]) {
        let found = augmenter.views(pictures, size, plans);
        assert_eq!(found.dims(), [plans.len(), 3, size, size]);
        let found: Vec<f32> = found.into_data().iter::<f32>().collect();
        let expected = augment_reference(pictures, size, plans);
        let each = size * size * 3;
        for (view, plan) in plans.iter().enumerate() {
            for at in 0..each {
                let (c, place) = (at % 3, at / 3);
                let (found, expected) =
                    (found[view * each + c * each / 3 + place], expected[view * each + at]);
                let (x, y) = (place % size, place / size);
                assert_eq!(found, f32::from(expected), "channel {c} at ({x}, {y}) of {size}: {plan:?}");
            }
        }
    }

    fn check<T: std::fmt::Debug>(strategy: impl Strategy<Value = T>, cases: u32, test: impl Fn(T)) {
        let mut runner = TestRunner::new(Config::with_cases(cases));
        runner.run(&strategy, |value| Ok(test(value))).unwrap_or_else(|failure| panic!("{failure}"));
    }

    #[test]
    fn views_on_a_gpu_are_those_of_the_reference() {
        let (gpu, _held) = device();
        let augmenter = Augmenter::new(&gpu);
        let some = (1usize..40, 1usize..5).prop_flat_map(|(size, count)| {
            (Just((size, count)), proptest::collection::vec(plan(count as u32, size), 1..40), any::<u64>())
        });
        check(some, 64, |((size, count), plans, seed)| {
            assert_same(&augmenter, &pictures(count, size, seed), size, &plans);
        });
    }

    #[test]
    fn every_step_alone_on_a_gpu_is_that_of_the_reference() {
        let (gpu, _held) = device();
        let augmenter = Augmenter::new(&gpu);
        for size in [1, 2, 3, 17, 32, 65] {
            let steps = proptest::collection::vec(step(size), 64);
            check((steps, any::<u64>()), 2, |(steps, seed)| {
                let plan = |(number, step)| ViewPlan {
                    picture: number as u32 % 4,
                    steps: vec![step],
                    ..LEFT_AS_IT_IS
                };
                let plans: Vec<ViewPlan> = steps.into_iter().enumerate().map(plan).collect();
                assert_same(&augmenter, &pictures(4, size, seed), size, &plans);
            });
        }
    }

    #[test]
    fn auto_contrast_on_a_gpu_falls_short_where_the_cpu_does() {
        let (gpu, _held) = device();
        let augmenter = Augmenter::new(&gpu);
        // Of each range a picture with all levels between its ends.
        let size = 16;
        let ranges: Vec<(u8, u8)> = (0..=255u8)
            .step_by(3)
            .flat_map(|low| (low..=255).step_by(2).map(move |high| (low, high)))
            .collect();
        let level = |low: u8, high: u8, at: usize| low + (at % (usize::from(high - low) + 1)) as u8;
        for ranges in ranges.chunks(1024) {
            let levels = |&(low, high): &(u8, u8)| (0..LEVELS).flat_map(move |at| [level(low, high, at); 3]);
            let pictures: Vec<u8> = ranges.iter().flat_map(levels).collect();
            let plan = |picture| ViewPlan { picture, steps: vec![Step::AutoContrast], ..LEFT_AS_IT_IS };
            let plans: Vec<ViewPlan> = (0..ranges.len() as u32).map(plan).collect();
            assert_same(&augmenter, &pictures, size, &plans);
        }
    }

    #[test]
    fn many_large_views_share_their_pictures() {
        let (gpu, _held) = device();
        let size = 97;
        let plans = |picture| {
            let steps = vec![Step::Equalize, Step::Sharpness(0.3), Step::Contrast(0.7)];
            [
                ViewPlan { picture, steps, flip: true, ..LEFT_AS_IT_IS },
                ViewPlan { picture, top: 12, ..LEFT_AS_IT_IS },
            ]
        };
        let plans: Vec<ViewPlan> = (0..7).flat_map(plans).collect();
        assert_same(&Augmenter::new(&gpu), &pictures(7, size, 3), size, &plans);
    }
}
