//! Who may come in, and what a browser may do with our pages.
//!
//! ```text
//! request ─▶ host known? ─▶ prefix taken off ─▶ path climbs? ─▶ from our own page? ─▶ signed in? ─▶ router
//! answer  ◀─ headers ◀──── page of words where one was asked for ◀──────────────── in time? ◀─┘
//! ```

mod address;
mod door;
mod gate;
mod login;
mod origin;
mod patience;
mod roots;
mod throttle;

use axum::Router;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::error::WebError;
use super::state::App;

pub use door::{Announce, Door, Secret, SecretError, write_private};
pub use gate::redirect;
pub use patience::{Patient, Peer};
pub use roots::Roots;

/// Letters of a visitor's name.
const LONGEST_NAME: usize = 60;

/// Puts everything that protects around `routes`.
pub fn guard(routes: Router<App>, app: App) -> Router<App> {
    let inside = routes.merge(login::routes()).with_state(app.clone());
    // Around the whole router and not around its routes: the prefix must be gone before a route is chosen.
    Router::new().fallback_service(inside).layer(axum::middleware::from_fn_with_state(app, gate::gate))
}

/// Who makes a request: somebody who has come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Visitor {
    /// What the history calls them.
    pub name: String,
}

impl Visitor {
    /// A name as people give it: one line, not too long; `None` if nothing is left of it.
    pub fn name_from(text: &str) -> Option<String> {
        let words: Vec<&str> = text.split(|c: char| c.is_whitespace() || c.is_control()).collect();
        let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
        let name: String = words.join(" ").chars().take(LONGEST_NAME).collect();
        (!name.is_empty()).then_some(name)
    }
}

impl FromRequestParts<App> for Visitor {
    type Rejection = WebError;

    /// The gate has looked who it is, and lets nobody else through.
    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, WebError> {
        parts.extensions.get::<Self>().cloned().ok_or(WebError::SignedOut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_one_line() {
        assert_eq!(Visitor::name_from("  Ada \n Lovelace\u{7}").as_deref(), Some("Ada Lovelace"));
        assert_eq!(Visitor::name_from(" \t\u{0}"), None);
        assert_eq!(Visitor::name_from(&"x".repeat(100)).expect("a name").len(), LONGEST_NAME);
    }
}
