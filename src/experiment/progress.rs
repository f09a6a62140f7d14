//! Progress of the data room, shown like all other progress.

use std::path::Path;
use std::sync::Mutex;

use crate::data;
use crate::report::{Progress, watched};

/// Shows each piece of work as a bar on a terminal and as plain lines in a log; silent if `quiet`.
#[derive(Default)]
pub struct Shown {
    quiet: bool,
    current: Mutex<Option<Progress>>,
}

impl Shown {
    /// Shows nothing if `quiet`.
    pub fn new(quiet: bool) -> Self {
        Self { quiet, current: Mutex::default() }
    }

    /// Whether nothing is shown.
    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// A display for one piece of work of `total` units.
    pub fn begin(&self, label: &str, total: u64) -> Progress {
        if self.quiet { Progress::quiet(label, total) } else { Progress::new(label, total) }
    }

    /// Tells who watches the process which folder is written to.
    pub fn folder(&self, folder: &Path) {
        if let Some(watched) = watched() {
            watched.folder(folder);
        }
    }

    /// Tells who watches the process what is done now, without a display of its own.
    pub fn phase(&self, label: &str) {
        if let Some(watched) = watched() {
            watched.begin(label, 0);
        }
    }

    fn with(&self, act: impl FnOnce(&Progress)) {
        let current = self.current.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(progress) = current.as_ref() {
            act(progress);
        }
    }

    fn replace(&self, progress: Option<Progress>) {
        let mut current = self.current.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(old) = std::mem::replace(&mut *current, progress) {
            old.finish();
        }
    }
}

impl data::Progress for Shown {
    fn start(&self, task: &str, total: u64) {
        self.replace(Some(self.begin(task, total)));
    }

    fn advance(&self, images: u64) {
        self.with(|progress| progress.advance(images));
    }

    fn note(&self, message: &str) {
        if let Some(watched) = watched() {
            watched.message(message);
        }
        if !self.quiet {
            eprintln!("{message}");
        }
    }

    fn finish(&self) {
        self.replace(None);
    }
}
