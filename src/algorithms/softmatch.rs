//! SoftMatch: every pseudo-label counts, the less the further its confidence lies below the average.
//!
//! Chen et al., ICLR 2023, arXiv:2301.10921. For unlabelled image `b`, `q_b` and `Q_b` are the class probabilities of
//! its weak and its strong view; `U` images a step, `λ` the decay.
//!
//! ```text
//! q̃_b = align(q_b)                                see [`super::alignment`]              (eq. 9)
//! μ   ← λ μ  + (1-λ) mean_b max q̃_b               starts at 1/C                         (eq. 7, 8)
//! σ²  ← λ σ² + (1-λ) var_b max q̃_b                unbiased, starts at 1                 (eq. 7, 8)
//! w_b = exp(-min(max q̃_b - μ, 0)² / (2 σ² / n²))  truncated Gaussian; 1 from μ on       (eq. 5)
//! L_u = mean_b w_b · H(target_b, Q_b)             target_b = argmax q_b, not aligned
//! L   = L_s + w_u L_u
//! ```
//!
//! The paper aligns towards a uniform distribution (`target = "uniform"`) and reads `n` as 2, "two sigma". The
//! established implementation also aligns towards the mean labelled prediction (`target = "labelled"`). As there, all
//! averages move before weights are computed, and alignment concerns weights only. Soft labels are
//! softmax(logits / temperature). A single image a step has no variance: 0 is averaged in.

use burn::tensor::Tensor;
use burn::tensor::activation::softmax;
use serde::{Deserialize, Serialize};

use crate::bounds::{Invalid, Lower::Above, Lower::From, Upper::Below, Upper::Upto, range};

use super::alignment::Alignment;
use super::loss::{Predictions, predictions};
use super::student::Student;
use super::{
    Algorithm, Network, Problem, PseudoLabels, SslBatch, State, StateError, StepLoss, Targets, nothing_left,
    take_vector,
};

/// σ² counts as this at least: predictions that are all equal for long must not divide 0 by 0. The width of 1e-6 is ten
/// times the rounding of a confidence.
const LEAST_VARIANCE: f32 = 1e-12;

/// How frequent the classes are taken to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SoftMatchTarget {
    /// All equally: the paper's uniform alignment.
    Uniform,
    /// As the model predicts for labelled images, averaged over steps.
    Labelled,
}

/// Hyper-parameters; defaults are the paper's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SoftMatchConfig {
    /// What predictions are aligned towards. Paper: uniform.
    pub target: SoftMatchTarget,
    /// λ of all averages, per step, in [0, 1). Unset, it follows the number of steps ([`Problem::decay`]): the paper's
    /// 0.999 from 50,000 steps on, less in shorter runs.
    pub decay: Option<f32>,
    /// n: weights fall off with σ / n. Above 0. Paper: 2.
    pub n_sigma: f32,
    /// w_u. Paper: 1.
    pub unlabelled_weight: f32,
    /// Train towards one class (true) or the distribution softmax(logits / `temperature`) (false). Paper: true.
    pub hard_labels: bool,
    /// Sharpens soft labels; has no effect on hard ones. Above 0.
    pub temperature: f32,
}

impl Default for SoftMatchConfig {
    fn default() -> Self {
        Self {
            target: SoftMatchTarget::Uniform,
            decay: None,
            n_sigma: 2.0,
            unlabelled_weight: 1.0,
            hard_labels: true,
            temperature: 0.5,
        }
    }
}

impl SoftMatchConfig {
    /// λ below 1, n and the temperature above 0, the weight not negative.
    ///
    /// # Errors
    /// The first value that is none of these.
    pub fn check(&self) -> Result<(), Invalid> {
        if let Some(decay) = self.decay {
            range("algorithm.softmatch.decay", decay.into(), From(0.0), Below(1.0))?;
        }
        range("algorithm.softmatch.n_sigma", self.n_sigma.into(), Above(0.0), Upto(f64::MAX))?;
        range("algorithm.softmatch.temperature", self.temperature.into(), Above(0.0), Upto(f64::MAX))?;
        let weight = self.unlabelled_weight.into();
        range("algorithm.softmatch.unlabelled_weight", weight, From(0.0), Upto(f64::MAX))
    }
}

/// SoftMatch and the averages it keeps.
#[derive(Debug)]
pub struct SoftMatch {
    config: SoftMatchConfig,
    /// λ.
    decay: f32,
    alignment: Alignment,
    /// μ: `[1]`.
    mean: Tensor<1>,
    /// σ²: `[1]`.
    variance: Tensor<1>,
}

impl SoftMatch {
    /// Before the first step; the averages live on the problem's device.
    pub fn new(config: SoftMatchConfig, problem: &Problem) -> Self {
        let decay = config.decay.unwrap_or_else(|| problem.decay());
        let device = &problem.device.clone().inner();
        Self {
            config,
            decay,
            alignment: Alignment::uniform(decay, problem.classes, device),
            mean: Tensor::full([1], 1.0 / problem.classes as f32, device),
            variance: Tensor::ones([1], device),
        }
    }

    /// Moves all averages, then makes pseudo-labels, from weak logits `[U, C]` and, where the target follows them,
    /// labelled ones `[B, C]`.
    fn pseudo_labels(
        &mut self,
        network: &dyn Network,
        labelled: Option<Tensor<2>>,
        weak: Tensor<2>,
    ) -> PseudoLabels {
        let Predictions { probabilities, label, .. } = predictions(weak.clone());
        let everywhere = network.ranks().gather(probabilities.clone());
        self.alignment.observe(everywhere.clone());
        if let Some(labelled) = labelled {
            self.alignment.follow(network.ranks().gather(softmax(labelled, 1)));
        }
        self.average(Predictions::of(self.alignment.align(everywhere)).confidence);

        let aligned = Predictions::of(self.alignment.align(probabilities)).confidence;
        PseudoLabels {
            mask: self.weights(aligned.clone()),
            targets: match self.config.hard_labels {
                true => Targets::Hard(label),
                false => Targets::Soft(softmax(weak.div_scalar(self.config.temperature), 1)),
            },
            threshold: self.mean.clone().expand(aligned.dims()),
        }
    }

    /// Moves μ and σ² by the aligned confidences `[N]` of all ranks.
    fn average(&mut self, confidence: Tensor<1>) {
        let [rows] = confidence.dims();
        let average = |old: &Tensor<1>, new: Tensor<1>| {
            old.clone().mul_scalar(self.decay) + new.mul_scalar(1.0 - self.decay)
        };
        let mean = confidence.clone().mean();
        let squares = (confidence - mean.clone()).square().sum();
        let variance = squares.div_scalar(rows.saturating_sub(1).max(1) as f32);
        (self.mean, self.variance) = (average(&self.mean, mean), average(&self.variance, variance));
    }

    /// Weights in (0, 1] from aligned confidences `[U]`.
    fn weights(&self, confidence: Tensor<1>) -> Tensor<1> {
        let below = (confidence - self.mean.clone()).clamp_max(0.0);
        let width = self.variance.clone().clamp_min(LEAST_VARIANCE);
        let width = width.mul_scalar(2.0 / (self.config.n_sigma * self.config.n_sigma));
        (below.square() / width).neg().exp()
    }
}

impl Algorithm for SoftMatch {
    fn name(&self) -> &'static str {
        "softmatch"
    }

    fn step(&mut self, network: &dyn Network, batch: &SslBatch) -> StepLoss {
        let weak = batch.teach(network);
        let (student, pseudo) = match self.config.target {
            SoftMatchTarget::Uniform => {
                let pseudo = self.pseudo_labels(network, None, weak);
                (Student::pass(network, batch, &pseudo), pseudo)
            }
            SoftMatchTarget::Labelled => Student::pass_after_labelled(network, batch, |labelled| {
                self.pseudo_labels(network, Some(labelled), weak)
            }),
        };
        let supervised = batch.objective.loss(student.labelled.clone(), batch.labels.clone());
        StepLoss::of(supervised, student.consistency(), self.config.unlabelled_weight, pseudo)
    }

    fn state(&self) -> State {
        let mut state = State::from([
            ("confidence_mean".to_owned(), self.mean.to_data()),
            ("confidence_variance".to_owned(), self.variance.to_data()),
        ]);
        self.alignment.save(&mut state);
        state
    }

    fn restore(&mut self, mut state: State) -> Result<(), StateError> {
        let (name, device) = (self.name(), self.mean.device());
        let mean = take_vector(&mut state, name, "confidence_mean", 1, &device)?;
        let variance = take_vector(&mut state, name, "confidence_variance", 1, &device)?;
        let alignment = self.alignment.restored(&mut state, name)?;
        nothing_left(state, name)?;
        (self.mean, self.variance, self.alignment) = (mean, variance, alignment);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn predictions_that_are_all_alike_divide_nothing_by_zero() {
        let device = Device::flex();
        let config = SoftMatchConfig { decay: Some(0.0), ..Default::default() };
        let mut algorithm = SoftMatch::new(config, &Problem::bare(3, 8, 10, &device));
        // Without decay the averages are those of the last step: a mean of 0.7, a variance of 0.
        algorithm.average(Tensor::full([4], 0.7, &device));
        let confidence = Tensor::from_data([0.7, 0.9, 0.7 - 1e-6, 0.3], &device);
        let weights: Vec<f32> = algorithm.weights(confidence).into_data().iter::<f32>().collect();
        assert!(weights.iter().all(|weight| (0.0..=1.0).contains(weight)), "{weights:?}");
        assert!(weights[0] > 0.9 && weights[1] == 1.0 && weights[3] == 0.0, "{weights:?}");
    }
}
