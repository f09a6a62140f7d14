//! What is to be expected of one to a thousand ranks: the model of [`cost`](super::cost), asked and shown.

use std::fmt;
use std::path::PathBuf;

use harvest_models::ClassifierConfig;
use serde::Serialize;

use super::cost::{
    Calibration, CalibrationError, Device, LeftOut, Network, Plan, Prediction, Speed, Workload, a100,
    arithmetic, ascend, calibrate, predict, read_lines, sensitivity,
};
use super::figures::RANKS;
use super::{BenchError, median, parse_choice};
use crate::config::Scaling;

/// What to predict.
#[derive(Debug, Clone, PartialEq, clap::Args)]
pub struct ExpectedOptions {
    /// Lines of `bench scaling` and `bench allreduce --json`: predict for the machine they were measured on. Without, for
    /// the published cluster of A100s.
    #[arg(long, value_name = "FILE")]
    pub measured: Option<PathBuf>,
    /// A preset's name; of vision transformers.
    #[arg(long, default_value = "vit_small_patch2_32", conflicts_with = "measured")]
    pub model: String,
    /// Labelled images a step, of a device (weak scaling) and of all (strong scaling). Measured: that of the lines.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub batch: u32,
    /// Unlabelled images per labelled one.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64), conflicts_with = "measured")]
    pub uratio: u32,
    /// Number of classes.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(2..=100_000), conflicts_with = "measured")]
    pub classes: u32,
    /// Unlabelled images of an epoch.
    #[arg(long, default_value_t = 10_100, value_parser = clap::value_parser!(u64).range(1..))]
    pub images: u64,
    /// Devices whose efficiency is written down line by line.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(2..=65536))]
    pub devices: u32,
    /// How fast an A100 is: published (the paper's own totals), tf32 or bf16 (40 % of its data sheet).
    #[arg(long, default_value = "bf16", value_parser = parse_choice::<Speed>, conflicts_with = "measured")]
    pub speed: Speed,
    /// Devices of a node.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub per_node: u32,
    /// Gbit/s of a node's link to others; four fifths of it are counted on.
    #[arg(long, default_value_t = 200.0, value_parser = parse_positive)]
    pub gbit: f64,
    /// Draw figures 9, 10, 12 and 13 with the published numbers, and efficiency to 1,024 devices, into this folder.
    #[arg(long, value_name = "FOLDER")]
    pub out: Option<PathBuf>,
    /// One line of JSON.
    #[arg(long)]
    pub json: bool,
}

fn parse_positive(text: &str) -> Result<f64, String> {
    let number: Option<f64> = text.parse().ok().filter(|number: &f64| number.is_finite() && *number > 0.0);
    number.ok_or_else(|| "write a number above 0".to_owned())
}

/// What is expected, and why.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ExpectedReport {
    /// The device.
    pub device: Device,
    /// The network.
    pub network: Network,
    /// Preset of the model.
    pub model: String,
    /// How the efficiency of [`Self::devices`] comes about.
    pub arithmetic: Vec<String>,
    /// Devices that the arithmetic and the sensitivity are of.
    pub devices: usize,
    /// Weak-scaling efficiency with one assumption changed at a time.
    pub sensitivity: Vec<(String, f64)>,
    /// The local batch fixed.
    pub weak: Vec<Prediction>,
    /// The batch of all fixed.
    pub strong: Vec<Prediction>,
    /// Errors of the model where it was measured.
    pub errors: Option<Errors>,
}

/// What was measured, and what the model says of it when that is left out.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Errors {
    /// Ranks that sums were measured on.
    pub link_ranks: usize,
    /// Sums: bytes, measured and predicted seconds.
    pub sums: Vec<(f64, f64, f64)>,
    /// Steps: ranks, measured and predicted seconds.
    pub steps: Vec<(f64, f64, f64)>,
    /// Seconds that steps on two ranks or more take beyond the model.
    pub beyond: f64,
}

/// Predicts; see the [module](self).
///
/// # Errors
/// If lines cannot be read or calibrated from, or operations of the network are not counted.
pub fn expected(options: &ExpectedOptions) -> Result<ExpectedReport, BenchError> {
    let Some(path) = &options.measured else { return assumed(options) };
    let text =
        std::fs::read_to_string(path).map_err(|source| BenchError::Lines { path: path.clone(), source })?;
    let (steps, sums) = read_lines(&text)?;
    let found = calibrate(&steps, &sums)?;
    let Calibration { workload, device, network, model, batch, beyond, link_ranks, .. } = &found;
    let plain =
        |left_out: &[LeftOut]| left_out.iter().map(|one| (one.at, one.measured, one.predicted)).collect();
    let errors = Errors {
        link_ranks: *link_ranks,
        sums: plain(&found.sums),
        steps: plain(&found.steps),
        beyond: *beyond,
    };
    let report = report(options, workload, device, network, (model, *batch));
    Ok(ExpectedReport { errors: Some(errors), ..report })
}

fn assumed(options: &ExpectedOptions) -> Result<ExpectedReport, BenchError> {
    let config = ClassifierConfig::preset(&options.model, options.classes as usize)?;
    let ClassifierConfig::Vit(model) = config else {
        return Err(CalibrationError::Network { model: options.model.clone() }.into());
    };
    let workload = Workload::new(model, f64::from(options.uratio));
    let mut network = Network { ranks_per_node: options.per_node as usize, ..ascend() };
    network.between.bandwidth = options.gbit * 1e9 / 8.0 * 0.8;
    Ok(report(options, &workload, &a100(options.speed), &network, (&options.model, options.batch)))
}

fn report(
    options: &ExpectedOptions,
    workload: &Workload,
    device: &Device,
    network: &Network,
    (model, batch): (&str, u32),
) -> ExpectedReport {
    let devices = options.devices as usize;
    let rows = |scaling, batch| {
        let plan = Plan { scaling, batch, uratio: workload.uratio, images: options.images };
        predict(|batch| workload.on(device, batch), network, &plan, &RANKS)
    };
    ExpectedReport {
        device: device.clone(),
        network: *network,
        model: model.to_owned(),
        arithmetic: arithmetic(workload, device, network, batch, devices),
        devices,
        sensitivity: sensitivity(workload, device, network, batch, devices),
        weak: rows(Scaling::Weak, batch),
        strong: rows(Scaling::Strong, batch),
        errors: None,
    }
}

impl fmt::Display for ExpectedReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(errors) = &self.errors {
            writeln!(f, "{errors}")?;
        }
        self.arithmetic.iter().try_for_each(|line| writeln!(f, "{line}"))?;
        writeln!(
            f,
            "\nWeak-scaling efficiency of {} devices, one assumption changed at a time\n",
            self.devices
        )?;
        writeln!(f, "| change | efficiency |\n|---|---|")?;
        for (change, efficiency) in &self.sensitivity {
            writeln!(f, "| {change} | {:.2} % |", efficiency * 100.0)?;
        }
        for (name, rows) in [("Weak", &self.weak), ("Strong", &self.strong)] {
            writeln!(f, "\n{name} scaling, {}\n", self.model)?;
            table(f, rows)?;
        }
        Ok(())
    }
}

fn table(f: &mut fmt::Formatter<'_>, rows: &[Prediction]) -> fmt::Result {
    writeln!(f, "| ranks | local batch | step ms | epoch s | speed-up | efficiency | exposed ms | hidden |")?;
    writeln!(f, "|---|---|---|---|---|---|---|---|")?;
    for row in rows {
        writeln!(
            f,
            "| {} | {} | {:.2} | {:.3} | {:.2} | {:.2} % | {:.3} | {:.1} % |",
            row.ranks,
            row.local_batch,
            row.seconds_per_step * 1e3,
            row.seconds_per_epoch,
            row.speedup,
            row.efficiency * 100.0,
            row.exposed * 1e3,
            row.hidden * 100.0
        )?;
    }
    Ok(())
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "The model on what was measured, each value predicted from the others\n")?;
        writeln!(f, "| what | measured ms | predicted ms | error |\n|---|---|---|---|")?;
        let (sums, steps) = (&self.sums, &self.steps);
        let row = |f: &mut fmt::Formatter<'_>, what: String, (_, measured, predicted): (f64, f64, f64)| {
            let error = (predicted / measured - 1.0) * 100.0;
            writeln!(f, "| {what} | {:.4} | {:.4} | {error:+.1} % |", measured * 1e3, predicted * 1e3)
        };
        for &sum in sums {
            row(f, format!("sum of {:.0} KiB over {} ranks", sum.0 / 1024.0, self.link_ranks), sum)?;
        }
        for &step in steps {
            row(f, format!("step on {:.0} ranks", step.0), step)?;
        }
        let middle = |rows: &[(f64, f64, f64)]| {
            let mut errors: Vec<f64> = rows.iter().map(|row| (row.2 / row.1 - 1.0).abs() * 100.0).collect();
            errors.sort_by(f64::total_cmp);
            median(&errors)
        };
        writeln!(f, "\nMedian error of sums {:.1} %, of steps {:.1} %.", middle(sums), middle(steps))?;
        writeln!(
            f,
            "Beyond the model a step on two ranks or more takes {:.2} ms; predictions leave that out.",
            self.beyond * 1e3
        )
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Arguments {
        #[command(flatten)]
        options: ExpectedOptions,
    }

    fn options(words: &[&str]) -> ExpectedOptions {
        Arguments::parse_from([&["bench"], words].concat()).options
    }

    #[test]
    fn sixteen_a100_stay_busy() {
        let report = expected(&options(&[])).expect("a preset");
        let sixteen = report.weak.iter().find(|row| row.ranks == 16).expect("one of the rows");
        // The published 16 devices reached 96.4 %.
        assert!((0.97..1.0).contains(&sixteen.efficiency), "{sixteen:?}");
        assert_eq!(report.sensitivity[0].0, "as assumed");
        let text = report.to_string();
        assert!(text.contains("| 1024 | 64 |") && text.contains("efficiency       "), "{text}");
        let slow = expected(&options(&["--gbit", "10"])).expect("a preset");
        assert!(slow.weak[4].efficiency < sixteen.efficiency - 0.1, "{:?}", slow.weak[4]);
    }

    #[test]
    fn what_cannot_be_predicted_is_said() {
        let error = expected(&options(&["--model", "resnet50"])).expect_err("no transformer").to_string();
        assert!(error.contains("resnet50"), "{error}");
        let error = expected(&options(&["--measured", "nowhere.jsonl"])).expect_err("no file").to_string();
        assert!(error.contains("nowhere.jsonl"), "{error}");
        assert!(Arguments::try_parse_from(["bench", "--gbit", "0"]).is_err());
    }

    #[test]
    fn measured_lines_come_back_with_errors() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("lines.jsonl");
        let step = |ranks: u32, seconds: f64| {
            format!(
                r#"{{"program":"harvest","model":"vit_tiny_patch2_32","ranks":{ranks},"local_batch":8,"uratio":1,"classes":10,"seconds_per_step":{seconds},"jitter":0.01,"strong_computed":1.0}}"#
            )
        };
        let sum = |bytes: u64| {
            let seconds = 1e-4 + bytes as f64 / 1e9;
            format!(
                r#"{{"program":"harvest","ranks":2,"bytes":{bytes},"wire":"f32","seconds":{seconds},"bus_bandwidth":1.0}}"#
            )
        };
        let lines = [step(1, 1.0), step(2, 1.04), sum(4096), sum(1 << 20), sum(1 << 24)].join("\n");
        std::fs::write(&file, lines).expect("it can be written");
        let report =
            expected(&options(&["--measured", file.to_str().expect("plain letters")])).expect("enough");
        let errors = report.errors.as_ref().expect("measured");
        assert_eq!((errors.sums.len(), errors.steps.len()), (3, 1));
        assert!(errors.steps[0].1 == 1.04 && errors.steps[0].2 < 1.04, "{errors:?}");
        assert!(report.to_string().contains("step on 2 ranks"), "{report}");
    }
}
