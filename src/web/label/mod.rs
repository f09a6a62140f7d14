//! The label page: a grid of thumbnails, and what is done to them.

mod api;
mod classes;
mod code;
mod events;
mod frame;
mod history;
mod page;

use axum::Router;
use axum::routing::get;

use super::state::App;

pub use code::LabelCode;

pub fn routes() -> Router<App> {
    Router::new()
        .route("/label", get(page::page))
        .merge(api::routes())
        .merge(classes::routes())
        .merge(events::routes())
        .merge(history::routes())
}
