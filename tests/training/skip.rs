//! A step computes the published loss and its gradients, whatever it leaves out to be fast.
//!
//! The plain computation puts all views through the tracked network and builds the loss from the papers' formulas, on
//! the host in double precision as far as nothing is differentiated. The trainer's step takes weak views through a pass
//! without a graph and leaves masked strong views out where the network allows it.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::activation::{log_softmax, softmax};
use burn::tensor::{Device, Int, Tensor, TensorData};
use harvest::algorithms::{
    AlgorithmBuilder, AlgorithmConfig, AlgorithmName, FixMatchConfig, FreeMatchConfig, Objective, Places,
    Problem, SslBatch, State, StepLoss,
};
use harvest::random::{Purpose, stream};
use harvest::training::StepNetwork;
use harvest_models::{Classifier, ClassifierConfig, Mode};
use rand::RngExt;

use crate::world::{SIZE, small_resnet, small_vit};

const CLASSES: usize = 4;
const LABELLED: usize = 3;
const UNLABELLED: usize = 10;
/// How many strong views are to be kept: none, some that fill a padded size, some that do not, all.
const KEPT: [usize; 5] = [0, 1, 4, 7, UNLABELLED];
const SEED: u64 = 77;

/// A network whose predictions are far enough apart to choose thresholds between them.
fn network(config: &ClassifierConfig) -> Classifier {
    let mut net = config.init(5, &Device::flex().autodiff()).expect("a valid network");
    let mut tensors = net.to_tensors();
    for (name, data) in &mut tensors {
        let factor = match name.as_str() {
            "head.weight" => 20.0,
            "fc.weight" => 4.0,
            _ => continue,
        };
        let values: Vec<f32> = data.iter::<f32>().map(|value| value * factor).collect();
        *data = TensorData::new(values, data.shape().clone());
    }
    net.load_tensors(&tensors).expect("its own tensors");
    net
}

fn problem() -> Problem {
    Problem::bare(CLASSES, UNLABELLED, 10, &Device::flex())
}

fn batch(skip_masked: bool) -> SslBatch {
    let device = Device::flex();
    let images = |count: usize, view: u64| {
        let mut rng = stream(1, Purpose::Demo, [view, 0, 0]);
        // A colour of its own for each image, so that a network that averages over pixels tells them apart.
        let values: Vec<f32> = (0..count)
            .flat_map(|_| {
                let colour: [f32; 3] = rng.random();
                let noise: Vec<f32> = (0..3 * SIZE * SIZE).map(|_| rng.random::<f32>() - 0.5).collect();
                let pixel = move |(i, noise)| noise + 4.0 * (colour[i / (SIZE * SIZE)] - 0.5);
                noise.into_iter().enumerate().map(pixel).collect::<Vec<f32>>()
            })
            .collect();
        Tensor::from_data(TensorData::new(values, [count, 3, SIZE, SIZE]), &device)
    };
    SslBatch {
        labelled: images(LABELLED, 0),
        labels: Tensor::<1, Int>::from_data([2i32, 0, 3], &device),
        weak: vec![images(UNLABELLED, 1)],
        strong: vec![images(UNLABELLED, 2)],
        indices: (0..UNLABELLED as u32).collect(),
        places: Places::whole(LABELLED, UNLABELLED),
        step: 0,
        total_steps: 10,
        skip_masked,
        objective: Objective::default(),
    }
}

/// Gradients of all parameters, in their order.
struct Gradients<'a>(&'a GradientsParams, Vec<Vec<f32>>);

impl ModuleVisitor for Gradients<'_> {
    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
        let gradient = self.0.get::<D>(parameter.id).expect("every parameter has a gradient");
        self.1.push(gradient.into_data().iter::<f32>().collect());
    }
}

fn gradients(loss: Tensor<1>, net: &Classifier) -> Vec<(String, Vec<f32>)> {
    let found = GradientsParams::from_grads(loss.backward(), net);
    let mut gradients = Gradients(&found, Vec::new());
    net.visit(&mut gradients);
    net.parameters().into_iter().map(|parameter| parameter.name).zip(gradients.1).collect()
}

fn host(logits: Tensor<2>) -> Vec<Vec<f64>> {
    let values: Vec<f64> = logits.inner().into_data().iter::<f32>().map(f64::from).collect();
    values.chunks(CLASSES).map(<[f64]>::to_vec).collect()
}

fn probabilities(logits: &[f64], temperature: f64) -> Vec<f64> {
    let exponentials: Vec<f64> = logits.iter().map(|logit| (logit / temperature).exp()).collect();
    let sum: f64 = exponentials.iter().sum();
    exponentials.into_iter().map(|e| e / sum).collect()
}

fn largest(row: &[f64]) -> (f64, usize) {
    let class = (0..row.len()).max_by(|a, b| row[*a].total_cmp(&row[*b])).expect("classes");
    (row[class], class)
}

fn tensor(rows: Vec<Vec<f64>>) -> Tensor<2> {
    let shape = [rows.len(), rows[0].len()];
    let values: Vec<f32> = rows.into_iter().flatten().map(|value| value as f32).collect();
    Tensor::from_data(TensorData::new(values, shape), &Device::flex())
}

/// `Σ weights · log softmax(logits)`.
fn weighted(logits: Tensor<2>, weights: Vec<Vec<f64>>) -> Tensor<1> {
    (log_softmax(logits, 1) * tensor(weights)).sum()
}

fn one_hot(class: usize, weight: f64) -> Vec<f64> {
    (0..CLASSES).map(|c| if c == class { weight } else { 0.0 }).collect()
}

fn supervised(logits: Tensor<2>) -> Tensor<1> {
    let weights = [2, 0, 3].map(|class| one_hot(class, -1.0 / LABELLED as f64));
    weighted(logits, weights.to_vec())
}

/// Loss from logits of labelled images, strong and weak views, and how many strong views it keeps.
type Loss<'a> = dyn Fn(Tensor<2>, Tensor<2>, &[Vec<f64>]) -> (Tensor<1>, usize) + 'a;

fn fixmatch(
    config: &FixMatchConfig,
    labelled: Tensor<2>,
    strong: Tensor<2>,
    weak: &[Vec<f64>],
) -> (Tensor<1>, usize) {
    let mut kept = 0;
    let weights = weak.iter().map(|logits| {
        let q = probabilities(logits, 1.0);
        let (confidence, class) = largest(&q);
        let mask = if confidence >= f64::from(config.threshold) { 1.0 } else { 0.0 };
        kept += mask as usize;
        let share = -mask * f64::from(config.unlabelled_weight) / UNLABELLED as f64;
        if config.hard_labels { one_hot(class, share) } else { q.iter().map(|q| share * q).collect() }
    });
    let weights = weights.collect();
    (supervised(labelled) + weighted(strong, weights), kept)
}

/// From averages that are uniform but for the global threshold.
fn freematch(
    config: &FreeMatchConfig,
    threshold: f64,
    labelled: Tensor<2>,
    strong: Tensor<2>,
    weak: &[Vec<f64>],
) -> (Tensor<1>, usize) {
    let (decay, uniform) = (f64::from(config.decay.expect("set by these tests")), 1.0 / CLASSES as f64);
    let q: Vec<Vec<f64>> = weak.iter().map(|logits| probabilities(logits, 1.0)).collect();
    let mean = |of: &dyn Fn(&Vec<f64>) -> f64| q.iter().map(of).sum::<f64>() / q.len() as f64;
    let threshold = decay * threshold + (1.0 - decay) * mean(&|q| largest(q).0);
    let moved = |of: &dyn Fn(&Vec<f64>, usize) -> f64| -> Vec<f64> {
        (0..CLASSES).map(|c| decay * uniform + (1.0 - decay) * mean(&|q| of(q, c))).collect()
    };
    let expectation = moved(&|q, c| q[c]);
    let histogram = moved(&|q, c| if largest(q).1 == c { 1.0 } else { 0.0 });
    let top = largest(&expectation).0;

    let mut mask = Vec::new();
    let mut weights = Vec::new();
    for (logits, q) in weak.iter().zip(&q) {
        let (confidence, class) = largest(q);
        mask.push(if confidence >= threshold * expectation[class] / top { 1.0 } else { 0.0 });
        let share = -mask[mask.len() - 1] * f64::from(config.unlabelled_weight) / UNLABELLED as f64;
        let soft = || probabilities(logits, config.temperature.into()).iter().map(|p| share * p).collect();
        weights.push(if config.hard_labels { one_hot(class, share) } else { soft() });
    }
    let kept = mask.iter().sum::<f64>();
    let loss = supervised(labelled) + weighted(strong.clone(), weights);
    if kept == 0.0 {
        return (loss, 0);
    }
    // Class fairness over the kept rows; classes that no strong view is taken for count 0.
    let mut predicted = [0.0; CLASSES];
    for (logits, mask) in host(strong.clone()).iter().zip(&mask) {
        predicted[largest(logits).1] += mask / kept;
    }
    let inverse = predicted.iter().map(|share| if *share > 0.0 { 1.0 / share } else { 0.0 }).collect();
    let mask = tensor(mask.iter().map(|mask| vec![mask / kept; CLASSES]).collect());
    let found = (softmax(strong, 1) * mask).sum_dim(0) * tensor(vec![inverse]);
    let found = found.clone() / found.sum_dim(1);
    let quotient: Vec<f64> = expectation.iter().zip(&histogram).map(|(p, h)| p / h).collect();
    let sum: f64 = quotient.iter().sum();
    let expected = tensor(vec![quotient.into_iter().map(|quotient| quotient / sum).collect()]);
    let fairness = (expected * found.add_scalar(1e-12).log()).sum();
    (loss + fairness.mul_scalar(config.fairness_weight), kept as usize)
}

/// The trainer's step.
fn step(
    algorithm: &AlgorithmConfig,
    state: &State,
    net: &Classifier,
    independent: bool,
    batch: &SslBatch,
) -> StepLoss {
    let mut algorithm = algorithm.build(&problem());
    algorithm.restore(state.clone()).expect("a state of this algorithm");
    algorithm.step(&StepNetwork::new(net, independent, SEED), batch)
}

/// The plain computation: every view through the tracked network; in one pass, or as many as the step makes.
fn plain(net: &Classifier, independent: bool, batch: &SslBatch, loss: &Loss<'_>) -> (Tensor<1>, usize) {
    let (labelled, strong, weak) = (batch.labelled.clone(), batch.strong[0].clone(), batch.weak[0].clone());
    let forward = |images: Vec<Tensor<4>>| net.forward(Tensor::cat(images, 0), Mode::train(SEED)).logits;
    let (logits, weak) = if independent {
        let logits = forward(vec![labelled, strong, weak]);
        let weak = logits.clone().narrow(0, LABELLED + UNLABELLED, UNLABELLED);
        (logits, weak)
    } else {
        let weak = forward(vec![weak]);
        (forward(vec![labelled, strong]), weak)
    };
    let [labelled, strong] = [(0, LABELLED), (LABELLED, UNLABELLED)]
        .map(|(start, length)| logits.clone().narrow(0, start, length));
    loss(labelled, strong, &host(weak))
}

fn assert_close(what: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    // f32 sums in another order, relative to the largest of their kind.
    let scale = expected.iter().fold(1e-3f32, |scale, value| scale.max(value.abs()));
    for (f, e) in found.iter().zip(expected) {
        assert!((f - e).abs() <= 1e-4 * scale, "{what}: {f}, not {e}, where the largest is {scale}");
    }
}

/// Both computations from the same weights; `independent`: whether the network's rows are.
fn agree(
    what: &str,
    model: &ClassifierConfig,
    algorithm: &AlgorithmConfig,
    state: &State,
    kept: usize,
    loss: &Loss<'_>,
) {
    let independent = model.rows_are_independent();
    for skip_masked in [false, true] {
        let what = format!("{what}, {kept} kept, skip {skip_masked}");
        let batch = batch(skip_masked);
        // Each its own network, for each moves its own running statistics.
        let (net, plain_net) = (network(model), network(model));
        let found = step(algorithm, state, &net, independent, &batch);
        let (expected, expected_kept) = plain(&plain_net, independent, &batch, loss);
        assert_eq!(expected_kept, kept, "{what}: the threshold chosen");
        let ratio = found.scalars.iter().find(|(name, _)| *name == "mask_ratio").expect("logged").1.clone();
        assert_close(&what, &[ratio.into_scalar::<f32>()], &[kept as f32 / UNLABELLED as f32]);

        let value = |loss: &Tensor<1>| [loss.clone().inner().into_scalar::<f32>()];
        assert_close(&what, &value(&found.total), &value(&expected));
        let (found, expected) = (gradients(found.total, &net), gradients(expected, &plain_net));
        assert!(expected.iter().any(|(_, gradient)| gradient.iter().any(|g| g.abs() > 1e-3)));
        for ((name, found), (_, expected)) in found.iter().zip(&expected) {
            assert_close(&format!("{what}, gradient of {name}"), found, expected);
        }
        for (name, expected) in plain_net.to_tensors() {
            let values = |data: &TensorData| data.iter::<f32>().collect::<Vec<_>>();
            assert_close(&format!("{what}, {name}"), &values(&net.to_tensors()[&name]), &values(&expected));
        }
    }
}

/// A threshold that `kept` of the weak views reach.
fn threshold(model: &ClassifierConfig, kept: usize) -> f64 {
    let weak = network(model).forward(batch(false).weak[0].clone(), weak_mode(model)).logits;
    let mut confidences: Vec<f64> =
        host(weak).iter().map(|logits| largest(&probabilities(logits, 1.0)).0).collect();
    confidences.sort_by(|a, b| b.total_cmp(a));
    let above = if kept == 0 { 1.0 } else { confidences[kept - 1] };
    let below = confidences.get(kept).copied().unwrap_or(0.0);
    (above + below) / 2.0
}

/// The mode that gives weak views the noise they have in a step.
fn weak_mode(model: &ClassifierConfig) -> Mode<'static> {
    let first = if model.rows_are_independent() { (LABELLED + UNLABELLED) as u64 } else { 0 };
    Mode::Train {
        noise: harvest_models::Noise { seed: SEED, rows: harvest_models::Rows::From(first) },
        company: Default::default(),
    }
}

fn fixmatch_agrees(what: &str, model: &ClassifierConfig) {
    for kept in KEPT {
        for hard_labels in [true, false] {
            let threshold = threshold(model, kept) as f32;
            let config = FixMatchConfig { threshold, unlabelled_weight: 1.5, hard_labels };
            let algorithm = AlgorithmConfig {
                name: AlgorithmName::FixMatch,
                fixmatch: config.clone(),
                ..AlgorithmConfig::default()
            };
            let loss = |labelled, strong, weak: &[Vec<f64>]| fixmatch(&config, labelled, strong, weak);
            agree(what, model, &algorithm, &State::new(), kept, &loss);
        }
    }
}

fn freematch_agrees(what: &str, model: &ClassifierConfig) {
    for kept in KEPT {
        for hard_labels in [true, false] {
            // A weight at which a wrong fairness term would show.
            let config = FreeMatchConfig {
                decay: Some(0.999),
                hard_labels,
                unlabelled_weight: 1.5,
                fairness_weight: 0.5,
                ..FreeMatchConfig::default()
            };
            let algorithm = AlgorithmConfig { freematch: config.clone(), ..AlgorithmConfig::default() };
            let global = threshold(model, kept);
            let uniform = || TensorData::new(vec![1.0 / CLASSES as f32; CLASSES], [CLASSES]);
            let state = State::from([
                ("global_threshold".to_owned(), TensorData::new(vec![global as f32], [1])),
                ("class_expectation".to_owned(), uniform()),
                ("label_histogram".to_owned(), uniform()),
            ]);
            let loss =
                |labelled, strong, weak: &[Vec<f64>]| freematch(&config, global, labelled, strong, weak);
            agree(what, model, &algorithm, &state, kept, &loss);
        }
    }
}

#[test]
fn fixmatch_on_a_transformer_equals_the_plain_computation() {
    fixmatch_agrees("FixMatch, transformer", &small_vit(CLASSES));
}

#[test]
fn freematch_on_a_transformer_equals_the_plain_computation() {
    freematch_agrees("FreeMatch, transformer", &small_vit(CLASSES));
}

#[test]
fn fixmatch_on_a_residual_network_equals_the_plain_computation() {
    fixmatch_agrees("FixMatch, residual network", &small_resnet(CLASSES));
}

#[test]
fn freematch_on_a_residual_network_equals_the_plain_computation() {
    freematch_agrees("FreeMatch, residual network", &small_resnet(CLASSES));
}
