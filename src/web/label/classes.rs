//! Adding, changing, merging, ordering and deleting classes.

use axum::Json;
use axum::Router;
use axum::routing::post;
use serde::Deserialize;
use serde_json::Value;

use super::api::{describe, named};
use super::code::Said;
use crate::project::{ClassChange, Colour};
use crate::web::desk::AtDesk;
use crate::web::error::WebError;
use crate::web::scribe::ClassDeed;
use crate::web::security::Visitor;
use crate::web::state::App;

pub fn routes() -> Router<App> {
    Router::new().route("/api/classes", post(change))
}

#[derive(Debug, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase", deny_unknown_fields)]
enum ClassRequest {
    Add {
        name: String,
        colour: Option<Colour>,
        #[serde(default)]
        description: String,
    },
    Change {
        id: u16,
        name: Option<String>,
        colour: Option<Colour>,
        description: Option<String>,
    },
    Merge {
        from: u16,
        into: u16,
        request: Option<String>,
    },
    Reorder {
        ids: Vec<u16>,
    },
    Delete {
        id: u16,
        request: Option<String>,
    },
}

/// Characters of a description.
const DESCRIPTION: usize = 2000;

async fn change(
    AtDesk(desk): AtDesk,
    visitor: Visitor,
    Said(asked): Said<ClassRequest>,
) -> Result<Json<Value>, WebError> {
    let (deed, request) = match asked {
        ClassRequest::Add { name, colour, description } => {
            let description = checked(description)?;
            (ClassDeed::Change(ClassChange::Add { name, colour, description }), None)
        }
        ClassRequest::Change { id, name, colour, description } => {
            let description = description.map(checked).transpose()?;
            (ClassDeed::Change(ClassChange::Change { id, name, colour, description }), None)
        }
        ClassRequest::Reorder { ids } => (ClassDeed::Change(ClassChange::Reorder { ids }), None),
        ClassRequest::Merge { from, into, request } => (ClassDeed::Merge { from, into }, request),
        ClassRequest::Delete { id, request } => (ClassDeed::Delete { id }, request),
    };
    let request = request.map(named).transpose()?;
    desk.scribe.change_classes(visitor.name.clone(), request, deed).await?;
    Ok(Json(describe(&desk, &visitor).await))
}

fn checked(description: String) -> Result<String, WebError> {
    match description.chars().count() > DESCRIPTION {
        true => Err(WebError::Bad(format!("the description is longer than {DESCRIPTION} characters"))),
        false => Ok(description),
    }
}
