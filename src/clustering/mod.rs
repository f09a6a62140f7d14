//! Groups of like images without any label, so that people label like with like, and advice on which images to label next.
//!
//! ```text
//! images ──features──▶ Embedding ──▶ Neighbours ──▶ SCAN ─┐
//!                          └───────▶ KMeans ──────────────┴▶ clusters ──▶ what to label
//! ```

mod assignment;
mod course;
mod duplicates;
mod embedding;
mod features;
mod kmeans;
mod learner;
mod losses;
mod map;
mod neighbours;
mod pretext;
mod quality;
mod scan;
mod select;

pub use assignment::Assignment;
pub use course::LearnError;
pub use duplicates::{Look, near_duplicates};
pub use embedding::Embedding;
pub use features::{AugmentedCopy, embed, embed_copy};
pub use kmeans::KMeans;
pub use losses::{ScanLoss, SelfLabelLoss, nt_xent, scan_loss, self_label_loss};
pub use map::map;
pub use neighbours::Neighbours;
pub(crate) use pretext::Contrast;
pub use pretext::{BACKBONE, SimClr};
pub use quality::{Purity, Quality};
pub use scan::{Learning, Scan, Scanned, SelfLabelling};
pub use select::{Choice, Pool, Selection};

pub use crate::config::Search;

/// Why images cannot be grouped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// No rows.
    #[error("there are no images to group")]
    Empty,
    /// The network that made the features is broken.
    #[error("the features of image {row} are not all numbers; the weights they come from are damaged")]
    NotFinite {
        /// The first such row.
        row: usize,
    },
    /// Values of other rows than said.
    #[error("{values} values do not make rows of {dim}")]
    Ragged {
        /// How many.
        values: usize,
        /// Values of a row.
        dim: usize,
    },
    /// Images were to be chosen by a model.
    #[error("choosing by what the model doubts needs a model; train one first, or choose in another way")]
    NoModel,
    /// Somebody wants to go on later.
    #[error("interrupted; the same command goes on from here")]
    Interrupted,
}
