//! What a scan found, in the numbers and examples that a page shows; read off the list of images once for each scan.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use serde::Deserialize;

use super::error::WebError;
use crate::data::{ContentHash, ImageRecord, Problem, SetAside};

/// Groups of copies shown.
const GROUPS: usize = 100;
/// Copies of one picture shown.
const COPIES: usize = 20;
/// Files set aside shown; all of them are in the table beside the list.
const SHOWN: usize = 300;

/// What a scan found.
#[derive(Debug, Default)]
pub struct Report {
    /// Usable images, copies included.
    pub images: u64,
    /// Images that are copies of others.
    pub copies: u64,
    /// Hidden files and folders that were not looked at.
    pub hidden: u64,
    /// Bytes of all usable images.
    pub bytes: u64,
    /// Files by the ending of their name, most first.
    pub kinds: Vec<(String, u64)>,
    /// Width and height of the smallest and the largest image by their pixels.
    pub smallest: Option<[u32; 2]>,
    /// See [`Self::smallest`].
    pub largest: Option<[u32; 2]>,
    /// Files that cannot be used, by trouble, most first.
    pub problems: Vec<(Problem, u64)>,
    /// Some of these files, with the reason.
    pub set_aside: Vec<SetAside>,
    /// Pictures with most copies first: the content, how many copies, and the paths of some of them.
    pub groups: Vec<Group>,
}

/// A picture that is there several times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Of its pixels.
    pub hash: ContentHash,
    /// How many files beyond the first.
    pub copies: u64,
    /// Paths of some of these files.
    pub paths: Vec<String>,
}

/// The first line of a list of images; see [`crate::data::Manifest`].
#[derive(Deserialize)]
struct Header {
    images: u64,
    set_aside: u64,
    hidden: u64,
}

impl Report {
    /// Of all files set aside.
    pub fn aside(&self) -> u64 {
        self.problems.iter().map(|(_, count)| count).sum()
    }

    /// Reads the list in `file` line by line: all at once would take the memory of a million images.
    fn read(file: &Path) -> Result<Self, WebError> {
        let wrong = |line: u64| {
            WebError::Bad(format!("line {line} of `{}` is damaged; look at the images again", file.display()))
        };
        let unreadable =
            |error: std::io::Error| WebError::Bad(format!("`{}` cannot be read: {error}", file.display()));
        let mut lines = BufReader::with_capacity(1 << 20, File::open(file).map_err(unreadable)?);
        let mut line = String::new();
        let mut next = |line: &mut String| {
            line.clear();
            lines.read_line(line).map_err(unreadable)
        };
        next(&mut line)?;
        let header: Header = serde_json::from_str(&line).map_err(|_| wrong(1))?;
        let mut gathered = Gathered {
            report: Self { images: header.images, hidden: header.hidden, ..Self::default() },
            ..Gathered::default()
        };
        for number in 0..header.images {
            next(&mut line)?;
            gathered.add(serde_json::from_str(&line).map_err(|_| wrong(number + 2))?);
        }
        for number in 0..header.set_aside {
            next(&mut line)?;
            gathered.set_aside(serde_json::from_str(&line).map_err(|_| wrong(header.images + number + 2))?);
        }
        Ok(gathered.finish())
    }
}

#[derive(Default)]
struct Gathered {
    report: Report,
    kinds: HashMap<String, u64>,
    problems: BTreeMap<Problem, u64>,
    groups: HashMap<ContentHash, Group>,
}

impl Gathered {
    fn add(&mut self, image: ImageRecord) {
        let report = &mut self.report;
        report.bytes += image.size_bytes;
        let size = [image.width, image.height];
        let pixels = |size: &[u32; 2]| u64::from(size[0]) * u64::from(size[1]);
        report.smallest = report.smallest.into_iter().chain([size]).min_by_key(pixels);
        report.largest = report.largest.into_iter().chain([size]).max_by_key(pixels);
        let ending = image.path.rsplit_once('.').map_or("", |(_, ending)| ending);
        match self.kinds.get_mut(ending) {
            Some(count) => *count += 1,
            None => drop(self.kinds.insert(ending.to_owned(), 1)),
        }
        if image.duplicate_of.is_some() {
            report.copies += 1;
            let new = || Group { hash: image.hash, copies: 0, paths: Vec::new() };
            let group = self.groups.entry(image.hash).or_insert_with(new);
            group.copies += 1;
            if group.paths.len() < COPIES {
                group.paths.push(image.path);
            }
        }
    }

    fn set_aside(&mut self, file: SetAside) {
        *self.problems.entry(file.problem).or_default() += 1;
        if self.report.set_aside.len() < SHOWN {
            self.report.set_aside.push(file);
        }
    }

    fn finish(self) -> Report {
        let mut kinds = BTreeMap::<String, u64>::new();
        for (ending, count) in self.kinds {
            // Image 7 of an IDX file is `file.gz#7`: what follows is no ending.
            let ending = ending.split('#').next().unwrap_or_default();
            *kinds.entry(ending.to_uppercase().replace("JPG", "JPEG")).or_default() += count;
        }
        let mut kinds: Vec<_> = kinds.into_iter().collect();
        kinds.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let mut problems: Vec<_> = self.problems.into_iter().collect();
        problems.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let mut groups: Vec<_> = self.groups.into_values().collect();
        groups.sort_by(|a, b| b.copies.cmp(&a.copies).then_with(|| a.paths.cmp(&b.paths)));
        groups.truncate(GROUPS);
        Report { kinds, problems, groups, ..self.report }
    }
}

/// Reports by list of images, each as long as the list stays the same.
#[derive(Default)]
pub struct Reports(Mutex<HashMap<PathBuf, (SystemTime, Arc<Report>)>>);

impl Reports {
    /// Of the list in `file`; `None` if there is none yet. Takes a few seconds for a million images that were scanned anew.
    ///
    /// # Errors
    /// If the list is damaged.
    pub fn of(&self, file: &Path) -> Result<Option<Arc<Report>>, WebError> {
        let Ok(changed) = fs::metadata(file).and_then(|file| file.modified()) else { return Ok(None) };
        let kept = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, report)) = kept().get(file)
            && *at == changed
        {
            return Ok(Some(report.clone()));
        }
        let report = Arc::new(Report::read(file)?);
        kept().insert(file.to_owned(), (changed, report.clone()));
        Ok(Some(report))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Manifest, Source};

    fn image(path: &str, pixels: u8, side: u32, duplicate_of: Option<u32>) -> ImageRecord {
        ImageRecord {
            path: path.into(),
            hash: ContentHash([pixels; 32]),
            width: side,
            height: side,
            size_bytes: 10,
            modified_ns: 0,
            duplicate_of,
            label: None,
            part: None,
        }
    }

    #[test]
    fn a_list_is_counted_line_by_line() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let file = folder.path().join("images.jsonl");
        let aside = |path: &str, problem| SetAside { path: path.into(), problem, reason: "<why>".into() };
        let manifest = Manifest {
            source: Source::Folder { root: folder.path().to_owned() },
            root: folder.path().to_owned(),
            classes: Vec::new(),
            images: vec![
                image("a.jpg", 1, 30, None),
                image("b.JPEG", 2, 10, None),
                image("c.png", 1, 30, Some(0)),
                image("d.png", 1, 30, Some(0)),
            ],
            set_aside: vec![
                aside("x.txt", Problem::NotAnImage),
                aside("y.txt", Problem::NotAnImage),
                aside("z.jpg", Problem::Truncated),
            ],
            hidden: 3,
        };
        let reports = Reports::default();
        assert!(reports.of(&file).expect("no list is no mistake").is_none());
        manifest.write(&file).expect("writable");
        let report = reports.of(&file).expect("its own").expect("it is there");
        assert_eq!(
            (report.images, report.copies, report.hidden, report.bytes, report.aside()),
            (4, 2, 3, 40, 3)
        );
        assert_eq!(report.kinds, [("JPEG".to_owned(), 2), ("PNG".to_owned(), 2)]);
        assert_eq!((report.smallest, report.largest), (Some([10, 10]), Some([30, 30])));
        assert_eq!(report.problems, [(Problem::NotAnImage, 2), (Problem::Truncated, 1)]);
        let paths = vec!["c.png".to_owned(), "d.png".to_owned()];
        assert_eq!(report.groups, [Group { hash: ContentHash([1; 32]), copies: 2, paths }]);
        assert!(
            Arc::ptr_eq(&report, &reports.of(&file).expect("its own").expect("it is there")),
            "read once"
        );
        fs::write(&file, "{\"images\":1,\"set_aside\":0,\"hidden\":0}\nrubbish\n").expect("writable");
        assert!(Report::read(&file).expect_err("damaged").to_string().contains("line 2"));
    }
}
