//! What of a network moves in a step: all of it, its upper part, what tuning added, or the classifier alone.

use harvest_models::{ClassifierConfig, ParameterInfo, Tuning};

use crate::config::{TrainingConfig, TuningName};

/// What tuning adds to the network. Defaults: [`TrainingConfig::tuning_rank`] and [`TrainingConfig::tuning_scale`].
pub(super) fn added(training: &TrainingConfig) -> Option<Tuning> {
    let rank = |unset| training.tuning_rank.map_or(unset, |rank| rank as usize);
    let scale = |unset| training.tuning_scale.map_or(unset, |scale| scale as f32);
    match training.tuning {
        TuningName::Lora => Some(Tuning::Lora { rank: rank(8), scale: scale(1.0) }),
        TuningName::Adapter => Some(Tuning::Adapter { rank: rank(64), scale: scale(0.1) }),
        TuningName::Full | TuningName::Linear => None,
    }
}

/// The part that moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scope {
    /// Largest [`ParameterInfo::depth`] that moves.
    deepest: usize,
    /// Of what lies below the classifier, only what tuning added.
    added_only: bool,
}

impl Scope {
    /// That of update `step`, counted from 0.
    pub fn at(step: u64, training: &TrainingConfig, model: &ClassifierConfig) -> Self {
        let deepest = match training.frozen as usize {
            _ if step < u64::from(training.head_warmup_steps) => 0,
            _ if training.tuning == TuningName::Linear => 0,
            0 => model.max_depth(),
            // The embedding is at the greatest depth, the first block one above it.
            blocks => model.max_depth().saturating_sub(blocks + 1),
        };
        Self { deepest, added_only: added(training).is_some() }
    }

    /// Whether the parameter moves.
    pub fn moves(self, parameter: &ParameterInfo) -> bool {
        let below = parameter.depth <= self.deepest && (!self.added_only || parameter.is_added());
        parameter.depth == 0 || below
    }
}

/// Settings that do not fit the network, or the length of the run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScopeError {
    /// More blocks are to be kept fixed than there are.
    #[error(
        "`training.frozen` is {frozen}, but the network has {blocks} blocks; \
         {blocks} keeps all but the classifier fixed, 0 nothing"
    )]
    Frozen {
        /// As configured.
        frozen: usize,
        /// What there is.
        blocks: usize,
    },
    /// The classifier would be alone until the end.
    #[error(
        "`training.head_warmup_steps` is {warmup}, but there are only {steps} steps; it must be less: \
         for a classifier on a fixed network set `training.tuning` to \"linear\""
    )]
    HeadWarmup {
        /// As configured.
        warmup: u32,
        /// Steps of the run.
        steps: u64,
    },
    /// A network that has nothing to add to.
    #[error(
        "`training.tuning` is \"{tuning}\", which adds to the blocks of a vision transformer, and this network has none; \
         choose another `model.name`, or \"full\" or \"linear\""
    )]
    NoBlocksToTune {
        /// As configured.
        tuning: &'static str,
    },
}

/// Refuses what would be found out late, or never.
pub(super) fn check(
    training: &TrainingConfig,
    model: &ClassifierConfig,
    steps: u64,
) -> Result<(), ScopeError> {
    let (frozen, blocks) = (training.frozen as usize, model.max_depth() - 1);
    if frozen > blocks {
        return Err(ScopeError::Frozen { frozen, blocks });
    }
    let warmup = training.head_warmup_steps;
    if warmup > 0 && u64::from(warmup) >= steps {
        return Err(ScopeError::HeadWarmup { warmup, steps });
    }
    match (added(training), model) {
        (None, _) | (_, ClassifierConfig::Vit(_)) => Ok(()),
        (Some(tuning), _) => Err(ScopeError::NoBlocksToTune { tuning: tuning.name() }),
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn moving(step: u64, training: &TrainingConfig) -> Vec<String> {
        let model = ClassifierConfig::preset("resnet8", 3).expect("a preset");
        let scope = Scope::at(step, training, &model);
        let network = model.blank(&Device::flex()).expect("valid");
        let names = network.parameters().into_iter().filter(|p| scope.moves(p)).map(|p| p.name);
        names.filter(|name| name.ends_with("conv1.weight") || name == "fc.bias").collect()
    }

    #[test]
    fn the_lowest_blocks_stay_and_the_classifier_may_move_alone_at_first() {
        let all = ["conv1.weight", "layer1.0.conv1.weight", "layer2.0.conv1.weight", "layer3.0.conv1.weight"];
        let all = [all.as_slice(), &["fc.bias"]].concat();
        for frozen in 0..=3 {
            let training = TrainingConfig { frozen, head_warmup_steps: 2, ..TrainingConfig::default() };
            for step in 0..2 {
                assert_eq!(moving(step, &training), ["fc.bias"]);
            }
            // With the first block goes what lies below it.
            let below = if frozen == 0 { 0 } else { frozen as usize + 1 };
            assert_eq!(moving(2, &training), all[below..]);
        }
    }

    #[test]
    fn what_cannot_be_is_refused_in_words() {
        let model = ClassifierConfig::preset("resnet8", 3).expect("a preset");
        let refused = |frozen, head_warmup_steps| {
            let training = TrainingConfig { frozen, head_warmup_steps, ..TrainingConfig::default() };
            check(&training, &model, 10).err().map(|error| error.to_string())
        };
        for (frozen, warmup) in [(0, 0), (3, 9)] {
            assert_eq!(refused(frozen, warmup), None);
        }
        assert!(refused(4, 0).is_some_and(|words| words.contains("has 3 blocks")));
        let training = TrainingConfig { tuning: TuningName::Lora, ..TrainingConfig::default() };
        let error = check(&training, &model, 10).expect_err("it is a residual network").to_string();
        assert!(error.contains("lora") && error.contains("model.name"), "{error}");
        assert!(refused(0, 10).is_some_and(|words| words.contains("only 10 steps")));
    }
}
