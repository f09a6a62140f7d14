//! How sure a share counted over a sample is.

use serde::{Deserialize, Serialize};

/// 97.5 % of a standard normal variable lie below it: intervals hold 95 %.
pub(super) const Z: f64 = 1.959_963_984_540_054;

/// Ends of a 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// Wilson's score interval (1927) for the share of `hits` among `samples`: where the true share lies with 95 %
/// confidence, if the samples are drawn at random.
///
/// ```text
/// (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n)        p = hits / samples, n = samples
/// ```
///
/// Unlike the textbook's `p ± z √(p(1-p)/n)` it stays within `[0, 1]` and keeps a width when all or none hit. Without
/// samples it is `[0, 1]`.
pub fn wilson(hits: u64, samples: u64) -> Interval {
    if samples == 0 {
        return Interval { low: 0.0, high: 1.0 };
    }
    let n = samples as f64;
    let p = hits.min(samples) as f64 / n;
    let scale = 1.0 + Z * Z / n;
    let middle = (p + Z * Z / (2.0 * n)) / scale;
    let reach = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt() / scale;
    // Rounding must not push an end past the share itself.
    Interval { low: (middle - reach).clamp(0.0, p), high: (middle + reach).clamp(p, 1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn published_values() {
        // Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
        for (hits, samples, low, high) in [
            (81, 263, 0.2553, 0.3662),
            (15, 148, 0.0624, 0.1605),
            (0, 20, 0.0, 0.1611),
            (1, 29, 0.0061, 0.1718),
        ] {
            let found = wilson(hits, samples);
            assert!((found.low - low).abs() < 1e-4 && (found.high - high).abs() < 1e-4, "{found:?}");
        }
        assert_eq!(wilson(0, 0), Interval { low: 0.0, high: 1.0 });
    }

    proptest! {
        #[test]
        fn holds_the_share_and_solves_its_equation((samples, hits) in (1u64..100_000).prop_flat_map(|n| (Just(n), 0..=n))) {
            let Interval { low, high } = wilson(hits, samples);
            let (n, p) = (samples as f64, hits as f64 / samples as f64);
            prop_assert!(0.0 <= low && low <= p && p <= high && high <= 1.0);
            // Both ends are the true shares from which `p` is `z` standard deviations away.
            for end in [low, high] {
                let distance = (p - end).abs() - Z * (end * (1.0 - end) / n).sqrt();
                prop_assert!(distance.abs() < 1e-9, "{distance}");
            }
            // Misses mirror hits; more samples of the same share are surer.
            let mirrored = wilson(samples - hits, samples);
            prop_assert!((1.0 - mirrored.low - high).abs() < 1e-12);
            let surer = wilson(hits * 4, samples * 4);
            prop_assert!(surer.high - surer.low < high - low);
        }
    }
}
