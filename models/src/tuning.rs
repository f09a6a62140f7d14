//! Tuning a network through few added parameters, with its own weights fixed; and folding them into an ordinary network.

use crate::classifier::Classifier;
use crate::config::{ClassifierConfig, ConfigError};
use crate::groups::ParameterInfo;
use crate::initial::Initialiser;

/// What is added to the blocks of a vision transformer. `scale` multiplies what the added parameters contribute.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Tuning {
    /// LoRA on `attn.qkv` and `attn.proj`; `scale` is the paper's α / r.
    Lora {
        /// r, at least 1.
        rank: usize,
        /// α / r.
        scale: f32,
    },
    /// A bottleneck adapter beside the MLP, in a form that can be folded into it: GELU, on the MLP's own input.
    Adapter {
        /// Width of the bottleneck, at least 1.
        rank: usize,
        /// s.
        scale: f32,
    },
}

impl Tuning {
    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Tuning::Lora { .. } => "lora",
            Tuning::Adapter { .. } => "adapter",
        }
    }
}

impl ParameterInfo {
    /// Whether [`Classifier::tuned`] added it.
    pub fn is_added(&self) -> bool {
        is_added(&self.name)
    }
}

pub(crate) fn is_added(name: &str) -> bool {
    name.split('.').any(|part| matches!(part, "low_rank" | "adapter"))
}

impl Classifier {
    /// The same network with parameters added to each block, which start from `seed` such that the output stays the same.
    /// Nothing is said about which parameters are tracked; see [`Classifier::tracking`].
    ///
    /// # Errors
    /// If it is no vision transformer, or the rank is 0.
    pub fn tuned(mut self, tuning: Tuning, seed: u64) -> Result<Self, ConfigError> {
        let (Tuning::Lora { rank, .. } | Tuning::Adapter { rank, .. }) = tuning;
        if rank == 0 {
            return Err(ConfigError::Zero { field: "tuning rank" });
        }
        let init = Initialiser::seeded(seed, &self.device());
        match &mut self {
            Classifier::Vit(net) => net.add(tuning, &init),
            _ => return Err(ConfigError::NoBlocksToTune { tuning: tuning.name() }),
        }
        Ok(self)
    }

    /// An ordinary network, off autodiff, that computes the same up to rounding; of the configuration
    /// [`ClassifierConfig::merged`]. Without added parameters, the network itself.
    pub fn merged(&self) -> Self {
        let mut plain = self.detached();
        if let Classifier::Vit(net) = &mut plain {
            net.merge();
        }
        plain
    }
}

impl ClassifierConfig {
    /// That of a network tuned in this way after [`Classifier::merged`]: LoRA changes nothing, an adapter widens the hidden
    /// layers by its rank.
    pub fn merged(&self, tuning: Option<Tuning>) -> Self {
        match (self, tuning) {
            (ClassifierConfig::Vit(config), Some(Tuning::Adapter { rank, .. })) => {
                ClassifierConfig::Vit(config.wider(rank))
            }
            _ => self.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::Tensor;
    use burn::module::{Module, ModuleMapper, Param};
    use burn::tensor::{Device, Distribution};

    use super::*;
    use crate::{Mode, NamedTensors, Precision};

    const LORA: Tuning = Tuning::Lora { rank: 3, scale: 2.0 };
    const ADAPTER: Tuning = Tuning::Adapter { rank: 5, scale: 0.5 };

    fn config() -> ClassifierConfig {
        let vit = r#"{"vit": {"image_size": 16, "patch": 8, "dim": 24, "depth": 2, "heads": 3, "mlp_ratio": 2.3,
                      "classes": 3}}"#;
        serde_json::from_str(vit).expect("a configuration")
    }

    fn network() -> Classifier {
        config().init(1, &Device::flex().autodiff()).expect("valid")
    }

    fn logits(network: &Classifier) -> Vec<f32> {
        let values: Vec<f32> = (0..2 * 3 * 256).map(|i| ((i * 37 % 101) as f32) / 50.0 - 1.0).collect();
        let images =
            Tensor::from_data(burn::tensor::TensorData::new(values, [2, 3, 16, 16]), &Device::flex());
        network.forward(images, Mode::Evaluate).logits.inner().into_data().iter::<f32>().collect()
    }

    /// Moves every parameter at random, as training would.
    struct Shake;

    impl ModuleMapper for Shake {
        fn map_float<const D: usize>(&mut self, parameter: Param<Tensor<D>>) -> Param<Tensor<D>> {
            parameter.map(|value| {
                let value = value.inner();
                let noise = value.random_like(Distribution::Normal(0.0, 0.1));
                Tensor::from_inner(value + noise).require_grad()
            })
        }
    }

    #[test]
    fn the_first_output_is_that_of_the_network() {
        for tuning in [LORA, ADAPTER] {
            let tuned = network().tuned(tuning, 7).expect("a transformer");
            // To rounding: a last block with LoRA computes its products in another order.
            for (a, b) in logits(&tuned).iter().zip(logits(&network())) {
                assert!((a - b).abs() <= 1e-6 * b.abs().max(1.0), "{tuning:?}: {a} {b}");
            }
            let added = tuned.parameters().into_iter().filter(ParameterInfo::is_added).count();
            assert_eq!(added, 2 * 4, "{tuning:?}");
            assert!(tuned.parameters().iter().all(|p| p.depth == 0 || !p.name.starts_with("head")));
        }
    }

    #[test]
    fn a_merged_network_computes_the_same_under_timms_names() {
        for tuning in [LORA, ADAPTER] {
            let tuned = network().tuned(tuning, 7).expect("a transformer").map(&mut Shake);
            let merged = tuned.merged();
            let mut plain = config().merged(Some(tuning)).blank(&Device::flex()).expect("valid");
            plain.load_tensors(&merged.to_tensors()).expect("the names and shapes of an ordinary network");
            let (exact, before) = (logits(&tuned), logits(&network()));
            assert!(exact.iter().zip(&before).any(|(a, b)| (a - b).abs() > 1e-2));
            for network in [&merged, &plain] {
                for (a, b) in exact.iter().zip(logits(network)) {
                    assert!((a - b).abs() <= 1e-5 * a.abs().max(1.0), "{tuning:?}: {a} {b}");
                }
            }
        }
        assert_eq!(network().merged().to_tensors(), network().to_tensors());
    }

    #[test]
    fn added_parameters_alone_can_be_trained_in_either_precision() {
        for tuning in [LORA, ADAPTER] {
            for precision in [Precision::F32, Precision::Bf16] {
                let tuned = network().tuned(tuning, 7).expect("a transformer").map(&mut Shake);
                let tuned = tuned.with_precision(precision).tracking(ParameterInfo::is_added);
                let images = Tensor::random([2, 3, 16, 16], Distribution::Normal(0.0, 1.0), &Device::flex());
                let loss = tuned.forward(images, Mode::train(1)).logits.square().sum();
                let gradients = burn::optim::GradientsParams::from_grads(loss.backward(), &tuned);
                for parameter in tuned.parameters() {
                    let found = match parameter.shape.len() {
                        1 => gradients.get::<1>(parameter.id).is_some(),
                        2 => gradients.get::<2>(parameter.id).is_some(),
                        _ => false,
                    };
                    assert_eq!(found, parameter.is_added(), "{}", parameter.name);
                }
            }
        }
    }

    /// Pretrained weights are those of the ordinary network; a checkpoint holds all.
    #[test]
    fn a_tuned_network_takes_ordinary_weights_and_its_own() {
        let ordinary = config().init(5, &Device::flex()).expect("valid").to_tensors();
        for tuning in [LORA, ADAPTER] {
            let mut tuned = network().tuned(tuning, 7).expect("a transformer").map(&mut Shake);
            let own = tuned.to_tensors();
            tuned.load_tensors(&ordinary).expect("what was added stays");
            let now = tuned.to_tensors();
            for (name, data) in &now {
                assert_eq!(data, if is_added(name) { &own[name] } else { &ordinary[name] }, "{name}");
            }
            tuned.load_tensors(&own).expect("its own");
            assert_eq!(tuned.to_tensors(), own);
            let mut part: NamedTensors = own.clone();
            part.retain(|name, _| !name.contains("blocks.1.") || !is_added(name));
            assert!(tuned.load_tensors(&part).is_err(), "half of what was added");
            assert!(network().load_tensors(&own).is_err(), "an ordinary network has no place for it");
        }
    }

    #[test]
    fn a_residual_network_is_refused_in_words() {
        let network = ClassifierConfig::preset("resnet8", 3).expect("a preset");
        let network = network.blank(&Device::flex()).expect("valid");
        for tuning in [LORA, ADAPTER] {
            let error = network.clone().tuned(tuning, 1).expect_err("it has no such blocks").to_string();
            assert!(error.contains(tuning.name()) && error.contains("vision transformer"), "{error}");
        }
        assert!(self::network().tuned(Tuning::Lora { rank: 0, scale: 1.0 }, 1).is_err());
    }
}
