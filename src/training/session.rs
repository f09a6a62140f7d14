//! The moving parts of a run between two steps: network, optimizer, average, algorithm.

use std::sync::{Arc, OnceLock};

use burn::optim::GradientsParams;
use burn::tensor::{Int, Tensor};
use harvest_kernels::{Augmenter, Exchange, ViewPlan};
use harvest_models::{AuxiliaryHead, Classifier, Company, ConfigError, LoadOptions, LoadReport, PretextHead};
use rand::RngExt;

use super::auxiliary::Auxiliary;
use super::checkpoint::{Checkpoint, CheckpointError, Progress};
use super::clipping::GlobalNorm;
use super::crew::Crew;
use super::ema::Ema;
use super::loader::{HostBatch, HostViews, ViewsOf};
use super::network::StepNetwork;
use super::optimizer::{Optimizer, OptimizerConfig, Pass};
use super::ranks::JointStatistics;
use super::reduction::{ReduceTimes, Reduction};
use super::scope::{self, Scope};
use super::setup::Setup;
use crate::algorithms::{Algorithm, SslBatch, Views};
use crate::config::{EmaStatistics, Switch};
use crate::inference::{images_to_tensor, normalise};
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
    crew: Crew,
    /// How gradients are summed over several ranks, since the first step with the present scope.
    reduction: Option<Reduction>,
    /// Whether they are.
    sums: bool,
    /// The ranks whose images are normalised together, if they are.
    statistics: Option<Arc<dyn Exchange>>,
    /// What makes views on the device, since the first that it was left to make.
    augmenter: OnceLock<Augmenter>,
    /// Steps done.
    pub step: u64,
}

/// The scalars of one step, still on the device: `loss` first.
pub type Scalars = Vec<(&'static str, Tensor<1>)>;

impl<'a> Session<'a> {
    /// Before the first step, with weights from the seed, shared by the ranks of `crew`.
    ///
    /// # Errors
    /// If there can be no such network.
    pub fn new(setup: Setup<'a>, crew: Crew) -> Result<Self, ConfigError> {
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
        let joint = crew.world_size() > 1 && setup.distribution.sync_batch_norm;
        Ok(Self {
            statistics: joint.then(|| Arc::new(JointStatistics(crew.clone())) as Arc<dyn Exchange>),
            reduction: None,
            augmenter: OnceLock::new(),
            sums: crew.world_size() > 1,
            crew,
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
            self.reduction = None;
        }
    }

    /// Sums gradients even where there is a single rank, to see what that costs.
    pub fn sum_always(&mut self) {
        self.sums = true;
    }

    /// Plans which gradients travel together, before the first step with a scope.
    fn plan(&mut self) {
        if self.sums && self.reduction.is_none() {
            let mut parameters = self.network.parameters();
            parameters.extend(self.auxiliary.iter().flat_map(|auxiliary| auxiliary.head().parameters()));
            let device = self.setup.problem.device.clone().inner();
            self.reduction = Some(Reduction::new(&self.crew, &self.setup.distribution, parameters, &device));
        }
    }

    /// One step on `batch`, this rank's rows of it, with learning rate `lr`. On a single rank it reads nothing back from the
    /// device, but for the mask where masked views are left out.
    ///
    /// `wants` is a set of bits; what comes back beside the scalars is what any rank wanted in this step, the same on every
    /// rank. The scalars are of this rank's rows: [`Session::mean`] makes them everybody's.
    pub fn advance(&mut self, batch: HostBatch, lr: f64, wants: u32) -> (Scalars, u32) {
        if self.crew.world_size() > 1 {
            // It waits for other ranks, and would keep the thread from the pool meanwhile.
            return self.advance_here(batch, lr, wants);
        }
        let device = self.setup.problem.device.clone();
        crate::device::compute(&device, || self.advance_here(batch, lr, wants))
    }

    fn advance_here(&mut self, batch: HostBatch, lr: f64, wants: u32) -> (Scalars, u32) {
        self.plan();
        let batch = self.upload(batch);
        let noise = stream(self.setup.training.seed, Purpose::Network, [self.step, 0, 0]).random();
        let independent = self.setup.model.rows_are_independent();
        let head = self.auxiliary.as_ref().map(Auxiliary::head);
        if let Some(reduction) = &self.reduction {
            reduction.begin(&self.network);
            head.into_iter().for_each(|head| reduction.begin(head));
        }
        let watcher = self.reduction.as_ref().map(Reduction::watcher);
        let company = Company { watcher: watcher.as_ref(), statistics: self.statistics.as_ref() };
        let step = {
            let network = StepNetwork::new(&self.network, independent, noise)
                .beside(self.ema.network(), head)
                .among(&self.crew, company);
            // Its teacher must not outlive this: a second handle on the weights would cost the optimizer a copy of them.
            self.algorithm.step(&network, &batch)
        };
        let mut scalars = vec![("loss", step.total.clone().inner())];
        scalars.extend(step.scalars);
        let vote = self.crew.vote(wants);
        let mut gradients = step.total.backward();
        let mut own = self.auxiliary.as_ref().map(|auxiliary| auxiliary.own(&mut gradients));
        let mut gradients = GradientsParams::from_grads(gradients, &self.network);
        if let Some(reduction) = &mut self.reduction {
            reduction.contribute(&self.network, &gradients);
            let head = self.auxiliary.as_ref().map(Auxiliary::head).zip(own.as_mut());
            if let Some((head, own)) = &head {
                reduction.contribute(*head, own);
            }
            reduction.arrive();
            reduction.spread(&self.network, &mut gradients);
            if let Some((head, own)) = head {
                reduction.spread(head, own);
            }
            reduction.end();
        }
        let clip = self.clip(&gradients, own.as_ref());
        if let Some((auxiliary, own)) = self.auxiliary.as_mut().zip(own) {
            auxiliary.update(own, lr, clip.clone());
        }
        let pass = Pass { lr, clip, average: Some(&mut self.ema) };
        self.optimizer.apply(&mut self.network, &mut gradients, pass);
        self.ema.follow_statistics(&self.network);
        self.step += 1;
        self.track();
        (scalars, self.crew.agreed(vote))
    }

    /// The factor on the gradients of the network, and of the auxiliary head if there is one, where their norm is limited.
    fn clip(&self, gradients: &GradientsParams, own: Option<&GradientsParams>) -> Option<Tensor<1>> {
        let limit = self.setup.training.clip_norm?;
        let mut norm = GlobalNorm::default();
        norm.add(&self.network, gradients);
        if let Some((auxiliary, own)) = self.auxiliary.as_ref().zip(own) {
            norm.add(auxiliary.head(), own);
        }
        norm.factor(limit)
    }

    /// The mean of numbers over ranks, weighted by their parts of a step. All ranks must call it, with as many numbers.
    pub fn mean(&self, own: &[f32]) -> Vec<f32> {
        self.crew.mean(own)
    }

    /// Makes running statistics the same on all ranks, which must call it together before they are used or saved. Without
    /// batch normalisation, or where it is synchronised, they are already.
    pub fn settle(&self) {
        if self.crew.world_size() == 1 || self.statistics.is_some() {
            return;
        }
        for network in [&self.network, self.ema.network()] {
            let own = network.running_statistics();
            if !own.is_empty() {
                network.set_running_statistics(&self.crew.mean(&own));
            }
        }
    }

    /// What summing gradients over ranks took since this was last asked, or since what moves changed; nothing on one rank.
    pub fn take_reduce_times(&mut self) -> ReduceTimes {
        self.reduction.as_mut().map(Reduction::take_times).unwrap_or_default()
    }

    /// A batch on the device, normalised.
    pub fn upload(&self, batch: HostBatch) -> SslBatch {
        let device = &self.setup.problem.device;
        let views = self.views_on_device(batch.views);
        SslBatch {
            labels: Tensor::<1, Int>::from_data(batch.labels.as_slice(), device),
            labelled: views.labelled,
            weak: views.weak,
            strong: views.strong,
            indices: batch.indices,
            places: batch.places,
            step: batch.step,
            total_steps: self.setup.problem.total_steps,
            skip_masked: self.setup.training.skip_masked != Switch::Off,
            objective: self.setup.objective.clone(),
        }
    }

    fn views_on_device(&self, views: HostViews) -> ViewsOf<Tensor<4>> {
        let (device, normalisation) = (&self.setup.problem.device, self.setup.normalisation);
        let size = self.setup.model.image_size();
        match views {
            HostViews::Made(bytes) => {
                let images = |bytes| images_to_tensor(bytes, size, normalisation, device);
                bytes.map(images, images)
            }
            HostViews::Planned { pictures, plans } => {
                let all = [vec![plans.labelled.clone()], plans.weak.clone(), plans.strong.clone()];
                let all = all.concat().concat();
                let augmenter = self.augmenter.get_or_init(|| Augmenter::new(device));
                let images = normalise(augmenter.views(&pictures, size, &all), normalisation);
                // Taken apart in the order in which they were put together.
                let taken = std::cell::Cell::new(0);
                let take = |plans: Vec<ViewPlan>| {
                    let first = taken.replace(taken.get() + plans.len());
                    images.clone().narrow(0, first, plans.len())
                };
                plans.map(take, take)
            }
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
