//! Semi-supervised learning algorithms: one file each, behind one trait.
//!
//! An algorithm sees a [`Network`] and an [`SslBatch`], builds the loss of one step and keeps whatever must survive
//! until the next (thresholds, histograms). It knows nothing of files, optimizers, schedules or ranks. To add one,
//! write its file, declare it here and name it in the table of `registry.rs`.

mod adamatch;
mod aligned;
mod alignment;
mod fixmatch;
mod flexmatch;
mod freematch;
mod loss;
mod meanteacher;
mod mixmatch;
mod mixup;
mod objective;
mod place;
mod problem;
mod pseudolabel;
mod ramp;
mod ranks;
mod registry;
mod remixmatch;
mod self_training;
mod softmatch;
mod student;
mod supervised;
mod uda;

use std::collections::BTreeMap;

use burn::tensor::{Int, Tensor, TensorData};

pub use aligned::Aligned;
pub use alignment::Alignment;
pub use mixup::{DrawMix, Mix};
pub use objective::Objective;
pub use place::{Place, Places};
pub use problem::{AlgorithmBuilder, NotReady, Problem, Views};
pub use ramp::Ramp;
pub use ranks::{Alone, Ranks, joined_sum};
// Each algorithm and its settings, by the registry's table.
pub use registry::*;
pub use remixmatch::{Turn, Turned};
pub use self_training::{Join, JoinedLabels, JoinedLabelsError, SelfTrainingBuilder};
pub use softmatch::SoftMatchTarget;
pub use student::{Strong, Student, computed_strong_views};
pub use uda::Annealing;

/// The network as an algorithm sees it. `B` images of one size in, `C` logits each out.
///
/// `rows` numbers the images of the step over all ranks: labelled ones from 0, then strong views, then weak views. An image
/// draws the same noise (stochastic depth) whichever other images share its pass, and on whichever rank.
pub trait Network {
    /// Logits `[B, C]` in training mode, recorded for the backward pass. `images`: `[B, 3, H, W]`, normalised.
    fn student(&self, images: Tensor<4>, rows: &[u64]) -> Tensor<2>;

    /// Logits `[B, C]` in training mode, off the graph: what targets are made from.
    ///
    /// A teacher pass costs a third of a student pass in time and nearly nothing in memory, since nothing is kept for
    /// a backward pass.
    fn teacher(&self, images: Tensor<4>, rows: &[u64]) -> Tensor<2>;

    /// Whether each image's logits depend on that image alone. False with batch normalisation, where leaving out a
    /// masked image would change the statistics, and so the logits, of the others.
    fn rows_are_independent(&self) -> bool;

    /// As [`Network::teacher`], by the running average of the weights; see [`Algorithm::average_decay`].
    fn average(&self, images: Tensor<4>, rows: &[u64]) -> Tensor<2> {
        self.teacher(images, rows)
    }

    /// What pseudo-labels are made from, given the network's own logits of unlabelled images off the graph, `[U, C]`: the
    /// same, or aligned to a distribution of classes. [`Network::teacher`] and [`Network::average`] have it applied;
    /// an algorithm that labels by its student's logits applies it itself, once a step.
    fn judgement(&self, logits: Tensor<2>) -> Tensor<2> {
        logits
    }

    /// Auxiliary logits `[B, A]` of a linear layer on the same features, recorded for the backward pass: as many as
    /// [`Algorithm::auxiliary_outputs`] asks for, by default none.
    fn auxiliary(&self, images: Tensor<4>, rows: &[u64]) -> Tensor<2> {
        self.student(images, rows).narrow(1, 0, 0)
    }

    /// The ranks that train this network together; statistics of a step are taken over all of them.
    fn ranks(&self) -> &dyn Ranks {
        &Alone
    }
}

/// The images of one step. `B` labelled and `U` unlabelled images; every view is normalised.
#[derive(Debug, Clone)]
pub struct SslBatch {
    /// Weak views of the labelled images: `[B, 3, H, W]`.
    pub labelled: Tensor<4>,
    /// Their classes: `[B]`.
    pub labels: Tensor<1, Int>,
    /// Weak views of the unlabelled images, as many as [`Algorithm::views`] asks for: `[U, 3, H, W]` each.
    pub weak: Vec<Tensor<4>>,
    /// Strong views of the same images in the same order: `[U, 3, H, W]` each.
    pub strong: Vec<Tensor<4>>,
    /// Position of each unlabelled image in the data set: `[U]`.
    pub indices: Vec<u32>,
    /// Where these images lie among those of all ranks.
    pub places: Places,
    /// Number of this step, from 0.
    pub step: u64,
    /// Number of steps of the whole run.
    pub total_steps: u64,
    /// Leave masked strong views out of the student pass. Only honoured where rows are independent; the loss and its
    /// gradients are the same to rounding.
    pub skip_masked: bool,
    /// What labelled images are trained towards.
    pub objective: Objective,
}

impl SslBatch {
    /// Numbers of the labelled images.
    pub fn labelled_rows(&self) -> std::ops::Range<u64> {
        let start = self.places.labelled.start as u64;
        start..start + self.labelled.dims()[0] as u64
    }

    /// Numbers of the strong views; `view` is 0 or 1.
    pub fn strong_rows(&self, view: usize) -> std::ops::Range<u64> {
        self.unlabelled_rows(2 * view)
    }

    /// Numbers of the weak views; `view` is 0 or 1.
    pub fn weak_rows(&self, view: usize) -> std::ops::Range<u64> {
        self.unlabelled_rows(2 * view + 1)
    }

    fn unlabelled_rows(&self, place: usize) -> std::ops::Range<u64> {
        let Places { labelled, unlabelled } = self.places;
        let start = (labelled.of + place * unlabelled.of + unlabelled.start) as u64;
        start..start + self.indices.len() as u64
    }

    /// The teacher's logits of the first weak views: `[U, C]`.
    pub fn teach(&self, network: &dyn Network) -> Tensor<2> {
        network.teacher(self.weak[0].clone(), &self.weak_rows(0).collect::<Vec<_>>())
    }
}

/// What an unlabelled image should be predicted as.
#[derive(Debug, Clone)]
pub enum Targets {
    /// One class each: `[U]`.
    Hard(Tensor<1, Int>),
    /// A distribution over the classes each: `[U, C]`.
    Soft(Tensor<2>),
}

/// The pseudo-labels of one step, all off the graph.
#[derive(Debug, Clone)]
pub struct PseudoLabels {
    /// How much each image counts, from 0 (not at all) to 1; most algorithms know nothing between: `[U]`.
    pub mask: Tensor<1>,
    /// What each image is taken to be.
    pub targets: Targets,
    /// The confidence each image had to reach to count in full: `[U]`.
    pub threshold: Tensor<1>,
}

impl PseudoLabels {
    /// Every image counts in full, with these targets `[U, C]`.
    pub fn of_all(targets: Tensor<2>) -> Self {
        let mask: Tensor<1> = Tensor::ones([targets.dims()[0]], &targets.device());
        Self { threshold: mask.zeros_like(), mask, targets: Targets::Soft(targets) }
    }
}

/// The result of one step: a loss to differentiate and what a person wants to see of it.
#[derive(Debug)]
pub struct StepLoss {
    /// The weighted sum, `[1]`, with its graph.
    pub total: Tensor<1>,
    /// Named parts, `[1]` each and off the graph: `sup`, `unsup`, `mask_ratio`, and the algorithm's own.
    pub scalars: Vec<(&'static str, Tensor<1>)>,
    /// The pseudo-labels used, if the algorithm makes any.
    pub pseudo_labels: Option<PseudoLabels>,
}

impl StepLoss {
    /// `supervised + weight · unsupervised`, `[1]` each, with the scalars that all pseudo-labelling algorithms share.
    pub fn of(supervised: Tensor<1>, unsupervised: Tensor<1>, weight: f32, pseudo: PseudoLabels) -> Self {
        Self {
            scalars: vec![
                ("sup", supervised.clone().inner()),
                ("unsup", unsupervised.clone().inner()),
                ("mask_ratio", pseudo.mask.clone().mean()),
                ("threshold", pseudo.threshold.clone().mean()),
            ],
            total: supervised + unsupervised.mul_scalar(weight),
            pseudo_labels: Some(pseudo),
        }
    }

    /// With one more number to be seen.
    pub fn with_scalar(mut self, name: &'static str, value: f32) -> Self {
        self.scalars.push((name, self.total.clone().inner().full_like(value)));
        self
    }
}

/// What an algorithm carries from one step to the next, by name. Part of every checkpoint.
pub type State = BTreeMap<String, TensorData>;

/// A state that does not belong to the algorithm it is given to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// An entry is absent.
    #[error("the saved state of {algorithm} lacks `{name}`")]
    Missing {
        /// Whose state it should be.
        algorithm: &'static str,
        /// The absent entry.
        name: String,
    },
    /// An entry nobody asked for.
    #[error("the saved state holds `{name}`, which {algorithm} does not know")]
    Unexpected {
        /// Whose state it should be.
        algorithm: &'static str,
        /// The surplus entry.
        name: String,
    },
    /// An entry for another number of classes.
    #[error("`{name}` of the saved state has shape {found:?}, {algorithm} needs {expected:?}")]
    Shape {
        /// Whose state it should be.
        algorithm: &'static str,
        /// The entry.
        name: String,
        /// Shape in the state.
        found: Vec<usize>,
        /// Shape needed.
        expected: Vec<usize>,
    },
    /// An entry that holds what cannot be.
    #[error("`{name}` of the saved state of {algorithm} holds {reason}, which cannot be")]
    Value {
        /// Whose state it should be.
        algorithm: &'static str,
        /// The entry.
        name: String,
        /// What it holds.
        reason: String,
    },
}

/// One semi-supervised learning algorithm.
pub trait Algorithm: Send {
    /// Its name in recipes and reports.
    fn name(&self) -> &'static str;

    /// Which views of unlabelled images it looks at; the trainer makes no others.
    fn views(&self) -> Views {
        Views { weak: 1, strong: 1 }
    }

    /// How many outputs beside the classes it trains the network on, for a pretext task; they are no part of the model.
    fn auxiliary_outputs(&self) -> usize {
        0
    }

    /// Decay of the average it learns from ([`Network::average`]), in [0, 1), if it does. Where `training.ema` is above 0,
    /// that is the average's decay.
    fn average_decay(&self) -> Option<f32> {
        None
    }

    /// Builds the loss of one step and moves the algorithm's own state forward.
    fn step(&mut self, network: &dyn Network, batch: &SslBatch) -> StepLoss;

    /// Everything [`Algorithm::restore`] needs to go on as if never interrupted.
    fn state(&self) -> State {
        State::new()
    }

    /// Takes back what [`Algorithm::state`] gave.
    ///
    /// # Errors
    /// If an entry is absent, surplus or of another shape.
    fn restore(&mut self, state: State) -> Result<(), StateError> {
        match state.into_keys().next() {
            Some(name) => Err(StateError::Unexpected { algorithm: self.name(), name }),
            None => Ok(()),
        }
    }
}

/// Takes a `[length]` vector out of a state.
fn take_vector(
    state: &mut State,
    algorithm: &'static str,
    name: &str,
    length: usize,
    device: &burn::tensor::Device,
) -> Result<Tensor<1>, StateError> {
    let data = state.remove(name).ok_or_else(|| StateError::Missing { algorithm, name: name.to_owned() })?;
    let found = data.shape().to_vec();
    if found != [length] {
        return Err(StateError::Shape { algorithm, name: name.to_owned(), found, expected: vec![length] });
    }
    Ok(Tensor::from_data(data, device))
}

/// Complains about what is left of a state after everything known was taken.
fn nothing_left(state: State, algorithm: &'static str) -> Result<(), StateError> {
    match state.into_keys().next() {
        Some(name) => Err(StateError::Unexpected { algorithm, name }),
        None => Ok(()),
    }
}
