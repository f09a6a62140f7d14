//! The model's parameters from measurements, and its error on each of them.

use serde::Deserialize;

use super::{Device, LeftOut, Link, Network, Sample, Workload};

/// A line of `harvest bench scaling`, as far as it is needed.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct MeasuredStep {
    /// Preset of the network.
    pub model: String,
    /// Ranks.
    pub ranks: usize,
    /// Labelled images a step of the rank that has most.
    pub local_batch: u32,
    /// Unlabelled images per labelled one.
    pub uratio: u32,
    /// Number of classes.
    pub classes: u32,
    /// Median.
    pub seconds_per_step: f64,
    /// Spread of steps, as a share of the median.
    pub jitter: f64,
    /// Share of strong views that went through the network.
    pub strong_computed: f64,
}

/// A line of `harvest bench allreduce`, as far as it is needed.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct MeasuredSum {
    /// Ranks.
    pub ranks: usize,
    /// Bytes of the bucket, in `f32`.
    pub bytes: u64,
    /// `f32` or `bf16`.
    pub wire: String,
    /// Median.
    pub seconds: f64,
}

/// A model fitted to measurements.
#[derive(Debug, Clone, PartialEq)]
pub struct Calibration {
    /// The step.
    pub workload: Workload,
    /// The device.
    pub device: Device,
    /// Links.
    pub network: Network,
    /// Seconds that a step on two ranks or more takes beyond the model.
    pub beyond: f64,
    /// Preset of the network.
    pub model: String,
    /// Labelled images a step on one rank.
    pub batch: u32,
    /// Ranks that α and β were measured on.
    pub link_ranks: usize,
    /// Sums over ranks: each size from the others.
    pub sums: Vec<LeftOut>,
    /// Steps: each measurement on two ranks or more from the others.
    pub steps: Vec<LeftOut>,
}

/// Why a model cannot be fitted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CalibrationError {
    /// Not JSON.
    #[error("line {line} is neither of `harvest bench scaling` nor of `harvest bench allreduce --json`")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What the parser says.
        source: serde_json::Error,
    },
    /// No step on one rank.
    #[error("no line has a step on one rank; run `harvest bench scaling` without a launcher, too")]
    NoStep,
    /// Lines of different networks.
    #[error("lines are of different networks: {one} and {other}")]
    Mixed {
        /// The first.
        one: String,
        /// Another.
        other: String,
    },
    /// No operations are counted for this network.
    #[error("operations of `{model}` are not counted; vision transformers are")]
    Network {
        /// Its preset.
        model: String,
    },
    /// α and β cannot be told.
    #[error(
        "α and β cannot be told from {lines} sums of f32 over two ranks or more; run `harvest bench allreduce --json` under the launcher"
    )]
    Link {
        /// How many there are.
        lines: usize,
    },
}

/// Steps and sums among lines of JSON; empty lines and other measurements are passed over.
///
/// # Errors
/// If a line is not JSON, or lacks what its kind must have.
pub fn read_lines(text: &str) -> Result<(Vec<MeasuredStep>, Vec<MeasuredSum>), CalibrationError> {
    let (mut steps, mut sums) = (Vec::new(), Vec::new());
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let fault = |source| CalibrationError::Line { line: number + 1, source };
        let value: serde_json::Value = serde_json::from_str(line).map_err(fault)?;
        // The peers' lines lie beside ours.
        if value.get("program").is_none() {
            continue;
        }
        if value.get("local_batch").is_some() {
            steps.push(serde_json::from_value(value).map_err(fault)?);
        } else if value.get("bus_bandwidth").is_some() {
            sums.push(serde_json::from_value(value).map_err(fault)?);
        }
    }
    Ok((steps, sums))
}

/// Fits the model.
///
/// The device's speed, and with several batches its fixed time, come from steps on one rank; α and β from sums; what steps
/// on more ranks take beyond that is one constant, the mean over them.
///
/// # Errors
/// [`CalibrationError`], if steps on one rank or sums are missing, or of no use.
pub fn calibrate(steps: &[MeasuredStep], sums: &[MeasuredSum]) -> Result<Calibration, CalibrationError> {
    let first = steps.iter().find(|step| step.ranks == 1).ok_or(CalibrationError::NoStep)?;
    if let Some(other) = steps.iter().find(|step| step.model != first.model) {
        return Err(CalibrationError::Mixed { one: first.model.clone(), other: other.model.clone() });
    }
    let config = harvest_models::ClassifierConfig::preset(&first.model, first.classes as usize);
    let Ok(harvest_models::ClassifierConfig::Vit(model)) = config else {
        return Err(CalibrationError::Network { model: first.model.clone() });
    };
    let workload =
        Workload { strong_computed: first.strong_computed, ..Workload::new(model, f64::from(first.uratio)) };
    let alone: Vec<&MeasuredStep> = steps.iter().filter(|step| step.ranks == 1).collect();
    let device = fit_device(&workload, &alone);

    let link_ranks = sums.iter().map(|sum| sum.ranks).max().unwrap_or(0);
    let samples: Vec<Sample> = sums
        .iter()
        .filter(|sum| sum.ranks == link_ranks && sum.wire == "f32")
        .map(|sum| (sum.bytes as f64, sum.seconds))
        .collect();
    let link = Link::fit(link_ranks, &samples).ok_or(CalibrationError::Link { lines: samples.len() })?;
    let network = Network::flat(link);

    let together: Vec<&MeasuredStep> = steps.iter().filter(|step| step.ranks > 1).collect();
    let modelled = |step: &MeasuredStep| {
        let workload = Workload { strong_computed: step.strong_computed, ..workload.clone() };
        workload.on(&device, f64::from(step.local_batch)).on(&network, step.ranks).seconds()
    };
    let beyond = |left_out: Option<usize>| {
        let others = together.iter().enumerate().filter(|(i, _)| Some(*i) != left_out);
        let rest: Vec<f64> = others.map(|(_, step)| step.seconds_per_step - modelled(step)).collect();
        if rest.is_empty() { 0.0 } else { rest.iter().sum::<f64>() / rest.len() as f64 }
    };
    let left_out = together.iter().enumerate().map(|(i, step)| LeftOut {
        at: step.ranks as f64,
        measured: step.seconds_per_step,
        predicted: modelled(step) + beyond(Some(i)),
    });
    Ok(Calibration {
        steps: left_out.collect(),
        sums: Link::leave_one_out(link_ranks, &samples),
        beyond: beyond(None),
        model: first.model.clone(),
        batch: first.local_batch,
        link_ranks,
        workload,
        device,
        network,
    })
}

/// Speed and fixed time from steps on one rank: a line through them, or through 0 where there is one batch only.
fn fit_device(workload: &Workload, alone: &[&MeasuredStep]) -> Device {
    let points: Vec<(f64, f64)> = alone
        .iter()
        .map(|step| {
            let workload = Workload { strong_computed: step.strong_computed, ..workload.clone() };
            (workload.flops(f64::from(step.local_batch)), step.seconds_per_step)
        })
        .collect();
    let count = points.len() as f64;
    let mean = |value: fn(&(f64, f64)) -> f64| points.iter().map(value).sum::<f64>() / count;
    let (flops, seconds) = (mean(|p| p.0), mean(|p| p.1));
    let spread: f64 = points.iter().map(|p| (p.0 - flops).powi(2)).sum();
    let together: f64 = points.iter().map(|p| (p.0 - flops) * (p.1 - seconds)).sum();
    let slope = if spread > 1e-6 * flops * flops { together / spread } else { seconds / flops };
    // A line that goes down, or starts below 0, says nothing.
    let slope = if slope > 0.0 && slope * flops <= seconds { slope } else { seconds / flops };
    Device {
        name: "as measured".to_owned(),
        flops: 1.0 / slope,
        // What the optimizer takes is in the measured speed.
        memory: f64::INFINITY,
        fixed: seconds - slope * flops,
        jitter: alone.iter().map(|step| step.jitter).sum::<f64>() / count,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(ranks: usize, local_batch: u32, seconds_per_step: f64) -> MeasuredStep {
        let model = "vit_tiny_patch2_32".to_owned();
        MeasuredStep {
            model,
            ranks,
            local_batch,
            uratio: 1,
            classes: 10,
            seconds_per_step,
            jitter: 0.0,
            strong_computed: 1.0,
        }
    }

    fn sums(link: Link) -> Vec<MeasuredSum> {
        let sum = |power| {
            let bytes = 1u64 << power;
            MeasuredSum { ranks: 2, bytes, wire: "f32".to_owned(), seconds: link.ring(2, bytes as f64) }
        };
        (12..27).map(sum).collect()
    }

    #[test]
    fn what_the_model_made_it_finds_again() {
        let link = Link { latency: 3e-5, bandwidth: 1e9 };
        let truth =
            Device { name: String::new(), flops: 5e10, memory: f64::INFINITY, fixed: 0.1, jitter: 0.0 };
        let workload = calibrate(&[step(1, 8, 1.0)], &sums(link)).expect("enough").workload;
        let seconds = |batch: u32, ranks| {
            workload.on(&truth, f64::from(batch)).on(&Network::flat(link), ranks).seconds()
        };
        let steps = [(1, 8), (1, 4), (2, 8), (4, 8), (2, 4)].map(|(ranks, batch)| {
            let more = if ranks > 1 { 0.02 } else { 0.0 };
            step(ranks, batch, seconds(batch, ranks) + more)
        });
        let found = calibrate(&steps, &sums(link)).expect("enough");
        assert!((found.device.flops / truth.flops - 1.0).abs() < 1e-6, "{found:?}");
        assert!((found.device.fixed - 0.1).abs() < 1e-6 && (found.beyond - 0.02).abs() < 1e-6, "{found:?}");
        assert_eq!(found.steps.len(), 3);
        assert!(found.steps.iter().chain(&found.sums).all(|one| one.error().abs() < 1e-3), "{found:?}");
    }

    #[test]
    fn lines_are_told_apart_and_what_is_missing_is_said() {
        let text = r#"{"program":"harvest 0","model":"m","ranks":1,"local_batch":8,"uratio":1,"classes":10,"seconds_per_step":1.5,"jitter":0.01,"strong_computed":1.0,"more":1}

{"program":"harvest 0","ranks":2,"bytes":4096,"wire":"f32","seconds":1e-5,"bus_bandwidth":4e8}
{"peer":"torch","local_batch":8}"#;
        let (steps, sums) = read_lines(text).expect("two lines of ours");
        assert_eq!((steps.len(), sums.len()), (1, 1));
        assert!(matches!(read_lines("\nnonsense"), Err(CalibrationError::Line { line: 2, .. })));
        let cut = r#"{"program":"harvest 0","local_batch":8}"#;
        assert!(matches!(read_lines(cut), Err(CalibrationError::Line { line: 1, .. })));
        assert!(matches!(calibrate(&steps, &sums), Err(CalibrationError::Network { .. })));
        assert!(matches!(calibrate(&[], &sums), Err(CalibrationError::NoStep)));
        assert!(matches!(calibrate(&[step(1, 8, 1.0)], &sums), Err(CalibrationError::Link { lines: 1 })));
        let mixed = [step(1, 8, 1.0), steps[0].clone()];
        assert!(matches!(calibrate(&mixed, &sums), Err(CalibrationError::Mixed { .. })));
    }
}
