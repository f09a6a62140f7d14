//! The layer that a pretext task trains beside the classifier, with its optimizer.

use burn::optim::GradientsParams;
use burn::tensor::{Device, Gradients};
use harvest_models::{AuxiliaryHead, Classifier, NamedTensors};
use rand::RngExt;

use super::optimizer::{Optimizer, OptimizerConfig};
use crate::random::{Purpose, stream};

/// Prefixes of the entries in a checkpoint.
const WEIGHTS: &str = "auxiliary/weights/";
const OPTIMIZER: &str = "auxiliary/optimizer/";

/// A head and what updates it.
pub(super) struct Auxiliary {
    head: AuxiliaryHead,
    optimizer: Optimizer,
}

impl Auxiliary {
    /// With weights from the seed of the run. `device` is an autodiff device.
    pub fn new(
        network: &Classifier,
        outputs: usize,
        seed: u64,
        config: OptimizerConfig,
        device: &Device,
    ) -> Self {
        let seed = stream(seed, Purpose::Initialisation, [1, 0, 0]).random();
        let head = AuxiliaryHead::new(network, outputs, seed, device);
        Self { optimizer: Optimizer::of_parameters(config, head.parameters()), head }
    }

    pub fn head(&self) -> &AuxiliaryHead {
        &self.head
    }

    /// One update, with the share of `gradients` that is the head's.
    pub fn update(&mut self, gradients: &mut Gradients, lr: f64) {
        let mut own = GradientsParams::from_module(gradients, &self.head);
        self.head = self.optimizer.step(self.head.clone(), &mut own, lr);
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
