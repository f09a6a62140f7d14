//! What a scan found, and groups of like images.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use maud::{Markup, html};

use super::desk::{AtDesk, Desk};
use super::error::WebError;
use super::layout::{Page, Part};
use super::off_thread;
use super::report::{Group, Report};
use super::security::Visitor;
use super::state::{App, AppState};
use super::tally::thousands;
use super::work::{Kind, panel};
use crate::catalogue::{Catalogue, Order, Query};
use crate::config::{Sources, resolve};
use crate::data::{ContentHash, Problem};

/// Pictures shown of each cluster.
const SAMPLES: usize = 9;
/// Clusters shown with pictures.
const CLUSTERS: usize = 200;

pub fn routes() -> Router<App> {
    Router::new().route("/images", get(page))
}

async fn page(State(app): State<App>, _: Visitor, AtDesk(desk): AtDesk) -> Result<Markup, WebError> {
    off_thread(move || show(&app, &desk)).await
}

fn show(app: &AppState, desk: &Arc<Desk>) -> Result<Markup, WebError> {
    let report = app.reports.of(&desk.places().manifest)?;
    let page = Page {
        title: "Images",
        depth: 2,
        project: Some((desk, Part::Images)),
        script: Some("images.js"),
        style: Some("pages.css"),
    };
    Ok(page.show(html! {
        link rel="stylesheet" href={ "assets/" (super::assets::version()) "/job.css" };
        h1 { "Images" }
        (place(app, desk))
        @match report {
            None => {
                p { "Every image is decoded once, to learn what can be used, what is there twice, and to make thumbnails. The images themselves stay as they are." }
                (panel(desk, Kind::Scan, "Look at the images", html! {}))
            }
            Some(report) => {
                (found(&report))
                (panel(desk, Kind::Scan, "Look again", html! {}))
                (aside(&report))
                (duplicates(desk, &report))
                (clusters(desk)?)
            }
        }
    }))
}

/// Where the images lie, with a warning if the page may not go there.
fn place(app: &AppState, desk: &Desk) -> Markup {
    let sources = Sources { project: Some(desk.project().file()), ..Sources::of_this_machine() };
    let root = resolve(&sources).map(|resolved| resolved.value.data.root.map(|root| root.0));
    match root {
        Ok(Some(root)) => html! {
            p.path { (root.display()) }
            @if let Err(error) = app.roots.inside(&root) {
                p.note.warn { "The images cannot be shown: " (error) "." }
            }
        },
        Ok(None) => {
            html! { p.note.warn { "The project's settings name no folder of images (" code { "data.root" } " in harvest.toml)." } }
        }
        Err(error) => html! { p.note.bad { "The project's settings cannot be used: " (error) "." } },
    }
}

fn found(report: &Report) -> Markup {
    let side = |size: Option<[u32; 2]>| {
        size.map_or_else(|| "—".to_owned(), |[width, height]| format!("{width} × {height}"))
    };
    html! {
        dl.facts {
            div { dt { "Images" } dd { (thousands(report.images)) } }
            div { dt { "Different ones" } dd { (thousands(report.images - report.copies)) } }
            div { dt { "Set aside" } dd { (thousands(report.aside())) } }
            div { dt { "Smallest, in pixels" } dd { (side(report.smallest)) } }
            div { dt { "Largest, in pixels" } dd { (side(report.largest)) } }
            div { dt { "Together" } dd { (bytes(report.bytes)) } }
        }
        p.muted {
            @for (index, (kind, count)) in report.kinds.iter().take(8).enumerate() {
                @if index > 0 { ", " } (thousands(*count)) " " @if kind.is_empty() { "without an ending" } @else { (kind) }
            }
            @if report.hidden > 0 { ". " (thousands(report.hidden)) " hidden (names that begin with a dot), not looked at" }
            "."
        }
        @if report.images == 0 {
            p.note.warn { "No image here can be used. Is it the right folder? What was found instead is listed below." }
        }
    }
}

/// A number of bytes as people say it.
fn bytes(count: u64) -> String {
    let units = ["bytes", "kB", "MB", "GB", "TB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 || value >= 100.0 {
        format!("{value:.0} {}", units[unit])
    } else {
        format!("{value:.1} {}", units[unit])
    }
}

/// A kind of trouble, and what can be done about it.
fn in_words(problem: Problem) -> (&'static str, &'static str) {
    match problem {
        Problem::Empty => {
            ("Empty files", "Nothing is in them; copy them again if they should hold a picture.")
        }
        Problem::NotAnImage => ("No pictures", "Other kinds of files among the images. That is fine."),
        Problem::Unsupported => {
            ("Kinds of pictures that cannot be read", "Save them as JPEG, PNG, WebP, BMP or TIFF.")
        }
        Problem::Truncated => ("Cut off", "The copy was interrupted; copy them again."),
        Problem::Damaged => ("Damaged", "Copy them again from where they came from."),
        Problem::TooLarge => ("Too large", "Bring them to a smaller size, or cut them into parts."),
        Problem::Unreadable => {
            ("Not allowed to be read", "Ask whoever owns them for the right to read them.")
        }
        Problem::Name => ("Names and links that lead nowhere", "Rename the files, or repair the links."),
        _ => ("Other trouble", "The reason is told with each file."),
    }
}

fn aside(report: &Report) -> Markup {
    if report.problems.is_empty() {
        return html! {};
    }
    html! {
        h2 { "Set aside" }
        p { "Files that cannot be used. They are left alone, and nothing else depends on them." }
        @for (problem, count) in &report.problems {
            @let (name, advice) = in_words(*problem);
            @let files: Vec<_> = report.set_aside.iter().filter(|file| file.problem == *problem).collect();
            details.card {
                summary { (name) ": " (thousands(*count)) }
                p.hint { (advice) }
                div.table {
                    table {
                        thead { tr { th scope="col" { "File" } th scope="col" { "Why" } } }
                        tbody { @for file in &files { tr { td { code { (file.path) } } td { (file.reason) } } } }
                    }
                }
                @if (files.len() as u64) < *count {
                    p.muted { "The first " (files.len()) " are shown; all are in " code { "images.set_aside.csv" } " in the project's folder." }
                }
            }
        }
    }
}

fn duplicates(desk: &Desk, report: &Report) -> Markup {
    if report.copies == 0 {
        return html! {};
    }
    let catalogue = desk.catalogue();
    html! {
        h2 { "The same picture several times" }
        p {
            (thousands(report.copies)) @if report.copies == 1 { " file shows" } @else { " files show" } " a picture that is there already. A picture is shown and labelled once, its copies have the same label, "
            "and all of them stay on one side when images are divided into training and evaluation."
        }
        details.card {
            summary { "Show them" }
            @for group in &report.groups { (copies(desk, &catalogue, group)) }
            @if report.groups.iter().map(|group| group.copies).sum::<u64>() < report.copies {
                p.muted { "Those with most copies are shown." }
            }
        }
    }
}

fn copies(desk: &Desk, catalogue: &Catalogue, group: &Group) -> Markup {
    let first = catalogue.path(&group.hash.0);
    html! {
        div.copy-group {
            (thumbnail(desk, &group.hash, "copies of one picture"))
            ul.copies {
                @for path in first.into_iter().chain(group.paths.iter().map(String::as_str)) { li { (path) } }
                @if (group.paths.len() as u64) < group.copies {
                    li.muted { "and " (thousands(group.copies - group.paths.len() as u64)) " more" }
                }
            }
        }
    }
}

fn thumbnail(desk: &Desk, hash: &ContentHash, alt: &str) -> Markup {
    html! { img src={ "p/" (desk.key) "/t/" (hash) ".jpg" } alt=(alt) loading="lazy" width="84" height="84"; }
}

fn clusters(desk: &Desk) -> Result<Markup, WebError> {
    let catalogue = desk.catalogue();
    let summary = catalogue.summary();
    let mut clusters = summary.clusters.clone();
    clusters.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let button = if clusters.is_empty() { "Group like images" } else { "Group again" };
    Ok(html! {
        h2 #groups { "Groups of like images" }
        p {
            "Optional. Images that look alike are put together without any label, so that many can be labelled with one click, "
            "and the first labels can be spread over everything there is."
        }
        @for note in &summary.notes { p.note.warn { (note) } }
        @if !clusters.is_empty() {
            ul.clusters {
                @for (cluster, count) in clusters.iter().take(CLUSTERS) {
                    li.card {
                        h3 {
                            a href={ "p/" (desk.key) "/label?cluster=" (cluster) } { "Cluster " (cluster) }
                            span.muted { (thousands(*count as u64)) " images" }
                        }
                        div.strip { @for hash in samples(&catalogue, *cluster)? { (thumbnail(desk, &hash, "")) } }
                    }
                }
            }
            @if clusters.len() > CLUSTERS { p.muted { "The " (CLUSTERS) " largest of " (clusters.len()) " are shown." } }
        }
        (panel(desk, Kind::Cluster, button, html! {}))
    })
}

/// Images that belong to a cluster most surely.
fn samples(catalogue: &Catalogue, cluster: u32) -> Result<Vec<ContentHash>, WebError> {
    let query = Query { clusters: vec![cluster], order: Order::Cluster, ..Query::default() };
    let view = catalogue.view(&query)?;
    let rows = catalogue.rows(&view.token, 0, SAMPLES).unwrap_or_default();
    Ok(rows.iter().map(|row| row.hash).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_said_in_words() {
        assert_eq!(
            [0, 999, 1000, 123_456_789, 5_400_000_000].map(bytes),
            ["0 bytes", "999 bytes", "1.0 kB", "123 MB", "5.4 GB"]
        );
    }
}
