//! The page that trains: what will happen, whether there are labels enough, one button, and the jobs there were.

use std::time::Duration;

use axum::extract::Query;
use axum::response::Html;
use maud::{Markup, html};
use serde::Deserialize;

use super::super::desk::{AtDesk, Desk};
use super::super::error::WebError;
use super::super::layout::{Page, Part};
use super::super::off_thread;
use super::form;
use super::kinds::{Kind, Settings};
use super::view::{View, views};
use crate::config::Site;
use crate::experiment::Finished;
use crate::jobs::Slurm;
use crate::project::{Project, Run, RunState};
use crate::report::duration;

/// The fewest that it can begin with: one is kept aside, and one class's look is not learned from a single image.
pub const FEWEST: usize = 4;

/// `p/KEY/train`
pub async fn page(AtDesk(desk): AtDesk, Query(asked): Query<Asked>) -> Result<Html<String>, WebError> {
    off_thread(move || -> Result<_, WebError> {
        let content = content(&desk, &asked)?;
        let page = Page {
            title: "Train",
            depth: 2,
            project: Some((&desk, Part::Train)),
            script: Some("train.js"),
            style: Some("job.css"),
        };
        Ok(Html(page.show(content).into_string()))
    })
    .await
}

/// What the address may say.
#[derive(Debug, Default, Deserialize)]
pub struct Asked {
    /// Name of the run to go on from, in place of the last one.
    from: Option<String>,
}

/// A finished run, for the offer to go on from its model.
pub(super) struct Last {
    pub name: String,
    summary: String,
    seconds: f64,
}

fn content(desk: &Desk, asked: &Asked) -> Result<Markup, WebError> {
    let project = desk.project();
    let counts = label_counts(desk);
    let last = asked.from.as_deref().and_then(|run| last_run(&project, Some(run)));
    let (last, offer) = match last {
        Some(asked) => (Some(asked), "Continue from the model you looked at "),
        None => (last_run(&project, None), "Continue from the last model "),
    };
    let (site, trouble) = match Site::find(None) {
        Ok(site) => (site, None),
        Err(error) => (Site::default(), Some(error.to_string())),
    };
    let slurm = Slurm::new().is_here();
    let (defaults, wrong) = match Kind::Train.check(&project, &Settings::default()) {
        Ok(resolved) => (Some(resolved), None),
        Err(error) => (None, Some(crate::errors::chain(&error))),
    };
    let fewest = counts.iter().map(|(_, count)| *count).min().unwrap_or(0);
    let ready = counts.len() >= 2 && fewest >= FEWEST;
    Ok(html! {
        h1 { "Train a model" }
        p.lead { "The program learns from the images you labelled, and from all the others too." }
        @for words in trouble.iter().chain(&wrong) { p.note.bad { (words) } }
        div.train-layout {
            section aria-labelledby="labels-title" {
                h2 #labels-title { "What it learns from" }
                (labels(desk, &counts))
            }
            section aria-labelledby="steps-title" {
                h2 #steps-title { "What will happen" }
                (steps(last.as_ref()))
            }
        }
        form #train data-ready=(ready) {
            label.choice {
                input type="checkbox" name="with_baseline" checked[last.is_none()];
                span { "Did the unlabelled images help? " }
                small.hint { "Trains a second time on the labelled images alone and compares the two. Takes up to twice as long."
                    @if last.is_some() { " Both begin with the last model, if that is chosen." } }
            }
            @if let Some(last) = &last {
                label.choice {
                    input type="checkbox" name="from" value=(last.name) checked;
                    span { (offer) }
                    small.hint { (last.summary) ". The new training begins with what that model knows; the old one stays as it is." }
                }
            }
            @if let Some(defaults) = &defaults { (form::advanced(defaults, &site, slurm)) }
            div #notes {}
            div.actions {
                button.primary.big type="submit" disabled[counts.len() < 2] { "Start training" }
                button #show-script type="button" { "Show the script" }
            }
            (form::script())
        }
        h2 #jobs-title { "Jobs" }
        (list(desk, &views(desk, None, 50)))
    })
}

/// Name and labels of each class, in the order to show them.
pub fn label_counts(desk: &Desk) -> Vec<(String, usize)> {
    let counts = desk.catalogue().summary().counts.classes;
    let project = desk.project();
    let classes = project.classes().displayed();
    classes.map(|class| (class.name.clone(), counts.get(&class.id).copied().unwrap_or(0))).collect()
}

fn labels(desk: &Desk, counts: &[(String, usize)]) -> Markup {
    let fewest = counts.iter().min_by_key(|(_, count)| *count);
    let good = desk.target() as usize;
    let label = |words: &str| html! { a href={ "p/" (desk.key) "/label" } { (words) } };
    html! {
        @match fewest {
            None => p.note.warn { "There are no classes yet. " (label("Name them and label some images")) " first." },
            Some(_) if counts.len() < 2 => {
                p.note.warn { "There is one class only. Training needs two or more. " (label("Add another")) }
            }
            Some((name, count)) if *count < FEWEST => {
                p.note.warn {
                    "“" (name) "” has " (count) " labelled images, too few to learn from. "
                    (label("Label more")) ": 25 of each class are a good start."
                }
            }
            Some((name, count)) if *count < good => {
                p.note {
                    "This is enough to begin with. “" (name) "” has the fewest labels, " (count) "; more of it would help most. "
                    (label("Label more"))
                }
            }
            Some(_) => p.note { "Every class has " (good) " labelled images or more." },
        }
        @if !counts.is_empty() {
            div.table {
                table {
                    thead { tr { th { "Class" } th.number { "Labelled" } th { span.visually-hidden { "Of those wanted" } } } }
                    tbody {
                        @for (name, count) in counts {
                            tr {
                                th scope="row" { (name) }
                                td.number { (count) }
                                td.meter { progress max=(good) value=(*count.min(&good)) aria-label={ (count) " of " (good) " for " (name) } {} }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn steps(last: Option<&Last>) -> Markup {
    html! {
        ol.plain-steps {
            li { "Some labelled images are kept aside, to try the model on." }
            li { "Smaller copies of all images are made. The first time this takes a while." }
            li { "The model learns. It guesses what the unlabelled images show, and learns from guesses it is sure of." }
            li { "It is tried on the images kept aside, and a report is written." }
        }
        p.muted {
            @if let Some(last) = last {
                "The last training took " (duration(Duration::from_secs_f64(last.seconds.max(0.0)))) ". "
            } @else {
                "How long it takes depends on the images and the machine; the page tells once it runs. "
            }
            "You may close the page meanwhile: the training goes on, and takes the labels as they are now."
        }
    }
}

/// The finished run of that name, or the latest that is no baseline.
fn last_run(project: &Project, asked: Option<&str>) -> Option<Last> {
    let runs = Run::list(&project.runs()).ok()?;
    runs.iter().rev().find_map(|run| {
        let name = run.dir().file_name()?.to_str()?.to_owned();
        let RunState::Done(summary) = run.state().ok()? else { return None };
        let model = run.path("bundle").join("model.safetensors");
        let wanted = asked.map_or(!name.contains("-supervised-"), |asked| asked == name);
        if !wanted || !model.is_file() {
            return None;
        }
        let seconds = Finished::read(run.dir()).ok()?.seconds;
        Some(Last { name, summary, seconds })
    })
}

/// The table of jobs, which the script keeps up to date.
fn list(desk: &Desk, jobs: &[View]) -> Markup {
    html! {
        p #no-jobs.muted hidden[!jobs.is_empty()] { "None yet." }
        div.table hidden[jobs.is_empty()] {
            table #jobs aria-labelledby="jobs-title" {
                thead { tr { th { "Job" } th { "State" } th { "Where" } th { "Started" } th { "By" } } }
                tbody {
                    @for job in jobs {
                        tr data-job=(job.id) {
                            td { a href={ "p/" (desk.key) "/jobs/" (job.id) } { (job.title()) } }
                            td { span.state data-state=(job.state.word()) { (job.words()) } }
                            td { (job.place_words()) }
                            td { time datetime=(job.created()) { (job.created()) } }
                            td { (job.who()) }
                        }
                    }
                }
            }
        }
    }
}
