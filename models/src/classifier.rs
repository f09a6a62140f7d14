//! A network of any family behind one face.

use burn::Tensor;
use burn::module::Module;
use burn::tensor::Device;

use crate::batch_norm::{BatchNorm, Statistics};
use crate::convnext::ConvNext;
use crate::efficientnet::EfficientNet;
use crate::mode::{Mode, Precision};
use crate::resnet::ResNet;
use crate::vit::Vit;

/// An image classifier. Made by [`ClassifierConfig`](crate::ClassifierConfig).
///
/// Clones share parameters' memory until one of them is updated, and share running statistics for good: batch
/// normalisation counts what the *network* has seen. [`Classifier::separate`] ends that for one copy. burn's own
/// records (`save_file`) do not hold running statistics; use [`Classifier::to_tensors`].
#[derive(Module, Debug)]
pub enum Classifier {
    /// Vision transformer.
    Vit(Vit),
    /// Residual network.
    ResNet(ResNet),
    /// Inverted residuals, for small devices.
    EfficientNet(EfficientNet),
    /// ConvNeXt.
    ConvNext(ConvNext),
}

/// What a forward pass returns, both `f32`.
#[derive(Debug, Clone)]
pub struct Output {
    /// What the linear classifier sees, `[B, dim]`.
    pub features: Tensor<2>,
    /// `[B, classes]`
    pub logits: Tensor<2>,
}

impl Classifier {
    /// Normalised images `[B, 3, H, W]` → features and logits.
    ///
    /// The graph is recorded when the parameters are tracked, in either mode.
    pub fn forward(&self, images: Tensor<4>, mode: Mode<'_>) -> Output {
        match self {
            Classifier::Vit(net) => net.forward(images, mode),
            Classifier::ResNet(net) => net.forward(images, mode),
            Classifier::EfficientNet(net) => net.forward(images, mode),
            Classifier::ConvNext(net) => net.forward(images, mode),
        }
    }

    /// The same network off autodiff: passes record nothing, and in [`Mode::Train`] still use batch statistics and move
    /// the running ones, which it shares with `self`. Cheap: parameters' memory is shared too, until the next update.
    pub fn detached(&self) -> Self {
        self.valid()
    }

    /// Gives this copy running statistics of its own, starting from the shared ones.
    pub fn separate(mut self) -> Self {
        match &mut self {
            Classifier::ResNet(net) => net.separate(),
            Classifier::EfficientNet(net) => net.separate(),
            Classifier::Vit(_) | Classifier::ConvNext(_) => {}
        }
        self
    }

    /// Moves the running statistics of this copy towards those of `live`, the same network a step further:
    /// `own ← decay · own + (1 − decay) · live`. Without effect where they are shared.
    pub fn follow_statistics(&self, live: &Self, decay: f64) {
        for ((_, own), (_, live)) in self.batch_norms().into_iter().zip(live.batch_norms()) {
            own.running().follow(live.running(), decay);
        }
    }

    /// All running statistics, one behind the other: means and variances of every batch normalisation. Empty without any.
    pub fn running_statistics(&self) -> Vec<f32> {
        let all = self.batch_norms().into_iter().flat_map(|(_, norm)| {
            let now = norm.running().get();
            [now.mean, now.var]
        });
        all.flat_map(|tensor| tensor.into_data().iter::<f32>().collect::<Vec<_>>()).collect()
    }

    /// Replaces them, for every copy that shares them, by values in the order of [`Classifier::running_statistics`].
    ///
    /// # Panics
    /// If there are not as many.
    pub fn set_running_statistics(&self, mut values: &[f32]) {
        for (_, norm) in self.batch_norms() {
            let now = norm.running().get();
            let mut next = |like: &Tensor<1>| {
                let (own, rest) = values.split_at(like.dims()[0]);
                values = rest;
                Tensor::from_data(own, &like.device())
            };
            let (mean, var) = (next(&now.mean), next(&now.var));
            norm.running().set(Statistics { mean, var, batches: now.batches });
        }
        assert!(values.is_empty(), "more values than statistics");
    }

    /// The same network, computing in `precision`.
    pub fn with_precision(mut self, precision: Precision) -> Self {
        match &mut self {
            Classifier::Vit(net) => net.set_precision(precision),
            Classifier::ResNet(net) => net.set_precision(precision),
            Classifier::EfficientNet(net) => net.set_precision(precision),
            Classifier::ConvNext(net) => net.set_precision(precision),
        }
        self
    }

    /// Where the parameters are.
    pub fn device(&self) -> Device {
        self.devices().into_iter().next().expect("every network has parameters")
    }

    /// Every batch normalisation with its PyTorch name.
    pub(crate) fn batch_norms(&self) -> Vec<(String, &BatchNorm)> {
        match self {
            Classifier::Vit(_) | Classifier::ConvNext(_) => Vec::new(),
            Classifier::ResNet(net) => net.batch_norms(),
            Classifier::EfficientNet(net) => net.batch_norms(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convnext::ConvNextConfig;
    use crate::efficientnet::EfficientNetConfig;
    use crate::vit::{Pooling, VitConfig};
    use crate::{ClassifierConfig, Company, Noise, PRESETS, Rows};
    use burn::tensor::Distribution;

    fn small_vit(drop_path: f64) -> ClassifierConfig {
        ClassifierConfig::Vit(VitConfig {
            image_size: 16,
            patch: 4,
            dim: 24,
            depth: 3,
            heads: 3,
            mlp_ratio: 4.0,
            drop_path,
            pooling: Pooling::MeanOfPatches,
            registers: 0,
            layer_scale: None,
            class_position: true,
            classes: 5,
        })
    }

    fn all() -> [ClassifierConfig; 5] {
        let ClassifierConfig::Vit(vit) = small_vit(0.5) else { unreachable!("a transformer") };
        let registers =
            VitConfig { registers: 2, layer_scale: Some(0.1), class_position: false, ..vit.clone() };
        let resnet = ClassifierConfig::preset("resnet8", 5).expect("a preset");
        let of = |blocks, dim| crate::convnext::StageConfig { blocks, dim };
        let convnext = ConvNextConfig {
            image_size: 16,
            stages: vec![of(1, 8), of(2, 12)],
            layer_scale: 0.1,
            drop_path: 0.5,
            classes: 5,
        };
        [
            ClassifierConfig::Vit(vit),
            ClassifierConfig::Vit(registers),
            resnet,
            ClassifierConfig::EfficientNet(small_efficientnet(0.5)),
            ClassifierConfig::ConvNext(convnext),
        ]
    }

    fn small_efficientnet(drop_path: f64) -> EfficientNetConfig {
        let stage = |blocks, stride, expansion, channels| crate::efficientnet::StageConfig {
            blocks,
            kernel: 3,
            stride,
            expansion,
            channels,
        };
        EfficientNetConfig {
            image_size: 16,
            stem: 8,
            stages: vec![stage(1, 1, 1, 8), stage(2, 2, 4, 12)],
            features: 24,
            drop_path,
            classes: 5,
        }
    }

    fn images(rows: usize) -> Tensor<4> {
        Tensor::random([rows, 3, 16, 16], Distribution::Normal(0.0, 1.0), &Device::flex())
    }

    fn values<const D: usize>(t: Tensor<D>) -> Vec<f32> {
        t.inner().into_data().iter::<f32>().collect()
    }

    #[test]
    fn every_preset_is_valid_and_an_unknown_one_lists_them() {
        for name in PRESETS {
            let config = ClassifierConfig::preset(name, 3).expect("a preset");
            let text = serde_json::to_string(&config).expect("plain data");
            assert_eq!(serde_json::from_str::<ClassifierConfig>(&text).expect("its own text"), config);
        }
        let error = ClassifierConfig::preset("resnet9", 3).expect_err("no such preset").to_string();
        assert!(error.contains("resnet9") && error.contains("resnet8"), "{error}");
        assert!(ClassifierConfig::preset("resnet8", 0).is_err());
        assert!(serde_json::from_str::<ClassifierConfig>(r#"{"vit": {"pach": 2}}"#).is_err());
    }

    #[test]
    fn a_seed_decides_all_weights() {
        let device = Device::flex();
        for config in all() {
            let net = |seed| config.init(seed, &device).expect("valid").to_tensors();
            assert_eq!(net(1), net(1));
            assert_ne!(net(1), net(2));
        }
    }

    #[test]
    fn the_parameters_alone_decide_on_the_graph() {
        let device = Device::flex().autodiff();
        for config in all() {
            let net = config.init(1, &device).expect("valid");
            for mode in [Mode::train(3), Mode::Evaluate] {
                let tracked = net.forward(images(2), mode).logits;
                let gradients = tracked.sum().backward();
                drop(gradients);
                assert!(!net.detached().forward(images(2), mode).logits.is_autodiff());
            }
        }
    }

    #[test]
    fn a_detached_pass_equals_the_tracked_one_and_moves_the_same_statistics() {
        let device = Device::flex().autodiff();
        for config in all() {
            let x = images(4);
            let (a, b) = (config.init(1, &device).expect("valid"), config.init(1, &device).expect("valid"));
            let tracked = a.forward(x.clone(), Mode::train(3)).logits;
            let detached = b.detached().forward(x, Mode::train(3)).logits;
            for (t, d) in values(tracked).into_iter().zip(values(detached)) {
                assert!((t - d).abs() <= 1e-5 * t.abs().max(1.0), "{t} {d}");
            }
            for (name, data) in a.to_tensors() {
                let other = &b.to_tensors()[&name];
                for (t, d) in data.iter::<f32>().zip(other.iter::<f32>()) {
                    assert!((t - d).abs() <= 1e-6, "{name}: {t} {d}");
                }
            }
        }
    }

    #[test]
    fn stochastic_depth_repeats_and_follows_rows() {
        let net = small_vit(0.5).init(1, &Device::flex()).expect("valid");
        let x = images(6);
        let run = |seed| values(net.forward(x.clone(), Mode::train(seed)).logits);
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
        assert_ne!(run(1), values(net.forward(x.clone(), Mode::Evaluate).logits));
        let rows = [5, 2];
        let part = Tensor::cat(rows.iter().map(|r| x.clone().narrow(0, *r as usize, 1)).collect(), 0);
        let noise = Noise { seed: 1, rows: Rows::Each(&rows) };
        let part = values(net.forward(part, Mode::Train { noise, company: Company::default() }).logits);
        for (i, row) in rows.iter().enumerate() {
            for c in 0..5 {
                assert!((part[i * 5 + c] - run(1)[*row as usize * 5 + c]).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn bfloat16_stays_close_in_both_modes_and_gives_f32_gradients() {
        let device = Device::flex().autodiff();
        for config in all() {
            let net = config.init(1, &device).expect("valid");
            let half = net.clone().separate().with_precision(Precision::Bf16);
            let x = images(4);
            for mode in [Mode::Evaluate, Mode::train(5)] {
                let exact = values(net.forward(x.clone(), mode).logits);
                let rounded = half.forward(x.clone(), mode).logits;
                let largest = exact.iter().fold(0f32, |m, v| m.max(v.abs()));
                for (e, r) in exact.iter().zip(values(rounded.clone())) {
                    assert!((e - r).abs() <= 2e-2 * largest, "{e} {r} of {largest}");
                }
                let gradients = rounded.square().sum().backward();
                let gradients = burn::optim::GradientsParams::from_grads(gradients, &half);
                for p in half.parameters().into_iter().filter(|p| p.shape.len() == 1) {
                    let gradient = gradients.get::<1>(p.id).expect("every parameter has a gradient");
                    assert_eq!(gradient.dtype(), burn::tensor::DType::F32, "{}", p.name);
                }
            }
        }
    }

    #[test]
    fn depth_counts_from_the_head_in_a_residual_network() {
        let net = ClassifierConfig::preset("resnet8", 5).expect("a preset");
        let max = net.max_depth();
        let net = net.blank(&Device::flex()).expect("valid");
        let depth = |name: &str| net.parameters().into_iter().find(|p| p.name == name).map(|p| p.depth);
        assert_eq!(depth("fc.weight"), Some(0));
        assert_eq!(depth("layer3.0.conv2.weight"), Some(1));
        assert_eq!(depth("layer1.0.bn1.bias"), Some(3));
        assert_eq!(depth("conv1.weight"), Some(max));
    }

    #[test]
    fn depth_counts_from_the_head_in_the_convolutional_networks_too() {
        let depths = |name: &str| {
            let config = ClassifierConfig::preset(name, 5).expect("a preset");
            let parameters = config.blank(&Device::flex()).expect("valid").parameters();
            let depths = parameters.into_iter().map(|p| (p.name, p.depth));
            (depths.collect::<std::collections::BTreeMap<_, _>>(), config.max_depth())
        };
        let (depth, max) = depths("efficientnet_lite0");
        assert_eq!(max, 17);
        assert_eq!(depth["classifier.bias"], 0);
        assert_eq!([depth["bn2.weight"], depth["conv_head.weight"], depth["blocks.6.0.bn3.bias"]], [1; 3]);
        assert_eq!([depth["blocks.5.3.conv_pw.weight"], depth["blocks.0.0.bn2.weight"]], [2, 16]);
        assert_eq!([depth["conv_stem.weight"], depth["bn1.weight"]], [max; 2]);
        let (depth, max) = depths("convnext_tiny");
        assert_eq!(max, 19);
        assert_eq!(depth["head.fc.weight"], 0);
        assert_eq!([depth["head.norm.weight"], depth["stages.3.blocks.2.gamma"]], [1; 2]);
        let first_of_the_last_stage = ["stages.3.downsample.1.weight", "stages.3.blocks.0.norm.bias"];
        assert_eq!(first_of_the_last_stage.map(|name| depth[name]), [3; 2]);
        assert_eq!([depth["stages.2.blocks.8.gamma"], depth["stages.0.blocks.0.gamma"]], [4, 18]);
        assert_eq!([depth["stem.0.weight"], depth["stem.1.bias"]], [max; 2]);
    }

    #[test]
    fn a_configuration_that_makes_no_network_is_refused() {
        let valid = small_efficientnet(0.0);
        let no_stages = EfficientNetConfig { stages: Vec::new(), ..valid.clone() };
        assert_eq!(no_stages.validate(), Err(crate::ConfigError::NoStages));
        let mut even = valid.clone();
        even.stages[1].kernel = 4;
        assert!(even.validate().expect_err("an even kernel").to_string().contains("stages.kernel"));
        let mut small = ConvNextConfig::convnext_tiny(5);
        small.image_size = 31;
        assert!(small.validate().expect_err("no place is left").to_string().contains("image_size"));
        small.image_size = 32;
        assert_eq!(small.validate(), Ok(()));
        // Written before there were registers.
        let old = r#"{"vit":{"image_size":32,"patch":2,"dim":192,"depth":12,"heads":3,"drop_path":0.1,"classes":3}}"#;
        let old: ClassifierConfig = serde_json::from_str(old).expect("still a configuration");
        assert_eq!(old, ClassifierConfig::preset("vit_tiny_patch2_32", 3).expect("a preset"));
    }
}
