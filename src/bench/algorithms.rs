//! Time of a training step with each algorithm, relative to FixMatch, and how much of it is the algorithm's own arithmetic.
//!
//! A step is measured as in [`super::step()`], with all algorithms in turn so that a disturbance hits all alike. Its own
//! arithmetic is the same step on a stand-in for the network that costs next to nothing (its logits are the first values of
//! each image): pseudo-labels, thresholds, statistics, blending of images, losses and their backward pass.

use std::time::Instant;

use burn::tensor::{Device, Tensor};
use harvest_models::ClassifierConfig;
use serde::Serialize;

use super::process::program;
use super::step::sync;
use super::{BenchError, limit_threads, parse_choice, significant};
use crate::algorithms::{
    Algorithm, AlgorithmBuilder, AlgorithmConfig, AlgorithmName, Network, Objective, Problem, Views,
};
use crate::augment::Normalisation;
use crate::config::{AlignmentTarget, DistributionConfig, Precision, TrainingConfig};
use crate::device;
use crate::training::{Crew, HostBatch, Session, Setup};

/// Steps before the measured ones.
const WARM_UP: u32 = 2;
/// Steps of the run that is acted: what depends on it (ramps, decays) is as in the middle of a real one.
const RUN: u64 = 10_000;

/// What to measure.
#[derive(Debug, Clone, PartialEq, clap::Args)]
pub struct AlgorithmsOptions {
    /// A preset's name.
    #[arg(long, default_value = "vit_tiny_patch2_32")]
    pub model: String,
    /// Labelled images a step.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    pub batch: u32,
    /// Unlabelled images a step, in multiples of the batch.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub uratio: u32,
    /// Measured steps of each algorithm.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub steps: u32,
    /// Algorithms to measure, FixMatch in any case; without, all.
    #[arg(long, value_delimiter = ',', value_parser = parse_choice::<AlgorithmName>)]
    pub only: Vec<AlgorithmName>,
    /// cpu, cuda, cuda:N or auto.
    #[arg(long, default_value = "auto")]
    pub device: String,
    /// f32, bf16 or auto.
    #[arg(long, default_value = "f32", value_parser = parse_choice::<Precision>)]
    pub precision: Precision,
    /// Number of classes.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(2..))]
    pub classes: u32,
    /// Unlabelled images of the data set, over which FlexMatch keeps a table.
    #[arg(long, default_value_t = 60_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub pool: u32,
    /// Threads on the CPU; without, as many as there are processors.
    #[arg(long)]
    pub threads: Option<usize>,
}

/// What was measured of one algorithm.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AlgorithmReport {
    /// Program and version.
    pub program: String,
    /// The algorithm.
    pub algorithm: &'static str,
    /// The preset.
    pub model: String,
    /// `cpu` or `cuda`.
    pub device: &'static str,
    /// Labelled images a step.
    pub batch: u32,
    /// Unlabelled images per labelled one.
    pub uratio: u32,
    /// Weak views of an unlabelled image.
    pub weak_views: usize,
    /// Strong views of an unlabelled image.
    pub strong_views: usize,
    /// Median of a step.
    pub seconds_per_step: f64,
    /// The same, as a multiple of FixMatch's.
    pub relative_to_fixmatch: f64,
    /// Median of the algorithm's own arithmetic.
    pub own_seconds: f64,
    /// Its share of the step.
    pub own_share: f64,
}

/// Measures; see the [module](self). FixMatch comes first.
///
/// # Errors
/// If there is no such device or preset, or the device fails.
pub fn algorithms(options: &AlgorithmsOptions) -> Result<Vec<AlgorithmReport>, BenchError> {
    limit_threads(options.threads)?;
    let device = device::by_name(&options.device)?;
    let model = ClassifierConfig::preset(&options.model, options.classes as usize)?;
    let configs: Vec<AlgorithmConfig> = chosen(&options.only)
        .into_iter()
        .map(|name| AlgorithmConfig { name, ..AlgorithmConfig::default() })
        .collect();
    let training = TrainingConfig {
        batch: options.batch,
        unlabelled_ratio: options.uratio,
        lr: 5e-5,
        precision: options.precision,
        ..TrainingConfig::default()
    };
    let normalisation = Normalisation::default();
    let problem = Problem::bare(options.classes as usize, options.pool as usize, RUN, &device);
    let mut subjects = configs
        .iter()
        .map(|config| {
            let session = Session::new(
                Setup {
                    model: &model,
                    algorithm: config,
                    training: &training,
                    distribution: DistributionConfig::default(),
                    normalisation: &normalisation,
                    problem: problem.clone(),
                    objective: Objective::default(),
                    alignment: AlignmentTarget::Off,
                },
                Crew::alone(options.batch as usize),
            )?;
            let algorithm = config.build(&problem);
            Ok(Subject { config, views: session.views(), session, algorithm, steps: vec![], own: vec![] })
        })
        .collect::<Result<Vec<_>, BenchError>>()?;
    for number in 0..WARM_UP + options.steps {
        for subject in &mut subjects {
            let (step, own) = subject.measure(options, &model, &device, RUN / 2 + u64::from(number))?;
            if number >= WARM_UP {
                subject.steps.push(step);
                subject.own.push(own);
            }
        }
    }
    let base = median(&mut subjects[0].steps);
    Ok(subjects.into_iter().map(|subject| subject.report(options, &device, base)).collect())
}

/// FixMatch, and the algorithms asked for, in the order of the registry.
fn chosen(only: &[AlgorithmName]) -> Vec<AlgorithmName> {
    let others = AlgorithmName::ALL.iter().copied().filter(|name| *name != AlgorithmName::FixMatch);
    let wanted = others.filter(|name| only.is_empty() || only.contains(name));
    std::iter::once(AlgorithmName::FixMatch).chain(wanted).collect()
}

struct Subject<'a> {
    config: &'a AlgorithmConfig,
    views: Views,
    session: Session<'a>,
    /// On its own, for the stand-in.
    algorithm: Box<dyn Algorithm>,
    steps: Vec<f64>,
    own: Vec<f64>,
}

impl Subject<'_> {
    /// Seconds of a step and of the algorithm's own share.
    fn measure(
        &mut self,
        options: &AlgorithmsOptions,
        model: &ClassifierConfig,
        device: &Device,
        step: u64,
    ) -> Result<(f64, f64), BenchError> {
        let unlabelled = (options.batch * options.uratio) as usize;
        let batch = || HostBatch::noise(options.batch as usize, unlabelled, self.views, model, step);
        let (first, second) = (batch(), batch());
        sync(device)?;
        let start = Instant::now();
        let (scalars, _) = self.session.advance(first, 5e-5, 0);
        read(scalars);
        sync(device)?;
        let whole = start.elapsed().as_secs_f64();

        let batch = self.session.upload(second);
        let network = StandIn::new(options.classes as usize, self.algorithm.auxiliary_outputs(), device);
        sync(device)?;
        let start = Instant::now();
        let loss = self.algorithm.step(&network, &batch);
        let mut scalars = vec![("loss", loss.total.clone().inner())];
        scalars.extend(loss.scalars);
        let gradients = loss.total.backward();
        read(scalars);
        sync(device)?;
        drop(gradients);
        Ok((whole, start.elapsed().as_secs_f64()))
    }

    fn report(mut self, options: &AlgorithmsOptions, device: &Device, base: f64) -> AlgorithmReport {
        let (step, own) = (median(&mut self.steps), median(&mut self.own));
        AlgorithmReport {
            program: program(),
            algorithm: self.config.name.as_str(),
            model: options.model.clone(),
            device: device::describe(device),
            batch: options.batch,
            uratio: options.uratio,
            weak_views: self.views.weak,
            strong_views: self.views.strong,
            seconds_per_step: significant(step),
            relative_to_fixmatch: significant(step / base),
            own_seconds: significant(own),
            own_share: significant(own / step),
        }
    }
}

/// As the trainer does: all scalars at once.
fn read(scalars: Vec<(&'static str, Tensor<1>)>) {
    let values = Tensor::cat(scalars.into_iter().map(|(_, value)| value).collect(), 0);
    std::hint::black_box(values.into_data());
}

fn median(seconds: &mut [f64]) -> f64 {
    seconds.sort_by(f64::total_cmp);
    (seconds[(seconds.len() - 1) / 2] + seconds[seconds.len() / 2]) / 2.0
}

/// A network whose logits are the first values of each image, plus a bias that is trained.
struct StandIn {
    bias: Tensor<1>,
    auxiliary: Tensor<1>,
}

impl StandIn {
    fn new(classes: usize, auxiliary: usize, device: &Device) -> Self {
        let bias = |count| Tensor::zeros([count], &device.clone().autodiff()).require_grad();
        Self { bias: bias(classes), auxiliary: bias(auxiliary.max(1)) }
    }
}

fn first_values(images: Tensor<4>, bias: &Tensor<1>) -> Tensor<2> {
    let [rows, channels, height, width] = images.dims();
    let values = images.reshape([rows, channels * height * width]).narrow(1, 0, bias.dims()[0]);
    values + bias.clone().unsqueeze_dim(0)
}

impl Network for StandIn {
    fn student(&self, images: Tensor<4>, _rows: &[u64]) -> Tensor<2> {
        first_values(images, &self.bias)
    }

    fn teacher(&self, images: Tensor<4>, _rows: &[u64]) -> Tensor<2> {
        first_values(images.inner(), &self.bias.clone().inner())
    }

    fn auxiliary(&self, images: Tensor<4>, _rows: &[u64]) -> Tensor<2> {
        first_values(images, &self.auxiliary)
    }

    fn rows_are_independent(&self) -> bool {
        // The whole pass: its cost is what is compared.
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_algorithm_is_measured_against_fixmatch() {
        let options = AlgorithmsOptions {
            model: "resnet8".into(),
            batch: 2,
            uratio: 2,
            steps: 1,
            only: vec![],
            device: "cpu".into(),
            precision: Precision::F32,
            classes: 3,
            pool: 10,
            threads: None,
        };
        let reports = algorithms(&options).expect("a preset on the CPU");
        assert_eq!(reports.len(), AlgorithmName::ALL.len());
        assert_eq!((reports[0].algorithm, reports[0].relative_to_fixmatch), ("fixmatch", 1.0));
        assert!(reports.iter().all(|report| report.own_seconds > 0.0 && report.seconds_per_step > 0.0));
        let few = AlgorithmsOptions { only: vec![AlgorithmName::Uda], ..options };
        let names: Vec<&str> =
            algorithms(&few).expect("a preset").iter().map(|report| report.algorithm).collect();
        assert_eq!(names, ["fixmatch", "uda"]);
    }
}
