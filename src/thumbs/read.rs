//! Finds thumbnails by content, while others may be made.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use super::ThumbError;
use super::pack::{INDEX, LINE, MAGIC, Place, pack_file, parse};
use crate::data::ContentHash;

/// How often the index is looked at for thumbnails that are new.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// Bytes of a thumbnail at most; a larger one is no thumbnail.
const MAX_BYTES: u32 = 4 << 20;

/// Thumbnails of a project, for many readers at once. A million take about 70 MB of memory.
pub struct Thumbs {
    folder: PathBuf,
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    /// By half of the hash, which is still the only one of its kind.
    places: HashMap<[u8; 16], Place>,
    /// Bytes of the index that have been read.
    read: u64,
    /// Tells an index from another one at the same path.
    inode: u64,
    looked: Option<Instant>,
    packs: HashMap<u32, Arc<File>>,
}

impl Thumbs {
    /// Those in `folder`, which may not be there yet.
    ///
    /// # Errors
    /// If the index is there and cannot be read.
    pub fn open(folder: &Path) -> Result<Self, ThumbError> {
        let thumbs = Self { folder: folder.to_owned(), state: RwLock::default() };
        thumbs.look()?;
        Ok(thumbs)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.state.read().unwrap_or_else(PoisonError::into_inner).places.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The thumbnail of an image, a JPEG file; `None` if there is none, or it is damaged.
    pub fn get(&self, hash: &ContentHash) -> Option<Vec<u8>> {
        let place = self.place(hash).or_else(|| {
            // One that was made meanwhile. If the index cannot be read there is none to be had.
            self.look().ok()?;
            self.place(hash)
        })?;
        let mut bytes = vec![0; place.length.min(MAX_BYTES) as usize];
        self.pack(place.pack)?.read_exact_at(&mut bytes, place.offset.into()).ok()?;
        (crc32c::crc32c(&bytes) == place.checksum).then_some(bytes)
    }

    fn place(&self, hash: &ContentHash) -> Option<Place> {
        self.state.read().unwrap_or_else(PoisonError::into_inner).places.get(&half(hash)).copied()
    }

    fn pack(&self, pack: u32) -> Option<Arc<File>> {
        let open = self.state.read().unwrap_or_else(PoisonError::into_inner).packs.get(&pack).cloned();
        open.or_else(|| {
            let file = Arc::new(File::open(pack_file(&self.folder, pack)).ok()?);
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            state.packs.insert(pack, file.clone());
            Some(file)
        })
    }

    /// Reads what the index has that was not read yet, unless that was done just now.
    fn look(&self) -> Result<(), ThumbError> {
        let recently = |looked: Option<Instant>| looked.is_some_and(|at| at.elapsed() < LOOK_AGAIN);
        if recently(self.state.read().unwrap_or_else(PoisonError::into_inner).looked) {
            return Ok(());
        }
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if recently(state.looked) {
            return Ok(());
        }
        state.looked = Some(Instant::now());
        let path = self.folder.join(INDEX);
        let file = match File::open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                *state = State { looked: state.looked, ..State::default() };
                return Ok(());
            }
            file => file.map_err(ThumbError::read(&path))?,
        };
        let metadata = file.metadata().map_err(ThumbError::read(&path))?;
        if metadata.ino() != state.inode || metadata.len() < state.read {
            *state = State { looked: state.looked, inode: metadata.ino(), ..State::default() };
        }
        state
            .read_on(&file, metadata.len())
            .map_err(ThumbError::read(&path))?
            .then_some(())
            .ok_or(ThumbError::Foreign { path })
    }
}

impl State {
    /// Reads the index up to `length`; whether it is one.
    fn read_on(&mut self, file: &File, length: u64) -> std::io::Result<bool> {
        if self.read == 0 {
            if length < MAGIC.len() as u64 {
                return Ok(true); // being begun
            }
            let mut magic = [0; MAGIC.len()];
            file.read_exact_at(&mut magic, 0)?;
            if magic != *MAGIC {
                return Ok(false);
            }
            self.read = MAGIC.len() as u64;
        }
        let mut whole = 0u64;
        // Half a line is one being written.
        let lines = (length - self.read) as usize / LINE;
        let mut bytes = vec![0; lines * LINE];
        file.read_exact_at(&mut bytes, self.read)?;
        let lines = bytes.as_chunks::<LINE>().0;
        self.places.reserve(lines.len());
        for (number, line) in (1..).zip(lines) {
            // A damaged line at the end may be one that is just being written: it is read again.
            if let Some((hash, place)) = parse(line) {
                // The last line of an image counts: one of a pack that was lost is made again.
                self.places.insert(half(&hash), place);
                whole = number;
            }
        }
        self.read += whole * LINE as u64;
        Ok(true)
    }
}

fn half(hash: &ContentHash) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(&hash.0[..16]);
    half
}
