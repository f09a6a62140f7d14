//! What all requests share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::ServeOptions;
use super::desk::Desk;
use super::error::WebError;
use crate::project::Project;

/// Shared by all requests.
pub type App = Arc<AppState>;

/// What all requests share.
pub struct AppState {
    /// How it is served.
    pub options: ServeOptions,
    /// Projects in use, by key.
    desks: Mutex<HashMap<String, Arc<Desk>>>,
}

impl AppState {
    /// Without any project open yet.
    pub fn new(options: ServeOptions) -> App {
        Arc::new(Self { options, desks: Mutex::default() })
    }

    /// Opens a project, or finds it open; it stays so as long as the server runs.
    ///
    /// # Errors
    /// If it lies outside of the roots, or somebody else writes to it.
    pub fn open(&self, project: &Project) -> Result<Arc<Desk>, WebError> {
        let mut desks = self.desks.lock().unwrap_or_else(PoisonError::into_inner);
        let key = Desk::key_of(project.dir());
        if let Some(desk) = desks.get(&key) {
            return Ok(desk.clone());
        }
        let desk = Arc::new(Desk::open(key.clone(), project.clone())?);
        desks.insert(key, desk.clone());
        // Those that were started before this server was.
        super::work::watch(&desk, None);
        Ok(desk)
    }

    /// The open project of that key.
    ///
    /// # Errors
    /// If there is none.
    pub fn desk(&self, key: &str) -> Result<Arc<Desk>, WebError> {
        let desks = self.desks.lock().unwrap_or_else(PoisonError::into_inner);
        desks.get(key).cloned().ok_or(WebError::NoProject)
    }
}
