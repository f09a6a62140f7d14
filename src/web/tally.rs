//! What a project holds, read off its files without opening it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;

use jiff::Timestamp;
use serde::Deserialize;

use crate::experiment::Places;
use crate::project::{LabelStore, Project};

/// A label history larger than this is not counted for a list of projects.
const LARGEST_HISTORY: u64 = 64 << 20;

/// What a project holds.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Usable images; `None` before the first scan.
    pub images: Option<u64>,
    /// Files that cannot be used.
    pub set_aside: u64,
    /// Images with a label; `None` if it takes too long to tell.
    pub labelled: Option<u64>,
    /// Runs that have a model.
    pub runs: usize,
    /// When something changed last.
    pub changed: Option<Timestamp>,
}

/// What is wanted of the first line of a list of images.
#[derive(Deserialize)]
struct Header {
    images: u64,
    set_aside: u64,
}

impl Tally {
    /// Of `project`; what cannot be read is not counted.
    pub fn of(project: &Project) -> Self {
        let places = Places::in_project(project);
        let header = header(&places.manifest);
        let history = project.dir().join("project.db");
        let size = fs::metadata(&history).map_or(0, |file| file.len());
        let labelled = (size <= LARGEST_HISTORY).then(|| LabelStore::read(project.dir()).ok()).flatten();
        let parts = [
            history,
            places.manifest.clone(),
            places.runs.clone(),
            project.file(),
            project.dir().join("jobs"),
        ];
        Self {
            images: header.as_ref().map(|header| header.images),
            set_aside: header.map_or(0, |header| header.set_aside),
            labelled: labelled.map(|labels| labels.len() as u64),
            runs: folders(&places.runs).filter(|run| run.join("bundle").is_dir()).count(),
            changed: parts.iter().filter_map(|part| changed(part)).max(),
        }
    }
}

fn header(manifest: &Path) -> Option<Header> {
    let mut line = String::new();
    BufReader::new(File::open(manifest).ok()?).read_line(&mut line).ok()?;
    serde_json::from_str(&line).ok()
}

fn folders(of: &Path) -> impl Iterator<Item = std::path::PathBuf> {
    fs::read_dir(of)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.is_dir())
}

fn changed(path: &Path) -> Option<Timestamp> {
    Timestamp::try_from(fs::metadata(path).ok()?.modified().ok()?).ok()
}

/// 12345 as `12,345`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SourceKind;
    use crate::project::Classes;

    #[test]
    fn numbers_are_grouped() {
        assert_eq!([0, 999, 1000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn a_new_project_holds_nothing_yet() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let classes = Classes::categorical(["a", "b"]).expect("good names");
        let dir = folder.path().join("p");
        let project = Project::init(&dir, "p", folder.path(), SourceKind::Auto, &classes).expect("made");
        let tally = Tally::of(&project);
        assert_eq!((tally.images, tally.labelled, tally.runs), (None, Some(0), 0));
        assert!(tally.changed.is_some());
        fs::write(dir.join("images.jsonl"), "{\"harvest_manifest\":1,\"images\":12,\"set_aside\":3}\n")
            .expect("writable");
        assert_eq!(Tally::of(&project).images, Some(12));
    }
}
