//! FixMatch: learn from the strong view what the weak view is sure of.
//!
//! Sohn et al., NeurIPS 2020, arXiv:2001.07685, equations 3 and 4. For unlabelled image `b`, `q_b` and `Q_b` are the
//! class probabilities of its weak and its strong view; `U` images a step.
//!
//! ```text
//! L_u = mean_b [max q_b ≥ τ] · H(target_b, Q_b)     target_b = argmax q_b, or q_b with soft labels
//! L   = L_s + w_u L_u
//! ```
//!
//! `L_u` averages over all `U` images, dropped ones included. Soft labels are `q_b` as it is, without the temperature
//! of the paper's section 4.3: the established implementation ignores it too, so published numbers hold.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::bounds::{Invalid, Lower::From, Upper::Upto, range};

use super::loss::predictions;
use super::student::Student;
use super::{Algorithm, Network, PseudoLabels, SslBatch, StepLoss, Targets};

/// Hyper-parameters; defaults are the paper's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FixMatchConfig {
    /// τ, the confidence from which a pseudo-label counts, in [0, 1]. Paper: 0.95.
    pub threshold: f32,
    /// w_u. Paper: 1.
    pub unlabelled_weight: f32,
    /// Train towards one class (true) or the whole distribution (false). Paper: true.
    pub hard_labels: bool,
}

impl Default for FixMatchConfig {
    fn default() -> Self {
        Self { threshold: 0.95, unlabelled_weight: 1.0, hard_labels: true }
    }
}

impl FixMatchConfig {
    /// The threshold must be a probability, the weight not negative.
    ///
    /// # Errors
    /// The first value that is neither.
    pub fn check(&self) -> Result<(), Invalid> {
        range("algorithm.fixmatch.threshold", self.threshold.into(), From(0.0), Upto(1.0))?;
        range(
            "algorithm.fixmatch.unlabelled_weight",
            self.unlabelled_weight.into(),
            From(0.0),
            Upto(f64::MAX),
        )
    }
}

/// FixMatch keeps no state between steps.
#[derive(Debug)]
pub struct FixMatch {
    config: FixMatchConfig,
}

impl FixMatch {
    /// With the given hyper-parameters.
    pub fn new(config: FixMatchConfig) -> Self {
        Self { config }
    }

    /// Pseudo-labels from weak logits `[U, C]`.
    fn pseudo_labels(&self, weak: Tensor<2>) -> PseudoLabels {
        let weak = predictions(weak);
        let (mask, threshold) = weak.reaching(self.config.threshold);
        let targets = match self.config.hard_labels {
            true => Targets::Hard(weak.label),
            false => Targets::Soft(weak.probabilities),
        };
        PseudoLabels { mask, targets, threshold }
    }
}

impl Algorithm for FixMatch {
    fn name(&self) -> &'static str {
        "fixmatch"
    }

    fn step(&mut self, network: &dyn Network, batch: &SslBatch) -> StepLoss {
        let pseudo = self.pseudo_labels(batch.teach(network));
        let student = Student::pass(network, batch, &pseudo);
        let supervised = batch.objective.loss(student.labelled.clone(), batch.labels.clone());
        let unsupervised = student.consistency();
        StepLoss {
            scalars: vec![
                ("sup", supervised.clone().inner()),
                ("unsup", unsupervised.clone().inner()),
                ("mask_ratio", pseudo.mask.clone().mean()),
            ],
            total: supervised + unsupervised.mul_scalar(self.config.unlabelled_weight),
            pseudo_labels: Some(pseudo),
        }
    }
}
