//! A second classifier on a network's features, for a pretext task during training; no part of the model that comes of it.

use burn::Tensor;
use burn::module::Module;
use burn::tensor::Device;

use crate::classifier::Classifier;
use crate::heads::PretextHead;
use crate::initial::{Initialiser, Start};
use crate::layers::Linear;
use crate::mode::Precision;

/// Linear logits of `[B, dim]` features. Its parameters are called `auxiliary.weight` and `auxiliary.bias`.
#[derive(Module, Debug)]
pub struct AuxiliaryHead {
    auxiliary: Linear,
}

impl PretextHead for AuxiliaryHead {}

impl AuxiliaryHead {
    /// `outputs` logits on the features of `network`, with PyTorch's default initial values drawn from `seed`.
    pub fn new(network: &Classifier, outputs: usize, seed: u64, device: &Device) -> Self {
        let features = network.feature_size();
        let init = Initialiser::seeded(seed, device).part("auxiliary");
        let start = Start::torch_default(features);
        Self { auxiliary: Linear::new(&init, features, outputs, start, Start::Constant(0.0)) }
    }

    /// `[B, dim]` → `[B, outputs]`, in single precision.
    pub fn forward(&self, features: Tensor<2>) -> Tensor<2> {
        self.auxiliary.forward(features, Precision::F32)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Distribution;

    use super::*;
    use crate::{ClassifierConfig, Mode, WeightsError};

    #[test]
    fn it_sees_the_features_of_either_family_and_comes_back_from_its_tensors() {
        let device = Device::flex();
        for name in ["resnet8", "vit_tiny_patch2_32"] {
            let network =
                ClassifierConfig::preset(name, 3).expect("a preset").init(1, &device).expect("valid");
            let head = AuxiliaryHead::new(&network, 4, 7, &device);
            let images = Tensor::random([2, 3, 32, 32], Distribution::Normal(0.0, 1.0), &device);
            let features = network.forward(images, Mode::Evaluate).features;
            let logits = head.forward(features.clone());
            assert_eq!(logits.dims(), [2, 4]);
            let mut other = AuxiliaryHead::new(&network, 4, 8, &device);
            assert_ne!(other.to_tensors(), head.to_tensors());
            other.load_tensors(&head.to_tensors()).expect("the same head");
            assert_eq!(other.forward(features).into_data(), logits.into_data());
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let device = Device::flex();
        let network =
            ClassifierConfig::preset("resnet8", 3).expect("a preset").init(1, &device).expect("valid");
        let mut head = AuxiliaryHead::new(&network, 4, 7, &device);
        let mut tensors = AuxiliaryHead::new(&network, 5, 7, &device).to_tensors();
        let error = head.load_tensors(&tensors).expect_err("another shape").to_string();
        assert!(error.contains("auxiliary."), "{error}");
        tensors.remove("auxiliary.bias");
        assert!(matches!(head.load_tensors(&tensors), Err(WeightsError::Missing { .. })));
    }
}
