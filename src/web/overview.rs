//! A project's first page: where it stands, and what to do next.

use axum::Router;

use super::state::App;

pub fn routes() -> Router<App> {
    Router::new()
}
