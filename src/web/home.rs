//! The list of projects.

use axum::Router;
use axum::routing::get;
use maud::{Markup, html};

use super::layout::Page;
use super::state::App;

pub fn routes() -> Router<App> {
    Router::new().route("/", get(home))
}

async fn home() -> Markup {
    Page { title: "Projects", depth: 0, project: None, script: None, style: None }
        .show(html! { h1 { "Projects" } })
}
