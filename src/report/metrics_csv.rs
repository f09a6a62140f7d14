//! `metrics.csv`: one row per logged step, in a form that a killed and resumed run leaves whole.
//!
//! The first column is `step`, strictly ascending; every other column is a number or blank. A row is written
//! with one system call and lines hold no quoted newlines, so a kill leaves at most one torn line at the end,
//! which [`MetricsLog::resume`] drops together with the rows after the step resumed from. A name not among the
//! columns yet widens the table: the file is rewritten beside itself and renamed, which happens once per name.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Why the log of a run cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetricsLogError {
    /// The file system refused.
    #[error("cannot {action} the metrics log `{path}`")]
    Io {
        /// "read", "write", …
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What it said.
        source: std::io::Error,
    },
    /// The file does not hold what this program writes.
    #[error("line {line} of the metrics log `{path}` {problem}; mend or remove the file")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Counted from 1, the header's line.
        line: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A row that does not come after the one before.
    #[error("step {step} cannot be logged after step {last}")]
    Order {
        /// The step given.
        step: u64,
        /// The last one logged.
        last: u64,
    },
    /// A column name that a line of the file cannot hold.
    #[error("`{0}` cannot name a column: it is empty or holds a comma, a quote or a line break")]
    Name(String),
}

/// The writer of `metrics.csv`.
#[derive(Debug)]
pub struct MetricsLog {
    path: PathBuf,
    file: File,
    /// Without `step`, which is always first.
    columns: Vec<String>,
    /// The last row: its step, the offset it starts at, its values.
    last: Option<(u64, u64, Vec<Option<f64>>)>,
}

impl MetricsLog {
    /// Starts a log at `path`, replacing one that is there. `columns` come after `step`, in this order.
    pub fn create(path: &Path, columns: &[&str]) -> Result<Self, MetricsLogError> {
        let table = MetricsTable { columns: checked(columns)?, ..MetricsTable::default() };
        Self::replace(path, table)
    }

    /// Continues the log of a run resumed after `step`: later rows and a torn last line are dropped.
    ///
    /// Without a file at `path` (or with one whose header was never finished) this starts a log. `columns` the
    /// file lacks are added.
    pub fn resume(path: &Path, columns: &[&str], step: u64) -> Result<Self, MetricsLogError> {
        let mut table = match MetricsTable::read(path) {
            Ok(table) => table,
            Err(MetricsLogError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                MetricsTable::default()
            }
            Err(error) => return Err(error),
        };
        for column in checked(columns)? {
            table.column_index(&column);
        }
        let kept = table.steps.partition_point(|&logged| logged <= step);
        table.steps.truncate(kept);
        table.rows.truncate(kept);
        Self::replace(path, table)
    }

    /// Logs `values` at `step`, blank where a column is not named. A second call for the same step completes
    /// its row; an earlier step is an error.
    pub fn append(&mut self, step: u64, values: &[(&str, f64)]) -> Result<(), MetricsLogError> {
        let last_step = self.last.as_ref().map(|last| last.0);
        if let Some(last) = last_step.filter(|&last| step < last) {
            return Err(MetricsLogError::Order { step, last });
        }
        if values.iter().any(|(name, _)| !self.columns.iter().any(|column| column == name)) {
            self.widen(values)?;
        }
        let mut row = match &mut self.last {
            Some((last, _, row)) if *last == step => std::mem::take(row),
            _ => Vec::new(),
        };
        row.resize(self.columns.len(), None);
        for (name, value) in values {
            let column = self.columns.iter().position(|column| column == name).expect("columns were widened");
            row[column] = Some(*value);
        }
        let written = self.write_row(step, &row, last_step == Some(step));
        let start = written.map_err(|source| io("write", &self.path, source))?;
        self.last = Some((step, start, row));
        Ok(())
    }

    /// Puts everything logged so far on the disk itself; call before a checkpoint that must agree with the log.
    pub fn sync(&self) -> Result<(), MetricsLogError> {
        self.file.sync_data().map_err(|source| io("write", &self.path, source))
    }

    /// Columns after `step`, in file order.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// Returns the offset of the row. A completed row is written over its first form, in one call as well: as
    /// it only gains digits in the usual case, not even a kill between the calls loses it.
    fn write_row(&mut self, step: u64, row: &[Option<f64>], again: bool) -> std::io::Result<u64> {
        let mut line = String::new();
        push_row(&mut line, step, row, self.columns.len());
        let start = match &self.last {
            Some((_, start, _)) if again => self.file.seek(SeekFrom::Start(*start))?,
            _ => self.file.seek(SeekFrom::End(0))?,
        };
        let end = start + line.len() as u64;
        if let Err(error) = self.file.write_all(line.as_bytes()).and_then(|()| self.file.set_len(end)) {
            // A full disk: half a row here would stand in the middle of the file if a later one fits again.
            let _ = self.file.set_len(start);
            return Err(error);
        }
        Ok(start)
    }

    /// Rewrites the file with columns for all of `values`.
    fn widen(&mut self, values: &[(&str, f64)]) -> Result<(), MetricsLogError> {
        let names: Vec<&str> = values.iter().map(|(name, _)| *name).collect();
        let mut table = MetricsTable::read(&self.path)?;
        for name in checked(&names)? {
            table.column_index(&name);
        }
        *self = Self::replace(&self.path, table)?;
        Ok(())
    }

    /// Writes `table` as the whole file, by renaming, and stands behind its last row.
    fn replace(path: &Path, table: MetricsTable) -> Result<Self, MetricsLogError> {
        let mut text = String::from("step");
        table.columns.iter().for_each(|column| write!(text, ",{column}").expect("strings can be written to"));
        text.push('\n');
        let mut start = text.len();
        for (&step, row) in table.steps.iter().zip(&table.rows) {
            start = text.len();
            push_row(&mut text, step, row, table.columns.len());
        }
        let write = || {
            let partial = path.with_extension("csv.partial");
            let mut file = File::create(&partial)?;
            file.write_all(text.as_bytes())?;
            file.sync_data()?;
            std::fs::rename(&partial, path)?;
            OpenOptions::new().read(true).write(true).open(path)
        };
        let file = write().map_err(|source| io("write", path, source))?;
        let MetricsTable { columns, steps, mut rows } = table;
        let last = steps.last().zip(rows.pop()).map(|(&step, mut row)| {
            row.resize(columns.len(), None);
            (step, start as u64, row)
        });
        Ok(Self { path: path.to_owned(), file, columns, last })
    }
}

/// A `metrics.csv` in memory.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MetricsTable {
    columns: Vec<String>,
    steps: Vec<u64>,
    /// One row per step; short rows are blank to the right.
    rows: Vec<Vec<Option<f64>>>,
}

impl MetricsTable {
    /// Reads a log, also one still being written or left by a killed run: a torn last line is left out.
    pub fn read(path: &Path) -> Result<Self, MetricsLogError> {
        let bytes = std::fs::read(path).map_err(|source| io("read", path, source))?;
        Self::parse(&bytes).map_err(|(line, problem)| MetricsLogError::Malformed {
            path: path.to_owned(),
            line,
            problem,
        })
    }

    /// Columns after `step`, in file order.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// The steps logged, ascending.
    pub fn steps(&self) -> &[u64] {
        &self.steps
    }

    /// The points (step, value) of one column, without its blanks; empty for an unknown column.
    pub fn series(&self, column: &str) -> Vec<(f64, f64)> {
        let Some(column) = self.columns.iter().position(|name| name == column) else { return Vec::new() };
        let value = |row: &Vec<Option<f64>>| row.get(column).copied().flatten();
        let points = self.steps.iter().zip(&self.rows);
        points.filter_map(|(&step, row)| Some((step as f64, value(row)?))).collect()
    }

    /// The last value of a column, with its step.
    pub fn last(&self, column: &str) -> Option<(u64, f64)> {
        self.series(column).last().map(|&(step, value)| (step as u64, value))
    }

    /// The error names the line, counted from 1, and what is wrong with it.
    fn parse(bytes: &[u8]) -> Result<Self, (usize, &'static str)> {
        // Whatever follows the last line break is torn.
        let Some(end) = bytes.iter().rposition(|&byte| byte == b'\n') else { return Ok(Self::default()) };
        let text = std::str::from_utf8(&bytes[..end]).map_err(|_| (1, "(or a later one) is not UTF-8"))?;
        let mut lines = text.split('\n').map(|line| line.trim_end_matches('\r'));
        let mut header = lines.next().unwrap_or_default().split(',');
        if header.next() != Some("step") {
            return Err((1, "does not begin with `step`"));
        }
        let mut table = Self { columns: header.map(str::to_owned).collect(), ..Self::default() };
        for (line, text) in (2..).zip(lines) {
            let (step, row) = table.parse_row(text).map_err(|problem| (line, problem))?;
            table.steps.push(step);
            table.rows.push(row);
        }
        Ok(table)
    }

    fn parse_row(&self, line: &str) -> Result<(u64, Vec<Option<f64>>), &'static str> {
        let mut fields = line.split(',');
        let step =
            fields.next().and_then(|step| step.parse().ok()).ok_or("does not begin with a step number")?;
        if self.steps.last().is_some_and(|&last| step <= last) {
            return Err("does not come after the step before it");
        }
        let parse = |field: &str| match field {
            "" => Ok(None),
            number => number.parse().map(Some).map_err(|_| "holds something that is not a number"),
        };
        let row = fields.map(parse).collect::<Result<Vec<_>, _>>()?;
        if row.len() != self.columns.len() {
            return Err("does not have one field per column");
        }
        Ok((step, row))
    }

    /// Where the column is, adding it at the right end if it is new.
    fn column_index(&mut self, name: &str) -> usize {
        self.columns.iter().position(|column| column == name).unwrap_or_else(|| {
            self.columns.push(name.to_owned());
            self.columns.len() - 1
        })
    }
}

fn checked(columns: &[&str]) -> Result<Vec<String>, MetricsLogError> {
    let mut names: Vec<String> = Vec::new();
    for &name in columns {
        if name.is_empty() || name == "step" || name.contains([',', '"', '\n', '\r']) {
            return Err(MetricsLogError::Name(name.to_owned()));
        }
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// One line, in the fewest digits that read back as the same number. Values that came from single precision are
/// written as such: 0.1, not 0.10000000149011612.
fn push_row(text: &mut String, step: u64, row: &[Option<f64>], columns: usize) {
    write!(text, "{step}").expect("strings can be written to");
    for column in 0..columns {
        text.push(',');
        match row.get(column).copied().flatten() {
            None => {}
            Some(value) if f64::from(value as f32) == value => push_number(text, value as f32),
            Some(value) => push_number(text, value),
        }
    }
    text.push('\n');
}

fn push_number(text: &mut String, number: impl std::fmt::Debug) {
    // `Debug` writes very large and very small numbers with an exponent; `Display` never does.
    write!(text, "{number:?}").expect("strings can be written to");
    if text.ends_with(".0") {
        text.truncate(text.len() - 2);
    }
}

fn io(action: &'static str, path: &Path, source: std::io::Error) -> MetricsLogError {
    MetricsLogError::Io { action, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(path: &Path) -> String {
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn rows_are_readable_as_soon_as_they_are_logged() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.csv");
        let mut log = MetricsLog::create(&path, &["loss", "lr"]).unwrap();
        log.append(1, &[("loss", f64::from(0.1f32)), ("lr", 3e-7)]).unwrap();
        log.append(2, &[("loss", 2.0)]).unwrap();
        assert_eq!(text(&path), "step,loss,lr\n1,0.1,3e-7\n2,2,\n");
        let table = MetricsTable::read(&path).unwrap();
        assert_eq!(table.series("loss"), [(1.0, 0.1), (2.0, 2.0)]);
        assert_eq!(table.last("lr"), Some((1, 3e-7)));
        assert!(table.series("other").is_empty());
    }

    #[test]
    fn new_names_widen_and_a_step_logged_twice_is_one_row() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.csv");
        let mut log = MetricsLog::create(&path, &["loss"]).unwrap();
        log.append(5, &[("loss", 1.5)]).unwrap();
        log.append(10, &[("loss", f64::NAN)]).unwrap();
        log.append(10, &[("accuracy", 0.75)]).unwrap();
        log.append(15, &[("loss", f64::INFINITY)]).unwrap();
        assert_eq!(text(&path), "step,loss,accuracy\n5,1.5,\n10,NaN,0.75\n15,inf,\n");
        assert!(matches!(log.append(14, &[]), Err(MetricsLogError::Order { step: 14, last: 15 })));
        assert!(matches!(log.append(20, &[("a,b", 1.0)]), Err(MetricsLogError::Name(_))));
        log.append(15, &[("loss", 1.0)]).unwrap();
        assert!(text(&path).ends_with("\n15,1,\n"), "a shorter row leaves nothing of the longer one");
    }

    #[test]
    fn a_run_killed_anywhere_and_resumed_holds_each_step_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.csv");
        let log_steps = |log: &mut MetricsLog, from: u64| {
            for step in from..=9 {
                log.append(step, &[("loss", 1.0 / step as f64), ("mask", step as f64)]).unwrap();
            }
        };
        log_steps(&mut MetricsLog::create(&path, &["loss", "mask"]).unwrap(), 1);
        let whole = std::fs::read(&path).unwrap();
        for length in 0..=whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            let logged = MetricsTable::read(&path).unwrap().steps().last().copied().unwrap_or(0);
            let resumed = logged.min(4); // the last checkpoint: at step 4, or earlier if killed before
            log_steps(&mut MetricsLog::resume(&path, &["loss", "mask"], resumed).unwrap(), resumed + 1);
            assert_eq!(std::fs::read(&path).unwrap(), whole, "killed after {length} bytes");
        }
    }

    #[test]
    fn resuming_completes_the_row_of_the_checkpoint_itself() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.csv");
        MetricsLog::create(&path, &["loss"]).unwrap().append(4, &[("loss", 0.5)]).unwrap();
        let mut log = MetricsLog::resume(&path, &["loss", "accuracy"], 4).unwrap();
        log.append(4, &[("accuracy", 0.25)]).unwrap();
        assert_eq!(text(&path), "step,loss,accuracy\n4,0.5,0.25\n");
    }

    #[test]
    fn a_file_of_another_kind_is_an_error_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.csv");
        for (content, wrong_line) in [
            ("path,label\na.png,1\n", 1),
            ("step,loss\n1,2\nx,3\n4,5\n", 3),
            ("step,loss\n1,2\n1,3\n", 3),
            ("step,loss\n1,2,3\n", 2),
            ("step,loss\n1,two\n", 2),
        ] {
            std::fs::write(&path, content).unwrap();
            match MetricsLog::resume(&path, &["loss"], 9) {
                Err(MetricsLogError::Malformed { line, .. }) => assert_eq!(line, wrong_line, "{content}"),
                other => panic!("{content}: {other:?}"),
            }
            assert_eq!(text(&path), content);
        }
    }
}
