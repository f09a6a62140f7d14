//! The label page: a grid of thumbnails, and what is done to them.

mod api;
mod classes;
mod code;
mod events;
mod history;

use axum::Router;

use super::state::App;

pub use code::LabelCode;

pub fn routes() -> Router<App> {
    Router::new()
        .merge(api::routes())
        .merge(classes::routes())
        .merge(events::routes())
        .merge(history::routes())
}
