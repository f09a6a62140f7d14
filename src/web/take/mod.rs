//! Model, labels and predictions to take away.

mod downloads;
mod model;
mod oracle;
mod page;
mod predict;
mod stream;
#[cfg(test)]
mod tests;
mod upload;

use std::path::Path as FilePath;

use axum::extract::{DefaultBodyLimit, Query};
use axum::routing::{get, post};
use axum::{Extension, Router};
use maud::{Markup, html};
use serde::Deserialize;

use self::page::Take;
use super::desk::AtDesk;
use super::error::WebError;
use super::layout::{Page, Part};
use super::off_thread;
use super::results::runs::{self, Shown};
use super::state::App;
use crate::experiment::Labelling;
use crate::inference::Bundle;
use crate::project::{LabelStore, Project};

pub fn routes() -> Router<App> {
    let predict = post(predict::predict).layer(DefaultBodyLimit::max(upload::REQUEST));
    Router::new()
        .route("/take", get(take))
        .route("/take/labels-by-people.csv", get(downloads::by_people))
        .route("/take/{run}/{file}", get(downloads::file))
        .route("/api/take/{run}/model", post(model::make))
        .route("/api/take/{run}/predict", predict)
        .layer(Extension(predict::Uploads::default()))
        .layer(Extension(model::Exports::default()))
}

#[derive(Deserialize)]
struct Which {
    run: Option<String>,
}

async fn take(AtDesk(desk): AtDesk, Query(which): Query<Which>) -> Result<Markup, WebError> {
    off_thread(move || -> Result<_, WebError> {
        let project = desk.project();
        let runs = runs::list(&project)?;
        let page = Page {
            title: "Take away",
            depth: 2,
            project: Some((&desk, Part::Take)),
            script: Some("take.js"),
            style: Some("take.css"),
        };
        let Some(name) = which.run.as_deref().filter(|name| !name.is_empty()).or_else(|| runs::latest(&runs))
        else {
            return Ok(page.show(html! {
                h1 { "Take away" }
                p.lead { "A finished training leaves a model here, and a label for every image." }
                div.actions { a.button.primary href={ "p/" (desk.key) "/train" } { "Train a model" } }
                (page::people(&desk.key))
            }));
        };
        let run = Shown::read(&project, name)?;
        let labelling = labelling_of(&project, &run.folder)?;
        let ready = labelling.is_ready();
        // Beliefs that cannot be read are no reason to keep the model back; downloading the labels tells what is wrong.
        let unknown = if ready { desk.catalogue().unknown_to(&run.listed.name).unwrap_or(0) } else { 0 };
        let shown = Take { key: &desk.key, run: &run, runs: &runs, ready, unknown };
        Ok(page.show(shown.show()))
    })
    .await
}

/// The labels of a run's images: experts' as they are now, else the model's.
fn labelling_of(project: &Project, folder: &FilePath) -> Result<Labelling, WebError> {
    let bundle =
        Bundle::describe(&folder.join("bundle")).map_err(crate::experiment::ExperimentError::from)?;
    let labels = LabelStore::read(project.dir())?;
    Ok(Labelling::new(folder, &bundle.classes)?.of_experts(labels, project.classes()))
}
