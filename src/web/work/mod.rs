//! Scanning, clustering, training: forms, jobs, and watching them.
//!
//! ```text
//! form ──POST api/jobs/plan──▶ script shown ──POST api/jobs──▶ jobs/ID ──watch──▶ Event::Job, Event::Reload
//!                                                              └─ GET api/jobs/ID, …/curves: the page that shows it live
//! ```

mod form;
mod kinds;
mod panel;
mod start;
mod train;
mod view;
mod watch;

use axum::Router;
use axum::routing::{get, post};

use super::state::App;

pub use kinds::Kind;
pub use panel::panel;
pub use watch::{Watching, begin as watch};

pub fn routes() -> Router<App> {
    Router::new()
        .route("/train", get(train::page))
        .route("/jobs/{id}", get(panel::page))
        .route("/api/jobs", get(view::list).post(start::start_job))
        .route("/api/jobs/plan", post(start::plan_job))
        .route("/api/jobs/{id}", get(view::one))
        .route("/api/jobs/{id}/curves", get(view::curves))
        .route("/api/jobs/{id}/details", get(view::details))
        .route("/api/jobs/{id}/stop", post(view::stop))
        .route("/api/jobs/{id}/resume", post(view::resume))
        .route("/api/jobs/{id}/forget", post(view::forget))
}
