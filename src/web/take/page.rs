//! The page of what can be taken away.

use maud::{Markup, html};

use super::upload;
use crate::web::results::page::believe;
use crate::web::results::runs::{Listed, Shown};

/// Everything the page shows.
pub struct Take<'a> {
    /// Key of the project.
    pub key: &'a str,
    /// The run whose model it is.
    pub run: &'a Shown,
    /// All runs, the latest first.
    pub runs: &'a [Listed],
    /// Whether the model has looked at every image.
    pub ready: bool,
    /// Images of the project that the run does not know.
    pub unknown: usize,
}

impl Take<'_> {
    /// The inside of `<main>`.
    pub fn show(&self) -> Markup {
        html! {
            header.page-head {
                h1 { "Take away" }
                (self.choice())
            }
            (self.predict())
            (self.model())
            (self.labels())
            (people(self.key))
            (self.papers())
        }
    }

    fn at(&self, file: &str) -> String {
        format!("p/{}/take/{}/{file}", self.key, self.run.listed.name)
    }

    fn choice(&self) -> Markup {
        html! {
            form.which method="get" action={ "p/" (self.key) "/take" } {
                label for="run" { "Model" }
                select #run name="run" {
                    @for run in self.runs.iter().filter(|run| run.finished.is_some()) {
                        option value=(run.name) selected[run.name == self.run.listed.name] {
                            (run.made)
                            @if let Some((_, scores)) = run.scores() { (format!(" – {:.0} %", 100.0 * scores.accuracy)) }
                        }
                    }
                }
                button type="submit" { "Choose" }
            }
        }
    }

    fn predict(&self) -> Markup {
        html! {
            section aria-labelledby="predict" {
                h2 #predict { "Classify new pictures" }
                form.drop #drop data-run=(self.run.listed.name) {
                    p.drop-words { strong { "Drop pictures or a ZIP here" } span.muted { " or " } }
                    label.button.primary for="files" { "Choose files" }
                    input.visually-hidden #files type="file" multiple accept="image/jpeg,image/png,image/webp,image/bmp,image/tiff,.zip,.tif,.tiff";
                    p.hint {
                        "JPEG, PNG, WebP, BMP, TIFF, up to " (upload::LIMITS.max_file_bytes >> 20) " MB and " (upload::LIMITS.max_pixels / 1_000_000)
                        " million pixels each; a ZIP up to " (upload::REQUEST >> 20) " MB. Nothing is kept on the server."
                    }
                }
                noscript { p.note.warn { "Uploads need JavaScript; " code { "harvest predict" } " does the same on the command line." } }
                div #progress hidden {
                    div.progress-line { p #words role="status" {} button.quiet #stop type="button" { "Stop" } }
                    progress #bar max="1" value="0" aria-label="Pictures classified" {}
                }
                div.table #answers hidden tabindex="0" role="region" aria-label="Predictions" {
                    table.predictions {
                        thead { tr { th scope="col" { "Picture" } th scope="col" { "Name" } th scope="col" { "Class" } th scope="col" { "Confidence" } th scope="col" { "Else" } } }
                        tbody {}
                    }
                }
                div.actions #after hidden {
                    button #table type="button" { "Download the table (CSV)" }
                    button.quiet #clear type="button" { "Clear" }
                }
            }
        }
    }

    fn model(&self) -> Markup {
        html! {
            section aria-labelledby="model" {
                h2 #model { "The model" }
                ul.cards {
                    li.card {
                        h3 { "For PyTorch and HARVEST" }
                        p { "Weights (" code { "safetensors" } ", names of timm and torchvision), settings, classes and the model card." }
                        p.foot { a.button href=(self.at("model.zip")) download { "model.zip" } }
                    }
                    li.card {
                        h3 { "ONNX" }
                        p { "Runs almost anywhere; takes bytes, normalisation inside. Checked against the network before it is handed out." }
                        p.foot { a.button href=(self.at("onnx.zip")) download data-make="false" { "onnx.zip" } }
                    }
                    li.card {
                        h3 { "ONNX, small" }
                        p { "Also in eight bits: a quarter of the size, with what it costs in accuracy measured on this run's images." }
                        p.foot { a.button href=(self.at("onnx-int8.zip")) download data-make="true" { "onnx-int8.zip" } }
                    }
                }
            }
        }
    }

    fn labels(&self) -> Markup {
        let files = [
            (
                "labels.csv",
                "For spreadsheets",
                "Path, class, confidence, by whom, and whether the model abstained.",
            ),
            (
                "labels.parquet",
                "For data frames",
                "The same with the number of the class; read it with pandas, polars, R or DuckDB.",
            ),
            ("lists.zip", "Lists of paths", "A text file of full paths for each class."),
            ("classes.json", "For scripts", "For each class the positions and full paths of its images."),
        ];
        html! {
            section aria-labelledby="all-labels" {
                h2 #all-labels { "Labels of all images" }
                p {
                    "A label for every image this run was trained on: what people said, as it is now, and the model's belief for the others. \
                     Where the model abstained its class is told all the same; look at it before it counts."
                }
                @if self.unknown > 0 {
                    div.note.warn {
                        p {
                            @match self.unknown {
                                1 => "One image of the project is not among them: it came, or was changed, after this training began. ",
                                _ => { (self.unknown) " images of the project are not among them: they came, or were changed, after this training began. " },
                            }
                            a href={ "p/" (self.key) "/train?from=" (self.run.listed.name) } { "Train again" } " to have every image labelled."
                        }
                    }
                }
                @if self.ready {
                    ul.cards {
                        @for (file, title, words) in files {
                            li.card { h3 { (title) } p { (words) } p.foot { a.button href=(self.at(file)) download { (file) } } }
                        }
                    }
                } @else {
                    (believe(&self.run.listed.name, &self.run.folder.display().to_string()))
                }
            }
        }
    }

    fn papers(&self) -> Markup {
        html! {
            section aria-labelledby="papers" {
                h2 #papers { "What goes with it" }
                ul.links {
                    li { a href=(self.at("report.html")) download { "Report" } span.muted { " – one page that needs nothing else" } }
                    li { a href=(self.at("MODEL_CARD.md")) download { "Model card" } span.muted { " – what it is worth, and where it fails" } }
                    li { a href=(self.at("settings.toml")) download { "Settings" } span.muted { " – every one; can be used as a recipe" } }
                    li { a href=(self.at("metrics.csv")) download { "Curves" } span.muted { " – every number logged, as CSV" } }
                }
            }
        }
    }
}

/// The part on labels by people, which there is without any model.
pub fn people(key: &str) -> Markup {
    html! {
        section aria-labelledby="people" {
            h2 #people { "Labels by people" }
            p {
                "What was said on the label page and nothing of any model: path, label, who, when. " code { "harvest label" } " reads it back. \
                 Text that a spreadsheet would take for a formula has an apostrophe in front, in all tables here."
            }
            p { a.button href={ "p/" (key) "/take/labels-by-people.csv" } download { "labels-by-people.csv" } }
        }
    }
}
