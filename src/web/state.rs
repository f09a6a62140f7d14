//! What all requests share.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::ServeOptions;
use super::desk::Desk;
use super::error::WebError;
use super::known::Known;
use super::report::Reports;
use super::security::{Announce, Door, Roots};
use crate::project::Project;

/// Shared by all requests.
pub type App = Arc<AppState>;

/// What all requests share.
pub struct AppState {
    /// How it is served.
    pub options: ServeOptions,
    /// What may be read.
    pub roots: Roots,
    /// Who may come in.
    pub(super) door: Door,
    /// Projects used lately.
    pub(super) known: Known,
    /// Key of the project to begin with.
    pub(super) first: Option<String>,
    /// What scans found.
    pub(super) reports: Reports,
    /// Projects in use, by key.
    desks: Mutex<HashMap<String, Arc<Desk>>>,
    /// Held while a project is read, which may take seconds; those in use are not held up.
    opening: Mutex<()>,
    stop: watch::Sender<bool>,
}

impl AppState {
    /// Without any project open yet, and telling nobody the way in.
    pub fn new(options: ServeOptions) -> App {
        Arc::new(Self::build(options, Box::new(|_| {})))
    }

    /// With the project to begin with, if there is one; `announce` is told the way in.
    ///
    /// # Errors
    /// If that project cannot be opened.
    pub fn with(options: ServeOptions, announce: Announce) -> Result<App, WebError> {
        let mut app = Self::build(options, announce);
        if let Some(dir) = app.options.project.clone() {
            let desk = app.open(&Project::open(&dir)?)?;
            app.first = Some(desk.key.clone());
        }
        Ok(Arc::new(app))
    }

    fn build(options: ServeOptions, announce: Announce) -> Self {
        let address = options.address;
        let memory = options.memory.as_deref();
        let file = |name: String| memory.map(|folder| folder.join(name));
        // Several servers of one person may share a home folder on several machines.
        let host = harvest_collectives::host_name();
        let sessions = file(format!("sessions-{host}-{}.json", address.port()));
        // Nobody can go to "all addresses".
        let way_in = match address.ip().is_unspecified() {
            true => format!("http://{host}:{}/login", address.port()),
            false => format!("http://{address}/login"),
        };
        let door = Door::new(way_in, address.port(), options.secret.clone(), sessions, announce);
        Self {
            roots: Roots::new(&options.roots),
            door,
            known: Known::new(file("projects.json".into())),
            first: None,
            reports: Reports::default(),
            desks: Mutex::default(),
            opening: Mutex::default(),
            stop: watch::Sender::new(false),
            options,
        }
    }

    /// Whether names that lead here from elsewhere must be watched for: only where the network cannot reach the page is a
    /// browser on this machine the way in.
    pub(super) fn checks_host(&self) -> bool {
        self.options.address.ip().is_loopback()
    }

    /// Tells everything that goes on for ever to end.
    pub(super) fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Turns true when the server ends; whoever answers for ever (events, say) ends then.
    pub fn stopping(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }

    /// Opens a project, or finds it open; it stays so as long as the server runs.
    ///
    /// # Errors
    /// If it lies outside of the roots, or somebody else writes to it.
    pub fn open(&self, project: &Project) -> Result<Arc<Desk>, WebError> {
        let dir = self.roots.inside(project.dir())?;
        let key = Desk::key_of(&dir);
        if let Some(desk) = self.opened(&key) {
            return Ok(desk);
        }
        let _one = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(desk) = self.opened(&key) {
            return Ok(desk);
        }
        // By its true path, so that a link cannot be turned elsewhere while it is open.
        let desk = Arc::new(Desk::open(key.clone(), Project::open(&dir)?)?);
        self.desks.lock().unwrap_or_else(PoisonError::into_inner).insert(key, desk.clone());
        self.known.used(&dir);
        // Those that were started before this server was.
        super::work::watch(&desk, None);
        Ok(desk)
    }

    /// The project of that key: open, or one used or listed before, which is opened again. That may take seconds: where
    /// others wait, ask [`Self::opened`] first and do this off the thread.
    ///
    /// # Errors
    /// If there is none.
    pub fn desk(&self, key: &str) -> Result<Arc<Desk>, WebError> {
        if let Some(desk) = self.opened(key) {
            return Ok(desk);
        }
        let dir = self.known.of_key(key).ok_or(WebError::NoProject)?;
        self.open(&Project::open(&dir)?)
    }

    /// The project of that key, if it is open.
    pub(super) fn opened(&self, key: &str) -> Option<Arc<Desk>> {
        self.desks.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    /// Key of the project in `dir`, a true path.
    pub(super) fn key_of(dir: &Path) -> String {
        Desk::key_of(dir)
    }
}
