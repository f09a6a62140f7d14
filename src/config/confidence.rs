//! The section `[confidence]`: what a confidence means, and when a prediction abstains.

use serde::{Deserialize, Serialize};

use crate::bounds::Lower::Above;
use crate::bounds::Upper::Below;
use crate::bounds::{Invalid, range};

/// What is done with the evaluation images when the model is chosen; no prediction's class depends on it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConfidenceConfig {
    /// Whether confidences are made to mean what they say by a temperature: `fit` or `off`.
    pub temperature: TemperatureChoice,
    /// Largest share of wrong ones among the predictions that do not abstain, between 0 and 1.
    pub target_error: f64,
    /// How sure that share must be, between 0 and 1: at 0.9 it is exceeded in one of ten runs at most.
    pub level: f64,
}

impl Default for ConfidenceConfig {
    fn default() -> Self {
        Self { temperature: TemperatureChoice::Fit, target_error: 0.05, level: 0.9 }
    }
}

/// Where the temperature comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TemperatureChoice {
    /// The evaluation images.
    #[default]
    Fit,
    /// Nowhere: it is 1.
    Off,
}

impl ConfidenceConfig {
    /// Shares within reach.
    ///
    /// # Errors
    /// The first value that makes no sense.
    pub fn check(&self) -> Result<(), Invalid> {
        range("confidence.target_error", self.target_error, Above(0.0), Below(1.0))?;
        range("confidence.level", self.level, Above(0.0), Below(1.0))
    }
}
