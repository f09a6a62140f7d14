//! What a person sees of a run: the log of its numbers, its charts, its page, and the progress of long work.
//!
//! - [`MetricsLog`] appends to `metrics.csv` and survives being killed; [`MetricsTable`] reads it back.
//! - [`EventWriter`] writes the same scalars for TensorBoard.
//! - [`LineChart`] and [`confusion_svg`] draw; [`RunSummary`] puts everything on one page, `report.html`.
//! - [`Progress`] shows how far long work is, on a terminal and off it; [`Watched`] tells it to other programs.

mod charts;
mod comparison_charts;
mod confusion_chart;
mod contact_sheet;
mod events;
mod html;
mod map_chart;
mod metrics_csv;
mod progress;
mod reliability_chart;
mod scaling_chart;
mod svg;
mod watched;

pub use charts::{LineChart, Series, standard_charts};
pub use comparison_charts::{Compared, Comparison, Spread};
pub use confusion_chart::confusion_svg;
pub use contact_sheet::contact_sheet;
pub use events::EventWriter;
pub use html::{
    ConfidenceSection, ConfigurationRow, MemberRow, Results, RunSummary, SetAsideRow, illustrated_page, page,
};
pub use map_chart::map_svg;
pub use metrics_csv::{MetricsLog, MetricsLogError, MetricsTable};
pub use progress::{Progress, duration, thousands};
pub use reliability_chart::reliability_svg;
pub use scaling_chart::{ScalingChart, ScalingSeries};
pub use svg::escape;
pub use watched::{Watched, WatchedState, watched};
