//! What a person sees of a run: the log of its numbers, its charts, its page, and the progress of long work.

mod metrics_csv;
mod progress;

pub use metrics_csv::{MetricsLog, MetricsLogError, MetricsTable};
pub use progress::Progress;
