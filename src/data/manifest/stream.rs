//! A list of images read one after the other, for work on a million of them that needs one at a time.

use std::path::Path;

use super::{BufReader, File, Header, ImageRecord, Lines, ManifestError, PathBuf, VERSION};

/// The images of a list on disk, in order, without holding them all.
pub struct ManifestStream<'a> {
    lines: Lines<'a>,
    header: Header,
    given: usize,
}

impl<'a> ManifestStream<'a> {
    /// Reads the first line.
    ///
    /// # Errors
    /// As [`super::Manifest::read`].
    pub fn open(path: &'a Path) -> Result<Self, ManifestError> {
        let file = File::open(path).map_err(|source| ManifestError::Read { path: path.into(), source })?;
        let mut lines =
            Lines { path, reader: BufReader::with_capacity(1 << 18, file), text: vec![], line: 0 };
        let header: Header = match lines.next::<serde_json::Value>()? {
            Some(value) if value["harvest_manifest"] == VERSION => {
                serde_json::from_value(value).map_err(|error| lines.problem(error.to_string()))?
            }
            _ => return Err(ManifestError::Foreign { path: path.into() }),
        };
        Ok(Self { lines, header, given: 0 })
    }

    /// How many images there are.
    pub fn len(&self) -> usize {
        self.header.images
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.header.images == 0
    }

    /// Where an image lies on disk; one inside an IDX file is told by `#` and its position.
    pub fn full_path(&self, image: &ImageRecord) -> PathBuf {
        // Joining keeps what comes after `#`, which is not part of the file's name but of the image's.
        self.header.root.join(&image.path)
    }
}

impl Iterator for ManifestStream<'_> {
    type Item = Result<ImageRecord, ManifestError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.given == self.header.images {
            return None;
        }
        self.given += 1;
        let image = self.lines.expect();
        if image.is_err() {
            // What follows a damaged line is not to be trusted.
            self.given = self.header.images;
        }
        Some(image)
    }
}
