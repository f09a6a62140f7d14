//! AdamW and SGD with Nesterov momentum over all parameters of a network, with layer-wise learning rates.
//!
//! All parameters are updated in one pass over their memory, and the average of the weights with them. For that their
//! tensors are taken out of the network and put back: a second handle on a tensor would cost a copy of it.

mod state;

use std::collections::{BTreeMap, HashMap};

use burn::module::{Module, ModuleMapper, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use harvest_kernels::{AdamW, Parameter, Sgd, UpdateRule, update_parameters};
use harvest_models::{Classifier, ParameterInfo};

pub use self::state::OptimizerError;
use self::state::Slots;
use super::ema::Ema;
use super::flat::{Flat, flat, hollow};
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

/// What one update is made with, beside the gradients.
#[derive(Debug)]
pub struct Pass<'a, M> {
    /// Base learning rate.
    pub lr: f64,
    /// Factor on all gradients, `[1]`.
    pub clip: Option<Tensor<1>>,
    /// The average of the weights, which moves with them as in [`Ema::update`].
    pub average: Option<&'a mut Ema<M>>,
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
        let mut net = net;
        self.apply(&mut net, gradients, Pass { lr, clip: None, average: None });
        net
    }

    /// [`Optimizer::step`] in place, and all else of `pass` with it. Takes the gradients out of `gradients`.
    pub fn apply<M: Module>(&mut self, net: &mut M, gradients: &mut GradientsParams, pass: Pass<'_, M>) {
        let Pass { lr, clip, mut average } = pass;
        self.updates += 1;
        let mut gather = Gather { optimizer: self, gradients, lr, taken: Vec::new(), parameters: Vec::new() };
        *net = net.clone().map(&mut gather);
        let (taken, mut parameters) = (gather.taken, gather.parameters);
        let decay = average.as_ref().map_or(0.0, |ema| ema.decay());
        if let Some(ema) = &mut average {
            let follows = taken.iter().filter(|taken| taken.averaged).map(|taken| taken.id).collect();
            let mut lent = ema.lend(&follows);
            for (taken, parameter) in taken.iter().zip(&mut parameters) {
                parameter.average = lent.remove(&taken.id);
            }
        }
        let parameters = update_parameters(parameters, clip.as_ref(), decay);
        let (mut weights, mut averages) = (HashMap::new(), HashMap::new());
        for (taken, parameter) in taken.into_iter().zip(parameters) {
            let Taken { id, name, since, shape, tracked, .. } = taken;
            self.slots.insert(name, Slots { parts: parts_of(parameter.rule), since });
            let averaged = parameter.average.map(|values| Flat { values, shape: shape.clone() });
            averages.extend(averaged.map(|average| (id, average)));
            weights.insert(id, (Flat { values: parameter.weight, shape }, tracked));
        }
        *net = net.clone().map(&mut PutBack(weights));
        if let Some(ema) = average {
            ema.take_back(averages, net);
        }
    }

    /// How the parameter of this flat `weight` is updated now, and its [`Slots::since`].
    fn rule(&mut self, treatment: &Treatment, weight: &Tensor<1>, lr: f64) -> (UpdateRule, u32) {
        let lr = (lr * treatment.rate_factor) as f32;
        let slots = self.slots.remove(&treatment.name);
        let since = slots.as_ref().map_or(self.updates - 1, |slots| slots.since);
        let mut parts = slots.into_iter().flat_map(|slots| slots.parts);
        let mut part = || parts.next().unwrap_or_else(|| weight.zeros_like());
        let weight_decay = treatment.weight_decay;
        let rule = match self.config.rule {
            OptimizerName::AdamW => {
                let step = self.updates - since;
                let rule = AdamW { lr, beta1: BETA1, beta2: BETA2, eps: EPSILON, weight_decay, step };
                UpdateRule::AdamW(rule, [part(), part()])
            }
            OptimizerName::Sgd => {
                let momentum = self.config.momentum as f32;
                UpdateRule::Sgd(Sgd { lr, momentum, weight_decay }, part())
            }
        };
        (rule, since)
    }
}

fn parts_of(rule: UpdateRule) -> Vec<Tensor<1>> {
    match rule {
        UpdateRule::AdamW(_, moments) => moments.into(),
        UpdateRule::Sgd(_, buffer) => vec![buffer],
    }
}

/// What is known of a parameter whose tensors are out.
struct Taken {
    id: ParamId,
    name: String,
    since: u32,
    shape: Vec<usize>,
    /// Whether its gradient is asked for.
    tracked: bool,
    /// Whether its average moves: not where training keeps it fixed.
    averaged: bool,
}

/// Takes out all parameters that are to be updated.
struct Gather<'a> {
    optimizer: &'a mut Optimizer,
    gradients: &'a mut GradientsParams,
    lr: f64,
    taken: Vec<Taken>,
    parameters: Vec<Parameter>,
}

impl ModuleMapper for Gather<'_> {
    fn map_float<const D: usize>(&mut self, parameter: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(treatment) = self.optimizer.treatments.get(&parameter.id).cloned() else { return parameter };
        let Some(gradient) = self.gradients.remove::<D>(parameter.id) else { return parameter };
        let (id, weight, mapper) = parameter.consume();
        let (shape, tracked) = (weight.dims().to_vec(), weight.is_require_grad());
        let averaged = tracked || !weight.is_autodiff();
        let stand_in = hollow(&weight);
        let weight = flat(weight.inner());
        let (rule, since) = self.optimizer.rule(&treatment, &weight, self.lr);
        self.taken.push(Taken { id, name: treatment.name, since, shape, tracked, averaged });
        self.parameters.push(Parameter { weight, gradient: flat(gradient), rule, average: None });
        Param::from_mapped_value(id, stand_in, mapper)
    }
}

/// Puts weights back, and whether their gradients are asked for.
struct PutBack(HashMap<ParamId, (Flat, bool)>);

impl ModuleMapper for PutBack {
    fn map_float<const D: usize>(&mut self, parameter: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some((weight, tracked)) = self.0.remove(&parameter.id) else { return parameter };
        let (id, _, mapper) = parameter.consume();
        let weight = Tensor::from_inner(weight.shaped::<D>()).set_require_grad(tracked);
        Param::from_mapped_value(id, weight, mapper)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use burn::module::ModuleVisitor;
    use burn::tensor::Device;
    use harvest_models::{ClassifierConfig, NamedTensors};

    use super::*;

    pub const ADAMW: OptimizerConfig =
        OptimizerConfig { rule: OptimizerName::AdamW, weight_decay: 0.0, momentum: 0.9, layer_decay: 1.0 };
    pub const SGD: OptimizerConfig = OptimizerConfig { rule: OptimizerName::Sgd, ..ADAMW };

    pub fn net() -> Classifier {
        let config =
            r#"{"vit": {"image_size": 4, "patch": 2, "dim": 4, "depth": 2, "heads": 1, "classes": 3}}"#;
        let config: ClassifierConfig = serde_json::from_str(config).expect("a configuration");
        config.init(1, &Device::flex().autodiff()).expect("a valid network")
    }

    struct Constant(f32, GradientsParams);

    impl ModuleVisitor for Constant {
        fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
            self.1.register(parameter.id, parameter.val().inner().full_like(self.0));
        }
    }

    /// A gradient of `size` for every weight.
    pub fn gradients(net: &Classifier, size: f32) -> GradientsParams {
        let mut constant = Constant(size, GradientsParams::new());
        net.visit(&mut constant);
        constant.1
    }

    pub fn after_a_step(optimizer: &mut Optimizer, net: Classifier, lr: f64) -> Classifier {
        let mut ones = gradients(&net, 1.0);
        optimizer.step(net, &mut ones, lr)
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
            let mut all = gradients(&part, 1.0);
            let mut gradients = GradientsParams::new();
            for parameter in part.parameters().into_iter().filter(|p| p.depth == 0 && p.shape.len() == 1) {
                gradients.register(parameter.id, all.remove::<1>(parameter.id).expect("given above"));
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

    /// The average that moved in the pass, and the one that moved afterwards.
    fn averages(
        config: OptimizerConfig,
        decay: f64,
        given: impl Fn(&ParameterInfo) -> bool,
    ) -> [NamedTensors; 2] {
        let nets = [(); 2].map(|()| net().tracking(|parameter| parameter.name != "norm.weight"));
        let mut ends = nets.map(|net| {
            let (optimizer, ema) = (Optimizer::new(config.clone(), &net), Ema::new(decay, &net));
            (net, optimizer, ema)
        });
        for step in 1..=4 {
            for (index, (net, optimizer, ema)) in ends.iter_mut().enumerate() {
                let mut all = gradients(net, 0.3 * step as f32);
                for parameter in net.parameters().into_iter().filter(|p| p.shape.len() == 1 && !given(p)) {
                    all.remove::<1>(parameter.id);
                }
                let average = (index == 0).then_some(&mut *ema);
                optimizer.apply(net, &mut all, Pass { lr: 0.1, clip: None, average });
                if index == 1 {
                    ema.update(net);
                }
            }
        }
        let [first, second] = ends;
        assert_eq!(first.0.to_tensors(), second.0.to_tensors());
        assert_eq!(first.1.state(), second.1.state());
        assert!(first.2.network().parameters().iter().all(|parameter| !parameter.tracked));
        [first, second].map(|(_, _, ema)| ema.network().to_tensors())
    }

    #[test]
    fn an_average_in_the_pass_is_the_one_of_a_pass_of_its_own() {
        for config in [ADAMW, SGD] {
            for decay in [0.0, 0.75, 0.999] {
                let [found, expected] = averages(config.clone(), decay, |_| true);
                assert_eq!(found, expected);
                // Without a gradient, and so outside of the pass, a weight and its average go on as well.
                let [found, expected] = averages(config.clone(), decay, |p| p.name != "head.bias");
                assert_eq!(found, expected);
            }
        }
    }

    #[test]
    fn other_handles_on_weights_and_averages_keep_their_values() {
        let mut net = net();
        let (mut optimizer, mut ema) = (Optimizer::new(ADAMW, &net), Ema::new(0.5, &net));
        for _ in 0..3 {
            let (kept, average) = (net.clone(), ema.network().clone());
            let before = [kept.to_tensors(), average.to_tensors()];
            let mut ones = gradients(&net, 1.0);
            optimizer.apply(&mut net, &mut ones, Pass { lr: 0.1, clip: None, average: Some(&mut ema) });
            assert_eq!([kept.to_tensors(), average.to_tensors()], before);
            assert_ne!(net.to_tensors(), before[0]);
            assert_ne!(ema.network().to_tensors(), before[1]);
        }
    }
}
