//! Sections that belong to other rooms, until those rooms bring their own: replace each by a `use` and delete this.

use serde::{Deserialize, Serialize};

use super::sections::{Invalid, Lower::Above, Lower::From, Upper::Below, Upper::Upto, range};

/// Takes the place of `crate::augment::ViewConfig`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ViewConfig {
    /// Reflected pixels around the image before cropping; unset, an eighth of its side.
    pub padding: Option<u32>,
    /// Mirror half of the images.
    pub flip: bool,
    /// Operations of RandAugment on a strong view.
    pub operations: u32,
    /// Grey square on a strong view.
    pub cutout: bool,
}

impl Default for ViewConfig {
    fn default() -> Self {
        Self { padding: None, flip: true, operations: 3, cutout: true }
    }
}

impl ViewConfig {
    /// Every value makes sense.
    pub fn check(&self) -> Result<(), Invalid> {
        Ok(())
    }
}

/// Takes the place of the algorithm's own configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FreeMatchConfig {
    /// λ, per optimiser step. USB: 0.999.
    pub decay: f32,
    /// w_u. USB: 1.
    pub unlabelled_weight: f32,
    /// w_f. USB's run files: 0.001.
    pub fairness_weight: f32,
}

impl Default for FreeMatchConfig {
    fn default() -> Self {
        Self { decay: 0.999, unlabelled_weight: 1.0, fairness_weight: 0.001 }
    }
}

impl FreeMatchConfig {
    /// λ below 1, weights not negative.
    pub fn check(&self) -> Result<(), Invalid> {
        range("algorithm.freematch.decay", self.decay.into(), From(0.0), Below(1.0))?;
        let weights = [
            ("algorithm.freematch.unlabelled_weight", self.unlabelled_weight),
            ("algorithm.freematch.fairness_weight", self.fairness_weight),
        ];
        weights.into_iter().try_for_each(|(key, weight)| range(key, weight.into(), From(0.0), Upto(f64::MAX)))
    }
}

/// Takes the place of the algorithm's own configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FixMatchConfig {
    /// τ. USB: 0.95.
    pub threshold: f32,
    /// λ_u. USB: 1.
    pub unlabelled_weight: f32,
}

impl Default for FixMatchConfig {
    fn default() -> Self {
        Self { threshold: 0.95, unlabelled_weight: 1.0 }
    }
}

impl FixMatchConfig {
    /// τ a probability, the weight not negative.
    pub fn check(&self) -> Result<(), Invalid> {
        range("algorithm.fixmatch.threshold", self.threshold.into(), Above(0.0), Upto(1.0))?;
        range(
            "algorithm.fixmatch.unlabelled_weight",
            self.unlabelled_weight.into(),
            From(0.0),
            Upto(f64::MAX),
        )
    }
}

/// Takes the place of the algorithm's own configuration: none.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SupervisedConfig {}
