//! Supervised training on the labelled images alone: the baseline every other algorithm must beat.

use serde::{Deserialize, Serialize};

use crate::bounds::Invalid;

use super::{Algorithm, Network, SslBatch, StepLoss, Views};

/// Nothing to choose.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SupervisedConfig {}

impl SupervisedConfig {
    /// Nothing can be wrong.
    ///
    /// # Errors
    /// None.
    pub fn check(&self) -> Result<(), Invalid> {
        Ok(())
    }
}

/// Mean cross-entropy of the labelled images; unlabelled images are not looked at.
#[derive(Debug, Default)]
pub struct Supervised;

impl Algorithm for Supervised {
    fn name(&self) -> &'static str {
        "supervised"
    }

    fn views(&self) -> Views {
        Views::NONE
    }

    fn step(&mut self, network: &dyn Network, batch: &SslBatch) -> StepLoss {
        let rows = batch.labelled_rows().collect::<Vec<_>>();
        let logits = network.student(batch.labelled.clone(), &rows);
        let loss = batch.objective.loss(logits, batch.labels.clone());
        StepLoss { scalars: vec![("sup", loss.clone().inner())], total: loss, pseudo_labels: None }
    }
}
