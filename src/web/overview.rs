//! Comes with the images.

use axum::Router;

use super::state::App;

pub fn routes() -> Router<App> {
    Router::new()
}
