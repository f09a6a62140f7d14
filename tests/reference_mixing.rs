//! Algorithms that blend images, against the established implementation, iteration by iteration.
//!
//! The stand-in network is linear in its images `[N, D, 1, 1]`: `x W^T + b`. The recorded blends are fed in.

#[path = "support/linked.rs"]
mod linked;
mod support;

use burn::tensor::{Device, Int, Tensor, TensorData};
use harvest::algorithms::{
    Algorithm, Alone, Mix, MixMatch, MixMatchConfig, Network, Objective, Place, Places, Problem, Ranks,
    ReMixMatch, ReMixMatchConfig, SslBatch, StepLoss, Targets, Turned,
};
use harvest::training::Crew;
use linked::{ring, share};
use support::{Vectors, assert_close, json};

/// Tolerances of the reference for losses, and for gradients of weights: absolute, relative.
const VALUE: (f32, f32) = (2e-6, 2e-5);
const GRADIENT: (f32, f32) = (1e-5, 2e-4);

struct Linear<'a> {
    ranks: &'a dyn Ranks,
    weight: Tensor<2>,
    bias: Tensor<1>,
    /// Weights and biases of the four outputs that tell turns, for ReMixMatch.
    turns: Option<(Tensor<2>, Tensor<1>)>,
}

/// `x W^T + b` for images `[N, D, 1, 1]`.
fn affine(images: Tensor<4>, weight: &Tensor<2>, bias: &Tensor<1>) -> Tensor<2> {
    let x = images.flatten::<3>(2, 3).squeeze_dim::<2>(2);
    x.matmul(weight.clone().transpose()) + bias.clone().unsqueeze_dim(0)
}

impl Network for Linear<'_> {
    fn student(&self, images: Tensor<4>, _rows: &[u64]) -> Tensor<2> {
        affine(images, &self.weight, &self.bias)
    }
    fn teacher(&self, images: Tensor<4>, rows: &[u64]) -> Tensor<2> {
        self.student(images, rows).inner()
    }
    fn auxiliary(&self, images: Tensor<4>, _rows: &[u64]) -> Tensor<2> {
        let (weight, bias) = self.turns.as_ref().expect("weights to tell turns by");
        affine(images, weight, bias)
    }
    fn rows_are_independent(&self) -> bool {
        true
    }
    fn ranks(&self) -> &dyn Ranks {
        self.ranks
    }
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

/// One case of a file: its facts and tensors.
struct Case<'a> {
    name: &'a str,
    facts: &'a serde_json::Value,
    vectors: &'a Vectors,
    device: Device,
}

impl Case<'_> {
    fn count(&self, key: &str) -> usize {
        self.facts[key].as_u64().expect(key) as usize
    }

    fn setting(&self, key: &str) -> f32 {
        self.facts["hyperparameters"][key].as_f64().expect(key) as f32
    }

    fn parameter<const D: usize>(&self, name: &str) -> Tensor<D> {
        let (shape, values) = self.vectors.floats(&format!("{}/in/{name}", self.name));
        Tensor::from_data(TensorData::new(values, shape), &self.device).require_grad()
    }

    fn images(&self, name: &str, t: usize) -> Tensor<4> {
        let values = self.vectors.floats_at(&format!("{}/in/{name}", self.name), t);
        let features = self.count("feature_dim");
        let shape = [values.len() / features, features, 1, 1];
        Tensor::from_data(TensorData::new(values, shape), &self.device)
    }

    fn integers(&self, name: &str, t: usize) -> Vec<i32> {
        let values = self.vectors.integers_at(&format!("{}/in/{name}", self.name), t);
        values.into_iter().map(|value| i32::try_from(value).expect("a row or class")).collect()
    }

    fn mix(&self, t: usize) -> Mix {
        let lambda = self.vectors.floats(&format!("{}/in/mix_lambda", self.name)).1[t];
        Mix { lambda, partners: self.integers("mix_permutation", t) }
    }

    fn batch(&self, t: usize, weak: &[&str], strong: &[&str]) -> SslBatch {
        let views = |names: &[&str]| names.iter().map(|name| self.images(name, t)).collect();
        SslBatch {
            labelled: self.images("x_lb", t),
            labels: Tensor::<1, Int>::from_data(self.integers("y_lb", t).as_slice(), &self.device),
            weak: views(weak),
            strong: views(strong),
            indices: (0..self.count("unlabelled_batch") as u32).collect(),
            places: Places::whole(self.integers("y_lb", t).len(), self.count("unlabelled_batch")),
            step: t as u64,
            total_steps: self.count("num_train_iter") as u64,
            skip_masked: true,
            objective: Objective::default(),
        }
    }

    fn network<'r>(&self, turns: bool, ranks: &'r dyn Ranks) -> Linear<'r> {
        Linear {
            ranks,
            weight: self.parameter("weight"),
            bias: self.parameter("bias"),
            turns: turns.then(|| (self.parameter("rot_weight"), self.parameter("rot_bias"))),
        }
    }

    fn mixmatch(&self) -> MixMatchConfig {
        MixMatchConfig {
            temperature: self.setting("T"),
            alpha: self.setting("mixup_alpha"),
            unlabelled_weight: self.setting("ulb_loss_ratio"),
            unsup_warm_up: self.setting("unsup_warm_up"),
        }
    }

    fn remixmatch(&self) -> ReMixMatchConfig {
        ReMixMatchConfig {
            temperature: self.setting("T"),
            alpha: self.setting("mixup_alpha"),
            // Fixed in the established implementation, whatever its settings say.
            decay: Some(0.999),
            unlabelled_weight: self.setting("ulb_loss_ratio"),
            strong_weight: self.setting("kl_loss_ratio"),
            rotation_weight: self.setting("rot_loss_ratio"),
            unsup_warm_up: self.setting("unsup_warm_up"),
        }
    }

    fn problem(&self) -> Problem {
        let counts = self.vectors.integers(&format!("{}/in/lb_class_hist", self.name)).1;
        let mut problem = Problem::bare(self.count("num_classes"), 100, 1000, &self.device.clone().inner());
        problem.labelled_per_class = counts.into_iter().map(|count| count as usize).collect();
        problem
    }

    fn expected(&self, part: &str, t: usize) -> Vec<f32> {
        self.vectors.floats_at(&format!("{}/{part}", self.name), t)
    }

    fn agrees(&self, part: &str, t: usize, found: &[f32], (absolute, relative): (f32, f32)) {
        let what = format!("{} iteration {t} {part}", self.name);
        assert_close(&what, found, &self.expected(part, t), absolute, relative);
    }

    /// Compares losses (by our names and theirs), guessed labels and gradients.
    fn check(&self, t: usize, step: StepLoss, network: &Linear<'_>, losses: &[(&str, &str)]) {
        for (ours, part) in losses {
            let found = step.scalars.iter().find(|(name, _)| name == ours).expect(ours);
            self.agrees(part, t, &values(found.1.clone()), VALUE);
        }
        self.agrees("out/total_loss", t, &values(step.total.clone().inner()), VALUE);
        let pseudo = step.pseudo_labels.as_ref().expect("guessed labels");
        let Targets::Soft(guessed) = &pseudo.targets else { panic!("guessed labels are soft") };
        self.agrees("out/sharpened_targets", t, &values(guessed.clone()), VALUE);

        let gradients = step.total.backward();
        let weight = network.weight.grad(&gradients).expect("a gradient");
        self.agrees("grad/weight", t, &values(weight), GRADIENT);
        self.agrees("grad/bias", t, &values(network.bias.grad(&gradients).expect("a gradient")), GRADIENT);
        if let Some((turns, _)) = &network.turns {
            let turns = turns.grad(&gradients).expect("a gradient");
            self.agrees("grad/rot_weight", t, &values(turns), GRADIENT);
        }
    }
}

/// Calls `test` with each recorded case of an algorithm.
fn each_case(algorithm: &str, test: impl Fn(&Case<'_>)) {
    let index = json("algorithms/index.json");
    let vectors = Vectors::read(&format!("algorithms/{algorithm}.safetensors"));
    let cases = index[algorithm]["cases"].as_object().expect("cases");
    assert!(!cases.is_empty());
    for (name, facts) in cases {
        test(&Case { name, facts, vectors: &vectors, device: Device::flex().autodiff() });
    }
}

#[test]
fn reference_algorithm_mixmatch() {
    each_case("mixmatch", |case| {
        let config = case.mixmatch();
        for t in 0..case.count("iterations") {
            let (mix, network) = (case.mix(t), case.network(false, &Alone));
            let mut algorithm = MixMatch::with_draw(config.clone(), Box::new(move |_, _| mix.clone()));
            let step = algorithm.step(&network, &case.batch(t, &["x_ulb_w", "x_ulb_s"], &[]));
            let losses =
                [("sup", "out/sup_loss"), ("unsup", "out/unsup_loss"), ("unsup_warmup", "out/unsup_warmup")];
            case.check(t, step, &network, &losses);
        }
    });
}

/// Each iteration starts from the state that the one before left, saved and restored.
#[test]
fn reference_algorithm_remixmatch() {
    each_case("remixmatch", |case| {
        let (config, problem) = (case.remixmatch(), case.problem());
        let mut state = None;
        for t in 0..case.count("iterations") {
            let (mix, network) = (case.mix(t), case.network(true, &Alone));
            let (turned, turns) = (case.images("x_ulb_s_0_rot", t), case.integers("rot_label", t));
            let draw = Box::new(move |_, _| mix.clone());
            let turned = Turned { images: turned, rows: (0..turns.len() as u64).collect(), quarters: turns };
            let turn = Box::new(move |_, _, _| turned.clone());
            let mut algorithm = ReMixMatch::with_draws(config.clone(), &problem, draw, turn);
            if let Some(state) = state {
                algorithm.restore(state).expect("its own state");
            }
            let step = algorithm.step(&network, &case.batch(t, &["x_ulb_w"], &["x_ulb_s_0", "x_ulb_s_1"]));
            let losses = [
                ("sup", "out/sup_loss"),
                ("unsup", "out/unsup_loss"),
                ("strong", "out/u1_loss"),
                ("rotation", "out/rot_loss"),
                ("unsup_warmup", "out/unsup_warmup"),
            ];
            case.check(t, step, &network, &losses);
            let saved = algorithm.state();
            case.agrees("state/p_model", t, &saved["model_mean"].iter::<f32>().collect::<Vec<_>>(), VALUE);
            let target = saved["target_mean"].iter::<f32>().collect::<Vec<_>>();
            let (_, expected) = case.vectors.floats(&format!("{}/init/p_target", case.name));
            assert_close(&format!("{} p_target", case.name), &target, &expected, VALUE.0, VALUE.1);
            state = Some(saved);
        }
    });
}

/// One algorithm's step on a rank's slice of a recorded batch: its loss and gradients, and what all ranks must agree on.
struct Seen {
    total: f32,
    guesses: Vec<f32>,
    /// Of weights, biases, and weights that tell turns.
    gradients: Vec<Vec<f32>>,
    state: Vec<f32>,
}

/// Partners are rows of any rank: with the recorded blends, ranks together have the recorded losses and gradients.
#[test]
fn ranks_algorithm_blends_are_those_of_the_joined_batch() {
    for (name, world) in [("mixmatch", 2), ("remixmatch", 2), ("mixmatch", 3), ("remixmatch", 3)] {
        each_case(name, |case| {
            let labelled = case.batch(0, &[], &[]).labels.dims()[0];
            if !labelled.is_multiple_of(world) || !case.count("unlabelled_batch").is_multiple_of(world) {
                return; // `Crew` would weigh ranks by their rows; the ranks here are equal
            }
            let seen: Vec<Vec<Seen>> = std::thread::scope(|scope| {
                let ranks: Vec<_> = ring(world)
                    .into_iter()
                    .map(|rank| scope.spawn(move || on_rank(case, name, &rank)))
                    .collect();
                ranks.into_iter().map(|rank| rank.join().expect("the rank ends well")).collect()
            });
            let mean = |of: &dyn Fn(&Vec<Seen>) -> Vec<f32>| {
                let mut sum = of(&seen[0]);
                for other in &seen[1..] {
                    sum.iter_mut().zip(of(other)).for_each(|(sum, value)| *sum += value);
                }
                sum.iter_mut().for_each(|sum| *sum /= world as f32);
                sum
            };
            for t in 0..case.count("iterations") {
                let joined: Vec<f32> = seen.iter().flat_map(|rank| rank[t].guesses.clone()).collect();
                case.agrees("out/sharpened_targets", t, &joined, VALUE);
                case.agrees("out/total_loss", t, &mean(&|rank| vec![rank[t].total]), VALUE);
                for (i, part) in ["grad/weight", "grad/bias", "grad/rot_weight"].iter().enumerate() {
                    if seen[0][t].gradients.len() > i {
                        case.agrees(part, t, &mean(&|rank| rank[t].gradients[i].clone()), GRADIENT);
                    }
                }
                for rank in seen.iter().filter(|rank| !rank[t].state.is_empty()) {
                    case.agrees("state/p_model", t, &rank[t].state, VALUE);
                }
            }
        });
    }
}

/// All iterations on one rank.
fn on_rank(case: &Case<'_>, name: &str, rank: &Crew) -> Vec<Seen> {
    let slice = |images: Tensor<4>| {
        let part = share(images.dims()[0], rank);
        images.narrow(0, part.start, part.len())
    };
    let mut state = None;
    let mut step = |t: usize| {
        let mix = case.mix(t);
        let draw = Box::new(move |_, _| mix.clone());
        let (mut algorithm, mut batch): (Box<dyn Algorithm>, _) = if name == "mixmatch" {
            let config = case.mixmatch();
            (Box::new(MixMatch::with_draw(config, draw)), case.batch(t, &["x_ulb_w", "x_ulb_s"], &[]))
        } else {
            // In any order: each rank takes a slice of the images as they were turned.
            let turns = case.integers("rot_label", t);
            let part = share(turns.len(), rank);
            let turned = Turned {
                images: slice(case.images("x_ulb_s_0_rot", t)),
                quarters: turns[part.clone()].to_vec(),
                rows: part.map(|row| row as u64).collect(),
            };
            let turn = Box::new(move |_, _, _| turned.clone());
            let algorithm = ReMixMatch::with_draws(case.remixmatch(), &case.problem(), draw, turn);
            (Box::new(algorithm), case.batch(t, &["x_ulb_w"], &["x_ulb_s_0", "x_ulb_s_1"]))
        };
        if let Some(state) = state.take() {
            algorithm.restore(state).expect("its own state");
        }
        let labels = share(batch.labels.dims()[0], rank);
        let indices = share(batch.indices.len(), rank);
        batch.places = Places {
            labelled: Place::of(&labels, batch.labels.dims()[0]),
            unlabelled: Place::of(&indices, batch.indices.len()),
        };
        batch.labels = batch.labels.narrow(0, labels.start, labels.len());
        batch.labelled = slice(batch.labelled);
        batch.weak = batch.weak.into_iter().map(slice).collect();
        batch.strong = batch.strong.into_iter().map(slice).collect();
        batch.indices = batch.indices[indices].to_vec();
        let network = case.network(name == "remixmatch", rank);
        let step = algorithm.step(&network, &batch);
        let Some(Targets::Soft(guess)) = step.pseudo_labels.map(|pseudo| pseudo.targets) else {
            panic!("guessed labels are soft")
        };
        let total = values(step.total.clone().inner())[0];
        let gradients = step.total.backward();
        let mut found =
            vec![network.weight.grad(&gradients).map(values), network.bias.grad(&gradients).map(values)];
        found.extend(network.turns.iter().map(|(weight, _)| weight.grad(&gradients).map(values)));
        let saved = algorithm.state();
        let mean = saved.get("model_mean").map(|mean| mean.iter::<f32>().collect());
        state = Some(saved);
        Seen {
            total,
            guesses: values(guess),
            gradients: found.into_iter().map(|gradient| gradient.expect("a gradient")).collect(),
            state: mean.unwrap_or_default(),
        }
    };
    (0..case.count("iterations")).map(&mut step).collect()
}
