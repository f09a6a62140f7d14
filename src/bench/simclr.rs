//! Time and memory of one step of SimCLR, as [`crate::clustering::SimClr`] does it.
//!
//! Upload of both views as bytes, normalisation, forward pass, NT-Xent, backward, AdamW, reading the loss. Making the views is not
//! part of it, as in the PyTorch program it is compared with; [`super::input()`] measures that.

use std::time::Instant;

use harvest_models::ClassifierConfig;
use rand::{Rng, RngExt};
use serde::Serialize;

use super::process::{peak_host_mib, program, reserved_device_mib};
use super::step::sync;
use super::{BenchError, limit_threads, parse_choice, significant};
use crate::algorithms::Alone;
use crate::augment::Normalisation;
use crate::clustering::Contrast;
use crate::config::{Precision, SimClrConfig};
use crate::device;
use crate::random::{Purpose, stream};

/// Steps before the measured ones.
const WARM_UP: u32 = 2;

/// What to measure.
#[derive(Debug, Clone, PartialEq, clap::Args)]
pub struct SimClrOptions {
    /// A preset's name.
    #[arg(long, default_value = "resnet8")]
    pub model: String,
    /// Images a step, with two views each.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(2..))]
    pub batch: u32,
    /// Measured steps, after two that are not.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub steps: u32,
    /// cpu, cuda, cuda:N or auto.
    #[arg(long, default_value = "auto")]
    pub device: String,
    /// f32, bf16 or auto.
    #[arg(long, default_value = "f32", value_parser = parse_choice::<Precision>)]
    pub precision: Precision,
    /// Threads on the CPU; without, as many as there are processors.
    #[arg(long)]
    pub threads: Option<usize>,
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SimClrReport {
    /// Program and version.
    pub program: String,
    /// The preset.
    pub model: String,
    /// Images a step.
    pub batch: u32,
    /// `cpu` or `cuda`.
    pub device: &'static str,
    /// Threads on the CPU.
    pub threads: usize,
    /// Measured steps.
    pub steps: u32,
    /// Median.
    pub seconds_per_step: f64,
    /// Fastest step.
    pub seconds_fastest: f64,
    /// Views a second: two an image.
    pub images_per_second: f64,
    /// Most memory in use: of the process on the CPU, taken by the allocator on a GPU.
    pub peak_mib: Option<u64>,
    /// Loss of the last step.
    pub loss: f64,
}

/// Measures; see the [module](self).
///
/// # Errors
/// If there is no such device or preset, or the device fails.
pub fn simclr(options: &SimClrOptions) -> Result<SimClrReport, BenchError> {
    let threads = limit_threads(options.threads)?;
    let device = device::by_name(&options.device)?;
    let model = ClassifierConfig::preset(&options.model, 10)?;
    let (size, batch) = (model.image_size(), options.batch as usize);
    let config =
        SimClrConfig { batch: options.batch, precision: options.precision, ..SimClrConfig::default() };
    let normalisation = Normalisation::default();
    let network = model.init(stream(0, Purpose::Initialisation, [0; 3]).random(), &device)?;
    let mut run = Contrast::new(&config, &normalisation, size, 0, &Alone, &network);
    let (mut seconds, mut loss) = (Vec::new(), f64::NAN);
    for number in 0..WARM_UP + options.steps {
        let mut views = vec![0; 2 * batch * size * size * 3];
        stream(1, Purpose::View, [u64::from(number), 0, 0]).fill_bytes(&mut views);
        sync(&device)?;
        let start = Instant::now();
        let scalars = run.advance(u64::from(number), views, config.lr);
        for (_, value) in scalars {
            loss = value.into_data().iter::<f64>().next().unwrap_or(f64::NAN);
        }
        sync(&device)?;
        if number >= WARM_UP {
            seconds.push(start.elapsed().as_secs_f64());
        }
    }
    seconds.sort_by(f64::total_cmp);
    let median = (seconds[(seconds.len() - 1) / 2] + seconds[seconds.len() / 2]) / 2.0;
    Ok(SimClrReport {
        program: program(),
        model: options.model.clone(),
        batch: options.batch,
        device: device::describe(&device),
        threads,
        steps: options.steps,
        seconds_per_step: significant(median),
        seconds_fastest: significant(seconds[0]),
        images_per_second: significant(2.0 * f64::from(options.batch) / median),
        peak_mib: reserved_device_mib(&device).or_else(peak_host_mib),
        loss: significant(loss),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_measured() {
        let options = SimClrOptions {
            model: "resnet8".to_owned(),
            batch: 4,
            steps: 2,
            device: "cpu".to_owned(),
            precision: Precision::F32,
            threads: None,
        };
        let report = simclr(&options).expect("a preset on the CPU");
        assert!(report.seconds_fastest <= report.seconds_per_step && report.loss.is_finite());
        // significant() rounds both
        assert!((report.images_per_second * report.seconds_per_step - 8.0).abs() < 1e-3);
        let other = SimClrOptions { model: "resnet9".to_owned(), ..options };
        assert!(simclr(&other).expect_err("no such preset").to_string().contains("resnet9"));
    }
}
