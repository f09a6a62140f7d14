//! How reliable a run's confidences are, on the images whose classes are known.

use super::Experiment;
use crate::inference::{Confidence, Reliable};
use crate::report::{ConfidenceSection, reliability_svg};
use crate::training::Outcome;

/// Which images, and what was found on them.
pub(super) type OnImages = (&'static str, Reliable);

impl Experiment<'_> {
    /// Classes of images that have one.
    pub(super) fn targets(&self, indices: &[u32]) -> Vec<usize> {
        let images = &self.dataset.manifest.images;
        indices.iter().filter_map(|index| images[*index as usize].label.map(usize::from)).collect()
    }

    /// How reliable confidences are on test and evaluation images, in that order, where there are any.
    pub(super) fn reliable(&self, confidence: Option<&Confidence>, outcome: &Outcome) -> Vec<OnImages> {
        let Some(confidence) = confidence else { return Vec::new() };
        let sets = [
            ("test", &self.split.test, &outcome.test_logits),
            ("evaluation", &self.split.evaluation, &outcome.evaluation_logits),
        ];
        let with_images = sets.into_iter().filter(|(_, indices, _)| !indices.is_empty());
        let classes = self.dataset.classes.len();
        with_images
            .map(|(name, indices, logits)| (name, confidence.check(logits, &self.targets(indices), classes)))
            .collect()
    }
}

/// The page's part on confidence.
pub(super) fn section(confidence: &Confidence, reliable: &[OnImages]) -> ConfidenceSection {
    let mut sentences = vec![confidence.temperature_sentence(), confidence.reject_sentence()];
    sentences
        .extend(reliable.iter().map(|(set, found)| format!("On the {set} images: {}.", found.sentence())));
    let diagram = |(set, found): &OnImages| {
        reliability_svg(&format!("Reliability on {set} images"), &found.before, &found.after)
    };
    ConfidenceSection { sentences, diagrams: reliable.iter().map(diagram).collect() }
}
