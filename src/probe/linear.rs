//! A linear classifier on frozen features: multinomial logistic regression in double precision.
//!
//! ```text
//! x' = (x - mean) / std                      each feature, over the labelled images
//! L  = mean -ln softmax(W x' + b)_y + λ/2 |W|²
//! ```
//!
//! L is convex and minimised until its gradient vanishes, so that neither a learning rate nor a seed decides the result.
//! λ is the one of [`STRENGTHS`] with the lowest cross entropy on images held out.

use rayon::prelude::*;

use super::Features;
use super::lbfgs::minimise;
use crate::metrics::argmax;

/// λ to choose from, the strongest first.
pub const STRENGTHS: [f64; 7] = [10.0, 1.0, 0.1, 0.01, 1e-3, 1e-4, 1e-5];
/// Where the search ends at the latest, and how flat it must be to end before.
const ITERATIONS: usize = 300;
const TOLERANCE: f64 = 1e-6;
/// Rows summed by one thread. Sums are added in order, so that the number of threads changes no bit.
const CHUNK: usize = 128;

/// A trained linear classifier.
#[derive(Debug, Clone)]
pub struct LinearProbe {
    mean: Vec<f64>,
    /// 1 where a feature never changes.
    std: Vec<f64>,
    /// `[C, D + 1]`: weights and, last of each row, the bias.
    weights: Vec<f64>,
}

impl LinearProbe {
    /// Learns from `labelled` with penalty `strength`; classes are below `classes`.
    pub fn fit(labelled: &Features, classes: usize, strength: f64) -> Self {
        let (mean, std) = moments(labelled);
        let rows = standardised(labelled, &mean, &std);
        let (width, count) = (labelled.dim + 1, labelled.labels.len().max(1) as f64);
        let loss = |weights: &[f64]| {
            let parts: Vec<(f64, Vec<f64>)> = rows
                .par_chunks(CHUNK * width)
                .zip(labelled.labels.par_chunks(CHUNK))
                .map(|(rows, labels)| cross_entropy(weights, rows, labels, width))
                .collect();
            let (mut value, mut gradient) = (0.0, vec![0.0; weights.len()]);
            for (part, slopes) in parts {
                value += part / count;
                gradient.iter_mut().zip(slopes).for_each(|(sum, slope)| *sum += slope / count);
            }
            for (i, (slope, weight)) in gradient.iter_mut().zip(weights).enumerate() {
                // Biases are free.
                if i % width != width - 1 {
                    *slope += strength * weight;
                    value += 0.5 * strength * weight * weight;
                }
            }
            (value, gradient)
        };
        let weights = minimise(vec![0.0; classes * width], ITERATIONS, TOLERANCE, loss);
        Self { mean, std, weights }
    }

    /// λ with the lowest cross entropy on `held_out`; of equals the strongest.
    pub fn choose_strength(labelled: &Features, held_out: &Features, classes: usize) -> f64 {
        let mut best = (STRENGTHS[0], f64::INFINITY);
        for strength in STRENGTHS {
            let loss = Self::fit(labelled, classes, strength).cross_entropy(held_out);
            if loss < best.1 {
                best = (strength, loss);
            }
        }
        best.0
    }

    /// Mean cross entropy on images of known classes; infinite without images, which tell nothing.
    pub fn cross_entropy(&self, images: &Features) -> f64 {
        if images.labels.is_empty() {
            return f64::INFINITY;
        }
        let rows = standardised(images, &self.mean, &self.std);
        let (sum, _) = cross_entropy(&self.weights, &rows, &images.labels, self.mean.len() + 1);
        sum / images.labels.len() as f64
    }

    /// The class of each image.
    pub fn predict(&self, images: &Features) -> Vec<usize> {
        let width = self.mean.len() + 1;
        let rows = standardised(images, &self.mean, &self.std);
        rows.par_chunks_exact(width).map(|row| argmax(&logits(&self.weights, row))).collect()
    }
}

/// Mean and standard deviation of each feature.
fn moments(features: &Features) -> (Vec<f64>, Vec<f64>) {
    let count = features.labels.len().max(1) as f64;
    let mut mean = vec![0.0; features.dim];
    for row in features.rows() {
        mean.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value) / count);
    }
    let mut variance = vec![0.0; features.dim];
    for row in features.rows() {
        let off = row.iter().zip(&mean).map(|(value, mean)| f64::from(*value) - mean);
        variance.iter_mut().zip(off).for_each(|(sum, off)| *sum += off * off / count);
    }
    let std = variance.into_iter().map(|variance: f64| if variance > 1e-24 { variance.sqrt() } else { 1.0 });
    (mean, std.collect())
}

/// `[N, D + 1]`: standardised, with a 1 at the end for the bias.
fn standardised(features: &Features, mean: &[f64], std: &[f64]) -> Vec<f64> {
    let row = |row: &[f32]| {
        let each = row.iter().zip(mean.iter().zip(std));
        let mut values: Vec<f64> =
            each.map(|(value, (mean, std))| (f64::from(*value) - mean) / std).collect();
        values.push(1.0);
        values
    };
    features.rows().flat_map(row).collect()
}

fn logits(weights: &[f64], row: &[f64]) -> Vec<f64> {
    weights.chunks_exact(row.len()).map(|weights| weights.iter().zip(row).map(|(w, x)| w * x).sum()).collect()
}

/// Sum over rows, and its gradient.
fn cross_entropy(weights: &[f64], rows: &[f64], labels: &[usize], width: usize) -> (f64, Vec<f64>) {
    let (mut value, mut gradient) = (0.0, vec![0.0; weights.len()]);
    for (row, &label) in rows.chunks_exact(width).zip(labels) {
        let logits = logits(weights, row);
        let peak = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = logits.iter().map(|logit| (logit - peak).exp()).sum();
        value += sum.ln() + peak - logits[label];
        for (class, slopes) in gradient.chunks_exact_mut(width).enumerate() {
            let off = (logits[class] - peak).exp() / sum - f64::from(u8::from(class == label));
            slopes.iter_mut().zip(row).for_each(|(slope, x)| *slope += off * x);
        }
    }
    (value, gradient)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Overlapping classes, the same formula as in the reference program.
    fn sample(count: usize) -> Features {
        let value = |i: usize, d: usize| ((i * 31 + d * 17 + i * d * 7) % 29) as f32 / 7.0 - 2.0;
        Features {
            values: (0..count).flat_map(|i| (0..3).map(move |d| value(i, d))).collect(),
            dim: 3,
            labels: (0..count).map(|i| if value(i, 0) + value(i, 1) > 0.4 { i % 5 / 2 } else { 2 }).collect(),
        }
    }

    #[test]
    fn the_minimum_is_scipys() {
        let images = sample(50);
        // scipy 1.17.1, scipy.optimize.minimize(method="L-BFGS-B", gtol=1e-11) on the same loss; the cross entropy and the
        // squared length of the weights at its minimum.
        for (strength, loss, length) in [
            (0.1, 0.564_291_916_003_701_3, 1.145_895_816_847_695),
            (0.001, 0.512_817_348_673_59, 5.084_084_552_054_621),
        ] {
            let found = LinearProbe::fit(&images, 3, strength);
            let weights = found.weights.chunks(4).flat_map(|row| &row[..3]);
            let squares: f64 = weights.map(|weight| weight * weight).sum();
            assert!((found.cross_entropy(&images) - loss).abs() < 1e-6, "{}", found.cross_entropy(&images));
            assert!((squares / length - 1.0).abs() < 1e-3, "{squares} {length}");
        }
    }

    #[test]
    fn the_gradient_is_the_slope() {
        let images = sample(9);
        let (mean, std) = moments(&images);
        let rows = standardised(&images, &mean, &std);
        let weights: Vec<f64> = (0..12).map(|i| f64::from(i * 5 % 7) / 4.0 - 0.7).collect();
        let (_, gradient) = cross_entropy(&weights, &rows, &images.labels, 4);
        for i in 0..12 {
            let moved = |by: f64| {
                let mut weights = weights.clone();
                weights[i] += by;
                cross_entropy(&weights, &rows, &images.labels, 4).0
            };
            let slope = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            assert!((slope - gradient[i]).abs() < 1e-7, "{i}: {slope} {}", gradient[i]);
        }
    }

    #[test]
    fn a_feature_that_never_changes_and_another_scale_change_nothing() {
        let images = sample(40);
        let mut scaled = Features { dim: 4, values: Vec::new(), labels: images.labels.clone() };
        for row in images.rows() {
            scaled.values.extend([row[0] * 100.0, row[1] + 50.0, row[2], 3.0]);
        }
        let (plain, other) = (LinearProbe::fit(&images, 3, 0.01), LinearProbe::fit(&scaled, 3, 0.01));
        assert_eq!(plain.predict(&images), other.predict(&scaled));
        let apart = plain.cross_entropy(&images) - other.cross_entropy(&scaled);
        // f32 features around 50 are off by 4e-6.
        assert!(apart.abs() < 1e-4, "{apart}");
    }

    #[test]
    fn nothing_held_out_leaves_the_strongest_penalty() {
        assert_eq!(LinearProbe::choose_strength(&sample(10), &Features::default(), 3), STRENGTHS[0]);
    }
}
