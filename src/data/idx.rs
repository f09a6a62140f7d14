//! IDX files, the format of MNIST and its relatives, compressed with gzip or not.
//!
//! Images: bytes `00 00 08 03`, then count, rows, columns as big-endian `u32`, then one byte of grey for each pixel.
//! Labels: `00 00 08 01`, count, one byte each. (Y. LeCun, "The MNIST database of handwritten digits".)

use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use image::RgbImage;

use super::Part;

/// What is wrong with a set of IDX files. They hold all images of a source, so one that is damaged ends the scan.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdxError {
    /// The operating system refuses, or the compression is damaged.
    #[error("cannot read the IDX file `{file}`")]
    Read {
        /// The file.
        file: PathBuf,
        /// What the operating system or the decompression said.
        source: std::io::Error,
    },
    /// The first bytes are not those of the kind.
    #[error("`{file}` is not an IDX file of {kind} (it begins with {found:02x?}); download it again")]
    Magic {
        /// The file.
        file: PathBuf,
        /// "images" or "labels".
        kind: &'static str,
        /// The first four bytes.
        found: [u8; 4],
    },
    /// Fewer or more bytes than the header announces.
    #[error("`{file}` announces {expected} bytes of content but has {found}; download it again")]
    Length {
        /// The file.
        file: PathBuf,
        /// By the header.
        expected: u64,
        /// Before the end of the file.
        found: String,
    },
    /// A header that no sane file has.
    #[error("`{file}` announces {count} images of {rows} × {columns} pixels, more than can be read")]
    Size {
        /// The file.
        file: PathBuf,
        /// Images.
        count: u32,
        /// Height.
        rows: u32,
        /// Width.
        columns: u32,
    },
    /// Images and labels do not belong together.
    #[error("`{images}` holds {image_count} images but `{labels}` {label_count} labels")]
    Counts {
        /// File of images.
        images: PathBuf,
        /// File of labels.
        labels: PathBuf,
        /// Images in it.
        image_count: usize,
        /// Labels in it.
        label_count: usize,
    },
    /// A label above the list of classes.
    #[error("`{file}`: label {label} of image {position}, but only {classes} classes are named")]
    UnknownClass {
        /// The file.
        file: PathBuf,
        /// Counted from 0.
        position: usize,
        /// The label.
        label: u8,
        /// Number of classes.
        classes: usize,
    },
    /// No file of images.
    #[error("`{root}` holds no IDX files of images, such as `train-images-idx3-ubyte.gz`")]
    None {
        /// Where it was looked.
        root: PathBuf,
    },
}

/// A file of images with its labels, found by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdxFiles {
    /// Name of the file of images.
    pub images: String,
    /// Name of the file of labels, if there is one.
    pub labels: Option<String>,
    /// `train-…` is for training, `t10k-…` and `test-…` for testing.
    pub part: Option<Part>,
}

impl IdxFiles {
    /// The sets in a folder, in the order of names; training first where it is called so.
    ///
    /// # Errors
    /// [`IdxError::Read`] if the folder cannot be listed.
    pub fn find(root: &Path) -> Result<Vec<Self>, IdxError> {
        let unreadable = |source| IdxError::Read { file: root.into(), source };
        let mut names = Vec::new();
        for entry in std::fs::read_dir(root).map_err(unreadable)? {
            names.extend(entry.map_err(unreadable)?.file_name().into_string().ok());
        }
        names.sort();
        let mut found: Vec<Self> = Vec::new();
        for name in &names {
            let stem = name.strip_suffix(".gz").unwrap_or(name);
            let Some(prefix) =
                ["images-idx3-ubyte", "images.idx3-ubyte"].iter().find_map(|end| stem.strip_suffix(end))
            else {
                continue;
            };
            if name.ends_with(".gz") && names.iter().any(|other| other == stem) {
                continue; // the same file unpacked beside the packed one
            }
            let labels = ["labels-idx1-ubyte", "labels.idx1-ubyte"]
                .iter()
                .flat_map(|end| [format!("{prefix}{end}"), format!("{prefix}{end}.gz")])
                .find(|labels| names.contains(labels));
            let part = match prefix.to_ascii_lowercase() {
                prefix if prefix.contains("train") => Some(Part::Train),
                prefix if prefix.contains("t10k") || prefix.contains("test") => Some(Part::Test),
                _ => None,
            };
            found.push(Self { images: name.clone(), labels, part });
        }
        found.sort_by_key(|files| files.part == Some(Part::Test));
        Ok(found)
    }
}

/// All images of one file, in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdxImages {
    count: usize,
    rows: u32,
    columns: u32,
    grey: Vec<u8>,
}

/// Most bytes one file may unpack to.
const MAX_BYTES: u64 = 16 << 30;

impl IdxImages {
    /// Reads a whole file.
    ///
    /// # Errors
    /// [`IdxError`] if it is not there, not IDX, or has not the length it announces.
    pub fn read(file: &Path) -> Result<Self, IdxError> {
        let mut reader = open(file)?;
        magic(file, &mut reader, "images", [0, 0, 8, 3])?;
        let [count, rows, columns] = [(); 3].map(|()| number(file, &mut reader));
        let (count, rows, columns) = (count?, rows?, columns?);
        let bytes = u128::from(count) * u128::from(rows) * u128::from(columns);
        let size = || IdxError::Size { file: file.into(), count, rows, columns };
        let bytes = u64::try_from(bytes).ok().filter(|&bytes| bytes <= MAX_BYTES).ok_or_else(size)?;
        if count > 0 && bytes == 0 {
            return Err(size());
        }
        Ok(Self { count: count as usize, rows, columns, grey: content(file, reader, bytes)? })
    }

    /// How many images there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Image `position`, grey repeated in three channels; `None` behind the last.
    pub fn image(&self, position: usize) -> Option<RgbImage> {
        let pixels = self.rows as usize * self.columns as usize;
        let start = position.checked_mul(pixels)?;
        let grey = (position < self.count).then(|| &self.grey[start..start + pixels])?;
        RgbImage::from_raw(self.columns, self.rows, grey.iter().flat_map(|&value| [value; 3]).collect())
    }
}

/// Reads a whole file of labels.
///
/// # Errors
/// [`IdxError`] if it is not there, not IDX, or has not the length it announces.
pub fn read_idx_labels(file: &Path) -> Result<Vec<u8>, IdxError> {
    let mut reader = open(file)?;
    magic(file, &mut reader, "labels", [0, 0, 8, 1])?;
    let count = number(file, &mut reader)?;
    content(file, reader, u64::from(count))
}

/// Unpacks by content: some programs unpack on download and keep the name.
fn open(file: &Path) -> Result<Box<dyn Read>, IdxError> {
    let unreadable = |source| IdxError::Read { file: file.into(), source };
    let mut start = Vec::new();
    std::fs::File::open(file).and_then(|open| open.take(2).read_to_end(&mut start)).map_err(unreadable)?;
    let reader = BufReader::with_capacity(1 << 18, std::fs::File::open(file).map_err(unreadable)?);
    Ok(if start == [0x1F, 0x8B] {
        Box::new(flate2::bufread::MultiGzDecoder::new(reader))
    } else {
        Box::new(reader)
    })
}

fn magic(file: &Path, reader: &mut dyn Read, kind: &'static str, expected: [u8; 4]) -> Result<(), IdxError> {
    let found = word(file, reader)?;
    if found == expected { Ok(()) } else { Err(IdxError::Magic { file: file.into(), kind, found }) }
}

fn number(file: &Path, reader: &mut dyn Read) -> Result<u32, IdxError> {
    word(file, reader).map(u32::from_be_bytes)
}

fn word(file: &Path, reader: &mut dyn Read) -> Result<[u8; 4], IdxError> {
    let mut word = [0; 4];
    reader.read_exact(&mut word).map_err(|source| IdxError::Read { file: file.into(), source })?;
    Ok(word)
}

fn content(file: &Path, reader: impl Read, expected: u64) -> Result<Vec<u8>, IdxError> {
    let mut bytes = Vec::new();
    // One byte more shows what is too long; memory grows with what is there, not with what the header claims.
    match reader.take(expected + 1).read_to_end(&mut bytes) {
        Ok(_) if bytes.len() as u64 == expected => Ok(bytes),
        Ok(_) if bytes.len() as u64 > expected => {
            Err(IdxError::Length { file: file.into(), expected, found: "more".into() })
        }
        Ok(found) => Err(IdxError::Length { file: file.into(), expected, found: found.to_string() }),
        Err(source) if source.kind() == std::io::ErrorKind::UnexpectedEof => {
            Err(IdxError::Length { file: file.into(), expected, found: bytes.len().to_string() })
        }
        Err(source) => Err(IdxError::Read { file: file.into(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{gzip, idx_images, idx_labels};
    use super::*;

    #[test]
    fn sets_are_paired_by_name_and_read_packed_or_not() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let write =
            |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).expect("writes");
        write("train-images-idx3-ubyte.gz", &gzip(&idx_images(3, 2, 4)));
        write("train-labels-idx1-ubyte.gz", &gzip(&idx_labels(&[1, 0, 1])));
        write("t10k-images-idx3-ubyte", &idx_images(2, 2, 4));
        write("t10k-images-idx3-ubyte.gz", &gzip(&idx_images(2, 2, 4)));
        write("other.txt", b"x");
        let sets = IdxFiles::find(folder.path()).expect("lists");
        assert_eq!(sets.len(), 2);
        assert_eq!((sets[0].part, sets[1].part), (Some(Part::Train), Some(Part::Test)));
        assert_eq!(sets[0].labels.as_deref(), Some("train-labels-idx1-ubyte.gz"));
        assert_eq!((sets[1].images.as_str(), &sets[1].labels), ("t10k-images-idx3-ubyte", &None));

        let images = IdxImages::read(&folder.path().join(&sets[0].images)).expect("reads");
        let second = images.image(1).expect("there are three");
        assert_eq!(second.dimensions(), (4, 2));
        assert_eq!(second.get_pixel(1, 1).0, [8 + 5; 3]);
        assert_eq!((images.len(), images.image(3)), (3, None));
        assert_eq!(
            read_idx_labels(&folder.path().join("train-labels-idx1-ubyte.gz")).expect("reads"),
            [1, 0, 1]
        );
    }

    #[test]
    fn damage_is_told_apart() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let file = folder.path().join("images");
        let read = |bytes: &[u8]| {
            std::fs::write(&file, bytes).expect("writes");
            IdxImages::read(&file).expect_err("damaged")
        };
        let whole = idx_images(3, 5, 4);
        let packed = gzip(&whole);
        assert!(matches!(read(&whole[..30]), IdxError::Length { expected: 60, .. }));
        assert!(matches!(read(&[&whole[..], b"x"].concat()), IdxError::Length { .. }));
        assert!(matches!(read(&packed[..packed.len() / 2]), IdxError::Length { .. } | IdxError::Read { .. }));
        assert!(matches!(read(&whole[..9]), IdxError::Read { .. }));
        assert!(matches!(read(b""), IdxError::Read { .. }));
        assert!(matches!(read(&idx_labels(&[1, 2])), IdxError::Magic { kind: "images", .. }));
        let mut huge = whole.clone();
        huge[4..16].fill(0xFF);
        assert!(matches!(read(&huge), IdxError::Size { .. }));
        assert!(matches!(IdxImages::read(&folder.path().join("none")), Err(IdxError::Read { .. })));
    }
}
