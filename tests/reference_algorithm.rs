//! Every algorithm against the established implementation, iteration by iteration.
//!
//! The recorded cases feed logits, not images: a stand-in network hands its "images" `[N, C, 1, 1]` on as logits, so
//! the gradient at the images is the gradient at the logits.

mod support;

use burn::tensor::{Device, Int, Tensor, TensorData};
use harvest::algorithms::{
    Algorithm, AlgorithmBuilder, AlgorithmConfig, AlgorithmName, FixMatchConfig, FreeMatchConfig, Network,
    Objective, Problem, SslBatch, Targets, Views,
};
use serde_json::Value;
use support::{Vectors, assert_close, json};

/// Tolerances of the reference for losses and states, and for gradients: absolute, relative.
const VALUE: (f32, f32) = (2e-6, 2e-5);
const GRADIENT: (f32, f32) = (1e-6, 1e-4);

struct StandIn {
    rows_are_independent: bool,
}

impl Network for StandIn {
    fn student(&self, images: Tensor<4>, _rows: &[u64]) -> Tensor<2> {
        images.flatten::<3>(2, 3).squeeze_dim(2)
    }
    fn teacher(&self, images: Tensor<4>, rows: &[u64]) -> Tensor<2> {
        self.student(images, rows).inner()
    }
    fn rows_are_independent(&self) -> bool {
        self.rows_are_independent
    }
}

fn number(settings: &Value, key: &str) -> f32 {
    settings[key].as_f64().unwrap_or_else(|| panic!("hyper-parameter {key}")) as f32
}

fn flag(settings: &Value, key: &str) -> bool {
    settings[key].as_bool().unwrap_or_else(|| panic!("hyper-parameter {key}"))
}

fn config(name: AlgorithmName, settings: &Value) -> AlgorithmConfig {
    let mut config = AlgorithmConfig { name, ..Default::default() };
    match name {
        AlgorithmName::FreeMatch => {
            config.freematch = FreeMatchConfig {
                decay: Some(number(settings, "ema_p")),
                unlabelled_weight: number(settings, "ulb_loss_ratio"),
                fairness_weight: number(settings, "ent_loss_ratio"),
                hard_labels: flag(settings, "hard_label"),
                temperature: number(settings, "T"),
                use_quantile: flag(settings, "use_quantile"),
                clip_threshold: flag(settings, "clip_thresh"),
            }
        }
        AlgorithmName::FixMatch => {
            config.fixmatch = FixMatchConfig {
                threshold: number(settings, "p_cutoff"),
                unlabelled_weight: number(settings, "ulb_loss_ratio"),
                hard_labels: flag(settings, "hard_label"),
            }
        }
        AlgorithmName::Supervised => {}
    }
    config
}

/// One iteration's tensor `[N, C]` as a tracked leaf of shape `[N, C, 1, 1]`.
fn images(vectors: &Vectors, name: &str, t: usize, classes: usize, device: &Device) -> Tensor<4> {
    let values = vectors.floats_at(name, t);
    let rows = values.len() / classes;
    Tensor::from_data(TensorData::new(values, [rows, classes, 1, 1]), device).require_grad()
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

/// Runs every case of one algorithm and compares all it recorded.
fn agrees(name: AlgorithmName, skip_masked: bool) {
    let index = json("algorithms/index.json");
    let entry = &index[name.as_str()];
    let file = entry["file"].as_str().expect("file name");
    let vectors = Vectors::read(&format!("algorithms/{file}"));
    let cases = entry["cases"].as_object().expect("cases");
    assert!(!cases.is_empty());
    for (case, facts) in cases {
        let classes = facts["num_classes"].as_u64().expect("classes") as usize;
        let iterations = facts["iterations"].as_u64().expect("iterations") as usize;
        let group = case.split('/').next().expect("class group");
        let input = |what: &str| format!("{group}/in/{what}");
        let output = |what: &str| format!("{case}/{what}");
        let device = Device::flex().autodiff();
        let steps = facts["num_train_iter"].as_u64().expect("steps");
        let pool = facts["unlabelled_pool"].as_u64().unwrap_or(0) as usize;
        let problem = Problem::bare(classes, pool, steps, &device);
        let mut algorithm = config(name, &facts["hyperparameters"]).build(&problem);
        check_initial_state(&vectors, case, algorithm.as_ref());

        for t in 0..iterations {
            let what = |part: &str| format!("{case} iteration {t} {part}");
            let labels = vectors.integers_at(&input("y_lb"), t);
            let labelled = images(&vectors, &input("logits_lb"), t, classes, &device);
            let unlabelled = algorithm.views() != Views::NONE;
            let (weak, strong) = if unlabelled {
                let view = |v: &str| images(&vectors, &input(v), t, classes, &device);
                (view("logits_w"), view("logits_s"))
            } else {
                (labelled.clone(), labelled.clone())
            };
            let batch = SslBatch {
                labelled: labelled.clone(),
                labels: Tensor::<1, Int>::from_data(labels.as_slice(), &device),
                weak: vec![weak.clone()],
                strong: vec![strong.clone()],
                indices: (0..weak.dims()[0] as u32).collect(),
                step: t as u64,
                total_steps: steps,
                skip_masked,
                objective: Objective::default(),
            };
            // With `skip_masked` every row is independent; without, the network says it is not.
            let step = algorithm.step(&StandIn { rows_are_independent: skip_masked }, &batch);

            let scalar = |part: &str| vectors.floats_at(&output(part), t);
            let loss = |name: &str| {
                let found = step.scalars.iter().find(|(n, _)| *n == name).expect(name);
                values(found.1.clone())
            };
            assert_close(&what("sup_loss"), &loss("sup"), &scalar("out/sup_loss"), VALUE.0, VALUE.1);
            let total = values(step.total.clone().inner());
            assert_close(&what("total_loss"), &total, &scalar("out/total_loss"), VALUE.0, VALUE.1);
            if let Some(pseudo) = &step.pseudo_labels {
                assert_close(
                    &what("unsup_loss"),
                    &loss("unsup"),
                    &scalar("out/unsup_loss"),
                    VALUE.0,
                    VALUE.1,
                );
                assert_eq!(values(pseudo.mask.clone()), scalar("out/mask"), "{}", what("mask"));
                let threshold = values(pseudo.threshold.clone());
                assert_close(&what("threshold"), &threshold, &scalar("out/threshold"), VALUE.0, VALUE.1);
                let label = output("out/pseudo_label");
                match &pseudo.targets {
                    Targets::Hard(found) => {
                        let found: Vec<i64> = found.to_data().iter::<i64>().collect();
                        assert_eq!(found, vectors.integers_at(&label, t), "{}", what("pseudo_label"));
                    }
                    Targets::Soft(found) => {
                        let expected = vectors.floats_at(&label, t);
                        assert_close(
                            &what("pseudo_label"),
                            &values(found.clone()),
                            &expected,
                            VALUE.0,
                            VALUE.1,
                        );
                    }
                }
            }
            if vectors.has(&output("out/ent_loss")) {
                assert_close(&what("ent_loss"), &loss("fairness"), &scalar("out/ent_loss"), VALUE.0, VALUE.1);
            }
            check_state(&vectors, case, t, algorithm.as_ref());

            let gradients = step.total.backward();
            for (leaf, part) in [(&labelled, "grad/logits_lb"), (&strong, "grad/logits_s")] {
                if !vectors.has(&output(part)) {
                    continue;
                }
                let expected = scalar(part);
                let found = leaf.grad(&gradients).map_or_else(|| vec![0.0; expected.len()], values);
                assert_close(&what(part), &found, &expected, GRADIENT.0, GRADIENT.1);
            }
            if let Some(gradient) = weak.grad(&gradients).filter(|_| unlabelled) {
                assert!(values(gradient).iter().all(|g| *g == 0.0), "{}", what("weak gradient"));
            }

            // What is saved and restored continues to the same numbers: go on with a fresh instance.
            let state = algorithm.state();
            algorithm = config(name, &facts["hyperparameters"]).build(&problem);
            algorithm.restore(state).expect("its own state");
        }
    }
}

/// Names of the recorded states and of ours.
const STATES: [(&str, &str); 3] =
    [("time_p", "global_threshold"), ("p_model", "class_expectation"), ("label_hist", "label_histogram")];

fn check_initial_state(vectors: &Vectors, case: &str, algorithm: &dyn Algorithm) {
    let state = algorithm.state();
    for (theirs, ours) in STATES {
        let name = format!("{case}/init/{theirs}");
        if vectors.has(&name) {
            let found: Vec<f32> = state[ours].iter::<f32>().collect();
            assert_close(&name, &found, &vectors.floats(&name).1, VALUE.0, VALUE.1);
        }
    }
}

fn check_state(vectors: &Vectors, case: &str, t: usize, algorithm: &dyn Algorithm) {
    let state = algorithm.state();
    for (theirs, ours) in STATES {
        let name = format!("{case}/state/{theirs}");
        if vectors.has(&name) {
            let found: Vec<f32> = state[ours].iter::<f32>().collect();
            assert_close(
                &format!("{name} after {t}"),
                &found,
                &vectors.floats_at(&name, t),
                VALUE.0,
                VALUE.1,
            );
        }
    }
}

#[test]
fn reference_algorithm_supervised() {
    agrees(AlgorithmName::Supervised, false);
}

#[test]
fn reference_algorithm_fixmatch() {
    agrees(AlgorithmName::FixMatch, false);
}

#[test]
fn reference_algorithm_fixmatch_without_the_masked_views() {
    agrees(AlgorithmName::FixMatch, true);
}

#[test]
fn reference_algorithm_freematch() {
    agrees(AlgorithmName::FreeMatch, false);
}

#[test]
fn reference_algorithm_freematch_without_the_masked_views() {
    agrees(AlgorithmName::FreeMatch, true);
}
