//! Training: loader → algorithm → backward → optimizer → average, with schedule, evaluation, checkpoints and metrics.
//!
//! The loop never asks which algorithm or which network it runs.

mod apart;
mod arrivals;
mod auxiliary;
mod averaging;
mod buffer;
pub mod checkpoint;
mod clipping;
mod crew;
mod ema;
mod evaluation;
mod flat;
mod loader;
mod logs;
mod network;
mod optimizer;
mod plan;
mod ranks;
mod reduction;
mod schedule;
mod scope;
mod session;
mod setup;
mod trainer;

pub use apart::{Apart, Incomparable, apart};
pub(crate) use auxiliary::Auxiliary;
pub(crate) use averaging::average_gradients;
pub(crate) use crew::decide;
pub use crew::{Asked, Crew, TooManyRanks, Undecided};
pub use ema::Ema;
pub use evaluation::evaluate_each;
pub use loader::{HostBatch, HostViews, Intake, Loader, ViewsOf};
pub use network::StepNetwork;
pub use optimizer::{Optimizer, OptimizerConfig, OptimizerError, Pass};
pub use reduction::ReduceTimes;
pub use schedule::{CosineWithWarmup, FIXMATCH_CYCLES, HalfCosine};
pub use scope::ScopeError;
pub use session::{Scalars, Session};
pub use setup::{Setup, total_steps};
pub(crate) use setup::{not_rounded, precision, rounds};
pub use trainer::{Job, Outcome, TrainError, train};
