//! Scanning, clustering, training: forms, jobs, and watching them.

use axum::Router;

use super::state::App;

pub fn routes() -> Router<App> {
    Router::new()
}
