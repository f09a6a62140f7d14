//! A training step on the ranks that there are: weak or strong scaling, and what of the exchange is hidden.
//!
//! One process is one rank, as a launcher started it; alone it measures one rank. The step is that of
//! [`step()`](super::step()) with gradients summed over ranks. Batches are made beforehand, and steps follow each other
//! without a pause: what one rank lags behind, another waits.

use std::sync::Arc;
use std::time::Instant;

use burn::tensor::Device;
use harvest_collectives::{Communicator, Identity, JoinOptions, Passport, Solo, Team, host_name, join};
use serde::{Deserialize, Serialize};

use super::process::program;
use super::step::sync;
use super::{BenchError, StepOptions, limit_threads, median, parse_choice, significant};
use crate::algorithms::{AlgorithmConfig, Objective, Problem, computed_strong_views};
use crate::augment::Normalisation;
use crate::config::{AlignmentTarget, DistributionConfig, Scaling, Switch, TrainingConfig, WireFormat};
use crate::device;
use crate::training::{Crew, HostBatch, Session, Setup, rounds};

/// Steps before the measured ones: memory is touched, and the first finds out which gradients are ready when.
const WARM_UP: u32 = 3;

/// What to measure.
#[derive(Debug, Clone, PartialEq, clap::Args)]
pub struct ScalingOptions {
    /// The step. `--batch` is that of a rank (weak scaling) or of all (strong).
    #[command(flatten)]
    pub step: StepOptions,
    /// weak: every rank has a batch of its own. strong: all share one.
    #[arg(long, default_value = "weak", value_parser = parse_choice::<Scaling>)]
    pub scaling: Scaling,
    /// MiB of a bucket of gradients.
    #[arg(long, default_value_t = 25.0)]
    pub bucket_mib: f64,
    /// How gradients travel: f32 or bf16.
    #[arg(long, default_value = "f32", value_parser = parse_choice::<WireFormat>)]
    pub wire: WireFormat,
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScalingReport {
    /// Program and version.
    pub program: String,
    /// What started the ranks.
    pub launcher: String,
    /// `weak` or `strong`.
    pub scaling: Scaling,
    /// Ranks.
    pub ranks: usize,
    /// The preset.
    pub model: String,
    /// The algorithm.
    pub algorithm: String,
    /// Labelled images a step, of all ranks.
    pub batch: u32,
    /// Labelled images a step of the rank that has most.
    pub local_batch: u32,
    /// Unlabelled images per labelled one.
    pub uratio: u32,
    /// `cpu` or `cuda`.
    pub device: String,
    /// `none` or `bf16`.
    pub amp: String,
    /// Number of classes.
    pub classes: u32,
    /// Threads of a rank on the CPU.
    pub threads: usize,
    /// Measured steps.
    pub steps: u32,
    /// Median over steps of the mean over ranks.
    pub seconds_per_step: f64,
    /// Fastest step.
    pub seconds_fastest: f64,
    /// Slowest step.
    pub seconds_slowest: f64,
    /// Spread of steps, as a share of the median: the distance of their quartiles over that of a normal variable.
    pub jitter: f64,
    /// Labelled, weak and strong views a second, of all ranks.
    pub images_per_second: f64,
    /// How gradients travel.
    pub wire: WireFormat,
    /// Bytes of a rank's gradients, in `f32`.
    pub gradient_bytes: u64,
    /// Seconds of a step in which gradients were on their way; mean over ranks.
    pub communication_seconds: f64,
    /// Seconds of a step that were spent waiting for them.
    pub exposed_seconds: f64,
    /// Share of the former that the backward pass hid; 1 on one rank.
    pub hidden: f64,
    /// Whether masked strong views could be left out.
    pub skip_masked: bool,
    /// Share of strong views that went through the network; mean over ranks and measured steps.
    pub strong_computed: f64,
    /// Loss of the first rank's last step.
    pub loss: f64,
}

/// The ranks that a launcher started, or this process alone.
#[derive(Debug)]
pub struct Ranks {
    team: Option<Team>,
    launcher: String,
    device: Device,
}

impl Ranks {
    /// Meets the other ranks, if there are others; `what` must be the same on all. Each takes a GPU of its own, where
    /// `device` leaves the choice.
    ///
    /// # Errors
    /// If there is no such device, the environment makes no sense, or ranks do not meet.
    pub fn meet(what: &str, device: &str) -> Result<Self, BenchError> {
        let Some(identity) = Identity::from_environment()? else {
            return Ok(Self { team: None, launcher: "none".to_owned(), device: device::by_name(device)? });
        };
        let device = device::of_local_rank(device, identity.local_rank)?;
        let index = (!device::is_cpu(&device)).then(|| device::index(&device));
        let passport = Passport {
            host: host_name(),
            device: index.map_or_else(|| "cpu".to_owned(), |index| format!("cuda:{index}")),
            driver: device::driver(&device),
            version: program(),
            config: what.to_owned(),
            data: String::new(),
        };
        let options = JoinOptions { device_index: index, ..JoinOptions::default() };
        let team = join(&identity, passport, &options).map_err(Box::new)?;
        Ok(Self { team: Some(team), launcher: identity.launcher.to_string(), device })
    }

    /// Where this rank computes.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// How they talk.
    pub fn communicator(&self) -> Arc<dyn Communicator> {
        self.team.as_ref().map_or_else(|| Arc::new(Solo) as Arc<dyn Communicator>, Team::communicator)
    }

    /// What started them.
    pub fn launcher(&self) -> &str {
        &self.launcher
    }

    /// Whether this is the rank that prints.
    pub fn is_first(&self) -> bool {
        self.communicator().rank() == 0
    }

    /// The end of all ranks' work.
    pub fn leave(&self) {
        if let Some(team) = &self.team {
            team.leave();
        }
    }
}

/// Measures; see the [module](self). All ranks get the same report, but for the loss.
///
/// # Errors
/// If there is no such device or preset, a rank would have no image, or the device fails.
pub fn scaling(
    options: &ScalingOptions,
    device: &Device,
    communicator: Arc<dyn Communicator>,
    launcher: &str,
) -> Result<ScalingReport, BenchError> {
    let step = &options.step;
    let threads = limit_threads(step.threads)?;
    let model = harvest_models::ClassifierConfig::preset(&step.model, step.classes as usize)?;
    let ranks = communicator.world_size();
    let batch = match options.scaling {
        Scaling::Weak => step.batch * ranks as u32,
        Scaling::Strong => step.batch,
    };
    let crew = Crew::new(communicator, batch as usize)?;
    let training = TrainingConfig {
        batch,
        unlabelled_ratio: step.uratio,
        lr: 5e-5,
        ema: step.ema,
        precision: step.precision,
        skip_masked: if step.exact { Switch::Off } else { Switch::Auto },
        ..TrainingConfig::default()
    };
    let distribution = DistributionConfig {
        scaling: options.scaling,
        bucket_mib: options.bucket_mib,
        wire: options.wire,
        ..DistributionConfig::default()
    };
    distribution.check()?;
    let algorithm = AlgorithmConfig { name: step.algorithm, ..AlgorithmConfig::default() };
    let normalisation = Normalisation::default();
    let unlabelled = (batch * step.uratio) as usize;
    let setup = Setup {
        model: &model,
        algorithm: &algorithm,
        training: &training,
        distribution,
        normalisation: &normalisation,
        problem: Problem::bare(step.classes as usize, unlabelled, 1000, device),
        objective: Objective::default(),
        alignment: AlignmentTarget::Off,
    };
    let mut session = Session::new(setup, crew.clone())?;
    if step.buckets {
        session.sum_always();
    }
    let skips = !step.exact && model.rows_are_independent();
    let views = session.views();
    let batches: Vec<HostBatch> = (0..WARM_UP + step.steps)
        .map(|number| {
            HostBatch::noise(batch as usize, unlabelled, views, &model, u64::from(number)).of(&crew)
        })
        .collect();
    let (mut seconds, mut computed, mut loss) = (Vec::new(), 0.0, f64::NAN);
    for (number, batch) in batches.into_iter().enumerate() {
        let own = batch.indices.len();
        if number == WARM_UP as usize {
            session.take_reduce_times();
        }
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
        sync(device)?;
        if number >= WARM_UP as usize {
            seconds.push(start.elapsed().as_secs_f64() as f32);
            let kept = (mask_ratio * own as f64).round() as usize;
            let rows = if skips { computed_strong_views(kept, own) } else { own };
            computed += rows as f64 / own as f64;
        }
    }
    let steps = f64::from(step.steps);
    let times = session.take_reduce_times();
    let mut told = seconds;
    told.extend(
        [times.total.as_secs_f64() / steps, times.exposed.as_secs_f64() / steps, computed / steps]
            .map(|x| x as f32),
    );
    let told = mean_over_ranks(&*crew.communicator().clone(), told)?;
    let (seconds, rest) = told.split_at(step.steps as usize);
    let mut seconds = seconds.to_vec();
    seconds.sort_by(f64::total_cmp);
    let middle = median(&seconds);
    let images = f64::from(batch) * (1.0 + views.count() as f64 * f64::from(step.uratio));
    let bf16 = rounds(step.precision, device);
    Ok(ScalingReport {
        program: program(),
        launcher: launcher.to_owned(),
        scaling: options.scaling,
        ranks,
        model: step.model.clone(),
        algorithm: step.algorithm.as_str().to_owned(),
        batch,
        local_batch: crew.rows_of(0).len() as u32,
        uratio: step.uratio,
        device: device::describe(device).to_owned(),
        amp: if bf16 { "bf16" } else { "none" }.to_owned(),
        classes: step.classes,
        threads,
        steps: step.steps,
        seconds_per_step: significant(middle),
        seconds_fastest: significant(seconds[0]),
        seconds_slowest: significant(seconds[seconds.len() - 1]),
        jitter: significant(spread(&seconds) / middle),
        images_per_second: significant(images / middle),
        wire: options.wire,
        gradient_bytes: 4 * session.num_parameters() as u64,
        communication_seconds: significant(rest[0]),
        exposed_seconds: significant(rest[1]),
        hidden: significant(if rest[0] > 0.0 { (1.0 - rest[1] / rest[0]).max(0.0) } else { 1.0 }),
        skip_masked: skips,
        strong_computed: significant(rest[2]),
        loss: significant(loss),
    })
}

fn mean_over_ranks(communicator: &dyn Communicator, own: Vec<f32>) -> Result<Vec<f64>, BenchError> {
    let rows = communicator.all_gather(own).wait().map_err(super::AllReduceError::from)?;
    let mean = |place: usize| rows.iter().map(|row| f64::from(row[place])).sum::<f64>() / rows.len() as f64;
    Ok((0..rows[0].len()).map(mean).collect())
}

/// Standard deviation of a normal variable with these quartiles; few slow steps do not count.
fn spread(sorted: &[f64]) -> f64 {
    let at = |share: f64| {
        let place = share * (sorted.len() - 1) as f64;
        let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
        low + (high - low) * place.fract()
    };
    (at(0.75) - at(0.25)) / 1.349
}

#[cfg(test)]
mod tests {
    use harvest_collectives::Threads;

    use super::*;
    use crate::algorithms::AlgorithmName;
    use crate::config::{KernelChoice, Precision};

    fn options(scaling: Scaling) -> ScalingOptions {
        let step = StepOptions {
            model: "resnet8".to_owned(),
            image_size: None,
            algorithm: AlgorithmName::FreeMatch,
            batch: 4,
            uratio: 2,
            steps: 4,
            device: "cpu".to_owned(),
            precision: Precision::F32,
            kernels: KernelChoice::Fused,
            classes: 3,
            threads: None,
            exact: false,
            ema: 0.0,
            buckets: false,
        };
        ScalingOptions { step, scaling, bucket_mib: 0.1, wire: WireFormat::F32 }
    }

    fn on(ranks: usize, scaling_kind: Scaling) -> Vec<ScalingReport> {
        let options = &options(scaling_kind);
        std::thread::scope(|scope| {
            let ranks: Vec<_> = Threads::ring(ranks)
                .into_iter()
                .map(|rank| scope.spawn(move || scaling(options, &Device::flex(), Arc::new(rank), "threads")))
                .collect();
            ranks
                .into_iter()
                .map(|rank| rank.join().expect("no panic").expect("a preset on the CPU"))
                .collect()
        })
    }

    #[test]
    fn ranks_measure_one_step_together() {
        for (kind, batch, local) in [(Scaling::Weak, 8, 4), (Scaling::Strong, 4, 2)] {
            let reports = on(2, kind);
            let first = &reports[0];
            assert_eq!((first.ranks, first.batch, first.local_batch), (2, batch, local));
            assert_eq!(first.seconds_per_step, reports[1].seconds_per_step, "all ranks tell the same");
            assert!(
                first.seconds_fastest <= first.seconds_per_step && first.communication_seconds > 0.0,
                "{first:?}"
            );
            assert!(first.exposed_seconds < first.seconds_per_step && (0.0..=1.0).contains(&first.hidden));
            let images = f64::from(batch) * 5.0;
            assert!((first.images_per_second * first.seconds_per_step / images - 1.0).abs() < 1e-4);
        }
    }

    #[test]
    fn alone_nothing_is_exchanged() {
        let report = scaling(&options(Scaling::Weak), &Device::flex(), Arc::new(Solo), "none")
            .expect("a preset on the CPU");
        assert_eq!((report.ranks, report.hidden, report.communication_seconds), (1, 1.0, 0.0));
        assert!(report.jitter >= 0.0 && report.loss.is_finite());
        let line = serde_json::to_string(&report).expect("plain data");
        let (steps, sums) = super::super::cost::read_lines(&line).expect("a line that predictions read");
        assert_eq!((steps.len(), sums.len(), steps[0].local_batch), (1, 0, 4));
    }

    #[test]
    fn few_slow_steps_do_not_count_as_spread() {
        assert_eq!(spread(&[1.0, 1.0, 1.0, 1.0, 9.0]), 0.0);
        assert!((spread(&[1.0, 2.0, 3.0, 4.0, 5.0]) - 2.0 / 1.349).abs() < 1e-9);
        assert_eq!(spread(&[1.0]), 0.0);
    }
}
