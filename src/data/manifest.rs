//! What a scan found: every image with its content hash, size, label and duplicate, and every file set aside.
//!
//! On disk a manifest is one file of JSON lines: a header, one line for each image in order, one for each file set
//! aside. Line `2 + i` is image `i`, so it can be looked at with any text tool.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Problem, Source};

mod stream;

pub use stream::ManifestStream;

/// BLAKE3 of an image's width, height and upright RGB pixels: equal for files that decode to the same picture, whatever
/// their names, formats or metadata.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContentHash(pub [u8; 32]);

impl ContentHash {
    /// The hash of a decoded image.
    pub fn of(image: &image::RgbImage) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&image.width().to_le_bytes());
        hasher.update(&image.height().to_le_bytes());
        hasher.update(image.as_raw());
        Self(*hasher.finalize().as_bytes())
    }
}

impl std::fmt::Display for ContentHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(blake3::Hash::from_bytes(self.0).to_hex().as_str())
    }
}

impl std::fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ContentHash({self})")
    }
}

impl Serialize for ContentHash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(blake3::Hash::from_bytes(self.0).to_hex().as_str())
    }
}

impl<'de> Deserialize<'de> for ContentHash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Hex;
        impl serde::de::Visitor<'_> for Hex {
            type Value = ContentHash;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("64 hexadecimal digits")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<ContentHash, E> {
                let hash = blake3::Hash::from_hex(text).map_err(E::custom)?;
                Ok(ContentHash(*hash.as_bytes()))
            }
        }
        deserializer.deserialize_str(Hex)
    }
}

/// The division a source brings along.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// To learn from.
    Train,
    /// To test on, never to learn from.
    Test,
}

/// One usable image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageRecord {
    /// Relative to the manifest's root, with `/`; image 7 of an IDX file is `file.gz#7`.
    pub path: String,
    /// Of the decoded pixels.
    pub hash: ContentHash,
    /// Upright width in pixels.
    pub width: u32,
    /// Upright height in pixels.
    pub height: u32,
    /// Size of the file in bytes.
    pub size_bytes: u64,
    /// When the file was last changed, in nanoseconds since 1970; 0 if unknown.
    pub modified_ns: i64,
    /// The first image with the same pixels, if this is not it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duplicate_of: Option<u32>,
    /// Index into the classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<u16>,
    /// The source's own division.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<Part>,
}

/// One file that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetAside {
    /// Relative to the root; characters that are not UTF-8 are replaced.
    pub path: String,
    /// The kind of trouble.
    pub problem: Problem,
    /// The reason in words.
    pub reason: String,
}

/// All that a scan found, in the order of paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// What was scanned.
    pub source: Source,
    /// Absolute folder that paths are relative to.
    pub root: PathBuf,
    /// Class names that labels index; empty where no labels are known and no classes were given.
    pub classes: Vec<String>,
    /// Usable images; an image's index is its position.
    pub images: Vec<ImageRecord>,
    /// Files that cannot be used.
    pub set_aside: Vec<SetAside>,
    /// Hidden files and folders (names beginning with a dot) that were not looked at.
    pub hidden: u64,
}

/// Why a manifest cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// The operating system refuses to give it.
    #[error("cannot read the list of images `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The operating system refuses to take it; what was there before is untouched.
    #[error("cannot write `{path}`; what was there before is untouched")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// Not a manifest, or of another version.
    #[error("`{path}` is not a list of images of version {VERSION}; scan again")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// A line that is not one.
    #[error("`{path}`, line {line}: {problem}; restore the file or scan again")]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: u64,
        /// What is wrong.
        problem: String,
    },
}

const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    harvest_manifest: u32,
    source: Source,
    root: PathBuf,
    classes: Vec<String>,
    images: usize,
    set_aside: usize,
    hidden: u64,
}

impl Manifest {
    /// Full path of image `index`; for IDX, of the file it is in.
    pub fn full_path(&self, index: u32) -> PathBuf {
        let path = &self.images[index as usize].path;
        match self.source {
            Source::Idx { .. } => {
                self.root.join(path.rsplit_once('#').map_or(path.as_str(), |(file, _)| file))
            }
            _ => self.root.join(path),
        }
    }

    /// The first image with the same pixels as image `index`, which may be itself.
    pub fn first_of_group(&self, index: u32) -> u32 {
        self.images[index as usize].duplicate_of.unwrap_or(index)
    }

    /// Identifies content and order of the images: a split or cache of another manifest is told by it.
    pub fn fingerprint(&self) -> ContentHash {
        let mut hasher = blake3::Hasher::new();
        for image in &self.images {
            hasher.update(&image.hash.0);
        }
        ContentHash(*hasher.finalize().as_bytes())
    }

    /// The same for two scans exactly if they found the same images to learn from: classes, and each image's path, pixels, label
    /// and part. Size and time of files and what is not an image do not count, so that a touched or restored folder is the same;
    /// nor where it lies, which the settings say (`data.root`).
    pub fn identity(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        let written = write_line(&mut hasher, &self.classes).and_then(|()| {
            let mut images = self.images.iter();
            images.try_for_each(|image| {
                write_line(&mut hasher, &(&image.path, image.hash, image.label, image.part))
            })
        });
        written.expect("a hash takes every line, and an image is plain data");
        hasher.finalize()
    }

    /// Links each image to the first with the same pixels. The scan does it; needed again after images were added,
    /// removed or reordered.
    pub fn link_duplicates(&mut self) {
        let mut first = std::collections::HashMap::with_capacity(self.images.len());
        for (index, image) in self.images.iter_mut().enumerate() {
            let index = u32::try_from(index).expect("a manifest holds fewer than 2^32 images");
            image.duplicate_of = match first.entry(image.hash) {
                std::collections::hash_map::Entry::Occupied(entry) => Some(*entry.get()),
                std::collections::hash_map::Entry::Vacant(entry) => {
                    entry.insert(index);
                    None
                }
            };
        }
    }

    /// Writes the whole manifest or nothing: to a temporary file beside `path`, flushed, then renamed.
    ///
    /// # Errors
    /// [`ManifestError::Write`].
    pub fn write(&self, path: &Path) -> Result<(), ManifestError> {
        write_atomically(path, |out| self.write_lines(out))
            .map_err(|source| ManifestError::Write { path: path.into(), source })
    }

    /// What [`Manifest::write`] writes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write_lines(&mut bytes).expect("memory takes every line, and a manifest is plain data");
        bytes
    }

    fn write_lines(&self, out: &mut dyn Write) -> std::io::Result<()> {
        let header = Header {
            harvest_manifest: VERSION,
            source: self.source.clone(),
            root: self.root.clone(),
            classes: self.classes.clone(),
            images: self.images.len(),
            set_aside: self.set_aside.len(),
            hidden: self.hidden,
        };
        write_line(out, &header)?;
        self.images.iter().try_for_each(|image| write_line(out, image))?;
        self.set_aside.iter().try_for_each(|file| write_line(out, file))
    }

    /// Reads what [`Manifest::write`] wrote.
    ///
    /// # Errors
    /// [`ManifestError::Read`], [`ManifestError::Foreign`], and [`ManifestError::Line`] for a line that is missing, too
    /// many, malformed, or refers to an image or class that does not exist.
    pub fn read(path: &Path) -> Result<Self, ManifestError> {
        let unreadable = |source| ManifestError::Read { path: path.into(), source };
        let mut lines = Lines {
            path,
            reader: BufReader::new(File::open(path).map_err(unreadable)?),
            text: vec![],
            line: 0,
        };
        let header: Header = match lines.next::<serde_json::Value>()? {
            Some(value) if value["harvest_manifest"] == VERSION => {
                serde_json::from_value(value).map_err(|error| lines.problem(error.to_string()))?
            }
            _ => return Err(ManifestError::Foreign { path: path.into() }),
        };
        let mut manifest = Self {
            source: header.source,
            root: header.root,
            classes: header.classes,
            // The header could lie about the number; a line takes more than 128 bytes.
            images: Vec::with_capacity(header.images.min(1 << 24)),
            set_aside: Vec::new(),
            hidden: header.hidden,
        };
        for index in 0..header.images {
            let image: ImageRecord = lines.expect()?;
            manifest.check(index, &image).map_err(|problem| lines.problem(problem))?;
            manifest.images.push(image);
        }
        for _ in 0..header.set_aside {
            manifest.set_aside.push(lines.expect()?);
        }
        if lines.next::<serde_json::Value>()?.is_some() {
            return Err(lines.problem("more lines than the first line announces".into()));
        }
        Ok(manifest)
    }

    /// Writes the table of files set aside as CSV: `path,problem,reason`.
    ///
    /// # Errors
    /// [`ManifestError::Write`].
    pub fn write_set_aside(&self, path: &Path) -> Result<(), ManifestError> {
        write_atomically(path, |out| {
            let mut table = csv::Writer::from_writer(out);
            table.write_record(["path", "problem", "reason"])?;
            for file in &self.set_aside {
                table.serialize((&file.path, file.problem, &file.reason))?;
            }
            table.flush()
        })
        .map_err(|source| ManifestError::Write { path: path.into(), source })
    }

    fn check(&self, index: usize, image: &ImageRecord) -> Result<(), String> {
        if let Some(first) = image.duplicate_of {
            match self.images.get(first as usize) {
                Some(original) if original.duplicate_of.is_none() && original.hash == image.hash => {}
                _ => {
                    return Err(format!(
                        "image {index} is called a duplicate of image {first}, which it is not"
                    ));
                }
            }
        }
        match image.label {
            Some(label) if usize::from(label) >= self.classes.len() => {
                Err(format!("label {label}, but there are {} classes", self.classes.len()))
            }
            _ => Ok(()),
        }
    }
}

fn write_line<T: Serialize>(out: &mut dyn Write, value: &T) -> std::io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")
}

struct Lines<'a> {
    path: &'a Path,
    reader: BufReader<File>,
    text: Vec<u8>,
    line: u64,
}

impl Lines<'_> {
    fn next<T: serde::de::DeserializeOwned>(&mut self) -> Result<Option<T>, ManifestError> {
        self.text.clear();
        self.line += 1;
        let read = self.reader.read_until(b'\n', &mut self.text);
        match read.map_err(|source| ManifestError::Read { path: self.path.into(), source })? {
            0 => Ok(None),
            _ => serde_json::from_slice(&self.text).map(Some).or_else(|error| match self.line {
                1 => Ok(None),
                _ => Err(self.problem(error.to_string())),
            }),
        }
    }

    fn expect<T: serde::de::DeserializeOwned>(&mut self) -> Result<T, ManifestError> {
        self.next()?
            .ok_or_else(|| self.problem("the file ends here, fewer lines than its first announces".into()))
    }

    fn problem(&self, problem: String) -> ManifestError {
        ManifestError::Line { path: self.path.into(), line: self.line, problem }
    }
}

/// Writes a file completely or not at all: a temporary file in the same folder, flushed to the disk, then renamed.
pub(super) fn write_atomically(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix(".writing-");
    #[cfg(unix)]
    {
        // Temporary files are private by default; a group sharing a project should read its lists. The umask applies.
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let mut file = builder.tempfile_in(folder)?;
    let mut out = BufWriter::with_capacity(1 << 20, file.as_file_mut());
    write(&mut out)?;
    out.flush()?;
    drop(out);
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    sync_folder(folder)
}

/// Makes a rename in `folder` last through a power cut.
pub(super) fn sync_folder(folder: &Path) -> std::io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

#[cfg(test)]
mod tests;
