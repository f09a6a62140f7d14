//! Times losses and pseudo-labels, fused and in burn's operations, at the sizes of training steps: images of a step times
//! classes.
//!
//! `cargo bench -p harvest-kernels --bench loss [OPERATION] [SECONDS]`; prints the least, the median and the 90th percentile of
//! the times in microseconds.

mod timing;

use burn::tensor::{Device, Int, Tensor};

use harvest_kernels::{
    ClassTargets, Predictions, class_counts, class_counts_reference, cross_entropy, cross_entropy_reference,
    predictions, predictions_reference,
};
use timing::{random, report, timed};

/// Images and classes: a small batch of few classes, the strong views of 64 labelled images at seven for one, ImageNet's classes.
const SIZES: [[usize; 2]; 3] = [[64, 10], [448, 100], [64, 1000]];

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
