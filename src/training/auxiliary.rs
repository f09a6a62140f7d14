//! What a pretext task trains beside the classifier, with its optimizer.

use burn::optim::GradientsParams;
use burn::tensor::{Device, Gradients, Tensor};
use harvest_models::{AuxiliaryHead, NamedTensors, PretextHead};

use super::optimizer::{Optimizer, OptimizerConfig, Pass};

/// Prefixes of the entries in a checkpoint.
const WEIGHTS: &str = "auxiliary/weights/";
const OPTIMIZER: &str = "auxiliary/optimizer/";

/// A head and what updates it.
pub(crate) struct Auxiliary<H = AuxiliaryHead> {
    head: H,
    optimizer: Optimizer,
}

impl<H: PretextHead> Auxiliary<H> {
    /// Before the first update.
    pub fn new(head: H, config: OptimizerConfig) -> Self {
        Self { optimizer: Optimizer::of_parameters(config, head.parameters()), head }
    }

    pub fn head(&self) -> &H {
        &self.head
    }

    pub fn head_mut(&mut self) -> &mut H {
        &mut self.head
    }

    /// Takes the share of `gradients` that is the head's.
    pub fn own(&self, gradients: &mut Gradients) -> GradientsParams {
        GradientsParams::from_module(gradients, &self.head)
    }

    /// One update with the head's own gradients, times `clip` where there is a limit on their norm.
    pub fn update(&mut self, mut own: GradientsParams, lr: f64, clip: Option<Tensor<1>>) {
        self.optimizer.apply(&mut self.head, &mut own, Pass { lr, clip, average: None });
    }

    /// Entries of a checkpoint.
    pub fn state(&self) -> NamedTensors {
        let prefixed = |prefix: &'static str, tensors: NamedTensors| {
            tensors.into_iter().map(move |(name, data)| (format!("{prefix}{name}"), data))
        };
        prefixed(WEIGHTS, self.head.to_tensors()).chain(prefixed(OPTIMIZER, self.optimizer.state())).collect()
    }

    /// Takes its entries out of `state`.
    ///
    /// # Errors
    /// What does not fit, in words.
    pub fn restore(&mut self, state: &mut NamedTensors, device: &Device) -> Result<(), String> {
        let weights = self.head.load_tensors(&take(state, WEIGHTS));
        weights.map_err(|error| error.to_string())?;
        let restored = self.optimizer.restore(take(state, OPTIMIZER), self.head.parameters(), device);
        restored.map_err(|error| error.to_string())
    }
}

/// The entries under `prefix`, without it.
fn take(state: &mut NamedTensors, prefix: &str) -> NamedTensors {
    let (own, others) =
        std::mem::take(state).into_iter().partition(|(name, _): &(String, _)| name.starts_with(prefix));
    *state = others;
    let own: NamedTensors = own;
    own.into_iter().map(|(name, data)| (name[prefix.len()..].to_owned(), data)).collect()
}
