//! An open project: its label history, the picture of it in memory, and those who watch.

use std::path::Path;
use std::sync::{Arc, RwLock};

use axum::extract::{FromRequestParts, Path as UrlPath};
use axum::http::request::Parts;
use serde::Serialize;
use tokio::sync::broadcast;

use super::error::WebError;
use super::state::App;
use crate::experiment::Places;
use crate::project::Project;

/// Events that a watcher may fall behind by before it is told to load anew.
const BACKLOG: usize = 1024;

/// An open project.
pub struct Desk {
    /// What addresses call it.
    pub key: String,
    project: RwLock<Arc<Project>>,
    /// What happens, for all who have a page open.
    pub events: broadcast::Sender<Event>,
}

/// What everybody with a page open is told.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// Images have other labels now: by whom, content hash and label code of each.
    Labels {
        /// Who did it.
        who: String,
        /// Counts up with every change of labels.
        version: u64,
        /// Content hash in hexadecimal and label code, see [`super::label`].
        images: Vec<(String, serde_json::Value)>,
    },
    /// The classes changed: their names, colours, order or number.
    Classes,
    /// The images, clusters or predictions are others: load everything anew.
    Reload,
    /// A job has changed its state.
    Job {
        /// Its folder's name.
        id: String,
    },
}

impl Desk {
    /// What addresses call a project: its folder's name and a few digits of its path.
    pub fn key_of(dir: &Path) -> String {
        let name = dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let plain: String =
            name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(40).collect();
        let digits = blake3::hash(dir.as_os_str().as_encoded_bytes()).to_hex();
        format!("{plain}-{}", &digits[..8])
    }

    /// Takes the project's lock and reads its history.
    pub(super) fn open(key: String, project: Project) -> Result<Self, WebError> {
        let (events, _) = broadcast::channel(BACKLOG);
        Ok(Self { key, project: RwLock::new(Arc::new(project)), events })
    }

    /// The project as it is now.
    pub fn project(&self) -> Arc<Project> {
        self.project.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Where its lists, caches and runs are kept.
    pub fn places(&self) -> Places {
        Places::in_project(&self.project())
    }
}

/// The project that an address names; in every handler below `p/KEY/`.
pub struct AtDesk(pub Arc<Desk>);

impl FromRequestParts<App> for AtDesk {
    type Rejection = WebError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, WebError> {
        let UrlPath(all) =
            UrlPath::<std::collections::HashMap<String, String>>::from_request_parts(parts, app)
                .await
                .map_err(|_| WebError::NoProject)?;
        let key = all.get("key").ok_or(WebError::NoProject)?.clone();
        if let Some(desk) = app.opened(&key) {
            return Ok(Self(desk));
        }
        let app = app.clone();
        let opened = tokio::task::spawn_blocking(move || app.desk(&key)).await;
        opened.map_err(|_| WebError::NoProject)?.map(Self)
    }
}
