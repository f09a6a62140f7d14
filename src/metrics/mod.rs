//! How good predictions are: confusion counts and the scores drawn from them.
//!
//! [`Confusion`] counts (target, prediction) pairs, [`Tally`] also follows the scores behind them batch by batch
//! (top-k accuracy, cross entropy), and [`Scores`] is the result, ready for a table or a JSON file. Definitions
//! are scikit-learn's, with both of its conventions for classes that no sample has: see [`Scores`].
//!
//! ```
//! use harvest::metrics::Tally;
//!
//! let mut tally = Tally::new(3, &[1, 2]);
//! tally.add(&[0, 2], &[2.0f32, 0.5, -1.0, 0.1, 0.4, 0.2])?; // one row of class scores per image
//! let scores = tally.scores();
//! assert_eq!((scores.samples, scores.accuracy), (2, 0.5));
//! # Ok::<(), harvest::metrics::MetricsError>(())
//! ```

mod calibration;
mod clustering;
mod confusion;
mod interval;
mod paired;
mod scores;
mod selective;
mod tally;

pub use calibration::{
    BINS, Bin, FEWEST_FOR_TEMPERATURE, Judged, Reliability, Temperature, TemperatureOrigin,
    negative_log_likelihood, probabilities,
};
pub use clustering::ClusterScores;
pub use confusion::Confusion;
pub use interval::{Interval, wilson};
pub use paired::{Paired, Verdict};
pub use scores::{ClassScores, Macro, Scores, TopK};
pub use selective::{RejectRule, clopper_pearson_upper};
pub use tally::{Tally, argmax};

/// Why predictions cannot be counted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MetricsError {
    /// A target or prediction names a class outside `0..classes`.
    #[error("class {class} does not exist: there are {classes} classes, counted from 0")]
    Class {
        /// The class named.
        class: usize,
        /// How many there are.
        classes: usize,
    },
    /// Targets and predictions, or targets and score rows, are not paired.
    #[error("{found} predicted values do not fit {targets} targets: {expected} expected")]
    Length {
        /// Number of targets.
        targets: usize,
        /// Values expected for them.
        expected: usize,
        /// Values found.
        found: usize,
    },
    /// Two counts over different sets of classes, or a table that is not square.
    #[error("counts over {found} classes cannot be joined with counts over {expected} classes")]
    Classes {
        /// Classes of the first.
        expected: usize,
        /// Classes of the other.
        found: usize,
    },
    /// Two tallies that follow different k.
    #[error("tallies of different top-k cannot be joined")]
    TopK,
}
