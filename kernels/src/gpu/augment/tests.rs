//! Kernel against reference: the same bytes.

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
            let (found, expected) = (found[view * each + c * each / 3 + place], expected[view * each + at]);
            let (x, y) = (place % size, place / size);
            assert_eq!(found, f32::from(expected), "channel {c} at ({x}, {y}) of {size}: {plan:?}");
        }
    }
}

fn check<T: std::fmt::Debug>(strategy: impl Strategy<Value = T>, cases: u32, test: impl Fn(T)) {
    let mut runner = TestRunner::new(Config::with_cases(cases));
    let passed = runner.run(&strategy, |value| {
        test(value);
        Ok(())
    });
    passed.unwrap_or_else(|failure| panic!("{failure}"));
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
            let plan =
                |(number, step)| ViewPlan { picture: number as u32 % 4, steps: vec![step], ..LEFT_AS_IT_IS };
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
    let ranges: Vec<(u8, u8)> =
        (0..=255u8).step_by(3).flat_map(|low| (low..=255).step_by(2).map(move |high| (low, high))).collect();
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
