//! When to say nothing: the smallest confidence from which on the error is at most a stated one.
//!
//! Geifman and El-Yaniv, NeurIPS 2017, arXiv:1705.08500, algorithm 1 (selection with guaranteed risk). Of `m` images of
//! known classes, sorted by confidence, the largest set of the most confident ones is searched by halving whose error is,
//! with confidence `level`, at most the target:
//!
//! ```text
//! bound(e, n, δ) = the share of errors with which e or fewer errors among n images have probability δ
//! accept n       if bound(e, n, (1 - level) / ⌈log₂ m⌉) ≤ target
//! ```
//!
//! The division pays for looking `⌈log₂ m⌉` times. `bound` is Clopper and Pearson's (1934), exact for any `n`: a handful
//! of images without a mistake promises little, and 0 mistakes in 45 are needed for 5 % at 90 % even at the first look.
//!
//! The promise is for images drawn like those judged. Images that also chose the best of several checkpoints are a little
//! kinder to it than new ones.

use super::Judged;

/// Confidences are compared as tables show them: rounded down to a millionth.
const STEP: f64 = 1e6;

/// From which confidence on predictions are accepted, and what that is worth.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RejectRule {
    /// Predictions less confident than this are not accepted.
    pub reject_below: f64,
    /// Images accepted of those judged.
    pub accepted: u64,
    /// Mistakes among them.
    pub errors: u64,
    /// With the confidence asked for, at most this share of accepted predictions is wrong.
    pub bound: f64,
}

impl RejectRule {
    /// The rule that accepts the most with an error of at most `target`, with confidence `level`, both in (0, 1). `None`
    /// where none can be vouched for: too many mistakes, or too few images.
    pub fn choose(judged: &[Judged], target: f64, level: f64) -> Option<Self> {
        let floor = |confidence: f64| (confidence * STEP).floor() / STEP;
        let mut sorted: Vec<(f64, bool)> =
            judged.iter().map(|image| (floor(image.confidence), image.right)).collect();
        // Highest first.
        sorted.sort_by(|a, b| b.0.total_cmp(&a.0));
        let looks = sorted.len().next_power_of_two().trailing_zeros().max(1);
        let doubt = (1.0 - level) / f64::from(looks);
        let mut errors_before = vec![0u64; sorted.len() + 1];
        for (i, (_, right)) in sorted.iter().enumerate() {
            errors_before[i + 1] = errors_before[i] + u64::from(!right);
        }
        // The rule that accepts the `count` most confident ones, and all that are as confident as the last of them.
        let rule = |count: usize| {
            let reject_below = sorted[count - 1].0;
            let accepted = sorted.partition_point(|(confidence, _)| *confidence >= reject_below);
            let errors = errors_before[accepted];
            let bound = clopper_pearson_upper(errors, accepted as u64, doubt);
            Self { reject_below, accepted: accepted as u64, errors, bound }
        };
        // The first look is at all images; each further one halves what is left between yes and no.
        let (mut yes, mut no, mut best) = (0, sorted.len() + 1, None);
        let mut count = sorted.len();
        for _ in 0..looks {
            if count <= yes || count >= no {
                break;
            }
            let found = rule(count);
            if found.bound <= target {
                (yes, best) = (found.accepted as usize, Some(found));
            } else {
                no = count;
            }
            count = yes + (no - yes) / 2;
        }
        best
    }
}

/// The largest share of errors that is not refuted by `errors` among `images`: with it, so few or fewer have probability
/// `doubt`. 1 without images.
pub fn clopper_pearson_upper(errors: u64, images: u64, doubt: f64) -> f64 {
    if errors >= images {
        return 1.0;
    }
    let (mut low, mut high) = (0.0, 1.0);
    // Far below the rounding of what is shown.
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if at_most(errors, images, middle) > doubt { low = middle } else { high = middle }
    }
    high
}

/// Probability of `errors` or fewer among `images`, each wrong with probability `p` in (0, 1).
fn at_most(errors: u64, images: u64, p: f64) -> f64 {
    let (n, odds) = (images as f64, p.ln() - (-p).ln_1p());
    let mut term = n * (-p).ln_1p();
    let mut sum = term.exp();
    for k in 1..=errors {
        term += ((n - k as f64 + 1.0) / k as f64).ln() + odds;
        sum += term.exp();
    }
    sum
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::RngExt;

    use super::*;
    use crate::random::{Purpose, stream};

    fn judged(images: impl IntoIterator<Item = (f64, bool)>) -> Vec<Judged> {
        images.into_iter().map(|(confidence, right)| Judged { confidence, right }).collect()
    }

    #[test]
    fn bounds_are_those_of_scipy() {
        // scipy 1.17.1: scipy.stats.beta.ppf(1 - doubt, errors + 1, images - errors).
        for (errors, images, doubt, expected) in [
            (0, 45, 0.1, 0.049_881_492_681_856_29),
            (1, 45, 0.1, 0.083_709_766_156_302_39),
            (3, 60, 0.0125, 0.153_438_343_630_624_4),
            (17, 200, 0.02, 0.134_986_821_349_440_84),
            (40, 1000, 0.01, 0.056_848_069_407_539_48),
            (0, 1, 0.5, 0.5),
            (499, 500, 0.05, 0.999_897_418_673_049),
        ] {
            let found = clopper_pearson_upper(errors, images, doubt);
            assert!((found - expected).abs() < 1e-9, "{errors} of {images}: {found} {expected}");
        }
        assert_eq!(clopper_pearson_upper(0, 0, 0.1), 1.0);
        assert_eq!(clopper_pearson_upper(7, 7, 0.1), 1.0);
    }

    #[test]
    fn mistakes_among_the_least_confident_are_left_out() {
        let images = judged((0..1000).map(|i| (0.2 + 0.0008 * f64::from(i), i >= 200)));
        let rule = RejectRule::choose(&images, 0.05, 0.9).expect("800 of 1000 are right");
        assert!((0.34..0.37).contains(&rule.reject_below), "{rule:?}");
        assert!(rule.accepted >= 800 && rule.bound <= 0.05, "{rule:?}");
    }

    #[test]
    fn nothing_is_promised_on_too_little() {
        assert_eq!(RejectRule::choose(&[], 0.05, 0.9), None);
        assert_eq!(RejectRule::choose(&judged([(1.0, true)]), 0.05, 0.9), None);
        assert_eq!(RejectRule::choose(&judged(vec![(0.9, true); 40]), 0.05, 0.9), None, "all right, yet few");
        assert_eq!(RejectRule::choose(&judged(vec![(0.9, false); 4000]), 0.05, 0.9), None, "all wrong");
    }

    #[test]
    fn where_nearly_all_is_right_the_least_confident_image_draws_the_line() {
        let images = judged((0..500).map(|i| (0.5 + 0.001 * f64::from(i), true)));
        let rule = RejectRule::choose(&images, 0.05, 0.9).expect("no mistake in 500");
        assert_eq!((rule.accepted, rule.errors, rule.reject_below), (500, 0, 0.5));
    }

    #[test]
    fn the_promise_is_kept_in_nine_of_ten_runs() {
        // Confidence is spread evenly over 0.5 to 1 and true to its word: of those above t, (1 - t) / 2 are wrong, so that 10 % is
        // kept from t = 0.8 on.
        let (mut broken, mut silent, mut accepted) = (0, 0, 0);
        for run in 0..400 {
            let mut rng = stream(run, Purpose::Demo, [0; 3]);
            let images = (0..2000).map(|_| {
                let confidence = 0.5 + 0.5 * rng.random::<f64>();
                (confidence, rng.random::<f64>() < confidence)
            });
            match RejectRule::choose(&judged(images), 0.1, 0.9) {
                Some(rule) => {
                    broken += u32::from(rule.reject_below < 0.8);
                    accepted += rule.accepted;
                }
                None => silent += 1,
            }
        }
        assert!(broken <= 40, "{broken} of 400");
        // Nor is it bought by silence: 40 % of the images could be accepted, were the truth known.
        assert!(silent <= 20 && accepted >= 400 * 2000 / 5, "{silent} silent, {accepted} accepted");
    }

    proptest! {
        #[test]
        fn the_bound_solves_its_equation(images in 1u64..400, share in 0f64..1.0, doubt in 0.001f64..0.5) {
            let errors = (share * images as f64) as u64;
            let bound = clopper_pearson_upper(errors, images, doubt);
            prop_assert!(errors as f64 / images as f64 <= bound && bound <= 1.0);
            prop_assert!((at_most(errors, images, bound) - doubt).abs() < 1e-9);
            prop_assert!(clopper_pearson_upper(errors, images, doubt / 2.0) >= bound, "surer, so wider");
        }

        #[test]
        fn a_rule_keeps_what_it_says(
            images in proptest::collection::vec((0f64..=1.0, 0.0f64..1.0), 0..400),
            target in 0.02f64..0.5,
        ) {
            // The more confident, the more often right.
            let images = judged(images.into_iter().map(|(confidence, luck)| (confidence, luck < 0.5 + confidence)));
            if let Some(rule) = RejectRule::choose(&images, target, 0.9) {
                let accepted = || images.iter().filter(|image| image.confidence >= rule.reject_below);
                prop_assert_eq!(accepted().count() as u64, rule.accepted);
                prop_assert_eq!(accepted().filter(|image| !image.right).count() as u64, rule.errors);
                prop_assert!(rule.errors as f64 / rule.accepted as f64 <= rule.bound && rule.bound <= target);
                let lenient = RejectRule::choose(&images, (target + 0.2).min(0.9), 0.9);
                prop_assert!(lenient.is_some_and(|lenient| lenient.accepted >= rule.accepted), "{lenient:?}");
            }
        }
    }
}
