//! What a run is made of, before its first step.

use burn::tensor::{Device, Tensor};
use harvest_models::ClassifierConfig;

use super::scope::{self, ScopeError};
use crate::algorithms::{Algorithm, AlgorithmBuilder, Aligned, Objective, Problem};
use crate::augment::Normalisation;
use crate::config::{AlignmentTarget, Config, DistributionConfig, Precision, TrainingConfig};
use crate::data::Split;

/// What [`Session::new`] builds from.
#[derive(Debug, Clone)]
pub struct Setup<'a> {
    /// The network.
    pub model: &'a ClassifierConfig,
    /// The algorithm.
    pub algorithm: &'a dyn AlgorithmBuilder,
    /// Everything about optimisation.
    pub training: &'a TrainingConfig,
    /// How ranks share a step.
    pub distribution: DistributionConfig,
    /// What views are scaled with.
    pub normalisation: &'a Normalisation,
    /// Classes, images, steps; its device is where the run computes, without autodiff.
    pub problem: Problem,
    /// What labelled images are trained towards.
    pub objective: Objective,
    /// What the predictions that pseudo-labels are made from are aligned to.
    pub alignment: AlignmentTarget,
}

impl<'a> Setup<'a> {
    /// As `config` asks, for these images: `labels` holds the class of every image where known, `device` is without
    /// autodiff.
    pub fn of(
        config: &'a Config,
        algorithm: &'a dyn AlgorithmBuilder,
        model: &'a ClassifierConfig,
        labels: &[Option<u16>],
        split: &Split,
        device: &Device,
    ) -> Self {
        let problem = problem(config, model.classes(), labels, split, device);
        let wanted = &config.labels;
        let objective =
            Objective::new(wanted.smoothing, wanted.ordinal_width, wanted.logit_adjustment, &problem);
        Self {
            model,
            algorithm,
            training: &config.training,
            distribution: config.distribution.clone(),
            normalisation: &config.views.normalisation,
            problem,
            objective,
            alignment: wanted.alignment,
        }
    }

    /// Refuses settings of what moves that do not fit the network or the length of the run.
    ///
    /// # Errors
    /// In words, with what can be done.
    pub fn check(&self) -> Result<(), ScopeError> {
        scope::check(self.training, self.model, self.problem.total_steps)
    }

    /// Identifies network, classes, tuning and algorithm in checkpoints.
    pub fn kind(&self) -> String {
        let model = serde_json::to_string(self.model).expect("a network's configuration is plain data");
        let tuning = scope::added(self.training).map_or_else(String::new, |tuning| format!(", {tuning:?}"));
        format!("{} with {model}{tuning}", self.algorithm.name())
    }

    pub(super) fn build_algorithm(&self) -> Box<dyn Algorithm> {
        let (algorithm, problem) = (self.algorithm.build(&self.problem), &self.problem);
        let target = match self.alignment {
            AlignmentTarget::Off => return algorithm,
            AlignmentTarget::Uniform => {
                let device = problem.device.clone().inner();
                Tensor::full([problem.classes], 1.0 / problem.classes as f32, &device)
            }
            AlignmentTarget::Labelled => problem.class_frequencies(),
        };
        Box::new(Aligned::new(algorithm, problem.decay(), target))
    }

    pub(super) fn precision(&self) -> harvest_models::Precision {
        precision(self.training.precision, &self.problem.device)
    }
}

/// Whether networks compute in bf16: where asked for, or automatically on GPUs.
pub(crate) fn precision(asked: Precision, device: &Device) -> harvest_models::Precision {
    match asked {
        Precision::F32 => harvest_models::Precision::F32,
        Precision::Bf16 => harvest_models::Precision::Bf16,
        Precision::Auto if crate::device::is_cpu(device) => harvest_models::Precision::F32,
        Precision::Auto => harvest_models::Precision::Bf16,
    }
}

/// Whether that rounds anything: on the CPU it takes a processor that multiplies bf16.
pub(crate) fn rounds(asked: Precision, device: &Device) -> bool {
    precision(asked, device) == harvest_models::Precision::Bf16
        && (!crate::device::is_cpu(device) || harvest_kernels::has_bf16_products())
}

/// What to say where bf16 is asked for and `f32` is computed.
pub(crate) fn not_rounded(asked: Precision, device: &Device) -> Option<&'static str> {
    (asked == Precision::Bf16 && !rounds(asked, device)).then_some(
        "precision = \"bf16\": this processor has no AVX-512 BF16; products are computed in f32, which is faster here",
    )
}

/// Optimizer steps of a run: as configured, else the configured epochs over the unlabelled images.
pub fn total_steps(training: &TrainingConfig, split: &Split) -> u64 {
    let per_step = u64::from(training.batch) * u64::from(training.unlabelled_ratio);
    let per_epoch = (split.unlabelled.len() as u64).div_ceil(per_step.max(1)).max(1);
    training.steps.map_or_else(|| u64::from(training.epochs) * per_epoch, u64::from)
}

fn problem(
    config: &Config,
    classes: usize,
    labels: &[Option<u16>],
    split: &Split,
    device: &Device,
) -> Problem {
    let mut labelled_per_class = vec![0; classes];
    for label in split.labelled.iter().filter_map(|index| labels[*index as usize]) {
        labelled_per_class[usize::from(label)] += 1;
    }
    Problem {
        classes,
        images: labels.len(),
        unlabelled: split.unlabelled.len(),
        unlabelled_batch: config.training.batch as usize * config.training.unlabelled_ratio as usize,
        labelled_per_class,
        total_steps: total_steps(&config.training, split),
        seed: config.training.seed,
        device: device.clone(),
    }
}
