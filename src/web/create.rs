//! New projects: a folder of images, classes, defaults; and the picker of folders.

use axum::Router;

use super::state::App;

pub fn routes() -> Router<App> {
    Router::new()
}
