//! Algorithms that blend images, against the established implementation, iteration by iteration.
//!
//! The stand-in network is linear in its images `[N, D, 1, 1]`: `x W^T + b`. The recorded blends are fed in.

#[path = "support/linked.rs"]
mod linked;
mod support;

use burn::tensor::{Device, Int, Tensor, TensorData};
use harvest::algorithms::{
    Algorithm, Alone, Mix, MixMatch, MixMatchConfig, Network, Objective, Problem, Ranks, ReMixMatch,
    ReMixMatchConfig, SslBatch, StepLoss, Targets,
};
use linked::{Linked, share};
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
        let config = MixMatchConfig {
            temperature: case.setting("T"),
            alpha: case.setting("mixup_alpha"),
            unlabelled_weight: case.setting("ulb_loss_ratio"),
            unsup_warm_up: case.setting("unsup_warm_up"),
        };
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
            let turn = Box::new(move |_, _| (turned.clone(), turns.clone()));
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

/// Blends stay within a rank; what they are made of (guessed labels and the mean they are aligned by) is as of the joined batch.
#[test]
fn ranks_algorithm_remixmatch_guesses_alike() {
    each_case("remixmatch", |case| {
        for world in [2, 3] {
            let guesses: Vec<_> = std::thread::scope(|scope| {
                let ranks: Vec<_> = Linked::ring(world)
                    .into_iter()
                    .map(|rank| scope.spawn(move || guesses_of_rank(case, &rank)))
                    .collect();
                ranks.into_iter().map(|rank| rank.join().expect("the rank ends well")).collect()
            });
            for t in 0..case.count("iterations") {
                let joined: Vec<f32> = guesses.iter().flat_map(|rank| rank[t].0.clone()).collect();
                case.agrees("out/sharpened_targets", t, &joined, VALUE);
                for rank in &guesses {
                    case.agrees("state/p_model", t, &rank[t].1, VALUE);
                }
            }
        }
    });
}

/// Guessed labels and running mean after each iteration on one rank's slice of the batch.
fn guesses_of_rank(case: &Case<'_>, rank: &Linked) -> Vec<(Vec<f32>, Vec<f32>)> {
    let draw = Box::new(|_, rows| Mix { lambda: 0.75, partners: (0..rows as i32).rev().collect() });
    let turn = Box::new(|_, images: Tensor<4>| {
        let turns = vec![0; images.dims()[0]];
        (images, turns)
    });
    let mut algorithm = ReMixMatch::with_draws(case.remixmatch(), &case.problem(), draw, turn);
    let slice = |images: Tensor<4>| {
        let part = share(images.dims()[0], rank);
        images.narrow(0, part.start, part.len())
    };
    let steps = (0..case.count("iterations")).map(|t| {
        let mut batch = case.batch(t, &["x_ulb_w"], &["x_ulb_s_0", "x_ulb_s_1"]);
        let labels = share(batch.labels.dims()[0], rank);
        batch.labels = batch.labels.narrow(0, labels.start, labels.len());
        batch.labelled = slice(batch.labelled);
        batch.weak = batch.weak.into_iter().map(slice).collect();
        batch.strong = batch.strong.into_iter().map(slice).collect();
        batch.indices = batch.indices[share(batch.indices.len(), rank)].to_vec();
        let step = algorithm.step(&case.network(true, rank), &batch);
        let Some(Targets::Soft(guess)) = step.pseudo_labels.map(|pseudo| pseudo.targets) else {
            panic!("guessed labels are soft")
        };
        (values(guess), algorithm.state()["model_mean"].iter::<f32>().collect())
    });
    steps.collect()
}
