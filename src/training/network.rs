//! A classifier as the algorithms see it during one step.

use burn::tensor::Tensor;
use harvest_models::{AuxiliaryHead, Classifier, Company, Mode, Noise, Rows};

use crate::algorithms::{Alone, Network, Ranks};

/// The student (tracked) and the teacher (the same weights, off the graph) of one step.
///
/// With batch normalisation both passes use the statistics of the images they see, and both move the running statistics:
/// the teacher's from weak views, the student's from labelled and strong ones. The published stack normalises all three
/// kinds in one batch, which is why it must push the weak views through the graph as well.
pub struct StepNetwork<'a> {
    student: &'a Classifier,
    teacher: Classifier,
    average: Option<&'a Classifier>,
    auxiliary: Option<&'a AuxiliaryHead>,
    rows_are_independent: bool,
    /// Key of this step's stochastic depth.
    noise: u64,
    ranks: &'a dyn Ranks,
    company: Company<'a>,
}

impl<'a> StepNetwork<'a> {
    /// For one step; `noise` is the step's own seed.
    pub fn new(net: &'a Classifier, rows_are_independent: bool, noise: u64) -> Self {
        Self {
            student: net,
            teacher: net.detached(),
            average: None,
            auxiliary: None,
            rows_are_independent,
            noise,
            ranks: &Alone,
            company: Company::default(),
        }
    }

    /// With the running average of the weights, off the graph, and the head of a pretext task if there is one.
    pub fn beside(self, average: &'a Classifier, auxiliary: Option<&'a AuxiliaryHead>) -> Self {
        Self { average: Some(average), auxiliary, ..self }
    }

    /// Trained by several ranks. `company`: who takes part in the student's passes; a teacher's have no backward pass, and so
    /// no watcher.
    pub fn among(self, ranks: &'a dyn Ranks, company: Company<'a>) -> Self {
        Self { ranks, company, ..self }
    }

    fn mode<'r>(&'r self, rows: &'r [u64], company: Company<'r>) -> Mode<'r> {
        Mode::Train { noise: Noise { seed: self.noise, rows: Rows::Each(rows) }, company }
    }

    fn learning<'r>(&'r self, rows: &'r [u64]) -> Mode<'r> {
        self.mode(rows, self.company)
    }

    fn teaching<'r>(&'r self, rows: &'r [u64]) -> Mode<'r> {
        self.mode(rows, Company { watcher: None, ..self.company })
    }
}

impl Network for StepNetwork<'_> {
    fn student(&self, images: Tensor<4>, rows: &[u64]) -> Tensor<2> {
        self.student.forward(images, self.learning(rows)).logits
    }

    fn teacher(&self, images: Tensor<4>, rows: &[u64]) -> Tensor<2> {
        self.teacher.forward(images.inner(), self.teaching(rows)).logits
    }

    fn average(&self, images: Tensor<4>, rows: &[u64]) -> Tensor<2> {
        self.average.unwrap_or(&self.teacher).forward(images.inner(), self.teaching(rows)).logits
    }

    fn auxiliary(&self, images: Tensor<4>, rows: &[u64]) -> Tensor<2> {
        let output = self.student.forward(images, self.learning(rows));
        match self.auxiliary {
            Some(head) => head.forward(output.features),
            None => output.logits.narrow(1, 0, 0),
        }
    }

    fn rows_are_independent(&self) -> bool {
        self.rows_are_independent
    }

    fn ranks(&self) -> &dyn Ranks {
        self.ranks
    }
}
