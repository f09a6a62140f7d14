//! A finished run, read back from its folder alone.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use burn::tensor::Device;
use harvest_models::Classifier;

use super::beliefs::{self, Believer, read_class_ids};
use super::execute::run_name;
use super::{Dataset, ExperimentError, Finished, Labelling, Places, Shown};
use crate::data::{ImageCache, Manifest, Split};
use crate::files::atomic_write;
use crate::inference::onnx::Storage;
use crate::inference::{Bundle, CARD, Prediction, Predictor, Reliable, drawn_picture, softmax_row};
use crate::metrics::{Interval, Paired, Scores};
use crate::project::{LabelStore, Project, Run, RunState};
use crate::training::evaluate_each;

/// Images a forward pass.
const BATCH: usize = 256;

/// The frozen inputs of a run and the model that came of it.
pub struct FinishedRun {
    /// The run folder.
    pub folder: PathBuf,
    /// Classes and preprocessing.
    pub bundle: Bundle,
    /// The images it was trained on.
    pub manifest: Manifest,
    /// Their division.
    pub split: Split,
    network: Classifier,
}

impl FinishedRun {
    /// Reads the folder; the network is on `device`.
    ///
    /// # Errors
    /// If it is no run, or one that is not at its end.
    pub fn open(folder: &Path, device: &Device) -> Result<Self, ExperimentError> {
        let run = Run::open(folder)?;
        if !matches!(run.state()?, RunState::Done(_)) {
            return Err(ExperimentError::Unfinished { path: folder.to_owned() });
        }
        let split = serde_json::from_slice(&run.input("split.json")?).map_err(|error| {
            ExperimentError::Damaged { path: run.path("inputs/split.json"), reason: error.to_string() }
        })?;
        let manifest = Manifest::read(&run.path("inputs/images.jsonl"))?;
        Split::belongs_to(&split, &manifest)?;
        let (bundle, network) = Bundle::read(&run.path("bundle"), device)?;
        Ok(Self { folder: folder.to_owned(), bundle, manifest, split, network })
    }

    /// The images at the network's size; built in the run folder's own `cache` if the shared one is gone.
    ///
    /// # Errors
    /// If images are gone too.
    pub fn cache(
        &self,
        folder: &Path,
        progress: &Shown,
        stop: &AtomicBool,
    ) -> Result<ImageCache, ExperimentError> {
        Dataset::cache(&self.manifest, folder, self.bundle.preprocessing.size, progress, stop)
    }

    /// Writes the bundle with its ONNX files to a new folder. With `int8` there is one more in eight bits, scored on the
    /// run's evaluation and test images. Without `cache` the self-test's picture is a drawn one, and nothing is scored.
    ///
    /// # Errors
    /// If a file cannot be written, or does not give the network's answers.
    pub fn export(
        &self,
        folder: &Path,
        cache: Option<&ImageCache>,
        int8: bool,
    ) -> Result<Bundle, ExperimentError> {
        let mut bundle = self.bundle.clone();
        bundle.about.entry("run".to_owned()).or_insert_with(|| run_name(&self.folder));
        if int8 {
            self.score_int8(&mut bundle, cache)?;
        }
        let first = self.split.evaluation.iter().chain(&self.split.labelled).next();
        let picture = match (cache, first) {
            (Some(cache), Some(index)) => cache.image(*index).to_vec(),
            _ => drawn_picture(bundle.preprocessing.size as usize),
        };
        bundle.export(folder, &self.network, &picture, int8)?;
        self.write_card_of(&bundle, folder)?;
        Ok(bundle)
    }

    /// Puts the accuracy of the network in eight bits beside its own, and how much of the difference chance explains.
    fn score_int8(&self, bundle: &mut Bundle, cache: Option<&ImageCache>) -> Result<(), ExperimentError> {
        let onnx = self.bundle.onnx(&self.network, Storage::Int8)?;
        let int8 = self.bundle.network_of(&onnx, &self.network.device().inner())?;
        for (name, indices) in [("evaluation", &self.split.evaluation), ("test", &self.split.test)] {
            let key = format!("int8 {name} accuracy");
            match cache {
                _ if indices.is_empty() => {}
                Some(cache) => {
                    let own = self.scores_of(&self.network, cache, indices);
                    let small = self.scores_of(&int8, cache, indices);
                    let rights = |logits: &[f32]| self.right(logits, indices);
                    let paired = Paired::count(rights(&small.1).into_iter().zip(rights(&own.1)));
                    let accuracy = |scores: &Scores| format!("{:.4}", scores.accuracy);
                    bundle.about.entry(format!("{name} accuracy")).or_insert_with(|| accuracy(&own.0));
                    bundle.about.insert(key, accuracy(&small.0));
                    bundle.about.insert(format!("int8 {name} loss"), loss(&paired));
                }
                None => {
                    bundle.about.insert(key, "not measured: the images are gone".to_owned());
                }
            }
        }
        Ok(())
    }

    /// Whether each of the images `indices` gets its own class by `logits`, a row for each.
    fn right(&self, logits: &[f32], indices: &[u32]) -> Vec<bool> {
        let rows = logits.chunks_exact(self.bundle.classes.len());
        let label = |index: &u32| self.manifest.images[*index as usize].label.map(usize::from);
        rows.zip(indices)
            .map(|(row, index)| Some(Prediction::from_logits(row).class) == label(index))
            .collect()
    }

    /// Writes the model card of [`Self::bundle`], with what is known about it by now.
    ///
    /// # Errors
    /// If the run's results cannot be read, or the card not be written.
    pub fn write_card(&self, folder: &Path) -> Result<(), ExperimentError> {
        self.write_card_of(&self.bundle, folder)
    }

    fn write_card_of(&self, bundle: &Bundle, folder: &Path) -> Result<(), ExperimentError> {
        let finished = Finished::read(&self.folder)?;
        let card = super::card::card(folder, bundle, &self.manifest, &self.split, &finished);
        Ok(atomic_write(&folder.join(CARD), card.as_bytes())?)
    }

    /// Scores on the images `indices`, all of which have a known label, and how reliable confidences are there.
    pub fn scores(&self, cache: &ImageCache, indices: &[u32]) -> (Scores, Option<Reliable>) {
        let (scores, logits) = self.scores_of(&self.network, cache, indices);
        let targets: Vec<usize> = indices
            .iter()
            .filter_map(|index| self.manifest.images[*index as usize].label.map(usize::from))
            .collect();
        let confidence = self.bundle.confidence.as_ref();
        let reliable =
            confidence.map(|confidence| confidence.check(&logits, &targets, self.bundle.classes.len()));
        (scores, reliable)
    }

    /// Scores of `network`, and its logits, an image after the other.
    fn scores_of(&self, network: &Classifier, cache: &ImageCache, indices: &[u32]) -> (Scores, Vec<f32>) {
        let labels: Vec<Option<u16>> = self.manifest.images.iter().map(|image| image.label).collect();
        let classes = self.bundle.classes.len();
        let normalisation = &self.bundle.preprocessing.normalisation;
        let (scores, logits) = evaluate_each(network, cache, indices, &labels, classes, normalisation);
        (if self.bundle.class_kind.is_ordered() { scores.in_percent() } else { scores }, logits)
    }

    /// Class probabilities of the images `indices`, `[images, classes]` row by row: the softmax of the logits, not calibrated.
    /// `advance` is told how many are done, and whether to go on is asked of it: `None` if it says no before the end.
    pub fn probabilities(
        &self,
        cache: &ImageCache,
        indices: &[u32],
        mut advance: impl FnMut(u64) -> bool,
    ) -> Option<Vec<f32>> {
        let (classes, how) = (self.bundle.classes.len(), &self.bundle.preprocessing);
        let predictor = Predictor::new(&self.network, cache.size() as usize, &how.normalisation, BATCH);
        let mut all = Vec::with_capacity(indices.len() * classes);
        predictor.logits(indices.iter().map(|index| cache.image(*index)), |_, logits| {
            all.extend(logits.chunks_exact(classes).flat_map(softmax_row));
            advance((all.len() / classes) as u64)
        });
        (all.len() == indices.len() * classes).then_some(all)
    }

    /// Looks at every distinct image and writes what the model believes to `file`. `advance` is told how many are done, and
    /// whether to go on is asked of it: `false` if it says no before the end, and nothing is written.
    ///
    /// # Errors
    /// If the project's classes are no longer the run's, or the file cannot be written.
    pub fn write_beliefs(
        &self,
        cache: &ImageCache,
        file: &Path,
        advance: impl FnMut(u64) -> bool,
    ) -> Result<bool, ExperimentError> {
        let class_ids = match read_class_ids(&Run::open(&self.folder)?)? {
            Some(ids) => ids,
            None => beliefs::class_ids(&self.places(), &self.bundle.classes)?,
        };
        let Self { network, bundle, manifest, split, .. } = self;
        Ok(Believer { network, bundle, manifest, split, class_ids: &class_ids }
            .write(cache, file, advance)?)
    }

    /// How many different images there are to look at.
    pub fn distinct_images(&self) -> u64 {
        beliefs::distinct(&self.manifest)
    }

    /// The labels of its images: in a project where experts have labelled, theirs as they are now; else those the run was given
    /// to train on and to choose the model by.
    ///
    /// # Errors
    /// If the project's labels cannot be read.
    pub fn labelling(&self) -> Result<Labelling, ExperimentError> {
        let labelling = Labelling::new(&self.folder, &self.bundle.classes)?;
        if let Some(project) = self.project() {
            let labels = LabelStore::read(project.dir())?;
            if !labels.is_empty() {
                return Ok(labelling.of_experts(labels, project.classes()));
            }
        }
        let mut given: Vec<u32> = self.split.labelled.iter().chain(&self.split.evaluation).copied().collect();
        given.sort_unstable();
        let label = |index: u32| Some((index, self.manifest.images[index as usize].label?));
        Ok(labelling.given(given.into_iter().filter_map(label).collect()))
    }

    /// The project whose run it is.
    fn project(&self) -> Option<Project> {
        let folder = std::path::absolute(&self.folder).ok()?;
        Project::open(folder.parent()?.parent()?).ok()
    }

    fn places(&self) -> Places {
        match self.project() {
            Some(project) => Places::in_project(&project),
            None => Places::in_runs(self.folder.parent().unwrap_or(Path::new(".")), &self.manifest.root),
        }
    }
}

/// What eight bits cost, `paired` being these and the full weights: "0.40 points (95 % interval -0.10 to 0.90): of 4000
/// images 65 became wrong and 49 right".
fn loss(paired: &Paired) -> String {
    let Interval { low, high } = paired.interval();
    format!(
        "{:.2} points (95 % interval {:.2} to {:.2}): of {} images {} became wrong and {} right",
        // Not the negative of zero.
        0.0 - 100.0 * paired.difference(),
        0.0 - 100.0 * high,
        0.0 - 100.0 * low,
        paired.samples,
        paired.second_only,
        paired.first_only,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_is_told_with_its_interval_and_a_gain_as_a_negative_one() {
        let worse = loss(&Paired { samples: 800, first_only: 3, second_only: 11 });
        assert!(worse.starts_with("1.00 points (95 % interval 0.0"), "{worse}");
        assert!(worse.ends_with("of 800 images 11 became wrong and 3 right"), "{worse}");
        let better = loss(&Paired { samples: 800, first_only: 11, second_only: 3 });
        assert!(better.starts_with("-1.00 points (95 % interval -"), "{better}");
        let same = loss(&Paired { samples: 800, first_only: 0, second_only: 0 });
        assert!(same.starts_with("0.00 points (95 % interval -0."), "{same}");
    }
}
