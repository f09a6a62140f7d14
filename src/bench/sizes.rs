//! How the speed of a training step depends on its sizes: tokens or pixels, batch, width. A cliff would be a size at which
//! the computer does far fewer operations a second than at a smaller one.

use std::path::{Path, PathBuf};

use harvest_models::ClassifierConfig;
use serde::Serialize;

use super::step::measure;
use super::{BenchError, StepOptions, StepReport, limit_threads, significant};
use crate::files::{WriteError, atomic_write};
use crate::report::{LineChart, Series};

/// What to measure, and where to draw it.
#[derive(Debug, Clone, PartialEq, clap::Args)]
pub struct SizesOptions {
    /// The step at the sizes that are not varied; a transformer or a residual network.
    #[command(flatten)]
    pub step: StepOptions,
    /// Folder for sizes.jsonl and one picture for each of image-size, batch and width.
    #[arg(long, value_name = "DIR", default_value = "sizes")]
    pub out: PathBuf,
    /// Sides of images in pixels.
    #[arg(long, value_delimiter = ',', default_values_t = [8, 12, 16, 20, 24, 28, 32, 36, 40, 48])]
    pub image_sizes: Vec<usize>,
    /// Labelled images a step.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 3, 4, 6, 8, 12, 16])]
    pub batches: Vec<u32>,
    /// Widths: the dimension of a transformer, the planes of a residual network's first stage.
    #[arg(long, value_delimiter = ',', default_values_t = [64, 128, 192, 256, 320, 384])]
    pub widths: Vec<usize>,
}

/// What is varied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Axis {
    /// The side of the images in pixels.
    ImageSize,
    /// Labelled images a step.
    Batch,
    /// The network's width.
    Width,
}

/// One measured size.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SizeReport {
    /// What was varied.
    pub axis: Axis,
    /// To what.
    pub size: usize,
    /// The step there.
    #[serde(flatten)]
    pub step: StepReport,
}

/// The sizes of one axis, from the smallest.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    /// What was varied.
    pub axis: Axis,
    /// Each size.
    pub sizes: Vec<SizeReport>,
}

impl Axis {
    fn name(self) -> &'static str {
        match self {
            Axis::ImageSize => "image-size",
            Axis::Batch => "batch",
            Axis::Width => "width",
        }
    }

    fn label(self) -> &'static str {
        match self {
            Axis::ImageSize => "side of the images in pixels",
            Axis::Batch => "labelled images a step",
            Axis::Width => "width of the network",
        }
    }
}

impl Curve {
    /// The lowest speed at any size, in that of the best smaller one; 1 where speed never falls. `None` where the network's
    /// operations are not counted.
    pub fn worst_fall(&self) -> Option<f64> {
        let (mut best, mut worst) = (0f64, 1f64);
        for report in &self.sizes {
            let speed = report.step.tflops?;
            if best > 0.0 {
                worst = worst.min(speed / best);
            }
            best = best.max(speed);
        }
        Some(significant(worst))
    }

    fn chart(&self, model: &str) -> LineChart {
        let point = |report: &SizeReport| (report.size as f64, 1e3 * report.step.tflops.unwrap_or(f64::NAN));
        LineChart {
            title: format!("{model}: Gflop/s of a step"),
            x_label: self.axis.label().to_owned(),
            series: vec![Series {
                name: "Gflop/s".to_owned(),
                points: self.sizes.iter().map(point).collect(),
            }],
            range: None,
            percent: false,
            smooth: false,
        }
    }
}

/// Measures a step at every size of each axis, and writes lines and pictures to the folder. `each` hears of every size as soon
/// as it is measured.
///
/// # Errors
/// If there is no such device or preset, a size does not fit the network, or the folder cannot be written.
pub fn sizes(options: &SizesOptions, mut each: impl FnMut(&SizeReport)) -> Result<Vec<Curve>, BenchError> {
    limit_threads(options.step.threads)?;
    let preset = ClassifierConfig::preset(&options.step.model, options.step.classes as usize)?
        .with_image_size(options.step.image_size);
    let mut curves = Vec::new();
    for axis in [Axis::ImageSize, Axis::Batch, Axis::Width] {
        let mut sizes: Vec<usize> = match axis {
            Axis::ImageSize => options.image_sizes.clone(),
            Axis::Batch => options.batches.iter().map(|batch| *batch as usize).collect(),
            Axis::Width => options.widths.clone(),
        };
        sizes.sort_unstable();
        sizes.dedup();
        let mut reports = Vec::new();
        for size in sizes {
            let (mut step, mut model) = (options.step.clone(), preset.clone());
            match axis {
                Axis::ImageSize => model = model.with_image_size(Some(size)),
                Axis::Batch => step.batch = u32::try_from(size).unwrap_or(u32::MAX).max(1),
                Axis::Width => set_width(&mut model, size),
            }
            let report = SizeReport { axis, size, step: measure(&step, &model)? };
            each(&report);
            reports.push(report);
        }
        curves.push(Curve { axis, sizes: reports });
    }
    write(&options.out, &options.step.model, &curves)?;
    Ok(curves)
}

/// Heads keep a width of 64, as in the published transformers.
fn set_width(model: &mut ClassifierConfig, width: usize) {
    match model {
        ClassifierConfig::Vit(config) => (config.dim, config.heads) = (width, (width / 64).max(1)),
        ClassifierConfig::ResNet(config) => config.planes = width,
        // Their widths are lists; the other axes still say something.
        ClassifierConfig::EfficientNet(_) | ClassifierConfig::ConvNext(_) => {}
    }
}

fn write(folder: &Path, model: &str, curves: &[Curve]) -> Result<(), WriteError> {
    std::fs::create_dir_all(folder).map_err(WriteError::at(folder))?;
    let reports = curves.iter().flat_map(|curve| &curve.sizes);
    let lines: String =
        reports.map(|report| serde_json::to_string(report).expect("plain data") + "\n").collect();
    atomic_write(&folder.join("sizes.jsonl"), lines.as_bytes())?;
    for curve in curves {
        let file = folder.join(format!("{}.svg", curve.axis.name()));
        atomic_write(&file, curve.chart(model).to_svg().as_bytes())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        options: SizesOptions,
    }

    #[test]
    fn every_size_is_measured_and_drawn() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let out = folder.path().join("sizes");
        let line = "sizes --model resnet8 --device cpu --batch 2 --steps 1 --image-sizes 16,8 --batches 1,3 --widths 4,8";
        let mut options = Command::parse_from(line.split(' ')).options;
        options.out = out.clone();
        let mut seen = Vec::new();
        let curves = sizes(&options, |report| seen.push((report.axis, report.size))).expect("it runs");
        let expected = [(Axis::ImageSize, [8, 16]), (Axis::Batch, [1, 3]), (Axis::Width, [4, 8])];
        assert_eq!(seen, expected.map(|(axis, sizes)| sizes.map(|size| (axis, size))).concat());
        let lines = std::fs::read_to_string(out.join("sizes.jsonl")).expect("written");
        assert_eq!(lines.lines().count(), 6);
        assert!(lines.lines().all(|line| line.contains("\"tflops\":")), "{lines}");
        for curve in &curves {
            let picture = std::fs::read_to_string(out.join(format!("{}.svg", curve.axis.name())));
            assert!(picture.expect("written").contains(curve.axis.label()));
            let fall = curve.worst_fall().expect("counted");
            assert!(fall > 0.0 && fall <= 1.0, "{fall}");
        }
    }
}
