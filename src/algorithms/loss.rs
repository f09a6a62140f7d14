//! Losses shared by the algorithms.

use burn::tensor::activation::log_softmax;
use burn::tensor::{Int, Tensor};

use super::Targets;

/// Cross-entropy of each row, `-Σ_c target_c log softmax(logits)_c`: `[N, C]` → `[N]`.
pub fn cross_entropy_rows(logits: Tensor<2>, targets: Targets) -> Tensor<1> {
    let log_probabilities = log_softmax(logits, 1);
    match targets {
        Targets::Hard(classes) => {
            let [rows] = classes.dims();
            log_probabilities.gather(1, classes.reshape([rows, 1])).squeeze_dim::<1>(1).neg()
        }
        Targets::Soft(targets) => (log_probabilities * targets).sum_dim(1).squeeze_dim::<1>(1).neg(),
    }
}

/// The most likely class of each row and its probability: `[N, C]` → `[N]`, `[N]`; ties go to the first class.
pub fn confidence(probabilities: &Tensor<2>) -> (Tensor<1>, Tensor<1, Int>) {
    let (confidence, class) = probabilities.clone().max_dim_with_indices(1);
    (confidence.squeeze_dim(1), class.squeeze_dim(1))
}

/// Rows (weighted) that fall to each class: `[N]`, `[N]` → `[C]`.
pub fn class_counts(classes: Tensor<1, Int>, weights: Tensor<1>, count: usize) -> Tensor<1> {
    let [rows] = classes.dims();
    let one_hot = classes.one_hot::<2>(count).float();
    (one_hot * weights.reshape([rows, 1])).sum_dim(0).squeeze_dim::<1>(0)
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
    fn histogram_of_nothing_is_zero() {
        let device = Device::flex();
        let classes = Tensor::<1, Int>::from_data([0i32, 1], &device);
        let empty = histogram(classes.clone(), Tensor::zeros([2], &device), 3);
        assert_eq!(empty.into_data().iter::<f32>().collect::<Vec<_>>(), [0.0, 0.0, 0.0]);
        let half = histogram(classes, Tensor::ones([2], &device), 3);
        assert_eq!(half.into_data().iter::<f32>().collect::<Vec<_>>(), [0.5, 0.5, 0.0]);
    }
}
