//! Views that pages scroll through: frozen, and kept as long as there is room.

use std::sync::{Arc, Mutex, PoisonError};

use super::beliefs::Beliefs;
use super::query::Query;

/// Bytes of all views together; one of a million images takes four million.
const ROOM: usize = 192 << 20;
/// Views at most, however small.
const MOST: usize = 512;

/// A view, as a page is told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// What to ask for it by.
    pub token: String,
    /// Images in it.
    pub total: usize,
    /// The labels it was made by.
    pub version: u64,
}

/// A frozen list.
pub(super) struct Kept {
    view: View,
    query: Query,
    generation: u64,
    pub images: Vec<u32>,
    /// Those that it was ordered by.
    pub beliefs: Option<Arc<Beliefs>>,
}

/// Views by token, the last used last.
pub(super) struct Views {
    /// Tells tokens of this server from those of one before.
    instance: u64,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    made: u64,
    kept: Vec<Arc<Kept>>,
}

impl Default for Views {
    fn default() -> Self {
        Self { instance: rand::random(), inner: Mutex::default() }
    }
}

impl Views {
    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The view of the same query, if it would come out the same.
    pub(super) fn same(&self, query: &Query, version: u64, generation: u64) -> Option<View> {
        let mut inner = self.lock();
        let same = |kept: &Arc<Kept>| {
            kept.generation == generation
                && (kept.view.version == version || !query.follows_labels())
                && kept.query == *query
        };
        let at = inner.kept.iter().rposition(same)?;
        let kept = inner.kept.remove(at);
        let view = View { version, ..kept.view.clone() };
        inner.kept.push(kept);
        Some(view)
    }

    /// Keeps a list; views not used for longest make room.
    pub(super) fn keep(
        &self,
        query: Query,
        images: Vec<u32>,
        version: u64,
        generation: u64,
        beliefs: Option<Arc<Beliefs>>,
    ) -> View {
        let mut inner = self.lock();
        inner.made += 1;
        let token = format!("{:016x}-{}", self.instance, inner.made);
        let view = View { token, total: images.len(), version };
        inner.kept.push(Arc::new(Kept { view: view.clone(), query, generation, images, beliefs }));
        let mut room = ROOM;
        let mut stay = 0;
        for kept in inner.kept.iter().rev().take(MOST) {
            let bytes = kept.images.len() * 4;
            if stay > 0 && bytes > room {
                break;
            }
            room = room.saturating_sub(bytes);
            stay += 1;
        }
        let gone = inner.kept.len() - stay;
        inner.kept.drain(..gone);
        view
    }

    /// The view of that token, unless it is gone.
    pub(super) fn get(&self, token: &str) -> Option<Arc<Kept>> {
        let mut inner = self.lock();
        let at = inner.kept.iter().rposition(|kept| kept.view.token == token)?;
        let kept = inner.kept.remove(at);
        inner.kept.push(kept.clone());
        Some(kept)
    }
}
