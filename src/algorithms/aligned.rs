//! Any algorithm, with the predictions it makes pseudo-labels from aligned to a distribution of classes.
//!
//! The algorithm sees a network whose teacher says `logits + ln((t + ε) / (p̂ + ε))`, the softmax of which is the aligned
//! prediction of [`super::alignment`]; losses are taken on the network's own logits.

use std::cell::RefCell;

use burn::tensor::Tensor;
use burn::tensor::activation::softmax;

use super::alignment::Alignment;
use super::{Algorithm, Network, Ranks, SslBatch, State, StateError, StepLoss, Views};

/// Prefix of the wrapper's entries in a state.
const PREFIX: &str = "alignment/";

/// An algorithm, and the means it is aligned by.
pub struct Aligned {
    algorithm: Box<dyn Algorithm>,
    alignment: RefCell<Alignment>,
}

impl Aligned {
    /// Towards `target` `[C]`, summing to 1, off the graph; `decay` in [0, 1) of the running mean of predictions.
    pub fn new(algorithm: Box<dyn Algorithm>, decay: f32, target: Tensor<1>) -> Self {
        Self { algorithm, alignment: RefCell::new(Alignment::new(decay, target)) }
    }
}

impl Algorithm for Aligned {
    fn name(&self) -> &'static str {
        self.algorithm.name()
    }

    fn views(&self) -> Views {
        self.algorithm.views()
    }

    fn auxiliary_outputs(&self) -> usize {
        self.algorithm.auxiliary_outputs()
    }

    fn average_decay(&self) -> Option<f32> {
        self.algorithm.average_decay()
    }

    fn step(&mut self, network: &dyn Network, batch: &SslBatch) -> StepLoss {
        self.algorithm.step(&AlignedNetwork { network, alignment: &self.alignment }, batch)
    }

    fn state(&self) -> State {
        let own =
            self.alignment.borrow().state().into_iter().map(|(name, data)| (format!("{PREFIX}{name}"), data));
        own.chain(self.algorithm.state()).collect()
    }

    fn restore(&mut self, mut state: State) -> Result<(), StateError> {
        let names: Vec<String> = state.keys().filter(|name| name.starts_with(PREFIX)).cloned().collect();
        let mut own = State::new();
        for name in names {
            own.extend(state.remove(&name).map(|data| (name[PREFIX.len()..].to_owned(), data)));
        }
        let mut alignment = self.alignment.borrow().clone();
        alignment.restore(own, self.name())?;
        self.algorithm.restore(state)?;
        *self.alignment.get_mut() = alignment;
        Ok(())
    }
}

/// A network whose judgement of unlabelled images is aligned; each such judgement moves the mean.
struct AlignedNetwork<'a> {
    network: &'a dyn Network,
    alignment: &'a RefCell<Alignment>,
}

impl Network for AlignedNetwork<'_> {
    fn student(&self, images: Tensor<4>, rows: &[u64]) -> Tensor<2> {
        self.network.student(images, rows)
    }

    fn teacher(&self, images: Tensor<4>, rows: &[u64]) -> Tensor<2> {
        self.judgement(self.network.teacher(images, rows))
    }

    fn average(&self, images: Tensor<4>, rows: &[u64]) -> Tensor<2> {
        self.judgement(self.network.average(images, rows))
    }

    fn auxiliary(&self, images: Tensor<4>, rows: &[u64]) -> Tensor<2> {
        self.network.auxiliary(images, rows)
    }

    fn judgement(&self, logits: Tensor<2>) -> Tensor<2> {
        let mut alignment = self.alignment.borrow_mut();
        alignment.observe(self.network.ranks().gather(softmax(logits.clone(), 1)));
        match alignment.log_factors() {
            Some(factors) => logits + factors.unsqueeze_dim(0),
            None => logits,
        }
    }

    fn rows_are_independent(&self) -> bool {
        self.network.rows_are_independent()
    }

    fn ranks(&self) -> &dyn Ranks {
        self.network.ranks()
    }
}
