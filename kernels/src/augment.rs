//! Weak and strong views of pictures, made where they are trained on.
//!
//! A view is a crop of the picture continued mirrored on all sides, a mirror, some operations of RandAugment (Cubuk et al.,
//! arXiv:1909.13719) and a rectangle of one colour (Cutout: DeVries and Taylor, arXiv:1708.04552). What is random about it is
//! drawn beforehand, in a [`ViewPlan`]; following a plan is arithmetic on whole numbers, and gives the same bytes on every
//! device. Each operation is Pillow's.
//!
//! Pictures are square, 8-bit RGB, interleaved, row by row: `[P, S, S, 3]`.

use burn::tensor::{Device, Tensor, TensorData};
use rayon::prelude::*;

/// Pictures of more pixels a side are refused: places in them would not fit 16.16 fixed point.
pub const LARGEST_PICTURE: usize = 4096;

type Pixel = [u8; 3];

/// How a view is made of a picture: crop, mirror, the steps one after the other, patch.
#[derive(Debug, Clone, PartialEq)]
pub struct ViewPlan {
    /// Which of the pictures it shows.
    pub picture: u32,
    /// The picture's row that comes first; negative above it. Beyond its edges the picture goes on mirrored, the edge itself
    /// not repeated.
    pub top: i32,
    /// The picture's column that comes first.
    pub left: i32,
    /// Mirror left to right after cutting.
    pub flip: bool,
    /// What is done then.
    pub steps: Vec<Step>,
    /// What is painted over at last.
    pub patch: Option<Patch>,
}

/// An operation on a whole picture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Step {
    /// Stretches each channel to the full range of levels; one of a single level stays.
    AutoContrast,
    /// Makes the levels of each channel about equally frequent.
    Equalize,
    /// Away from the mean grey, which 0 is, past the picture itself, which 1 is; as the next ones.
    Contrast(f32),
    /// Away from black.
    Brightness(f32),
    /// Away from the picture without colour.
    Colour(f32),
    /// Away from the picture smoothed by (1 1 1 / 1 5 1 / 1 1 1) / 13; the outermost pixels stay.
    Sharpness(f32),
    /// Keeps these bits of each level.
    Posterize(u8),
    /// Inverts the levels from this one on, 0 to 256: with 0 the negative.
    Solarize(u16),
    /// Moves pixels.
    Move(Affine),
}

/// The pixel in column `x` and row `y` shows the input's pixel at `(c₀ + c₁ x + c₂ y, r₀ + r₁ x + r₂ y)`, rounded down;
/// black where that is outside. In 16.16 fixed point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Affine {
    /// `c`.
    pub column: [i32; 3],
    /// `r`.
    pub row: [i32; 3],
}

/// A rectangle of one colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patch {
    /// Its first column and that after its last one.
    pub columns: [u32; 2],
    /// Its first row and that after its last one.
    pub rows: [u32; 2],
    /// Its colour.
    pub fill: [u8; 3],
}

/// What makes views on a device: on a GPU with one kernel, on other devices as [`augment_reference`] does.
#[derive(Debug, Clone)]
pub struct Augmenter {
    device: Device,
    /// Where there is a kernel for the device.
    #[cfg(feature = "cube")]
    kernel: Option<crate::gpu::augment::Kernel>,
}

impl Augmenter {
    /// For views on `device`.
    pub fn new(device: &Device) -> Self {
        let device = device.clone().inner();
        Self {
            #[cfg(feature = "cube")]
            kernel: crate::gpu::augment::Kernel::on(&device),
            device,
        }
    }

    /// The view of each plan, levels from 0 to 255: `[plans, 3, size, size]`, outside the graph.
    ///
    /// `pictures`: `[P, size, size, 3]`. They travel to the device once, however many plans show them. Bytes are the same as
    /// those of [`augment_reference`] on every device.
    ///
    /// # Panics
    /// If a plan shows a picture that is not there, or moves pixels by more than fixed point holds; if there are no whole
    /// pictures, or these are larger than 4096 pixels a side.
    pub fn views(&self, pictures: &[u8], size: usize, plans: &[ViewPlan]) -> Tensor<4> {
        check(pictures, size, plans);
        #[cfg(feature = "cube")]
        if let Some(kernel) = &self.kernel
            && crate::choice::fused()
            && size > 0
            && !plans.is_empty()
        {
            return kernel.views(pictures, size, plans);
        }
        let levels = augment_reference(pictures, size, plans);
        let area = size * size;
        let mut planes = vec![0.0; levels.len()];
        for (planes, view) in
            planes.chunks_exact_mut(3 * area.max(1)).zip(levels.chunks_exact(3 * area.max(1)))
        {
            for (at, level) in view.iter().enumerate() {
                planes[at % 3 * area + at / 3] = f32::from(*level);
            }
        }
        Tensor::from_data(TensorData::new(planes, [plans.len(), 3, size, size]), &self.device)
    }
}

/// The view of each plan, pixel by pixel: `[P, size, size, 3]` → `[plans, size, size, 3]`.
///
/// # Panics
/// As [`Augmenter::views`].
pub fn augment_reference(pictures: &[u8], size: usize, plans: &[ViewPlan]) -> Vec<u8> {
    check(pictures, size, plans);
    let area = size * size;
    let pictures = pictures.as_chunks::<3>().0;
    let view = |plan: &ViewPlan| plan.follow(&pictures[plan.picture as usize * area..][..area], size);
    let views: Vec<Vec<Pixel>> = plans.par_iter().map(view).collect();
    views.concat().into_flattened()
}

fn check(pictures: &[u8], size: usize, plans: &[ViewPlan]) {
    let each = size * size * 3;
    assert!(
        size <= LARGEST_PICTURE,
        "pictures of {size} pixels a side; at most {LARGEST_PICTURE} can be augmented"
    );
    assert!(pictures.len().is_multiple_of(each.max(1)), "whole pictures of {size} x {size}");
    for plan in plans {
        let there = each == 0 || (plan.picture as usize) < pictures.len() / each;
        assert!(there, "a plan shows picture {}, which is not there", plan.picture);
        for step in &plan.steps {
            if let Step::Move(Affine { column, row }) = step {
                let reach = |[start, by_x, by_y]: [i32; 3]| {
                    let [start, by_x, by_y] = [start, by_x, by_y].map(|n| i64::from(n).abs());
                    start + (by_x + by_y) * size as i64
                };
                let farthest = reach(*column).max(reach(*row));
                assert!(
                    farthest <= i64::from(i32::MAX),
                    "{step:?} leaves 16.16 fixed point at {size} pixels"
                );
            }
        }
    }
}

impl ViewPlan {
    /// The view of `picture`, `[size * size]`.
    fn follow(&self, picture: &[Pixel], size: usize) -> Vec<Pixel> {
        let places = (0..size * size).map(|at| (at % size, at / size));
        let cut = places.clone().map(|(x, y)| {
            let x = if self.flip { size - 1 - x } else { x };
            let row = mirrored(y as i64 + i64::from(self.top), size);
            picture[row * size + mirrored(x as i64 + i64::from(self.left), size)]
        });
        let mut view = self.steps.iter().fold(cut.collect(), |view, step| step.apply(view, size));
        if let Some(patch) = self.patch {
            for ((x, y), pixel) in places.zip(&mut view) {
                let within =
                    |place: usize, [first, end]: [u32; 2]| (first as usize..end as usize).contains(&place);
                if within(x, patch.columns) && within(y, patch.rows) {
                    *pixel = patch.fill;
                }
            }
        }
        view
    }
}

/// The place in `0..length` that `place` shows when the line goes on mirrored, its ends not repeated.
fn mirrored(place: i64, length: usize) -> usize {
    let last = length as i64 - 1;
    if last <= 0 {
        return 0;
    }
    let folded = place.rem_euclid(2 * last);
    folded.min(2 * last - folded) as usize
}

impl Step {
    fn apply(&self, picture: Vec<Pixel>, size: usize) -> Vec<Pixel> {
        let each = |map: &dyn Fn(u8) -> u8| picture.iter().map(|pixel| pixel.map(map)).collect();
        match *self {
            Self::AutoContrast => {
                let channel = |c: usize| picture.iter().map(move |pixel| pixel[c]);
                let extremes: [_; 3] = std::array::from_fn(|c| (channel(c).min(), channel(c).max()));
                let stretch = |c: usize, level| match extremes[c] {
                    (Some(low), Some(high)) => stretched(low, high, level),
                    _ => level,
                };
                picture.iter().map(|pixel| std::array::from_fn(|c| stretch(c, pixel[c]))).collect()
            }
            Self::Equalize => {
                let maps: [_; 3] = std::array::from_fn(|c| equalized(picture.iter().map(|pixel| pixel[c])));
                picture.iter().map(|pixel| std::array::from_fn(|c| maps[c][usize::from(pixel[c])])).collect()
            }
            Self::Contrast(value) => {
                let (sum, count) =
                    (picture.iter().map(|pixel| u64::from(grey(*pixel))).sum::<u64>(), picture.len() as u64);
                let mean = ((2 * sum + count) / (2 * count).max(1)) as u8;
                each(&|level| blend(mean, level, value))
            }
            Self::Brightness(value) => each(&|level| blend(0, level, value)),
            Self::Colour(value) => {
                let mix = |pixel: &Pixel| pixel.map(|level| blend(grey(*pixel), level, value));
                picture.iter().map(mix).collect()
            }
            Self::Sharpness(value) => sharpened(&picture, size, value),
            Self::Posterize(mask) => each(&|level| level & mask),
            Self::Solarize(from) => each(&|level| if u16::from(level) >= from { !level } else { level }),
            Self::Move(affine) => {
                let places = (0..size * size).map(|at| ((at % size) as i64, (at / size) as i64));
                let source = |(x, y)| {
                    let at = |[start, by_x, by_y]: [i32; 3]| {
                        (i64::from(start) + i64::from(by_x) * x + i64::from(by_y) * y) >> 16
                    };
                    let (column, row) = (at(affine.column), at(affine.row));
                    let inside = 0..size as i64;
                    if inside.contains(&column) && inside.contains(&row) {
                        picture[row as usize * size + column as usize]
                    } else {
                        [0; 3]
                    }
                };
                places.map(source).collect()
            }
        }
    }
}

/// `k = 255 / (high - low)`, level `i` becomes `i k - low k` in double precision, truncated.
pub(crate) fn stretched(low: u8, high: u8, level: u8) -> u8 {
    if high <= low {
        return level;
    }
    let scale = 255.0 / f64::from(high - low);
    (f64::from(level) * scale + -f64::from(low) * scale) as u8 // `as` limits to 0..=255
}

/// With `step` = (pixels - those of the highest level present) div 255, level `i` becomes (`step` div 2 + pixels below `i`)
/// div `step`; with `step` 0 all stay.
fn equalized(levels: impl Iterator<Item = u8>) -> [u8; 256] {
    let mut counts = [0u32; 256];
    levels.for_each(|level| counts[usize::from(level)] += 1);
    let highest = counts.iter().rfind(|&&count| count > 0).copied().unwrap_or(0);
    let step = (counts.iter().sum::<u32>() - highest) / 255;
    if step == 0 {
        return std::array::from_fn(|level| level as u8);
    }
    let mut sum = step / 2;
    counts.map(|count| {
        let level = (sum / step).min(255) as u8;
        sum += count;
        level
    })
}

/// ITU-R 601 luma in 16-bit fixed point.
fn grey([red, green, blue]: Pixel) -> u8 {
    ((19595 * u32::from(red) + 38470 * u32::from(green) + 7471 * u32::from(blue) + 32768) >> 16) as u8
}

/// `poor + value (level - poor)` in single precision, limited to 0..=255, truncated.
fn blend(poor: u8, level: u8, value: f32) -> u8 {
    (f32::from(poor) + value * (f32::from(level) - f32::from(poor))) as u8 // `as` limits to 0..=255
}

fn sharpened(picture: &[Pixel], size: usize, value: f32) -> Vec<Pixel> {
    let mut sharp = picture.to_vec();
    for y in 1..size.saturating_sub(1) {
        for x in 1..size - 1 {
            let here = picture[y * size + x];
            sharp[y * size + x] = std::array::from_fn(|c| {
                let rows = picture[(y - 1) * size..(y + 2) * size].chunks_exact(size);
                let sum: u32 = rows.flat_map(|row| &row[x - 1..x + 2]).map(|pixel| u32::from(pixel[c])).sum();
                // No sum over 13 is a tie, so adding 6 rounds to the nearest.
                let smooth = (sum + 4 * u32::from(here[c]) + 6) / 13;
                blend(smooth as u8, here[c], value)
            });
        }
    }
    sharp
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) const LEFT_AS_IT_IS: ViewPlan =
        ViewPlan { picture: 0, top: 0, left: 0, flip: false, steps: Vec::new(), patch: None };

    /// Any step that RandAugment could draw for a picture of `size` pixels, and some that it could not.
    pub(crate) fn step(size: usize) -> impl Strategy<Value = Step> {
        let places = 65536 * size as i32;
        let turn = (-places..=places, -80_000..80_000, -80_000..80_000);
        prop_oneof![
            Just(Step::AutoContrast),
            Just(Step::Equalize),
            (-0.5f32..2.0).prop_map(Step::Contrast),
            (-0.5f32..2.0).prop_map(Step::Brightness),
            (-0.5f32..2.0).prop_map(Step::Colour),
            (-0.5f32..2.0).prop_map(Step::Sharpness),
            (1u32..=8).prop_map(|bits| Step::Posterize((0xff00 >> bits) as u8)),
            (0u16..=256).prop_map(Step::Solarize),
            (turn.clone(), turn)
                .prop_map(|(column, row)| { Step::Move(Affine { column: column.into(), row: row.into() }) }),
        ]
    }

    /// Any plan for one of `pictures` pictures of `size` pixels.
    pub(crate) fn plan(pictures: u32, size: usize) -> impl Strategy<Value = ViewPlan> {
        let reach = 3 * size as i32 + 2;
        let span = || [0..=size as u32 + 1, 0..=size as u32 + 1];
        let patch = (span(), span(), any::<[u8; 3]>());
        let patch = patch.prop_map(|(columns, rows, fill)| Patch { columns, rows, fill });
        let place = (0..pictures, -reach..=reach, -reach..=reach, any::<bool>());
        let steps = proptest::collection::vec(step(size), 0..5);
        (place, steps, proptest::option::of(patch)).prop_map(|((picture, top, left, flip), steps, patch)| {
            ViewPlan { picture, top, left, flip, steps, patch }
        })
    }

    /// `count` pictures: of all levels, of few, of a narrow range, of one.
    pub(crate) fn pictures(count: usize, size: usize, seed: u64) -> Vec<u8> {
        let noise = crate::cpu::testing::noise(count * size * size * 3, seed);
        let each = (size * size * 3).max(1);
        let level = |(at, value): (usize, &f32)| {
            let level = ((value + 1.75) * 73.0) as u8;
            match (at / each + seed as usize) % 4 {
                0 => level,
                1 => level & 0xe1,
                2 => 90 + level / 5,
                _ => seed as u8,
            }
        };
        noise.iter().enumerate().map(level).collect()
    }

    fn view(picture: &[u8], size: usize, plan: ViewPlan) -> Vec<u8> {
        augment_reference(picture, size, &[plan])
    }

    #[test]
    fn crops_go_on_mirrored_and_are_mirrored_afterwards() {
        let picture: Vec<u8> = (0..9u8).flat_map(|at| [at; 3]).collect();
        let plan = ViewPlan { top: 1, left: -2, flip: true, ..LEFT_AS_IT_IS };
        let found: Vec<u8> =
            view(&picture, 3, plan).as_chunks::<3>().0.iter().map(|pixel| pixel[0]).collect();
        // Columns 2 1 0 of rows 1 2 1, mirrored.
        assert_eq!(found, [3, 4, 5, 6, 7, 8, 3, 4, 5]);
    }

    #[test]
    fn patches_are_painted_last_and_cut_at_the_edge() {
        let patch = Patch { columns: [1, 9], rows: [0, 1], fill: [7, 8, 9] };
        let plan = ViewPlan { steps: vec![Step::Solarize(0)], patch: Some(patch), ..LEFT_AS_IT_IS };
        let found = view(&[0; 12], 2, plan);
        assert_eq!(found, [255, 255, 255, 7, 8, 9, 255, 255, 255, 255, 255, 255]);
    }

    #[test]
    fn moving_by_a_column_shows_the_next_and_black_beside_it() {
        let picture: Vec<u8> = (1..=4u8).flat_map(|at| [at; 3]).collect();
        let affine = Affine { column: [65536, 65536, 0], row: [0, 0, 65536] };
        let plan = ViewPlan { steps: vec![Step::Move(affine)], ..LEFT_AS_IT_IS };
        assert_eq!(view(&picture, 2, plan), [2, 2, 2, 0, 0, 0, 4, 4, 4, 0, 0, 0]);
    }

    #[test]
    fn neutral_values_change_nothing() {
        let picture = pictures(1, 13, 4);
        let affine = Affine { column: [0, 65536, 0], row: [0, 0, 65536] };
        let neutral = [
            Step::Contrast(1.0),
            Step::Brightness(1.0),
            Step::Colour(1.0),
            Step::Sharpness(1.0),
            Step::Posterize(255),
            Step::Solarize(256),
            Step::Move(affine),
        ];
        for step in neutral {
            let found = view(&picture, 13, ViewPlan { steps: vec![step], ..LEFT_AS_IT_IS });
            assert_eq!(found, picture, "{step:?}");
        }
    }

    proptest! {
        #[test]
        fn without_a_kernel_views_are_those_of_the_reference(
            size in 0usize..12, plans in proptest::collection::vec(plan(3, 12), 0..6), seed in 0u64..99
        ) {
            let pictures = pictures(3, size, seed);
            let levels = augment_reference(&pictures, size, &plans);
            let found = Augmenter::new(&Device::flex()).views(&pictures, size, &plans);
            prop_assert_eq!(found.dims(), [plans.len(), 3, size, size]);
            let found: Vec<f32> = found.permute([0, 2, 3, 1]).into_data().iter::<f32>().collect();
            prop_assert_eq!(found, levels.into_iter().map(f32::from).collect::<Vec<f32>>());
        }
    }

    #[test]
    #[should_panic(expected = "a plan shows picture 1, which is not there")]
    fn a_picture_that_is_not_there_is_refused() {
        view(&[0; 12], 2, ViewPlan { picture: 1, ..LEFT_AS_IT_IS });
    }

    #[test]
    #[should_panic(expected = "leaves 16.16 fixed point")]
    fn moves_beyond_fixed_point_are_refused() {
        let affine = Affine { column: [i32::MAX, 65536, 0], row: [0, 0, 65536] };
        view(&[0; 12], 2, ViewPlan { steps: vec![Step::Move(affine)], ..LEFT_AS_IT_IS });
    }
}
