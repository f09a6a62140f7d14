//! Labels from and to CSV: a header, then `path,label`, the label a class's name, `not sure`, `none of these` or
//! `bad image`. Cells that a spreadsheet would compute have an apostrophe in front, see [`crate::cells`].

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::classes::Classes;
use super::labels::{ImageHash, Label, LabelEntry, LabelError, LabelStore};
use crate::cells;
use crate::config::nearest;
use crate::files::{WriteError, atomic_write};

/// A table of labels that cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CsvError {
    /// The file cannot be opened.
    #[error("cannot read the labels `{path}`", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A line is wrong; nothing of the file was taken over.
    #[error("{path}:{line}: {reason}; nothing was imported", path = path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: u64,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// The label history refuses.
    #[error(transparent)]
    Labels(#[from] LabelError),
    /// The table cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// The column in which `harvest sample` says how it chose an image.
pub const CHOSEN_BY: &str = "chosen_by";

/// Reads the labels of `file` into the history, all or none, as one action; returns how many.
///
/// `image` finds an image's content by its path relative to the project's images. Where a column says how images were chosen
/// ([`CHOSEN_BY`]), rows without a label are passed over, and the history remembers the choice.
pub fn import_labels(
    store: &mut LabelStore,
    file: &Path,
    image: impl Fn(&str) -> Option<ImageHash>,
    who: &str,
) -> Result<usize, CsvError> {
    let read = |source| CsvError::Read { path: file.to_path_buf(), source };
    let bytes = std::fs::read(file).map_err(read)?;
    let Table { labels, chosen_by } = parse(&bytes, store.classes(), image)
        .map_err(|(line, reason)| CsvError::Line { path: file.to_path_buf(), line, reason })?;
    if !labels.is_empty() {
        let from = match chosen_by.len() {
            0 => format!("csv {}", file.display()),
            _ => format!(
                "csv {}, chosen by {}",
                file.display(),
                chosen_by.into_iter().collect::<Vec<_>>().join("; ")
            ),
        };
        store.append(&labels, who, &from)?;
    }
    Ok(labels.len())
}

type Wrong = (u64, String);

/// What a file says.
struct Table {
    labels: Vec<(ImageHash, Option<Label>)>,
    /// How the labelled images were chosen, where the file tells: what `harvest sample` wrote and somebody filled in.
    chosen_by: BTreeSet<String>,
}

fn parse(bytes: &[u8], classes: &Classes, image: impl Fn(&str) -> Option<ImageHash>) -> Result<Table, Wrong> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(bytes);
    let header = reader.headers().map_err(|error| wrong(bytes, &error))?.clone();
    let column = |name: &str| {
        let reason = || format!("there is no column `{name}`; the first line must be `path,label`");
        header.iter().position(|title| title.eq_ignore_ascii_case(name)).ok_or_else(|| (1, reason()))
    };
    let (path_column, label_column) = (column("path")?, column("label")?);
    let chosen_by_column = header.iter().position(|title| title.eq_ignore_ascii_case(CHOSEN_BY));
    let mut chosen_by = BTreeSet::new();
    let mut labels = Vec::new();
    let mut seen = BTreeMap::new();
    for record in reader.records() {
        let record = record.map_err(|error| wrong(bytes, &error))?;
        let line = line_of(bytes, record.position());
        let (path, word) = (&record[path_column], &record[label_column]);
        if let Some(column) = chosen_by_column {
            if word.is_empty() {
                // Not labelled yet.
                continue;
            }
            chosen_by.insert(record[column].to_owned());
        }
        let hash = image(cells::plain(path))
            .or_else(|| image(path))
            .ok_or_else(|| (line, format!("the project has no image `{path}`")))?;
        let label = label_of(word, classes).map_err(|reason| (line, reason))?;
        match seen.insert(hash, (label, line)) {
            None => labels.push((hash, Some(label))),
            Some((earlier, _)) if earlier == label => {}
            Some((_, first)) => {
                return Err((line, format!("`{path}` is labelled differently in line {first}")));
            }
        }
    }
    Ok(Table { labels, chosen_by })
}

fn label_of(word: &str, classes: &Classes) -> Result<Label, String> {
    let state =
        || Label::STATES.iter().find(|(_, name)| name.eq_ignore_ascii_case(word)).map(|(label, _)| *label);
    let named = || classes.named(cells::plain(word)).or_else(|| classes.named(word));
    if let Some(label) = named().map(|class| Label::Class(class.id)).or_else(state) {
        return Ok(label);
    }
    let known = classes.iter().map(|class| class.name.as_str()).chain(Label::STATES.map(|(_, name)| name));
    let hint = nearest(word, known).map_or(String::new(), |name| format!("; did you mean `{name}`?"));
    Err(format!("the project has no class `{word}`{hint}"))
}

fn wrong(bytes: &[u8], error: &csv::Error) -> Wrong {
    let line = line_of(bytes, error.position());
    match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            (line, format!("there are {len} columns, but {expected_len} in the first line"))
        }
        csv::ErrorKind::Utf8 { .. } => (line, "the text is not UTF-8".into()),
        _ => (line, error.to_string()),
    }
}

/// Line of a record, from 1. The reader's own count names the empty lines before a record, and the second half of
/// a CRLF, as the record's beginning.
fn line_of(bytes: &[u8], position: Option<&csv::Position>) -> u64 {
    let start = position.map_or(0, |position| usize::try_from(position.byte()).unwrap_or(0)).min(bytes.len());
    let skipped = bytes[start..].iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    1 + bytes[..start + skipped].iter().filter(|byte| **byte == b'\n').count() as u64
}

/// Writes every current label as `path,label,who,at`, sorted by path; returns how many lines.
///
/// `paths` tells where images with this content lie; duplicates get a line each, images that have gone none.
pub fn export_labels(
    store: &LabelStore,
    file: &Path,
    paths: impl Fn(&ImageHash) -> Vec<String>,
) -> Result<usize, CsvError> {
    let mut bytes = Vec::new();
    let lines = write_labels(&store.current_entries()?, store.classes(), paths, &mut bytes)
        .expect("a vector takes every line, and all have four columns");
    atomic_write(file, &bytes)?;
    Ok(lines)
}

/// [`export_labels`] of the entries that gave images their current labels, to `out`.
///
/// # Errors
/// Those of `out`.
pub fn write_labels(
    entries: &[LabelEntry],
    classes: &Classes,
    paths: impl Fn(&ImageHash) -> Vec<String>,
    out: impl Write,
) -> std::io::Result<usize> {
    let word = |entry: &LabelEntry| match entry.label? {
        Label::Class(id) => classes.name_of(id),
        state => Label::STATES.iter().find(|(label, _)| *label == state).map(|(_, name)| *name),
    };
    let safe = |text: &str| cells::harmless(text).into_owned();
    let mut lines: Vec<[String; 4]> = entries
        .iter()
        .filter_map(|entry| Some((entry, word(entry)?)))
        .flat_map(|(entry, word)| {
            let line = move |path: String| [safe(&path), safe(word), safe(&entry.who), entry.at.to_string()];
            paths(&entry.image).into_iter().map(line)
        })
        .collect();
    lines.sort();
    let mut writer = csv::Writer::from_writer(out);
    writer.write_record(["path", "label", "who", "at"])?;
    lines.iter().try_for_each(|line| writer.write_record(line))?;
    writer.flush()?;
    Ok(lines.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(path: &str) -> Option<ImageHash> {
        let number = path.strip_prefix("leaf").and_then(|rest| rest.strip_suffix(".jpg"))?;
        Some([number.parse().ok()?; 32])
    }

    fn store(folder: &Path) -> LabelStore {
        let classes = Classes::categorical(["healthy", "brown rust"]).expect("the names are good");
        LabelStore::open(folder, &classes).expect("it can be opened")
    }

    #[test]
    fn labels_go_in_and_come_out_the_same() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let (file, out) = (folder.path().join("in.csv"), folder.path().join("out.csv"));
        let text = "label, path\nbrown rust,leaf2.jpg\n Not Sure , leaf1.jpg\nbrown rust,leaf2.jpg\n";
        std::fs::write(&file, text).expect("writable");
        let mut store = store(folder.path());
        assert_eq!(import_labels(&mut store, &file, image, "ada").expect("all is well"), 2);
        let paths = |hash: &ImageHash| vec![format!("leaf{}.jpg", hash[0])];
        assert_eq!(export_labels(&store, &out, paths).expect("all is well"), 2);
        let text = std::fs::read_to_string(&out).expect("it was written");
        let lines: Vec<_> = text.lines().map(|line| line.rsplit_once(',').expect("four columns").0).collect();
        assert_eq!(lines, ["path,label,who", "leaf1.jpg,not sure,ada", "leaf2.jpg,brown rust,ada"]);
        assert_eq!(import_labels(&mut store, &out, image, "bob").expect("what was written is good"), 2);
    }

    #[test]
    fn names_that_look_like_formulas_are_harmless_on_the_way_and_come_back() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let classes = Classes::categorical(["=1+1", "-none", "'=quoted"]).expect("the names are good");
        let mut store = LabelStore::open(folder.path(), &classes).expect("it can be opened");
        let paths = ["@x.jpg", "'=y.jpg", "=cmd|' /C calc'!A1.jpg"];
        let image = |path: &str| Some([paths.iter().position(|p| *p == path)? as u8; 32]);
        let labels = [0, 1, 2].map(|i| ([i; 32], Some(Label::Class(i.into()))));
        store.append(&labels, "+ada", "test").expect("all is well");
        let before = store.current().expect("readable");
        let out = folder.path().join("out.csv");
        let path = |hash: &ImageHash| vec![paths[usize::from(hash[0])].to_owned()];
        export_labels(&store, &out, path).expect("all is well");
        let text = std::fs::read_to_string(&out).expect("it was written");
        for line in text.lines() {
            let cells =
                csv::ReaderBuilder::new().has_headers(false).from_reader(line.as_bytes()).into_records();
            let cells = cells.map(|record| record.expect("a line")).next().expect("one");
            assert!(cells.iter().all(|cell| !cell.starts_with(['=', '+', '-', '@'])), "{line}");
        }
        store.append(&labels.map(|(image, _)| (image, None)), "ada", "test").expect("all is well");
        assert_eq!(import_labels(&mut store, &out, image, "ada").expect("what was written is good"), 3);
        assert_eq!(store.current().expect("readable"), before);
    }

    #[test]
    fn a_filled_in_round_says_how_its_images_were_chosen() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let mut store = store(folder.path());
        let file = folder.path().join("round.csv");
        let text = "path,label,chosen_by\nleaf1.jpg,healthy,typical (seed 0)\nleaf2.jpg,,typical (seed 0)\n";
        std::fs::write(&file, text).expect("writable");
        assert_eq!(import_labels(&mut store, &file, image, "ada").expect("all is well"), 1);
        let entries = store.current_entries().expect("readable");
        assert!(entries[0].from.ends_with("round.csv, chosen by typical (seed 0)"), "{}", entries[0].from);
    }

    #[test]
    fn a_bad_line_is_named_and_nothing_is_imported() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let mut store = store(folder.path());
        let file = folder.path().join("in.csv");
        for (text, message) in [
            ("path,label\nleaf1.jpg,healthy\nroot.jpg,healthy\n", "3: the project has no image `root.jpg`"),
            (
                "path,label\nleaf1.jpg,healty\n",
                "2: the project has no class `healty`; did you mean `healthy`?",
            ),
            ("path,label\nleaf1.jpg,\n", "2: the project has no class ``"),
            ("file,label\n", "1: there is no column `path`; the first line must be `path,label`"),
            ("", "1: there is no column `path`; the first line must be `path,label`"),
            ("path,label\nleaf1.jpg\n", "2: there are 1 columns, but 2 in the first line"),
            (
                "path,label\nleaf1.jpg,healthy\n\nleaf1.jpg,brown rust\n",
                "4: `leaf1.jpg` is labelled differently in line 2",
            ),
            ("path,label\r\nleaf1.jpg,healthy\r\nleaf2.jpg,x\r\n", "3: the project has no class `x`"),
        ] {
            std::fs::write(&file, text).expect("writable");
            let error = import_labels(&mut store, &file, image, "ada").expect_err(text).to_string();
            assert_eq!(error, format!("{}:{message}; nothing was imported", file.display()));
        }
        std::fs::write(&file, b"path,label\nleaf1.jpg,\xff\n").expect("writable");
        let error = import_labels(&mut store, &file, image, "ada").expect_err("not UTF-8").to_string();
        assert!(error.contains("in.csv:2: the text is not UTF-8"), "{error}");
        assert!(store.history(None).expect("readable").is_empty());
        let error =
            import_labels(&mut store, &folder.path().join("no.csv"), image, "ada").expect_err("missing");
        assert!(matches!(error, CsvError::Read { .. }), "{error}");
    }
}
