//! Which parameters training moves. The others keep their values, and no gradient is computed for them.

use std::collections::HashSet;

use burn::module::{Module, ModuleMapper, Param, ParamId};
use burn::tensor::Tensor;

use crate::classifier::Classifier;
use crate::groups::ParameterInfo;

impl Classifier {
    /// The same network, tracking exactly the parameters that `moves` accepts. Below the lowest of them nothing is recorded.
    ///
    /// Off autodiff nothing can be tracked, and the network stays as it is.
    pub fn tracking(self, moves: impl Fn(&ParameterInfo) -> bool) -> Self {
        let tracked = self.parameters().into_iter().filter(moves).map(|parameter| parameter.id).collect();
        self.map(&mut Track { tracked })
    }
}

struct Track {
    tracked: HashSet<ParamId>,
}

impl ModuleMapper for Track {
    fn map_float<const D: usize>(&mut self, parameter: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let tracked = self.tracked.contains(&parameter.id);
        let (id, value, mapper) = parameter.consume();
        let value = match value.is_autodiff() {
            // A new leaf: the flag of one that was tracked before cannot be taken back.
            true => Tensor::from_inner(value.inner()).set_require_grad(tracked),
            false => value,
        };
        Param::from_mapped_value(id, value, mapper)
    }
}

#[cfg(test)]
mod tests {
    use burn::optim::GradientsParams;
    use burn::tensor::{Device, Distribution};

    use super::*;
    use crate::{ClassifierConfig, Mode};

    /// Names of the parameters that have a gradient after a pass in training mode.
    fn with_gradients(network: &Classifier) -> Vec<String> {
        let images = Tensor::random([3, 3, 16, 16], Distribution::Normal(0.0, 1.0), &Device::flex());
        let gradients = network.forward(images, Mode::train(1)).logits.square().sum().backward();
        let gradients = GradientsParams::from_grads(gradients, network);
        let has = |parameter: &ParameterInfo| match parameter.shape.len() {
            1 => gradients.get::<1>(parameter.id).is_some(),
            2 => gradients.get::<2>(parameter.id).is_some(),
            3 => gradients.get::<3>(parameter.id).is_some(),
            _ => gradients.get::<4>(parameter.id).is_some(),
        };
        network.parameters().into_iter().filter(has).map(|parameter| parameter.name).collect()
    }

    #[test]
    fn only_what_is_tracked_has_a_gradient_and_can_be_tracked_again() {
        let device = Device::flex().autodiff();
        let vit =
            r#"{"vit": {"image_size": 16, "patch": 8, "dim": 8, "depth": 2, "heads": 2, "classes": 3}}"#;
        for config in [
            serde_json::from_str(vit).expect("a configuration"),
            ClassifierConfig::preset("resnet8", 3).expect("a preset"),
        ] {
            let whole: Classifier = config.init(1, &device).expect("valid");
            let names: Vec<String> = whole.parameters().into_iter().map(|p| p.name).collect();
            assert_eq!(with_gradients(&whole), names);
            for deepest in 0..config.max_depth() {
                let part = whole.clone().tracking(|parameter| parameter.depth <= deepest);
                let moved: Vec<String> =
                    part.parameters().into_iter().filter(|p| p.depth <= deepest).map(|p| p.name).collect();
                assert_eq!(with_gradients(&part), moved);
                assert!(part.parameters().iter().all(|p| p.tracked == (p.depth <= deepest)));
                // Clones share running statistics, so these agree as well.
                assert_eq!(part.to_tensors(), whole.to_tensors());
                assert_eq!(with_gradients(&part.tracking(|_| true)), names);
            }
        }
    }

    #[test]
    fn off_autodiff_nothing_is_tracked() {
        let config = ClassifierConfig::preset("resnet8", 3).expect("a preset");
        let network = config.init(1, &Device::flex()).expect("valid").tracking(|_| true);
        assert!(network.parameters().iter().all(|parameter| !parameter.tracked));
    }
}
