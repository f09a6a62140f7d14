//! The algorithms there are, by name. A new one is one line in the table at the end.

use serde::{Deserialize, Serialize};

use super::{Algorithm, AlgorithmBuilder, NotReady, Problem};
use crate::bounds::Invalid;

/// Generates the enum of names, the configuration section, the constructor and the exports from one table. An algorithm's key
/// is also the name of its module.
macro_rules! algorithms {
    ($($(#[$doc:meta])* $variant:ident, $key:ident: $config:ident => |$settings:ident, $problem:ident| $build:expr;)+) => {
        $(pub use super::$key::{$config, $variant};)+

        /// An algorithm's name in recipes: `name = "freematch"`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "lowercase")]
        pub enum AlgorithmName {
            $($(#[$doc])* $variant,)+
        }

        impl AlgorithmName {
            /// Every algorithm, in the order of the table.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// As written in recipes.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => stringify!($key),)+ }
            }
        }

        /// The section `[algorithm]` of a recipe: which one, and a table of hyper-parameters for each.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct AlgorithmConfig {
            /// The algorithm to train with.
            pub name: AlgorithmName,
            $($(#[$doc])* pub $key: $config,)+
        }

        impl AlgorithmConfig {
            /// Refuses hyper-parameters that make no sense, those of algorithms not chosen included.
            ///
            /// # Errors
            /// The first such value.
            pub fn check(&self) -> Result<(), Invalid> {
                $(self.$key.check()?;)+
                Ok(())
            }
        }

        impl AlgorithmBuilder for AlgorithmConfig {
            fn name(&self) -> &str {
                self.name.as_str()
            }

            fn ready(&self) -> Result<(), NotReady> {
                match self.name {
                    AlgorithmName::SelfTraining => Err(NotReady::NoPseudoLabels),
                    _ => Ok(()),
                }
            }

            fn build(&self, problem: &Problem) -> Box<dyn Algorithm> {
                match self.name {
                    $(AlgorithmName::$variant => {
                        let ($settings, $problem) = (self.$key.clone(), problem);
                        Box::new($build)
                    })+
                }
            }
        }

        impl Default for AlgorithmConfig {
            fn default() -> Self {
                Self { name: AlgorithmName::FreeMatch, $($key: Default::default(),)+ }
            }
        }
    };
}

algorithms! {
    /// Thresholds that follow the model's confidence. The default: best on average in the published study.
    FreeMatch, freematch: FreeMatchConfig => |config, problem| FreeMatch::new(config, problem);
    /// One fixed threshold.
    FixMatch, fixmatch: FixMatchConfig => |config, _problem| FixMatch::new(config);
    /// One threshold for each class, lower where fewer images are predicted with confidence.
    FlexMatch, flexmatch: FlexMatchConfig => |config, problem| FlexMatch::new(config, problem);
    /// A threshold relative to the labelled images' confidence, and predictions aligned with theirs.
    AdaMatch, adamatch: AdaMatchConfig => |config, problem| AdaMatch::new(config, problem);
    /// No threshold: pseudo-labels weigh by their confidence.
    SoftMatch, softmatch: SoftMatchConfig => |config, problem| SoftMatch::new(config, problem);
    /// Whole distributions as targets, labelled images released as training goes on.
    Uda, uda: UdaConfig => |config, _problem| Uda::new(config);
    /// The network's own confident predictions, without strong views.
    PseudoLabel, pseudolabel: PseudoLabelConfig => |config, _problem| PseudoLabel::new(config);
    /// Guessed and known labels, blended with their images.
    MixMatch, mixmatch: MixMatchConfig => |config, problem| MixMatch::new(config, problem);
    /// MixMatch with aligned guesses, strong views and a pretext task.
    ReMixMatch, remixmatch: ReMixMatchConfig => |config, problem| ReMixMatch::new(config, problem);
    /// Agreement with the average of the network's own past.
    MeanTeacher, meanteacher: MeanTeacherConfig => |config, problem| MeanTeacher::new(config, problem);
    /// The joined pseudo-labels of several networks that were trained on the labels alone.
    #[serde(rename = "self_training")]
    SelfTraining, self_training: SelfTrainingConfig => |config, problem| {
        SelfTraining::without_members(&config, problem)
    };
    /// Labelled images only.
    Supervised, supervised: SupervisedConfig => |config, _problem| {
        let SupervisedConfig {} = config;
        Supervised
    };
}

impl std::fmt::Display for AlgorithmName {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.as_str())
    }
}
