//! A project's first page: where it stands, and what to do next.

use axum::Router;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::get;
use maud::{Markup, html};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::desk::{AtDesk, Desk};
use super::error::WebError;
use super::layout::{Page, Part};
use super::off_thread;
use super::security::{Visitor, redirect};
use super::state::{App, AppState};
use super::tally::{Tally, thousands};
use crate::catalogue::Summary;
use crate::project::Classes;

/// Labels of a class from which on a first training is worth its time.
const ENOUGH: usize = 10;

/// Not below `p/KEY` as the others: a nested router does not know its own root with a slash behind.
pub fn routes() -> Router<App> {
    Router::new().route("/p/{key}/", get(page)).route("/p/{key}", get(with_slash))
}

/// Addresses of a project's pages are relative to its folder.
async fn with_slash(Path(key): Path<String>) -> Response {
    redirect(&format!("{}/", utf8_percent_encode(&key, NON_ALPHANUMERIC)))
}

async fn page(State(app): State<App>, _: Visitor, AtDesk(desk): AtDesk) -> Result<Markup, WebError> {
    off_thread(move || Ok::<_, WebError>(show(&app, &desk))).await
}

/// What is known of a project.
struct Standing {
    images: usize,
    distinct: usize,
    set_aside: u64,
    clusters: usize,
    /// Labels of each class, in the order of display.
    labelled: Vec<usize>,
    /// Not sure, none of these, bad image.
    other: usize,
    /// Labels of each class that training is to have.
    target: usize,
    models: usize,
    predicted: bool,
}

impl Standing {
    fn of(summary: &Summary, classes: &Classes, tally: &Tally, target: u32) -> Self {
        let counts = &summary.counts;
        Self {
            images: summary.images,
            distinct: summary.distinct,
            set_aside: tally.set_aside,
            clusters: summary.clusters.len(),
            labelled: classes
                .displayed()
                .map(|class| counts.classes.get(&class.id).copied().unwrap_or(0))
                .collect(),
            other: counts.not_sure + counts.none + counts.bad,
            target: target as usize,
            models: tally.runs,
            predicted: summary.run.is_some(),
        }
    }

    /// Labels of the class that has fewest.
    fn fewest(&self) -> usize {
        self.labelled.iter().copied().min().unwrap_or(0)
    }

    fn enough(&self) -> bool {
        self.labelled.len() >= 2 && self.fewest() >= ENOUGH.min(self.target.max(1))
    }

    /// The step to be taken now.
    fn next(&self) -> Part {
        match self {
            _ if self.images == 0 => Part::Images,
            _ if self.models > 0 => Part::Results,
            _ if self.enough() => Part::Train,
            _ => Part::Label,
        }
    }
}

/// A step of the loop.
struct Step {
    part: Part,
    name: &'static str,
    words: String,
    done: bool,
    /// Address below the project's, and what the button says.
    go: (&'static str, &'static str),
    /// From 0 to 1.
    progress: Option<f64>,
}

fn steps(at: &Standing) -> Vec<Step> {
    let count = |number: usize| thousands(number as u64);
    let wanted = ENOUGH.min(at.target.max(1));
    let images = match at.images {
        0 => "Decodes every image once, to learn what can be used and what is there twice.".to_owned(),
        _ => format!(
            "{} images, {} of them copies of others; {} set aside.",
            count(at.images),
            count(at.images - at.distinct),
            thousands(at.set_aside)
        ),
    };
    let label = match at.labelled.iter().sum::<usize>() {
        _ if at.images == 0 => "A few images of each class.".to_owned(),
        0 => format!("Nothing is labelled yet. {wanted} images of each class are a good beginning."),
        sum => {
            let other =
                if at.other > 0 { format!(" and {} set apart", count(at.other)) } else { String::new() };
            let fewest = match at.fewest() {
                fewest if fewest < wanted => format!("The class with fewest has {fewest} of {wanted}."),
                fewest => format!("Every class has {fewest} or more."),
            };
            format!("{} labelled{other}. {fewest}", count(sum))
        }
    };
    let reached: usize = at.labelled.iter().map(|labels| (*labels).min(wanted)).sum();
    let share = reached as f64 / (wanted * at.labelled.len().max(1)) as f64;
    let models = match at.models {
        0 => "Learns from the labelled images and from all the others.".to_owned(),
        1 => "One model so far. More labels, and it learns on from there.".to_owned(),
        models => format!("{models} models so far."),
    };
    vec![
        Step {
            part: Part::Images,
            name: "Look at the images",
            words: images,
            done: at.images > 0,
            go: ("images", if at.images > 0 { "Images" } else { "Look at the images" }),
            progress: None,
        },
        Step {
            part: Part::Label,
            name: "Label a few of each class",
            words: label,
            done: at.images > 0 && at.enough(),
            go: ("label", "Label"),
            progress: (at.images > 0 && !at.enough()).then_some(share),
        },
        Step {
            part: Part::Train,
            name: "Train",
            words: models,
            done: at.models > 0,
            go: ("train", "Train"),
            progress: None,
        },
        Step {
            part: Part::Results,
            name: "Look at what came of it, and correct",
            done: false,
            words: if at.predicted {
                "What the model believes and doubts of every image; correcting doubtful ones helps it most."
                    .into()
            } else {
                "After a training: how good the model is, where it errs, and which labels look wrong.".into()
            },
            go: ("results", "Results"),
            progress: None,
        },
        Step {
            part: Part::Take,
            name: "Take away",
            done: false,
            words: "The model, labels of all images, and predictions for new ones.".into(),
            go: ("take", "Take away"),
            progress: None,
        },
    ]
}

fn show(app: &AppState, desk: &Desk) -> Markup {
    let project = desk.project();
    let summary = desk.catalogue().summary();
    let tally = Tally::of(&project);
    let standing = Standing::of(&summary, project.classes(), &tally, desk.target());
    let next = standing.next();
    let page = Page {
        title: "Overview",
        depth: 2,
        project: Some((desk, Part::Overview)),
        script: Some("overview.js"),
        style: Some("pages.css"),
    };
    page.show(html! {
        h1 { (project.name()) }
        p.path { (project.dir().display()) }
        @for note in &summary.notes { p.note.warn { (note) } }
        @if let Some(error) = outside(app, desk) { p.note.warn { (error) } }
        ul #jobs.loop hidden aria-label="Jobs that go on" {}
        ol.loop {
            @for (index, step) in steps(&standing).iter().enumerate() {
                li.next[step.part == next].done[step.done] aria-current=[(step.part == next).then_some("step")] {
                    span.mark aria-hidden="true" { @if step.done { "✓" } @else { (index + 1) } }
                    h2 { (step.name) @if step.done { span.visually-hidden { " (done)" } } }
                    p { (step.words) }
                    span.do {
                        a.button.primary[step.part == next] href={ "p/" (desk.key) "/" (step.go.0) } { (step.go.1) }
                        @if step.part == Part::Results && standing.predicted {
                            " " a.button href={ "p/" (desk.key) "/label?label=none&order=doubt" } { "Show what it doubts" }
                        }
                    }
                    @if let Some(share) = step.progress {
                        progress max="1" value=(format!("{share:.3}")) aria-label={ (step.name) ": how far" } {}
                    }
                }
            }
        }
        h2 { "Classes" }
        ul.class-counts {
            @for (class, labels) in project.classes().displayed().zip(&standing.labelled) {
                li.chip title=(class.description) {
                    span.swatch data-colour=(class.colour) {} (class.name) span.muted { (thousands(*labels as u64)) }
                }
            }
        }
        @if standing.images > 0 && standing.clusters == 0 {
            p.hint { "Many images? " a href={ "p/" (desk.key) "/images" } { "Group like ones first" } ", and label whole groups at a time." }
        }
    })
}

/// Why the images cannot be shown, if they lie where the page may not go.
fn outside(app: &AppState, desk: &Desk) -> Option<WebError> {
    let sources = crate::config::Sources {
        project: Some(desk.project().file()),
        ..crate::config::Sources::of_this_machine()
    };
    let root = crate::config::resolve(&sources).ok()?.value.data.root?.0;
    app.roots.inside(&root).err()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing() -> Standing {
        Standing {
            images: 0,
            distinct: 0,
            set_aside: 0,
            clusters: 0,
            labelled: vec![0, 0],
            other: 0,
            target: 80,
            models: 0,
            predicted: false,
        }
    }

    #[test]
    fn there_is_one_next_step_at_each_point_of_the_loop() {
        let mut at = standing();
        assert_eq!(at.next(), Part::Images);
        at.images = 100;
        at.distinct = 90;
        assert_eq!(at.next(), Part::Label);
        at.labelled = vec![10, 9];
        assert_eq!(at.next(), Part::Label, "each class counts");
        assert!(steps(&at)[1].words.contains("9 of 10"), "{}", steps(&at)[1].words);
        assert!((steps(&at)[1].progress.expect("on the way") - 0.95).abs() < 1e-9);
        at.labelled = vec![10, 12];
        assert_eq!(at.next(), Part::Train);
        at.models = 1;
        assert_eq!(at.next(), Part::Results);
        at.target = 4;
        at.labelled = vec![4, 4];
        assert!(at.enough(), "who asks for fewer needs fewer");
    }
}
