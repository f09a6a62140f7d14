//! What is random about a view, drawn here for a device that makes the view itself.

use harvest_kernels::{Affine, Patch, Step, ViewPlan};

use super::batch::{View, ViewRequest};
use super::cutout::FILL;
use super::randaugment::Operation;
use super::views::ViewConfig;
use super::{affine, tone};

/// Of the weak or strong view that [`fill_views`](super::fill_views) would make of `request`: how to make it of a picture of
/// `size` × `size` that the device has as number `picture`. None for SimCLR's views, which are resampled.
pub fn plan_view(
    request: &ViewRequest<'_>,
    picture: u32,
    size: usize,
    config: &ViewConfig,
    seed: u64,
) -> Option<ViewPlan> {
    let mut rng = request.stream(seed);
    let distorted = match request.view {
        View::Weak | View::WeakSecond | View::Labelled => false,
        View::Strong | View::StrongSecond => true,
        View::Contrast | View::ContrastSecond => return None,
    };
    let crop = config.draw_crop(size, &mut rng);
    // Crops repeat with twice the last place, so that any padding comes to a small one.
    let near = |start: i64| (start % (2 * size.max(2) as i64 - 2)) as i32;
    let mut plan = ViewPlan {
        picture,
        top: near(crop.top),
        left: near(crop.left),
        flip: crop.flip,
        steps: Vec::new(),
        patch: None,
    };
    if distorted {
        let (operations, cutout) = config.draw_distortion(size, &mut rng);
        plan.steps = operations.into_iter().filter_map(|(what, value)| step(what, value, size)).collect();
        plan.patch = cutout.and_then(|cutout| cutout.area(size, size)).map(|[columns, rows]| {
            let [columns, rows] = [columns, rows].map(|span| [span.start as u32, span.end as u32]);
            Patch { columns, rows, fill: FILL }
        });
    }
    Some(plan)
}

/// `operation` with `value` on a picture of `size` × `size`; none if it changes nothing.
fn step(operation: Operation, value: f64, size: usize) -> Option<Step> {
    const ONE: i64 = 1 << 16;
    let moves = |column, row| Some(Step::Move(Affine { column: narrow(column), row: narrow(row) }));
    let (same_column, same_row) = ([0, ONE, 0], [0, 0, ONE]);
    // Farther than the picture is wide, all is black.
    let shift = || affine::distance(value, size).clamp(-(size as i64), size as i64) << 16;
    match operation {
        Operation::AutoContrast => Some(Step::AutoContrast),
        Operation::Brightness => Some(Step::Brightness(value as f32)),
        Operation::Color => Some(Step::Colour(value as f32)),
        Operation::Contrast => Some(Step::Contrast(value as f32)),
        Operation::Equalize => Some(Step::Equalize),
        Operation::Identity => None,
        Operation::Posterize => Some(Step::Posterize(tone::kept_bits(value))),
        Operation::Rotate => affine::rotation(value, size, size).and_then(|[column, row]| moves(column, row)),
        Operation::Sharpness => Some(Step::Sharpness(value as f32)),
        Operation::ShearX => {
            let (start, slope) = affine::shear(value);
            moves([start, ONE, slope], same_row)
        }
        Operation::ShearY => {
            let (start, slope) = affine::shear(value);
            moves(same_column, [start, slope, ONE])
        }
        Operation::Solarize => Some(Step::Solarize(tone::threshold(value))),
        Operation::TranslateX => moves([shift(), ONE, 0], same_row),
        Operation::TranslateY => moves(same_column, [shift(), 0, ONE]),
        Operation::Invert => Some(Step::Solarize(0)),
    }
}

fn narrow(numbers: [i64; 3]) -> [i32; 3] {
    numbers
        .map(|number| i32::try_from(number).expect("RandAugment moves no pixel by more than a few pictures"))
}

#[cfg(test)]
mod tests {
    use harvest_kernels::augment_reference;
    use proptest::prelude::*;
    use rand::RngExt;

    use super::super::canvas::Canvas;
    use super::super::fill_views;
    use super::*;
    use crate::random::{Purpose, stream};

    /// Noise over a part of the levels.
    fn picture(size: usize, seed: u64) -> Vec<u8> {
        let mut rng = stream(seed, Purpose::Demo, [0; 3]);
        let (low, high) = (rng.random_range(0..100u8), rng.random_range(100..=255u8));
        (0..size * size * 3).map(|_| rng.random_range(low..=high)).collect()
    }

    proptest! {
        #[test]
        fn planned_views_have_the_bytes_of_made_ones(
            size in 0usize..40, seed: u64, padding in proptest::option::of(0u32..100), colour: bool, operations in 0u32..6
        ) {
            let config = ViewConfig { padding, colour, operations, ..Default::default() };
            let sources: Vec<Vec<u8>> = (0..4).map(|image| picture(size, seed ^ image)).collect();
            let views = [View::Weak, View::Strong, View::Labelled, View::WeakSecond, View::StrongSecond];
            let requests: Vec<ViewRequest<'_>> = (0..40usize)
                .map(|i| ViewRequest {
                    source: &sources[i % 4],
                    image: (i % 4) as u64,
                    epoch: (i / 20) as u64,
                    view: views[i % 5],
                })
                .collect();
            let mut made = vec![0; requests.len() * size * size * 3];
            fill_views(&requests, size, &config, seed, &mut made);
            let plan = |request: &ViewRequest<'_>| plan_view(request, request.image as u32, size, &config, seed);
            let plans: Vec<ViewPlan> = requests.iter().map(|request| plan(request).expect("no contrast view")).collect();
            prop_assert_eq!(augment_reference(&sources.concat(), size, &plans), made);
        }

        #[test]
        fn planned_operations_do_what_applied_ones_do(size in 1usize..70, seed: u64, share in 0.0f64..1.0) {
            let picture = picture(size, seed);
            for operation in Operation::ALL.into_iter().chain([Operation::Invert]) {
                let (least, most) = operation.range();
                for value in [least, least + (most - least) * share, most] {
                    let mut applied = picture.clone();
                    Canvas::edit(size, size, &mut applied, |canvas| operation.apply(value, canvas));
                    let steps = step(operation, value, size).into_iter().collect();
                    let plan = ViewPlan { picture: 0, top: 0, left: 0, flip: false, steps, patch: None };
                    let planned = augment_reference(&picture, size, &[plan]);
                    prop_assert_eq!(&planned, &applied, "{} {}", operation.name(), value);
                }
            }
        }
    }

    #[test]
    fn contrast_views_have_no_plan() {
        let request = ViewRequest { source: &[], image: 0, epoch: 0, view: View::Contrast };
        assert_eq!(plan_view(&request, 0, 8, &ViewConfig::default(), 1), None);
    }
}
