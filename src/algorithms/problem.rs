//! What an algorithm is built for, and how it says what it needs.

use burn::tensor::{Device, Tensor};

use super::Algorithm;

/// The facts of a run that an algorithm may start from.
#[derive(Debug, Clone)]
pub struct Problem {
    /// Classes, 2 or more.
    pub classes: usize,
    /// Images of the data set: positions in [`super::SslBatch::indices`] are below this.
    pub images: usize,
    /// Unlabelled images among them.
    pub unlabelled: usize,
    /// Unlabelled images a step, over all ranks.
    pub unlabelled_batch: usize,
    /// Labelled training images of each class.
    pub labelled_per_class: Vec<usize>,
    /// Steps of the whole run.
    pub total_steps: u64,
    /// Seed of the run, for an algorithm's own draws ([`crate::random::stream`]).
    pub seed: u64,
    /// Where the algorithm keeps its state.
    pub device: Device,
}

impl Problem {
    /// For measurements and tests without a data set: one labelled image of each class, `unlabelled` others, all of them in
    /// each step.
    pub fn bare(classes: usize, unlabelled: usize, total_steps: u64, device: &Device) -> Self {
        let (images, labelled_per_class) = (classes + unlabelled, vec![1; classes]);
        Self {
            classes,
            images,
            unlabelled,
            unlabelled_batch: unlabelled,
            labelled_per_class,
            total_steps,
            seed: 0,
            device: device.clone(),
        }
    }

    /// How frequent each class is among the labelled images: `[C]`, summing to 1, off the graph. One image more than there
    /// are is counted of each class, so that none is impossible.
    pub fn smoothed_frequencies(&self) -> Tensor<1> {
        self.frequencies(1.0)
    }

    /// How frequent each class is among the labelled images: `[C]`, summing to 1, off the graph.
    pub fn class_frequencies(&self) -> Tensor<1> {
        self.frequencies(0.0)
    }

    fn frequencies(&self, more: f64) -> Tensor<1> {
        let counts = self.labelled_per_class.iter().map(|count| *count as f64 + more);
        let total: f64 = counts.clone().sum();
        let shares: Vec<f32> = counts.map(|count| (count / total.max(1.0)) as f32).collect();
        Tensor::from_data(shares.as_slice(), &self.device.clone().inner())
    }

    /// How often the run looks at each unlabelled image.
    pub fn passes(&self) -> f64 {
        self.total_steps as f64 * self.unlabelled_batch as f64 / self.unlabelled.max(1) as f64
    }

    /// How much of a running average is kept each step, unless a recipe says so: the average looks back over a 50th of
    /// the run, from 10 up to 1000 steps. 1000 (0.999) is the published choice for runs of 200,000 steps and more; in a
    /// run of some hundred steps it would hardly leave its start.
    pub fn decay(&self) -> f32 {
        let steps = (self.total_steps as f32 / 50.0).clamp(10.0, 1000.0);
        1.0 - 1.0 / steps
    }
}

/// Views of each unlabelled image, 0 to 2 of each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Views {
    /// Crop and mirror only.
    pub weak: usize,
    /// Distorted.
    pub strong: usize,
}

impl Views {
    /// Labelled images only: the trainer loads no others.
    pub const NONE: Self = Self { weak: 0, strong: 0 };

    /// Views of an unlabelled image a step.
    pub fn count(self) -> usize {
        self.weak + self.strong
    }
}

/// An algorithm that lacks what it learns from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotReady {
    /// Nobody trained the members of self-training.
    #[error(
        "self_training learns from the pseudo-labels of its members, and there are none; `harvest train` trains the members \
         first, a program of its own gives them as a `SelfTrainingBuilder`"
    )]
    NoPseudoLabels,
}

/// Makes an algorithm in its initial state: an [`super::AlgorithmConfig`], or a researcher's own.
pub trait AlgorithmBuilder: std::fmt::Debug + Sync {
    /// The algorithm's name in reports and checkpoints.
    fn name(&self) -> &str;

    /// Whether it has all that a run needs; without, it can be built for a measurement only.
    ///
    /// # Errors
    /// What is missing, in words.
    fn ready(&self) -> Result<(), NotReady> {
        Ok(())
    }

    /// Before the first step of a run.
    fn build(&self, problem: &Problem) -> Box<dyn Algorithm>;
}
