//! Algorithms that blend images, against the established implementation, iteration by iteration.
//!
//! The stand-in network is linear in its images `[N, D, 1, 1]`: `x W^T + b`. The recorded blends are fed in.

mod support;

use burn::tensor::{Device, Int, Tensor, TensorData};
use harvest::algorithms::{Algorithm, Mix, MixMatch, MixMatchConfig, Network, Objective, SslBatch, Targets};
use support::{Vectors, assert_close, json};

/// Tolerances of the reference for losses, and for gradients of weights: absolute, relative.
const VALUE: (f32, f32) = (2e-6, 2e-5);
const GRADIENT: (f32, f32) = (1e-5, 2e-4);

struct Linear {
    weight: Tensor<2>,
    bias: Tensor<1>,
}

impl Network for Linear {
    fn student(&self, images: Tensor<4>, _rows: &[u64]) -> Tensor<2> {
        let x = images.flatten::<3>(2, 3).squeeze_dim::<2>(2);
        x.matmul(self.weight.clone().transpose()) + self.bias.clone().unsqueeze_dim(0)
    }
    fn teacher(&self, images: Tensor<4>, rows: &[u64]) -> Tensor<2> {
        self.student(images, rows).inner()
    }
    fn rows_are_independent(&self) -> bool {
        true
    }
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

#[test]
fn reference_algorithm_mixmatch() {
    let index = json("algorithms/index.json");
    let vectors = Vectors::read("algorithms/mixmatch.safetensors");
    let cases = index["mixmatch"]["cases"].as_object().expect("cases");
    assert!(!cases.is_empty());
    for (case, facts) in cases {
        let count = |key: &str| facts[key].as_u64().expect(key) as usize;
        let setting = |key: &str| facts["hyperparameters"][key].as_f64().expect(key) as f32;
        let device = Device::flex().autodiff();
        let constant = |name: &str| {
            let (shape, values) = vectors.floats(&format!("{case}/in/{name}"));
            TensorData::new(values, shape)
        };
        for t in 0..count("iterations") {
            let images = |name: &str, rows: &str| {
                let values = vectors.floats_at(&format!("{case}/in/{name}"), t);
                let shape = [count(rows), count("feature_dim"), 1, 1];
                Tensor::<4>::from_data(TensorData::new(values, shape), &device)
            };
            let labels = vectors.integers_at(&format!("{case}/in/y_lb"), t);
            let network = Linear {
                weight: Tensor::from_data(constant("weight"), &device).require_grad(),
                bias: Tensor::from_data(constant("bias"), &device).require_grad(),
            };
            let mix = Mix {
                lambda: vectors.floats(&format!("{case}/in/mix_lambda")).1[t],
                partners: vectors
                    .integers_at(&format!("{case}/in/mix_permutation"), t)
                    .into_iter()
                    .map(|row| i32::try_from(row).expect("a row"))
                    .collect(),
            };
            let config = MixMatchConfig {
                temperature: setting("T"),
                alpha: setting("mixup_alpha"),
                unlabelled_weight: setting("ulb_loss_ratio"),
                unsup_warm_up: setting("unsup_warm_up"),
            };
            let mut algorithm = MixMatch::with_draw(config, Box::new(move |_, _| mix.clone()));
            let batch = SslBatch {
                labelled: images("x_lb", "labelled_batch"),
                labels: Tensor::<1, Int>::from_data(labels.as_slice(), &device),
                weak: vec![images("x_ulb_w", "unlabelled_batch"), images("x_ulb_s", "unlabelled_batch")],
                strong: vec![],
                indices: (0..count("unlabelled_batch") as u32).collect(),
                step: t as u64,
                total_steps: count("num_train_iter") as u64,
                skip_masked: true,
                objective: Objective::default(),
            };
            let step = algorithm.step(&network, &batch);

            let expected = |part: &str| vectors.floats_at(&format!("{case}/{part}"), t);
            let what = |part: &str| format!("{case} iteration {t} {part}");
            let scalar = |name: &str| {
                let found = step.scalars.iter().find(|(n, _)| *n == name).expect(name);
                values(found.1.clone())
            };
            for (ours, part) in
                [("sup", "out/sup_loss"), ("unsup", "out/unsup_loss"), ("unsup_warmup", "out/unsup_warmup")]
            {
                assert_close(&what(part), &scalar(ours), &expected(part), VALUE.0, VALUE.1);
            }
            let total = values(step.total.clone().inner());
            assert_close(&what("total"), &total, &expected("out/total_loss"), VALUE.0, VALUE.1);
            let pseudo = step.pseudo_labels.as_ref().expect("guessed labels");
            let Targets::Soft(guessed) = &pseudo.targets else { panic!("guessed labels are soft") };
            let sharpened = expected("out/sharpened_targets");
            assert_close(&what("guess"), &values(guessed.clone()), &sharpened, VALUE.0, VALUE.1);

            let gradients = step.total.backward();
            let weight = values(network.weight.grad(&gradients).expect("a gradient"));
            let bias = values(network.bias.grad(&gradients).expect("a gradient"));
            assert_close(&what("grad/weight"), &weight, &expected("grad/weight"), GRADIENT.0, GRADIENT.1);
            assert_close(&what("grad/bias"), &bias, &expected("grad/bias"), GRADIENT.0, GRADIENT.1);
        }
    }
}
