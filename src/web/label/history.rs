//! Who said what, and when.

use axum::Json;
use axum::Router;
use axum::extract::Query;
use axum::routing::get;
use serde::{Deserialize, Serialize};

use super::code::LabelCode;
use crate::data::ContentHash;
use crate::project::HistoryPage;
use crate::web::desk::AtDesk;
use crate::web::error::WebError;
use crate::web::state::App;

/// Entries at once.
const MOST: usize = 500;

pub fn routes() -> Router<App> {
    Router::new().route("/api/history", get(history))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    image: Option<ContentHash>,
    /// Entries before this one.
    before: Option<i64>,
    count: Option<usize>,
}

#[derive(Serialize)]
struct Entry {
    id: i64,
    action: i64,
    image: ContentHash,
    label: LabelCode,
    /// Of the class, which may be one that is no more.
    name: Option<String>,
    who: String,
    at: String,
    from: String,
    undoes: Option<i64>,
    path: Option<String>,
}

#[derive(Serialize)]
struct Answer {
    /// Latest first.
    entries: Vec<Entry>,
    more: bool,
}

async fn history(AtDesk(desk): AtDesk, Query(asked): Query<Asked>) -> Result<Json<Answer>, WebError> {
    let count = asked.count.unwrap_or(100).clamp(1, MOST);
    let image = asked.image.map(|ContentHash(hash)| hash);
    // One more than asked for tells whether there are more.
    let page = HistoryPage { image, before: asked.before, count: count + 1 };
    let mut found = desk.scribe.page(page).await?;
    let more = found.len() > count;
    found.truncate(count);
    let (project, catalogue) = (desk.project(), desk.catalogue());
    let entries = found
        .into_iter()
        .map(|entry| Entry {
            id: entry.id,
            action: entry.action,
            image: ContentHash(entry.image),
            label: LabelCode(entry.label),
            name: entry
                .label
                .and_then(|label| project.classes().ever(label.class()?))
                .map(|class| class.name.clone()),
            path: catalogue.path(&entry.image).map(str::to_owned),
            who: entry.who,
            at: entry.at.to_string(),
            from: entry.from,
            undoes: entry.undoes,
        })
        .collect();
    Ok(Json(Answer { entries, more }))
}
