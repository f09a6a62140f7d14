//! UDA: strong views are trained towards the whole distribution of the weak view, labelled images only while needed.
//!
//! Xie et al., NeurIPS 2020, arXiv:1904.12848. For unlabelled image `b`, `z_b` are the logits and `q_b` the class
//! probabilities of its weak view, `Q_b` those of its strong view; `p_i` those of labelled image `i`; `B` labelled and `U`
//! unlabelled images a step, `C` classes, `t` the share of the run that is over.
//!
//! ```text
//! η   = f(t) (1 - 1/C) + 1/C                     f = t, exp(5 (t-1)), 1 - exp(-5 t); η = 1 without schedule  (app. on TSA)
//! L_s = 1/B Σ_i [max p_i ≤ η] · H(y_i, p_i)      training signal annealing
//! L_u = mean_b [max q_b ≥ τ] · H(q_b, Q_b)
//! L   = L_s + w_u L_u
//! ```
//!
//! Where the established implementation departs from the paper, it is followed: annealing looks at the largest
//! probability (paper: that of the right class) and divides by `B` (paper: by the labelled images left); targets are `q_b`
//! as it is, unless `temperature` asks for the paper's softmax(z_b / T).

use burn::tensor::Tensor;
use burn::tensor::activation::softmax;
use serde::{Deserialize, Serialize};

use crate::bounds::{Invalid, Lower::Above, Lower::From, Upper::Upto, range};

use super::loss::predictions;
use super::student::Student;
use super::{Algorithm, Network, PseudoLabels, SslBatch, StepLoss, Targets};

/// How soon labelled images that are already well predicted come to count: f of the module's equations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Annealing {
    /// Always.
    None,
    /// In proportion to the steps done.
    Linear,
    /// Late: for few labelled images, which are soon learnt by heart.
    Exp,
    /// Early: for many.
    Log,
}

impl Annealing {
    /// η after `step` of `total` steps.
    fn threshold(self, step: u64, total: u64, classes: usize) -> f32 {
        let done = step as f64 / total.max(1) as f64;
        let level = match self {
            Self::None => return 1.0,
            Self::Linear => done,
            Self::Exp => (5.0 * (done - 1.0)).exp(),
            Self::Log => 1.0 - (-5.0 * done).exp(),
        };
        let chance = 1.0 / classes as f64;
        (level * (1.0 - chance) + chance) as f32
    }
}

/// Hyper-parameters; defaults are those of the established image recipes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UdaConfig {
    /// τ, in [0, 1]. Paper: 0.8 for CIFAR-10.
    pub threshold: f32,
    /// Training signal annealing.
    pub tsa: Annealing,
    /// Sharpens the targets; above 0. Paper: 0.4. Unset, they stay as they are: the established numbers.
    pub temperature: Option<f32>,
    /// w_u. Paper: 1.
    pub unlabelled_weight: f32,
}

impl Default for UdaConfig {
    fn default() -> Self {
        Self { threshold: 0.8, tsa: Annealing::None, temperature: None, unlabelled_weight: 1.0 }
    }
}

impl UdaConfig {
    /// The threshold must be a probability, the temperature above 0, the weight not negative.
    ///
    /// # Errors
    /// The first value that is none of these.
    pub fn check(&self) -> Result<(), Invalid> {
        range("algorithm.uda.threshold", self.threshold.into(), From(0.0), Upto(1.0))?;
        if let Some(temperature) = self.temperature {
            range("algorithm.uda.temperature", temperature.into(), Above(0.0), Upto(f64::MAX))?;
        }
        range("algorithm.uda.unlabelled_weight", self.unlabelled_weight.into(), From(0.0), Upto(f64::MAX))
    }
}

/// UDA keeps no state between steps.
#[derive(Debug)]
pub struct Uda {
    config: UdaConfig,
}

impl Uda {
    /// With the given hyper-parameters.
    pub fn new(config: UdaConfig) -> Self {
        Self { config }
    }

    /// Pseudo-labels from weak logits `[U, C]`.
    fn pseudo_labels(&self, weak: Tensor<2>) -> PseudoLabels {
        let found = predictions(weak.clone());
        let (mask, threshold) = found.reaching(self.config.threshold);
        let targets = Targets::Soft(match self.config.temperature {
            Some(temperature) => softmax(weak.div_scalar(temperature), 1),
            None => found.probabilities,
        });
        PseudoLabels { mask, targets, threshold }
    }
}

impl Algorithm for Uda {
    fn name(&self) -> &'static str {
        "uda"
    }

    fn step(&mut self, network: &dyn Network, batch: &SslBatch) -> StepLoss {
        let pseudo = self.pseudo_labels(batch.teach(network));
        let student = Student::pass(network, batch, &pseudo);

        let classes = student.labelled.dims()[1];
        let annealed = self.config.tsa.threshold(batch.step, batch.total_steps, classes);
        let confidence = predictions(student.labelled.clone()).confidence;
        let counts = confidence.lower_equal_scalar(annealed).float();
        let rows = batch.objective.rows(student.labelled.clone(), Targets::Hard(batch.labels.clone()));
        let supervised = (rows * Tensor::from_inner(counts.clone())).mean();

        let mut loss = StepLoss::of(supervised, student.consistency(), self.config.unlabelled_weight, pseudo);
        if self.config.tsa != Annealing::None {
            loss.scalars.push(("tsa_threshold", counts.clone().mean().full_like(annealed)));
            loss.scalars.push(("sup_ratio", counts.mean()));
        }
        loss
    }
}

#[cfg(test)]
mod tests {
    use super::Annealing;

    #[test]
    fn thresholds_lie_between_chance_and_certainty() {
        for annealing in [Annealing::Linear, Annealing::Exp, Annealing::Log] {
            let levels: Vec<f32> = (0..=10).map(|step| annealing.threshold(step, 10, 4)).collect();
            assert!(levels.is_sorted() && levels[0] >= 0.25 && levels[10] <= 1.0, "{levels:?}");
        }
        assert_eq!(Annealing::None.threshold(0, 10, 4), 1.0);
        assert!(Annealing::Linear.threshold(0, 0, 4).is_finite());
    }
}
