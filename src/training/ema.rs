//! An exponential moving average of the weights, which usually predicts better than the weights themselves.

use std::collections::HashMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::Tensor;
use harvest_models::Classifier;

/// `average ← decay · average + (1 − decay) · weight` after each update. Starts as a copy of the weights.
///
/// Only parameters are averaged; running statistics of batch normalisation are those of the live network.
#[derive(Debug, Clone)]
pub struct Ema {
    decay: f64,
    average: Classifier,
}

impl Ema {
    /// Starts from the weights of `net`. `decay` in [0, 1); 0 keeps a plain copy.
    pub fn new(decay: f64, net: &Classifier) -> Self {
        Self { decay, average: net.detached() }
    }

    /// Moves the average by the weights of `net`.
    pub fn update(&mut self, net: &Classifier) {
        let live = net.detached();
        if self.decay == 0.0 {
            self.average = live;
            return;
        }
        let mut weights = Collect::default();
        live.visit(&mut weights);
        let mut blend = Blend { decay: self.decay as f32, live: weights.0 };
        self.average = self.average.clone().map(&mut blend);
    }

    /// The averaged network, off autodiff.
    pub fn network(&self) -> &Classifier {
        &self.average
    }

    /// Replaces the average, when a run is resumed.
    pub fn network_mut(&mut self) -> &mut Classifier {
        &mut self.average
    }
}

/// Live weights by id, flattened.
#[derive(Default)]
struct Collect(HashMap<ParamId, Tensor<1>>);

impl ModuleVisitor for Collect {
    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
        let weight = parameter.val();
        let count = weight.dims().iter().product::<usize>();
        self.0.insert(parameter.id, weight.reshape([count]));
    }
}

struct Blend {
    decay: f32,
    live: HashMap<ParamId, Tensor<1>>,
}

impl ModuleMapper for Blend {
    fn map_float<const D: usize>(&mut self, parameter: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(live) = self.live.remove(&parameter.id) else { return parameter };
        let decay = self.decay;
        parameter.map(|average| {
            let live = live.reshape(average.dims());
            average.mul_scalar(decay) + live.mul_scalar(1.0 - decay)
        })
    }
}
