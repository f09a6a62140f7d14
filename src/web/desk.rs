//! An open project: its label history, the picture of it in memory, and those who watch.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::SystemTime;

use axum::extract::{FromRequestParts, Path as UrlPath};
use axum::http::request::Parts;
use serde::Serialize;
use tokio::sync::broadcast;

use super::error::WebError;
use super::label::{Gallery, LabelCode};
use super::scribe::{Audience, Scribe};
use super::state::App;
use crate::catalogue::Catalogue;
use crate::config::{Config, Sources, resolve};
use crate::data::ContentHash;
use crate::errors::chain;
use crate::experiment::Places;
use crate::files::WriteError;
use crate::project::{ImageHash, Label, Project};

/// Events that a watcher may fall behind by before it is told to load anew.
const BACKLOG: usize = 1024;

/// Images named in one event; of more than that only the number is told.
pub const MOST_TOLD: usize = 5000;

/// An open project.
pub struct Desk {
    /// What addresses call it.
    pub key: String,
    /// Writes labels and classes down.
    pub scribe: Scribe,
    shelf: Arc<Shelf>,
    /// One at a time.
    reloading: tokio::sync::Mutex<()>,
    /// The project's file when it was last read, and what is wrong with it since.
    seen: Mutex<(Option<Stamp>, Option<String>)>,
    /// Its thumbnails and pictures.
    pub gallery: Gallery,
    /// Its jobs that go on.
    pub watching: super::work::Watching,
}

/// Images with the labels they have got.
type Changes = Vec<(ImageHash, Option<Label>)>;

/// What tells that a file was written to.
type Stamp = (SystemTime, u64);

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
        images: Vec<(String, LabelCode)>,
    },
    /// So many images have other labels now that they are not named: load again what is shown of them.
    ManyLabels {
        /// Who did it.
        who: String,
        /// Counts up with every change of labels.
        version: u64,
        /// How many.
        count: usize,
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

/// An event with its number, by which a page that comes back sees whether it has missed any.
#[derive(Debug, Clone)]
pub struct Told {
    /// Counts up.
    pub number: u64,
    /// What happened.
    pub event: Arc<Event>,
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

    /// Takes the project's lock and reads its history and its images, which takes a second or two for a million of them.
    pub(super) fn open(key: String, project: Project) -> Result<Self, WebError> {
        let store = project.labels()?;
        let catalogue = Catalogue::load(&Places::in_project(&project), store.current()?)?;
        let stamp = stamp(&project);
        let shelf = Arc::new(Shelf {
            project: RwLock::new(Arc::new(project.clone())),
            catalogue: RwLock::new(Arc::new(catalogue)),
            events: broadcast::channel(BACKLOG).0,
            instance: rand::random(),
            told: AtomicU64::new(0),
            target: AtomicU32::new(target(&project)),
            missed: Mutex::new(None),
        });
        let dir = project.dir().to_owned();
        let gallery = Gallery::of(&project);
        let scribe = Scribe::start(project, store, shelf.clone()).map_err(WriteError::at(&dir))?;
        let (reloading, seen) = (tokio::sync::Mutex::new(()), Mutex::new((stamp, None)));
        Ok(Self { key, scribe, shelf, reloading, seen, gallery, watching: Default::default() })
    }

    /// The project as it is now.
    pub fn project(&self) -> Arc<Project> {
        self.shelf.project.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where its lists, caches and runs are kept.
    pub fn places(&self) -> Places {
        Places::in_project(&self.project())
    }

    /// Its images.
    pub fn catalogue(&self) -> Arc<Catalogue> {
        self.shelf.catalogue()
    }

    /// Labels of each class that training is to have, as configured.
    pub fn target(&self) -> u32 {
        self.shelf.target.load(Ordering::Relaxed)
    }

    /// Tells everybody with a page open.
    pub fn tell(&self, event: Event) {
        self.shelf.tell(event);
    }

    /// What is told from now on, and what tells the numbers of this server from those of one before, with the last number.
    pub fn watch(&self) -> (broadcast::Receiver<Told>, u64, u64) {
        let receiver = self.shelf.events.subscribe();
        (receiver, self.shelf.instance, self.shelf.told.load(Ordering::Acquire))
    }

    /// Reads the images anew, after a scan; labelling goes on meanwhile.
    ///
    /// # Errors
    /// If they cannot be read; everything is then as it was.
    pub async fn reload(&self) -> Result<(), WebError> {
        let _one = self.reloading.lock().await;
        *self.shelf.missed() = Some(Vec::new());
        let outcome = self.load_again().await;
        *self.shelf.missed() = None;
        outcome?;
        self.tell(Event::Reload);
        Ok(())
    }

    async fn load_again(&self) -> Result<(), WebError> {
        let labels = self.scribe.current().await?;
        let (places, shelf) = (self.places(), self.shelf.clone());
        let load = move || {
            let catalogue = Catalogue::load(&places, labels)?;
            // Labels given since then; none can be given while this is held.
            let mut missed = shelf.missed();
            catalogue.set_labels(&missed.take().unwrap_or_default());
            *shelf.catalogue.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(catalogue);
            Ok(())
        };
        tokio::task::spawn_blocking(load).await.map_err(|_| WebError::NoScribe)?
    }

    /// Reads clusters and predictions anew, after a job has made some.
    pub async fn refresh(&self) {
        let catalogue = self.catalogue();
        let _ = tokio::task::spawn_blocking(move || catalogue.refresh()).await;
        self.tell(Event::Reload);
    }

    /// Reads the project's file again if somebody has edited it; returns what is wrong with it, in words. What it said before
    /// holds until then.
    pub async fn look(&self) -> Option<String> {
        let now = stamp(&self.project());
        let seen = || self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen().0 == now {
            return seen().1.clone();
        }
        let wrong = self.scribe.look().await.err().map(|error| chain(&error));
        self.shelf.target.store(target(&self.project()), Ordering::Relaxed);
        *seen() = (now, wrong.clone());
        wrong
    }
}

fn stamp(project: &Project) -> Option<Stamp> {
    let file = std::fs::metadata(project.file()).ok()?;
    Some((file.modified().ok()?, file.len()))
}

/// Labels of each class, as the project is configured; the default where that is wrong, which training will say.
fn target(project: &Project) -> u32 {
    let sources = Sources { project: Some(project.file()), ..Sources::of_this_machine() };
    resolve(&sources)
        .map_or_else(|_| Config::default().data.labels_per_class, |config| config.value.data.labels_per_class)
}

/// What pages read, kept up to date by the scribe.
struct Shelf {
    project: RwLock<Arc<Project>>,
    catalogue: RwLock<Arc<Catalogue>>,
    events: broadcast::Sender<Told>,
    /// Tells numbers of this server from those of one before.
    instance: u64,
    told: AtomicU64,
    target: AtomicU32,
    /// While images are read anew: what was labelled meanwhile.
    missed: Mutex<Option<Changes>>,
}

impl Shelf {
    fn catalogue(&self) -> Arc<Catalogue> {
        self.catalogue.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn missed(&self) -> MutexGuard<'_, Option<Changes>> {
        self.missed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, event: Event) {
        let number = self.told.fetch_add(1, Ordering::AcqRel) + 1;
        // Nobody need be watching.
        let _ = self.events.send(Told { number, event: Arc::new(event) });
    }
}

impl Audience for Shelf {
    fn labelled(&self, who: &str, images: &[(ImageHash, Option<Label>)]) -> u64 {
        let mut missed = self.missed();
        if let Some(missed) = &mut *missed {
            missed.extend_from_slice(images);
        }
        let version = self.catalogue().set_labels(images);
        drop(missed);
        let (who, count) = (who.to_owned(), images.len());
        let named = |(image, label): &(ImageHash, Option<Label>)| {
            (ContentHash(*image).to_string(), LabelCode(*label))
        };
        self.tell(match count > MOST_TOLD {
            true => Event::ManyLabels { who, version, count },
            false => Event::Labels { who, version, images: images.iter().map(named).collect() },
        });
        version
    }

    fn version(&self) -> u64 {
        self.catalogue().version()
    }

    fn reclassed(&self, project: Project) {
        *self.project.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(project);
        self.tell(Event::Classes);
    }

    fn found_again(&self, labels: BTreeMap<ImageHash, Label>) {
        let project = self.project.read().unwrap_or_else(PoisonError::into_inner).clone();
        // Should the list of images be lost, the one in memory is better than none.
        if let Ok(catalogue) = Catalogue::load(&Places::in_project(&project), labels) {
            *self.catalogue.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(catalogue);
            self.tell(Event::Reload);
        }
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
