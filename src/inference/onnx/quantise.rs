//! Weights in eight bits: an output channel is a list of integers and one scale.
//!
//! Symmetric, `weight ≈ scale · q` with `q` in −127..=127 and `scale = max |weight| / 127` of the channel, so that
//! nothing is clipped and 0 stays 0. The error of a weight is at most half a scale.

use super::OnnxError;

/// A matrix whose rows are output channels.
#[derive(Debug, Clone, PartialEq)]
pub struct Quantised {
    /// As many as there were weights, in their order.
    pub values: Vec<i8>,
    /// One for each row.
    pub scales: Vec<f32>,
}

impl Quantised {
    /// The weights that stand for the original ones.
    pub fn dequantised(&self) -> Vec<f32> {
        let width = self.values.len() / self.scales.len().max(1);
        let rows = self.values.chunks_exact(width.max(1)).zip(&self.scales);
        rows.flat_map(|(row, scale)| row.iter().map(move |value| f32::from(*value) * scale)).collect()
    }
}

/// Rounds `weights`, `rows` output channels of equal length; `name` is for the error.
///
/// # Errors
/// If a weight is infinite or no number.
pub fn quantise(name: &str, weights: &[f32], rows: usize) -> Result<Quantised, OnnxError> {
    if let Some(value) = weights.iter().find(|weight| !weight.is_finite()) {
        return Err(OnnxError::NotFinite { name: name.to_owned(), value: *value });
    }
    let width = (weights.len() / rows.max(1)).max(1);
    let mut quantised = Quantised { values: Vec::with_capacity(weights.len()), scales: Vec::new() };
    for row in weights.chunks(width) {
        let largest = row.iter().fold(0.0f32, |largest, weight| largest.max(weight.abs()));
        let scale = scale_of(largest);
        let round = |weight: &f32| (weight / scale).round().clamp(-127.0, 127.0) as i8;
        quantised.values.extend(row.iter().map(round));
        quantised.scales.push(scale);
    }
    Ok(quantised)
}

/// The scale of a row whose largest weight is `largest`.
fn scale_of(largest: f32) -> f32 {
    let scale = largest / 127.0;
    // A row of zeros, or of numbers too small to divide by, is stored as zeros; any scale above 0 does.
    if scale < f32::MIN_POSITIVE {
        return 1.0;
    }
    // Rounded up, the scale of the largest numbers there are would stand for infinite ones.
    if (127.0 * scale).is_finite() { scale } else { scale.next_down() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_weight_is_off_by_more_than_half_a_scale(
            rows in 1usize..5,
            row in proptest::collection::vec(-1e3f32..1e3, 1..40),
            shrink in 1e-6f32..1.0,
        ) {
            let scaled = |i: usize| row.iter().map(move |weight| weight * shrink.powi(i as i32));
            let weights: Vec<f32> = (0..rows).flat_map(scaled).collect();
            let quantised = quantise("w", &weights, rows).expect("finite");
            prop_assert_eq!(quantised.scales.len(), rows);
            let found = quantised.dequantised();
            prop_assert_eq!(found.len(), weights.len());
            for (i, (weight, found)) in weights.iter().zip(&found).enumerate() {
                let scale = quantised.scales[i / row.len()];
                // Two roundings of f32 beside the one to an integer.
                prop_assert!((weight - found).abs() <= scale * 0.50001, "{} {} {}", weight, found, scale);
            }
        }
    }

    #[test]
    fn the_largest_weight_of_each_row_is_kept_and_zeros_stay() {
        let quantised = quantise("w", &[0.0, -2.54, 1.27, 0.0, 0.0, 0.0], 2).expect("finite");
        assert_eq!(quantised.values, [0, -127, 64, 0, 0, 0]);
        let found = quantised.dequantised();
        assert!((found[1] + 2.54).abs() < 1e-6);
        assert_eq!(found[3..], [0.0; 3]);
    }

    #[test]
    fn numbers_near_the_smallest_become_zero_not_nonsense() {
        let quantised = quantise("w", &[f32::MIN_POSITIVE, 1e-45], 1).expect("finite");
        assert_eq!(quantised.dequantised(), [0.0, 0.0]);
        assert!(quantise("w", &[f32::MAX, -f32::MAX], 1).expect("finite").dequantised()[0].is_finite());
    }

    #[test]
    fn what_is_no_number_is_refused_by_name() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let error = quantise("fc.weight", &[1.0, bad], 1).expect_err("not finite");
            assert!(error.to_string().contains("fc.weight"), "{error}");
        }
    }
}
