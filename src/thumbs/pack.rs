//! The files thumbnails lie in.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::{Present, ThumbError};
use crate::data::ContentHash;
use crate::files::{WriteError, atomic_write, sync_folder};
use crate::project::Lock;

pub(super) const INDEX: &str = "index";
pub(super) const MAGIC: &[u8; 8] = b"HVTHUMB1";
/// Bytes of a line of the index.
pub(super) const LINE: usize = 56;
/// A pack is closed once it has so many bytes.
const PACK_BYTES: u32 = 256 << 20;
/// Bytes of thumbnails that are written, and flushed to the disk, at once.
const BATCH: usize = 8 << 20;

/// Where a thumbnail lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub pack: u32,
    pub offset: u32,
    pub length: u32,
    /// CRC-32C of its bytes.
    pub checksum: u32,
}

impl Place {
    /// The byte behind its last.
    pub(super) fn end(self) -> u64 {
        u64::from(self.offset) + u64::from(self.length)
    }
}

/// A line of the index: the hash, four numbers, four bytes unused, and a checksum of all these.
pub(super) fn line(hash: &ContentHash, place: Place) -> [u8; LINE] {
    let mut line = [0; LINE];
    line[..32].copy_from_slice(&hash.0);
    let numbers = [place.pack, place.offset, place.length, place.checksum];
    for (bytes, number) in line[32..48].as_chunks_mut::<4>().0.iter_mut().zip(numbers) {
        *bytes = number.to_le_bytes();
    }
    let checksum = crc32c::crc32c(&line[..52]);
    line[52..].copy_from_slice(&checksum.to_le_bytes());
    line
}

/// What a line says, unless it is damaged.
pub(super) fn parse(line: &[u8; LINE]) -> Option<(ContentHash, Place)> {
    let number = |at: usize| u32::from_le_bytes([line[at], line[at + 1], line[at + 2], line[at + 3]]);
    if number(52) != crc32c::crc32c(&line[..52]) {
        return None;
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(&line[..32]);
    let place = Place { pack: number(32), offset: number(36), length: number(40), checksum: number(44) };
    Some((ContentHash(hash), place))
}

/// The file of a pack.
pub(super) fn pack_file(folder: &Path, pack: u32) -> PathBuf {
    folder.join(format!("{pack:06}.pack"))
}

/// Writes `hashes` as having the given thumbnails in turn, each of which is stored once: what a project of very many images
/// looks like to whoever reads thumbnails, without its size on the disk. For measurements; `folder` must not exist.
///
/// # Errors
/// If it cannot be written.
pub(crate) fn write_repeated(
    folder: &Path,
    hashes: impl Iterator<Item = ContentHash>,
    thumbnails: &[Vec<u8>],
) -> Result<(), WriteError> {
    std::fs::create_dir(folder).map_err(WriteError::at(folder))?;
    let mut pack = Vec::new();
    let places: Vec<Place> = thumbnails
        .iter()
        .map(|thumbnail| {
            let offset = pack.len() as u32;
            pack.extend_from_slice(thumbnail);
            let checksum = crc32c::crc32c(thumbnail);
            Place { pack: 0, offset, length: thumbnail.len() as u32, checksum }
        })
        .collect();
    atomic_write(&pack_file(folder, 0), &pack)?;
    let mut index = MAGIC.to_vec();
    for (hash, place) in hashes.zip(places.iter().cycle()) {
        index.extend_from_slice(&line(&hash, *place));
    }
    atomic_write(&folder.join(INDEX), &index)
}

/// Appends thumbnails; there is one at a time.
pub(super) struct Writer {
    folder: PathBuf,
    index: File,
    /// Where the next line goes.
    index_end: u64,
    pack: u32,
    file: File,
    /// Where the next thumbnail goes, once those before it are written.
    end: u32,
    thumbnails: Vec<u8>,
    lines: Vec<u8>,
    _lock: Lock,
}

impl Writer {
    /// Continues a folder of thumbnails, or begins one; with what is in it.
    pub(super) fn open(folder: &Path) -> Result<(Self, Present), ThumbError> {
        std::fs::create_dir_all(folder).map_err(WriteError::at(folder))?;
        let lock = Lock::take(&folder.join("lock"), folder)?;
        let path = folder.join(INDEX);
        let mut index = open(&path)?;
        let mut bytes = Vec::new();
        index.read_to_end(&mut bytes).map_err(ThumbError::read(&path))?;
        if bytes.len() < MAGIC.len() {
            // New, or killed while it was.
            index.write_all_at(MAGIC, 0).map_err(WriteError::at(&path))?;
            bytes = MAGIC.to_vec();
        }
        let (magic, lines) = bytes.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(ThumbError::Foreign { path });
        }
        let (lines, _) = lines.as_chunks::<LINE>();
        let index_end = (MAGIC.len() + lines.len() * LINE) as u64;

        let mut sizes = HashMap::<u32, u64>::new();
        let mut present = Present::with_capacity(lines.len());
        let (mut pack, mut end) = (0, 0);
        for (hash, place) in lines.iter().filter_map(parse) {
            let size = sizes.entry(place.pack).or_insert_with(|| {
                std::fs::metadata(pack_file(folder, place.pack)).map_or(0, |metadata| metadata.len())
            });
            // A pack that somebody deleted, or that a power cut has shortened.
            if place.end() > *size {
                continue;
            }
            present.insert(hash);
            if place.pack > pack {
                (pack, end) = (place.pack, 0);
            }
            if place.pack == pack {
                end = end.max(place.end());
            }
        }
        let pack_path = pack_file(folder, pack);
        let file = open(&pack_path)?;
        // Whatever lies behind is of a work that was cut off.
        file.set_len(end).map_err(WriteError::at(&pack_path))?;
        index.set_len(index_end).map_err(WriteError::at(&path))?;
        sync_folder(folder).map_err(WriteError::at(folder))?;
        let writer = Self {
            folder: folder.to_owned(),
            index,
            index_end,
            pack,
            file,
            end: u32::try_from(end).unwrap_or(u32::MAX),
            thumbnails: Vec::new(),
            lines: Vec::new(),
            _lock: lock,
        };
        Ok((writer, present))
    }

    /// Appends a thumbnail.
    pub(super) fn append(&mut self, hash: ContentHash, thumbnail: &[u8]) -> Result<(), ThumbError> {
        if self.end as usize + self.thumbnails.len() >= PACK_BYTES as usize {
            self.flush()?;
            let next = pack_file(&self.folder, self.pack + 1);
            self.file = open(&next)?;
            self.file.set_len(0).map_err(WriteError::at(&next))?;
            sync_folder(&self.folder).map_err(WriteError::at(&self.folder))?;
            (self.pack, self.end) = (self.pack + 1, 0);
        }
        let place = Place {
            pack: self.pack,
            offset: self.end + self.thumbnails.len() as u32,
            length: thumbnail.len() as u32,
            checksum: crc32c::crc32c(thumbnail),
        };
        self.thumbnails.extend_from_slice(thumbnail);
        self.lines.extend_from_slice(&line(&hash, place));
        if self.thumbnails.len() >= BATCH { self.flush() } else { Ok(()) }
    }

    /// Writes what was appended: thumbnails first, and only once these are on the disk the lines that name them.
    fn flush(&mut self) -> Result<(), ThumbError> {
        let pack = pack_file(&self.folder, self.pack);
        let thumbnails = self.file.write_all_at(&self.thumbnails, u64::from(self.end));
        thumbnails.and_then(|()| self.file.sync_data()).map_err(WriteError::at(&pack))?;
        let index = self.folder.join(INDEX);
        let lines = self.index.write_all_at(&self.lines, self.index_end);
        lines.and_then(|()| self.index.sync_data()).map_err(WriteError::at(&index))?;
        self.end += self.thumbnails.len() as u32;
        self.index_end += self.lines.len() as u64;
        self.thumbnails.clear();
        self.lines.clear();
        Ok(())
    }

    /// Writes the rest.
    pub(super) fn finish(mut self) -> Result<(), ThumbError> {
        self.flush()?;
        self.file.flush().map_err(WriteError::at(&self.folder))?;
        Ok(())
    }
}

fn open(path: &Path) -> Result<File, WriteError> {
    let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
    options.map_err(WriteError::at(path))
}
