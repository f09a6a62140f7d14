//! Two models on the same images: is one better, and by how much?

use super::Interval;
use super::interval::Z;

/// On how many images just one of two models is right. Images on which both are right or both wrong say nothing about
/// which is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paired {
    /// Images.
    pub samples: u64,
    /// Right by the first alone.
    pub first_only: u64,
    /// Right by the second alone.
    pub second_only: u64,
}

/// What a comparison lets one say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The first is better.
    Better,
    /// The first is worse.
    Worse,
    /// Chance would explain it.
    Unclear,
}

impl Paired {
    /// From whether each model is right, image by image.
    pub fn count(pairs: impl IntoIterator<Item = (bool, bool)>) -> Self {
        let mut counts = Self { samples: 0, first_only: 0, second_only: 0 };
        for (first, second) in pairs {
            counts.samples += 1;
            counts.first_only += u64::from(first && !second);
            counts.second_only += u64::from(second && !first);
        }
        counts
    }

    /// Accuracy of the first less that of the second.
    pub fn difference(&self) -> f64 {
        (self.first_only as f64 - self.second_only as f64) / self.samples.max(1) as f64
    }

    /// 95 % interval of the difference: Bonett and Price (2012), the textbook's interval with one image added to either
    /// count, which keeps its promise for few images too.
    pub fn interval(&self) -> Interval {
        let n = self.samples as f64 + 2.0;
        let (p, q) = ((self.first_only as f64 + 1.0) / n, (self.second_only as f64 + 1.0) / n);
        let reach = Z * ((p + q - (p - q).powi(2)) / n).sqrt();
        let difference = self.difference();
        Interval {
            low: (p - q - reach).clamp(-1.0, difference),
            high: (p - q + reach).clamp(difference, 1.0),
        }
    }

    /// McNemar's test, exact: how probable a difference at least as large, to either side, is if both models are equally
    /// good. Each image that only one has right is then a fair coin.
    pub fn p_value(&self) -> f64 {
        let (fewer, tosses) = (self.first_only.min(self.second_only), self.first_only + self.second_only);
        // ln of the binomial coefficient times 2^-tosses, from term to term.
        let mut term = -(tosses as f64) * std::f64::consts::LN_2;
        let mut sum = term.exp();
        for i in 0..fewer {
            term += ((tosses - i) as f64).ln() - ((i + 1) as f64).ln();
            sum += term.exp();
        }
        (2.0 * sum).min(1.0)
    }

    /// A difference counts if test and interval agree on it.
    pub fn verdict(&self) -> Verdict {
        let Interval { low, high } = self.interval();
        match self.p_value() < 0.05 {
            true if low > 0.0 => Verdict::Better,
            true if high < 0.0 => Verdict::Worse,
            _ => Verdict::Unclear,
        }
    }

    /// The difference in points of a percent: "5.1 points (3.9 to 6.3)".
    pub fn text(&self) -> String {
        // Told as an amount: a loss of 3 points, not a gain of -3.
        let sign = if self.verdict() == Verdict::Worse { -100.0 } else { 100.0 };
        let Interval { low, high } = self.interval();
        let (low, high) = (sign * low, sign * high);
        format!("{:.1} points ({:.1} to {:.1})", sign * self.difference(), low.min(high), low.max(high))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn paired(samples: u64, first_only: u64, second_only: u64) -> Paired {
        Paired { samples, first_only, second_only }
    }

    #[test]
    fn the_test_is_the_binomial_one() {
        assert!((paired(20, 1, 9).p_value() - 22.0 / 1024.0).abs() < 1e-12);
        assert_eq!(paired(20, 5, 5).p_value(), 1.0);
        assert_eq!(paired(20, 0, 0).p_value(), 1.0);
        assert!(paired(100_000, 30_000, 20_000).p_value() < 1e-100);
    }

    #[test]
    fn only_what_chance_does_not_explain_is_a_verdict() {
        assert_eq!(paired(10_000, 900, 400).verdict(), Verdict::Better);
        assert_eq!(paired(10_000, 400, 900).verdict(), Verdict::Worse);
        assert_eq!(paired(10_000, 500, 520).verdict(), Verdict::Unclear);
        assert_eq!(paired(4, 4, 0).verdict(), Verdict::Unclear);
        assert_eq!(Paired::count([]).verdict(), Verdict::Unclear);
        assert!(paired(10_000, 400, 900).text().starts_with("5.0 points (4."));
    }

    proptest! {
        #[test]
        fn swapping_the_models_mirrors_everything(first in 0u64..3000, second in 0u64..3000, same in 0u64..9000) {
            let (a, b) = (paired(first + second + same, first, second), paired(first + second + same, second, first));
            prop_assert_eq!(a.p_value(), b.p_value());
            let (i, j) = (a.interval(), b.interval());
            prop_assert!((i.low + j.high).abs() < 1e-12 && (i.high + j.low).abs() < 1e-12);
            prop_assert!(i.low <= a.difference() && a.difference() <= i.high);
        }
    }
}
