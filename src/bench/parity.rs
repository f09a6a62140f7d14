//! Whether a device computes what the CPU computes: for every preset, from the same weights and images,
//!
//! - the logits of an evaluation pass;
//! - loss and gradients of a FreeMatch step;
//! - the loss of a second step, after AdamW has moved the weights.
//!
//! Tolerances are multiples of the rounding of the device's matrix products, `u`. GPUs multiply 32-bit floats as TF32, 11
//! bits: u = 2⁻¹¹ = 4.9e-4; bf16 has 8 bits: u = 2⁻⁸. Rounding errors of some fifty layers add up like a random walk, so
//! about 7 u reach the logits, and gradients take the way twice, through batch norm over few images. A wrong kernel is
//! off by far more: a lost bias gradient alone is an error of 1 in [`Subject::Parameter`].

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use burn::optim::GradientsParams;
use burn::tensor::{Device, Int, Tensor};
use harvest_models::{Classifier, ClassifierConfig, Mode, PRESETS};
use image::RgbImage;
use rand::Rng;
use serde::Serialize;

use super::{BenchError, limit_threads, parse_choice, significant};
use crate::algorithms::{AlgorithmBuilder, AlgorithmConfig, Objective, Places, Problem, SslBatch};
use crate::augment::{Filter, Normalisation, resize};
use crate::config::{OptimizerName, Precision};
use crate::device;
use crate::inference::images_to_tensor;
use crate::random::{Purpose, stream};
use crate::training::{Optimizer, OptimizerConfig, StepNetwork};

const SEED: u64 = 7;
const CLASSES: usize = 10;
const LABELLED: usize = 2;
const UNLABELLED: usize = 4;

/// What to compare.
#[derive(Debug, Clone, PartialEq, clap::Args)]
pub struct ParityOptions {
    /// cpu, cuda, cuda:N or auto. The CPU against itself checks this check.
    #[arg(long, default_value = "auto")]
    pub device: String,
    /// Presets, separated by commas; without, all.
    #[arg(long, value_delimiter = ',')]
    pub models: Vec<String>,
    /// f32 or bf16 on the device; the CPU computes in f32.
    #[arg(long, default_value = "f32", value_parser = parse_choice::<Precision>)]
    pub precision: Precision,
    /// Threads on the CPU; without, as many as there are processors.
    #[arg(long)]
    pub threads: Option<usize>,
}

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// Largest difference relative to the largest logit.
    Logits,
    /// Relative difference.
    Loss,
    /// Norm of the difference of all gradients relative to their norm.
    Gradients,
    /// The same of the parameter where it is largest. Relative to the norm of a typical parameter's gradient where its
    /// own is smaller than a hundredth of that.
    Parameter,
    /// Relative difference of the loss after one update.
    SecondLoss,
}

impl Subject {
    /// In units of the rounding of matrix products.
    fn tolerance_in_roundings(self) -> f64 {
        match self {
            Subject::Logits => 10.0,
            Subject::Loss => 5.0,
            Subject::Gradients => 40.0,
            Subject::Parameter => 200.0,
            Subject::SecondLoss => 20.0,
        }
    }
}

/// One comparison, or one preset that could not be compared.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Check {
    /// The preset.
    pub model: String,
    /// What was compared; none if nothing could be.
    pub subject: Option<Subject>,
    /// Relative error; none if it is not a number.
    pub error: Option<f64>,
    /// Largest error allowed.
    pub tolerance: f64,
    /// Whether the error is within the tolerance.
    pub passed: bool,
    /// What the error belongs to, or why there is none.
    pub note: String,
}

/// All comparisons; displays as a table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ParityReport {
    /// `cpu` or `cuda`.
    pub device: &'static str,
    /// Of the device.
    pub precision: Precision,
    /// In order of presets.
    pub checks: Vec<Check>,
}

impl ParityReport {
    /// Whether every comparison was made and is within its tolerance.
    pub fn passed(&self) -> bool {
        self.checks.iter().all(|check| check.passed)
    }
}

impl fmt::Display for ParityReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} in {:?} against the CPU in f32", self.device, self.precision)?;
        writeln!(f, "{:<24}{:<14}{:>11}{:>11}  result", "model", "subject", "error", "tolerance")?;
        for check in &self.checks {
            let subject = check.subject.map_or_else(|| "-".to_owned(), |subject| format!("{subject:?}"));
            let error = check.error.map_or_else(|| "-".to_owned(), |error| format!("{error:.2e}"));
            let result = if check.passed { "ok" } else { "FAILED" };
            let (model, tolerance, note) = (&check.model, check.tolerance, &check.note);
            writeln!(f, "{model:<24}{subject:<14}{error:>11}{tolerance:>11.2e}  {result}  {note}")?;
        }
        let failed = self.checks.iter().filter(|check| !check.passed).count();
        write!(f, "{} of {} failed", failed, self.checks.len())
    }
}

/// Compares; see the [module](self). A preset that ends in a panic on the device is a failed check, not the end.
///
/// # Errors
/// If there is no such device or preset.
pub fn parity(options: &ParityOptions) -> Result<ParityReport, BenchError> {
    limit_threads(options.threads)?;
    let device = device::by_name(&options.device)?;
    let all = || PRESETS.map(str::to_owned).to_vec();
    let models = if options.models.is_empty() { all() } else { options.models.clone() };
    let configs =
        models.iter().map(|model| ClassifierConfig::preset(model, CLASSES)).collect::<Result<Vec<_>, _>>()?;
    let bf16 = match options.precision {
        Precision::Bf16 => true,
        Precision::F32 => false,
        Precision::Auto => !device::is_cpu(&device),
    };
    let (precision, rounding) = match bf16 {
        true => (harvest_models::Precision::Bf16, 2f64.powi(-8)),
        false => (harvest_models::Precision::F32, 2f64.powi(-11)),
    };
    let mut checks = Vec::new();
    for (model, config) in models.into_iter().zip(configs) {
        let expected = compute(&config, &Device::flex(), harvest_models::Precision::F32)?;
        match catch_unwind(AssertUnwindSafe(|| compute(&config, &device, precision))) {
            Ok(found) => checks.extend(compare(&model, &expected, &found?, rounding)),
            Err(panic) => checks.push(Check {
                model,
                subject: None,
                error: None,
                tolerance: 0.0,
                passed: false,
                note: words_of(panic.as_ref()),
            }),
        }
    }
    Ok(ParityReport { device: device::describe(&device), precision: options.precision, checks })
}

/// What one device says.
struct Numbers {
    logits: Vec<f32>,
    loss: f64,
    /// By parameter, each flattened.
    gradients: Vec<(String, Vec<f32>)>,
    second_loss: f64,
}

fn compute(
    config: &ClassifierConfig,
    device: &Device,
    precision: harvest_models::Precision,
) -> Result<Numbers, BenchError> {
    let network = config.init(SEED, &device.clone().autodiff())?.with_precision(precision);
    let batch = smooth_batch(config.image_size(), device);
    let evaluated = network.detached().forward(batch.labelled.clone(), Mode::Evaluate).logits;
    let mut algorithm = AlgorithmConfig::default().build(&Problem::bare(CLASSES, UNLABELLED, 1000, device));
    let mut step = |network: &Classifier| {
        let independent = config.rows_are_independent();
        algorithm.step(&StepNetwork::new(network, independent, SEED), &batch).total
    };
    let loss = step(&network);
    let first = scalar(loss.clone());
    let mut gradients = GradientsParams::from_grads(loss.backward(), &network);
    let flat = network
        .parameters()
        .into_iter()
        .map(|parameter| {
            let gradient = match parameter.shape.len() {
                1 => gradients.get::<1>(parameter.id).map(values),
                2 => gradients.get::<2>(parameter.id).map(values),
                3 => gradients.get::<3>(parameter.id).map(values),
                _ => gradients.get::<4>(parameter.id).map(values),
            };
            (parameter.name, gradient.unwrap_or_default())
        })
        .collect();
    let rule =
        OptimizerConfig { rule: OptimizerName::AdamW, weight_decay: 5e-4, momentum: 0.0, layer_decay: 1.0 };
    let network = Optimizer::new(rule, &network).step(network, &mut gradients, 1e-4);
    let second = scalar(step(&network));
    Ok(Numbers { logits: values(evaluated), loss: first, gradients: flat, second_loss: second })
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

fn scalar(tensor: Tensor<1>) -> f64 {
    tensor.inner().into_data().iter::<f64>().next().unwrap_or(f64::NAN)
}

/// Images with large coloured shapes, so that rows differ by more than noise.
fn smooth_batch(size: usize, device: &Device) -> SslBatch {
    let mut rng = stream(SEED, Purpose::View, [0; 3]);
    let mut images = |count: usize| {
        let bytes = (0..count).flat_map(|_| {
            let mut grid = RgbImage::new(4, 4);
            rng.fill_bytes(&mut grid);
            resize(&grid, size as u32, size as u32, Filter::Bilinear).into_raw()
        });
        images_to_tensor(bytes.collect(), size, &Normalisation::default(), device)
    };
    let labels: Vec<i32> = (0..LABELLED as i32).collect();
    SslBatch {
        labelled: images(LABELLED),
        labels: Tensor::<1, Int>::from_data(labels.as_slice(), device),
        weak: vec![images(UNLABELLED)],
        strong: vec![images(UNLABELLED)],
        indices: (0..UNLABELLED as u32).collect(),
        places: Places::whole(LABELLED, UNLABELLED),
        step: 0,
        total_steps: 1000,
        // A pseudo-label at the very threshold may fall to either side; the loss must not hang on it.
        skip_masked: false,
        objective: Objective::default(),
    }
}

fn compare(model: &str, expected: &Numbers, found: &Numbers, rounding: f64) -> Vec<Check> {
    let check = |subject: Subject, error: f64, note: String| {
        let tolerance = subject.tolerance_in_roundings() * rounding;
        let passed = error <= tolerance;
        let error = error.is_finite().then(|| significant(error));
        Check { model: model.to_owned(), subject: Some(subject), error, tolerance, passed, note }
    };
    let relative = |expected: f64, found: f64| (found - expected).abs() / expected.abs().max(1e-3);
    let largest = expected.logits.iter().fold(0.0, |largest, logit| f64::max(largest, logit.abs().into()));
    // Not `f64::max`, which passes over what is not a number.
    let worst = |worst: f64, next: f64| if next > worst || next.is_nan() { next } else { worst };
    let logits = expected.logits.iter().zip(&found.logits).map(|(e, f)| f64::from((e - f).abs()));

    let norms: Vec<f64> =
        expected.gradients.iter().map(|(_, gradient)| norm(gradient.iter().copied())).collect();
    let whole = norm(norms.iter().map(|norm| *norm as f32));
    let typical = whole / (norms.len() as f64).sqrt();
    let (mut squares, mut worst_parameter) = (0.0, (0.0, String::new()));
    for (((name, e), (_, f)), own) in expected.gradients.iter().zip(&found.gradients).zip(&norms) {
        let difference = match e.len() == f.len() {
            true => norm(e.iter().zip(f).map(|(e, f)| e - f)),
            false => f64::NAN,
        };
        squares += difference * difference;
        let error = difference / own.max(0.01 * typical);
        if error > worst_parameter.0 || error.is_nan() {
            worst_parameter = (error, name.clone());
        }
    }
    vec![
        check(Subject::Logits, logits.fold(0.0, worst) / largest, String::new()),
        check(Subject::Loss, relative(expected.loss, found.loss), String::new()),
        check(Subject::Gradients, squares.sqrt() / whole, String::new()),
        check(Subject::Parameter, worst_parameter.0, worst_parameter.1),
        check(Subject::SecondLoss, relative(expected.second_loss, found.second_loss), String::new()),
    ]
}

fn norm(values: impl Iterator<Item = f32>) -> f64 {
    values.map(|value| f64::from(value) * f64::from(value)).sum::<f64>().sqrt()
}

fn words_of(panic: &(dyn std::any::Any + Send)) -> String {
    let words = panic.downcast_ref::<String>().map(String::as_str);
    let words = words.or_else(|| panic.downcast_ref::<&str>().copied());
    words.unwrap_or("the program panicked without a word").lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers() -> Numbers {
        Numbers {
            logits: vec![1.0, -2.0],
            loss: 2.0,
            gradients: vec![("large".into(), vec![3.0, 4.0]), ("small".into(), vec![0.05])],
            second_loss: 1.5,
        }
    }

    fn failed(found: &Numbers) -> Vec<Option<Subject>> {
        let checks = compare("model", &numbers(), found, 2f64.powi(-11));
        checks.into_iter().filter(|check| !check.passed).map(|check| check.subject).collect()
    }

    #[test]
    fn the_cpu_agrees_with_itself() {
        let options = ParityOptions {
            device: "cpu".into(),
            models: vec!["resnet8".into(), "vit_tiny_patch2_32".into()],
            precision: Precision::F32,
            threads: None,
        };
        let report = parity(&options).expect("presets on the CPU");
        assert!(report.passed() && report.checks.len() == 10, "{report}");
        assert!(report.to_string().ends_with("0 of 10 failed"), "{report}");
    }

    #[test]
    fn a_lost_gradient_and_numbers_that_are_none_are_found() {
        assert_eq!(failed(&numbers()), []);
        let mut lost = numbers();
        lost.gradients[1].1 = vec![0.0];
        assert_eq!(failed(&lost), [Some(Subject::Parameter)], "too small to be seen in the whole");
        let mut absent = numbers();
        absent.gradients[1].1.clear();
        assert_eq!(failed(&absent), [Some(Subject::Gradients), Some(Subject::Parameter)]);
        let none = Numbers { logits: vec![f32::NAN, -2.0], second_loss: f64::NAN, ..numbers() };
        assert_eq!(failed(&none), [Some(Subject::Logits), Some(Subject::SecondLoss)]);
        let off = Numbers { loss: 2.01, ..numbers() };
        assert_eq!(failed(&off), [Some(Subject::Loss)]);
    }
}
