//! Runs [`scaling()`](super::scaling()) over numbers of ranks, each under a launcher of its own, and lays the results side
//! by side.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::scaling::{ScalingOptions, ScalingReport};
use super::{BenchError, median};
use crate::files::{WriteError, atomic_write};
use crate::report::{ScalingChart, ScalingSeries};

/// What to run.
#[derive(Debug, Clone, PartialEq, clap::Args)]
pub struct LaunchOptions {
    /// Run this command for each number of ranks, with {n} for the number, as in "mpirun -n {n}".
    #[arg(long, value_name = "COMMAND")]
    pub launch: Option<String>,
    /// Numbers of ranks to launch.
    #[arg(long, value_delimiter = ',', default_value = "1,2", requires = "launch")]
    pub ranks: Vec<u32>,
    /// Rounds over all numbers of ranks; medians are told.
    #[arg(long, default_value_t = 1, requires = "launch", value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// Unlabelled images of the epoch whose time is told.
    #[arg(long, default_value_t = 10_000, requires = "launch", value_parser = clap::value_parser!(u64).range(1..))]
    pub images: u64,
    /// Folder for scaling.jsonl, scaling.md and scaling.svg.
    #[arg(long, value_name = "FOLDER", requires = "launch")]
    pub out: Option<PathBuf>,
}

/// Why ranks were not launched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// No place for the number of ranks.
    #[error("`--launch \"{command}\"` must say where the number of ranks goes, as in \"mpirun -n {{n}}\"")]
    Number {
        /// As given.
        command: String,
    },
    /// It does not start.
    #[error("cannot start `{command}`")]
    Start {
        /// With all words.
        command: String,
        /// Why.
        source: std::io::Error,
    },
    /// It failed.
    #[error("`{command}` ended with {status}: {last}")]
    Failed {
        /// With all words.
        command: String,
        /// Its exit status.
        status: std::process::ExitStatus,
        /// The last line of its errors.
        last: String,
    },
    /// It printed no report.
    #[error("`{command}` printed no report of {ranks} ranks; does its launcher start that many?")]
    Report {
        /// With all words.
        command: String,
        /// As many were wanted.
        ranks: u32,
    },
    /// The speed-up is that over one rank.
    #[error("speed-up is over one rank: put 1 among `--ranks`")]
    One,
}

/// All rounds, measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Launched {
    /// In the order of measuring.
    pub reports: Vec<ScalingReport>,
    /// Unlabelled images of an epoch.
    pub images: u64,
}

/// A number of ranks, medians over rounds.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Row {
    ranks: usize,
    batch: u32,
    step: f64,
    epoch: f64,
    images: f64,
    communication: f64,
    exposed: f64,
}

/// Launches and collects.
///
/// # Errors
/// If a launcher fails or prints no report.
pub fn launch(step: &ScalingOptions, options: &LaunchOptions, command: &str) -> Result<Launched, BenchError> {
    if !command.contains("{n}") {
        return Err(LaunchError::Number { command: command.to_owned() }.into());
    }
    if !options.ranks.contains(&1) {
        return Err(LaunchError::One.into());
    }
    let program = std::env::current_exe()
        .map_err(|source| LaunchError::Start { command: command.to_owned(), source })?;
    let mut reports = Vec::new();
    for _ in 0..options.rounds {
        for &ranks in &options.ranks {
            let words = words(command, ranks, &program, step);
            reports.push(run(&words, ranks)?);
        }
    }
    let launched = Launched { reports, images: options.images };
    if let Some(folder) = &options.out {
        launched.write(folder)?;
    }
    Ok(launched)
}

fn words(command: &str, ranks: u32, program: &Path, options: &ScalingOptions) -> Vec<String> {
    let spelled = |value: serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let step = &options.step;
    let mut words: Vec<String> =
        command.split_whitespace().map(|word| word.replace("{n}", &ranks.to_string())).collect();
    words.extend([program.display().to_string(), "bench".to_owned(), "scaling".to_owned()]);
    let mut say = |name: &str, value: String| words.extend([format!("--{name}"), value]);
    say("model", step.model.clone());
    say("algorithm", step.algorithm.as_str().to_owned());
    say("batch", step.batch.to_string());
    say("uratio", step.uratio.to_string());
    say("steps", step.steps.to_string());
    say("device", step.device.clone());
    say("precision", spelled(serde_json::json!(step.precision)));
    say("classes", step.classes.to_string());
    say("ema", step.ema.to_string());
    say("scaling", spelled(serde_json::json!(options.scaling)));
    say("bucket-mib", options.bucket_mib.to_string());
    say("wire", spelled(serde_json::json!(options.wire)));
    if let Some(threads) = step.threads {
        say("threads", threads.to_string());
    }
    if step.exact {
        words.push("--exact".to_owned());
    }
    words
}

fn run(words: &[String], ranks: u32) -> Result<ScalingReport, LaunchError> {
    let command = words.join(" ");
    let start = |source| LaunchError::Start { command: command.clone(), source };
    let output = Command::new(&words[0]).args(&words[1..]).output().map_err(start)?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        let last = errors.lines().rfind(|line| line.contains("error")).or(errors.lines().next_back());
        let last = last.unwrap_or("no word of why").to_owned();
        return Err(LaunchError::Failed { command, status: output.status, last });
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let report = text.lines().rev().find_map(|line| serde_json::from_str::<ScalingReport>(line).ok());
    report.filter(|report| report.ranks == ranks as usize).ok_or(LaunchError::Report { command, ranks })
}

impl Launched {
    fn rows(&self) -> Vec<Row> {
        let mut counts: Vec<usize> = self.reports.iter().map(|report| report.ranks).collect();
        counts.sort_unstable();
        counts.dedup();
        let row = |ranks| {
            let of: Vec<&ScalingReport> =
                self.reports.iter().filter(|report| report.ranks == ranks).collect();
            let middle = |value: fn(&ScalingReport) -> f64| {
                let mut values: Vec<f64> = of.iter().map(|report| value(report)).collect();
                values.sort_by(f64::total_cmp);
                median(&values)
            };
            let (step, first) = (middle(|report| report.seconds_per_step), of[0]);
            let steps = self.images as f64 / (f64::from(first.batch) * f64::from(first.uratio));
            Row {
                ranks,
                batch: first.batch,
                step,
                epoch: step * steps,
                images: middle(|report| report.images_per_second),
                communication: middle(|report| report.communication_seconds),
                exposed: middle(|report| report.exposed_seconds),
            }
        };
        counts.into_iter().map(row).collect()
    }

    fn write(&self, folder: &Path) -> Result<(), BenchError> {
        std::fs::create_dir_all(folder).map_err(WriteError::at(folder))?;
        let lines: String = self
            .reports
            .iter()
            .map(|report| serde_json::to_string(report).expect("plain data") + "\n")
            .collect();
        atomic_write(&folder.join("scaling.jsonl"), lines.as_bytes())?;
        atomic_write(&folder.join("scaling.md"), self.to_string().as_bytes())?;
        atomic_write(&folder.join("scaling.svg"), self.chart().to_svg().as_bytes())?;
        Ok(())
    }

    fn chart(&self) -> ScalingChart {
        let (rows, first) = (self.rows(), &self.reports[0]);
        let one = rows[0].epoch;
        let kind = serde_json::json!(first.scaling);
        let kind = kind.as_str().unwrap_or_default();
        ScalingChart {
            title: format!("Measured {kind} scaling, {}", first.model),
            note: format!(
                "{}, threads of a rank: {}, {}; an epoch of {} images",
                first.device, first.threads, first.launcher, self.images
            ),
            time_label: "seconds an epoch".to_owned(),
            devices: rows.iter().map(|row| row.ranks).collect(),
            efficiency: false,
            series: vec![ScalingSeries {
                name: format!("batch {}", first.batch / if kind == "weak" { first.ranks as u32 } else { 1 }),
                times: rows.iter().map(|row| Some(row.epoch)).collect(),
                ratios: rows.iter().map(|row| Some(one / row.epoch)).collect(),
                published_times: Vec::new(),
                published_ratios: Vec::new(),
            }],
        }
    }
}

impl fmt::Display for Launched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.rows();
        let Some(one) = rows.first() else { return Ok(()) };
        writeln!(
            f,
            "| ranks | batch | step s | epoch s | images/s | speed-up | efficiency | communication ms | exposed ms | hidden |"
        )?;
        writeln!(f, "|---|---|---|---|---|---|---|---|---|---|")?;
        for row in &rows {
            let speedup = one.epoch / row.epoch;
            let hidden = if row.communication > 0.0 {
                format!("{:.1} %", (1.0 - row.exposed / row.communication).max(0.0) * 100.0)
            } else {
                "–".to_owned()
            };
            writeln!(
                f,
                "| {} | {} | {:.4} | {:.2} | {:.1} | {speedup:.3} | {:.1} % | {:.2} | {:.2} | {hidden} |",
                row.ranks,
                row.batch,
                row.step,
                row.epoch,
                row.images,
                speedup / row.ranks as f64 * 100.0,
                row.communication * 1e3,
                row.exposed * 1e3
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Arguments {
        #[command(flatten)]
        step: ScalingOptions,
        #[command(flatten)]
        launch: LaunchOptions,
    }

    fn report(ranks: usize, seconds: f64) -> ScalingReport {
        let text = format!(
            r#"{{"program":"harvest","launcher":"mpirun","scaling":"weak","ranks":{ranks},"model":"m","algorithm":"freematch",
            "batch":{},"local_batch":8,"uratio":1,"device":"cpu","amp":"none","classes":10,"threads":1,"steps":5,
            "seconds_per_step":{seconds},"seconds_fastest":1,"seconds_slowest":1,"jitter":0,"images_per_second":1,"wire":"f32",
            "gradient_bytes":4,"communication_seconds":0.1,"exposed_seconds":0.02,"hidden":0.8,"skip_masked":true,
            "strong_computed":1,"loss":1}}"#,
            8 * ranks
        );
        serde_json::from_str(&text).expect("a report")
    }

    #[test]
    fn efficiency_is_of_medians_over_rounds() {
        let reports = vec![
            report(1, 1.0),
            report(2, 1.25),
            report(1, 5.0),
            report(2, 1.25),
            report(1, 1.0),
            report(2, 9.0),
        ];
        let launched = Launched { reports, images: 800 };
        let table = launched.to_string();
        assert!(table.contains("| 1 | 8 | 1.0000 | 100.00 |"), "{table}");
        assert!(
            table.contains("| 2 | 16 | 1.2500 | 62.50 | 1.0 | 1.600 | 80.0 % | 100.00 | 20.00 | 80.0 % |"),
            "{table}"
        );
        let folder = tempfile::tempdir().expect("a temporary folder");
        let folder = folder.path().join("new");
        launched.write(&folder).expect("it can be written to");
        let lines = std::fs::read_to_string(folder.join("scaling.jsonl")).expect("written");
        assert_eq!(lines.lines().count(), 6);
    }

    #[test]
    fn every_setting_reaches_the_ranks() {
        let given = [
            "bench",
            "--model",
            "resnet8",
            "--batch",
            "6",
            "--uratio",
            "3",
            "--steps",
            "4",
            "--precision",
            "bf16",
            "--classes",
            "7",
            "--threads",
            "1",
            "--exact",
            "--ema",
            "0.5",
            "--scaling",
            "strong",
            "--wire",
            "bf16",
            "--bucket-mib",
            "0.5",
            "--algorithm",
            "fixmatch",
            "--device",
            "cpu",
        ];
        let options = Arguments::parse_from(given).step;
        let words = words("mpirun -n {n} --bind-to none", 4, Path::new("harvest"), &options);
        assert_eq!(words[..8], ["mpirun", "-n", "4", "--bind-to", "none", "harvest", "bench", "scaling"]);
        let again = Arguments::parse_from([&["bench".to_owned()], &words[8..]].concat()).step;
        assert_eq!(again, options);
    }

    #[test]
    fn launchers_that_do_not_work_are_told() {
        let arguments = Arguments::parse_from(["bench", "--launch", "x", "--ranks", "1"]);
        let with = |command: &str| {
            launch(&arguments.step, &arguments.launch, command).expect_err("no report").to_string()
        };
        assert!(with("mpirun -n 2").contains("{n}"));
        assert!(
            with("no-such-launcher {n}").contains("no-such-launcher 1"),
            "{}",
            with("no-such-launcher {n}")
        );
        assert!(with("false {n}").contains("ended with"), "{}", with("false {n}"));
        assert!(with("echo {n}").contains("no report of 1 ranks"), "{}", with("echo {n}"));
        let two = Arguments::parse_from(["bench", "--launch", "x {n}", "--ranks", "2,4"]);
        assert!(launch(&two.step, &two.launch, "x {n}").expect_err("no one").to_string().contains("--ranks"));
        assert!(Arguments::try_parse_from(["bench", "--ranks", "2"]).is_err(), "nothing to launch with");
    }
}
