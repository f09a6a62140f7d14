//! The frame of every page.
//!
//! A page's address lies some folders below the application's root. `<base>` leads back there, so that every address in a page or
//! script (`p/KEY/label`, `assets/…`) is relative to the root, whatever prefix a proxy puts before it.

use axum::http::StatusCode;
use maud::{DOCTYPE, Markup, html};

use super::assets;
use super::desk::Desk;

/// A page, but for its content.
pub struct Page<'a> {
    /// Its title.
    pub title: &'a str,
    /// Folders between the root and this page: 0 for `new`, 2 for `p/KEY/label`, 3 for `p/KEY/results/RUN`.
    pub depth: usize,
    /// The project it belongs to, and which of its parts it is.
    pub project: Option<(&'a Desk, Part)>,
    /// Its script, a module in `assets/`, such as `label.js`.
    pub script: Option<&'a str>,
    /// A style of its own beside `base.css`, such as `label.css`.
    pub style: Option<&'a str>,
}

/// A part of a project's pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// What to do next.
    Overview,
    /// The images found.
    Images,
    /// The grid.
    Label,
    /// Training and its progress.
    Train,
    /// What came of it.
    Results,
    /// Downloads and predictions.
    Take,
}

/// Each part with its address below the project's and its name.
const PARTS: [(Part, &str, &str); 6] = [
    (Part::Overview, "", "Overview"),
    (Part::Images, "images", "Images"),
    (Part::Label, "label", "Label"),
    (Part::Train, "train", "Train"),
    (Part::Results, "results", "Results"),
    (Part::Take, "take", "Take away"),
];

impl Page<'_> {
    /// The whole page around `content`, the inside of `<main>`.
    pub fn show(&self, content: Markup) -> Markup {
        self.frame(true, content)
    }

    fn frame(&self, signed_in: bool, content: Markup) -> Markup {
        let base = if self.depth == 0 { "./".to_owned() } else { "../".repeat(self.depth) };
        let asset = |name: &str| format!("assets/{}/{name}", assets::version());
        html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    base href=(base);
                    title { (self.title) @if let Some((desk, _)) = self.project { " · " (desk.project().name()) } " · HARVEST" }
                    link rel="icon" href=(asset("icon.svg"));
                    link rel="stylesheet" href=(asset("base.css"));
                    @if let Some(style) = self.style { link rel="stylesheet" href=(asset(style)); }
                    script src=(asset("theme.js")) {}
                    script type="module" src=(asset("base.js")) {}
                    @if signed_in { script type="module" src=(asset("me.js")) {} }
                    @if let Some(script) = self.script { script type="module" src=(asset(script)) {} }
                }
                body data-project=[self.project.map(|(desk, _)| &desk.key)] {
                    a.skip href="#main" { "Skip to content" }
                    header.bar {
                        a.brand href="./" { "HARVEST" }
                        @if let Some((desk, part)) = self.project {
                            span.project { (desk.project().name()) }
                            nav aria-label="Project" {
                                @for (each, path, name) in PARTS {
                                    a href={ "p/" (desk.key) "/" (path) } aria-current=[(each == part).then_some("page")] { (name) }
                                }
                            }
                        }
                        @if signed_in { button #me.quiet.me type="button" aria-haspopup="dialog" hidden {} }
                    }
                    main #main tabindex="-1" { (content) }
                    div #toasts.toasts role="status" aria-live="polite" {}
                }
            }
        }
    }
}

/// A page for those who have not come in: nothing on it asks the server for what only visitors may know.
pub fn plain(title: &str, depth: usize, script: Option<&str>, content: Markup) -> Markup {
    Page { title, depth, project: None, script, style: Some("pages.css") }.frame(false, content)
}

/// What went wrong, as a page with a way on.
pub fn error(status: StatusCode, words: &str, depth: usize, signed_in: bool) -> Markup {
    let title = match status {
        StatusCode::NOT_FOUND => "Not found",
        StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => "Not allowed",
        _ => "That did not work",
    };
    let page = Page { title, depth, project: None, script: None, style: None };
    page.frame(
        signed_in,
        html! {
            h1 { (title) }
            p.note.bad { (sentence(words)) }
            p.actions { a.button href="./" { "All projects" } }
        },
    )
}

/// Words as a sentence: a capital letter in front, a full stop at the end.
pub fn sentence(words: &str) -> String {
    let mut letters = words.chars();
    let first = letters.next().map(|first| first.to_uppercase().collect::<String>()).unwrap_or_default();
    let end = if words.ends_with(['.', '!', '?', '…']) { "" } else { "." };
    format!("{first}{}{end}", letters.as_str())
}
