//! Whether unlabelled images helped: a run beside one that saw the labelled images only.

use std::path::{Path, PathBuf};

use super::{ExperimentError, Finished};
use crate::cells;
use crate::data::ContentHash;
use crate::metrics::{Paired, Verdict};

/// Files of a run folder: `image,label,prediction,confidence,abstained,hash` for each test and each evaluation image; with the name
/// of these images, those that count most first.
pub(super) const PREDICTIONS: [(&str, &str); 2] =
    [("test", "test_predictions.csv"), ("evaluation", "evaluation_predictions.csv")];
/// File of a run folder that names the run on the labelled images alone.
pub(super) const BASELINE: &str = "baseline";

/// Both runs on the same images.
#[derive(Debug, Clone)]
pub struct Comparison {
    /// The run first, the baseline second.
    pub paired: Paired,
    /// Accuracies in that order.
    pub accuracy: (f64, f64),
    /// Which images: "test", or "evaluation" where there are no test images.
    pub images: &'static str,
    /// Folder of the baseline.
    pub baseline: PathBuf,
}

impl Comparison {
    /// Reads the predictions of both runs on the test images; where there are none, on the evaluation images. `None` without
    /// either.
    ///
    /// # Errors
    /// If they cannot be read, or are of different images.
    pub fn of(run: &Path, baseline: &Finished) -> Result<Option<Self>, ExperimentError> {
        for (images, file) in PREDICTIONS {
            let (ours, theirs) = (read(&run.join(file))?, read(&baseline.folder.join(file))?);
            if !ours.is_empty() {
                return Self::on(images, &ours, &theirs, baseline.folder.join(file)).map(Some);
            }
        }
        Ok(None)
    }

    /// The finished run on the labelled images alone that `run` was compared with when it was trained.
    ///
    /// # Errors
    /// If a file of it cannot be read.
    pub fn recorded(run: &Path) -> Result<Option<(Self, Finished)>, ExperimentError> {
        let Ok(name) = std::fs::read_to_string(run.join(BASELINE)) else { return Ok(None) };
        // The name of a folder beside this one, and no way to anywhere else.
        let Some(name) = Path::new(name.trim()).file_name() else { return Ok(None) };
        let folder = run.with_file_name(name);
        if !folder.join("DONE").exists() {
            return Ok(None);
        }
        let baseline = Finished::read(&folder)?;
        Ok(Self::of(run, &baseline)?.map(|comparison| (comparison, baseline)))
    }

    fn on(
        images: &'static str,
        ours: &[(String, bool)],
        theirs: &[(String, bool)],
        file: PathBuf,
    ) -> Result<Self, ExperimentError> {
        if ours.len() != theirs.len() || ours.iter().zip(theirs).any(|(a, b)| a.0 != b.0) {
            return Err(ExperimentError::Damaged {
                path: file,
                reason: format!("it is of other {images} images"),
            });
        }
        let share =
            |of: &[(String, bool)]| of.iter().filter(|image| image.1).count() as f64 / of.len() as f64;
        Ok(Self {
            paired: Paired::count(ours.iter().zip(theirs).map(|(a, b)| (a.1, b.1))),
            accuracy: (share(ours), share(theirs)),
            images,
            baseline: file.parent().map_or_else(PathBuf::new, Path::to_owned),
        })
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
            "{begin}; {with:.1} % right with them, {without:.1} % without, on the same {} {} images.",
            self.paired.samples, self.images
        )
    }
}

/// Each image, and whether it was predicted right; none if there is no such file.
fn read(path: &Path) -> Result<Vec<(String, bool)>, ExperimentError> {
    let judged = read_judged(path)?.into_iter();
    Ok(judged.map(|image| (image.path, image.label == Some(image.class))).collect())
}

/// An image that a run was judged by.
#[derive(Debug, Clone, PartialEq)]
pub struct JudgedImage {
    /// Its path among the images.
    pub path: String,
    /// Its content, where the run is of a version that wrote it.
    pub hash: Option<ContentHash>,
    /// Its known class, as the network counts.
    pub label: Option<u16>,
    /// The class the model says.
    pub class: u16,
    /// How sure it is.
    pub confidence: f32,
    /// Whether that is too little for the class to count.
    pub abstained: bool,
}

/// The images that the scores of a run come from, and their name: "test", else "evaluation".
///
/// # Errors
/// If a file of the run is damaged.
pub fn judged_images(run: &Path) -> Result<Option<(&'static str, Vec<JudgedImage>)>, ExperimentError> {
    for (images, file) in PREDICTIONS {
        let judged = read_judged(&run.join(file))?;
        if !judged.is_empty() {
            return Ok(Some((images, judged)));
        }
    }
    Ok(None)
}

fn read_judged(path: &Path) -> Result<Vec<JudgedImage>, ExperimentError> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let damaged = |reason: String| ExperimentError::Damaged { path: path.to_owned(), reason };
    let mut reader = csv::Reader::from_path(path).map_err(|error| damaged(error.to_string()))?;
    let rows = reader.records().map(|row| {
        let row = row.map_err(|error| damaged(error.to_string()))?;
        judged(&row).ok_or_else(|| damaged(format!("`{}` is not what a run writes", row.as_slice())))
    });
    rows.collect()
}

fn judged(row: &csv::StringRecord) -> Option<JudgedImage> {
    let cell = |place: usize| row.get(place);
    Some(JudgedImage {
        path: cells::plain(cell(0)?).to_owned(),
        hash: cell(5).and_then(|hash| Some(ContentHash(*blake3::Hash::from_hex(hash).ok()?.as_bytes()))),
        label: cell(1)?.parse().ok(),
        class: cell(2)?.parse().ok()?,
        confidence: cell(3)?.parse().ok()?,
        abstained: cell(4)? == "true",
    })
}
