//! A head, the network below it where that learns too, and what updates both.

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor};
use harvest_models::{Classifier, PretextHead};

use crate::algorithms::Ranks;
use crate::training::checkpoint::{Checkpoint, CheckpointError, Progress};
use crate::training::{Auxiliary, Optimizer, OptimizerConfig, Pass, average_gradients};

pub(super) struct Learner<H> {
    body: Option<(Classifier, Optimizer)>,
    head: Auxiliary<H>,
}

impl<H: PretextHead> Learner<H> {
    /// Without `network` the head learns alone. The network's classifier does not take part.
    pub fn new(network: Option<Classifier>, head: H, config: OptimizerConfig) -> Self {
        let body = network.map(|network| {
            let network = network.train().tracking(|parameter| parameter.depth > 0);
            let optimizer = Optimizer::new(config.clone(), &network);
            (network, optimizer)
        });
        Self { body, head: Auxiliary::new(head, config) }
    }

    pub fn network(&self) -> Option<&Classifier> {
        self.body.as_ref().map(|(network, _)| network)
    }

    pub fn head(&self) -> &H {
        self.head.head()
    }

    pub fn head_mut(&mut self) -> &mut H {
        self.head.head_mut()
    }

    /// One update against `loss`.
    pub fn descend(&mut self, loss: Tensor<1>, lr: f64, ranks: &dyn Ranks) {
        let mut gradients = loss.backward();
        let mut own = self.head.own(&mut gradients);
        average_gradients(self.head.head(), &mut own, ranks);
        self.head.update(own, lr, None);
        if let Some((network, optimizer)) = &mut self.body {
            let mut gradients = GradientsParams::from_grads(gradients, network);
            average_gradients(network, &mut gradients, ranks);
            optimizer.apply(network, &mut gradients, Pass { lr, clip: None, average: None });
        }
    }

    /// Everything, for the disk. The head's share is in `model` too, so that it is looked through for numbers that are none.
    pub fn save(&self, progress: Progress) -> Checkpoint {
        let mut model = self.head.state();
        let mut optimizer = Default::default();
        if let Some((network, own)) = &self.body {
            model.extend(network.to_tensors());
            optimizer = own.state();
        }
        Checkpoint { progress, model, optimizer, ema: Default::default(), algorithm: Default::default() }
    }

    /// Takes back what [`Learner::save`] gave; `device` is without autodiff.
    pub fn restore(&mut self, mut checkpoint: Checkpoint, device: &Device) -> Result<(), CheckpointError> {
        let misfit = |error: &dyn std::error::Error| CheckpointError::Misfit(error.to_string());
        self.head.restore(&mut checkpoint.model, device).map_err(CheckpointError::Misfit)?;
        if let Some((network, optimizer)) = &mut self.body {
            network.load_tensors(&checkpoint.model).map_err(|error| misfit(&error))?;
            let parameters = network.parameters();
            optimizer.restore(checkpoint.optimizer, parameters, device).map_err(|error| misfit(&error))?;
        }
        Ok(())
    }
}
