//! Who may come in, and what a browser may do with our pages.

use axum::Router;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::error::WebError;
use super::state::App;

/// Puts everything that protects around `routes`.
pub fn guard(routes: Router<App>, _app: App) -> Router<App> {
    routes
}

/// Who makes a request: somebody who has come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Visitor {
    /// What the history calls them.
    pub name: String,
}

impl FromRequestParts<App> for Visitor {
    type Rejection = WebError;

    async fn from_request_parts(_: &mut Parts, _: &App) -> Result<Self, WebError> {
        let name = std::env::var("USER").unwrap_or_else(|_| "somebody".into());
        Ok(Self { name })
    }
}
