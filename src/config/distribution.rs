//! The section `[distribution]`: how a run on several ranks is one run. Nothing here matters on one rank.

use harvest_collectives::Wire;
use serde::{Deserialize, Serialize};

use crate::bounds::Lower::Above;
use crate::bounds::Upper::Upto;
use crate::bounds::{Invalid, range};

/// How ranks share a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DistributionConfig {
    /// What `training.batch` and `training.lr` are for: each rank, or all of them together.
    pub scaling: Scaling,
    /// Whether batch normalisation takes its statistics over the images of all ranks, at the price of two exchanges for
    /// every such layer and step. Without, each rank normalises by its own images, and running statistics are averaged over
    /// ranks before they are used.
    pub sync_batch_norm: bool,
    /// Size of a bucket of gradients, in MiB, that ranks sum as one while the backward pass goes on; the first one has 1 MiB
    /// at most, so that the exchange begins early.
    pub bucket_mib: f64,
    /// How gradients travel between ranks.
    pub wire: WireFormat,
}

impl Default for DistributionConfig {
    fn default() -> Self {
        Self {
            scaling: Scaling::default(),
            sync_batch_norm: false,
            bucket_mib: 25.0,
            wire: WireFormat::default(),
        }
    }
}

/// What becomes of a recipe on several ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scaling {
    /// Each rank takes `training.batch` images a step, and the learning rate is multiplied by the number of ranks.
    #[default]
    Weak,
    /// All ranks together take `training.batch` images a step, at the learning rate as it is.
    Strong,
}

/// How gradients travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WireFormat {
    /// In single precision.
    #[default]
    F32,
    /// Rounded to bfloat16: half the bytes. What rounding leaves out goes with the next step.
    Bf16,
}

impl From<WireFormat> for Wire {
    fn from(format: WireFormat) -> Self {
        match format {
            WireFormat::F32 => Self::F32,
            WireFormat::Bf16 => Self::Bf16,
        }
    }
}

impl DistributionConfig {
    /// A size of buckets that can be.
    ///
    /// # Errors
    /// The first value that makes no sense.
    pub fn check(&self) -> Result<(), Invalid> {
        range("distribution.bucket_mib", self.bucket_mib, Above(0.0), Upto(4096.0))
    }
}
