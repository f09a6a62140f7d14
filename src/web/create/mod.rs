//! New projects: a folder of images, classes, defaults.

mod found;
mod settings;

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use maud::{Markup, html};
use serde::Serialize;

use self::found::NewProject;
use self::settings::Setting;
use super::error::WebError;
use super::layout::Page;
use super::security::Visitor;
use super::state::App;

pub fn routes() -> Router<App> {
    Router::new().route("/new", get(page)).route("/api/projects", post(create))
}

/// A project that was made.
#[derive(Serialize)]
struct Made {
    key: String,
}

async fn create(
    State(app): State<App>,
    _: Visitor,
    Json(form): Json<NewProject>,
) -> Result<Json<Made>, WebError> {
    let make = move || {
        let project = form.found(&app.roots)?;
        Ok(Made { key: app.open(&project)?.key.clone() })
    };
    let made = tokio::task::spawn_blocking(make).await;
    made.map_err(|_| WebError::Bad("the project could not be made".into()))?.map(Json)
}

async fn page(State(app): State<App>, _: Visitor) -> Markup {
    let beside = app.roots.all().first().map(|root| root.display().to_string()).unwrap_or_default();
    Page { title: "New project", depth: 0, project: None, script: Some("create.js"), style: Some("pages.css") }.show(html! {
        h1 { "New project" }
        p.lead { "A folder of images, and the classes to tell apart. Everything can be changed later but the folder and the kind of classes." }
        form #new-project.new novalidate data-beside=(beside) {
            p #form-error.note.bad role="alert" hidden {}
            (images())
            (classes())
            (advanced(&settings::all()))
            div.actions {
                button.primary type="submit" { "Create the project and look at the images" }
                a.button.quiet href="./" { "Cancel" }
            }
        }
    })
}

fn images() -> Markup {
    html! {
        section.card aria-labelledby="images-title" {
            h2 #images-title { "Images" }
            (field("images", "Folder of images", "JPEG, PNG, WebP, BMP or TIFF, in folders of any depth. They are only read.", html! {
                span.with-button {
                    input #images name="images" autocomplete="off" spellcheck="false" aria-describedby="images-hint images-error";
                    button #choose-images type="button" { "Choose…" }
                }
            }))
            (field("name", "Name of the project", "What people see in lists.", html! {
                input #name name="name" maxlength="120" autocomplete="off" aria-describedby="name-hint name-error";
            }))
            (field("folder", "Folder of the project", "Made for labels, models and settings; beside the images, not among them.", html! {
                span.with-button {
                    input #folder name="folder" autocomplete="off" spellcheck="false" aria-describedby="folder-hint folder-error";
                    button #choose-folder type="button" { "Choose…" }
                }
            }))
        }
    }
}

/// The kinds of classes: value, name, and what they are for.
const KINDS: [(&str, &str, &str); 3] = [
    ("categorical", "Several classes", "Each image shows one of them: healthy, rust, mildew."),
    ("binary", "Absent or present", "One thing that an image shows or does not: not infected, infected."),
    (
        "percentage",
        "Share in percent",
        "How much of something an image shows, in equal steps from 0 to 100 %.",
    ),
];

fn classes() -> Markup {
    html! {
        section.card aria-labelledby="classes-title" {
            h2 #classes-title { "Classes" }
            fieldset.kinds {
                legend.visually-hidden { "Kind of classes" }
                @for (index, (value, name, words)) in KINDS.iter().enumerate() {
                    label.kind {
                        input type="radio" name="kind" value=(value) checked[index == 0] aria-describedby={ "kind-" (value) };
                        span.kind-name { (name) }
                        small #{ "kind-" (value) } { (words) }
                    }
                }
            }
            div #class-list {
                ol #class-rows.class-rows aria-label="Classes" {}
                p #classes-error.error role="alert" {}
                button #add-class type="button" { "Add a class" }
                p.hint { "What belongs to none of them, or cannot be told, has labels of its own: " em { "not sure" } ", " em { "none of these" } ", " em { "bad image" } "." }
            }
            div #bins-field hidden {
                (field("bins", "Number of steps", "4 makes 0–25 %, 25–50 %, 50–75 % and 75–100 %.", html! {
                    input #bins name="bins" type="number" min="2" max="100" value="4" inputmode="numeric" aria-describedby="bins-hint bins-error";
                }))
            }
        }
    }
}

fn advanced(settings: &[Setting]) -> Markup {
    html! {
        details.card #advanced {
            summary { "Advanced" span.hint { " — all of this has good defaults, and can be set for each training" } }
            div.fields {
                @for setting in settings {
                    (field(setting.key, setting.label, setting.hint, html! {
                        @let described = format!("{0}-hint {0}-error", setting.key);
                        @if setting.choices.is_empty() {
                            input id=(setting.key) data-setting=(setting.key) autocomplete="off" inputmode="decimal" placeholder=(setting.usual) aria-describedby=(described);
                        } @else {
                            select id=(setting.key) data-setting=(setting.key) data-usual=(setting.usual) aria-describedby=(described) {
                                @for (value, words) in &setting.choices { option value=(value) selected[*value == setting.usual] { (words) } }
                            }
                        }
                    }))
                }
            }
        }
    }
}

/// A field with its label, what it is for, and room for what is wrong with it.
fn field(id: &str, label: &str, hint: &str, input: Markup) -> Markup {
    html! {
        div.field {
            label for=(id) { (label) }
            (input)
            small id={ (id) "-hint" } { (hint) }
            p.error id={ (id) "-error" } role="alert" {}
        }
    }
}
