//! The label page: a grid of thumbnails, and what is done to them.

use axum::Router;

use super::state::App;

pub fn routes() -> Router<App> {
    Router::new()
}
