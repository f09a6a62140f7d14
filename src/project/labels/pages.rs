//! The history in pages, latest first.

use rusqlite::params;

use super::{ImageHash, LabelEntry, LabelError, LabelStore};

/// Which part of the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryPage {
    /// Of one image, or of all.
    pub image: Option<ImageHash>,
    /// Entries before this one.
    pub before: Option<i64>,
    /// At most so many.
    pub count: usize,
}

impl LabelStore {
    /// A page of the history, latest first; found by index, however long the history is.
    pub fn page(&self, page: &HistoryPage) -> Result<Vec<LabelEntry>, LabelError> {
        let (before, count) =
            (page.before.unwrap_or(i64::MAX), i64::try_from(page.count).unwrap_or(i64::MAX));
        match page.image {
            Some(image) => self.entries(
                "SELECT * FROM label_history WHERE image = ?1 AND id < ?2 ORDER BY id DESC LIMIT ?3",
                params![image, before, count],
            ),
            None => self.entries(
                "SELECT * FROM label_history WHERE id < ?1 ORDER BY id DESC LIMIT ?2",
                params![before, count],
            ),
        }
    }

    /// Everything ever said, of one image or of all, oldest first.
    pub fn history(&self, image: Option<&ImageHash>) -> Result<Vec<LabelEntry>, LabelError> {
        match image {
            Some(image) => {
                self.entries("SELECT * FROM label_history WHERE image = ?1 ORDER BY id", params![image])
            }
            None => self.entries("SELECT * FROM label_history ORDER BY id", params![]),
        }
    }
}
