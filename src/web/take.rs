//! Model, labels and predictions to take away.

use axum::Router;

use super::state::App;

pub fn routes() -> Router<App> {
    Router::new()
}
