//! From a configuration to a finished run folder: what the command line, the demo and the web page have in common.
//!
//! ```text
//! Config ──Dataset::load──▶ images, labels ──split──▶ run folder ──execute──▶ report, bundle, DONE
//! ```

mod baseline;
mod beliefs;
mod card;
mod clusters;
mod dataset;
mod execute;
mod finished;
mod labelling;
mod progress;
mod rehearsal;
mod reliability;
mod rounds;
mod scale;
mod self_training;
mod team;
#[cfg(test)]
pub(crate) mod testing;
mod write_up;

use std::path::PathBuf;

pub use baseline::{Comparison, JudgedImage, judged_images};
pub use beliefs::{BELIEFS, Belief, Beliefs, RunPart, read_class_ids};
pub use clusters::{CLUSTERS, Candidate, Clustered, Clustering, FoundBy};
pub use dataset::{Dataset, Places};
pub use execute::{Experiment, Finished, network_config};
pub use finished::FinishedRun;
pub use labelling::{LabelFile, Labelling};
pub use progress::Shown;
pub use rehearsal::Rehearsal;
pub use rounds::{Chosen, Round};
pub use team::Team;

pub use crate::errors::chain;
use crate::files::WriteError;

/// Why an experiment cannot be prepared, run or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExperimentError {
    /// Nobody said where the images are.
    #[error("no images are named; set `data.root`, or work in a project (`harvest init`)")]
    NoRoot,
    /// The images.
    #[error(transparent)]
    Data(#[from] crate::data::DataError),
    /// The list of images.
    #[error(transparent)]
    Manifest(#[from] crate::data::ManifestError),
    /// The division into training, evaluation and test images.
    #[error(transparent)]
    Split(#[from] crate::data::SplitError),
    /// The cache of decoded images.
    #[error(transparent)]
    Cache(#[from] crate::data::CacheError),
    /// The classes.
    #[error(transparent)]
    Classes(#[from] crate::data::ClassesError),
    /// The label history.
    #[error(transparent)]
    Labels(#[from] crate::project::LabelError),
    /// Labels as they were when a job was planned.
    #[error(transparent)]
    Frozen(#[from] crate::project::FrozenError),
    /// The network.
    #[error(transparent)]
    Model(#[from] harvest_models::ConfigError),
    /// What of the network is to be trained.
    #[error(transparent)]
    Scope(#[from] crate::training::ScopeError),
    /// The weights to start from.
    #[error("the weights to start from (`model.pretrained`)")]
    Pretrained(#[source] crate::weights::WeightsError),
    /// The device.
    #[error(transparent)]
    Device(#[from] crate::device::DeviceError),
    /// The run folder.
    #[error(transparent)]
    Run(#[from] crate::project::RunError),
    /// Training.
    #[error(transparent)]
    Train(#[from] crate::training::TrainError),
    /// The settings of a member of self-training.
    #[error(transparent)]
    Config(#[from] crate::config::ConfigError),
    /// A member of self-training.
    #[error("member {number} of self_training (`{line}`)")]
    Member {
        /// Counted from 1.
        number: usize,
        /// Its line in the recipe.
        line: String,
        /// What is wrong with it, or stopped it.
        source: Box<ExperimentError>,
    },
    /// The bundle.
    #[error(transparent)]
    Bundle(#[from] crate::inference::BundleError),
    /// Reading the logged metrics back.
    #[error("cannot read the logged metrics")]
    Metrics(#[from] crate::report::MetricsLogError),
    /// A file.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A run that is not at its end.
    #[error("the run `{path}` is not finished; run the same `harvest train` again to go on with it", path = path.display())]
    Unfinished {
        /// Its folder.
        path: PathBuf,
    },
    /// Learning features or clusters.
    #[error(transparent)]
    Cluster(#[from] crate::clustering::LearnError),
    /// A network that cannot look at an image.
    #[error(
        "the features of `{path}` are not all numbers: the weights they come from are damaged, or the image is beyond them; \
         try other weights, or take the image out of the folder",
        path = path.display()
    )]
    NotFinite {
        /// The image.
        path: PathBuf,
    },
    /// A table of clusters.
    #[error(transparent)]
    ClusterTable(#[from] crate::project::ClusterTableError),
    /// Images are to be chosen before they are grouped.
    #[error("the images are not grouped yet; run `harvest cluster` first")]
    NotClustered,
    /// Every image has a label.
    #[error("every image that was grouped has a label already, or has gone")]
    NothingToLabel,
    /// Nobody said how many clusters.
    #[error("say how many clusters to make: `--clusters N`, 2 or more; there are no classes to tell")]
    HowManyClusters,
    /// More clusters than images.
    #[error(
        "{images} images cannot make {clusters} clusters; add images, or ask for fewer with `--clusters`"
    )]
    FewerImagesThanClusters {
        /// How many there are.
        images: usize,
        /// How many clusters were asked for.
        clusters: usize,
    },
    /// The recipe was made for other images.
    #[error("{reason}")]
    OtherImages {
        /// What differs, and what can be done.
        reason: String,
    },
    /// A loss by distance for classes without any.
    #[error("`labels.ordinal_width` is for percentage bins; these classes have no order, set it to 0")]
    NotOrdered,
    /// The ranks do not fit the batch.
    #[error(transparent)]
    Ranks(#[from] crate::training::TooManyRanks),
    /// A job that was started again and again, and got no further.
    #[error(transparent)]
    NoProgress(#[from] crate::jobs::NoProgress),
    /// Ranks look at different images, or do different things.
    #[error(transparent)]
    Disagreement(#[from] harvest_collectives::Disagreement),
    /// The first rank, which decides and writes, has failed.
    #[error("rank 0: {reason}")]
    Elsewhere {
        /// What it said.
        reason: String,
    },
    /// What was to take the labels.
    #[error("the labels of all images cannot be written")]
    Output {
        /// Why.
        source: std::io::Error,
    },
    /// Somebody added or deleted classes between the beginning of a command and its work.
    #[error(
        "the classes of the project were changed while the images were looked through; give the same command again"
    )]
    ClassesChanged,
    /// Not what a run writes.
    #[error("`{path}` is damaged: {reason}", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// In what way.
        reason: String,
    },
}
