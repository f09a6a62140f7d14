//! Layered configuration: every value is said once, can be overridden, and knows where it came from.
//!
//! Later layers win over earlier ones:
//!
//! 1. defaults, in [`sections`]
//! 2. the site's file, `/etc/harvest/harvest.toml`
//! 3. the user's file, `$XDG_CONFIG_HOME/harvest/harvest.toml` (`~/.config/harvest/harvest.toml`)
//! 4. the project's `harvest.toml`; its tables `project` and `classes` belong to [`crate::project`]
//! 5. a recipe, `--config FILE`; or a sweep's file over the recipe it names, see [`crate::sweep`]
//! 6. the environment: `HARVEST_TRAINING__LR=3e-4` says `training.lr`; two underscores part the names
//! 7. the command line: `--set training.lr=3e-4`, and flags that stand for a key
//!
//! A key nobody knows or a value of the wrong type is an error that names file, line and the key probably meant,
//! whichever layer it is in, also when a later layer would have overridden it.
//! Relative paths are taken from the folder of the file that says them, otherwise from the current folder.

mod clustering;
mod confidence;
mod distribution;
mod error;
mod labels;
mod layers;
mod members;
mod published;
mod resolve;
mod schema;
pub mod sections;
pub mod site;
mod suggest;

pub use crate::bounds::Invalid;
pub use clustering::{
    ClusteringConfig, ClusteringMethod, FeatureSource, HeadStart, ScanConfig, Search, SimClrConfig,
};
pub use confidence::{ConfidenceConfig, TemperatureChoice};
pub use distribution::{DistributionConfig, Scaling, WireFormat};
pub use error::{ConfigError, Origin};
pub use labels::{AlignmentTarget, LabelConfig, Sampling};
pub use layers::{Override, Tables, variable_name};
pub use members::Member;
pub use published::PublishedConfig;
pub use resolve::{
    Document, Entry, PROJECT_TABLES, Resolved, SWEEP_TABLES, Sources, SweepLayer, read_document, resolve,
};
pub use schema::{Key, Kind, Schema};
pub use sections::{
    Config, ConfigPath, DataConfig, EmaStatistics, KernelChoice, ModelConfig, OptimizerName, Precision,
    RunConfig, SourceKind, Switch, TrainingConfig, TuningName, ViewMaker,
};
pub use site::{Partition, Site};
pub use suggest::nearest;

#[cfg(test)]
mod tests;
