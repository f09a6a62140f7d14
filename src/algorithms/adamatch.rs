//! AdaMatch: pseudo-labels follow the labelled images, in how sure and in how frequent each class is.
//!
//! Berthelot et al., ICLR 2022, arXiv:2106.04732. For unlabelled image `b`, `q_b` and `Q_b` are the class probabilities of
//! its weak and its strong view; `p_i` those of labelled image `i`; `U` unlabelled images a step.
//!
//! ```text
//! q̃_b = align(q_b)                               towards the mean labelled prediction, see [`super::alignment`] (sec. 3.2)
//! c_τ = τ · mean_i max p_i                       relative threshold                                      (sec. 3.3)
//! L_u = mean_b [max q̃_b ≥ c_τ] · H(target_b, Q_b)     target_b = argmax q̃_b, or q̃_b with soft labels
//! L   = L_s + w_u L_u
//! ```
//!
//! As in the established implementation for semi-supervised learning: both means of the alignment move before it is
//! applied, by a decaying average (the paper takes the quotient of the present batch); the target starts uniform; only weak
//! views of labelled images are trained on, without the paper's interpolation of logits, and `w_u` is constant; soft
//! labels are `q̃_b` as it is.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::bounds::{Invalid, Lower::From, Upper::Below, Upper::Upto, range};

use super::alignment::Alignment;
use super::loss::{Predictions, predictions};
use super::student::Student;
use super::{Algorithm, Network, Problem, PseudoLabels, SslBatch, State, StateError, StepLoss, Targets};

/// Hyper-parameters; defaults are those of the established image recipes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdaMatchConfig {
    /// τ, relative to the mean confidence of labelled images, in [0, 1]. The paper's 0.9 is for domain adaptation; the
    /// established recipes use 0.95.
    pub threshold: f32,
    /// λ of the alignment, per step, in [0, 1). Unset, it follows the number of steps ([`Problem::decay`]): the
    /// established 0.999 from 50,000 steps on, less in shorter runs.
    pub decay: Option<f32>,
    /// w_u. Established: 1.
    pub unlabelled_weight: f32,
    /// Train towards one class (true) or the whole aligned distribution (false).
    pub hard_labels: bool,
}

impl Default for AdaMatchConfig {
    fn default() -> Self {
        Self { threshold: 0.95, decay: None, unlabelled_weight: 1.0, hard_labels: true }
    }
}

impl AdaMatchConfig {
    /// The threshold must be a probability, λ below 1, the weight not negative.
    ///
    /// # Errors
    /// The first value that is none of these.
    pub fn check(&self) -> Result<(), Invalid> {
        range("algorithm.adamatch.threshold", self.threshold.into(), From(0.0), Upto(1.0))?;
        if let Some(decay) = self.decay {
            range("algorithm.adamatch.decay", decay.into(), From(0.0), Below(1.0))?;
        }
        let weight = self.unlabelled_weight.into();
        range("algorithm.adamatch.unlabelled_weight", weight, From(0.0), Upto(f64::MAX))
    }
}

/// AdaMatch and the means it aligns by.
#[derive(Debug)]
pub struct AdaMatch {
    config: AdaMatchConfig,
    alignment: Alignment,
}

impl AdaMatch {
    /// Before the first step: nothing observed, uniform target.
    pub fn new(config: AdaMatchConfig, problem: &Problem) -> Self {
        let decay = config.decay.unwrap_or_else(|| problem.decay());
        let device = problem.device.clone().inner();
        Self { config, alignment: Alignment::uniform(decay, problem.classes, &device) }
    }

    /// Moves the means, then makes pseudo-labels, from labelled `[B, C]` and weak `[U, C]` logits.
    fn pseudo_labels(&mut self, network: &dyn Network, labelled: Tensor<2>, weak: Tensor<2>) -> PseudoLabels {
        let probabilities = predictions(weak).probabilities;
        let labelled = Predictions::of(network.ranks().gather(predictions(labelled).probabilities));
        self.alignment.observe(network.ranks().gather(probabilities.clone()));
        self.alignment.follow(labelled.probabilities);

        let aligned = Predictions::of(self.alignment.align(probabilities));
        let (mask, threshold) =
            aligned.reaching(labelled.confidence.mean().mul_scalar(self.config.threshold));
        let targets = match self.config.hard_labels {
            true => Targets::Hard(aligned.label),
            false => Targets::Soft(aligned.probabilities),
        };
        PseudoLabels { mask, targets, threshold }
    }
}

impl Algorithm for AdaMatch {
    fn name(&self) -> &'static str {
        "adamatch"
    }

    fn step(&mut self, network: &dyn Network, batch: &SslBatch) -> StepLoss {
        let weak = batch.teach(network);
        let (student, pseudo) = Student::pass_after_labelled(network, batch, |labelled| {
            self.pseudo_labels(network, labelled, weak)
        });
        let supervised = batch.objective.loss(student.labelled.clone(), batch.labels.clone());
        StepLoss::of(supervised, student.consistency(), self.config.unlabelled_weight, pseudo)
    }

    fn state(&self) -> State {
        self.alignment.state()
    }

    fn restore(&mut self, state: State) -> Result<(), StateError> {
        self.alignment.restore(state, self.name())
    }
}
