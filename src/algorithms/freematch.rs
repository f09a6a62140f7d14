//! FreeMatch: the confidence threshold follows the model's own confidence.
//!
//! Wang et al., ICLR 2023, arXiv:2205.07246. For unlabelled image `b`, `q_b` and `Q_b` are the class probabilities of
//! its weak and its strong view; `U` images a step, `C` classes, `λ` the decay.
//!
//! ```text
//! τ    ← λ τ + (1-λ) mean_b max q_b              global threshold, starts at 1/C           (eq. 5)
//! p̃    ← λ p̃ + (1-λ) mean_b q_b                  class expectation, starts at 1/C          (eq. 6)
//! h̃    ← λ h̃ + (1-λ) hist_b(argmax q_b)          histogram of pseudo-labels, starts at 1/C (eq. 10)
//! τ(c) = τ · p̃(c) / max p̃                        class threshold                           (eq. 7)
//! L_u  = mean_b [max q_b ≥ τ(argmax q_b)] · H(argmax q_b, Q_b)                             (eq. 8)
//! L    = L_s + w_u L_u + w_f L_f                 L_f: class fairness, see [`fairness_loss`] (eq. 11)
//! ```
//!
//! All three averages move before the mask is taken. `L_u` averages over all `U` rows, dropped ones included.

use burn::tensor::Tensor;
use burn::tensor::activation::softmax;
use serde::{Deserialize, Serialize};

use crate::bounds::{Invalid, Lower::Above, Lower::From, Upper::Below, Upper::Upto, range};

use super::loss::{Predictions, class_counts, histogram, predictions, shares};
use super::student::{Strong, Student};
use super::{
    Algorithm, Network, Problem, PseudoLabels, SslBatch, State, StateError, StepLoss, Targets, joined_sum,
    nothing_left, take_vector,
};

/// Quantile of the confidences that stands in for their mean with [`FreeMatchConfig::use_quantile`].
const QUANTILE: f64 = 0.8;
/// Upper limit of τ with [`FreeMatchConfig::clip_threshold`].
const LARGEST_THRESHOLD: f32 = 0.95;

/// Hyper-parameters; defaults are those of the published image experiments.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FreeMatchConfig {
    /// λ, per step, in [0, 1). Unset, it follows the number of steps ([`Problem::decay`]): the paper's 0.999 from 50,000
    /// steps on, less in shorter runs.
    pub decay: Option<f32>,
    /// w_u. Paper: 1.
    pub unlabelled_weight: f32,
    /// w_f. The established recipes use 0.001 throughout; the paper searches 0.001 to 0.05.
    pub fairness_weight: f32,
    /// Train towards one class (true) or the distribution softmax(logits / `temperature`) (false).
    pub hard_labels: bool,
    /// Sharpens soft labels; has no effect on hard ones.
    pub temperature: f32,
    /// Let τ follow the 0.8 quantile of the confidences instead of their mean.
    pub use_quantile: bool,
    /// Keep τ at or below 0.95.
    pub clip_threshold: bool,
}

impl Default for FreeMatchConfig {
    fn default() -> Self {
        Self {
            decay: None,
            unlabelled_weight: 1.0,
            fairness_weight: 0.001,
            hard_labels: true,
            temperature: 0.5,
            use_quantile: false,
            clip_threshold: false,
        }
    }
}

impl FreeMatchConfig {
    /// λ below 1, weights not negative, a temperature above 0.
    ///
    /// # Errors
    /// The first value that is not.
    pub fn check(&self) -> Result<(), Invalid> {
        if let Some(decay) = self.decay {
            range("algorithm.freematch.decay", decay.into(), From(0.0), Below(1.0))?;
        }
        range("algorithm.freematch.temperature", self.temperature.into(), Above(0.0), Upto(f64::MAX))?;
        [
            ("algorithm.freematch.unlabelled_weight", self.unlabelled_weight),
            ("algorithm.freematch.fairness_weight", self.fairness_weight),
        ]
        .into_iter()
        .try_for_each(|(key, weight)| range(key, weight.into(), From(0.0), Upto(f64::MAX)))
    }
}

/// FreeMatch and the averages it keeps.
#[derive(Debug)]
pub struct FreeMatch {
    config: FreeMatchConfig,
    /// λ.
    decay: f32,
    /// τ: `[1]`.
    global_threshold: Tensor<1>,
    /// p̃: `[C]`.
    class_expectation: Tensor<1>,
    /// h̃: `[C]`.
    label_histogram: Tensor<1>,
}

impl FreeMatch {
    /// Before the first step; the averages live on the problem's device.
    pub fn new(config: FreeMatchConfig, problem: &Problem) -> Self {
        let classes = problem.classes;
        let uniform = 1.0 / classes as f32;
        let device = &problem.device.clone().inner();
        Self {
            decay: config.decay.unwrap_or_else(|| problem.decay()),
            config,
            global_threshold: Tensor::full([1], uniform, device),
            class_expectation: Tensor::full([classes], uniform, device),
            label_histogram: Tensor::full([classes], uniform, device),
        }
    }

    fn classes(&self) -> usize {
        self.class_expectation.dims()[0]
    }

    /// Moves the three averages by the weak predictions of a step, those of all ranks.
    fn update(&mut self, weak: &Predictions) {
        let decay = self.decay;
        let average =
            |old: &Tensor<1>, new: Tensor<1>| old.clone().mul_scalar(decay) + new.mul_scalar(1.0 - decay);
        let confidence = weak.confidence.clone();
        let rows = histogram(weak.label.clone(), confidence.ones_like(), self.classes());
        let level = if self.config.use_quantile { quantile(confidence, QUANTILE) } else { confidence.mean() };
        self.global_threshold = average(&self.global_threshold, level);
        if self.config.clip_threshold {
            self.global_threshold = self.global_threshold.clone().clamp(0.0, LARGEST_THRESHOLD);
        }
        self.class_expectation = average(&self.class_expectation, weak.mean());
        self.label_histogram = average(&self.label_histogram, rows);
    }

    /// Pseudo-labels from weak logits `[U, C]`, and what they predict, under the present thresholds.
    fn pseudo_labels(&self, logits: Tensor<2>, weak: Predictions) -> PseudoLabels {
        let relative = self.class_expectation.clone() / self.class_expectation.clone().max();
        let (mask, threshold) = weak.reaching(self.global_threshold.clone() * relative);
        let targets = match self.config.hard_labels {
            true => Targets::Hard(weak.label),
            false => Targets::Soft(softmax(logits.div_scalar(self.config.temperature), 1)),
        };
        PseudoLabels { mask, targets, threshold }
    }

    /// Class fairness: the strong predictions should be spread over the classes as the pseudo-labels are (eq. 9, 10).
    ///
    /// With `P` = p̃ / h̃ and `S` = mean strong probability / histogram of strong predictions, both over the kept rows
    /// and scaled to sum 1, the term is `Σ_c P_c log(S_c + 1e-12)`: a negative cross-entropy, added with a positive
    /// weight. Gradient flows through the mean probability only. A class absent from a histogram counts 0 in its
    /// quotient. Without any kept row the term is 0. Sums, counts and histogram are those of all ranks.
    fn fairness_loss(&self, network: &dyn Network, student: &Student) -> Tensor<1> {
        let classes = self.classes();
        let (sum, predicted) = match &student.strong {
            Some(Strong { logits, mask, .. }) => {
                let probabilities = softmax(logits.clone(), 1);
                let kept = mask.clone().greater_scalar(0.0).float();
                let label = Predictions::of(probabilities.clone()).label;
                let predicted = class_counts(label, kept.clone(), classes);
                let [rows] = kept.dims();
                let kept = Tensor::from_inner(kept.reshape([rows, 1]));
                ((probabilities * kept).sum_dim(0).squeeze_dim::<1>(0), predicted)
            }
            // Other ranks may have kept rows, and wait for this one's share.
            None => {
                let device = student.labelled.device();
                (Tensor::zeros([classes], &device), Tensor::zeros([classes], &device.inner()))
            }
        };
        let sum = joined_sum(network.ranks(), sum);
        let predicted = network.ranks().gather(predicted.unsqueeze_dim(0)).sum_dim(0).squeeze_dim::<1>(0);
        let count = predicted.clone().sum();
        let none = count.clone().equal_scalar(0.0).float();
        let mean = sum / (count + none.clone());

        let expected = self.class_expectation.clone() * reciprocal_or_zero(self.label_histogram.clone());
        let expected = expected.clone() / expected.sum();
        let found = mean * reciprocal_or_zero(shares(predicted));
        let found = found.clone() / (found.sum() + none.clone());
        (expected * found.add_scalar(1e-12).log()).sum() * (none.neg().add_scalar(1.0))
    }
}

impl Algorithm for FreeMatch {
    fn name(&self) -> &'static str {
        "freematch"
    }

    fn step(&mut self, network: &dyn Network, batch: &SslBatch) -> StepLoss {
        let logits = batch.teach(network);
        let weak = predictions(logits.clone());
        self.update(&Predictions::of(network.ranks().gather(weak.probabilities.clone())));
        let pseudo = self.pseudo_labels(logits, weak);

        let student = Student::pass(network, batch, &pseudo);
        let supervised = batch.objective.loss(student.labelled.clone(), batch.labels.clone());
        let unsupervised = student.consistency();
        let fairness = self.fairness_loss(network, &student);
        StepLoss {
            scalars: vec![
                ("sup", supervised.clone().inner()),
                ("unsup", unsupervised.clone().inner()),
                ("fairness", fairness.clone().inner()),
                ("mask_ratio", pseudo.mask.clone().mean()),
                ("threshold", self.global_threshold.clone()),
            ],
            total: supervised
                + unsupervised.mul_scalar(self.config.unlabelled_weight)
                + fairness.mul_scalar(self.config.fairness_weight),
            pseudo_labels: Some(pseudo),
        }
    }

    fn state(&self) -> State {
        State::from([
            ("global_threshold".to_owned(), self.global_threshold.to_data()),
            ("class_expectation".to_owned(), self.class_expectation.to_data()),
            ("label_histogram".to_owned(), self.label_histogram.to_data()),
        ])
    }

    fn restore(&mut self, mut state: State) -> Result<(), StateError> {
        let (name, classes, device) = (self.name(), self.classes(), self.class_expectation.device());
        let global = take_vector(&mut state, name, "global_threshold", 1, &device)?;
        let expectation = take_vector(&mut state, name, "class_expectation", classes, &device)?;
        let labels = take_vector(&mut state, name, "label_histogram", classes, &device)?;
        nothing_left(state, name)?;
        (self.global_threshold, self.class_expectation, self.label_histogram) = (global, expectation, labels);
        Ok(())
    }
}

/// `1 / x`, and 0 where `x` is 0.
fn reciprocal_or_zero(x: Tensor<1>) -> Tensor<1> {
    let zero = x.clone().equal_scalar(0.0);
    (x + zero.clone().float()).recip() * zero.bool_not().float()
}

/// The `q` quantile of `x` `[N]` by linear interpolation between neighbours in order: `[1]`.
fn quantile(x: Tensor<1>, q: f64) -> Tensor<1> {
    let [count] = x.dims();
    let position = q * (count - 1) as f64;
    let (below, weight) = (position.floor() as usize, position.fract() as f32);
    let sorted = x.sort(0);
    let low = sorted.clone().narrow(0, below, 1);
    let high = sorted.narrow(0, (below + 1).min(count - 1), 1);
    low.clone() + (high - low).mul_scalar(weight)
}
