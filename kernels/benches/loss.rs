//! Times losses and pseudo-labels, fused and in burn's operations, at the sizes of training steps: images of a step times
//! classes.
//!
//! `cargo bench -p harvest-kernels --bench loss [OPERATION] [SECONDS]`; prints the least, the median and the 90th percentile of
//! the times in microseconds.

use std::time::Instant;

use burn::tensor::{Device, Int, Tensor, TensorData};
use harvest_kernels::{
    ClassTargets, Predictions, class_counts, class_counts_reference, cross_entropy, cross_entropy_reference,
    predictions, predictions_reference,
};

/// Images and classes: a small batch of few classes, the strong views of 64 labelled images at seven for one, ImageNet's classes.
const SIZES: [[usize; 2]; 3] = [[64, 10], [448, 100], [64, 1000]];

fn random<const D: usize>(shape: [usize; D], scale: f32, device: &Device) -> Tensor<D> {
    let mut state = 88_172_645_463_325_252u64;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        ((state >> 40) as f32 / (1u64 << 23) as f32 - 1.0) * scale
    };
    Tensor::from_data(
        TensorData::new((0..shape.iter().product()).map(next).collect::<Vec<f32>>(), shape),
        device,
    )
}

/// Runs `work`, which returns the times of its parts in seconds, for `seconds`; prints a line for each part.
fn report<const N: usize>(name: &str, parts: [&str; N], seconds: f64, mut work: impl FnMut() -> [f64; N]) {
    work();
    let (begin, mut times) = (Instant::now(), Vec::new());
    while times.len() < 5 || begin.elapsed().as_secs_f64() < seconds {
        times.push(work());
    }
    for (index, part) in parts.iter().enumerate() {
        let mut times: Vec<f64> = times.iter().map(|times| times[index] * 1e6).collect();
        times.sort_by(f64::total_cmp);
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
        println!(
            "{name:44} {part:9} min {:8.1}  median {:8.1}  p90 {:8.1}  µs, n = {}",
            at(0.0),
            at(0.5),
            at(0.9),
            times.len()
        );
    }
}

fn timed<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let begin = Instant::now();
    let result = work();
    (begin.elapsed().as_secs_f64(), result)
}

type Loss = fn(Tensor<2>, ClassTargets, Option<Tensor<1>>, Option<Tensor<1>>, f32) -> Tensor<1>;

/// The masked mean of a step: forward with a graph, backward.
fn loss(name: &str, seconds: f64, [rows, classes]: [usize; 2], soft: bool, loss: Loss) {
    let device = Device::flex();
    let logits = random([rows, classes], 3.0, &device);
    let hard: Vec<i32> = (0..rows).map(|row| (row * 7 % classes) as i32).collect();
    let targets = match soft {
        true => ClassTargets::Soft(predictions(random([rows, classes], 2.0, &device)).probabilities),
        false => ClassTargets::Hard(Tensor::<1, Int>::from_data(hard.as_slice(), &device)),
    };
    let mask = random([rows], 1.0, &device).greater_scalar(0.0).float();
    let kind = if soft { "soft" } else { "hard" };
    report(&format!("{name} {kind} {rows} x {classes}"), ["forward", "backward"], seconds, || {
        let x = Tensor::from_inner(logits.clone()).require_grad();
        let (forward, total) = timed(|| loss(x, targets.clone(), None, Some(mask.clone()), rows as f32));
        let (backward, _) = timed(|| total.backward());
        [forward, backward]
    });
}

/// From weak logits to what FreeMatch needs of them: labels, masks by a threshold for each class, mean and histogram.
fn labels(name: &str, seconds: f64, [rows, classes]: [usize; 2], fused: bool) {
    let device = Device::flex();
    let logits = random([rows, classes], 3.0, &device);
    let threshold = random([classes], 1.0, &device).abs();
    report(&format!("{name} {rows} x {classes}"), ["predict", "believe", "count"], seconds, || {
        let predict = if fused { predictions } else { predictions_reference };
        let (a, found): (f64, Predictions) = timed(|| predict(logits.clone()));
        let (b, _) = timed(|| match fused {
            true => found.reaching(threshold.clone()),
            false => found.reaching_reference(threshold.clone()),
        });
        let (c, _) = timed(|| match fused {
            true => (found.mean(), class_counts(found.label.clone(), None, classes)),
            false => (found.mean_reference(), class_counts_reference(found.label.clone(), None, classes)),
        });
        [a, b, c]
    });
}

fn main() {
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let wanted = |name: &str| arguments.first().is_none_or(|filter| name.contains(filter.as_str()));
    let seconds = arguments.get(1).and_then(|seconds| seconds.parse().ok()).unwrap_or(0.5);
    println!("{} threads", rayon::current_num_threads());
    for size in SIZES {
        if wanted("cross_entropy") {
            for soft in [false, true] {
                loss("cross_entropy", seconds, size, soft, cross_entropy);
                loss("cross_entropy reference", seconds, size, soft, cross_entropy_reference);
            }
        }
        if wanted("pseudo_label") {
            labels("pseudo_label", seconds, size, true);
            labels("pseudo_label reference", seconds, size, false);
        }
    }
}
