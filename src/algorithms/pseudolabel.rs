//! Pseudo-Label: what the network is sure of becomes its own target.
//!
//! Lee, ICML 2013 workshop on challenges in representation learning. For unlabelled image `b`, `q_b` are the class
//! probabilities of its only view, with gradient; `U` images a step, `s` the number of the step, `S` steps in all.
//!
//! ```text
//! L_u = mean_b [max q_b ≥ τ] · H(argmax q_b, q_b)
//! L   = L_s + w_u · min(1, s / (r S)) · L_u      the weight grows over the share r of the run (eq. 16)
//! ```
//!
//! The paper has no threshold (`threshold = 0`) and begins its ramp only after some epochs; τ and the ramp from the first
//! step on are the established implementation's. That one also passes labelled and unlabelled images separately; here
//! they share one pass, so that with batch normalisation they share their statistics.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::bounds::{Invalid, Lower::From, Upper::Upto, range};

use super::loss::{masked_cross_entropy, predictions};
use super::{Algorithm, Network, PseudoLabels, SslBatch, StepLoss, Targets, Views, ramp};

/// Hyper-parameters; defaults are those of the established image recipes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PseudoLabelConfig {
    /// τ, in [0, 1]. Established: 0.95.
    pub threshold: f32,
    /// w_u, once the ramp is over. Established: 1.
    pub unlabelled_weight: f32,
    /// r, the share of the run over which w_u grows, in [0, 1]; 0 for none. Established: 0.4.
    pub unsup_warm_up: f32,
}

impl Default for PseudoLabelConfig {
    fn default() -> Self {
        Self { threshold: 0.95, unlabelled_weight: 1.0, unsup_warm_up: 0.4 }
    }
}

impl PseudoLabelConfig {
    /// The threshold must be a probability, the ramp a share of the run, the weight not negative.
    ///
    /// # Errors
    /// The first value that is none of these.
    pub fn check(&self) -> Result<(), Invalid> {
        range("algorithm.pseudolabel.threshold", self.threshold.into(), From(0.0), Upto(1.0))?;
        range("algorithm.pseudolabel.unsup_warm_up", self.unsup_warm_up.into(), From(0.0), Upto(1.0))?;
        let weight = self.unlabelled_weight.into();
        range("algorithm.pseudolabel.unlabelled_weight", weight, From(0.0), Upto(f64::MAX))
    }
}

/// Pseudo-Label keeps no state between steps.
#[derive(Debug)]
pub struct PseudoLabel {
    config: PseudoLabelConfig,
}

impl PseudoLabel {
    /// With the given hyper-parameters.
    pub fn new(config: PseudoLabelConfig) -> Self {
        Self { config }
    }

    /// Pseudo-labels from the logits `[U, C]` of the unlabelled images, off the graph.
    fn pseudo_labels(&self, logits: Tensor<2>) -> PseudoLabels {
        let found = predictions(logits);
        let (mask, threshold) = found.reaching(self.config.threshold);
        PseudoLabels { mask, targets: Targets::Hard(found.label), threshold }
    }
}

impl Algorithm for PseudoLabel {
    fn name(&self) -> &'static str {
        "pseudolabel"
    }

    fn views(&self) -> Views {
        Views { weak: 1, strong: 0 }
    }

    fn step(&mut self, network: &dyn Network, batch: &SslBatch) -> StepLoss {
        let (count, unlabelled) = (batch.labelled.dims()[0], batch.weak[0].dims()[0]);
        let rows: Vec<u64> = batch.labelled_rows().chain(batch.weak_rows(0)).collect();
        let logits =
            network.student(Tensor::cat(vec![batch.labelled.clone(), batch.weak[0].clone()], 0), &rows);
        let labelled = logits.clone().narrow(0, 0, count);
        let weak = logits.narrow(0, count, unlabelled);

        let pseudo = self.pseudo_labels(network.judgement(weak.clone().inner()));
        let supervised = batch.objective.loss(labelled, batch.labels.clone());
        let unsupervised =
            masked_cross_entropy(weak, pseudo.targets.clone(), pseudo.mask.clone(), unlabelled);
        let ramp = ramp::linear(batch, self.config.unsup_warm_up);
        StepLoss::of(supervised, unsupervised, self.config.unlabelled_weight * ramp, pseudo)
            .with_scalar("unsup_warmup", ramp)
    }
}
