//! The moving parts of a run between two steps: network, optimizer, average, algorithm.

use burn::optim::GradientsParams;
use burn::tensor::{Int, Tensor};
use harvest_models::{AuxiliaryHead, Classifier, ConfigError, LoadOptions, LoadReport};
use rand::RngExt;

use super::auxiliary::Auxiliary;
use super::checkpoint::{Checkpoint, CheckpointError, Progress};
use super::ema::Ema;
use super::loader::HostBatch;
use super::network::StepNetwork;
use super::optimizer::{Optimizer, OptimizerConfig};
use super::scope::{self, Scope};
use super::setup::Setup;
use crate::algorithms::{Algorithm, SslBatch, Views};
use crate::config::{EmaStatistics, Switch};
use crate::inference::images_to_tensor;
use crate::random::{Purpose, stream};
use crate::weights::{WeightsError, start_from};

/// A run between two steps.
pub struct Session<'a> {
    setup: Setup<'a>,
    network: Classifier,
    ema: Ema,
    optimizer: Optimizer,
    algorithm: Box<dyn Algorithm>,
    auxiliary: Option<Auxiliary>,
    /// What of the network is tracked.
    scope: Scope,
    /// Steps done.
    pub step: u64,
}

/// The scalars of one step, still on the device: `loss` first.
pub type Scalars = Vec<(&'static str, Tensor<1>)>;

impl<'a> Session<'a> {
    /// Before the first step, with weights from the seed or from `pretrained`.
    ///
    /// # Errors
    /// If there can be no such network.
    pub fn new(setup: Setup<'a>) -> Result<Self, ConfigError> {
        let device = setup.problem.device.clone().autodiff();
        let seed = stream(setup.training.seed, Purpose::Initialisation, [0; 3]).random();
        let mut network = setup.model.init(seed, &device)?.with_precision(setup.precision());
        if let Some(tuning) = scope::added(setup.training) {
            let seed = stream(setup.training.seed, Purpose::Initialisation, [2, 0, 0]).random();
            network = network.tuned(tuning, seed)?;
        }
        let scope = Scope::at(0, setup.training, setup.model);
        let network = network.tracking(|parameter| scope.moves(parameter));
        let optimizer = OptimizerConfig {
            rule: setup.training.optimizer,
            weight_decay: setup.training.weight_decay,
            momentum: setup.training.momentum,
            layer_decay: setup.training.layer_decay,
        };
        let algorithm = setup.build_algorithm();
        let auxiliary = (algorithm.auxiliary_outputs() > 0).then(|| {
            let seed = stream(setup.training.seed, Purpose::Initialisation, [1, 0, 0]).random();
            let head = AuxiliaryHead::new(&network, algorithm.auxiliary_outputs(), seed, &device);
            Auxiliary::new(head, optimizer.clone())
        });
        Ok(Self {
            ema: average(&setup, algorithm.as_ref(), &network),
            optimizer: Optimizer::new(optimizer, &network),
            algorithm,
            auxiliary,
            network,
            scope,
            step: 0,
            setup,
        })
    }

    /// Starts from given weights instead of random ones.
    ///
    /// # Errors
    /// If they are not found, damaged or not this network's.
    pub fn load_weights(
        &mut self,
        named: &std::path::Path,
        options: LoadOptions,
    ) -> Result<LoadReport, WeightsError> {
        let report = start_from(&mut self.network, named, options)?;
        self.ema = average(&self.setup, self.algorithm.as_ref(), &self.network);
        Ok(report)
    }

    /// The views of unlabelled images that the algorithm looks at.
    pub fn views(&self) -> Views {
        self.algorithm.views()
    }

    /// Number of trainable values of the network.
    pub fn num_parameters(&self) -> usize {
        self.network.num_parameters()
    }

    /// Tracks what moves in the next step.
    fn track(&mut self) {
        let scope = Scope::at(self.step, self.setup.training, self.setup.model);
        if scope != self.scope {
            let network = std::mem::replace(&mut self.network, self.ema.network().clone());
            self.network = network.tracking(|parameter| scope.moves(parameter));
            self.scope = scope;
        }
    }

    /// One step on `batch` with learning rate `lr`. Reads nothing back from the device, but for the mask where masked
    /// views are left out.
    pub fn advance(&mut self, batch: HostBatch, lr: f64) -> Scalars {
        let batch = self.upload(batch);
        let noise = stream(self.setup.training.seed, Purpose::Network, [self.step, 0, 0]).random();
        let independent = self.setup.model.rows_are_independent();
        let head = self.auxiliary.as_ref().map(Auxiliary::head);
        let network = StepNetwork::new(&self.network, independent, noise).beside(self.ema.network(), head);
        let step = self.algorithm.step(&network, &batch);
        let mut scalars = vec![("loss", step.total.clone().inner())];
        scalars.extend(step.scalars);
        let mut gradients = step.total.backward();
        if let Some(auxiliary) = &mut self.auxiliary {
            let own = auxiliary.own(&mut gradients);
            auxiliary.update(own, lr);
        }
        let mut gradients = GradientsParams::from_grads(gradients, &self.network);
        // A stand-in keeps the field filled: with a second handle on the weights the optimizer could not work in place.
        let network = std::mem::replace(&mut self.network, self.ema.network().clone());
        self.network = self.optimizer.step(network, &mut gradients, lr);
        self.ema.follow(&self.network);
        self.step += 1;
        self.track();
        scalars
    }

    /// A batch on the device, normalised.
    pub fn upload(&self, batch: HostBatch) -> SslBatch {
        let device = &self.setup.problem.device;
        let size = self.setup.model.image_size();
        let images = |bytes| images_to_tensor(bytes, size, self.setup.normalisation, device);
        SslBatch {
            labels: Tensor::<1, Int>::from_data(batch.labels.as_slice(), device),
            labelled: images(batch.labelled),
            weak: batch.weak.into_iter().map(images).collect(),
            strong: batch.strong.into_iter().map(images).collect(),
            indices: batch.indices,
            step: batch.step,
            total_steps: self.setup.problem.total_steps,
            skip_masked: self.setup.training.skip_masked != Switch::Off,
            objective: self.setup.objective.clone(),
        }
    }

    /// The network that predicts: the average.
    pub fn predictor(&self) -> &Classifier {
        self.ema.network()
    }

    /// Everything, for the disk.
    pub fn checkpoint(&self, best: Option<(f64, u64)>, seconds: f64) -> Checkpoint {
        let mut algorithm = self.algorithm.state();
        algorithm.extend(self.auxiliary.iter().flat_map(Auxiliary::state));
        Checkpoint {
            progress: Progress { step: self.step, best, seconds, kind: self.setup.kind() },
            model: self.network.to_tensors(),
            ema: self.ema.network().to_tensors(),
            optimizer: self.optimizer.state(),
            algorithm,
        }
    }

    /// Goes back to where a checkpoint was taken.
    ///
    /// # Errors
    /// If it does not fit.
    pub fn restore(&mut self, mut checkpoint: Checkpoint) -> Result<(), CheckpointError> {
        let misfit = |error: &dyn std::error::Error| CheckpointError::Misfit(error.to_string());
        self.ema.network_mut().load_tensors(&checkpoint.ema).map_err(|e| misfit(&e))?;
        self.network.load_tensors(&checkpoint.model).map_err(|e| misfit(&e))?;
        let (parameters, device) = (self.network.parameters(), self.network.device().inner());
        self.optimizer.restore(checkpoint.optimizer, parameters, &device).map_err(|e| misfit(&e))?;
        if let Some(auxiliary) = &mut self.auxiliary {
            auxiliary.restore(&mut checkpoint.algorithm, &device).map_err(CheckpointError::Misfit)?;
        }
        self.algorithm.restore(checkpoint.algorithm).map_err(|e| misfit(&e))?;
        self.step = checkpoint.progress.step;
        self.track();
        Ok(())
    }
}

/// The average of a run that starts from `network`: as configured, else as the algorithm needs it.
fn average(setup: &Setup<'_>, algorithm: &dyn Algorithm, network: &Classifier) -> Ema {
    let decay = match setup.training.ema {
        0.0 => algorithm.average_decay().map_or(0.0, f64::from),
        decay => decay,
    };
    let ema = Ema::new(decay, network);
    match setup.training.ema_statistics {
        EmaStatistics::Averaged => ema.apart(),
        EmaStatistics::Live => ema,
    }
}
