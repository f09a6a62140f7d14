//! What went wrong, for a person at a page and for a script.

use std::collections::BTreeMap;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use crate::catalogue::CatalogueError;
use crate::experiment::{ExperimentError, chain};
use crate::files::WriteError;
use crate::project::{LabelError, ProjectError};

/// A request that is not answered as asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WebError {
    /// Nobody has signed in, or the session is over.
    #[error(
        "you are not signed in; open the address that `harvest serve` prints, or press Connect in Open OnDemand again"
    )]
    SignedOut,
    /// No open project has this key.
    #[error("this project is not open; open it from the list of projects")]
    NoProject,
    /// There is nothing of that name.
    #[error("there is no {what}")]
    Missing {
        /// What was asked for.
        what: String,
    },
    /// The request makes no sense, in words.
    #[error("{0}")]
    Bad(String),
    /// A form that cannot be taken, with words for each field that is wrong.
    #[error("{}", in_short(fields))]
    Form {
        /// Words by the name of the field.
        fields: BTreeMap<String, String>,
    },
    /// Not allowed.
    #[error("{0}")]
    Refused(String),
    /// The answer did not come in time.
    #[error("this takes longer than the page can wait; try again, or with fewer images at a time")]
    TooLong,
    /// The project.
    #[error(transparent)]
    Project(#[from] ProjectError),
    /// The label history.
    #[error(transparent)]
    Label(#[from] LabelError),
    /// The label history, of which several requests were told the same.
    #[error(transparent)]
    Store(#[from] std::sync::Arc<LabelError>),
    /// Nobody writes labels down any more, for a fault of this program.
    #[error(
        "nothing was saved: this server can write no labels any more; start it again. Everything saved before is safe"
    )]
    NoScribe,
    /// A run, clustering or list of images.
    #[error(transparent)]
    Experiment(#[from] ExperimentError),
    /// The images as a page shows them.
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
    /// A view that was asked for too long ago.
    #[error("this list is no longer kept; load it again")]
    ViewGone,
    /// A mistake of ours.
    #[error("something went wrong inside the server; what, is said where `harvest serve` runs")]
    Inside,
    /// A file.
    #[error(transparent)]
    Write(#[from] WriteError),
}

fn in_short(fields: &BTreeMap<String, String>) -> String {
    match fields.iter().next() {
        Some((_, words)) if fields.len() == 1 => words.clone(),
        _ => format!("{} fields need another look", fields.len()),
    }
}

/// The words of an answer that is an error, for the page that [`super::security`] makes of it where one was asked for.
#[derive(Debug, Clone)]
pub struct Words(pub String);

impl WebError {
    fn status(&self) -> StatusCode {
        match self {
            Self::SignedOut => StatusCode::UNAUTHORIZED,
            Self::NoProject | Self::Missing { .. } => StatusCode::NOT_FOUND,
            Self::Bad(_) | Self::Form { .. } | Self::Project(_) => StatusCode::BAD_REQUEST,
            Self::Refused(_) => StatusCode::FORBIDDEN,
            Self::TooLong => StatusCode::GATEWAY_TIMEOUT,
            Self::ViewGone => StatusCode::GONE,
            Self::Label(error) => of_history(error),
            Self::Store(error) => of_history(error),
            Self::Catalogue(error) if error.is_about_the_request() => StatusCode::BAD_REQUEST,
            Self::Catalogue(_) | Self::Inside | Self::NoScribe | Self::Experiment(_) | Self::Write(_) => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        }
    }
}

fn of_history(error: &LabelError) -> StatusCode {
    match error {
        LabelError::Lock(_) | LabelError::LostClass { .. } => StatusCode::CONFLICT,
        LabelError::UnknownClass { .. } | LabelError::RetiredClass { .. } => StatusCode::BAD_REQUEST,
        LabelError::Busy { .. } | LabelError::Gone { .. } => StatusCode::SERVICE_UNAVAILABLE,
        LabelError::Full { .. } => StatusCode::INSUFFICIENT_STORAGE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl IntoResponse for WebError {
    /// `{"error": "…"}`, of a form with `fields`; scripts show it in place.
    fn into_response(self) -> Response {
        let words = chain(&self);
        let mut body = serde_json::json!({ "error": words });
        if let Self::Form { fields } = &self {
            body["fields"] = serde_json::json!(fields);
        }
        let mut response = (self.status(), Json(body)).into_response();
        response.extensions_mut().insert(Words(words));
        response
    }
}

/// For an address that leads nowhere.
pub async fn nowhere() -> WebError {
    WebError::Missing { what: "such page".into() }
}
