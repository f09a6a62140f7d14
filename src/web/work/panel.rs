//! A job's own page, and the panel by which other pages start and watch jobs.

use axum::extract::Path as UrlPath;
use maud::{Markup, html};

use super::super::desk::{AtDesk, Desk};
use super::super::error::WebError;
use super::super::layout::{Page, Part};
use super::super::off_thread;
use super::kinds::Kind;
use super::view::{OfJob, views};
use crate::jobs::Ledger;

/// Starts and watches jobs of one kind from within another page: a button, and the latest job as it goes. The page's script
/// imports `watchPanels` of `job.js`, and its style is `job.css`.
///
/// `button` is what starting it is called. `fields`: further inputs of the form, whose names are keys of the configuration.
pub fn panel(desk: &Desk, kind: Kind, button: &str, fields: Markup) -> Markup {
    let latest = views(desk, Some(kind.word()), 1);
    let latest = latest.first();
    html! {
        section.job-panel data-kind=(kind.word()) data-job=[latest.map(|job| &job.id)] data-state=[latest.map(|job| job.state.word())] {
            form.job-start {
                (fields)
                div.actions { button.primary type="submit" { (button) } }
            }
            div.job-now hidden aria-live="polite" {}
        }
    }
}

/// `p/KEY/jobs/ID`
pub async fn page(AtDesk(desk): AtDesk, UrlPath(at): UrlPath<OfJob>) -> Result<Markup, WebError> {
    off_thread(move || -> Result<_, WebError> {
        let job = Ledger::of(desk.project().dir()).find(&at.id)?;
        let title = &job.record.title;
        let part = if Kind::of_word(&job.record.kind)
            .is_some_and(|kind| matches!(kind, Kind::Scan | Kind::Cluster))
        {
            Part::Images
        } else {
            Part::Train
        };
        let page = Page {
            title,
            depth: 3,
            project: Some((&desk, part)),
            script: Some("job.js"),
            style: Some("job.css"),
        };
        Ok(page.show(html! {
            p.crumb { a href={ "p/" (desk.key) "/train" } { "All jobs" } }
            h1 { (title) }
            div #job data-job=(at.id) data-kind=(job.record.kind) {
                p.muted { "Asking how it goes …" }
            }
            noscript { p.note.warn { "This page shows a job live and needs JavaScript for it." } }
        }))
    })
    .await
}
