//! What went wrong, for a person at a page and for a script.

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
    /// Not allowed.
    #[error("{0}")]
    Refused(String),
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

impl WebError {
    fn status(&self) -> StatusCode {
        match self {
            Self::NoProject | Self::Missing { .. } => StatusCode::NOT_FOUND,
            Self::Bad(_) | Self::Project(_) => StatusCode::BAD_REQUEST,
            Self::Refused(_) => StatusCode::FORBIDDEN,
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
    /// `{"error": "…"}`; pages show it in place, and [`super::layout`] makes a page of it where one was asked for.
    fn into_response(self) -> Response {
        let words = chain(&self);
        (self.status(), Json(serde_json::json!({ "error": words }))).into_response()
    }
}
