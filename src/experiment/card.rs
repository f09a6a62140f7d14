//! What a model card needs of a run.

use std::path::Path;

use super::Finished;
use crate::data::{Manifest, Split};
use crate::inference::{Bundle, CARD, Card};

/// The model card of a finished run's bundle, of which `folder` holds the other files.
pub(super) fn card(
    folder: &Path,
    bundle: &Bundle,
    manifest: &Manifest,
    split: &Split,
    finished: &Finished,
) -> String {
    let mut labels = vec![0; bundle.classes.len()];
    for index in split.labelled.iter().chain(&split.evaluation) {
        let label = manifest.images.get(*index as usize).and_then(|image| image.label);
        if let Some(count) = label.and_then(|label| labels.get_mut(usize::from(label))) {
            *count += 1;
        }
    }
    let scores = [("test", &finished.test), ("evaluation", &finished.evaluation)];
    Card {
        bundle,
        data: manifest.root.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
        images: vec![
            ("images that can be used", manifest.images.len()),
            ("labelled, to train on", split.labelled.len()),
            ("labelled, to choose and calibrate the model", split.evaluation.len()),
            ("labelled, to test it", split.test.len()),
            ("learned from without a label", split.unlabelled.len()),
            ("left out, as copies of test images or by an expert's word", split.left_out.len()),
            ("set aside, as they cannot be used", manifest.set_aside.len()),
        ],
        labels,
        scores: scores.into_iter().filter_map(|(set, scores)| Some((set, scores.as_ref()?))).collect(),
        reliable: finished.reliable.as_ref(),
        seconds: finished.seconds,
        files: files(folder),
    }
    .to_markdown()
}

/// Files of a bundle by name, the card with them.
fn files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter(|entry| entry.path().is_file())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name != CARD && !name.starts_with('.'))
        .collect();
    names.push(CARD.to_owned());
    names.sort();
    names
}
