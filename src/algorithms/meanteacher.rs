//! Mean Teacher: agree with the average of your own past.
//!
//! Tarvainen and Valpola, NeurIPS 2017, arXiv:1703.01780. `f` is the network, `f̄` the running average of its weights; for
//! unlabelled image `b`, `v_b` and `v_b'` are two weak views. `U` images and `C` classes a step, `s` its number, `S` steps
//! in all.
//!
//! ```text
//! L_u  = mean over b and the C classes of (softmax f(v_b') - softmax f̄(v_b))²                  (sec. 2)
//! ramp = exp(-5 (1 - x)²)  or  x,  x = min(1, s / (r S))
//! L    = L_s + w_u · ramp · L_u
//! f̄    ← λ f̄ + (1-λ) f  after the step
//! ```
//!
//! The average is the run's own, the one that is evaluated and exported: with `training.ema` above 0 that is λ, else
//! `decay` here. The consistency loss is taken over unlabelled images; the paper's takes labelled ones in too, the
//! established implementation does not. Nor does that average weights by default, which leaves `f̄ = f`.

use burn::tensor::Tensor;
use burn::tensor::activation::softmax;
use serde::{Deserialize, Serialize};

use crate::bounds::{Invalid, Lower::From, Upper::Below, Upper::Upto, range};

use super::{
    Algorithm, Network, Problem, PseudoLabels, SslBatch, StepLoss, Views,
    ramp::{self, Ramp},
};

/// Hyper-parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MeanTeacherConfig {
    /// w_u, once the ramp is over. Established: 50; the paper takes 100 over 10 classes.
    pub unlabelled_weight: f32,
    /// r, the share of the run over which w_u grows, in [0, 1]; 0 for none. Established: 0.4.
    pub unsup_warm_up: f32,
    /// How w_u grows: `sigmoid` as in the paper, `linear` as in the established implementation.
    pub ramp: Ramp,
    /// λ, per step, in [0, 1), where `training.ema` is 0. Unset, it follows the number of steps ([`Problem::decay`]): the
    /// paper's 0.999 from 50,000 steps on, less in shorter runs.
    pub decay: Option<f32>,
    /// Show the student a strong view in place of the second weak one. Paper: false.
    pub strong_student: bool,
}

impl Default for MeanTeacherConfig {
    fn default() -> Self {
        Self {
            unlabelled_weight: 50.0,
            unsup_warm_up: 0.4,
            ramp: Ramp::Sigmoid,
            decay: None,
            strong_student: false,
        }
    }
}

impl MeanTeacherConfig {
    /// A weight not negative, the ramp a share of the run, λ below 1.
    ///
    /// # Errors
    /// The first value that is none of these.
    pub fn check(&self) -> Result<(), Invalid> {
        range("algorithm.meanteacher.unsup_warm_up", self.unsup_warm_up.into(), From(0.0), Upto(1.0))?;
        if let Some(decay) = self.decay {
            range("algorithm.meanteacher.decay", decay.into(), From(0.0), Below(1.0))?;
        }
        let weight = self.unlabelled_weight.into();
        range("algorithm.meanteacher.unlabelled_weight", weight, From(0.0), Upto(f64::MAX))
    }
}

/// Mean Teacher keeps no state of its own: the average belongs to the run.
#[derive(Debug)]
pub struct MeanTeacher {
    config: MeanTeacherConfig,
    decay: f32,
}

impl MeanTeacher {
    /// With the given hyper-parameters.
    pub fn new(config: MeanTeacherConfig, problem: &Problem) -> Self {
        let decay = config.decay.unwrap_or_else(|| problem.decay());
        Self { config, decay }
    }
}

impl Algorithm for MeanTeacher {
    fn name(&self) -> &'static str {
        "meanteacher"
    }

    fn views(&self) -> Views {
        match self.config.strong_student {
            true => Views { weak: 1, strong: 1 },
            false => Views { weak: 2, strong: 0 },
        }
    }

    fn average_decay(&self) -> Option<f32> {
        Some(self.decay)
    }

    fn step(&mut self, network: &dyn Network, batch: &SslBatch) -> StepLoss {
        let teacher = network.average(batch.weak[0].clone(), &batch.weak_rows(0).collect::<Vec<_>>());
        let believed = softmax(teacher, 1);
        let (view, numbers) = match self.config.strong_student {
            true => (&batch.strong[0], batch.strong_rows(0)),
            false => (&batch.weak[1], batch.weak_rows(1)),
        };
        let rows: Vec<u64> = batch.labelled_rows().chain(numbers).collect();
        let logits = network.student(Tensor::cat(vec![batch.labelled.clone(), view.clone()], 0), &rows);
        let (count, unlabelled) = (batch.labelled.dims()[0], view.dims()[0]);
        let supervised = batch.objective.loss(logits.clone().narrow(0, 0, count), batch.labels.clone());
        let said = softmax(logits.narrow(0, count, unlabelled), 1);
        let unsupervised = (said - Tensor::from_inner(believed.clone())).powi_scalar(2).mean();

        let ramp = ramp::of(self.config.ramp, batch, self.config.unsup_warm_up);
        let pseudo = PseudoLabels::of_all(believed);
        StepLoss::of(supervised, unsupervised, self.config.unlabelled_weight * ramp, pseudo)
            .with_scalar("unsup_warmup", ramp)
    }
}
