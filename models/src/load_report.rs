//! The account of a loading: what became of every parameter and every tensor.

use std::fmt;

/// What became of a parameter or a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// A parameter of the network that the file had nothing for.
    New,
    /// A parameter taken from the file in another size.
    Resized,
    /// A tensor of the file that the network has no use for.
    Ignored,
    /// A parameter taken from the file as it is.
    Loaded,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::New => "new",
            Self::Resized => "resized",
            Self::Ignored => "ignored",
            Self::Loaded => "loaded",
        })
    }
}

/// A line of the account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// What became of it.
    pub outcome: Outcome,
    /// The network's name; of what is ignored, the file's.
    pub name: String,
    /// The file's names, where they are others.
    pub from: String,
    /// Of the parameter; of what is ignored, the tensor's.
    pub shape: Vec<usize>,
    /// Why, or how.
    pub note: String,
}

/// Every parameter of a network and every tensor of a file, once each. Printed, it is a table, grouped by outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadReport {
    rows: Vec<Row>,
}

impl LoadReport {
    pub(crate) fn new(mut rows: Vec<Row>) -> Self {
        rows.sort_by(|a, b| (a.outcome, &a.name).cmp(&(b.outcome, &b.name)));
        Self { rows }
    }

    /// All lines, grouped by outcome.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Tensors with this outcome, counted as the file has them where it has them: a query, key and value that were joined
    /// are one parameter.
    pub fn count(&self, outcome: Outcome) -> usize {
        self.rows.iter().filter(|row| row.outcome == outcome).count()
    }

    /// All of it in a few words.
    pub fn summary(&self) -> String {
        let count = |outcome| format!("{} {outcome}", self.count(outcome));
        [Outcome::Loaded, Outcome::Resized, Outcome::New, Outcome::Ignored].map(count).join(", ")
    }
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shape = |row: &Row| format!("{:?}", row.shape);
        let width = |of: &dyn Fn(&Row) -> usize| self.rows.iter().map(of).max().unwrap_or(0);
        let (names, shapes) = (width(&|row| row.name.chars().count()), width(&|row| shape(row).len()));
        writeln!(f, "{}", self.summary())?;
        let mut group = None;
        for row in &self.rows {
            if group.replace(row.outcome) != Some(row.outcome) {
                writeln!(f, "\n{}", row.outcome)?;
            }
            let from = if row.from.is_empty() { String::new() } else { format!("from {}", row.from) };
            let remark = [from.as_str(), row.note.as_str()]
                .iter()
                .filter(|text| !text.is_empty())
                .copied()
                .collect::<Vec<_>>();
            let line = format!("  {:names$}  {:shapes$}  {}", row.name, shape(row), remark.join("; "));
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}
