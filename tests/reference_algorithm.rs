//! Every algorithm against the established implementation, iteration by iteration.
//!
//! The recorded cases feed logits, not images: a stand-in network hands its "images" `[N, C, 1, 1]` on as logits, so
//! the gradient at the images is the gradient at the logits.

#[path = "support/linked.rs"]
mod linked;
#[path = "support/ranks.rs"]
mod ranks;
mod support;

use burn::tensor::{Device, Int, Tensor, TensorData};
use harvest::algorithms::{
    AdaMatchConfig, AlgorithmBuilder, AlgorithmConfig, AlgorithmName, Alone, Annealing, FixMatchConfig,
    FlexMatchConfig, FreeMatchConfig, Network, Objective, Place, Places, Problem, PseudoLabelConfig, Ranks,
    SoftMatchConfig, SoftMatchTarget, SslBatch, State, Targets, UdaConfig,
};
use serde_json::Value;
use support::{Vectors, assert_close, json};

/// Tolerances of the reference for losses and states, and for gradients: absolute, relative.
const VALUE: (f32, f32) = (2e-6, 2e-5);
const GRADIENT: (f32, f32) = (1e-6, 1e-4);

struct StandIn<'a> {
    rows_are_independent: bool,
    ranks: &'a dyn Ranks,
}

impl Network for StandIn<'_> {
    fn student(&self, images: Tensor<4>, _rows: &[u64]) -> Tensor<2> {
        images.flatten::<3>(2, 3).squeeze_dim(2)
    }
    fn teacher(&self, images: Tensor<4>, rows: &[u64]) -> Tensor<2> {
        self.student(images, rows).inner()
    }
    fn rows_are_independent(&self) -> bool {
        self.rows_are_independent
    }
    fn ranks(&self) -> &dyn Ranks {
        self.ranks
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
        AlgorithmName::FlexMatch => {
            config.flexmatch = FlexMatchConfig {
                threshold: number(settings, "p_cutoff"),
                threshold_warmup: Some(flag(settings, "thresh_warmup")),
                unlabelled_weight: number(settings, "ulb_loss_ratio"),
                hard_labels: flag(settings, "hard_label"),
            }
        }
        AlgorithmName::AdaMatch => {
            config.adamatch = AdaMatchConfig {
                threshold: number(settings, "p_cutoff"),
                decay: Some(number(settings, "ema_p")),
                unlabelled_weight: number(settings, "ulb_loss_ratio"),
                hard_labels: flag(settings, "hard_label"),
            }
        }
        AlgorithmName::SoftMatch => {
            config.softmatch = SoftMatchConfig {
                target: match flag(settings, "dist_uniform") {
                    true => SoftMatchTarget::Uniform,
                    false => SoftMatchTarget::Labelled,
                },
                decay: Some(number(settings, "ema_p")),
                n_sigma: number(settings, "n_sigma"),
                unlabelled_weight: number(settings, "ulb_loss_ratio"),
                hard_labels: flag(settings, "hard_label"),
                temperature: number(settings, "T"),
            }
        }
        AlgorithmName::Uda => {
            config.uda = UdaConfig {
                threshold: number(settings, "p_cutoff"),
                tsa: match settings["tsa_schedule"].as_str() {
                    Some("none") => Annealing::None,
                    Some("linear") => Annealing::Linear,
                    Some("exp") => Annealing::Exp,
                    Some("log") => Annealing::Log,
                    other => panic!("schedule {other:?}"),
                },
                // The recorded implementation has a temperature and ignores it.
                temperature: None,
                unlabelled_weight: number(settings, "ulb_loss_ratio"),
            }
        }
        AlgorithmName::PseudoLabel => {
            config.pseudolabel = PseudoLabelConfig {
                threshold: number(settings, "p_cutoff"),
                unlabelled_weight: number(settings, "ulb_loss_ratio"),
                unsup_warm_up: number(settings, "unsup_warm_up"),
            }
        }
        // MixMatch is compared in `reference_mixing`; self-training has no recorded numbers, and its loss is computed by hand
        // beside it.
        AlgorithmName::Supervised
        | AlgorithmName::SelfTraining
        | AlgorithmName::MixMatch
        | AlgorithmName::ReMixMatch
        | AlgorithmName::MeanTeacher => {}
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
        check_initial_state(&vectors, case, &algorithm.state());

        for t in 0..iterations {
            let what = |part: &str| format!("{case} iteration {t} {part}");
            let labels = vectors.integers_at(&input("y_lb"), t);
            let labelled = images(&vectors, &input("logits_lb"), t, classes, &device);
            let views = algorithm.views();
            let view = |v: &str| images(&vectors, &input(v), t, classes, &device);
            let weak: Vec<_> = (0..views.weak).map(|_| view("logits_w")).collect();
            let strong: Vec<_> = (0..views.strong).map(|_| view("logits_s")).collect();
            let batch = SslBatch {
                labelled: labelled.clone(),
                labels: Tensor::<1, Int>::from_data(labels.as_slice(), &device),
                weak: weak.clone(),
                strong: strong.clone(),
                indices: indices(&vectors, &input("idx_ulb"), t, weak.first()),
                places: Places::whole(labels.len(), weak.first().map_or(0, |weak| weak.dims()[0])),
                step: t as u64,
                total_steps: steps,
                skip_masked,
                objective: Objective::default(),
            };
            // With `skip_masked` every row is independent; without, the network says it is not.
            let step = algorithm.step(&StandIn { rows_are_independent: skip_masked, ranks: &Alone }, &batch);

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
                check_mask(name, &what("mask"), &values(pseudo.mask.clone()), &scalar("out/mask"));
                if vectors.has(&output("out/threshold")) {
                    let found = values(pseudo.threshold.clone());
                    assert_close(&what("threshold"), &found, &scalar("out/threshold"), VALUE.0, VALUE.1);
                }
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
            for part in ["tsa_threshold", "unsup_warmup"] {
                if step.scalars.iter().any(|(name, _)| *name == part) {
                    assert_close(&what(part), &loss(part), &scalar(&format!("out/{part}")), VALUE.0, VALUE.1);
                }
            }
            if step.scalars.iter().any(|(name, _)| *name == "sup_ratio") {
                let kept = scalar("out/sup_mask");
                let expected = kept.iter().sum::<f32>() / kept.len() as f32;
                assert_eq!(loss("sup_ratio"), [expected], "{}", what("sup_mask"));
            }
            check_state(&vectors, case, t, &algorithm.state());

            let gradients = step.total.backward();
            for (leaf, part) in [
                (Some(&labelled), "grad/logits_lb"),
                (strong.first(), "grad/logits_s"),
                (weak.first(), "grad/logits_w"),
            ] {
                let Some(leaf) = leaf else { continue };
                let found = leaf.grad(&gradients).map(values);
                if vectors.has(&output(part)) {
                    let expected = scalar(part);
                    let found = found.unwrap_or_else(|| vec![0.0; expected.len()]);
                    assert_close(&what(part), &found, &expected, GRADIENT.0, GRADIENT.1);
                } else {
                    assert!(found.into_iter().flatten().all(|g| g == 0.0), "{}", what(part));
                }
            }

            // What is saved and restored continues to the same numbers: go on with a fresh instance.
            let state = algorithm.state();
            algorithm = config(name, &facts["hyperparameters"]).build(&problem);
            algorithm.restore(state).expect("its own state");
        }
    }
}

/// Positions in the data set as recorded, else one after another.
fn indices(vectors: &Vectors, name: &str, t: usize, weak: Option<&Tensor<4>>) -> Vec<u32> {
    if vectors.has(name) {
        return vectors.integers_at(name, t).iter().map(|index| *index as u32).collect();
    }
    (0..weak.map_or(0, |weak| weak.dims()[0]) as u32).collect()
}

/// Masks exactly, weights within the tolerance.
fn check_mask(name: AlgorithmName, what: &str, found: &[f32], expected: &[f32]) {
    match name {
        AlgorithmName::SoftMatch => assert_close(what, found, expected, VALUE.0, VALUE.1),
        _ => assert_eq!(found, expected, "{what}"),
    }
}

/// Names of the recorded states and of ours; the latter differ between algorithms, as in their papers.
const STATES: [(&str, &[&str]); 8] = [
    ("time_p", &["global_threshold"]),
    ("p_model", &["class_expectation", "model_mean"]),
    ("label_hist", &["label_histogram"]),
    ("p_target", &["target_mean"]),
    ("prob_max_mu", &["confidence_mean"]),
    ("prob_max_var", &["confidence_variance"]),
    ("classwise_acc", &["learning_status"]),
    ("selected_label", &["selected"]),
];

/// Compares the recorded states with ours; `expected` reads a recorded one.
fn check_states(
    vectors: &Vectors,
    folder: &str,
    state: &State,
    integers: impl Fn(&str) -> Vec<i64>,
    floats: impl Fn(&str) -> Vec<f32>,
) {
    for (theirs, ours) in STATES {
        let name = format!("{folder}/{theirs}");
        if !vectors.has(&name) {
            continue;
        }
        let ours = ours.iter().find_map(|ours| state.get(*ours)).unwrap_or_else(|| panic!("{name}"));
        if vectors.is_integer(&name) {
            let expected = integers(&name);
            // Ours has an entry for every image of the data set, the recorded one for the unlabelled ones.
            let found: Vec<i64> = ours.iter::<i64>().take(expected.len()).collect();
            assert_eq!(found, expected, "{name}");
        } else {
            let found: Vec<f32> = ours.iter::<f32>().collect();
            assert_close(&name, &found, &floats(&name), VALUE.0, VALUE.1);
        }
    }
}

fn check_initial_state(vectors: &Vectors, case: &str, state: &State) {
    let folder = format!("{case}/init");
    check_states(vectors, &folder, state, |name| vectors.integers(name).1, |name| vectors.floats(name).1);
}

fn check_state(vectors: &Vectors, case: &str, t: usize, state: &State) {
    let folder = format!("{case}/state");
    check_states(
        vectors,
        &folder,
        state,
        |name| vectors.integers_at(name, t),
        |name| vectors.floats_at(name, t),
    );
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

#[test]
fn reference_algorithm_flexmatch() {
    agrees(AlgorithmName::FlexMatch, false);
}

#[test]
fn reference_algorithm_flexmatch_without_the_masked_views() {
    agrees(AlgorithmName::FlexMatch, true);
}

#[test]
fn reference_algorithm_adamatch() {
    agrees(AlgorithmName::AdaMatch, false);
}

#[test]
fn reference_algorithm_adamatch_without_the_masked_views() {
    agrees(AlgorithmName::AdaMatch, true);
}

#[test]
fn reference_algorithm_softmatch() {
    agrees(AlgorithmName::SoftMatch, false);
}

#[test]
fn reference_algorithm_softmatch_without_the_masked_views() {
    agrees(AlgorithmName::SoftMatch, true);
}

#[test]
fn reference_algorithm_uda() {
    agrees(AlgorithmName::Uda, false);
}

#[test]
fn reference_algorithm_uda_without_the_masked_views() {
    agrees(AlgorithmName::Uda, true);
}

#[test]
fn reference_algorithm_pseudolabel() {
    agrees(AlgorithmName::PseudoLabel, false);
}

#[test]
fn reference_algorithm_pseudolabel_without_the_masked_views() {
    agrees(AlgorithmName::PseudoLabel, true);
}
