//! The frame of every page.
//!
//! A page's address lies some folders below the application's root. `<base>` leads back there, so that every address in a page or
//! script (`p/KEY/label`, `assets/…`) is relative to the root, whatever prefix a proxy puts before it.

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
        let base = if self.depth == 0 { "./".to_owned() } else { "../".repeat(self.depth) };
        let asset = |name: &str| format!("assets/{}/{name}", assets::version());
        html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    base href=(base);
                    title { (self.title) " · HARVEST" }
                    link rel="icon" href=(asset("icon.svg"));
                    link rel="stylesheet" href=(asset("base.css"));
                    @if let Some(style) = self.style { link rel="stylesheet" href=(asset(style)); }
                    script src=(asset("theme.js")) {}
                    script type="module" src=(asset("base.js")) {}
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
                    }
                    main #main tabindex="-1" { (content) }
                    div #toasts.toasts role="status" aria-live="polite" {}
                }
            }
        }
    }
}
