//! What a model is worth, where it fails, and what to look at next.

mod chart;
mod doubts;
pub mod page;
pub mod runs;
mod tables;
#[cfg(test)]
pub(crate) mod tests;
mod words;

use axum::Router;
use axum::extract::Path;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use maud::{Markup, html};

use self::doubts::{Labelled, Suspicious};
use self::page::Results;
use self::runs::{Listed, Shown, file_of, folder_of};
use super::desk::{AtDesk, Desk};
use super::error::WebError;
use super::layout::{Page, Part};
use super::off_thread;
use super::state::App;
use crate::catalogue::Catalogue;
use crate::experiment::{BELIEFS, Beliefs, ExperimentError, JudgedImage, judged_images};
use crate::project::{Label, Project};
use crate::report::{MetricsTable, standard_charts};

/// Images of a list that are shown on the page; the grid shows the others.
const TILES: usize = 18;

pub fn routes() -> Router<App> {
    Router::new()
        .route("/results", get(latest))
        .route("/results/{run}", get(of_run))
        .route("/results/{run}/report", get(report))
}

async fn latest(AtDesk(desk): AtDesk) -> Result<Markup, WebError> {
    off_thread(move || -> Result<_, WebError> {
        let project = desk.project();
        let runs = runs::list(&project)?;
        match runs::latest(&runs).map(str::to_owned) {
            Some(name) => show(&desk, &project, &name, &runs, 2),
            None => Ok(nothing_yet(&desk, &runs)),
        }
    })
    .await
}

async fn of_run(AtDesk(desk): AtDesk, Path((_, run)): Path<(String, String)>) -> Result<Markup, WebError> {
    off_thread(move || -> Result<_, WebError> {
        let project = desk.project();
        show(&desk, &project, &run, &runs::list(&project)?, 3)
    })
    .await
}

fn page<'a>(desk: &'a Desk, depth: usize) -> Page<'a> {
    Page {
        title: "Results",
        depth,
        project: Some((desk, Part::Results)),
        script: Some("results.js"),
        style: Some("results.css"),
    }
}

fn nothing_yet(desk: &Desk, runs: &[Listed]) -> Markup {
    page(desk, 2).show(html! {
        h1 { "Results" }
        p.lead { "No training is finished yet." }
        div.actions { a.button.primary href={ "p/" (desk.key) "/train" } { "Train a model" } }
        @if !runs.is_empty() { h2 { "Runs" } (page::table(runs, None, &desk.key)) }
    })
}

fn show(
    desk: &Desk,
    project: &Project,
    name: &str,
    runs: &[Listed],
    depth: usize,
) -> Result<Markup, WebError> {
    let run = Shown::read(project, name)?;
    let catalogue = desk.catalogue();
    let results = Results {
        key: &desk.key,
        classes: project.classes(),
        runs,
        mistakes: mistakes(&run)?,
        suspicious: suspicious(&catalogue, &run)?,
        catalogue: &catalogue,
        // Curves and settings are no reason not to show the rest.
        charts: MetricsTable::read(&run.folder.join("metrics.csv"))
            .map(|table| standard_charts(&table))
            .unwrap_or_default(),
        settings: std::fs::read_to_string(run.folder.join("config.toml")).unwrap_or_default(),
        folder: run.folder.display().to_string(),
        run: &run,
    };
    Ok(page(desk, depth).show(results.show()))
}

/// The mistakes on the images that the scores come from, the surest first, and their number.
fn mistakes(run: &Shown) -> Result<(Vec<JudgedImage>, usize), WebError> {
    let Some((_, judged)) = judged_images(&run.folder)? else { return Ok((Vec::new(), 0)) };
    let mut wrong: Vec<JudgedImage> =
        judged.into_iter().filter(|image| image.label.is_some_and(|label| label != image.class)).collect();
    wrong.sort_by(|a, b| b.confidence.total_cmp(&a.confidence));
    let count = wrong.len();
    wrong.truncate(TILES);
    Ok((wrong, count))
}

/// Labels that the model contradicts, the most suspicious first, and their number; `None` if the run has no beliefs.
fn suspicious(catalogue: &Catalogue, run: &Shown) -> Result<Option<(Vec<Suspicious>, usize)>, WebError> {
    let Some(beliefs) = Beliefs::open(&run.folder.join(BELIEFS))? else { return Ok(None) };
    let mut labelled = Labelled::default();
    for belief in beliefs {
        let belief = belief?;
        if let Some(Label::Class(label)) = catalogue.label(&belief.hash.0) {
            labelled.add(belief, label);
        }
    }
    let mut found = labelled.suspicious();
    let count = found.len();
    found.truncate(TILES);
    Ok(Some((found, count)))
}

/// The report as the run wrote it. It has a style of its own inside, which our pages may not have; in a sandbox it can run
/// nothing, send nothing and see nothing of this site, whatever is written in it.
const REPORT_POLICY: &str = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; \
                             form-action 'none'; frame-ancestors 'none'";

async fn report(AtDesk(desk): AtDesk, Path((_, run)): Path<(String, String)>) -> Result<Response, WebError> {
    let bytes = off_thread(move || -> Result<_, WebError> {
        let folder = folder_of(&desk.project(), &run)?;
        let file = file_of(&folder, "report.html")?;
        std::fs::read(&file)
            .map_err(|error| ExperimentError::Damaged { path: file, reason: error.to_string() }.into())
    })
    .await?;
    let headers = [(CONTENT_TYPE, "text/html; charset=utf-8"), (CONTENT_SECURITY_POLICY, REPORT_POLICY)];
    Ok((headers, bytes).into_response())
}
