//! Whether unlabelled images helped: a run beside one that saw the labelled images only.

use std::path::{Path, PathBuf};

use super::{ExperimentError, Finished};
use crate::metrics::{Paired, Verdict};

/// File of a run folder: `image,label,prediction,confidence,abstained` for each test image.
pub(super) const PREDICTIONS: &str = "test_predictions.csv";

/// Both runs on the same test images; `None` if they have none in common.
#[derive(Debug, Clone)]
pub struct Comparison {
    /// The run first, the baseline second.
    pub paired: Paired,
    /// Accuracies in that order.
    accuracy: (f64, f64),
    /// Folder of the baseline.
    pub baseline: PathBuf,
}

impl Comparison {
    /// Reads the predictions of both runs.
    ///
    /// # Errors
    /// If they cannot be read, or are of different images.
    pub fn of(run: &Path, baseline: &Finished) -> Result<Option<Self>, ExperimentError> {
        let (ours, theirs) = (read(run)?, read(&baseline.folder)?);
        if ours.is_empty() {
            return Ok(None);
        }
        if ours.len() != theirs.len() || ours.iter().zip(&theirs).any(|(a, b)| a.0 != b.0) {
            let path = baseline.folder.join(PREDICTIONS);
            return Err(ExperimentError::Damaged { path, reason: "it is of other test images".into() });
        }
        let share =
            |of: &[(String, bool)]| of.iter().filter(|image| image.1).count() as f64 / of.len() as f64;
        Ok(Some(Self {
            paired: Paired::count(ours.iter().zip(&theirs).map(|(a, b)| (a.1, b.1))),
            accuracy: (share(&ours), share(&theirs)),
            baseline: baseline.folder.clone(),
        }))
    }

    /// In plain words.
    pub fn sentence(&self) -> String {
        let text = self.paired.text();
        let begin = match self.paired.verdict() {
            Verdict::Better => format!("The unlabelled images helped by {text}"),
            Verdict::Worse => format!("With the unlabelled images it did worse by {text}"),
            Verdict::Unclear => format!("The unlabelled images made no clear difference: {text}"),
        };
        let (with, without) = (100.0 * self.accuracy.0, 100.0 * self.accuracy.1);
        format!(
            "{begin}; {with:.1} % right with them, {without:.1} % without, on the same {} test images.",
            self.paired.samples
        )
    }
}

/// Each test image, and whether it was predicted right.
fn read(folder: &Path) -> Result<Vec<(String, bool)>, ExperimentError> {
    let path = folder.join(PREDICTIONS);
    let damaged =
        |error: csv::Error| ExperimentError::Damaged { path: path.clone(), reason: error.to_string() };
    let mut reader = csv::Reader::from_path(&path).map_err(damaged)?;
    let rows = reader.records().map(|row| {
        let row = row.map_err(damaged)?;
        Ok((row[0].to_owned(), row[1] == row[2]))
    });
    rows.collect()
}
