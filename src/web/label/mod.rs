//! The label page: a grid of thumbnails, and what is done to them.

mod frame;
mod page;

use axum::Router;
use axum::routing::get;

use super::state::App;

pub fn routes() -> Router<App> {
    Router::new().route("/label", get(page::page))
}
