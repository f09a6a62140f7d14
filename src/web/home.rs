//! The list of projects.

use std::path::{Path, PathBuf};

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use maud::{Markup, html};

use super::error::WebError;
use super::layout::Page;
use super::security::Visitor;
use super::state::{App, AppState};
use super::tally::{Tally, thousands};
use crate::project::Project;

pub fn routes() -> Router<App> {
    Router::new().route("/", get(home))
}

async fn home(State(app): State<App>, _: Visitor) -> Result<Markup, WebError> {
    // Folders may be many and far away.
    tokio::task::spawn_blocking(move || show(&app))
        .await
        .map_err(|_| WebError::Bad("the list could not be made".into()))
}

/// A project as a card shows it.
struct Card {
    dir: PathBuf,
    key: String,
    /// The project and what it holds, or why it cannot be opened.
    project: Result<(Project, Tally), String>,
    active: Option<Timestamp>,
}

impl Card {
    fn of(dir: PathBuf, used: Option<Timestamp>) -> Self {
        let project = Project::open(&dir).map_err(|error| crate::errors::chain(&error));
        let project = project.map(|project| {
            let tally = Tally::of(&project);
            (project, tally)
        });
        let changed = project.as_ref().ok().and_then(|(_, tally)| tally.changed);
        Self { key: AppState::key_of(&dir), active: used.max(changed), dir, project }
    }
}

fn show(app: &AppState) -> Markup {
    let mut cards: Vec<Card> =
        app.known.all(&app.roots).into_iter().map(|(dir, used)| Card::of(dir, used)).collect();
    cards.sort_by_key(|card| std::cmp::Reverse(card.active));
    Page { title: "Projects", depth: 0, project: None, script: None, style: Some("pages.css") }.show(html! {
        div.heading {
            h1 { "Projects" }
            @if !cards.is_empty() { a.button.primary href="new" { "New project" } }
        }
        @if cards.is_empty() {
            div.empty {
                p.lead { "A project begins with a folder of images and the names of the classes to tell apart." }
                p { "Label a few images of each class here; HARVEST learns from these and from all the others, then shows what it believes and what it doubts." }
                p.actions { a.button.primary href="new" { "New project" } }
            }
        } @else {
            ul.cards.projects {
                @for card in &cards { li.card { (show_card(card)) } }
            }
        }
        p.hint {
            "Looked for below " @for (index, root) in app.roots.all().iter().enumerate() { @if index > 0 { ", " } code { (root.display()) } }
            ". Others are allowed with the option " code { "--roots" } " of " code { "harvest serve" } "."
        }
    })
}

fn show_card(card: &Card) -> Markup {
    html! {
        @match &card.project {
            Ok((project, tally)) => {
                h2 { a href={ "p/" (card.key) "/" } { (project.name()) } }
                p.path { (short(&card.dir)) }
                dl.facts {
                    div { dt { "Images" } dd { (tally.images.map_or_else(|| "not looked at yet".to_owned(), thousands)) } }
                    div { dt { "Labelled" } dd { (tally.labelled.map_or_else(|| "—".to_owned(), thousands)) } }
                    div { dt { "Classes" } dd { (project.classes().len()) } }
                    div { dt { "Models" } dd { (tally.runs) } }
                }
            }
            Err(words) => {
                h2 { (card.dir.file_name().unwrap_or_default().to_string_lossy()) }
                p.path { (short(&card.dir)) }
                p.note.bad { "Its settings cannot be read: " (words) }
            }
        }
        p.muted { @match card.active { Some(at) => { "Active " (ago(at)) } None => { "Never opened here" } } }
    }
}

/// A path with the home folder as people write it.
fn short(dir: &Path) -> String {
    let home = std::env::home_dir().and_then(|home| home.canonicalize().ok());
    match home.and_then(|home| dir.strip_prefix(home).ok().map(Path::to_owned)) {
        Some(below) => format!("~/{}", below.display()),
        None => dir.display().to_string(),
    }
}

/// A time as people say it.
fn ago(at: Timestamp) -> String {
    let seconds = Timestamp::now().duration_since(at).as_secs();
    let several = |count: i64, what: &str| match count {
        1 => format!("1 {what} ago"),
        count => format!("{count} {what}s ago"),
    };
    match seconds {
        // A clock that goes wrong is no reason for a time to come.
        ..60 => "just now".into(),
        60..3600 => several(seconds / 60, "minute"),
        3600..86_400 => several(seconds / 3600, "hour"),
        86_400..2_592_000 => several(seconds / 86_400, "day"),
        _ => format!("on {}", at.to_zoned(TimeZone::system()).strftime("%-d %B %Y")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::ToSpan as _;

    #[test]
    fn times_are_said_in_words() {
        let at = |seconds: i64| ago(Timestamp::now() - seconds.seconds());
        assert_eq!(at(5), "just now");
        assert_eq!(at(-500), "just now");
        assert_eq!(at(61), "1 minute ago");
        assert_eq!(at(2 * 3600 + 5), "2 hours ago");
        assert!(at(90 * 86_400).starts_with("on "));
    }
}
