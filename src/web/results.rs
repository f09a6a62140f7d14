//! What a model is worth, where it fails, and what to look at next.

use axum::Router;

use super::state::App;

pub fn routes() -> Router<App> {
    Router::new()
}
