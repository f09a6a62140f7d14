//! A file as memory, read only.

#![expect(unsafe_code, reason = "mapping a file is unsafe: another process could change it meanwhile")]

use std::fs::File;
use std::ops::Deref;
use std::path::Path;

/// The content of a file, paged in by the operating system as it is touched.
#[derive(Debug)]
pub(super) struct MappedFile(memmap2::Mmap);

impl MappedFile {
    /// Maps the whole file; an empty one is an error on most systems.
    pub(super) fn open(path: &Path) -> std::io::Result<Self> {
        let file = File::open(path)?;
        // SAFETY: the mapping is only read, and the file is one of a cache folder, which this program writes under
        // another name, renames when complete, and never writes again: it replaces or deletes the folder, which
        // leaves existing mappings intact. A user who truncates a shard under a running program gets a bus error;
        // that is documented at `ImageCache`.
        unsafe { memmap2::Mmap::map(&file) }.map(Self)
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
