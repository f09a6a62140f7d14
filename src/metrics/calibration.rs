//! Whether a confidence can be taken at its word: of the images a network is 80 % sure of, it should get 80 % right.
//!
//! Guo et al., ICML 2017, arXiv:1706.04599. `z` are the logits of an image, `y` its class, `T` the temperature.
//!
//! ```text
//! q(T) = softmax(z / T)                     probabilities; T > 1 softens them, the most likely class stays
//! NLL  = -mean ln q_y                       what T minimises, section 4.2
//! ECE  = Σ_b |b| / n · |acc(b) - conf(b)|   equation 3, over 15 bins of equal width
//! ```
//!
//! In `β = 1 / T` the NLL is convex; its derivative `mean(E_q[z] - z_y)` rises with `β`, so that halving an interval
//! finds the one minimum.

use serde::{Deserialize, Serialize};

use super::argmax;

/// Bins of the expected calibration error and of the reliability diagram, as in the paper.
pub const BINS: usize = 15;

/// With fewer images than this no temperature is fitted: one or two mistakes more or less would change it severalfold.
pub const FEWEST_FOR_TEMPERATURE: usize = 20;

/// Temperatures beyond these are no optimum but the lack of one: all images right, or all wrong.
const COLDEST: f64 = 0.05;
const HOTTEST: f64 = 20.0;

/// A temperature, and how it came about.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Temperature {
    /// What logits are divided by; 1 changes nothing.
    pub value: f64,
    /// Why it is that.
    pub origin: TemperatureOrigin,
}

/// How a temperature came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TemperatureOrigin {
    /// It minimises the negative log-likelihood.
    Fitted,
    /// 1, because there are fewer than [`FEWEST_FOR_TEMPERATURE`] images.
    TooFewImages,
    /// 1, because no temperature is best: the colder (all images right) or the hotter (all wrong) the better.
    NoOptimum,
    /// 1, because nobody wanted it fitted.
    Off,
}

impl Temperature {
    /// Leaves everything as it is.
    pub const ONE: Self = Self { value: 1.0, origin: TemperatureOrigin::Off };

    /// The temperature with the lowest negative log-likelihood on images of known classes: `logits` `[N, C]`, row-major,
    /// `labels` `[N]` below C. 1 where nothing can be told; see [`TemperatureOrigin`].
    pub fn fit(logits: &[f32], labels: &[usize], classes: usize) -> Self {
        let fallback = |origin| Self { value: 1.0, origin };
        if labels.len() < FEWEST_FOR_TEMPERATURE {
            return fallback(TemperatureOrigin::TooFewImages);
        }
        let slope = |log_beta: f64| {
            let beta = log_beta.exp();
            let each = rows(logits, labels, classes).map(|(row, label)| {
                let q = probabilities(row, 1.0 / beta);
                let expected: f64 = q.iter().zip(row).map(|(q, z)| q * f64::from(*z)).sum();
                expected - f64::from(row[label])
            });
            each.sum::<f64>()
        };
        let (mut low, mut high) = (-HOTTEST.ln(), -COLDEST.ln());
        // Not-a-number logits answer no to both, too.
        if !(slope(low) < 0.0 && slope(high) > 0.0) {
            return fallback(TemperatureOrigin::NoOptimum);
        }
        // ln 400 halved 60 times is below the rounding of a double.
        for _ in 0..60 {
            let middle = 0.5 * (low + high);
            if slope(middle) < 0.0 { low = middle } else { high = middle }
        }
        Self { value: (-0.5 * (low + high)).exp(), origin: TemperatureOrigin::Fitted }
    }
}

/// Probabilities of one row of logits at `temperature`, in double precision.
pub fn probabilities(logits: &[f32], temperature: f64) -> Vec<f64> {
    let peak = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exponentials: Vec<f64> =
        logits.iter().map(|logit| ((f64::from(*logit) - f64::from(peak)) / temperature).exp()).collect();
    let sum: f64 = exponentials.iter().sum();
    exponentials.into_iter().map(|e| e / sum).collect()
}

/// Mean of `-ln softmax(logits / temperature)[label]` in nats; 0 without images.
pub fn negative_log_likelihood(logits: &[f32], labels: &[usize], classes: usize, temperature: f64) -> f64 {
    let each = rows(logits, labels, classes).map(|(row, label)| {
        let scaled = |class: usize| f64::from(row[class]) / temperature;
        let peak = (0..classes).map(scaled).fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = (0..classes).map(|class| (scaled(class) - peak).exp()).sum();
        sum.ln() + peak - scaled(label)
    });
    each.sum::<f64>() / labels.len().max(1) as f64
}

/// What a network said of an image whose class is known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Judged {
    /// Probability of the class it chose, in [0, 1].
    pub confidence: f64,
    /// Whether that is the image's class.
    pub right: bool,
}

impl Judged {
    /// Of every image, at `temperature`: `logits` `[N, C]`, row-major, `labels` `[N]`.
    pub fn all(logits: &[f32], labels: &[usize], classes: usize, temperature: f64) -> Vec<Self> {
        rows(logits, labels, classes)
            .map(|(row, label)| {
                let class = argmax(row);
                let confidence = probabilities(row, temperature)[class];
                // What is not a number is no confidence at all.
                let confidence = if confidence.is_nan() { 0.0 } else { confidence };
                Self { confidence, right: class == label }
            })
            .collect()
    }
}

/// Accuracy against confidence in [`BINS`] bins: the reliability diagram, and the error drawn from it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reliability {
    /// Expected calibration error, in [0, 1]; 0 without images.
    pub expected_error: f64,
    /// Bins of equal width, `(0, 1/15]` first.
    pub bins: Vec<Bin>,
}

/// Images of similar confidence.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Bin {
    /// How many.
    pub images: u64,
    /// Their mean confidence; 0 without images.
    pub confidence: f64,
    /// Share of them that is right; 0 without images.
    pub accuracy: f64,
}

impl Reliability {
    /// Counts what was judged.
    pub fn of(judged: &[Judged]) -> Self {
        let mut sums = vec![(0u64, 0.0, 0u64); BINS];
        for Judged { confidence, right } in judged {
            // Bins hold their upper end, as in the paper.
            let bin = ((confidence * BINS as f64).ceil() as usize).clamp(1, BINS) - 1;
            sums[bin].0 += 1;
            sums[bin].1 += confidence;
            sums[bin].2 += u64::from(*right);
        }
        let bins: Vec<Bin> = sums
            .into_iter()
            .map(|(images, confidence, hits)| {
                let n = images.max(1) as f64;
                Bin { images, confidence: confidence / n, accuracy: hits as f64 / n }
            })
            .collect();
        let gaps = bins.iter().map(|bin| bin.images as f64 * (bin.accuracy - bin.confidence).abs());
        Self { expected_error: gaps.sum::<f64>() / judged.len().max(1) as f64, bins }
    }
}

/// Rows of logits with their labels.
fn rows<'a>(
    logits: &'a [f32],
    labels: &'a [usize],
    classes: usize,
) -> impl Iterator<Item = (&'a [f32], usize)> {
    debug_assert_eq!(logits.len(), labels.len() * classes, "a row of logits for each label");
    logits.chunks_exact(classes.max(1)).zip(labels.iter().copied())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `count` rows of three logits and labels that follow them roughly, the same formula as in the reference program.
    fn sample(count: usize) -> (Vec<f32>, Vec<usize>) {
        let logit = |i: usize, c: usize| ((i * 37 + c * 61 + i * c * 11) % 23) as f32 / 3.0 - 3.5;
        let logits: Vec<f32> = (0..count).flat_map(|i| (0..3).map(move |c| logit(i, c))).collect();
        let labels = (0..count)
            .map(|i| if i % 3 == 0 { i % 7 % 3 } else { argmax(&logits[3 * i..3 * i + 3]) })
            .collect();
        (logits, labels)
    }

    #[test]
    fn the_numbers_are_those_of_numpy_and_scipy() {
        let (logits, labels) = sample(60);
        // numpy 2.4.6 and scipy 1.17.1 in double precision: scipy.optimize.brentq on the derivative of the NLL,
        // scipy.special.logsumexp, and equation 3 with numpy.linspace(0, 1, 16) as the bins' ends.
        const TEMPERATURE: f64 = 1.901_292_486_614_158_3;
        const NLL: [f64; 2] = [0.923_637_806_768_552, 0.826_974_706_104_599];
        const ECE: [f64; 2] = [0.139_405_666_884_556_13, 0.175_515_969_365_262_2];
        let fitted = Temperature::fit(&logits, &labels, 3);
        assert_eq!(fitted.origin, TemperatureOrigin::Fitted);
        assert!((fitted.value - TEMPERATURE).abs() < 1e-6, "{fitted:?}");
        for (temperature, nll, ece) in [(1.0, NLL[0], ECE[0]), (TEMPERATURE, NLL[1], ECE[1])] {
            let found = negative_log_likelihood(&logits, &labels, 3, temperature);
            assert!((found - nll).abs() < 1e-10, "{found} {nll}");
            let found = Reliability::of(&Judged::all(&logits, &labels, 3, temperature)).expected_error;
            assert!((found - ece).abs() < 1e-7, "{found} {ece}");
        }
    }

    #[test]
    fn where_nothing_can_be_told_the_temperature_is_one() {
        let one = |logits: &[f32], labels: &[usize]| {
            let found = Temperature::fit(logits, labels, 2);
            assert_eq!(found.value, 1.0);
            found.origin
        };
        let many = |row: [f32; 2]| row.repeat(FEWEST_FOR_TEMPERATURE);
        assert_eq!(one(&[], &[]), TemperatureOrigin::TooFewImages);
        assert_eq!(one(&[3.0, 1.0], &[0]), TemperatureOrigin::TooFewImages);
        let labels = vec![0; FEWEST_FOR_TEMPERATURE];
        assert_eq!(one(&many([3.0, 1.0]), &labels), TemperatureOrigin::NoOptimum, "all right");
        assert_eq!(one(&many([1.0, 3.0]), &labels), TemperatureOrigin::NoOptimum, "all wrong");
        assert_eq!(one(&many([1.0, 1.0]), &labels), TemperatureOrigin::NoOptimum, "nothing said");
        assert_eq!(one(&many([f32::NAN, 1.0]), &labels), TemperatureOrigin::NoOptimum);
    }

    #[test]
    fn a_bin_holds_its_upper_end_and_nothing_gets_lost() {
        let judged = [0.0, 1.0 / 15.0, 0.2, 1.0].map(|confidence| Judged { confidence, right: true });
        let bins = Reliability::of(&judged).bins;
        let images: Vec<u64> = bins.iter().map(|bin| bin.images).collect();
        assert_eq!((images[0], images[2], images[14]), (2, 1, 1), "{images:?}");
        let none = Reliability::of(&[]);
        assert_eq!((none.expected_error, none.bins.len()), (0.0, BINS));
        let sure_and_wrong = Reliability::of(&[Judged { confidence: 1.0, right: false }]);
        assert_eq!(sure_and_wrong.expected_error, 1.0);
    }

    fn rows_and_labels() -> impl Strategy<Value = (Vec<f32>, Vec<usize>)> {
        (20usize..60).prop_flat_map(|n| {
            (proptest::collection::vec(-8f32..8.0, 4 * n), proptest::collection::vec(0usize..4, n))
        })
    }

    proptest! {
        #[test]
        fn no_temperature_is_better_and_no_class_changes((logits, labels) in rows_and_labels()) {
            let fitted = Temperature::fit(&logits, &labels, 4);
            let nll = |temperature| negative_log_likelihood(&logits, &labels, 4, temperature);
            if fitted.origin == TemperatureOrigin::Fitted {
                for factor in [0.5, 0.99, 1.01, 2.0] {
                    prop_assert!(nll(fitted.value) <= nll(fitted.value * factor) + 1e-12);
                }
                prop_assert!(nll(fitted.value) <= nll(1.0) + 1e-12);
            }
            for row in logits.chunks(4) {
                prop_assert_eq!(argmax(&probabilities(row, fitted.value)), argmax(row));
            }
        }

        #[test]
        fn logits_times_a_factor_need_a_temperature_times_it((logits, labels) in rows_and_labels()) {
            let doubled: Vec<f32> = logits.iter().map(|logit| 2.0 * logit).collect();
            let (once, twice) = (Temperature::fit(&logits, &labels, 4), Temperature::fit(&doubled, &labels, 4));
            if once.origin == TemperatureOrigin::Fitted && twice.origin == TemperatureOrigin::Fitted {
                prop_assert!((twice.value / once.value - 2.0).abs() < 1e-9);
            }
        }

        #[test]
        fn the_error_is_a_share_and_ignores_order(judged in proptest::collection::vec((0f64..=1.0, any::<bool>()), 0..80)) {
            let mut judged: Vec<Judged> =
                judged.into_iter().map(|(confidence, right)| Judged { confidence, right }).collect();
            let found = Reliability::of(&judged);
            prop_assert!((0.0..=1.0).contains(&found.expected_error));
            prop_assert_eq!(found.bins.iter().map(|bin| bin.images).sum::<u64>(), judged.len() as u64);
            judged.reverse();
            prop_assert!((Reliability::of(&judged).expected_error - found.expected_error).abs() < 1e-12);
        }
    }
}
