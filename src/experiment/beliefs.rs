//! What a run's model believes of every distinct image of its data set: `beliefs.csv` in the run's folder.
//!
//! ```text
//! hash,part,class,confidence,second,second_confidence,abstained
//! 5d41…,unlabelled,3,0.912345,0,0.051234,false
//! ```
//!
//! Classes are the project's numbers, which stay when names change; without a project they count from 0. Confidences are
//! calibrated. Rows are in the order of the run's list of images, an image for all of its copies.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use harvest_models::Classifier;

use super::{Experiment, ExperimentError, Places, Shown};
use crate::data::{ContentHash, ImageCache, Manifest, Split};
use crate::files::{WriteError, write_with};
use crate::inference::{Bundle, Prediction, Predictor};
use crate::project::{Input, Project, ProjectError, Run};
use crate::report::Progress;

/// Its name in a run folder.
pub const BELIEFS: &str = "beliefs.csv";
/// The file among a run's inputs that tells the project's number of each of the network's classes.
const CLASS_IDS: &str = "class_ids.json";
/// The first line.
const HEADING: &str = "hash,part,class,confidence,second,second_confidence,abstained";
/// Images a forward pass.
const BATCH: usize = 256;

/// What an image was for the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RunPart {
    /// Its label was learned from.
    Train,
    /// Its label chose the model.
    Evaluation,
    /// Its label was looked at in the end alone.
    Test,
    /// Its label, if it had one, was not used.
    Unlabelled,
}

impl RunPart {
    const ALL: [Self; 4] = [Self::Train, Self::Evaluation, Self::Test, Self::Unlabelled];

    /// As written in the file and in addresses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Evaluation => "evaluation",
            Self::Test => "test",
            Self::Unlabelled => "unlabelled",
        }
    }

    /// The part of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|part| part.as_str() == name)
    }
}

/// What the model believes of one image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Belief {
    /// Of the image's pixels.
    pub hash: ContentHash,
    /// What the image was for the run.
    pub part: RunPart,
    /// Number of the most likely class.
    pub class: u16,
    /// Its probability, in [0, 1].
    pub confidence: f32,
    /// Number of the next class.
    pub second: u16,
    /// Its probability.
    pub second_confidence: f32,
    /// Whether the confidence is too low for the class to count.
    pub abstained: bool,
}

/// A network with what it was trained on.
pub(super) struct Believer<'a> {
    pub network: &'a Classifier,
    pub bundle: &'a Bundle,
    pub manifest: &'a Manifest,
    pub split: &'a Split,
    /// Number of each class.
    pub class_ids: &'a [u16],
}

impl Believer<'_> {
    /// Looks at every distinct image and writes `file`. `advance` is told how many are done; when it says no, nothing is
    /// written and the answer is `false`.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(
        &self,
        cache: &ImageCache,
        file: &Path,
        advance: impl FnMut(u64) -> bool,
    ) -> Result<bool, WriteError> {
        match write_with(file, |out| self.write_rows(cache, &mut BufWriter::new(out), advance)) {
            Err(error) if error.source.kind() == io::ErrorKind::Interrupted => Ok(false),
            written => written.map(|()| true),
        }
    }

    fn write_rows(
        &self,
        cache: &ImageCache,
        out: &mut dyn Write,
        mut advance: impl FnMut(u64) -> bool,
    ) -> io::Result<()> {
        let parts = self.parts();
        let distinct: Vec<u32> = (0u32..)
            .zip(&self.manifest.images)
            .filter(|(_, image)| image.duplicate_of.is_none())
            .map(|(index, _)| index)
            .collect();
        writeln!(out, "{HEADING}")?;
        let how = &self.bundle.preprocessing.normalisation;
        let predictor = Predictor::new(self.network, cache.size() as usize, how, BATCH);
        let mut result = Ok(());
        predictor.logits(distinct.iter().map(|index| cache.image(*index)), |first, logits| {
            let rows = logits.chunks_exact(self.bundle.classes.len());
            result = rows.zip(&distinct[first..]).try_for_each(|(logits, index)| {
                let (index, said) = (*index as usize, self.bundle.predict(logits));
                self.write_row(out, &self.manifest.images[index].hash, parts[index], &said)
            });
            let done = distinct.len().min(first + BATCH);
            if result.is_ok() && !advance(done as u64) {
                result = Err(io::ErrorKind::Interrupted.into());
            }
            result.is_ok()
        });
        result?;
        out.flush()
    }

    fn write_row(
        &self,
        out: &mut dyn Write,
        hash: &ContentHash,
        part: RunPart,
        said: &Prediction,
    ) -> io::Result<()> {
        let second = second_of(said);
        writeln!(
            out,
            "{hash},{},{},{:.6},{},{:.6},{}",
            part.as_str(),
            self.class_ids[said.class],
            said.confidence,
            self.class_ids[second],
            said.probabilities[second],
            said.abstained
        )
    }

    /// What each image was for the run: that of whichever of its copies was used.
    fn parts(&self) -> Vec<RunPart> {
        let mut parts = vec![RunPart::Unlabelled; self.manifest.images.len()];
        let used = [
            (RunPart::Train, &self.split.labelled),
            (RunPart::Evaluation, &self.split.evaluation),
            (RunPart::Test, &self.split.test),
        ];
        for (part, indices) in used {
            for index in indices {
                parts[self.manifest.first_of_group(*index) as usize] = part;
            }
        }
        parts
    }
}

/// The most likely class but for the first.
fn second_of(said: &Prediction) -> usize {
    let others = said.probabilities.iter().enumerate().filter(|(class, _)| *class != said.class);
    // The first of equals, as everywhere.
    others
        .reduce(|best, other| if other.1 > best.1 { other } else { best })
        .map_or(said.class, |(class, _)| class)
}

impl Experiment<'_> {
    /// Writes [`BELIEFS`] if the run belongs to a project, whose pages show them. Asked to stop, it leaves them out: the model is
    /// ready, and they can be made later.
    pub(super) fn write_beliefs(
        &self,
        run: &Run,
        (bundle, network): (&Bundle, &Classifier),
        cache: &ImageCache,
        progress: &Shown,
        stop: &AtomicBool,
    ) -> Result<(), ExperimentError> {
        if self.places.project.is_none() {
            return Ok(());
        }
        let class_ids = match read_class_ids(run)? {
            Some(ids) => ids,
            // The run was begun by an earlier version.
            None => class_ids(self.places, self.dataset.classes.names())?,
        };
        let (manifest, split) = (&self.dataset.manifest, self.split);
        let believer = Believer { network, bundle, manifest, split, class_ids: &class_ids };
        let bar = progress.begin("predicting", distinct(manifest));
        let written = believer.write(cache, &run.path(BELIEFS), going_on(&bar, stop))?;
        match written {
            true => bar.finish(),
            false => bar.milestone("stopped; `harvest labels` can do this later"),
        }
        progress.phase("report");
        Ok(())
    }

    /// The file among the inputs that keeps the project's numbers of the classes.
    pub(super) fn class_ids_input(&self) -> Result<Option<Input>, ExperimentError> {
        if self.places.project.is_none() {
            return Ok(None);
        }
        let ids = class_ids(self.places, self.dataset.classes.names())?;
        let bytes = serde_json::to_vec(&ids).expect("numbers are plain data");
        Ok(Some(Input::new(CLASS_IDS, bytes)))
    }
}

/// Tells `bar` how many are done, and to go on until asked to stop.
pub(super) fn going_on<'a>(bar: &'a Progress, stop: &'a AtomicBool) -> impl FnMut(u64) -> bool + 'a {
    move |done| {
        bar.set(done);
        !stop.load(Ordering::Relaxed)
    }
}

/// How many different images there are.
pub(super) fn distinct(manifest: &Manifest) -> u64 {
    manifest.images.iter().filter(|image| image.duplicate_of.is_none()).count() as u64
}

/// The project's numbers of the network's classes, as frozen with the run.
///
/// # Errors
/// If the file is damaged.
pub fn read_class_ids(run: &Run) -> Result<Option<Vec<u16>>, ExperimentError> {
    let path = run.path("inputs").join(CLASS_IDS);
    match std::fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ExperimentError::Damaged { path, reason: error.to_string() }),
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| ExperimentError::Damaged { path, reason: error.to_string() }),
    }
}

/// The project's numbers of the classes called `names`; counted from 0 without a project.
pub(super) fn class_ids(places: &Places, names: &[String]) -> Result<Vec<u16>, ExperimentError> {
    let Some(folder) = &places.project else { return Ok((0..names.len() as u16).collect()) };
    let classes = match &places.frozen {
        Some(frozen) => frozen.classes.clone(),
        None => {
            let damaged = |error: ProjectError| ExperimentError::Damaged {
                path: folder.join(crate::project::FILE),
                reason: error.to_string(),
            };
            Project::open(folder).map_err(damaged)?.classes().clone()
        }
    };
    let now: Vec<(&str, u16)> = classes.iter().map(|class| (class.name.as_str(), class.id)).collect();
    let by_name = names.iter().map(|name| now.iter().find(|(other, _)| other == name).map(|(_, id)| *id));
    if let Some(ids) = by_name.clone().collect::<Option<Vec<_>>>() {
        return Ok(ids);
    }
    // A class that was renamed while the images were scanned: all others are where they were.
    let in_place = now.len() == names.len()
        && by_name.zip(&now).all(|(found, (_, id))| found.is_none_or(|found| found == *id));
    match in_place {
        true => Ok(now.into_iter().map(|(_, id)| id).collect()),
        false => Err(ExperimentError::ClassesChanged),
    }
}

/// The rows of a file of beliefs, one after the other.
pub struct Beliefs {
    path: PathBuf,
    reader: BufReader<File>,
    text: String,
    line: u64,
}

impl Beliefs {
    /// Opens [`BELIEFS`] of a run folder; `None` if the run has none.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn open(path: &Path) -> Result<Option<Self>, ExperimentError> {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(|error| damaged(path, error.to_string()))?,
        };
        let reader = BufReader::with_capacity(1 << 18, file);
        let mut beliefs = Self { path: path.to_owned(), reader, text: String::new(), line: 0 };
        beliefs.advance()?;
        match beliefs.text.trim_end() {
            HEADING => Ok(Some(beliefs)),
            _ => Err(damaged(path, format!("its first line is not `{HEADING}`"))),
        }
    }

    /// Reads a line; `false` at the end.
    fn advance(&mut self) -> Result<bool, ExperimentError> {
        self.text.clear();
        self.line += 1;
        let read = self.reader.read_line(&mut self.text);
        Ok(read.map_err(|error| damaged(&self.path, error.to_string()))? > 0)
    }
}

impl Iterator for Beliefs {
    type Item = Result<Belief, ExperimentError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.advance() {
            Ok(false) => None,
            Err(error) => Some(Err(error)),
            Ok(true) => {
                let reason = || format!("line {} is none of beliefs", self.line);
                Some(parse(self.text.trim_end()).ok_or_else(|| damaged(&self.path, reason())))
            }
        }
    }
}

fn damaged(path: &Path, reason: String) -> ExperimentError {
    let reason = format!("{reason}; remove the file, and `harvest labels` on its run makes it anew");
    ExperimentError::Damaged { path: path.to_owned(), reason }
}

fn parse(line: &str) -> Option<Belief> {
    let mut cells = line.split(',');
    let mut next = || cells.next();
    let likely = |text: &str| text.parse::<f32>().ok().filter(|value| (0.0..=1.0).contains(value));
    let belief = Belief {
        hash: ContentHash(*blake3::Hash::from_hex(next()?).ok()?.as_bytes()),
        part: RunPart::named(next()?)?,
        class: next()?.parse().ok()?,
        confidence: likely(next()?)?,
        second: next()?.parse().ok()?,
        second_confidence: likely(next()?)?,
        abstained: next()?.parse().ok()?,
    };
    next().is_none().then_some(belief)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::super::testing::{CLASSES, World};
    use super::*;
    use crate::experiment::FinishedRun;
    use crate::project::{Label, LabelStore};

    #[test]
    fn a_row_comes_back_and_a_damaged_one_is_named() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join(BELIEFS);
        assert!(Beliefs::open(&path).expect("nothing is no error").is_none());
        let hash = ContentHash([0xab; 32]);
        std::fs::write(&path, format!("{HEADING}\n{hash},test,7,0.750000,2,0.125000,true\n{hash},x\n"))
            .expect("writable");
        let mut rows = Beliefs::open(&path).expect("readable").expect("there");
        let row = rows.next().expect("a row").expect("a good one");
        let expected = Belief {
            hash,
            part: RunPart::Test,
            class: 7,
            confidence: 0.75,
            second: 2,
            second_confidence: 0.125,
            abstained: true,
        };
        assert_eq!(row, expected);
        let error = rows.next().expect("a row").expect_err("a bad one").to_string();
        assert!(error.contains("line 3"), "{error}");
        assert!(rows.next().is_none());
        std::fs::write(&path, "path,label\n").expect("writable");
        assert!(Beliefs::open(&path).is_err());
    }

    #[test]
    fn the_beliefs_of_a_real_run_are_the_networks_own() {
        let world = World::new();
        let finished = world.train(&[], None);
        let read = || -> Vec<Belief> {
            let rows = Beliefs::open(&finished.folder.join(BELIEFS)).expect("readable").expect("there");
            rows.collect::<Result<_, _>>().expect("good rows")
        };
        let rows = read();
        let run = FinishedRun::open(&finished.folder, &Device::flex()).expect("finished");
        let cache =
            run.cache(&world.project.cache(), &Shown::new(true), &AtomicBool::new(false)).expect("images");
        let distinct: Vec<u32> = (0..run.manifest.images.len() as u32)
            .filter(|index| run.manifest.images[*index as usize].duplicate_of.is_none())
            .collect();
        assert_eq!((rows.len(), run.manifest.images.len()), (30, 32), "copies have no rows of their own");
        assert_eq!(rows.len() as u64, run.distinct_images());
        let own = run.probabilities(&cache, &distinct, |_| true).expect("to the end");
        for ((row, index), own) in rows.iter().zip(&distinct).zip(own.chunks_exact(CLASSES.len())) {
            assert_eq!(row.hash, run.manifest.images[*index as usize].hash);
            let best = crate::metrics::argmax(own);
            assert_eq!(row.class, CLASSES[best].0, "numbers are the project's");
            // Six evaluation images are too few to calibrate: confidences are the network's.
            assert!((row.confidence - own[best]).abs() < 1e-4, "{row:?} {own:?}");
            let second = CLASSES.iter().position(|(id, _)| *id == row.second).expect("a class");
            assert!(second != best && (row.second_confidence - own[second]).abs() < 1e-4, "{row:?} {own:?}");
        }
        let count = |part| rows.iter().filter(|row| row.part == part).count();
        assert_eq!(count(RunPart::Train), run.split.labelled.len());
        assert_eq!(count(RunPart::Evaluation), run.split.evaluation.len());
        assert_eq!(count(RunPart::Evaluation), 6);
        assert_eq!(count(RunPart::Unlabelled), 30 - 18);
        // The cells of the confusion matrix are these rows.
        let confusion = &finished.evaluation.as_ref().expect("evaluated").confusion;
        let labels = LabelStore::read(world.project.dir()).expect("readable");
        for (target, (label, _)) in CLASSES.iter().enumerate() {
            for (said, (class, _)) in CLASSES.iter().enumerate() {
                let own = rows.iter().filter(|row| {
                    row.part == RunPart::Evaluation
                        && row.class == *class
                        && labels.get(&row.hash.0) == Some(&Label::Class(*label))
                });
                assert_eq!(own.count() as u64, confusion.count(target, said));
            }
        }
        // Made again, later: the same, whatever the classes are called by then.
        let text = std::fs::read_to_string(world.project.file()).expect("readable");
        std::fs::write(world.project.file(), text.replace("\"mildew\"", "\"powdery mildew\""))
            .expect("writable");
        let again = world.path().join("again.csv");
        assert!(run.write_beliefs(&cache, &again, |_| true).expect("written"));
        let bytes = |path: &Path| std::fs::read(path).expect("readable");
        assert_eq!(bytes(&again), bytes(&finished.folder.join(BELIEFS)));
        let stopped = world.path().join("stopped.csv");
        assert!(!run.write_beliefs(&cache, &stopped, |_| false).expect("stopping is no error"));
        assert!(!stopped.exists(), "nothing half done is left");
        // A run of an earlier version: the numbers are found by the names, or it is said that they are not.
        std::fs::remove_file(finished.folder.join("inputs").join(CLASS_IDS)).expect("there");
        std::fs::write(world.project.file(), &text).expect("writable");
        assert!(run.write_beliefs(&cache, &again, |_| true).expect("written"));
        assert_eq!(bytes(&again), bytes(&finished.folder.join(BELIEFS)));
        std::fs::write(world.project.file(), text.replace("7 = \"mildew\"\n", "")).expect("writable");
        assert!(matches!(run.write_beliefs(&cache, &again, |_| true), Err(ExperimentError::ClassesChanged)));
    }

    #[test]
    fn the_second_class_is_the_best_of_the_others() {
        let said = |probabilities: Vec<f32>, class| Prediction {
            class,
            confidence: probabilities[class],
            probabilities,
            abstained: false,
        };
        assert_eq!(second_of(&said(vec![0.2, 0.5, 0.3], 1)), 2);
        assert_eq!(second_of(&said(vec![0.5, 0.25, 0.25], 0)), 1);
        assert_eq!(second_of(&said(vec![1.0], 0)), 0);
    }
}
