//! Time and memory of a network over images that are at its size already, as [`Predictor`] does it: bytes in, logits out.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use harvest_models::ClassifierConfig;
use rand::{Rng, RngExt};
use serde::Serialize;

use super::process::{page_faults, peak_host_mib, program, reserved_device_mib};
use super::step::sync;
use super::{BenchError, limit_threads, median, parse_choice, significant};
use crate::augment::Normalisation;
use crate::config::KernelChoice;
use crate::data::ClassKind;
use crate::device;
use crate::inference::{Bundle, Predictor, Preprocessing, drawn_picture};
use crate::random::{Purpose, stream};

/// Passes before the measured ones.
const WARM_UP: u32 = 2;

/// What to measure.
#[derive(Debug, Clone, PartialEq, clap::Args)]
pub struct InferenceOptions {
    /// A preset's name.
    #[arg(long, default_value = "vit_tiny_patch16_224")]
    pub model: String,
    /// Side of the images in pixels; without, the preset's.
    #[arg(long, value_name = "PIXELS")]
    pub image_size: Option<usize>,
    /// Images a pass.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub batch: u32,
    /// Measured passes, after two that are not.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub passes: u32,
    /// cpu, cuda, cuda:N or auto.
    #[arg(long, default_value = "auto")]
    pub device: String,
    /// Number of classes.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(2..))]
    pub classes: u32,
    /// Threads on the CPU; without, as many as there are processors.
    #[arg(long)]
    pub threads: Option<usize>,
    /// fused, or reference for burn's own operations.
    #[arg(long, default_value = "fused", value_parser = parse_choice::<KernelChoice>)]
    pub kernels: KernelChoice,
    /// Write the network as a bundle with ONNX files to this new folder, for a peer to run.
    #[arg(long, value_name = "DIR")]
    pub export: Option<PathBuf>,
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct InferenceReport {
    /// Program and version.
    pub program: String,
    /// The preset.
    pub model: String,
    /// Side of the images in pixels.
    pub image_size: usize,
    /// Images a pass.
    pub batch: u32,
    /// `cpu` or `cuda`.
    pub device: &'static str,
    /// Threads on the CPU.
    pub threads: usize,
    /// Measured passes.
    pub passes: u32,
    /// Median.
    pub seconds_per_pass: f64,
    /// Fastest pass.
    pub seconds_fastest: f64,
    /// Slowest pass.
    pub seconds_slowest: f64,
    /// By the median.
    pub images_per_second: f64,
    /// Page faults a pass, mean over the measured ones; nothing where the system does not tell.
    pub page_faults: Option<f64>,
    /// Most memory in use: of the process on the CPU, taken by the allocator on a GPU.
    pub peak_mib: Option<u64>,
}

/// Measures; see the [module](self).
///
/// # Errors
/// If there is no such device or preset, the device fails, or the bundle cannot be written.
pub fn inference(options: &InferenceOptions) -> Result<InferenceReport, BenchError> {
    let threads = limit_threads(options.threads)?;
    harvest_kernels::choose(options.kernels.into());
    let device = device::by_name(&options.device)?;
    let model = ClassifierConfig::preset(&options.model, options.classes as usize)?
        .with_image_size(options.image_size);
    model.validate()?;
    let (size, batch) = (model.image_size(), options.batch as usize);
    let normalisation = Normalisation::default();
    let network = model.init(stream(0, Purpose::Initialisation, [0; 3]).random(), &device)?;
    if let Some(folder) = &options.export {
        let classes = (1..=options.classes).map(|class| format!("class {class}")).collect();
        let preprocessing = Preprocessing { size: size as u32, resize: "bilinear".into(), normalisation };
        let bundle = Bundle::new(model, classes, ClassKind::Categorical, preprocessing, BTreeMap::new());
        bundle.export(folder, &network, &drawn_picture(size), false)?;
    }
    let mut pixels = vec![0; batch * size * size * 3];
    stream(1, Purpose::View, [0; 3]).fill_bytes(&mut pixels);
    let predictor = Predictor::new(&network, size, &normalisation, batch);
    let (mut seconds, mut faults) = (Vec::new(), None);
    for number in 0..WARM_UP + options.passes {
        if number == WARM_UP {
            faults = page_faults();
        }
        sync(&device)?;
        let start = Instant::now();
        predictor.logits(pixels.chunks_exact(size * size * 3), |_, _| true);
        if number >= WARM_UP {
            seconds.push(start.elapsed().as_secs_f64());
        }
    }
    let faults = page_faults().zip(faults).map(|(after, before)| (after - before) as f64);
    seconds.sort_by(f64::total_cmp);
    let middle = median(&seconds);
    Ok(InferenceReport {
        program: program(),
        model: options.model.clone(),
        image_size: size,
        batch: options.batch,
        device: device::describe(&device),
        threads,
        passes: options.passes,
        seconds_per_pass: significant(middle),
        seconds_fastest: significant(seconds[0]),
        seconds_slowest: significant(seconds[seconds.len() - 1]),
        images_per_second: significant(f64::from(options.batch) / middle),
        page_faults: faults.map(|faults| significant(faults / f64::from(options.passes))),
        peak_mib: reserved_device_mib(&device).or_else(peak_host_mib),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_network_is_measured_and_written() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let export = folder.path().join("bundle");
        let options = InferenceOptions {
            model: "resnet8".into(),
            image_size: Some(16),
            batch: 2,
            passes: 3,
            device: "cpu".into(),
            classes: 3,
            threads: None,
            kernels: KernelChoice::Fused,
            export: Some(export.clone()),
        };
        let report = inference(&options).expect("it runs");
        assert!(report.seconds_fastest > 0.0 && report.seconds_fastest <= report.seconds_per_pass);
        assert!(report.seconds_per_pass <= report.seconds_slowest && report.images_per_second > 0.0);
        assert!(export.join("model.onnx").is_file());
    }
}
