//! One run from its folder to its results.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use burn::tensor::Device;
use harvest_models::ClassifierConfig;
use serde::{Deserialize, Serialize};

use super::baseline::{Comparison, PREDICTIONS};
use super::reliability::{OnImages, section};
use super::scale::Scale;
use super::self_training::Taught;
use super::{Dataset, ExperimentError, Places, Shown, Team};
use crate::algorithms::AlgorithmBuilder;
use crate::config::{ModelConfig, Resolved};
use crate::data::{FIT_FILTER, Split};
use crate::device;
use crate::files::{WriteError, atomic_write};
use crate::inference::{Bundle, CARD, Confidence, Preprocessing, Reliable};
use crate::jobs;
use crate::metrics::Scores;
use crate::project::{Input, Run, RunError, RunPlan, RunState};
use crate::report::{
    ConfigurationRow, MemberRow, MetricsTable, Results, RunSummary, SetAsideRow, confusion_svg,
    standard_charts,
};
use crate::training::checkpoint::Checkpoints;
use crate::training::{Job, Outcome, Setup, TrainError, train};
use crate::weights;

/// File of a run folder that holds a [`Finished`].
const RESULT: &str = "result.json";

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
struct Trained {
    outcome: Outcome,
    taught: Option<Taught>,
    scale: Scale,
}

/// The network that a configuration asks for, with `classes` classes.
///
/// # Errors
/// If there is no such preset, or its settings contradict each other.
pub fn network_config(
    settings: &ModelConfig,
    classes: usize,
) -> Result<ClassifierConfig, harvest_models::ConfigError> {
    let mut config = ClassifierConfig::preset(&settings.name, classes)?;
    match &mut config {
        ClassifierConfig::Vit(vit) => {
            vit.image_size = settings.image_size.map_or(vit.image_size, |size| size as usize);
            vit.drop_path = settings.drop_path.unwrap_or(vit.drop_path);
        }
        ClassifierConfig::ResNet(resnet) => {
            resnet.image_size = settings.image_size.map_or(resnet.image_size, |size| size as usize);
        }
        ClassifierConfig::EfficientNet(net) => {
            net.image_size = settings.image_size.map_or(net.image_size, |size| size as usize);
            net.drop_path = settings.drop_path.unwrap_or(net.drop_path);
        }
        ClassifierConfig::ConvNext(net) => {
            net.image_size = settings.image_size.map_or(net.image_size, |size| size as usize);
            net.drop_path = settings.drop_path.unwrap_or(net.drop_path);
        }
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
                self.team.decide(|| Run::create(&self.places.runs, &plan).map(|run| run.dir().to_owned()))?
            }
        };
        let mut run = Run::open(&run)?;
        self.team.decide(|| run.begin(&self.described(), arguments))?;
        let trained = self.get_on(&run).and_then(|()| self.trained(&run, progress, stop));
        // What is left to do is to write, which one rank does.
        let result = trained.and_then(|trained| self.team.decide(|| self.write_up(&run, trained)));
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
            Input { name: "images.jsonl".into(), bytes: self.dataset.manifest.to_bytes() },
            Input {
                name: "classes.json".into(),
                bytes: json(serde_json::to_vec_pretty(&self.dataset.classes)),
            },
            Input { name: "split.json".into(), bytes: json(serde_json::to_vec(self.split)) },
        ];
        if self.algorithm.name() != self.config.value.algorithm.name.as_str() {
            // The configuration knows nothing of it; its settings tell one run from another all the same.
            let bytes = format!("{:#?}\n", self.algorithm).into_bytes();
            inputs.push(Input { name: "algorithm.txt".into(), bytes });
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
        let bar = progress.begin("training", job.total_steps());
        let outcome = train(&job, run.dir(), stop, &bar)?;
        bar.finish();
        Ok(Trained { outcome: self.ordered(outcome), taught, scale })
    }

    /// Bundle, predictions, report.
    fn write_up(&self, run: &Run, trained: Trained) -> Result<Finished, ExperimentError> {
        let Trained { outcome, taught, scale } = trained;
        let mut bundle = self.bundle(run.dir(), &outcome);
        bundle.about.extend(taught.iter().flat_map(Taught::facts));
        bundle.write(&run.path("bundle"), &outcome.network)?;
        self.predictions(run.dir(), &bundle, &outcome)?;
        let reliable = self.reliable(bundle.confidence.as_ref(), &outcome);
        let members = taught.iter().flat_map(Taught::rows).collect();
        self.report(run.dir(), (&bundle, &scale), &reliable, &outcome, members)?;
        let finished = Finished {
            folder: run.dir().to_owned(),
            evaluation: outcome.evaluation,
            test: outcome.test,
            seconds: outcome.seconds,
            steps: outcome.steps,
            reliable: reliable.first().map(|(_, reliable)| reliable.clone()),
        };
        let card =
            super::card::card(&run.path("bundle"), &bundle, &self.dataset.manifest, self.split, &finished);
        atomic_write(&run.path("bundle").join(CARD), card.as_bytes())?;
        let json = serde_json::to_vec_pretty(&finished).expect("scores and times are plain data");
        atomic_write(&run.path(RESULT), &json)?;
        Ok(finished)
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

    fn bundle(&self, folder: &Path, outcome: &Outcome) -> Bundle {
        let mut about = BTreeMap::from([
            ("algorithm".to_owned(), self.algorithm.name().to_owned()),
            ("labelled images".to_owned(), self.split.labelled.len().to_string()),
            ("unlabelled images".to_owned(), self.split.unlabelled.len().to_string()),
            ("taken after step".to_owned(), outcome.taken_at.to_string()),
            ("steps".to_owned(), outcome.steps.to_string()),
            ("seed".to_owned(), self.config.value.training.seed.to_string()),
            ("network".to_owned(), self.config.value.model.name.clone()),
            ("run".to_owned(), run_name(folder)),
        ]);
        for (name, scores) in [("evaluation", &outcome.evaluation), ("test", &outcome.test)] {
            if let Some(scores) = scores {
                about.insert(format!("{name} accuracy"), format!("{:.4}", scores.accuracy));
                if let Some(off) = scores.mean_absolute_error {
                    about.insert(format!("{name} mean absolute error"), format!("{off:.2} %"));
                }
            }
        }
        let preprocessing = Preprocessing {
            size: self.model.image_size() as u32,
            resize: FIT_FILTER.to_owned(),
            normalisation: self.config.value.views.normalisation,
        };
        let classes = &self.dataset.classes;
        let mut bundle = Bundle::new(
            outcome.model.clone(),
            classes.names().to_vec(),
            classes.kind(),
            preprocessing,
            about,
        );
        let (logits, labels) = (&outcome.evaluation_logits, self.targets(&self.split.evaluation));
        bundle.confidence = Confidence::learn(&self.config.value.confidence, logits, &labels, classes.len());
        bundle
    }

    /// Image by image, so that runs can be compared on the same images.
    fn predictions(&self, folder: &Path, bundle: &Bundle, outcome: &Outcome) -> Result<(), ExperimentError> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        let images = &self.dataset.manifest.images;
        let logits = outcome.test_logits.chunks_exact(self.dataset.classes.len());
        let rows = self.split.test.iter().zip(logits).map(|(index, logits)| {
            let image = &images[*index as usize];
            let label = image.label.map_or_else(String::new, |label| label.to_string());
            let said = bundle.predict(logits);
            let confidence = format!("{:.6}", said.confidence);
            [image.path.clone(), label, said.class.to_string(), confidence, said.abstained.to_string()]
        });
        let heading = ["image", "label", "prediction", "confidence", "abstained"].map(String::from);
        for row in std::iter::once(heading).chain(rows) {
            writer.write_record(row).expect("rows of five can be written to memory");
        }
        let bytes = writer.into_inner().expect("memory takes what it is given");
        Ok(atomic_write(&folder.join(PREDICTIONS), &bytes)?)
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

    /// What matters at first sight.
    fn facts(&self, outcome: &Outcome, scale: &Scale) -> Vec<(String, String)> {
        let images = &self.dataset.manifest;
        let mut facts = vec![
            ("Steps".into(), outcome.steps.to_string()),
            ("Training time".into(), format!("{:.1} s", outcome.seconds)),
            ("Device".into(), device::describe(&self.device).into()),
            ("Images".into(), images.images.len().to_string()),
            ("Labelled, to train on".into(), self.split.labelled.len().to_string()),
            ("Labelled, to choose the model".into(), self.split.evaluation.len().to_string()),
            ("Test images".into(), self.split.test.len().to_string()),
            ("Unlabelled".into(), self.split.unlabelled.len().to_string()),
            ("Set aside".into(), images.set_aside.len().to_string()),
        ];
        if scale.ranks > 1 {
            let Scale { ranks, batch, lr } = scale;
            facts.push((
                "Begun on".into(),
                format!("{ranks} ranks: {batch} labelled images a step, rate {lr}"),
            ));
        }
        let published = &self.config.value.published;
        if let Some(rate) = published.error_rate {
            let source = published.source.as_ref().map_or_else(String::new, |source| format!(" ({source})"));
            facts.push(("Published error rate".into(), format!("{rate} %{source}")));
        }
        facts
    }

    fn report(
        &self,
        folder: &Path,
        (bundle, scale): (&Bundle, &Scale),
        reliable: &[OnImages],
        outcome: &Outcome,
        members: Vec<MemberRow>,
    ) -> Result<(), ExperimentError> {
        let names = self.dataset.classes.names();
        let sets = [("Test images", &outcome.test), ("Evaluation images", &outcome.evaluation)];
        let note = format!("model after step {}", outcome.taken_at);
        let results: Vec<Results> = sets
            .iter()
            .filter_map(|(name, scores)| Some((*name, scores.as_ref()?)))
            .enumerate()
            .map(|(i, (name, scores))| Results {
                name: name.to_owned(),
                note: note.clone(),
                scores: scores.clone(),
                detailed: i == 0,
            })
            .collect();
        if let Some(first) = results.first() {
            let svg = confusion_svg(&first.scores.confusion, names);
            atomic_write(&folder.join("confusion.svg"), svg.as_bytes())?;
        }
        let scores = serde_json::json!({
            "evaluation": outcome.evaluation,
            "test": outcome.test,
            "confidence": bundle.confidence,
            "calibration": reliable.iter().cloned().collect::<BTreeMap<_, _>>(),
        });
        let scores = serde_json::to_vec_pretty(&scores).expect("scores are plain data");
        atomic_write(&folder.join("scores.json"), &scores)?;

        let images = &self.dataset.manifest;
        let summary = RunSummary {
            title: run_name(folder),
            algorithm: self.algorithm.name().to_owned(),
            model: self.config.value.model.name.clone(),
            facts: self.facts(outcome, scale),
            verdict: match self.baseline {
                Some(baseline) => Comparison::of(folder, baseline)?.map(|comparison| comparison.sentence()),
                None => None,
            },
            classes: names.to_vec(),
            results,
            members,
            confidence: bundle.confidence.as_ref().map(|confidence| section(confidence, reliable)),
            charts: standard_charts(&MetricsTable::read(&folder.join("metrics.csv"))?),
            set_aside: images
                .set_aside
                .iter()
                .map(|file| SetAsideRow { path: file.path.clone(), reason: file.reason.clone() })
                .collect(),
            configuration: self
                .config
                .entries()
                .iter()
                .map(|entry| ConfigurationRow {
                    key: entry.key.clone(),
                    value: entry.value.as_ref().map_or_else(|| "not set".into(), ToString::to_string),
                    origin: entry.origin.to_string(),
                })
                .collect(),
        };
        let path = folder.join("report.html");
        Ok(summary.write(&path).map_err(WriteError::at(&path))?)
    }
}

/// The input that tells the weights to start from by their content, if there are any: other bytes under the same name are
/// another beginning.
pub(super) fn content_of_pretrained(model: &ModelConfig) -> Result<Option<Input>, ExperimentError> {
    let Some(named) = &model.pretrained else { return Ok(None) };
    let content = weights::find(named).and_then(|file| weights::content(&file));
    let content = content.map_err(ExperimentError::Pretrained)?;
    Ok(Some(Input { name: "pretrained.blake3".into(), bytes: format!("{content}\n").into_bytes() }))
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
