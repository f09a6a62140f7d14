//! Losses and pseudo-labels shared by the algorithms.

use burn::tensor::{Int, Tensor};
use harvest_kernels::ClassTargets;
/// Probabilities, confidence and label of each row of logits, off the graph; and which of them reach a threshold.
pub use harvest_kernels::{Predictions, predictions};

use super::Targets;

impl From<Targets> for ClassTargets {
    fn from(targets: Targets) -> Self {
        match targets {
            Targets::Hard(classes) => Self::Hard(classes),
            Targets::Soft(shares) => Self::Soft(shares),
        }
    }
}

/// Cross-entropy of each row, `-Σ_c target_c log softmax(logits)_c`: `[N, C]` → `[N]`.
pub fn cross_entropy_rows(logits: Tensor<2>, targets: Targets) -> Tensor<1> {
    harvest_kernels::cross_entropy_rows(logits, targets.into())
}

/// The mean of [`cross_entropy_rows`]: `[N, C]` → `[1]`.
pub fn cross_entropy(logits: Tensor<2>, targets: Targets) -> Tensor<1> {
    let [rows, _] = logits.dims();
    harvest_kernels::cross_entropy(logits, targets.into(), None, None, rows as f32)
}

/// [`cross_entropy_rows`], each counted as `mask` `[N]` says, and averaged over `count` images: `[N, C]` → `[1]`.
pub fn masked_cross_entropy(logits: Tensor<2>, targets: Targets, mask: Tensor<1>, count: usize) -> Tensor<1> {
    harvest_kernels::cross_entropy(logits, targets.into(), None, Some(mask), count as f32)
}

/// Rows (weighted) that fall to each class: `[N]`, `[N]` → `[C]`.
pub fn class_counts(classes: Tensor<1, Int>, weights: Tensor<1>, count: usize) -> Tensor<1> {
    harvest_kernels::class_counts(classes, Some(weights), count)
}

/// Distributions `[N, C]` raised to the power `1/T` and scaled to sum 1: below T = 1 the likely becomes likelier.
pub fn sharpen(probabilities: Tensor<2>, temperature: f32) -> Tensor<2> {
    let raised = probabilities.powf_scalar(1.0 / temperature);
    raised.clone() / raised.sum_dim(1)
}

/// Share of rows (weighted) that fall to each class: `[N]`, `[N]` → `[C]`, summing to 1 if any weight is left.
pub fn histogram(classes: Tensor<1, Int>, weights: Tensor<1>, count: usize) -> Tensor<1> {
    shares(class_counts(classes, weights, count))
}

/// Counts `[C]` scaled to sum 1; all 0 where nothing was counted, instead of 0 divided by 0.
pub fn shares(counts: Tensor<1>) -> Tensor<1> {
    let total = counts.clone().sum();
    let divisor = total.clone() + total.equal_scalar(0.0).float();
    counts / divisor
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn hard_and_one_hot_targets_give_the_same_loss() {
        let device = Device::flex();
        let logits = Tensor::<2>::from_data([[1.0f32, -2.0, 0.5], [0.0, 3.0, -1.0]], &device);
        let hard = Targets::Hard(Tensor::from_data([2i32, 0], &device));
        let soft = Targets::Soft(Tensor::from_data([[0.0f32, 0.0, 1.0], [1.0, 0.0, 0.0]], &device));
        let difference =
            (cross_entropy_rows(logits.clone(), hard) - cross_entropy_rows(logits, soft)).abs().max();
        assert!(difference.into_scalar::<f32>() < 1e-6);
    }

    #[test]
    fn means_and_masks_are_of_the_rows() {
        let device = Device::flex();
        let logits = Tensor::<2>::from_data([[1.0f32, -2.0, 0.5], [0.0, 3.0, -1.0]], &device);
        let targets = Targets::Hard(Tensor::from_data([2i32, 0], &device));
        let value = |loss: Tensor<1>| loss.into_scalar::<f32>();
        let rows: Vec<f32> =
            cross_entropy_rows(logits.clone(), targets.clone()).into_data().iter::<f32>().collect();
        let mean = value(cross_entropy(logits.clone(), targets.clone()));
        assert!((mean - (rows[0] + rows[1]) / 2.0).abs() < 1e-6, "{mean} {rows:?}");
        let mask = Tensor::from_data([0.0f32, 0.5], &device);
        let masked = value(masked_cross_entropy(logits, targets, mask, 7));
        assert!((masked - 0.5 * rows[1] / 7.0).abs() < 1e-6, "{masked} {rows:?}");
    }

    #[test]
    fn histogram_of_nothing_is_zero() {
        let device = Device::flex();
        let classes = Tensor::<1, Int>::from_data([0i32, 1], &device);
        let empty = histogram(classes.clone(), Tensor::zeros([2], &device), 3);
        assert_eq!(empty.into_data().iter::<f32>().collect::<Vec<_>>(), [0.0, 0.0, 0.0]);
        let half = histogram(classes, Tensor::ones([2], &device), 3);
        assert_eq!(half.into_data().iter::<f32>().collect::<Vec<_>>(), [0.5, 0.5, 0.0]);
    }
}
