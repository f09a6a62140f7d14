//! What is trained on a network's features beside its classifier, and is no part of the model that comes of it.

use burn::Tensor;
use burn::module::Module;
use burn::tensor::Device;

use crate::groups::{ParameterInfo, list};
use crate::initial::{Initialiser, Start};
use crate::layers::Linear;
use crate::mode::Precision;
use crate::weights::{NamedTensors, WeightsError, export, import};

/// A module of plain parameters; computes in single precision.
pub trait PretextHead: Module + Sized {
    /// All parameters; as of a classifier, at depth 0.
    fn parameters(&self) -> Vec<ParameterInfo> {
        let decays =
            |parameter: ParameterInfo| ParameterInfo { decays: parameter.shape.len() > 1, ..parameter };
        list(self).into_iter().map(decays).collect()
    }

    /// All parameters as they are now, in PyTorch's layout.
    fn to_tensors(&self) -> NamedTensors {
        export(self)
    }

    /// Replaces all parameters.
    ///
    /// # Errors
    /// If one is absent, of another shape, or there are others.
    fn load_tensors(&mut self, tensors: &NamedTensors) -> Result<(), WeightsError> {
        *self = import(self, &self.parameters(), tensors)?;
        Ok(())
    }
}

/// SimCLR's projection `g(h) = W₂ relu(W₁ h)`, of length one: arXiv:2002.05709, section 2.1.
///
/// Its parameters are called `fc1` and `fc2`.
#[derive(Module, Debug)]
pub struct ProjectionHead {
    fc1: Linear,
    fc2: Linear,
}

impl PretextHead for ProjectionHead {}

impl ProjectionHead {
    /// From `features` values to `outputs`, with PyTorch's default initial values drawn from `seed`.
    pub fn new(features: usize, outputs: usize, seed: u64, device: &Device) -> Self {
        let init = Initialiser::seeded(seed, device);
        let start = Start::torch_default(features);
        let linear = |name, outputs| {
            Linear::new(&init.part("projection").part(name), features, outputs, start, Start::Constant(0.0))
        };
        Self { fc1: linear("fc1", features), fc2: linear("fc2", outputs) }
    }

    /// `[B, features]` → `[B, outputs]`, rows of length one.
    pub fn forward(&self, features: Tensor<2>) -> Tensor<2> {
        let hidden = burn::tensor::activation::relu(self.fc1.forward(features, Precision::F32));
        let projected = self.fc2.forward(hidden, Precision::F32);
        let length = (projected.clone().square().sum_dim(1) + 1e-12).sqrt();
        projected / length
    }
}

/// SCAN's heads: linear classifiers side by side that learn the same task from different beginnings.
///
/// Parameters are called `heads.0.weight` and so on; a row of a weight is a cluster.
#[derive(Module, Debug)]
pub struct ClusterHeads {
    heads: Vec<Linear>,
}

impl PretextHead for ClusterHeads {}

impl ClusterHeads {
    /// `count` heads of `clusters` logits each, with PyTorch's default initial values drawn from `seed`.
    pub fn new(features: usize, clusters: usize, count: usize, seed: u64, device: &Device) -> Self {
        let init = Initialiser::seeded(seed, device);
        let start = Start::torch_default(features);
        let head = |number| {
            let init = init.part("heads").part(number);
            Linear::new(&init, features, clusters, start, Start::Constant(0.0))
        };
        Self { heads: (0..count).map(head).collect() }
    }

    /// The logits of every head, `[B, clusters]` each.
    pub fn forward(&self, features: Tensor<2>) -> Vec<Tensor<2>> {
        self.heads.iter().map(|head| head.forward(features.clone(), Precision::F32)).collect()
    }

    /// How many heads there are.
    pub fn len(&self) -> usize {
        self.heads.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    /// Keeps the head `number` alone, which is then the first.
    pub fn only(mut self, number: usize) -> Self {
        self.heads.swap(0, number);
        self.heads.truncate(1);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn projections_have_length_one_and_heads_are_kept_by_number() {
        let device = Device::flex();
        let features = Tensor::<2>::from_data([[1.0f32, -2.0, 3.0], [0.0, 0.0, 0.0]], &device);
        let projection = ProjectionHead::new(3, 4, 1, &device);
        let lengths = projection.forward(features.clone()).square().sum_dim(1).into_data();
        let lengths: Vec<f32> = lengths.iter::<f32>().collect();
        assert!((lengths[0] - 1.0).abs() < 1e-5 && lengths[1].is_finite(), "{lengths:?}");
        let heads = ClusterHeads::new(3, 2, 3, 7, &device);
        let logits: Vec<_> = heads.forward(features.clone()).into_iter().map(Tensor::into_data).collect();
        assert!(logits[0] != logits[1] && logits[1] != logits[2]);
        let kept = heads.clone().only(2);
        assert_eq!(kept.len(), 1);
        assert_eq!(kept.forward(features)[0].to_data(), logits[2]);
        let mut other = ClusterHeads::new(3, 2, 3, 8, &device);
        other.load_tensors(&heads.to_tensors()).expect("its own tensors");
        assert_eq!(other.to_tensors(), heads.to_tensors());
        assert!(other.load_tensors(&projection.to_tensors()).is_err());
        assert_eq!(heads.to_tensors()["heads.1.weight"].shape().to_vec(), [2, 3]);
    }
}
