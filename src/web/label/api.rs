//! The project in numbers; giving labels, taking them back.

use axum::Json;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::code::{LabelCode, Said};
use crate::catalogue::Summary;
use crate::data::ContentHash;
use crate::project::{Act, Deed, ImageHash, Label};
use crate::web::desk::{AtDesk, Desk, MOST_TOLD};
use crate::web::error::WebError;
use crate::web::scribe::Written;
use crate::web::security::Visitor;
use crate::web::state::App;

/// Bytes of a request: some 100,000 images by name. More are labelled by their place in a view.
const BODY: usize = 8 << 20;

/// Characters of a request's name.
const REQUEST: usize = 100;

pub fn routes() -> Router<App> {
    Router::new()
        .route("/api/project", get(project))
        .route("/api/label", post(label).layer(DefaultBodyLimit::max(BODY)))
        .route("/api/undo", post(undo))
        .route("/api/redo", post(redo))
}

async fn project(AtDesk(desk): AtDesk, visitor: Visitor) -> Json<Value> {
    Json(describe(&desk, &visitor).await)
}

/// Classes and numbers of a project, as `api/project` tells them.
pub(super) async fn describe(desk: &Desk, visitor: &Visitor) -> Value {
    let wrong = desk.look().await;
    let (project, catalogue) = (desk.project(), desk.catalogue());
    let Summary { images, distinct, counts, clusters, folders, grouped, run, version, notes } =
        catalogue.summary();
    let classes: Vec<Value> = project
        .classes()
        .displayed()
        .map(|class| {
            json!({
                "id": class.id,
                "name": class.name,
                "colour": class.colour,
                "description": class.description,
                "count": counts.classes.get(&class.id).copied().unwrap_or(0),
            })
        })
        .collect();
    let named =
        |name: &'static str| move |(value, count): (Value, usize)| json!({ name: value, "count": count });
    let clusters: Vec<Value> =
        clusters.into_iter().map(|(id, count)| (json!(id), count)).map(named("id")).collect();
    let folders: Vec<Value> =
        folders.into_iter().map(|(name, count)| (json!(name), count)).map(named("name")).collect();
    json!({
        "name": project.name(),
        "kind": project.classes().kind(),
        "classes": classes,
        "counts": {
            "images": images,
            "distinct": distinct,
            "labelled": counts.labelled(),
            "unlabelled": counts.unlabelled,
            "not_sure": counts.not_sure,
            "none": counts.none,
            "bad": counts.bad,
        },
        "target": desk.target(),
        "has": {
            "clusters": grouped,
            "predictions": run.is_some(),
            "features": grouped,
            "map": grouped,
        },
        "clusters": clusters,
        "folders": folders,
        "run": run,
        "version": version,
        "me": visitor.name,
        "notes": wrong.into_iter().chain(notes).collect::<Vec<_>>(),
    })
}

/// A click.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LabelRequest {
    /// What tells this click from others; sent again, it is the same click.
    request: String,
    /// Which images, by name,
    images: Option<Vec<ContentHash>>,
    /// or by their places `from..to` in a view, or those of a view that are in a cluster.
    view: Option<String>,
    from: Option<usize>,
    to: Option<usize>,
    cluster: Option<u32>,
    label: LabelCode,
    /// From where, for the history.
    #[serde(default)]
    how: String,
}

#[derive(Serialize)]
struct LabelAnswer {
    action: Option<i64>,
    changed: u64,
    version: u64,
    count: usize,
}

async fn label(
    AtDesk(desk): AtDesk,
    visitor: Visitor,
    Said(asked): Said<LabelRequest>,
) -> Result<Json<LabelAnswer>, WebError> {
    let images = images(&desk, &asked)?;
    let labels = images.into_iter().map(|image| (image, asked.label.0)).collect();
    let from = match asked.how.trim() {
        "" => "page".to_owned(),
        how => how.chars().take(200).collect(),
    };
    let deed = Deed::Label { labels, from, retires: None };
    let act = Act { who: visitor.name, request: Some(named(asked.request)?), deed };
    let Written { done, version, .. } = desk.scribe.act(act).await?;
    let count = done.images.len();
    Ok(Json(LabelAnswer { action: done.action, changed: done.changed, version, count }))
}

fn images(desk: &Desk, asked: &LabelRequest) -> Result<Vec<ImageHash>, WebError> {
    let catalogue = desk.catalogue();
    let LabelRequest { images, view, from, to, cluster, .. } = asked;
    let found = match (images, view, from, to, cluster) {
        (Some(images), None, None, None, None) => {
            let images: Vec<ImageHash> = images.iter().map(|ContentHash(hash)| *hash).collect();
            let strangers = images.iter().filter(|image| !catalogue.knows(image)).count();
            if strangers > 0 {
                return Err(WebError::Bad(format!(
                    "{strangers} of these images are not in the project any more; load the page anew"
                )));
            }
            Some(images)
        }
        (None, Some(view), Some(from), Some(to), None) => catalogue.hashes(view, *from, *to),
        (None, Some(view), None, None, Some(cluster)) => catalogue.hashes_in_cluster(view, *cluster),
        _ => {
            let reason =
                "say which images: `images`, or `view` with `from` and `to`, or `view` with `cluster`";
            return Err(WebError::Bad(reason.into()));
        }
    };
    match found {
        None => Err(WebError::ViewGone),
        Some(images) if images.is_empty() => Err(WebError::Bad("no image was chosen".into())),
        Some(images) => Ok(images),
    }
}

/// A request's name, if it can be one.
pub(super) fn named(request: String) -> Result<String, WebError> {
    match request.is_empty() || request.len() > REQUEST {
        true => Err(WebError::Bad(format!("`request` must have from 1 to {REQUEST} characters"))),
        false => Ok(request),
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BackRequest {
    request: String,
}

#[derive(Serialize)]
struct BackAnswer {
    action: Option<i64>,
    /// Content hash and label code; empty if there are too many to name.
    images: Vec<(ContentHash, LabelCode)>,
    count: usize,
    skipped: u64,
    words: String,
    version: u64,
}

async fn undo(
    desk: AtDesk,
    visitor: Visitor,
    asked: Said<BackRequest>,
) -> Result<Json<BackAnswer>, WebError> {
    back(desk, visitor, asked, Deed::Undo).await
}

async fn redo(
    desk: AtDesk,
    visitor: Visitor,
    asked: Said<BackRequest>,
) -> Result<Json<BackAnswer>, WebError> {
    back(desk, visitor, asked, Deed::Redo).await
}

async fn back(
    AtDesk(desk): AtDesk,
    visitor: Visitor,
    Said(asked): Said<BackRequest>,
    deed: Deed,
) -> Result<Json<BackAnswer>, WebError> {
    let act = Act { who: visitor.name, request: Some(named(asked.request)?), deed: deed.clone() };
    let written = desk.scribe.act(act).await?;
    let words = words(&desk, &deed, &written);
    let Written { done, version, .. } = written;
    let count = done.images.len();
    let images = match count > MOST_TOLD {
        true => Vec::new(),
        false => done.images.iter().map(|(image, label)| (ContentHash(*image), LabelCode(*label))).collect(),
    };
    Ok(Json(BackAnswer { action: done.action, images, count, skipped: done.skipped, words, version }))
}

/// What was done, to be shown and read aloud.
fn words(desk: &Desk, deed: &Deed, Written { done, notes, .. }: &Written) -> String {
    let (nothing, verb) = match deed {
        Deed::Redo => ("There is nothing to do again.", "Done again"),
        _ => ("There is nothing to take back.", "Taken back"),
    };
    if done.action.is_none() {
        return nothing.to_owned();
    }
    let images = |count: u64| if count == 1 { "1 image".to_owned() } else { format!("{count} images") };
    let count = done.images.len() as u64;
    let mut labels = done.images.iter().map(|(_, label)| *label);
    let first = labels.next().flatten();
    let now = match (done.images.first(), labels.all(|label| label == first)) {
        (Some(_), true) => format!(", now {}", name_of(desk, first)),
        _ => String::new(),
    };
    let mut words = match count {
        0 => format!("{verb}: no image has changed."),
        _ => format!("{verb}: {}{now}.", images(count)),
    };
    if done.skipped > 0 {
        let were = if done.skipped == 1 { "was" } else { "were" };
        words += &format!(
            " {} {were} left alone, since somebody else has labelled {} meanwhile.",
            images(done.skipped),
            if done.skipped == 1 { "it" } else { "them" },
        );
    }
    notes.iter().fold(words, |words, note| format!("{words} {note}"))
}

fn name_of(desk: &Desk, label: Option<Label>) -> String {
    match label {
        None => "without a label".to_owned(),
        Some(Label::Class(id)) => {
            let project = desk.project();
            project
                .classes()
                .ever(id)
                .map_or_else(|| format!("class {id}"), |class| format!("“{}”", class.name))
        }
        Some(state) => {
            let word = Label::STATES.iter().find(|(label, _)| *label == state).map_or("", |(_, word)| word);
            format!("“{word}”")
        }
    }
}
