//! An exponential moving average of the weights, which usually predicts better than the weights themselves.
//!
//! Batch normalisation makes this delicate. Weights averaged over a hundred steps lie behind the live ones while those still
//! move fast, and running statistics of the live network, which remember ten steps, do not fit them. The established
//! implementation uses these nevertheless; in short runs this was seen to cost up to 20 points of accuracy. So by default
//! the statistics are averaged like the weights ([`Ema::apart`]).

use std::collections::{HashMap, HashSet};

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::Tensor;
use harvest_models::Classifier;

use super::flat::{Flat, flat, hollow};

/// `average ← decay · average + (1 − decay) · weight` after each update. Starts as a copy of the weights.
///
/// Only parameters are averaged; running statistics of batch normalisation are those of the live network, unless they are
/// kept [`apart`](Ema::apart).
#[derive(Debug, Clone)]
pub struct Ema<M = Classifier> {
    decay: f64,
    average: M,
}

impl<M: Module> Ema<M> {
    /// Starts from the weights of `net`. `decay` in [0, 1); 0 keeps a plain copy.
    pub fn new(decay: f64, net: &M) -> Self {
        Self { decay, average: net.valid() }
    }

    /// Moves the average by the weights of `net`.
    pub fn update(&mut self, net: &M) {
        self.take_back(HashMap::new(), net);
    }

    pub(super) fn decay(&self) -> f64 {
        self.decay
    }

    /// Takes the averages of these parameters out, flat, for the optimizer to move them in its own pass. A plain copy lets
    /// go of them: it shares its tensors with the network, which could not be updated in place.
    pub(super) fn lend(&mut self, wanted: &HashSet<ParamId>) -> HashMap<ParamId, Tensor<1>> {
        let mut lend = Lend { wanted, out: HashMap::new() };
        self.average = self.average.clone().map(&mut lend);
        if self.decay == 0.0 { HashMap::new() } else { lend.out }
    }

    /// Takes back what was lent, moved already, and moves all other averages by the weights of `net`.
    pub(super) fn take_back(&mut self, moved: HashMap<ParamId, Flat>, net: &M) {
        if self.decay == 0.0 {
            self.average = net.valid();
            return;
        }
        let mut weights = Collect { moved: &moved, live: HashMap::new() };
        net.visit(&mut weights);
        let mut blend = Blend { decay: self.decay, live: weights.live, moved };
        self.average = self.average.clone().map(&mut blend);
    }

    /// The averaged network, off autodiff.
    pub fn network(&self) -> &M {
        &self.average
    }

    /// Replaces the average, when a run is resumed.
    pub fn network_mut(&mut self) -> &mut M {
        &mut self.average
    }
}

impl Ema {
    /// With running statistics of its own, averaged like the weights by [`Ema::follow_statistics`].
    pub fn apart(mut self) -> Self {
        self.average = self.average.separate();
        self
    }

    /// Moves the running statistics, where they are kept apart, after the weights have moved.
    pub fn follow_statistics(&self, net: &Classifier) {
        self.average.follow_statistics(net, self.decay);
    }
}

/// Takes averages out.
struct Lend<'a> {
    wanted: &'a HashSet<ParamId>,
    out: HashMap<ParamId, Tensor<1>>,
}

impl ModuleMapper for Lend<'_> {
    fn map_float<const D: usize>(&mut self, parameter: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !self.wanted.contains(&parameter.id) {
            return parameter;
        }
        let (id, average, mapper) = parameter.consume();
        let stand_in = hollow(&average);
        self.out.insert(id, flat(average));
        Param::from_mapped_value(id, stand_in, mapper)
    }
}

/// Live weights by id, flattened and off autodiff, but for those whose averages have moved. Those that training keeps
/// fixed are their own average, to the last bit.
struct Collect<'a> {
    moved: &'a HashMap<ParamId, Flat>,
    live: HashMap<ParamId, Tensor<1>>,
}

impl ModuleVisitor for Collect<'_> {
    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
        let weight = parameter.val();
        let fixed = weight.is_autodiff() && !weight.is_require_grad();
        if !fixed && !self.moved.contains_key(&parameter.id) {
            self.live.insert(parameter.id, flat(weight.inner()));
        }
    }
}

struct Blend {
    decay: f64,
    live: HashMap<ParamId, Tensor<1>>,
    moved: HashMap<ParamId, Flat>,
}

impl ModuleMapper for Blend {
    fn map_float<const D: usize>(&mut self, parameter: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (moved, live) = (self.moved.remove(&parameter.id), self.live.remove(&parameter.id));
        let decay = self.decay;
        match (moved, live) {
            (Some(moved), _) => parameter.map(|_| moved.shaped()),
            (None, Some(live)) => parameter.map(|average| {
                let live = live.reshape(average.dims());
                average.mul_scalar(decay) + live.mul_scalar(1.0 - decay)
            }),
            (None, None) => parameter,
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use harvest_models::{ClassifierConfig, Mode};

    use super::*;

    fn nets() -> [Classifier; 2] {
        let config = r#"{"resnet": {"image_size": 8, "stem": "small_image", "block": "basic", "blocks": [1],
                         "planes": 4, "classes": 3}}"#;
        let config: ClassifierConfig = serde_json::from_str(config).expect("a configuration");
        let net = config.init(1, &Device::flex().autodiff()).expect("a valid network");
        // The same parameters with other values, as after a step.
        let mut moved = net.clone().separate();
        let mut tensors = net.to_tensors();
        tensors.extend(config.init(2, &Device::flex()).expect("a valid network").to_tensors());
        moved.load_tensors(&tensors).expect("the same network");
        [net, moved]
    }

    #[test]
    fn without_decay_the_average_is_the_network() {
        let [net, moved] = nets();
        let mut ema = Ema::new(0.0, &net);
        assert_eq!(ema.network().to_tensors(), net.to_tensors());
        ema.update(&moved);
        assert_eq!(ema.network().to_tensors(), moved.to_tensors());
        assert!(ema.network().parameters().iter().all(|parameter| !parameter.tracked));
    }

    #[test]
    fn an_average_has_the_running_statistics_of_the_live_network() {
        let [net, _] = nets();
        let mut ema = Ema::new(0.5, &net);
        net.forward(Tensor::ones([2, 3, 8, 8], &Device::flex()), Mode::train(0));
        ema.update(&net);
        assert_ne!(net.to_tensors(), nets()[0].to_tensors());
        assert_eq!(ema.network().to_tensors(), net.to_tensors());
    }

    #[test]
    fn statistics_kept_apart_are_averaged_like_weights() {
        let [net, _] = nets();
        let mut ema = Ema::new(0.75, &net).apart();
        let start = net.to_tensors();
        net.forward(Tensor::ones([2, 3, 8, 8], &Device::flex()), Mode::train(0));
        ema.update(&net);
        ema.follow_statistics(&net);
        let [average, live] = [ema.network().to_tensors(), net.to_tensors()];
        for name in ["bn1.running_mean", "bn1.running_var"] {
            let values = |of: &harvest_models::NamedTensors| of[name].iter::<f32>().collect::<Vec<_>>();
            assert_ne!(values(&start), values(&live));
            for ((old, average), new) in values(&start).into_iter().zip(values(&average)).zip(values(&live)) {
                assert!((average - (0.75 * old + 0.25 * new)).abs() < 1e-6, "{name}");
            }
        }
        assert_eq!(average["bn1.num_batches_tracked"], live["bn1.num_batches_tracked"]);
    }

    #[test]
    fn an_average_stays_between_its_past_and_the_weights() {
        let [net, moved] = nets();
        let mut ema = Ema::new(0.75, &net);
        ema.update(&moved);
        let [old, average, new] = [&net, ema.network(), &moved].map(Classifier::to_tensors);
        for parameter in net.parameters() {
            let values = |tensors: &harvest_models::NamedTensors| {
                tensors[&parameter.name].iter::<f32>().collect::<Vec<_>>()
            };
            for ((old, average), new) in values(&old).into_iter().zip(values(&average)).zip(values(&new)) {
                assert!((average - (0.75 * old + 0.25 * new)).abs() < 1e-6, "{}", parameter.name);
            }
        }
    }
}
