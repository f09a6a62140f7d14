//! New projects: a folder of images, classes, defaults.

use axum::Router;

use super::state::App;

pub fn routes() -> Router<App> {
    Router::new()
}
