//! The label page: a grid of thumbnails, and what is done to them.

mod api;
mod classes;
mod code;
mod events;
mod frame;
mod history;
#[cfg(test)]
mod looking_tests;
mod map;
mod page;
mod pictures;
mod views;

use axum::Router;
use axum::routing::get;

use super::state::App;

pub use code::LabelCode;
pub use pictures::Gallery;

pub fn routes() -> Router<App> {
    Router::new()
        .route("/label", get(page::page))
        .merge(api::routes())
        .merge(classes::routes())
        .merge(events::routes())
        .merge(history::routes())
        .merge(map::routes())
        .merge(pictures::routes())
        .merge(views::routes())
}

#[cfg(test)]
mod tests;
