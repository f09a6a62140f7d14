//! Neighbours, losses and cluster scores against the established implementations.

#[path = "support/linked.rs"]
mod linked;
mod support;

use std::sync::atomic::AtomicBool;

use burn::tensor::{Device, Tensor, TensorData};
use harvest::algorithms::Alone;
use harvest::clustering::{Embedding, Neighbours, Search, nt_xent, scan_loss, self_label_loss};
use harvest::metrics::ClusterScores;
use harvest::training::Crew;
use linked::ring;
use serde_json::Value;
use support::{Vectors, assert_close, json};

/// Tolerances for losses, and for gradients: absolute, relative.
const VALUE: (f32, f32) = (2e-6, 2e-5);
const GRADIENT: (f32, f32) = (1e-6, 1e-4);

fn vectors() -> Vectors {
    Vectors::read("scan/scan.safetensors")
}

/// The cases of one part, by name.
fn cases(part: &str) -> Vec<(String, Value)> {
    let index = json("scan/scan.json");
    let cases = index[part].as_object().expect("cases");
    assert!(!cases.is_empty(), "{part}");
    cases.iter().map(|(name, facts)| (name.clone(), facts.clone())).collect()
}

fn tracked(vectors: &Vectors, name: &str) -> Tensor<2> {
    let (shape, values) = vectors.floats(name);
    let device = Device::flex().autodiff();
    Tensor::from_data(TensorData::new(values, [shape[0], shape[1]]), &device).require_grad()
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

#[test]
fn neighbours_are_the_reference_s() {
    let vectors = vectors();
    let (shape, features) = vectors.floats("knn/features");
    let (_, indices) = vectors.integers("knn/indices");
    let (_, similarities) = vectors.floats("knn/similarities");
    let (_, safe) = vectors.integers("knn/order_is_safe");
    let (_, labels) = vectors.integers("knn/labels");
    let facts = &json("scan/scan.json")["knn"];
    let k = facts["k"].as_u64().expect("k") as usize;
    let rows = Embedding::new(features, shape[1]).expect("finite");
    let stop = AtomicBool::new(false);
    let found =
        Neighbours::search(&rows, k, Search::Exact, 0, &Device::flex(), &stop, &mut |_| ()).expect("runs");
    assert_eq!((found.len(), found.k()), (shape[0], k));
    for (row, order_is_safe) in safe.iter().enumerate() {
        let recorded = row * k..(row + 1) * k;
        let what = format!("similarities of {row}");
        assert_close(&what, found.similarities(row), &similarities[recorded.clone()], 2e-6, 0.0);
        if *order_is_safe == 1 {
            let names: Vec<i64> = found.of(row).iter().map(|name| i64::from(*name)).collect();
            assert_eq!(names, indices[recorded], "neighbours of {row}");
        }
    }
    let groups: Vec<u32> = labels.iter().map(|label| *label as u32).collect();
    let agreement = facts["neighbour_label_agreement"].as_f64().expect("agreement");
    assert!((found.agreement(&groups).0 - agreement).abs() < 1e-9);
}

#[test]
fn scan_loss_and_its_gradients_are_the_reference_s() {
    let vectors = vectors();
    for (case, facts) in cases("scan_loss") {
        let name = |what: &str| format!("scan_loss/{case}/{what}");
        let (anchors, neighbours) =
            (tracked(&vectors, &name("anchor_logits")), tracked(&vectors, &name("neighbour_logits")));
        let weight = facts["entropy_weight"].as_f64().expect("weight") as f32;
        let loss = scan_loss(anchors.clone(), neighbours.clone(), weight);
        for (part, found) in
            [("total", &loss.total), ("consistency", &loss.consistency), ("entropy", &loss.entropy)]
        {
            let (_, expected) = vectors.floats(&name(part));
            assert_close(&name(part), &values(found.clone().inner()), &expected, VALUE.0, VALUE.1);
        }
        // Where a pair hardly agrees at all, the reference's derivative is not that of its loss (it divides by 1e-12); ours is.
        let agreement = values(
            (burn::tensor::activation::softmax(anchors.clone().inner(), 1)
                * burn::tensor::activation::softmax(neighbours.clone().inner(), 1))
            .sum_dim(1),
        );
        let gradients = loss.total.backward();
        let mut compared = 0;
        for (what, leaf) in [("grad_anchor", &anchors), ("grad_neighbour", &neighbours)] {
            let (shape, expected) = vectors.floats(&name(what));
            let found = values(leaf.grad(&gradients).expect("a gradient"));
            for (row, agreement) in agreement.iter().enumerate().filter(|(_, a)| **a >= 1e-11) {
                let range = row * shape[1]..(row + 1) * shape[1];
                let what = format!("{} row {row}, agreement {agreement}", name(what));
                assert_close(&what, &found[range.clone()], &expected[range], GRADIENT.0, GRADIENT.1);
                compared += 1;
            }
        }
        assert!(compared >= agreement.len(), "{case}: {compared} rows compared");
    }
}

#[test]
fn nt_xent_and_its_gradients_are_the_reference_s() {
    let vectors = vectors();
    for (case, facts) in cases("nt_xent") {
        let name = |what: &str| format!("nt_xent/{case}/{what}");
        let (first, second) = (tracked(&vectors, &name("view1")), tracked(&vectors, &name("view2")));
        let temperature = facts["temperature"].as_f64().expect("temperature") as f32;
        let loss = nt_xent(first.clone(), second.clone(), temperature, &Alone);
        let (_, expected) = vectors.floats(&name("both_views/loss"));
        assert_close(&case, &values(loss.clone().inner()), &expected, VALUE.0, VALUE.1);
        let gradients = loss.backward();
        for (what, leaf) in [("both_views/grad_view1", &first), ("both_views/grad_view2", &second)] {
            let found = values(leaf.grad(&gradients).expect("a gradient"));
            assert_close(&name(what), &found, &vectors.floats(&name(what)).1, GRADIENT.0, GRADIENT.1);
        }
    }
}

/// Each rank holds its share of the images; the mean of the ranks' gradients is that of the joined batch.
#[test]
fn nt_xent_over_ranks_is_that_of_the_joined_batch() {
    for (case, facts) in cases("nt_xent") {
        let temperature = facts["temperature"].as_f64().expect("temperature") as f32;
        for world in [2, 4] {
            let ranks: Vec<_> = ring(world)
                .into_iter()
                .map(|rank| {
                    let case = case.clone();
                    std::thread::spawn(move || rank_of(&case, &rank, temperature))
                })
                .collect();
            let seen: Vec<_> = ranks.into_iter().map(|rank| rank.join().expect("a rank")).collect();
            let vectors = vectors();
            let (_, loss) = vectors.floats(&format!("nt_xent/{case}/both_views/loss"));
            for view in [0, 1] {
                let mean: Vec<f32> = seen
                    .iter()
                    .flat_map(|(_, gradients)| &gradients[view])
                    .map(|g| g / world as f32)
                    .collect();
                let what = format!("nt_xent/{case}/both_views/grad_view{}", view + 1);
                assert_close(&what, &mean, &vectors.floats(&what).1, GRADIENT.0, GRADIENT.1);
            }
            for (value, _) in &seen {
                assert_close(&case, &[*value], &loss, VALUE.0, VALUE.1);
            }
        }
    }
}

fn rank_of(case: &str, rank: &Crew, temperature: f32) -> (f32, [Vec<f32>; 2]) {
    let vectors = vectors();
    let device = Device::flex().autodiff();
    let views = ["view1", "view2"].map(|view| {
        let (shape, values) = vectors.floats(&format!("nt_xent/{case}/{view}"));
        let part = linked::share(shape[0], rank);
        let values = values[part.start * shape[1]..part.end * shape[1]].to_vec();
        Tensor::<2>::from_data(TensorData::new(values, [part.len(), shape[1]]), &device).require_grad()
    });
    let loss = nt_xent(views[0].clone(), views[1].clone(), temperature, rank);
    let value = loss.clone().inner().into_scalar::<f32>();
    let gradients = loss.backward();
    (value, views.map(|view| values(view.grad(&gradients).expect("a gradient"))))
}

#[test]
fn self_labelling_and_its_gradients_are_the_reference_s() {
    let vectors = vectors();
    for (case, facts) in cases("self_label") {
        let threshold = facts["threshold"].as_f64().expect("threshold") as f32;
        for (kind, balanced) in [("plain", false), ("balanced", true)] {
            let name = |what: &str| format!("self_label/{case}/{what}");
            let weak = tracked(&vectors, &name("weak_logits"));
            let strong = tracked(&vectors, &name("strong_logits"));
            let found = self_label_loss(weak.clone(), strong.clone(), threshold, balanced);
            assert_close("mask", &values(found.mask), &vectors.floats(&name("mask")).1, 0.0, 0.0);
            let weights = name(&format!("{kind}/class_weight"));
            assert_close(&weights, &values(found.class_weight), &vectors.floats(&weights).1, 1e-6, 1e-6);
            let loss = name(&format!("{kind}/loss"));
            let value = values(found.loss.clone().inner());
            assert_close(&loss, &value, &vectors.floats(&loss).1, VALUE.0, VALUE.1);
            let gradients = found.loss.backward();
            let gradient = name(&format!("{kind}/grad_strong"));
            let of_strong = values(strong.grad(&gradients).expect("a gradient"));
            assert_close(&gradient, &of_strong, &vectors.floats(&gradient).1, GRADIENT.0, GRADIENT.1);
            assert!(weak.grad(&gradients).is_none(), "no gradient reaches the weak views");
        }
    }
}

#[test]
fn nothing_confident_is_a_loss_of_zero() {
    let device = Device::flex().autodiff();
    let strong = Tensor::<2>::from_data([[1.0f32, 2.0], [0.0, 1.0]], &device).require_grad();
    let found = self_label_loss(Tensor::zeros([2, 2], &device), strong.clone(), 0.99, true);
    assert_eq!(values(found.loss.clone().inner()), [0.0]);
    let gradient = strong.grad(&found.loss.backward()).expect("a gradient");
    assert_eq!(values(gradient), [0.0; 4]);
}

#[test]
fn cluster_scores_are_the_reference_s() {
    let index = json("scan/scan.json");
    let cases = index["clustering"].as_array().expect("cases");
    assert!(!cases.is_empty());
    for facts in cases {
        let list = |key: &str| -> Vec<usize> {
            let values = facts[key].as_array().expect(key);
            values.iter().map(|value| value.as_u64().expect(key) as usize).collect()
        };
        let count = facts["num_clusters"].as_u64().expect("clusters") as usize;
        let (clusters, targets) = (list("predictions"), list("targets"));
        let found = ClusterScores::of(&clusters, &targets, count, count).expect("sound");
        for (what, found) in [("accuracy", found.accuracy), ("nmi", found.nmi), ("ari", found.ari)] {
            let expected = facts[what].as_f64().expect(what);
            assert!((found - expected).abs() < 1e-9, "{what}: found {found}, expected {expected}");
        }
        // The confusion is unique where the assignment is.
        if found.class_of.iter().map(|class| class.expect("as many classes")).eq(list("cluster_to_class")) {
            let rows: Vec<Vec<u64>> =
                serde_json::from_value(facts["confusion_target_by_mapped"].clone()).expect("rows of counts");
            for (target, row) in rows.iter().enumerate() {
                assert_eq!(found.confusion.row(target), &row[..], "class {target}");
            }
        }
    }
}
