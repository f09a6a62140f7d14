//! What a run is begun with and keeps, on however many ranks it goes on.

use serde::{Deserialize, Serialize};

use super::ExperimentError;
use crate::config::{Config, Scaling};
use crate::project::{Input, Run};

/// Its file among the inputs of a run.
const FILE: &str = "scale.json";

/// Batch and rate of a run over all its ranks.
///
/// They are settled when it is begun: were they those of the ranks at hand, a run that goes on with half of its nodes
/// would be another run from there on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Scale {
    /// Ranks at its beginning.
    pub ranks: usize,
    /// Labelled images a step, over all ranks.
    pub batch: u32,
    /// Peak learning rate.
    pub lr: f64,
}

impl Scale {
    /// That of a run begun on `ranks` ranks: with weak scaling each has the configured batch, and the rate grows with them.
    pub fn of(config: &Config, ranks: usize) -> Self {
        let training = &config.training;
        match config.distribution.scaling {
            Scaling::Weak => Self {
                ranks,
                batch: training.batch.saturating_mul(u32::try_from(ranks).unwrap_or(u32::MAX)),
                lr: training.lr * ranks as f64,
            },
            Scaling::Strong => Self { ranks, batch: training.batch, lr: training.lr },
        }
    }

    /// What `run` was begun with; runs of one rank from before there were more have no such file.
    pub fn read(run: &Run, config: &Config) -> Result<Self, ExperimentError> {
        let path = run.path("inputs").join(FILE);
        if !path.exists() {
            return Ok(Self { ranks: 1, batch: config.training.batch, lr: config.training.lr });
        }
        let damaged = |error: serde_json::Error| ExperimentError::Damaged { path, reason: error.to_string() };
        serde_json::from_slice(&run.input(FILE)?).map_err(damaged)
    }

    /// For the run's folder.
    pub fn input(&self) -> Input {
        let bytes = serde_json::to_vec_pretty(self).expect("numbers are plain data");
        Input::new(FILE, bytes)
    }

    /// The configuration with this batch and rate.
    pub fn apply(&self, config: &Config) -> Config {
        let mut config = config.clone();
        (config.training.batch, config.training.lr) = (self.batch, self.lr);
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weak_scaling_grows_batch_and_rate_strong_scaling_neither() {
        let mut config = Config::default();
        (config.training.batch, config.training.lr) = (8, 0.5);
        assert_eq!(Scale::of(&config, 4), Scale { ranks: 4, batch: 32, lr: 2.0 });
        config.distribution.scaling = Scaling::Strong;
        let strong = Scale::of(&config, 4);
        assert_eq!(strong, Scale { ranks: 4, batch: 8, lr: 0.5 });
        let scaled = strong.apply(&config);
        assert_eq!(scaled, config);
    }
}
