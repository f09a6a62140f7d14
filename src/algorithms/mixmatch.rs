//! MixMatch: guessed labels and real ones, blended.
//!
//! Berthelot et al., NeurIPS 2019, arXiv:1905.02249. For unlabelled image `b`, `q_b¹` and `q_b²` are the class
//! probabilities of two weak views; `B` labelled and `U` unlabelled images a step, `s` its number, `S` steps in all.
//!
//! ```text
//! p_b ∝ ((q_b¹ + q_b²) / 2)^(1/T)                            guessed label, sharpened          (eq. 6, 7)
//! X   = labelled, first and second views; Y = their one-hot labels, p, p
//! λ'  = max(λ, 1-λ), λ ~ Beta(α, α)
//! X'  = λ' X + (1-λ') X[permuted],  Y' likewise                                              (eq. 8 to 15)
//! L_s = mean over the first B rows of H(Y', f(X'))                                           (eq. 3)
//! L_u = mean over the other 2U rows and the C classes of (Y' - f(X'))²                       (eq. 4)
//! L   = L_s + w_u · min(1, s / (r S)) · L_u                                                  (eq. 5)
//! ```
//!
//! As in the established implementation there is one λ a step, not one a row, and labelled rows come before both views.
//! That implementation passes the blended rows in chunks, so that with batch normalisation only the first chunk moves the
//! running statistics; here all rows share one pass and one set of statistics. Partners are drawn among the rows of all ranks.

use burn::tensor::Tensor;
use burn::tensor::activation::softmax;
use serde::{Deserialize, Serialize};

use crate::bounds::{Invalid, Lower::Above, Lower::From, Upper::Upto, range};

use super::loss::sharpen;
use super::mixup::{DrawMix, Mix};
use super::{Algorithm, Network, Problem, PseudoLabels, SslBatch, StepLoss, Targets, Views, ramp};

/// Hyper-parameters; defaults are those of the established image recipes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MixMatchConfig {
    /// T, above 0; below 1 it sharpens guessed labels. Paper: 0.5.
    pub temperature: f32,
    /// α of the blend's Beta distribution, above 0. Established: 0.5; the paper takes 0.75 on most sets.
    pub alpha: f32,
    /// w_u, once the ramp is over. Established: 10; the paper takes 75 on CIFAR-10.
    pub unlabelled_weight: f32,
    /// r, the share of the run over which w_u grows, in [0, 1]; 0 for none. Established: 0.4.
    pub unsup_warm_up: f32,
}

impl Default for MixMatchConfig {
    fn default() -> Self {
        Self { temperature: 0.5, alpha: 0.5, unlabelled_weight: 10.0, unsup_warm_up: 0.4 }
    }
}

impl MixMatchConfig {
    /// A temperature and an α above 0, a weight not negative, the ramp a share of the run.
    ///
    /// # Errors
    /// The first value that is none of these.
    pub fn check(&self) -> Result<(), Invalid> {
        range("algorithm.mixmatch.temperature", self.temperature.into(), Above(0.0), Upto(f64::MAX))?;
        range("algorithm.mixmatch.alpha", self.alpha.into(), Above(0.0), Upto(f64::MAX))?;
        range("algorithm.mixmatch.unsup_warm_up", self.unsup_warm_up.into(), From(0.0), Upto(1.0))?;
        let weight = self.unlabelled_weight.into();
        range("algorithm.mixmatch.unlabelled_weight", weight, From(0.0), Upto(f64::MAX))
    }
}

/// MixMatch keeps no state between steps: its blends follow from seed and step.
pub struct MixMatch {
    config: MixMatchConfig,
    draw: DrawMix,
}

impl MixMatch {
    /// With blends drawn by the seed of the run.
    pub fn new(config: MixMatchConfig, problem: &Problem) -> Self {
        let draw = Mix::by_seed(problem.seed, config.alpha);
        Self::with_draw(config, draw)
    }

    /// With blends of one's own.
    pub fn with_draw(config: MixMatchConfig, draw: DrawMix) -> Self {
        Self { config, draw }
    }

    /// The guessed labels: `[U, C]`, off the graph.
    fn guess(&self, network: &dyn Network, batch: &SslBatch) -> Tensor<2> {
        let count = batch.indices.len();
        let rows: Vec<u64> = batch.weak_rows(0).chain(batch.weak_rows(1)).collect();
        let both = softmax(network.teacher(Tensor::cat(batch.weak.clone(), 0), &rows), 1);
        let mean = (both.clone().narrow(0, 0, count) + both.narrow(0, count, count)).div_scalar(2.0);
        sharpen(mean, self.config.temperature)
    }
}

impl Algorithm for MixMatch {
    fn name(&self) -> &'static str {
        "mixmatch"
    }

    fn views(&self) -> Views {
        Views { weak: 2, strong: 0 }
    }

    fn step(&mut self, network: &dyn Network, batch: &SslBatch) -> StepLoss {
        let guessed = self.guess(network, batch);
        let [unlabelled, classes] = guessed.dims();
        let labelled = batch.labelled.dims()[0];
        let known = batch.labels.clone().inner().one_hot::<2>(classes).float();

        let places = batch.places;
        let mix = (self.draw)(batch.step, places.labelled.of + 2 * places.unlabelled.of);
        let ranks = network.ranks();
        let [first, second] = [0, 1].map(|view| (batch.weak[view].clone(), places.unlabelled));
        let images = mix.apply(vec![(batch.labelled.clone(), places.labelled), first, second], ranks);
        let guesses = || (guessed.clone(), places.unlabelled);
        let targets = mix.apply(vec![(known, places.labelled), guesses(), guesses()], ranks);
        let targets = Tensor::from_inner(targets);

        let rows: Vec<u64> =
            batch.labelled_rows().chain(batch.weak_rows(0)).chain(batch.weak_rows(1)).collect();
        let logits = network.student(images, &rows);
        let part = |all: &Tensor<2>, start, length| all.clone().narrow(0, start, length);
        let supervised =
            batch.objective.mean(part(&logits, 0, labelled), Targets::Soft(part(&targets, 0, labelled)));
        let predicted = softmax(part(&logits, labelled, 2 * unlabelled), 1);
        let unsupervised = (predicted - part(&targets, labelled, 2 * unlabelled)).powi_scalar(2).mean();

        let ramp = ramp::linear(batch, self.config.unsup_warm_up);
        let pseudo = PseudoLabels::of_all(guessed);
        StepLoss::of(supervised, unsupervised, self.config.unlabelled_weight * ramp, pseudo)
            .with_scalar("unsup_warmup", ramp)
    }
}
