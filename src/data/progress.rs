//! How long work tells how far it is, without knowing who listens.

/// Receives the progress of a scan or a cache build; called from many threads.
pub trait Progress: Sync {
    /// A piece of work of `total` images begins, such as "decoding images".
    fn start(&self, task: &str, total: u64);
    /// `images` more are done.
    fn advance(&self, images: u64);
    /// Something the user should know that is not an error, such as a cache that has to be built again.
    fn note(&self, message: &str);
    /// The piece of work is over, complete or not.
    fn finish(&self);
}

/// Tells nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn start(&self, _task: &str, _total: u64) {}
    fn advance(&self, _images: u64) {}
    fn note(&self, _message: &str) {}
    fn finish(&self) {}
}

/// Calls [`Progress::finish`] on every way out, errors included.
pub(super) struct Running<'a>(&'a dyn Progress);

impl<'a> Running<'a> {
    pub(super) fn start(progress: &'a dyn Progress, task: &str, total: usize) -> Self {
        progress.start(task, total as u64);
        Self(progress)
    }

    pub(super) fn advance(&self, images: u64) {
        self.0.advance(images);
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.finish();
    }
}
