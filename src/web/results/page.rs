//! The page of a run.

use maud::{Markup, PreEscaped, html};

use super::doubts::Suspicious;
use super::runs::{Listed, Shown};
use super::{chart, tables, words};
use crate::catalogue::Catalogue;
use crate::experiment::{JudgedImage, RunPart};
use crate::metrics::{Interval, Scores};
use crate::project::{Classes, RunState};
use crate::report::{LineChart, reliability_svg};

/// Everything the page shows.
pub struct Results<'a> {
    /// Key of the project.
    pub key: &'a str,
    /// Its classes as they are now.
    pub classes: &'a Classes,
    /// The run.
    pub run: &'a Shown,
    /// All runs, the latest first.
    pub runs: &'a [Listed],
    /// The images.
    pub catalogue: &'a Catalogue,
    /// Its most confident mistakes, and how many there are in all.
    pub mistakes: (Vec<JudgedImage>, usize),
    /// Labels that may be wrong, and how many there are in all; `None` if the run has no beliefs.
    pub suspicious: Option<(Vec<Suspicious>, usize)>,
    /// Curves of the training.
    pub charts: Vec<LineChart>,
    /// Every setting.
    pub settings: String,
    /// Folder of the run, for a command line.
    pub folder: String,
}

impl Results<'_> {
    /// The inside of `<main>`.
    pub fn show(&self) -> Markup {
        html! {
            (self.heading())
            @match self.run.finished.scores() {
                Some((images, scores)) => {
                    (self.scores(images, scores))
                    (self.next())
                    (self.suspicious())
                    (self.mistakes(images))
                    section aria-labelledby="by-class" {
                        h2 #by-class { "Class by class" }
                        (tables::per_class(self.run, self.classes, scores))
                    }
                    section aria-labelledby="confused" {
                        h2 #confused { "What is taken for what" }
                        (tables::confusion(self.run, self.classes, scores, images, self.key))
                    }
                }
                None => {
                    div.note.warn {
                        "No labelled images were kept to judge this model by, so nobody knows how good it is. With the setting "
                        code { "data.evaluation_fraction" } " above 0, and a few labels more, the next run will tell."
                    }
                    (self.next())
                    (self.suspicious())
                }
            }
            (self.confidence())
            (self.training())
            (self.all_runs())
        }
    }

    fn heading(&self) -> Markup {
        let listed = &self.run.listed;
        html! {
            header.page-head data-run=(listed.name) {
                div {
                    h1 { "Results" }
                    p.lead {
                        (listed.algorithm.as_deref().unwrap_or("Training")) " with "
                        (listed.network.as_deref().unwrap_or("a network")) ", " (listed.made)
                    }
                }
                p.head-links {
                    a href={ "p/" (self.key) "/results/" (listed.name) "/report" } { "Whole report" }
                    @if self.runs.len() > 1 { a href={ "p/" (self.key) "/results/" (listed.name) } data-scroll="runs" { "All runs" } }
                }
            }
        }
    }

    fn scores(&self, images: &str, scores: &Scores) -> Markup {
        let name = |class: usize| self.run.class_name(self.classes, class).to_owned();
        html! {
            section.verdict aria-labelledby="verdict" {
                div.score {
                    p.big { (format!("{:.0}", 100.0 * scores.accuracy)) span.unit { " %" } }
                    (ruler(scores.accuracy, &scores.accuracy_interval()))
                    p.hint {
                        "of " (scores.samples) " " (images) " images right; on others like them "
                        (interval(scores)) " with 95 % certainty"
                    }
                }
                div.meaning {
                    h2 #verdict { (words::verdict(scores)) }
                    @if let Some(words) = words::weakest(scores, name) { p { (words) } }
                    @if let Some(off) = scores.mean_absolute_error { p { "Off by " (format!("{off:.1}")) " points of a percentage on average." } }
                    (self.beside_supervised())
                }
            }
            @if images == "evaluation" && scores.samples > 0 {
                p.hint {
                    "Evaluation images are labelled images that training did not learn from. They chose the moment at which the model was \
                     taken, so that the accuracy is, if anything, a little too good."
                }
            }
            @if let Some(words) = words::caution(scores, images) { div.note.warn { (words) } }
        }
    }

    fn beside_supervised(&self) -> Markup {
        match &self.run.baseline {
            Some((comparison, baseline)) => {
                let (with, without) = comparison.accuracy;
                html! {
                    dl.beside {
                        div { dt { "with the unlabelled images" } dd { (format!("{:.0} %", 100.0 * with)) } }
                        div { dt { "labelled images alone" } dd {
                            (format!("{:.0} %", 100.0 * without))
                            @if let Some((_, scores)) = baseline.scores() { span.muted { " (" (interval(scores)) ")" } }
                        } }
                    }
                    p { (comparison.sentence()) }
                }
            }
            None if self.run.listed.algorithm.as_deref() == Some("supervised") => html! {
                p { "This run learned from the labelled images alone." }
            },
            None => html! {
                p.muted {
                    "Whether the unlabelled images helped is not known: no run on the labelled images alone was made beside this one. \
                     The training form has a box for it."
                }
            },
        }
    }

    fn next(&self) -> Markup {
        let run = &self.run.listed.name;
        html! {
            nav.next aria-label="What to do next" {
                a.button.primary href={ "p/" (self.key) "/label?order=doubt&label=none" } { "Show me what you doubt" }
                a.button href={ "p/" (self.key) "/train?from=" (run) } { "Train again from this model" }
                a.button href={ "p/" (self.key) "/take?run=" (run) } { "Take it away" }
            }
            p.hint {
                "Labelling what the model doubts helps it most; then train again: it goes on from where it is."
            }
        }
    }

    fn suspicious(&self) -> Markup {
        html! {
            section aria-labelledby="suspicious" {
                h2 #suspicious { "Labels to look at again" }
                @match &self.suspicious {
                    None => {
                        (believe(&self.run.listed.name, &self.folder))
                    }
                    Some((shown, _)) if shown.is_empty() => {
                        p { "The model contradicts no label with confidence." }
                    }
                    Some((shown, all)) => {
                        p {
                            "An expert said one thing, the model is confident of another. Either may be wrong: look, then keep the label or change it. "
                            a href={ "p/" (self.key) "/label?order=disagreement&label=any&run=" (self.run.listed.name) } {
                                @if *all > shown.len() { "See all " (all) " in the grid" } @else { "See them in the grid" }
                            }
                        }
                        ul.tiles data-suspicious { @for image in shown { (self.suspicious_tile(image)) } }
                    }
                }
            }
        }
    }

    fn suspicious_tile(&self, image: &Suspicious) -> Markup {
        let named = |id: u16| {
            let place = self.run.class_ids.iter().position(|other| *other == id);
            let then = || place.map(|place| self.run.class_name(self.classes, place));
            self.classes.name_of(id).or_else(then).unwrap_or("?")
        };
        let (said, believed) = (named(image.label), named(image.belief.class));
        let hash = image.belief.hash.to_string();
        html! {
            li.tile data-image=(hash) {
                a href={ "p/" (self.key) "/label?order=disagreement&label=any&run=" (self.run.listed.name) "&at=" (hash) } {
                    img src={ "p/" (self.key) "/t/" (hash) ".jpg" } alt={ "labelled " (said) ", looks like " (believed) } loading="lazy" width="144" height="144";
                }
                p { span.muted { "expert " } strong { (said) } }
                p { span.muted { "model " } strong { (believed) } " " (percent(image.belief.confidence)) }
                p.hint {
                    @match image.belief.part {
                        RunPart::Train => "weaker evidence: the model learned from this very label",
                        RunPart::Unlabelled => "labelled since the run",
                        RunPart::Evaluation | RunPart::Test => "the model did not learn from this label",
                    }
                }
                @if let Some(path) = self.catalogue.path(&image.belief.hash.0) { (file_name(path)) }
                div.choice {
                    button.small type="button" data-relabel=(image.belief.class) data-name=(believed) { "Make it " (believed) }
                    button.small.quiet type="button" data-keep { "Keep " (said) }
                }
            }
        }
    }

    fn mistakes(&self, images: &str) -> Markup {
        let (shown, all) = &self.mistakes;
        html! {
            section aria-labelledby="mistakes" {
                h2 #mistakes { "Most confident mistakes" }
                @if shown.is_empty() { p { "None of the " (images) " images was called wrong." } }
                @else {
                    p { (all) " of the " (images) " images were called wrong; those it was surest of first." }
                    ul.tiles { @for image in shown { (self.mistake_tile(image, images)) } }
                }
            }
        }
    }

    fn mistake_tile(&self, image: &JudgedImage, images: &str) -> Markup {
        let name = |class: usize| self.run.class_name(self.classes, class);
        let id = |class: u16| self.run.class_ids.get(usize::from(class)).copied().unwrap_or(class);
        let label = image.label.unwrap_or(image.class);
        let (truth, said) = (name(usize::from(label)), name(usize::from(image.class)));
        let file = image.path.rsplit('/').next().unwrap_or(&image.path);
        html! {
            li.tile {
                a href={ "p/" (self.key) "/label?label=" (id(label)) "&predicted=" (id(image.class)) "&part=" (images) "&run=" (self.run.listed.name)
                         @if let Some(hash) = image.hash { "&at=" (hash) } } {
                    @match image.hash {
                        Some(hash) => img src={ "p/" (self.key) "/t/" (hash) ".jpg" } alt={ (truth) ", called " (said) } loading="lazy" width="144" height="144";,
                        None => span.no-picture { (file) },
                    }
                }
                p { strong { (truth) } span.muted { " called " } strong { (said) } }
                p { (percent(image.confidence)) " sure" @if image.abstained { span.muted { ", abstained" } } }
                (file_name(&image.path))
            }
        }
    }

    fn confidence(&self) -> Markup {
        let Some(confidence) = &self.run.bundle.confidence else { return html! {} };
        html! {
            section aria-labelledby="confidence" {
                h2 #confidence { "How far its confidence can be trusted" }
                p { (confidence.temperature_sentence()) }
                p { (confidence.reject_sentence()) }
                @if let Some(found) = &self.run.finished.reliable {
                    details {
                        summary { "Confidence beside truth" }
                        p { "On the images it was judged by: " (found.sentence()) "." }
                        figure.chart { (PreEscaped(reliability_svg("How often it is right, by how sure it is", &found.before, &found.after))) }
                    }
                }
            }
        }
    }

    fn training(&self) -> Markup {
        let run = &self.run;
        let about = |key: &str| run.bundle.about.get(key).map_or("–", String::as_str);
        html! {
            section aria-labelledby="training" {
                h2 #training { "How it was trained" }
                dl.facts {
                    div { dt { "Labelled images" } dd { (about("labelled images")) } }
                    div { dt { "Unlabelled images" } dd { (about("unlabelled images")) } }
                    div { dt { "Steps" } dd { (run.finished.steps) } }
                    div { dt { "Taken after step" } dd { (about("taken after step")) } }
                    div { dt { "Time" } dd { (crate::report::duration(std::time::Duration::from_secs_f64(run.finished.seconds.max(0.0)))) } }
                    div { dt { "Seed" } dd { (about("seed")) } }
                }
                div.charts { @for chart in &self.charts { figure.chart { (PreEscaped(chart.to_svg())) } } }
                details { summary { "Every setting of the run" } pre.settings tabindex="0" { code { (self.settings) } } }
            }
        }
    }

    fn all_runs(&self) -> Markup {
        html! {
            section aria-labelledby="runs" {
                h2 #runs { "All runs" }
                @if let Some(chart) = chart::over_labels(self.runs, &self.run.listed.name, self.key) { (chart) }
                (table(self.runs, Some(&self.run.listed.name), self.key))
            }
        }
    }
}

/// The list of runs.
pub fn table(runs: &[Listed], shown: Option<&str>, key: &str) -> Markup {
    html! {
        div.table tabindex="0" role="region" aria-label="Runs" {
            table {
                thead { tr {
                    th scope="col" { "Made" } th scope="col" { "Algorithm" } th scope="col" { "Network" }
                    th.number scope="col" { "Labels" } th scope="col" { "Accuracy" } th scope="col" { "State" }
                } }
                tbody {
                    @for run in runs {
                        tr aria-current=[(shown == Some(&run.name)).then_some("true")] {
                            td {
                                @if run.finished.is_some() { a href={ "p/" (key) "/results/" (run.name) } { (run.made) } } @else { (run.made) }
                            }
                            td { (run.algorithm.as_deref().unwrap_or("–")) }
                            td { (run.network.as_deref().unwrap_or("–")) }
                            td.number { @match run.labels { Some(labels) => (labels), None => "–" } }
                            td { @match run.scores() {
                                Some((images, scores)) => { (format!("{:.0} %", 100.0 * scores.accuracy)) span.muted { " (" (interval(scores)) "), " (scores.samples) " " (images) } },
                                None => "–",
                            } }
                            td { @match &run.state {
                                RunState::Done(_) => "finished",
                                RunState::Unfinished => "running or stopped",
                                RunState::Failed(reason) => { span.error title=(reason) { "failed" } },
                            } }
                        }
                    }
                }
            }
        }
    }
}

/// What to do about a run whose model has not looked at every image.
pub fn believe(run: &str, folder: &str) -> Markup {
    html! {
        div.note.warn {
            p {
                "This run does not tell what its model believes of every image: it was stopped before, or made by an earlier version. \
                 Views by confidence and doubt, and labels of all images, need that."
            }
            p { button type="button" data-believe=(run) { "Look at every image now" } }
            p.hint { "On the command line " code { "harvest labels " (folder) } " does the same." }
        }
    }
}

/// The end of a path, with the whole of it for who points at it.
fn file_name(path: &str) -> Markup {
    html! { p.hint.path title=(path) { (path.rsplit('/').next().unwrap_or(path)) } }
}

/// "64 to 93 %".
fn interval(scores: &Scores) -> String {
    let Interval { low, high } = scores.accuracy_interval();
    format!("{:.0} to {:.0} %", 100.0 * low, 100.0 * high)
}

/// A share with its range on a line from 0 to 100 %.
fn ruler(share: f64, Interval { low, high }: &Interval) -> Markup {
    let at = |share: f64| format!("{:.1}", 100.0 * share);
    html! {
        svg.ruler viewBox="0 0 100 12" preserveAspectRatio="none" aria-hidden="true" {
            rect.rail x="0" y="5" width="100" height="2" {}
            rect.reach x=(at(*low)) y="3" width=(at(high - low)) height="6" {}
            rect.mark x=(at(share.min(0.992))) y="0" width="0.8" height="12" {}
        }
    }
}

fn percent(confidence: f32) -> String {
    // 99.96 % is not 100 %.
    let percent = (100.0 * confidence).min(if confidence < 1.0 { 99.9 } else { 100.0 });
    if percent > 99.0 { format!("{percent:.1} %") } else { format!("{percent:.0} %") }
}
