//! AdamW and SGD with Nesterov momentum over all parameters of a network, with layer-wise learning rates.
//!
//! The state lives here, by parameter name, so that a checkpoint is plain tensors and a resumed run continues to the
//! same numbers.

use std::collections::{BTreeMap, HashMap};

use burn::module::{Module, ModuleMapper, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor, TensorData};
use harvest_kernels::AdamW;
use harvest_models::{Classifier, NamedTensors, ParameterInfo};

use crate::config::OptimizerName;

/// AdamW's decay rates and ε as PyTorch's defaults.
const BETA1: f32 = 0.9;
const BETA2: f32 = 0.999;
const EPSILON: f32 = 1e-8;

/// What an optimizer needs to know beside the gradients.
#[derive(Debug, Clone, PartialEq)]
pub struct OptimizerConfig {
    /// Which rule.
    pub rule: OptimizerName,
    /// AdamW: decoupled; SGD: added to the gradient, as in PyTorch.
    pub weight_decay: f64,
    /// SGD only.
    pub momentum: f64,
    /// Rate of a layer relative to the one above it, in (0, 1].
    pub layer_decay: f64,
}

/// How one parameter is treated.
#[derive(Debug, Clone)]
struct Treatment {
    name: String,
    rate_factor: f64,
    weight_decay: f32,
}

/// The optimizer and its state.
#[derive(Debug)]
pub struct Optimizer {
    config: OptimizerConfig,
    treatments: HashMap<ParamId, Treatment>,
    slots: BTreeMap<String, Slots>,
    updates: u32,
}

/// State of one parameter.
#[derive(Debug, Clone)]
struct Slots {
    /// Flattened: AdamW's two moments, or SGD's momentum buffer.
    parts: Vec<Tensor<1>>,
    /// Updates of the optimizer before the first of this parameter, which may have been kept fixed for a while. AdamW's
    /// moments start when they are first needed, as in PyTorch, and are corrected for their own age.
    since: u32,
}

/// A saved state that does not fit.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OptimizerError {
    /// Of another network or another optimizer.
    #[error("the saved optimizer state does not fit this network and optimizer: {reason}")]
    Foreign {
        /// What does not fit.
        reason: String,
    },
}

impl Optimizer {
    /// For the parameters of `net`, before the first update.
    pub fn new(config: OptimizerConfig, net: &Classifier) -> Self {
        Self::of_parameters(config, net.parameters())
    }

    /// For these parameters of any module, before the first update.
    pub fn of_parameters(config: OptimizerConfig, parameters: Vec<ParameterInfo>) -> Self {
        let treatments = parameters
            .into_iter()
            .map(|parameter| {
                let treatment = Treatment {
                    rate_factor: config.layer_decay.powi(parameter.depth as i32),
                    weight_decay: if parameter.decays { config.weight_decay as f32 } else { 0.0 },
                    name: parameter.name,
                };
                (parameter.id, treatment)
            })
            .collect();
        Self { config, treatments, slots: BTreeMap::new(), updates: 0 }
    }

    /// One update with base rate `lr`. Parameters without a gradient stay as they are.
    pub fn step<M: Module>(&mut self, net: M, gradients: &mut GradientsParams, lr: f64) -> M {
        self.updates += 1;
        net.map(&mut Update { optimizer: self, gradients, lr })
    }

    /// The whole state by name: `first/…` and `second/…`, or `momentum/…`, the number of updates, and `since/…` for
    /// parameters that were not there from the first one.
    pub fn state(&self) -> NamedTensors {
        let parts = self.parts();
        let mut state: NamedTensors = self
            .slots
            .iter()
            .flat_map(|(name, slots)| {
                let data = slots.parts.iter().map(Tensor::to_data);
                parts.iter().zip(data).map(move |(part, data)| (format!("{part}/{name}"), data))
            })
            .collect();
        let late = self.slots.iter().filter(|(_, slots)| slots.since > 0);
        state.extend(late.map(|(name, slots)| {
            (format!("since/{name}"), TensorData::new(vec![i64::from(slots.since)], [1]))
        }));
        state.insert("updates".to_owned(), TensorData::new(vec![i64::from(self.updates)], [1]));
        state
    }

    /// Takes back what [`Optimizer::state`] gave, for the `parameters` it was made for, on `device` (without autodiff).
    ///
    /// # Errors
    /// If it belongs to another optimizer or network; the optimizer is then as it was.
    pub fn restore(
        &mut self,
        mut state: NamedTensors,
        parameters: Vec<ParameterInfo>,
        device: &Device,
    ) -> Result<(), OptimizerError> {
        let foreign = |reason: String| OptimizerError::Foreign { reason };
        let number = |data: TensorData| data.iter::<i64>().next().and_then(|count| u32::try_from(count).ok());
        let updates = state
            .remove("updates")
            .and_then(number)
            .ok_or_else(|| foreign("it does not tell the number of updates".to_owned()))?;
        let mut slots = BTreeMap::new();
        for parameter in parameters {
            let mut own = Vec::new();
            for part in self.parts() {
                let key = format!("{part}/{}", parameter.name);
                let Some(data) = state.remove(&key) else { continue };
                let expected: usize = parameter.shape.iter().product();
                if data.num_elements() != expected {
                    let found = data.num_elements();
                    return Err(foreign(format!("`{key}` has {found} values, not {expected}")));
                }
                own.push(Tensor::from_data(data, device));
            }
            match own.len() {
                0 => {}
                n if n == self.parts().len() => {
                    let since = state.remove(&format!("since/{}", parameter.name)).map_or(Some(0), number);
                    let since = since.filter(|since| *since <= updates).ok_or_else(|| {
                        foreign(format!("`since/{}` is no number of updates", parameter.name))
                    })?;
                    slots.insert(parameter.name, Slots { parts: own, since });
                }
                _ => return Err(foreign(format!("`{}` is incomplete", parameter.name))),
            }
        }
        if let Some(name) = state.into_keys().next() {
            return Err(foreign(format!("it holds `{name}`")));
        }
        (self.slots, self.updates) = (slots, updates);
        Ok(())
    }

    fn parts(&self) -> &'static [&'static str] {
        match self.config.rule {
            OptimizerName::AdamW => &["first", "second"],
            OptimizerName::Sgd => &["momentum"],
        }
    }
}

/// Walks over the parameters and replaces each.
struct Update<'a> {
    optimizer: &'a mut Optimizer,
    gradients: &'a mut GradientsParams,
    lr: f64,
}

impl ModuleMapper for Update<'_> {
    fn map_float<const D: usize>(&mut self, parameter: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(treatment) = self.optimizer.treatments.get(&parameter.id).cloned() else { return parameter };
        let Some(gradient) = self.gradients.remove::<D>(parameter.id) else { return parameter };
        let (id, weight, mapper) = parameter.consume();
        let tracked = weight.is_require_grad();
        let weight = self.optimizer.update(weight.inner(), gradient, &treatment, self.lr);
        Param::from_mapped_value(id, Tensor::from_inner(weight).set_require_grad(tracked), mapper)
    }
}

impl Optimizer {
    fn update<const D: usize>(
        &mut self,
        weight: Tensor<D>,
        gradient: Tensor<D>,
        treatment: &Treatment,
        lr: f64,
    ) -> Tensor<D> {
        let lr = (lr * treatment.rate_factor) as f32;
        let slots = self.slots.remove(&treatment.name);
        let since = slots.as_ref().map_or(self.updates - 1, |slots| slots.since);
        let slots = slots.map(|slots| slots.parts);
        let (weight, parts) = match self.config.rule {
            OptimizerName::AdamW => {
                self.adamw(weight, gradient, slots, treatment, (lr, self.updates - since))
            }
            OptimizerName::Sgd => self.sgd(weight, gradient, slots, treatment, lr),
        };
        self.slots.insert(treatment.name.clone(), Slots { parts, since });
        weight
    }

    fn adamw<const D: usize>(
        &self,
        weight: Tensor<D>,
        gradient: Tensor<D>,
        slots: Option<Vec<Tensor<1>>>,
        treatment: &Treatment,
        (lr, step): (f32, u32),
    ) -> (Tensor<D>, Vec<Tensor<1>>) {
        let shape = weight.dims();
        let count = shape.iter().product::<usize>();
        let [first, second] = match slots.map(<[Tensor<1>; 2]>::try_from) {
            Some(Ok(moments)) => moments.map(|moment| moment.reshape(shape)),
            _ => [weight.zeros_like(), weight.zeros_like()],
        };
        let rule = AdamW {
            lr,
            beta1: BETA1,
            beta2: BETA2,
            eps: EPSILON,
            weight_decay: treatment.weight_decay,
            step,
        };
        let [weight, first, second] = harvest_kernels::adamw(weight, gradient, first, second, rule);
        (weight, [first, second].map(|moment| moment.reshape([count])).to_vec())
    }

    /// PyTorch's SGD: `g ← g + wd·w; b ← μ b + g; w ← w − lr (g + μ b)`, with `b = g` at the first update.
    fn sgd<const D: usize>(
        &self,
        weight: Tensor<D>,
        gradient: Tensor<D>,
        slots: Option<Vec<Tensor<1>>>,
        treatment: &Treatment,
        lr: f32,
    ) -> (Tensor<D>, Vec<Tensor<1>>) {
        let shape = weight.dims();
        let count = shape.iter().product::<usize>();
        let momentum = self.config.momentum as f32;
        let gradient = if treatment.weight_decay > 0.0 {
            gradient + weight.clone().mul_scalar(treatment.weight_decay)
        } else {
            gradient
        };
        let buffer = match slots.and_then(|slots| slots.into_iter().next()) {
            Some(buffer) => buffer.reshape(shape).mul_scalar(momentum) + gradient.clone(),
            None => gradient.clone(),
        };
        let weight = weight - (gradient + buffer.clone().mul_scalar(momentum)).mul_scalar(lr);
        (weight, vec![buffer.reshape([count])])
    }
}

#[cfg(test)]
mod tests {
    use burn::module::ModuleVisitor;
    use burn::tensor::Device;
    use harvest_models::ClassifierConfig;

    use super::*;

    const ADAMW: OptimizerConfig =
        OptimizerConfig { rule: OptimizerName::AdamW, weight_decay: 0.0, momentum: 0.9, layer_decay: 1.0 };
    const SGD: OptimizerConfig = OptimizerConfig { rule: OptimizerName::Sgd, ..ADAMW };

    fn net() -> Classifier {
        let config =
            r#"{"vit": {"image_size": 4, "patch": 2, "dim": 4, "depth": 2, "heads": 1, "classes": 3}}"#;
        let config: ClassifierConfig = serde_json::from_str(config).expect("a configuration");
        config.init(1, &Device::flex().autodiff()).expect("a valid network")
    }

    /// A gradient of 1 for every weight.
    struct Ones(GradientsParams);

    impl ModuleVisitor for Ones {
        fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
            self.0.register(parameter.id, parameter.val().inner().ones_like());
        }
    }

    fn after_a_step(optimizer: &mut Optimizer, net: Classifier, lr: f64) -> Classifier {
        let mut ones = Ones(GradientsParams::new());
        net.visit(&mut ones);
        optimizer.step(net, &mut ones.0, lr)
    }

    #[test]
    fn rates_fall_towards_the_input() {
        let net = net();
        let config = OptimizerConfig { momentum: 0.0, layer_decay: 0.5, ..SGD };
        let moved = after_a_step(&mut Optimizer::new(config, &net), net.clone(), 0.5).to_tensors();
        let before = net.to_tensors();
        for parameter in net.parameters() {
            let rate = 0.5 * 0.5f32.powi(parameter.depth as i32);
            let pairs = before[&parameter.name].iter::<f32>().zip(moved[&parameter.name].iter::<f32>());
            for (old, new) in pairs {
                assert!((old - new - rate).abs() < 1e-6, "{}: {old} {new}", parameter.name);
            }
        }
    }

    #[test]
    fn a_parameter_without_a_gradient_stays() {
        let net = net();
        let moved = Optimizer::new(ADAMW, &net).step(net.clone(), &mut GradientsParams::new(), 0.5);
        assert_eq!(moved.to_tensors(), net.to_tensors());
    }

    /// AdamW's first update of a weight has the size of the rate, whenever it comes.
    #[test]
    fn moments_start_with_the_first_gradient() {
        let whole = net();
        let mut optimizer = Optimizer::new(ADAMW, &whole);
        for _ in 0..3 {
            let part = whole.clone().tracking(|parameter| parameter.depth == 0);
            let mut head = Ones(GradientsParams::new());
            part.visit(&mut head);
            let mut gradients = GradientsParams::new();
            for parameter in part.parameters().into_iter().filter(|p| p.depth == 0 && p.shape.len() == 1) {
                gradients.register(parameter.id, head.0.remove::<1>(parameter.id).expect("given above"));
            }
            optimizer.step(part, &mut gradients, 0.1);
        }
        let moved = after_a_step(&mut optimizer, whole.clone(), 0.1);
        let (before, after) = (whole.to_tensors(), moved.to_tensors());
        let state = optimizer.state();
        assert!(!state.contains_key("since/head.bias"));
        for parameter in whole.parameters().into_iter().filter(|p| p.name != "head.bias") {
            assert_eq!(state[&format!("since/{}", parameter.name)].iter::<i64>().next(), Some(3));
            let pairs = before[&parameter.name].iter::<f32>().zip(after[&parameter.name].iter::<f32>());
            pairs.for_each(|(old, new)| assert!((old - new - 0.1).abs() < 1e-5, "{old} {new}"));
        }
        let mut other = Optimizer::new(ADAMW, &whole);
        other.restore(state.clone(), whole.parameters(), &whole.device().inner()).expect("its own");
        assert_eq!(other.state(), state);
    }

    #[test]
    fn a_restored_state_goes_on_to_the_same_numbers() {
        for config in [ADAMW, SGD] {
            let net = net();
            let mut first = Optimizer::new(config.clone(), &net);
            let start = after_a_step(&mut first, net, 0.1);
            let (mut second, other) = (Optimizer::new(config, &start), start.clone());
            second
                .restore(first.state(), start.parameters(), &start.device().inner())
                .expect("its own state");
            assert_eq!(second.state(), first.state());
            let ends = [after_a_step(&mut first, start, 0.1), after_a_step(&mut second, other, 0.1)];
            assert_eq!(ends[0].to_tensors(), ends[1].to_tensors());
            assert_eq!(second.state(), first.state());
        }
    }

    #[test]
    fn a_foreign_state_is_refused_and_changes_nothing() {
        let state = |config: OptimizerConfig| {
            let net = net();
            let mut optimizer = Optimizer::new(config, &net);
            after_a_step(&mut optimizer, net, 0.1);
            optimizer.state()
        };
        let changed = |change: &dyn Fn(&mut NamedTensors)| {
            let mut state = state(ADAMW);
            change(&mut state);
            state
        };
        let (first, second) = ("first/head.bias", "second/head.bias");
        for (foreign, word) in [
            (state(SGD), "momentum/"),
            (changed(&|s| drop(s.remove("updates"))), "number of updates"),
            (changed(&|s| drop(s.remove(second))), "`head.bias` is incomplete"),
            (
                changed(&|s| drop(s.insert(first.into(), TensorData::new(vec![0f32; 2], [2])))),
                "2 values, not 3",
            ),
            (
                changed(&|s| drop(s.insert("first/fc.bias".into(), TensorData::new(vec![0f32; 3], [3])))),
                "fc.bias",
            ),
            (NamedTensors::new(), "number of updates"),
        ] {
            let net = net();
            let mut optimizer = Optimizer::new(ADAMW, &net);
            let net = after_a_step(&mut optimizer, net, 0.1);
            let before = optimizer.state();
            let error = optimizer
                .restore(foreign, net.parameters(), &net.device().inner())
                .expect_err("it does not fit")
                .to_string();
            assert!(error.contains(word), "{error}");
            assert_eq!(optimizer.state(), before);
        }
    }
}
