//! `clusters.csv`: the cluster of every image, for programs, tables and the page that shows them.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::data::ContentHash;
use crate::files::{WriteError, atomic_write};

/// One image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterRow {
    /// Relative to the images' folder.
    pub path: String,
    /// Of its pixels.
    pub hash: ContentHash,
    /// Its cluster, from 0.
    pub cluster: u32,
    /// How sure that is, from 0 to 1.
    pub confidence: f32,
    /// Position in the table of the first image that is the same or nearly the same.
    pub first: u32,
    /// Where it lies on the map, within -1..=1.
    pub x: f32,
    /// See [`Self::x`].
    pub y: f32,
}

/// A table that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("`{path}` is no table of clusters: {reason}; run `harvest cluster` again", path = path.display())]
pub struct ClusterTableError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong, with the line.
    pub reason: String,
}

/// Writes the table, whole or not at all.
///
/// # Errors
/// If it cannot be written.
pub fn write_clusters(path: &Path, rows: &[ClusterRow]) -> Result<(), WriteError> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for row in rows {
        writer.serialize(row).expect("rows can be written to memory");
    }
    let bytes = writer.into_inner().expect("memory takes what it is given");
    atomic_write(path, &bytes)
}

/// Reads what [`write_clusters`] wrote.
///
/// # Errors
/// If the file is not there or damaged.
pub fn read_clusters(path: &Path) -> Result<Vec<ClusterRow>, ClusterTableError> {
    let wrong = |reason: String| ClusterTableError { path: path.to_owned(), reason };
    let mut reader = csv::Reader::from_path(path).map_err(|error| wrong(error.to_string()))?;
    let rows = reader.deserialize().collect::<Result<Vec<ClusterRow>, _>>();
    let rows = rows.map_err(|error| wrong(error.to_string()))?;
    match rows.iter().position(|row| row.first as usize >= rows.len()) {
        Some(line) => Err(wrong(format!("line {} names an image that is not in it", line + 2))),
        None => Ok(rows),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(paths in prop::collection::vec("[ -~äß,\"]{1,12}", 0..6), cluster in 0u32..9, x in -1f32..1.0) {
            let count = paths.len() as u32;
            let rows: Vec<ClusterRow> = (0u32..).zip(paths).map(|(i, path)| ClusterRow {
                path, hash: ContentHash([i as u8; 32]), cluster, confidence: 0.5, first: i % count, x, y: -x,
            }).collect();
            let folder = tempfile::tempdir().expect("a temporary folder can be made");
            let file = folder.path().join("clusters.csv");
            write_clusters(&file, &rows).expect("writable");
            prop_assert_eq!(read_clusters(&file).expect("its own"), rows);
        }
    }

    #[test]
    fn damage_is_named() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let file = folder.path().join("clusters.csv");
        let hash = "0".repeat(64);
        for (text, reason) in [
            ("path,hash\na,b\n".to_owned(), "line: 2"),
            (
                format!("path,hash,cluster,confidence,first,x,y\na.png,{hash},0,1,7,0,0\n"),
                "line 2 names an image",
            ),
        ] {
            std::fs::write(&file, text).expect("writable");
            let error = read_clusters(&file).expect_err("damaged").to_string();
            assert!(error.contains(reason) && error.contains("harvest cluster"), "{error}");
        }
    }
}
