//! Progress of the data room, shown like all other progress.

use std::sync::Mutex;

use crate::data;
use crate::report::Progress;

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
        if self.quiet { Progress::hidden() } else { Progress::new(label, total) }
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
        if !self.quiet {
            eprintln!("{message}");
        }
    }

    fn finish(&self) {
        self.replace(None);
    }
}
