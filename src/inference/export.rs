//! Labels of all images, as files for a person or a script.

use std::io::Write;
use std::path::Path;

use crate::files::{WriteError, write_with};

/// One image with its label.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelledImage {
    /// Its number in the data set.
    pub index: u32,
    /// Its path as the user gave it.
    pub path: String,
    /// Where it lies on disk.
    pub full_path: String,
    /// Its class.
    pub class: usize,
    /// Probability of the class, in [0, 1].
    pub confidence: f32,
    /// `model`, or `expert` where a person said so.
    pub by: &'static str,
    /// Whether the model is not sure enough for its class to count; an expert always is.
    pub abstained: bool,
}

/// Writes `path,class,confidence,by,abstained`, one line an image. An image that abstained (`true`) has the most likely class
/// all the same; look at it before it counts.
///
/// # Errors
/// If the file cannot be written; what was there before is untouched.
pub fn write_labels_csv(file: &Path, images: &[LabelledImage], classes: &[String]) -> Result<(), WriteError> {
    write_with(file, |out| {
        let mut csv = csv::Writer::from_writer(out);
        csv.write_record(["path", "class", "confidence", "by", "abstained"])?;
        for image in images {
            let confidence = format!("{:.6}", image.confidence);
            let abstained = if image.abstained { "true" } else { "false" };
            csv.write_record([&image.path, &classes[image.class], &confidence, image.by, abstained])?;
        }
        csv.flush()
    })
}

/// Writes JSON: for each class the list of image indices and, index by index, the full paths. Every image is in one list, those
/// that abstained too: they are told by [`write_labels_csv`].
///
/// # Errors
/// If the file cannot be written; what was there before is untouched.
pub fn write_class_lists(
    file: &Path,
    images: &[LabelledImage],
    classes: &[String],
) -> Result<(), WriteError> {
    let lists: Vec<_> = classes
        .iter()
        .enumerate()
        .map(|(class, name)| {
            let own = || images.iter().filter(move |image| image.class == class);
            serde_json::json!({
                "class": name,
                "indices": own().map(|image| image.index).collect::<Vec<_>>(),
                "paths": own().map(|image| &image.full_path).collect::<Vec<_>>(),
            })
        })
        .collect();
    write_with(file, |out| {
        serde_json::to_writer_pretty(&mut *out, &lists)?;
        out.write_all(b"\n")
    })
}
