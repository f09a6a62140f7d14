//! What labelled images are trained towards: the part of the loss that options change, whatever the algorithm.

use burn::tensor::{Int, Tensor};

use super::Targets;
use super::loss::cross_entropy_rows;

/// Cross-entropy to known classes, with softened targets and adjusted logits where options ask for them.
#[derive(Debug, Clone, Default)]
pub struct Objective {
    /// `[C, C]`: row `c` is the distribution that an image of class `c` is trained towards; unset, class `c` alone.
    pub targets: Option<Tensor<2>>,
    /// `[C]`, added to the logits of labelled images during training, not to predictions.
    pub adjustment: Option<Tensor<1>>,
}

impl Objective {
    /// Mean over labelled images: `[B, C]`, `[B]` → `[1]`.
    pub fn loss(&self, logits: Tensor<2>, classes: Tensor<1, Int>) -> Tensor<1> {
        self.rows(logits, Targets::Hard(classes)).mean()
    }

    /// The loss of each row, `[N, C]` → `[N]`. Soft targets (a mixture of labelled images) are softened class by class.
    pub fn rows(&self, logits: Tensor<2>, targets: Targets) -> Tensor<1> {
        let logits = match &self.adjustment {
            Some(adjustment) => logits + Tensor::from_inner(adjustment.clone()).unsqueeze_dim(0),
            None => logits,
        };
        let targets = match (&self.targets, targets) {
            (None, targets) => targets,
            (Some(table), Targets::Hard(classes)) => {
                Targets::Soft(Tensor::from_inner(table.clone().select(0, classes)))
            }
            (Some(table), Targets::Soft(soft)) => {
                Targets::Soft(soft.matmul(Tensor::from_inner(table.clone())))
            }
        };
        cross_entropy_rows(logits, targets)
    }
}
