//! What labelled images are trained towards: the part of the loss that options change, whatever the algorithm.

use burn::tensor::{Int, Tensor, TensorData};

use super::loss::{cross_entropy, cross_entropy_rows};
use super::{Problem, Targets};

/// Cross-entropy to known classes, with softened targets and adjusted logits where options ask for them.
#[derive(Debug, Clone, Default)]
pub struct Objective {
    /// `[C, C]`: row `c` is the distribution that an image of class `c` is trained towards; unset, class `c` alone.
    pub targets: Option<Tensor<2>>,
    /// `[C]`, added to the logits of labelled images during training, not to predictions.
    pub adjustment: Option<Tensor<1>>,
}

impl Objective {
    /// As options ask, for these classes. `smoothing` in [0, 1) spreads a label evenly over all classes, `ordinal_width`
    /// (in bins, 0 for off) over its neighbours, `logit_adjustment` ≥ 0 weighs the logarithm of the classes' frequencies.
    pub fn new(smoothing: f64, ordinal_width: f64, logit_adjustment: f64, problem: &Problem) -> Self {
        let device = problem.device.clone().inner();
        let table = (smoothing > 0.0 || ordinal_width > 0.0).then(|| {
            let classes = problem.classes;
            let rows = (0..classes).flat_map(|class| target(class, classes, smoothing, ordinal_width));
            let values: Vec<f32> = rows.map(|share| share as f32).collect();
            Tensor::from_data(TensorData::new(values, [classes, classes]), &device)
        });
        let adjustment = (logit_adjustment > 0.0)
            .then(|| problem.smoothed_frequencies().log().mul_scalar(logit_adjustment));
        Self { targets: table, adjustment }
    }

    /// Mean over labelled images: `[B, C]`, `[B]` → `[1]`.
    pub fn loss(&self, logits: Tensor<2>, classes: Tensor<1, Int>) -> Tensor<1> {
        self.mean(logits, Targets::Hard(classes))
    }

    /// Mean of [`Objective::rows`]: `[N, C]` → `[1]`.
    pub fn mean(&self, logits: Tensor<2>, targets: Targets) -> Tensor<1> {
        let (logits, targets) = self.changed(logits, targets);
        cross_entropy(logits, targets)
    }

    /// The loss of each row, `[N, C]` → `[N]`. Soft targets (a mixture of labelled images) are softened class by class.
    pub fn rows(&self, logits: Tensor<2>, targets: Targets) -> Tensor<1> {
        let (logits, targets) = self.changed(logits, targets);
        cross_entropy_rows(logits, targets)
    }

    /// Logits and targets as the options ask.
    fn changed(&self, logits: Tensor<2>, targets: Targets) -> (Tensor<2>, Targets) {
        let logits = match &self.adjustment {
            Some(adjustment) => logits + Tensor::from_inner(adjustment.clone()).unsqueeze_dim(0),
            None => logits,
        };
        let targets = match (&self.targets, targets) {
            (None, targets) => targets,
            (Some(table), Targets::Hard(classes)) => {
                Targets::Soft(Tensor::from_inner(table.clone().select(0, classes)))
            }
            (Some(table), Targets::Soft(soft)) => {
                Targets::Soft(soft.matmul(Tensor::from_inner(table.clone())))
            }
        };
        (logits, targets)
    }
}

/// What an image of `class` is trained towards.
fn target(class: usize, classes: usize, smoothing: f64, width: f64) -> Vec<f64> {
    let near = |other: usize| match width > 0.0 {
        true => (-(class.abs_diff(other) as f64) / width).exp(),
        false => f64::from(u8::from(other == class)),
    };
    let total: f64 = (0..classes).map(near).sum();
    (0..classes).map(|other| (1.0 - smoothing) * near(other) / total + smoothing / classes as f64).collect()
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn problem() -> Problem {
        let mut problem = Problem::bare(4, 10, 100, &Device::flex());
        problem.labelled_per_class = vec![97, 1, 1, 1];
        problem
    }

    fn losses(objective: &Objective, classes: [i32; 2]) -> Vec<f32> {
        let device = Device::flex();
        let logits = Tensor::<2>::from_data([[2.0f32, 1.0, 0.0, -1.0], [0.5, 0.5, 0.5, 0.5]], &device);
        let classes = Tensor::<1, Int>::from_data(classes, &device);
        objective.rows(logits, Targets::Hard(classes)).into_data().iter::<f32>().collect()
    }

    #[test]
    fn without_options_it_is_plain_cross_entropy() {
        let plain = Objective::new(0.0, 0.0, 0.0, &problem());
        assert!(plain.targets.is_none() && plain.adjustment.is_none());
        assert_eq!(losses(&plain, [1, 2]), losses(&Objective::default(), [1, 2]));
    }

    #[test]
    fn the_loss_is_the_mean_of_its_rows() {
        let device = Device::flex();
        let logits = Tensor::<2>::from_data([[2.0f32, 1.0, 0.0, -1.0], [0.5, 0.5, 0.5, 0.5]], &device);
        for objective in [Objective::default(), Objective::new(0.1, 0.5, 1.0, &problem())] {
            let rows = losses(&objective, [3, 0]);
            let mean = objective.loss(logits.clone(), Tensor::from_data([3, 0], &device));
            assert!((mean.into_scalar::<f32>() - (rows[0] + rows[1]) / 2.0).abs() < 1e-6);
        }
    }

    #[test]
    fn smoothing_spreads_evenly() {
        let row = target(1, 4, 0.2, 0.0);
        assert!((row[1] - 0.85).abs() < 1e-12 && (row[0] - 0.05).abs() < 1e-12, "{row:?}");
        let smoothed = losses(&Objective::new(0.2, 0.0, 0.0, &problem()), [0, 0]);
        // -Σ target · log softmax by hand, for logits 2, 1, 0, -1.
        let normaliser = [2f32, 1.0, 0.0, -1.0].iter().map(|x| x.exp()).sum::<f32>().ln();
        let expected = normaliser - (0.85 * 2.0 + 0.05 * (1.0 + 0.0 - 1.0));
        assert!((smoothed[0] - expected).abs() < 1e-5, "{smoothed:?} {expected}");
    }

    #[test]
    fn a_near_miss_costs_less_than_a_far_one() {
        for class in 0..4 {
            let row = target(class, 4, 0.0, 0.5);
            assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            for (one, other) in [(0usize, 1usize), (1, 2), (2, 3), (3, 2), (1, 0)] {
                let closer = class.abs_diff(one) < class.abs_diff(other);
                assert_eq!(row[one] > row[other], closer, "{class}: {row:?}");
            }
        }
        // The network says class 0: the loss grows with the distance of the truth from it.
        let ordinal = Objective::new(0.0, 0.5, 0.0, &problem());
        let loss = |class| losses(&ordinal, [class, 0])[0];
        assert!(loss(0) < loss(1) && loss(1) < loss(2) && loss(2) < loss(3));
    }

    #[test]
    fn a_rare_class_counts_more_under_adjustment() {
        let adjusted = Objective::new(0.0, 0.0, 1.0, &problem());
        // Four equal logits: without adjustment both classes cost ln 4.
        assert!(losses(&adjusted, [0, 3])[1] > 4f32.ln());
        assert!(losses(&adjusted, [0, 0])[1] < 4f32.ln());
        let shares: Vec<f32> = problem().smoothed_frequencies().into_data().iter::<f32>().collect();
        assert!((losses(&adjusted, [0, 3])[1] + shares[3].ln()).abs() < 1e-5);
    }
}
