//! Learning rates, weight averages and optimizer updates against the recorded ones.

mod support;

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor, TensorData};
use harvest::config::OptimizerName;
use harvest::training::{CosineWithWarmup, Ema, Optimizer, OptimizerConfig};
use harvest_models::ParameterInfo;
use serde_json::Value;
use support::{Vectors, assert_close, json};

/// Tolerance of the reference for averages and updates: absolute, relative.
const VALUE: (f32, f32) = (1e-6, 1e-5);

/// What the recorded averages and updates are of.
#[derive(Module, Debug)]
struct Small {
    weight: Param<Tensor<2>>,
    bias: Param<Tensor<1>>,
}

impl Small {
    fn new(weight: (Vec<usize>, Vec<f32>), bias: Vec<f32>, device: &Device) -> Self {
        let (shape, weight) = weight;
        let count = bias.len();
        Self {
            weight: Param::from_data(TensorData::new(weight, [shape[0], shape[1]]), device),
            bias: Param::from_data(TensorData::new(bias, [count]), device),
        }
    }

    fn values(&self) -> [(&'static str, Vec<f32>); 2] {
        [
            ("weight", self.weight.val().inner().into_data().iter::<f32>().collect()),
            ("bias", self.bias.val().inner().into_data().iter::<f32>().collect()),
        ]
    }
}

fn numbers(value: &Value) -> Vec<f64> {
    let list = value.as_array().expect("a list");
    list.iter().map(|number| number.as_f64().expect("a number")).collect()
}

fn floats(value: &Value) -> Vec<f32> {
    numbers(value).into_iter().map(|number| number as f32).collect()
}

#[test]
fn reference_schedule_learning_rates() {
    let schedule = json("schedule.json");
    let cases = schedule["cosine_with_warmup"].as_array().expect("cases");
    assert!(!cases.is_empty());
    for case in cases {
        let integer = |key: &str| case[key].as_u64().unwrap_or_else(|| panic!("{key}"));
        let schedule = CosineWithWarmup {
            peak: case["base_lr"].as_f64().expect("base_lr"),
            total_steps: integer("num_training_steps"),
            warmup_steps: integer("num_warmup_steps"),
            cycles: case["num_cycles"].as_f64().expect("num_cycles"),
        };
        let (steps, rates) = (numbers(&case["steps"]), numbers(&case["lr"]));
        assert_eq!(steps.len(), rates.len());
        assert!(!steps.is_empty());
        for (step, expected) in steps.into_iter().zip(rates) {
            let found = schedule.rate(step as u64);
            let apart = (found - expected).abs();
            assert!(apart <= 1e-12 + 1e-9 * expected, "{schedule:?} step {step}: {found}, not {expected}");
        }
    }
}

#[test]
fn reference_schedule_weight_average() {
    let schedule = json("schedule.json");
    let cases = schedule["ema"].as_array().expect("cases");
    assert!(!cases.is_empty());
    let device = Device::flex().autodiff();
    for case in cases {
        let decay = case["momentum"].as_f64().expect("momentum");
        let shape: Vec<usize> =
            numbers(&case["shapes"]["weight"]).into_iter().map(|side| side as usize).collect();
        let net =
            |of: &Value| Small::new((shape.clone(), floats(&of["weight"])), floats(&of["bias"]), &device);
        let mut live = net(&case["initial_average"]);
        let mut ema = Ema::new(decay, &live);
        for (t, step) in case["steps"].as_array().expect("steps").iter().enumerate() {
            // As in training the parameters stay the same ones, with new values.
            let new = net(&step["param"]);
            live.weight = live.weight.map(|_| new.weight.val());
            live.bias = live.bias.map(|_| new.bias.val());
            ema.update(&live);
            for (name, found) in ema.network().values() {
                let what = format!("decay {decay} update {t} {name}");
                assert_close(&what, &found, &floats(&step["average"][name]), VALUE.0, VALUE.1);
            }
            assert_eq!(live.values(), net(&step["param"]).values(), "averaging leaves the weights alone");
        }
    }
}

struct Ids(Vec<burn::module::ParamId>);

impl ModuleVisitor for Ids {
    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
        self.0.push(parameter.id);
    }
}

/// All recorded updates of one rule. The rule has its recorded hyper-parameters; only rates are in the file.
fn updates(file: &str, config: OptimizerConfig) {
    let vectors = Vectors::read("optimizer.safetensors");
    let recorded = |part: &str| format!("{file}/{part}");
    let device = Device::flex().autodiff();
    let init = vectors.floats(&recorded("init/weight"));
    let shapes = [init.0.clone(), vectors.floats(&recorded("init/bias")).0];
    let mut net = Small::new(init, vectors.floats(&recorded("init/bias")).1, &device);
    let mut ids = Ids(Vec::new());
    net.visit(&mut ids);
    let parameters: Vec<ParameterInfo> = ["weight", "bias"]
        .into_iter()
        .zip(ids.0)
        .zip(&shapes)
        .map(|((name, id), shape)| ParameterInfo {
            name: name.to_owned(),
            id,
            shape: shape.clone(),
            tracked: true,
            depth: 0,
            decays: shape.len() > 1,
        })
        .collect();
    let mut optimizer = Optimizer::of_parameters(config, parameters);
    let (_, rates) = vectors.floats(&recorded("lr"));
    assert!(!rates.is_empty());
    for (t, lr) in rates.into_iter().enumerate() {
        let mut gradients = GradientsParams::new();
        let gradient = |name: &str| vectors.floats_at(&recorded(&format!("grad/{name}")), t);
        let weight = TensorData::new(gradient("weight"), [shapes[0][0], shapes[0][1]]);
        let plain = device.clone().inner();
        gradients.register(net.weight.id, Tensor::<2>::from_data(weight, &plain));
        gradients.register(net.bias.id, Tensor::<1>::from_data(gradient("bias").as_slice(), &plain));
        net = optimizer.step(net, &mut gradients, f64::from(lr));
        assert!(net.weight.val().is_require_grad(), "an updated weight is still trained");
        for (name, found) in net.values() {
            let expected = vectors.floats_at(&recorded(&format!("param/{name}")), t);
            assert_close(&format!("{file} update {t} {name}"), &found, &expected, VALUE.0, VALUE.1);
        }
    }
}

#[test]
fn reference_schedule_adamw() {
    let rule = OptimizerName::AdamW;
    updates("adamw", OptimizerConfig { rule, weight_decay: 0.05, momentum: 0.9, layer_decay: 1.0 });
}

#[test]
fn reference_schedule_sgd() {
    let rule = OptimizerName::Sgd;
    updates("sgd", OptimizerConfig { rule, weight_decay: 5e-4, momentum: 0.9, layer_decay: 1.0 });
}
