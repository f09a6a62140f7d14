//! Labels in a table: `path,label`, with an optional third column `part` (train or test).
//!
//! Comma or semicolon, with or without a byte-order mark, as spreadsheets save it. An empty label means unlabelled.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use super::Part;

/// One line of a label file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelRow {
    /// As written, without `./`.
    pub path: String,
    /// Class name or, for percentage bins, a number.
    pub label: Option<String>,
    /// Third column.
    pub part: Option<Part>,
    /// Line in the file, counted from 1.
    pub line: u64,
}

/// What is wrong with a label file, and where.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LabelsError {
    /// The operating system refuses.
    #[error("cannot read the label file `{file}`")]
    Read {
        /// The file.
        file: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The first line names other columns.
    #[error("`{file}`, line 1: the columns are `{found}`, expected `path,label` or `path,label,part`")]
    Header {
        /// The file.
        file: PathBuf,
        /// The first line.
        found: String,
    },
    /// No images listed.
    #[error("the label file `{file}` lists no images")]
    Empty {
        /// The file.
        file: PathBuf,
    },
    /// A line that cannot be understood.
    #[error("`{file}`, line {line}: {problem}")]
    Row {
        /// The file.
        file: PathBuf,
        /// Counted from 1.
        line: u64,
        /// What is wrong, and what is expected.
        problem: String,
    },
    /// An image that is not there.
    #[error(
        "`{file}`, line {line}: there is no image `{path}` in `{root}`{}; correct the path or remove the line",
        and_more(*.more)
    )]
    UnknownImage {
        /// The file.
        file: PathBuf,
        /// Of the first such image, counted from 1.
        line: u64,
        /// As written.
        path: String,
        /// Where it was looked for.
        root: PathBuf,
        /// How many more lines name images that are not there.
        more: usize,
    },
    /// A label that is not in the list of classes.
    #[error("`{file}`, line {line}: `{label}` is none of the classes ({known}); correct it or add the class")]
    UnknownClass {
        /// The file.
        file: PathBuf,
        /// Counted from 1.
        line: u64,
        /// As written.
        label: String,
        /// The classes there are.
        known: String,
    },
    /// Two opinions about one image.
    #[error(
        "`{file}`: the image `{path}` is `{first}` in line {first_line} and `{second}` in line {second_line}; \
         keep one of the lines"
    )]
    TwoLabels {
        /// The file.
        file: PathBuf,
        /// The image.
        path: String,
        /// The earlier label and part.
        first: String,
        /// Where, counted from 1.
        first_line: u64,
        /// The later label and part.
        second: String,
        /// Where, counted from 1.
        second_line: u64,
    },
}

fn and_more(more: usize) -> String {
    if more == 0 { String::new() } else { format!(" (and {more} more lines like this)") }
}

/// Reads a label file; an image listed twice with the same label counts once.
///
/// # Errors
/// [`LabelsError`], all but unknown images and classes, which only the scan can know.
pub fn read_labels(file: &Path) -> Result<Vec<LabelRow>, LabelsError> {
    let unreadable = |source| LabelsError::Read { file: file.into(), source };
    let mut bytes = Vec::new();
    std::fs::File::open(file).and_then(|mut open| open.read_to_end(&mut bytes)).map_err(unreadable)?;
    let text = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&bytes);
    let first_line = text.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let semicolons = first_line.contains(&b';') && !first_line.contains(&b',');
    let mut table =
        csv::ReaderBuilder::new().delimiter(if semicolons { b';' } else { b',' }).from_reader(text);

    let has_part = columns(file, &mut table, first_line)?;
    let mut lines = Lines { text, counted: 0, line: 1 };
    let mut rows: Vec<LabelRow> = Vec::new();
    let mut seen: HashMap<String, usize> = HashMap::new();
    for record in table.records() {
        let row = row(file, record, has_part, &mut lines)?;
        match seen.get(&row.path) {
            None => {
                seen.insert(row.path.clone(), rows.len());
                rows.push(row);
            }
            Some(&earlier) => agree(file, &rows[earlier], &row)?,
        }
    }
    if rows.is_empty() {
        return Err(LabelsError::Empty { file: file.into() });
    }
    Ok(rows)
}

/// Whether the third column is there.
fn columns(file: &Path, table: &mut csv::Reader<&[u8]>, first_line: &[u8]) -> Result<bool, LabelsError> {
    let wrong = || LabelsError::Header {
        file: file.into(),
        found: String::from_utf8_lossy(first_line).trim().chars().take(80).collect(),
    };
    let header = table.headers().map_err(|_| wrong())?;
    let names: Vec<String> = header.iter().map(|name| name.trim().to_ascii_lowercase()).collect();
    match names.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["path", "label"] => Ok(false),
        ["path", "label", "part"] => Ok(true),
        _ => Err(wrong()),
    }
}

fn row(
    file: &Path,
    record: Result<csv::StringRecord, csv::Error>,
    has_part: bool,
    lines: &mut Lines<'_>,
) -> Result<LabelRow, LabelsError> {
    let wrong = |line, problem| LabelsError::Row { file: file.into(), line, problem };
    let record = record.map_err(|error| {
        let line = lines.of(error.position());
        match error.kind() {
            csv::ErrorKind::UnequalLengths { expected_len, len, .. } => wrong(
                line,
                format!("{len} columns, expected {expected_len}; put names with commas in \"quotes\""),
            ),
            csv::ErrorKind::Utf8 { .. } => {
                wrong(line, "not UTF-8 text; save the file as \"CSV UTF-8\"".into())
            }
            _ => wrong(line, error.to_string()),
        }
    })?;
    let line = lines.of(record.position());
    let field = |column| record.get(column).unwrap_or_default();
    let path = normal(field(0)).ok_or_else(|| wrong(line, "the path is empty".into()))?;
    let label = Some(field(1).trim()).filter(|label| !label.is_empty()).map(str::to_owned);
    let part = match field(2).trim().to_ascii_lowercase().as_str() {
        _ if !has_part => None,
        "" => None,
        "train" | "training" => Some(Part::Train),
        "test" | "val" | "validation" => Some(Part::Test),
        other => return Err(wrong(line, format!("the part is `{other}`, expected train, test or nothing"))),
    };
    Ok(LabelRow { path, label, part, line })
}

/// Line numbers as an editor shows them. The reader's own are one too low in files with Windows line ends, where it
/// takes the second byte of a line end for the beginning of the next record.
struct Lines<'a> {
    text: &'a [u8],
    counted: usize,
    line: u64,
}

impl Lines<'_> {
    /// The line a record begins on; records must be asked for in order.
    fn of(&mut self, record: Option<&csv::Position>) -> u64 {
        let start = record.map_or(0, |position| position.byte() as usize).min(self.text.len());
        let blank = self.text[start..].iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        let newlines = self.text[self.counted..start + blank].iter().filter(|&&byte| byte == b'\n').count();
        self.line += newlines as u64;
        self.counted = start + blank;
        self.line
    }
}

/// Without `.` components; `None` if nothing is left.
fn normal(path: &str) -> Option<String> {
    let parts: PathBuf =
        Path::new(path).components().filter(|part| !matches!(part, Component::CurDir)).collect();
    parts.to_str().filter(|path| !path.is_empty()).map(str::to_owned)
}

fn agree(file: &Path, first: &LabelRow, second: &LabelRow) -> Result<(), LabelsError> {
    if (&first.label, first.part) == (&second.label, second.part) {
        return Ok(());
    }
    let words = |row: &LabelRow| {
        let label = row.label.as_deref().unwrap_or("unlabelled");
        match row.part {
            None => label.to_owned(),
            Some(part) => format!("{label} ({})", if part == Part::Train { "train" } else { "test" }),
        }
    };
    Err(LabelsError::TwoLabels {
        file: file.into(),
        path: first.path.clone(),
        first: words(first),
        first_line: first.line,
        second: words(second),
        second_line: second.line,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(content: &[u8]) -> Result<Vec<LabelRow>, LabelsError> {
        let folder = tempfile::tempdir().expect("temporary folder");
        let file = folder.path().join("labels.csv");
        std::fs::write(&file, content).expect("writes");
        read_labels(&file)
    }

    fn refused(content: &str) -> String {
        read(content.as_bytes()).expect_err("refused").to_string()
    }

    #[test]
    fn spreadsheets_of_all_countries_are_read() {
        for content in [
            "path,label,part\r\n./a/b.jpg,rust,train\r\n\"c, d.jpg\",,TEST\r\n",
            "\u{FEFF}Path;Label;Part\n./a/b.jpg;rust;train\nc, d.jpg;;test\n",
        ] {
            let rows = read(content.as_bytes()).expect("valid");
            assert_eq!(
                rows[0],
                LabelRow {
                    path: "a/b.jpg".into(),
                    label: Some("rust".into()),
                    part: Some(Part::Train),
                    line: 2
                }
            );
            assert_eq!(
                (rows[1].path.as_str(), &rows[1].label, rows[1].part),
                ("c, d.jpg", &None, Some(Part::Test))
            );
        }
    }

    #[test]
    fn lines_are_counted_as_editors_do() {
        for end in ["\n", "\r\n"] {
            let text = ["path,label", "a,x", "", "", "\"b\nb\",y", "c,z"].join(end);
            let lines: Vec<u64> = read(text.as_bytes()).expect("valid").iter().map(|row| row.line).collect();
            assert_eq!(lines, [2, 5, 7]);
            let wrong = refused(&format!("{text}{end}d{end}"));
            assert!(wrong.contains("line 8: 1 columns"), "{wrong}");
        }
    }

    #[test]
    fn errors_name_the_line_and_what_to_do() {
        assert!(
            refused("file,class\na,b\n")
                .contains("line 1: the columns are `file,class`, expected `path,label`")
        );
        assert!(refused("path,label\na.jpg,x\nb.jpg\n").contains("line 3: 1 columns, expected 2"));
        assert!(refused("path,label\n,x\n").contains("line 2: the path is empty"));
        assert!(refused("path,label,part\na,x,tset\n").contains("line 2: the part is `tset`"));
        assert!(refused("path,label\n").contains("lists no images"));
        assert!(refused("").contains("expected `path,label`"));
        let two = refused("path,label\na.jpg,x\nb.jpg,x\n./a.jpg,y\n");
        assert!(two.contains("`a.jpg` is `x` in line 2 and `y` in line 4"), "{two}");
        assert_eq!(read(b"path,label\na.jpg,x\na.jpg,x\n").expect("the same twice").len(), 1);
        let latin = read(b"path,label\nK\xF6ln.jpg,x\n").expect_err("Latin-1").to_string();
        assert!(latin.contains("line 2: not UTF-8"), "{latin}");
        assert!(matches!(read_labels(Path::new("/nonexistent.csv")), Err(LabelsError::Read { .. })));
    }

    proptest! {
        #[test]
        fn any_names_survive_a_csv(names in prop::collection::hash_set("[^/\0.][^/\0]{0,12}", 1..12)) {
            let mut writer = csv::Writer::from_writer(Vec::new());
            writer.write_record(["path", "label"]).expect("memory");
            for name in &names {
                writer.write_record([name, "x"]).expect("memory");
            }
            let rows = read(&writer.into_inner().expect("memory")).expect("valid");
            prop_assert_eq!(rows.into_iter().map(|row| row.path).collect::<std::collections::HashSet<_>>(), names);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = read(&bytes);
            let _ = read(&[b"path,label\n", bytes.as_slice()].concat());
        }
    }
}
