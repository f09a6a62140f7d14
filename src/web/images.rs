//! What a scan found.

use axum::Router;

use super::state::App;

pub fn routes() -> Router<App> {
    Router::new()
}
