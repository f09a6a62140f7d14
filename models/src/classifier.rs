//! A network of either family behind one face.

use burn::Tensor;
use burn::module::Module;
use burn::tensor::Device;

use crate::batch_norm::BatchNorm;
use crate::mode::{Mode, Precision};
use crate::resnet::ResNet;
use crate::vit::Vit;

/// An image classifier. Made by [`ClassifierConfig`](crate::ClassifierConfig).
///
/// Clones share parameters' memory until one of them is updated, and share running statistics for good: batch
/// normalisation counts what the *network* has seen. [`Classifier::separate`] ends that for one copy. burn's own
/// records (`save_file`) do not hold running statistics; use [`Classifier::to_tensors`].
#[expect(
    clippy::large_enum_variant,
    reason = "made once; boxing would stand between the parameters and burn's derive"
)]
#[derive(Module, Debug)]
pub enum Classifier {
    /// Vision transformer.
    Vit(Vit),
    /// Residual network.
    ResNet(ResNet),
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
        }
    }

    /// The same network off autodiff: passes record nothing, and in [`Mode::Train`] still use batch statistics and move
    /// the running ones, which it shares with `self`. Cheap: parameters' memory is shared too, until the next update.
    pub fn detached(&self) -> Self {
        self.valid()
    }

    /// Gives this copy running statistics of its own, starting from the shared ones.
    pub fn separate(mut self) -> Self {
        if let Classifier::ResNet(net) = &mut self {
            net.separate();
        }
        self
    }

    /// The same network, computing in `precision`.
    pub fn with_precision(mut self, precision: Precision) -> Self {
        match &mut self {
            Classifier::Vit(net) => net.set_precision(precision),
            Classifier::ResNet(net) => net.set_precision(precision),
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
            Classifier::Vit(_) => Vec::new(),
            Classifier::ResNet(net) => net.batch_norms(),
        }
    }
}
