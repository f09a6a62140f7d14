//! What a sweep leaves: `results.csv`, a row for each run; `table.csv`, a row for each setting with means over seeds.

use std::path::PathBuf;

use super::{Labels, Planned};
use crate::experiment::Finished;
use crate::metrics::Scores;
use crate::report::Spread;

/// How a run of a sweep stands.
#[derive(Debug, Clone)]
pub enum State {
    /// Not begun.
    Waiting,
    /// Begun, and stopped or killed since, or another process is at it.
    Unfinished,
    /// Stopped by an error, in plain words; tried again by the same command.
    Failed(String),
    /// Done.
    Done(Box<Finished>),
}

impl State {
    /// In a word.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Unfinished => "unfinished",
            Self::Failed(_) => "failed",
            Self::Done(_) => "done",
        }
    }
}

/// A run of a sweep, and how it stands.
#[derive(Debug, Clone)]
pub struct Row {
    /// Algorithm.
    pub algorithm: String,
    /// Base model.
    pub model: String,
    /// Labelled images of each class.
    pub labels_per_class: Labels,
    /// Seed.
    pub seed: u64,
    /// Its folder, once it has one.
    pub folder: Option<PathBuf>,
    /// How it stands.
    pub state: State,
}

impl Row {
    pub(super) fn new(planned: &Planned, folder: Option<PathBuf>, state: State) -> Self {
        Self {
            algorithm: planned.algorithm.to_string(),
            model: planned.model.clone(),
            labels_per_class: planned.labels_per_class,
            seed: planned.seed,
            folder,
            state,
        }
    }

    /// What came of it, once it is done.
    pub fn finished(&self) -> Option<&Finished> {
        if let State::Done(finished) = &self.state { Some(finished) } else { None }
    }
}

/// Columns of `results.csv`. Shares are of 1; the mean absolute error is in percent and for percentage bins only; the
/// interval is Wilson's, 95 %; precision, recall and F1 are means over classes. `labels_per_class` is a number or `all`.
const COLUMNS: [&str; 19] = [
    "algorithm",
    "model",
    "labels_per_class",
    "seed",
    "state",
    "accuracy",
    "accuracy_low",
    "accuracy_high",
    "precision",
    "recall",
    "f1",
    "error_rate",
    "mean_absolute_error",
    "steps",
    "seconds",
    "images",
    "scored_on",
    "run",
    "reason",
];

pub(super) fn results_csv(rows: &[Row]) -> String {
    let share = |value: f64| format!("{value:.6}");
    let lines = rows.iter().map(|row| {
        let mut cells = vec![
            row.algorithm.clone(),
            row.model.clone(),
            row.labels_per_class.to_string(),
            row.seed.to_string(),
            row.state.as_str().to_owned(),
        ];
        match row.finished().and_then(|finished| Some((finished, finished.scores()?))) {
            Some((finished, (set, scores))) => {
                let (interval, average) = (scores.accuracy_interval(), &scores.macro_present);
                cells.extend(
                    [
                        scores.accuracy,
                        interval.low,
                        interval.high,
                        average.precision,
                        average.recall,
                        average.f1,
                    ]
                    .map(share),
                );
                cells.extend([
                    share(scores.error_rate),
                    scores.mean_absolute_error.map_or_else(String::new, |off| format!("{off:.4}")),
                    finished.steps.to_string(),
                    format!("{:.1}", finished.seconds),
                    scores.samples.to_string(),
                    set.to_owned(),
                ]);
            }
            None => cells.extend(std::iter::repeat_n(String::new(), 12)),
        }
        let name = row.folder.as_ref().and_then(|folder| folder.file_name());
        cells.push(name.map_or_else(String::new, |name| name.to_string_lossy().into_owned()));
        cells.push(if let State::Failed(reason) = &row.state { reason.clone() } else { String::new() });
        cells
    });
    table(&COLUMNS, lines)
}

/// What runs that differ in nothing but their seed have in common.
#[derive(Debug, Clone)]
pub(super) struct Setting {
    pub algorithm: String,
    pub model: String,
    pub labels_per_class: Labels,
    /// Finished runs.
    pub runs: usize,
    /// Runs in all.
    pub planned: usize,
    /// Accuracy, precision, recall, F1, error rate over the finished runs; `None` without any.
    pub scores: Option<[Spread; 5]>,
}

/// Rows with one setting, in the order in which settings first appear.
pub(super) fn settings(rows: &[Row]) -> Vec<Setting> {
    let key = |row: &Row| (row.algorithm.clone(), row.model.clone(), row.labels_per_class);
    let mut keys = Vec::new();
    for row in rows {
        if !keys.contains(&key(row)) {
            keys.push(key(row));
        }
    }
    let of_key = |wanted: (String, String, Labels)| {
        let own: Vec<&Row> = rows.iter().filter(|row| key(row) == wanted).collect();
        let scored: Vec<_> = own.iter().filter_map(|row| Some(row.finished()?.scores()?.1)).collect();
        let spread = |value: fn(&Scores) -> f64| {
            Spread::of(&scored.iter().map(|scores| value(scores)).collect::<Vec<_>>())
        };
        let all = || {
            Some([
                spread(|scores| scores.accuracy)?,
                spread(|scores| scores.macro_present.precision)?,
                spread(|scores| scores.macro_present.recall)?,
                spread(|scores| scores.macro_present.f1)?,
                spread(|scores| scores.error_rate)?,
            ])
        };
        let (algorithm, model, labels_per_class) = wanted;
        Setting { algorithm, model, labels_per_class, runs: scored.len(), planned: own.len(), scores: all() }
    };
    keys.into_iter().map(of_key).collect()
}

/// The published table II: means and standard deviations over seeds, shares of 1.
pub(super) fn table_csv(settings: &[Setting]) -> String {
    let names = ["accuracy", "precision", "recall", "f1", "error_rate"];
    let mut columns: Vec<String> =
        ["algorithm", "model", "labels_per_class", "runs"].map(String::from).to_vec();
    columns.extend(names.iter().flat_map(|name| [format!("{name}_mean"), format!("{name}_sd")]));
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    let lines = settings.iter().map(|setting| {
        let mut cells = vec![
            setting.algorithm.clone(),
            setting.model.clone(),
            setting.labels_per_class.to_string(),
            setting.runs.to_string(),
        ];
        match &setting.scores {
            None => cells.extend(std::iter::repeat_n(String::new(), 2 * names.len())),
            Some(scores) => cells.extend(scores.iter().flat_map(|score| {
                let deviation = score.deviation.map_or_else(String::new, |value| format!("{value:.6}"));
                [format!("{:.6}", score.mean), deviation]
            })),
        }
        cells
    });
    table(&columns, lines)
}

/// CSV text with a heading.
fn table(columns: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let written = writer.write_record(columns).and_then(|()| {
        let mut rows = rows;
        rows.try_for_each(|row| writer.write_record(&row))
    });
    written.expect("rows as long as the heading can be written to memory");
    let bytes = writer.into_inner().expect("memory does not run full of a table");
    String::from_utf8(bytes).expect("made of text")
}
