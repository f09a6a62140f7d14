//! Time and memory of one training step, as the trainer does it.
//!
//! Upload of the views as bytes, normalisation, teacher and student pass, thresholds, loss, backward, AdamW, reading the
//! scalars. Making the views is not part of it, as in the PyTorch program it is compared with.

use std::time::Instant;

use burn::tensor::Device;
use harvest_models::ClassifierConfig;
use serde::Serialize;

use super::nccl::of_one_rank;
use super::process::{page_faults, peak_host_mib, program, reserved_device_mib};
use super::{BenchError, limit_threads, parse_choice, significant};
use crate::algorithms::{AlgorithmConfig, AlgorithmName, Objective, Problem, computed_strong_views};
use crate::augment::Normalisation;
use crate::config::{AlignmentTarget, DistributionConfig, KernelChoice, Precision, Switch, TrainingConfig};
use crate::device;
use crate::training::{Crew, HostBatch, Session, Setup, rounds};

/// Steps before the measured ones: memory is touched, GPU kernels are compiled and chosen.
const WARM_UP: u32 = 2;

/// What to measure.
#[derive(Debug, Clone, PartialEq, clap::Args)]
pub struct StepOptions {
    /// A preset's name.
    #[arg(long, default_value = "vit_tiny_patch2_32")]
    pub model: String,
    /// Side of the images in pixels; without, the preset's.
    #[arg(long, value_name = "PIXELS")]
    pub image_size: Option<usize>,
    /// The algorithm.
    #[arg(long, default_value = "freematch", value_parser = parse_choice::<AlgorithmName>)]
    pub algorithm: AlgorithmName,
    /// Labelled images a step.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    pub batch: u32,
    /// Unlabelled images a step, in multiples of the batch.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub uratio: u32,
    /// Measured steps, after two that are not.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub steps: u32,
    /// cpu, cuda, cuda:N or auto.
    #[arg(long, default_value = "auto")]
    pub device: String,
    /// f32, bf16 or auto.
    #[arg(long, default_value = "f32", value_parser = parse_choice::<Precision>)]
    pub precision: Precision,
    /// fused, or reference for burn's own operations.
    #[arg(long, default_value = "fused", value_parser = parse_choice::<KernelChoice>)]
    pub kernels: KernelChoice,
    /// Number of classes.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(2..))]
    pub classes: u32,
    /// Threads on the CPU; without, as many as there are processors.
    #[arg(long)]
    pub threads: Option<usize>,
    /// Compute strong views whose pseudo-label is masked, too.
    #[arg(long)]
    pub exact: bool,
    /// Decay of the averaged weights; 0 keeps no average.
    #[arg(long, default_value_t = 0.0)]
    pub ema: f64,
    /// Put gradients into buckets and sum them over this one rank, as several ranks do, over NCCL on a GPU: what that costs.
    #[arg(long)]
    pub buckets: bool,
}

/// What was measured. One image is one view: `batch · (1 + views · uratio)` a step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepReport {
    /// Program and version.
    pub program: String,
    /// The preset.
    pub model: String,
    /// Side of the images in pixels.
    pub image_size: usize,
    /// The algorithm.
    pub algorithm: &'static str,
    /// Labelled images a step.
    pub batch: u32,
    /// Unlabelled images per labelled one.
    pub uratio: u32,
    /// `cpu` or `cuda`.
    pub device: &'static str,
    /// `none` or `bf16`.
    pub amp: &'static str,
    /// `fused` or `reference`.
    pub kernels: KernelChoice,
    /// Number of classes.
    pub classes: u32,
    /// Threads on the CPU.
    pub threads: usize,
    /// Whether gradients went through buckets and a sum over one rank.
    pub buckets: bool,
    /// Measured steps.
    pub steps: u32,
    /// Median.
    pub seconds_per_step: f64,
    /// Fastest step.
    pub seconds_fastest: f64,
    /// Slowest step.
    pub seconds_slowest: f64,
    /// Labelled, weak and strong views a second, whether or not a masked one was left out.
    pub images_per_second: f64,
    /// Page faults a step, mean over the measured ones; nothing where the system does not tell.
    pub page_faults: Option<f64>,
    /// Most memory in use: of the process on the CPU, taken by the allocator on a GPU.
    pub peak_mib: Option<u64>,
    /// Most memory of the process, on any device.
    pub peak_host_mib: Option<u64>,
    /// Whether masked strong views could be left out.
    pub skip_masked: bool,
    /// Share of strong views whose pseudo-label passed the threshold, mean over the measured steps.
    pub mask_ratio: f64,
    /// Share of strong views that went through the network, mean over the measured steps.
    pub strong_computed: f64,
    /// Loss of the last step, to see that something was learned.
    pub loss: f64,
}

/// Measures; see the [module](self).
///
/// # Errors
/// If there is no such device or preset, or the device fails.
pub fn step(options: &StepOptions) -> Result<StepReport, BenchError> {
    let threads = limit_threads(options.threads)?;
    harvest_kernels::choose(options.kernels.into());
    let device = device::by_name(&options.device)?;
    let model = ClassifierConfig::preset(&options.model, options.classes as usize)?
        .with_image_size(options.image_size);
    model.validate()?;
    let training = TrainingConfig {
        batch: options.batch,
        unlabelled_ratio: options.uratio,
        lr: 5e-5,
        ema: options.ema,
        precision: options.precision,
        skip_masked: if options.exact { Switch::Off } else { Switch::Auto },
        ..TrainingConfig::default()
    };
    let crew = if options.buckets {
        let crew = Crew::new(of_one_rank(&device)?, options.batch as usize);
        crew.expect("a step has an image, and there is one rank")
    } else {
        Crew::alone(options.batch as usize)
    };
    let (algorithm, normalisation) =
        (AlgorithmConfig { name: options.algorithm, ..AlgorithmConfig::default() }, Normalisation::default());
    let unlabelled = (options.batch * options.uratio) as usize;
    let mut session = Session::new(
        Setup {
            model: &model,
            algorithm: &algorithm,
            training: &training,
            distribution: DistributionConfig::default(),
            normalisation: &normalisation,
            problem: Problem::bare(options.classes as usize, unlabelled, 1000, &device),
            objective: Objective::default(),
            alignment: AlignmentTarget::Off,
        },
        crew,
    )?;
    if options.buckets {
        session.sum_always();
    }
    let views = session.views();
    let skips = !options.exact && model.rows_are_independent();
    let (mut seconds, mut masks, mut computed, mut loss) = (Vec::new(), 0.0, 0.0, f64::NAN);
    let mut faults = None;
    for number in 0..WARM_UP + options.steps {
        if number == WARM_UP {
            faults = page_faults();
        }
        let batch = HostBatch::noise(options.batch as usize, unlabelled, views, &model, u64::from(number));
        sync(&device)?;
        let start = Instant::now();
        let (scalars, _) = session.advance(batch, training.lr, 0);
        let mut mask_ratio = 0.0;
        for (name, value) in scalars {
            let value = value.into_data().iter::<f64>().next().unwrap_or(f64::NAN);
            match name {
                "loss" => loss = value,
                "mask_ratio" => mask_ratio = value,
                _ => {}
            }
        }
        sync(&device)?;
        if number >= WARM_UP {
            seconds.push(start.elapsed().as_secs_f64());
            masks += mask_ratio;
            let kept = (mask_ratio * unlabelled as f64).round() as usize;
            let rows = if skips { computed_strong_views(kept, unlabelled) } else { unlabelled };
            computed += rows as f64 / unlabelled as f64;
        }
    }
    let faults = page_faults().zip(faults).map(|(after, before)| (after - before) as f64);
    seconds.sort_by(f64::total_cmp);
    let median = (seconds[(seconds.len() - 1) / 2] + seconds[seconds.len() / 2]) / 2.0;
    let images = f64::from(options.batch) * (1.0 + views.count() as f64 * f64::from(options.uratio));
    let steps = f64::from(options.steps);
    let bf16 = rounds(options.precision, &device);
    Ok(StepReport {
        program: program(),
        model: options.model.clone(),
        image_size: model.image_size(),
        algorithm: options.algorithm.as_str(),
        batch: options.batch,
        uratio: options.uratio,
        device: device::describe(&device),
        kernels: options.kernels,
        amp: if bf16 { "bf16" } else { "none" },
        classes: options.classes,
        threads,
        buckets: options.buckets,
        steps: options.steps,
        seconds_per_step: significant(median),
        seconds_fastest: significant(seconds[0]),
        seconds_slowest: significant(seconds[seconds.len() - 1]),
        images_per_second: significant(images / median),
        page_faults: faults.map(|faults| significant(faults / steps)),
        peak_mib: reserved_device_mib(&device).or_else(peak_host_mib),
        peak_host_mib: peak_host_mib(),
        skip_masked: skips,
        mask_ratio: significant(masks / steps),
        strong_computed: significant(computed / steps),
        loss: significant(loss),
    })
}

pub(super) fn sync(device: &Device) -> Result<(), BenchError> {
    device.sync().map_err(|error| BenchError::Execution { reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(model: &str) -> StepOptions {
        StepOptions {
            model: model.to_owned(),
            image_size: None,
            algorithm: AlgorithmName::FreeMatch,
            batch: 2,
            uratio: 2,
            steps: 3,
            device: "cpu".to_owned(),
            precision: Precision::F32,
            kernels: KernelChoice::Fused,
            classes: 3,
            threads: None,
            exact: false,
            ema: 0.9,
            buckets: false,
        }
    }

    #[test]
    fn a_step_is_measured_with_all_that_was_left_out() {
        let report = step(&options("resnet8")).expect("a preset on the CPU");
        assert!(report.seconds_fastest <= report.seconds_per_step);
        assert!(report.seconds_per_step <= report.seconds_slowest);
        // significant() rounds both
        assert!((report.images_per_second * report.seconds_per_step - 10.0).abs() < 1e-3);
        assert!(!report.skip_masked && report.strong_computed == 1.0, "batch norm needs every row");
        assert!(report.loss.is_finite() && (0.0..=1.0).contains(&report.mask_ratio));
        let line = serde_json::to_value(&report).expect("plain data");
        for key in ["model", "batch", "uratio", "device", "amp", "seconds_per_step", "images_per_second"] {
            assert!(line.get(key).is_some(), "{key}");
        }
    }

    #[test]
    fn buckets_change_nothing() {
        let plain = step(&options("resnet8")).expect("a preset on the CPU");
        let summed = step(&StepOptions { buckets: true, ..options("resnet8") }).expect("one rank sums");
        assert!(summed.buckets);
        assert_eq!(
            (plain.loss, plain.mask_ratio),
            (summed.loss, summed.mask_ratio),
            "a sum of one is itself"
        );
    }

    #[test]
    fn what_is_not_there_is_said() {
        let error = step(&options("resnet9")).expect_err("no such preset").to_string();
        assert!(error.contains("resnet9"), "{error}");
        let elsewhere = StepOptions { device: "tpu".to_owned(), ..options("resnet8") };
        assert!(step(&elsewhere).expect_err("no such device").to_string().contains("tpu"));
    }
}
