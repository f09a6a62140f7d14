//! Every image of a manifest, decoded and resized once, in files mapped into memory.
//!
//! ```text
//! cache/32px-1f0c…/shard-00000.u8   images of 32 × 32 × 3 bytes one after another, in the order of the manifest
//!                  index.json       what they are, and a checksum of each shard
//! ```
//!
//! The folder's name holds size and content of the images, so a cache fits its manifest or is another one. It is written
//! under a temporary name and renamed when complete; one that is damaged is built again. Building takes a lock, so two
//! runs that need the same cache build it once.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::manifest::{sync_folder, write_atomically};
use super::mapped::MappedFile;
use super::progress::Running;
use super::{ContentHash, DecodeLimits, FIT_FILTER, Images, LoadError, Manifest, Progress, fit};

/// How to build a cache; nothing here changes what is in it.
#[derive(Debug, Clone)]
pub struct CacheOptions {
    /// What an image may cost.
    pub limits: DecodeLimits,
    /// Most bytes of one shard. Default: 256 MiB.
    pub shard_bytes: u64,
    /// Caches up to this many bytes are read through and compared with their checksums when opened; of larger ones only
    /// the sizes are compared. Default: 8 GiB, some seconds from a local disk.
    pub verify_up_to_bytes: u64,
}

impl Default for CacheOptions {
    fn default() -> Self {
        Self { limits: DecodeLimits::default(), shard_bytes: 256 << 20, verify_up_to_bytes: 8 << 30 }
    }
}

/// Why there is no cache. Whatever was there before is untouched, and nothing half-built is left.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// No space left, or the quota is used up.
    #[error(
        "the disk is full: the image cache in `{path}` needs {} MB in all; free some space or put the cache elsewhere",
        needed_bytes.div_ceil(1_000_000)
    )]
    DiskFull {
        /// Where the cache was to be.
        path: PathBuf,
        /// What the complete cache takes.
        needed_bytes: u64,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The operating system refuses.
    #[error("cannot write the image cache in `{path}`; check that the folder may be written to")]
    Write {
        /// What was to be written.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// An image that the scan could read.
    #[error("cannot build the image cache; files have changed since the scan, scan again")]
    Image {
        /// Which, and what is wrong with it.
        source: LoadError,
    },
    /// An image whose pixels are not those of the scan.
    #[error("cannot build the image cache: `{path}` has changed since the scan; scan again")]
    Changed {
        /// The image.
        path: PathBuf,
    },
    /// A side of 0 pixels, or images larger than memory can address.
    #[error("the training size is {size} pixels; it must be from 1 to 16384")]
    Size {
        /// Pixels of a side.
        size: u32,
    },
    /// The caller asked to stop.
    #[error("interrupted while building the image cache")]
    Interrupted,
}

const MAGIC: &str = "harvest image cache";
const VERSION: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Index {
    magic: String,
    version: u32,
    fingerprint: ContentHash,
    size: u32,
    images: usize,
    images_per_shard: usize,
    shards: Vec<ShardEntry>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ShardEntry {
    bytes: u64,
    blake3: ContentHash,
}

/// Images of `size` × `size` × 3 bytes, row by row, RGB interleaved; `image(i)` is image `i` of the manifest.
///
/// The operating system pages them in as they are touched and drops them when memory is short. Do not truncate the files
/// of a cache under a running program: it would end with a bus error. Deleting or rebuilding the cache is safe.
#[derive(Debug)]
pub struct ImageCache {
    size: u32,
    images: usize,
    images_per_shard: usize,
    shards: Vec<MappedFile>,
    path: PathBuf,
}

/// What is to be in a cache.
struct Plan<'a> {
    manifest: &'a Manifest,
    size: u32,
    image_bytes: usize,
    images_per_shard: usize,
    fingerprint: ContentHash,
    /// The complete cache's folder.
    path: PathBuf,
}

impl ImageCache {
    /// Opens the cache of these images at this size in `folder`, building it if it is not there or damaged.
    ///
    /// # Errors
    /// [`CacheError`].
    pub fn open_or_build(
        folder: &Path,
        manifest: &Manifest,
        size: u32,
        options: &CacheOptions,
        progress: &dyn Progress,
        stop: &AtomicBool,
    ) -> Result<Self, CacheError> {
        let plan = Plan::new(folder, manifest, size, options)?;
        plan.open_or(folder, options, progress, || plan.build(folder, options, progress, stop))
    }

    /// Image `index`: `size · size · 3` bytes. Panics behind the last.
    pub fn image(&self, index: u32) -> &[u8] {
        let index = index as usize;
        assert!(index < self.images, "image {index} of a cache of {}", self.images);
        let bytes = image_bytes(self.size);
        let start = index % self.images_per_shard * bytes;
        &self.shards[index / self.images_per_shard][start..start + bytes]
    }

    /// Pixels of a side.
    pub fn size(&self) -> u32 {
        self.size
    }

    /// How many images there are.
    pub fn len(&self) -> usize {
        self.images
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.images == 0
    }

    /// The folder it is in.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn image_bytes(size: u32) -> usize {
    size as usize * size as usize * 3
}

impl<'a> Plan<'a> {
    fn new(
        folder: &Path,
        manifest: &'a Manifest,
        size: u32,
        options: &CacheOptions,
    ) -> Result<Self, CacheError> {
        if !(1..=16384).contains(&size) {
            return Err(CacheError::Size { size });
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(FIT_FILTER.as_bytes());
        hasher.update(&size.to_le_bytes());
        hasher.update(&manifest.fingerprint().0);
        let fingerprint = ContentHash(*hasher.finalize().as_bytes());
        let image_bytes = image_bytes(size);
        Ok(Self {
            manifest,
            size,
            image_bytes,
            images_per_shard: usize::try_from(options.shard_bytes / image_bytes as u64)
                .unwrap_or(usize::MAX)
                .max(1),
            fingerprint,
            path: folder.join(format!("{size}px-{}", &fingerprint.to_string()[..16])),
        })
    }

    fn total_bytes(&self) -> u64 {
        self.manifest.images.len() as u64 * self.image_bytes as u64
    }

    /// Opens what is there, or says why it cannot be used.
    fn open(&self, options: &CacheOptions) -> Result<ImageCache, String> {
        let text = fs::read(self.path.join("index.json")).map_err(|error| format!("no index ({error})"))?;
        let index: Index =
            serde_json::from_slice(&text).map_err(|error| format!("damaged index ({error})"))?;
        if index.magic != MAGIC || index.version != VERSION {
            return Err("written by another version".into());
        }
        if (index.fingerprint, index.size, index.images)
            != (self.fingerprint, self.size, self.manifest.images.len())
        {
            return Err("made of other images".into());
        }
        // Shards may have been made with another limit; what counts is that they hold all images.
        if index.images_per_shard == 0 || index.shards.len() != index.images.div_ceil(index.images_per_shard)
        {
            return Err("a wrong number of shards".into());
        }
        let verify = self.total_bytes() <= options.verify_up_to_bytes;
        let shards = index
            .shards
            .par_iter()
            .enumerate()
            .map(|(number, entry)| {
                let held = index.images_per_shard.min(index.images - number * index.images_per_shard);
                let mapped = MappedFile::open(&self.path.join(shard_name(number)))
                    .map_err(|error| format!("shard {number} cannot be opened ({error})"))?;
                if mapped.len() as u64 != entry.bytes || mapped.len() != held * self.image_bytes {
                    return Err(format!(
                        "shard {number} has {} bytes instead of {}",
                        mapped.len(),
                        entry.bytes
                    ));
                }
                if verify && blake3::hash(&mapped).as_bytes() != &entry.blake3.0 {
                    return Err(format!("shard {number} is damaged"));
                }
                Ok(mapped)
            })
            .collect::<Result<Vec<_>, String>>()?;
        Ok(ImageCache {
            size: self.size,
            images: index.images,
            images_per_shard: index.images_per_shard,
            shards,
            path: self.path.clone(),
        })
    }

    /// Opens it, or lets `make` put it there while no other process does, and opens that.
    fn open_or(
        &self,
        folder: &Path,
        options: &CacheOptions,
        progress: &dyn Progress,
        make: impl FnOnce() -> Result<(), CacheError>,
    ) -> Result<ImageCache, CacheError> {
        if let Ok(cache) = self.open(options) {
            return Ok(cache);
        }
        let cannot_write = |source| self.cannot_write(folder.to_owned(), source);
        fs::create_dir_all(folder).map_err(cannot_write)?;
        let lock = File::create(folder.join(".lock")).map_err(cannot_write)?;
        // Where locks are not supported, two builders may both work; nobody's leftovers are removed then.
        let locked = lock.lock().is_ok();
        match self.open(options) {
            Ok(cache) => return Ok(cache), // another process made it while this one waited
            Err(reason) if self.path.exists() => {
                progress.note(&format!("making the image cache `{}` again: {reason}", self.path.display()));
            }
            Err(_) => {}
        }
        if locked {
            remove_leftovers(folder);
        }
        make()?;
        self.open(options)
            .map_err(|reason| self.cannot_write(self.path.clone(), std::io::Error::other(reason)))
    }

    fn build(
        &self,
        folder: &Path,
        options: &CacheOptions,
        progress: &dyn Progress,
        stop: &AtomicBool,
    ) -> Result<(), CacheError> {
        let index = |shards| Index {
            magic: MAGIC.into(),
            version: VERSION,
            fingerprint: self.fingerprint,
            size: self.size,
            images: self.manifest.images.len(),
            images_per_shard: self.images_per_shard,
            shards,
        };
        self.publish(folder, |temporary| {
            let create = |number| File::create(temporary.join(shard_name(number)));
            let index = index(self.write_shards(options, progress, stop, create)?);
            write_atomically(&temporary.join("index.json"), |out| {
                Ok(serde_json::to_writer_pretty(out, &index)?)
            })
            .map_err(|source| self.cannot_write(folder.to_owned(), source))
        })
    }

    /// Lets `fill` write the cache under a temporary name in `folder`, which disappears on any error, then renames.
    fn publish(
        &self,
        folder: &Path,
        fill: impl FnOnce(&Path) -> Result<(), CacheError>,
    ) -> Result<(), CacheError> {
        let cannot_write = |source| self.cannot_write(folder.to_owned(), source);
        let mut builder = tempfile::Builder::new();
        builder.prefix(BUILDING);
        #[cfg(unix)]
        {
            // Temporary folders are private by default; a group may share the cache. The umask applies.
            use std::os::unix::fs::PermissionsExt;
            builder.permissions(fs::Permissions::from_mode(0o777));
        }
        let temporary = builder.tempdir_in(folder).map_err(cannot_write)?;
        fill(temporary.path())?;
        sync_folder(temporary.path()).map_err(cannot_write)?;
        if self.path.exists() {
            // Programs that have the old files mapped keep them.
            let damaged = temporary.path().with_extension("damaged");
            fs::rename(&self.path, &damaged).map_err(cannot_write)?;
            let _ = fs::remove_dir_all(&damaged);
        }
        fs::rename(temporary.path(), &self.path).map_err(cannot_write)?;
        let _ = temporary.keep(); // it is called otherwise now, so there is nothing to remove
        sync_folder(folder).map_err(cannot_write)
    }

    fn write_shards<F: Flushed>(
        &self,
        options: &CacheOptions,
        progress: &dyn Progress,
        stop: &AtomicBool,
        create: impl Fn(usize) -> std::io::Result<F>,
    ) -> Result<Vec<ShardEntry>, CacheError> {
        let images = Images::new(self.manifest, options.limits);
        let running = Running::start(progress, "preparing training images", self.manifest.images.len());
        let all: Vec<u32> = (0..self.manifest.images.len() as u32).collect();
        // Some images for every thread, without holding much more than that.
        let at_once = (rayon::current_num_threads() * 16).min(((64 << 20) / self.image_bytes).max(1));
        let mut buffer = vec![0; at_once * self.image_bytes];
        let mut shards = Vec::new();
        for (number, indices) in all.chunks(self.images_per_shard).enumerate() {
            let shard = self.path.join(shard_name(number));
            let cannot_write = |source| self.cannot_write(shard.clone(), source);
            let mut file = BufWriter::with_capacity(1 << 20, create(number).map_err(cannot_write)?);
            let mut hasher = blake3::Hasher::new();
            for indices in indices.chunks(at_once) {
                let bytes = &mut buffer[..indices.len() * self.image_bytes];
                bytes.par_chunks_exact_mut(self.image_bytes).zip(indices).try_for_each(|(out, &index)| {
                    if stop.load(Ordering::Relaxed) {
                        return Err(CacheError::Interrupted);
                    }
                    self.prepare(&images, index, out)?;
                    running.advance(1);
                    Ok(())
                })?;
                hasher.update(bytes);
                file.write_all(bytes).map_err(cannot_write)?;
            }
            file.flush().map_err(cannot_write)?;
            file.get_ref().flush_to_disk().map_err(cannot_write)?;
            let bytes = (indices.len() * self.image_bytes) as u64;
            shards.push(ShardEntry { bytes, blake3: ContentHash(*hasher.finalize().as_bytes()) });
        }
        Ok(shards)
    }

    fn prepare(&self, images: &Images<'_>, index: u32, out: &mut [u8]) -> Result<(), CacheError> {
        let expected = self.manifest.images[index as usize].hash;
        let same = images
            .with(index, |image| {
                let same = ContentHash::of(&image) == expected;
                if same {
                    out.copy_from_slice(fit(image, self.size).as_raw());
                }
                same
            })
            .map_err(|source| CacheError::Image { source })?;
        if same { Ok(()) } else { Err(CacheError::Changed { path: self.manifest.full_path(index) }) }
    }

    fn cannot_write(&self, path: PathBuf, source: std::io::Error) -> CacheError {
        use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        match source.kind() {
            StorageFull | QuotaExceeded | FileTooLarge => {
                let path = self.path.parent().unwrap_or(&self.path).to_owned();
                CacheError::DiskFull { path, needed_bytes: self.total_bytes(), source }
            }
            _ => CacheError::Write { path, source },
        }
    }
}

fn shard_name(number: usize) -> String {
    format!("shard-{number:05}.u8")
}

const BUILDING: &str = ".building-";

/// What killed builders left; only called with the lock held. Trouble here must not keep anyone from building.
fn remove_leftovers(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(BUILDING.as_bytes()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// A file that can be made to last.
trait Flushed: Write {
    fn flush_to_disk(&self) -> std::io::Result<()>;
}

impl Flushed for File {
    fn flush_to_disk(&self) -> std::io::Result<()> {
        self.sync_all()
    }
}

mod local;
#[cfg(test)]
mod tests;
