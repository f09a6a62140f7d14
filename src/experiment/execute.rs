//! One run from its folder to its results.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use burn::tensor::Device;
use harvest_models::ClassifierConfig;
use serde::{Deserialize, Serialize};

use super::scale::Scale;
use super::self_training::Taught;
use super::{Dataset, ExperimentError, Places, Shown, Team};
use crate::algorithms::{AlgorithmBuilder, AlgorithmName};
use crate::config::{ModelConfig, Resolved};
use crate::data::{ImageCache, Progress as _, Split};
use crate::device;
use crate::inference::Reliable;
use crate::jobs;
use crate::metrics::Scores;
use crate::project::{Input, Run, RunError, RunPlan, RunState};
use crate::training::checkpoint::Checkpoints;
use crate::training::{Job, Outcome, Setup, TrainError, not_rounded, train};
use crate::weights;

/// File of a run folder that holds a [`Finished`].
pub(super) const RESULT: &str = "result.json";

/// Everything a run needs, checked before its first step.
pub struct Experiment<'a> {
    /// All settings, with their origins.
    pub config: &'a Resolved,
    /// The algorithm: that of `config`, or one of another crate.
    pub algorithm: &'a dyn AlgorithmBuilder,
    /// The images.
    pub dataset: &'a Dataset,
    /// Their division.
    pub split: &'a Split,
    /// The network.
    pub model: ClassifierConfig,
    /// Where to compute.
    pub device: Device,
    /// Where lists, caches and runs are kept.
    pub places: &'a Places,
    /// A finished run on the same labelled images alone, to compare with in the report.
    pub baseline: Option<&'a Finished>,
    /// The ranks that do it together.
    pub team: &'a Team,
}

/// What is left of a run for its user; kept in the run folder as `result.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Finished {
    /// Its folder.
    #[serde(skip)]
    pub folder: PathBuf,
    /// Scores on the evaluation images, if there are any.
    pub evaluation: Option<Scores>,
    /// Scores on the test images, if there are any.
    pub test: Option<Scores>,
    /// Seconds of training over all sessions.
    pub seconds: f64,
    /// Steps of the run.
    pub steps: u64,
    /// How reliable confidences are, on the images of [`Self::scores`].
    #[serde(default)]
    pub reliable: Option<Reliable>,
}

/// What came of training, before it is written up.
pub(super) struct Trained {
    pub outcome: Outcome,
    pub taught: Option<Taught>,
    pub scale: Scale,
    pub cache: ImageCache,
}

/// The network that a configuration asks for, with `classes` classes.
///
/// # Errors
/// If there is no such preset, or its settings contradict each other.
pub fn network_config(
    settings: &ModelConfig,
    classes: usize,
) -> Result<ClassifierConfig, harvest_models::ConfigError> {
    let size = settings.image_size.map(|size| size as usize);
    let mut config = ClassifierConfig::preset(&settings.name, classes)?.with_image_size(size);
    let own = match &mut config {
        ClassifierConfig::Vit(vit) => Some(&mut vit.drop_path),
        ClassifierConfig::ResNet(_) => None,
        ClassifierConfig::EfficientNet(net) => Some(&mut net.drop_path),
        ClassifierConfig::ConvNext(net) => Some(&mut net.drop_path),
    };
    if let (Some(own), Some(asked)) = (own, settings.drop_path) {
        *own = asked;
    }
    config.validate()?;
    Ok(config)
}

impl Experiment<'_> {
    /// Trains in a new run folder, or goes on with an unfinished run of the same configuration and inputs unless
    /// `fresh`.
    ///
    /// # Errors
    /// Whatever stops it. The run folder then says so in plain words, and keeps its checkpoints.
    pub fn execute(
        &self,
        fresh: bool,
        arguments: &[String],
        progress: &Shown,
        stop: &AtomicBool,
    ) -> Result<Finished, ExperimentError> {
        self.check()?;
        let mut plan = self.plan()?;
        let unfinished = self.team.decide(|| self.unfinished(fresh, &plan))?;
        let run = match unfinished {
            Some(folder) => folder,
            None => {
                plan.derived = self.train_members(fresh, arguments, progress, stop)?;
                plan.derived.push(Scale::of(&self.config.value, self.team.world_size()).input());
                self.team.decide(|| {
                    plan.derived.extend(self.class_ids_input()?);
                    let run = Run::create(&self.places.runs, &plan)?;
                    Ok::<_, ExperimentError>(run.dir().to_owned())
                })?
            }
        };
        let mut run = Run::open(&run)?;
        progress.folder(run.dir());
        if let Some(words) = not_rounded(self.config.value.training.precision, &self.device) {
            progress.note(words);
        }
        self.team.decide(|| run.begin(&self.described(), arguments))?;
        let trained = self.get_on(&run).and_then(|()| self.trained(&run, progress, stop));
        if trained.is_ok() {
            progress.phase("report");
        }
        // What is left to do is to write, which one rank does.
        let result =
            trained.and_then(|trained| self.team.decide(|| self.write_up(&run, trained, progress, stop)));
        if self.team.is_first() {
            match &result {
                Ok(finished) => run.finish(&finished.summary())?,
                Err(ExperimentError::Train(TrainError::Interrupted { .. })) => run.pause()?,
                Err(error) => run.fail(&super::chain(error))?,
            }
        }
        result.map(|finished| Finished { folder: run.dir().to_owned(), ..finished })
    }

    /// Refuses to start a job again that gets no further.
    fn get_on(&self, run: &Run) -> Result<(), ExperimentError> {
        self.team.decide(|| {
            let step = Checkpoints::written_elsewhere(&run.path("checkpoints")).newest_step();
            let step = step.map_err(TrainError::from)?;
            Ok::<_, ExperimentError>(jobs::note_start(run.dir(), jobs::restart_count(), step)?)
        })
    }

    /// The folder of an unfinished run of the same.
    fn unfinished(&self, fresh: bool, plan: &RunPlan) -> Result<Option<PathBuf>, RunError> {
        if fresh {
            return Ok(None);
        }
        let run = Run::latest_unfinished(&self.places.runs, &plan.fingerprint())?;
        Ok(run.map(|run| run.dir().to_owned()))
    }

    /// Where it computes, for the run's folder.
    fn described(&self) -> String {
        let device = device::describe(&self.device);
        match self.team.world_size() {
            1 => device.to_owned(),
            ranks => format!("{device} on each of {ranks} ranks"),
        }
    }

    /// Refuses what would be found out only at the end: other images than the recipe was made for, an order of classes that
    /// have none, more fixed blocks than there are, weights that are not there.
    ///
    /// # Errors
    /// In words, with what can be done.
    pub fn check(&self) -> Result<(), ExperimentError> {
        let (config, manifest) = (&self.config.value, &self.dataset.manifest);
        if let Some(named) = &config.model.pretrained {
            weights::find(named).map_err(ExperimentError::Pretrained)?;
        }
        let images = manifest.images.len() + manifest.set_aside.len();
        let compared = config.published.compare(self.dataset.classes.len(), images);
        compared.map_err(|reason| ExperimentError::OtherImages { reason })?;
        if config.labels.ordinal_width > 0.0 && !self.dataset.classes.kind().is_ordered() {
            return Err(ExperimentError::NotOrdered);
        }
        let labels = self.dataset.labels();
        let setup = Setup::of(config, self.algorithm, &self.model, &labels, self.split, &self.device);
        setup.check()?;
        self.check_members()
    }

    /// What is to be done; its fingerprint finds earlier runs of the same.
    ///
    /// # Errors
    /// If the weights to start from cannot be read, or the settings of a member of self-training make no sense.
    pub fn plan(&self) -> Result<RunPlan, ExperimentError> {
        Ok(RunPlan::new(self.config, self.algorithm.name(), self.inputs()?))
    }

    /// What the run is frozen with: a job reads only this and the images.
    fn inputs(&self) -> Result<Vec<Input>, ExperimentError> {
        let json = |value: serde_json::Result<Vec<u8>>| value.expect("splits and classes are plain data");
        let mut inputs = vec![
            Input::images(&self.dataset.manifest),
            Input::new("classes.json", json(serde_json::to_vec_pretty(&self.dataset.classes))),
            Input::new("split.json", json(serde_json::to_vec(self.split))),
        ];
        if self.algorithm.name() != self.config.value.algorithm.name.as_str() {
            // The configuration knows nothing of it; its settings tell one run from another all the same.
            let bytes = format!("{:#?}\n", self.algorithm).into_bytes();
            inputs.push(Input::new("algorithm.txt", bytes));
        }
        inputs.extend(content_of_pretrained(&self.config.value.model)?);
        inputs.extend(self.planned_members()?);
        Ok(inputs)
    }

    /// Trains in the run's folder, on every rank.
    fn trained(&self, run: &Run, progress: &Shown, stop: &AtomicBool) -> Result<Trained, ExperimentError> {
        let scale = Scale::read(run, &self.config.value)?;
        let config = scale.apply(&self.config.value);
        let size = self.model.image_size() as u32;
        let cache = self.team.first_then_all(|| {
            Dataset::cache(&self.dataset.manifest, &self.places.cache, size, progress, stop)
        })?;
        let cache = match &self.config.value.run.node_cache {
            Some(folder) => Dataset::cache_on_node(cache, folder, &self.dataset.manifest, progress, stop)?,
            None => cache,
        };
        let labels = self.dataset.labels();
        let taught = self.taught(run)?;
        let job = Job {
            config: &config,
            algorithm: taught.as_ref().map_or(self.algorithm, Taught::builder),
            model: &self.model,
            cache: &cache,
            labels: &labels,
            split: self.split,
            device: self.device.clone(),
            crew: self.team.crew(config.training.batch as usize)?,
            come_back: Some(self.team.come_back()),
        };
        let supervised = self.config.value.algorithm.name == AlgorithmName::Supervised;
        let label = if supervised { "training on labels alone" } else { "training" };
        let bar = progress.begin(label, job.total_steps());
        let outcome = train(&job, run.dir(), stop, &bar)?;
        bar.finish();
        Ok(Trained { outcome: self.ordered(outcome), taught, scale, cache })
    }

    /// With the mean absolute error, where classes are percentage bins.
    fn ordered(&self, outcome: Outcome) -> Outcome {
        if !self.dataset.classes.kind().is_ordered() {
            return outcome;
        }
        let (evaluation, test) = (outcome.evaluation, outcome.test);
        Outcome {
            evaluation: evaluation.map(Scores::in_percent),
            test: test.map(Scores::in_percent),
            ..outcome
        }
    }

    /// The latest finished run of the same plan.
    ///
    /// # Errors
    /// If a run folder cannot be read.
    pub fn finished(&self) -> Result<Option<Finished>, ExperimentError> {
        let fingerprint = self.plan()?.fingerprint();
        self.team.decide(|| self.finished_of(&fingerprint))?.as_deref().map(Finished::read).transpose()
    }

    /// The folder of the latest finished run of this fingerprint.
    fn finished_of(&self, fingerprint: &blake3::Hash) -> Result<Option<PathBuf>, RunError> {
        for run in Run::list(&self.places.runs)?.into_iter().rev() {
            if run.fingerprint()? == *fingerprint && matches!(run.state()?, RunState::Done(_)) {
                return Ok(Some(run.dir().to_owned()));
            }
        }
        Ok(None)
    }
}

/// The input that tells the weights to start from by their content, if there are any: other bytes under the same name are
/// another beginning.
pub(super) fn content_of_pretrained(model: &ModelConfig) -> Result<Option<Input>, ExperimentError> {
    let Some(named) = &model.pretrained else { return Ok(None) };
    let content = weights::find(named).and_then(|file| weights::content(&file));
    let content = content.map_err(ExperimentError::Pretrained)?;
    Ok(Some(Input::new("pretrained.blake3", format!("{content}\n").into_bytes())))
}

/// A folder's own name.
pub(super) fn run_name(folder: &Path) -> String {
    folder.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

impl Finished {
    /// Reads it back from a run folder.
    ///
    /// # Errors
    /// If the run is not at its end, or the file is damaged.
    pub fn read(folder: &Path) -> Result<Self, ExperimentError> {
        let run = Run::open(folder)?;
        if !matches!(run.state()?, RunState::Done(_)) {
            return Err(ExperimentError::Unfinished { path: folder.to_owned() });
        }
        let path = run.path(RESULT);
        let damaged = |reason: String| ExperimentError::Damaged { path: path.clone(), reason };
        let bytes = std::fs::read(&path).map_err(|error| damaged(error.to_string()))?;
        let read: Self = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        Ok(Self { folder: folder.to_owned(), ..read })
    }

    /// The scores that count: on the test images, else on the evaluation images; with the name of the images.
    pub fn scores(&self) -> Option<(&'static str, &Scores)> {
        let test = self.test.as_ref().map(|scores| ("test", scores));
        test.or_else(|| self.evaluation.as_ref().map(|scores| ("evaluation", scores)))
    }

    /// A sentence for `DONE` and the terminal.
    pub fn summary(&self) -> String {
        let mut parts = vec![format!("{} steps in {:.1} s", self.steps, self.seconds)];
        for (name, scores) in [("evaluation", &self.evaluation), ("test", &self.test)] {
            if let Some(scores) = scores {
                parts.push(format!("{} of {} {name} images right", scores.accuracy_text(), scores.samples));
            }
        }
        parts.join(", ")
    }
}
