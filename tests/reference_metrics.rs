//! Metrics agree with scikit-learn's on every recorded case.

use harvest::metrics::{Macro, Scores, Tally};
use serde_json::Value;
use std::path::PathBuf;

/// The recorded tolerance of metrics: 1e-9 absolute and relative.
const TOLERANCE: f64 = 1e-9;

fn cases() -> Vec<Value> {
    let folder = std::env::var_os("HARVEST_REFERENCE").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference")),
        PathBuf::from,
    );
    let text = std::fs::read_to_string(folder.join("metrics.json")).expect("metrics.json is readable");
    let mut file: Value = serde_json::from_str(&text).expect("metrics.json is JSON");
    serde_json::from_value(file["cases"].take()).expect("metrics.json holds cases")
}

fn get<T: serde::de::DeserializeOwned>(value: &Value, key: &str) -> T {
    serde_json::from_value(value[key].clone()).unwrap_or_else(|error| panic!("`{key}`: {error}"))
}

fn assert_close(what: &str, got: f64, expected: f64) {
    let distance = (got - expected).abs();
    assert!(distance <= TOLERANCE + TOLERANCE * expected.abs(), "{what}: {got}, expected {expected}");
}

fn assert_all_close(what: &str, got: &[f64], expected: &[f64]) {
    assert_eq!(got.len(), expected.len(), "{what}");
    got.iter().zip(expected).for_each(|(&got, &expected)| assert_close(what, got, expected));
}

/// One of the two label conventions: macro averages, per-class scores and the matrix over `classes`.
fn assert_labels(name: &str, scores: &Scores, averages: Macro, classes: &[usize], expected: &Value) {
    assert_close(&format!("{name} precision"), averages.precision, get(expected, "precision_macro"));
    assert_close(&format!("{name} recall"), averages.recall, get(expected, "recall_macro"));
    assert_close(&format!("{name} f1"), averages.f1, get(expected, "f1_macro"));
    let of = |value: fn(&harvest::metrics::ClassScores) -> f64| -> Vec<f64> {
        classes.iter().map(|&class| value(&scores.per_class[class])).collect()
    };
    let per_class = |key| get::<Vec<f64>>(expected, key);
    assert_all_close(name, &of(|class| class.precision), &per_class("precision_per_class"));
    assert_all_close(name, &of(|class| class.recall), &per_class("recall_per_class"));
    assert_all_close(name, &of(|class| class.f1), &per_class("f1_per_class"));
    let matrix = scores.confusion.restricted(classes);
    assert_eq!(Vec::<Vec<u64>>::from(matrix.clone()), get::<Vec<Vec<u64>>>(expected, "confusion"), "{name}");
    let shares: Vec<Vec<f64>> = get(expected, "confusion_row_normalised");
    for (got, expected) in matrix.row_normalised().iter().zip(&shares) {
        assert_all_close(name, got, expected);
    }
}

#[test]
fn reference_metrics_from_predictions_agree_in_both_label_conventions() {
    let cases = cases();
    assert!(!cases.is_empty());
    for case in cases {
        let name: String = get(&case, "case");
        let (targets, predictions): (Vec<usize>, Vec<usize>) =
            (get(&case, "targets"), get(&case, "predictions"));
        let classes = get(&case, "num_classes");
        let scores = Scores::from_predictions(&targets, &predictions, classes).unwrap();
        assert_eq!(scores.samples as usize, targets.len());
        assert_close(&name, scores.accuracy, get(&case, "accuracy"));
        assert_close(&name, scores.error_rate, 1.0 - get::<f64>(&case, "accuracy"));
        assert_close(&name, scores.balanced_accuracy, get(&case, "balanced_accuracy"));
        let present = scores.confusion.present();
        assert_labels(&name, &scores, scores.macro_present, &present, &case["default_labels"]);
        let all: Vec<usize> = get(&case["all_labels"], "labels");
        assert_labels(&name, &scores, scores.macro_all, &all, &case["all_labels"]);
    }
}

#[test]
fn reference_metrics_from_scores_agree_in_top_k_and_cross_entropy() {
    for case in cases() {
        let name: String = get(&case, "case");
        let (targets, rows): (Vec<usize>, Vec<Vec<f64>>) = (get(&case, "targets"), get(&case, "scores"));
        let expected: std::collections::BTreeMap<String, f64> = get(&case, "top_k");
        let ks: Vec<usize> = expected.keys().map(|k| k.parse().expect("k is a number")).collect();
        let mut tally = Tally::new(get(&case, "num_classes"), &ks);
        for (targets, rows) in targets.chunks(7).zip(rows.chunks(7)) {
            tally.add(targets, &rows.concat()).unwrap();
        }
        let scores = tally.scores();
        for (k, expected) in ks.iter().zip(expected.values()) {
            assert_close(&format!("{name} top {k}"), scores.top(*k).unwrap(), *expected);
        }
        assert_close(&name, scores.cross_entropy.unwrap(), get(&case, "cross_entropy"));
        let predictions: Vec<usize> = get(&case, "predictions");
        let from_predictions =
            Scores::from_predictions(&targets, &predictions, get(&case, "num_classes")).unwrap();
        assert_eq!(scores.confusion, from_predictions.confusion, "{name}: predictions are the arg-max");
    }
}
