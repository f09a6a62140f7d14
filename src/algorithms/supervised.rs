//! Supervised training on the labelled images alone: the baseline every other algorithm must beat.

use serde::{Deserialize, Serialize};

use super::loss::cross_entropy;
use crate::bounds::Invalid;

use super::{Algorithm, Network, SslBatch, StepLoss};

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

    fn needs_unlabelled(&self) -> bool {
        false
    }

    fn step(&mut self, network: &dyn Network, batch: &SslBatch) -> StepLoss {
        let rows = batch.labelled_rows().collect::<Vec<_>>();
        let loss = cross_entropy(network.student(batch.labelled.clone(), &rows), batch.labels.clone());
        StepLoss { scalars: vec![("sup", loss.clone().inner())], total: loss, pseudo_labels: None }
    }
}
