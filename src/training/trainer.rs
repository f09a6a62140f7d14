//! The loop: batch → algorithm → backward → optimizer → average, with evaluation, checkpoints and metrics in between.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use burn::tensor::Device;
use harvest_kernels::LARGEST_PICTURE;
use harvest_models::{Classifier, ClassifierConfig, ConfigError};

use super::checkpoint::{CheckpointError, Checkpoints};
use super::crew::{Asked, Crew, Undecided};
use super::evaluation::{logits, scores};
use super::loader::{Intake, Loader};
use super::logs::{Logs, Pending};
use super::schedule::{CosineWithWarmup, FIXMATCH_CYCLES};
use super::scope::{self, ScopeError};
use super::session::Session;
use super::setup::{Setup, total_steps};
use crate::algorithms::{AlgorithmBuilder, NotReady, Views};
use crate::config::{Config, Sampling, ViewMaker};
use crate::data::{ImageCache, Order, Sampler, SamplerError, Split};
use crate::files::{WriteError, atomic_write};
use crate::metrics::Scores;
use crate::report::{MetricsLogError, Progress};
use crate::weights::WeightsError;

/// File of a run folder that tells what became of each tensor of the weights it started from.
const PRETRAINED: &str = "pretrained.txt";

/// What to train on what.
pub struct Job<'a> {
    /// Sections `views` and `training` are used.
    pub config: &'a Config,
    /// The algorithm: `config.algorithm`, or one of another crate.
    pub algorithm: &'a dyn AlgorithmBuilder,
    /// The network.
    pub model: &'a ClassifierConfig,
    /// The images at the network's size.
    pub cache: &'a ImageCache,
    /// Class of every image of the data set, where known.
    pub labels: &'a [Option<u16>],
    /// Which images are for what.
    pub split: &'a Split,
    /// Where to compute; without autodiff.
    pub device: Device,
    /// The ranks that train it together; `training.batch` is over all of them.
    pub crew: Crew,
    /// Set where an end that is asked for is to be followed by another start.
    pub come_back: Option<&'a AtomicBool>,
}

impl<E: Into<TrainError>> From<Undecided<E>> for TrainError {
    fn from(undecided: Undecided<E>) -> Self {
        match undecided {
            Undecided::Here(error) => error.into(),
            Undecided::Elsewhere(reason) => Self::Elsewhere { reason },
        }
    }
}

/// What came of a run.
pub struct Outcome {
    /// The network to keep: of the best evaluation, else of the last step. Off autodiff, and an ordinary one: what tuning
    /// added has become part of its weights.
    pub network: Classifier,
    /// Its configuration: the job's, or a wider one where adapters have become part of it.
    pub model: ClassifierConfig,
    /// After how many steps it was taken.
    pub taken_at: u64,
    /// Steps of the run.
    pub steps: u64,
    /// Seconds of training over all sessions, evaluation and checkpoints included.
    pub seconds: f64,
    /// Scores of `network` on the evaluation images, if there are any.
    pub evaluation: Option<Scores>,
    /// Scores of `network` on the test images, if there are any.
    pub test: Option<Scores>,
    /// Logits of each evaluation image, row by row in the split's order.
    pub evaluation_logits: Vec<f32>,
    /// The same of each test image.
    pub test_logits: Vec<f32>,
}

/// Why training stopped before its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// Asked to stop; everything is saved.
    #[error("stopped after step {step} as asked; the same command goes on from there")]
    Interrupted {
        /// Steps done.
        step: u64,
        /// Whether that is to be done without a person: the time was up, or others went first.
        come_back: bool,
    },
    /// The first rank, which reads and writes checkpoints, could not.
    #[error("rank 0: {reason}")]
    Elsewhere {
        /// What it said.
        reason: String,
    },
    /// The loss or a weight is no longer a finite number. Nothing of it is in any checkpoint.
    #[error("{}", diverged(*step, *loss, *part, *saved))]
    Diverged {
        /// The step, from 0.
        step: u64,
        /// What the loss is; NaN too if it was a weight.
        loss: f32,
        /// The part of the loss that is not finite, if one is; without, a weight or the sum.
        part: Option<&'static str>,
        /// Steps of the newest checkpoint, which is sound.
        saved: Option<u64>,
    },
    /// The algorithm lacks what it learns from.
    #[error(transparent)]
    NotReady(#[from] NotReady),
    /// No such network.
    #[error(transparent)]
    Model(#[from] ConfigError),
    /// Settings of what moves.
    #[error(transparent)]
    Scope(#[from] ScopeError),
    /// The weights to start from.
    #[error("the weights to start from (`model.pretrained`)")]
    Pretrained(#[source] WeightsError),
    /// Nothing to train on.
    #[error(transparent)]
    Sampler(#[from] SamplerError),
    /// Saving or resuming.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Logging.
    #[error("cannot log metrics")]
    Metrics(#[from] MetricsLogError),
    /// The account of the weights to start from.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// TensorBoard events.
    #[error("cannot write TensorBoard events")]
    Events(#[source] std::io::Error),
}

/// What diverged, and what can be done.
fn diverged(step: u64, loss: f32, part: Option<&str>, saved: Option<u64>) -> String {
    let what = match part {
        Some(part) => format!("the loss became {loss} in step {step}, in its part `{part}`"),
        None if loss.is_nan() => format!("the loss or a weight became {loss} in step {step}"),
        None => format!("the loss became {loss} in step {step}"),
    };
    let kept = match saved {
        Some(saved) => format!("the checkpoint after step {saved} is sound and kept"),
        None => "nothing had been saved yet".to_owned(),
    };
    format!("{what}; {kept}; try a run with a lower `training.lr` or a longer `training.warmup_steps`")
}

impl Job<'_> {
    /// Optimizer steps of the run; see [`total_steps`].
    pub fn total_steps(&self) -> u64 {
        total_steps(&self.config.training, self.split)
    }

    fn setup(&self) -> Setup<'_> {
        Setup::of(self.config, self.algorithm, self.model, self.labels, self.split, &self.device)
    }

    fn schedule(&self) -> CosineWithWarmup {
        let total_steps = self.total_steps();
        let warmup = self.config.training.warmup_steps.map_or(total_steps / 40, u64::from);
        CosineWithWarmup {
            peak: self.config.training.lr,
            total_steps,
            warmup_steps: warmup,
            cycles: FIXMATCH_CYCLES,
        }
    }

    fn loader(&self, wanted: Views) -> Result<Loader<'_>, SamplerError> {
        let training = &self.config.training;
        let batch = training.batch as usize;
        let labelled = match self.config.labels.sampling {
            Sampling::Images => vec![self.split.labelled.clone()],
            Sampling::Classes => self.labelled_by_class(),
        };
        let labelled = Sampler::balanced(labelled, Order::Labelled, training.seed)?;
        let unlabelled = (wanted != Views::NONE)
            .then(|| Sampler::new(self.split.unlabelled.clone(), Order::Unlabelled, training.seed))
            .transpose()?;
        Ok(Loader {
            cache: self.cache,
            labels: self.labels,
            views: &self.config.views,
            seed: training.seed,
            labelled: Intake::of(&self.crew, labelled, batch),
            wanted,
            planned: self.config.run.views == ViewMaker::Device
                && !crate::device::is_cpu(&self.device)
                && self.cache.size() as usize <= LARGEST_PICTURE,
            unlabelled: unlabelled
                .map(|sampler| Intake::of(&self.crew, sampler, batch * training.unlabelled_ratio as usize)),
        })
    }

    fn labelled_by_class(&self) -> Vec<Vec<u32>> {
        let mut classes = vec![Vec::new(); self.model.classes()];
        for &index in &self.split.labelled {
            let label = self.labels[index as usize].expect("images of the labelled split have a label");
            classes[usize::from(label)].push(index);
        }
        classes
    }

    fn scores(&self, network: &Classifier, indices: &[u32]) -> Option<Scores> {
        Some(self.scores_of_each(network, indices)?.0)
    }

    /// Each rank looks at a part of the images.
    fn scores_of_each(&self, network: &Classifier, indices: &[u32]) -> Option<(Scores, Vec<f32>)> {
        if indices.is_empty() {
            return None;
        }
        let part = &indices[self.crew.part(indices.len())];
        let own = logits(network, self.cache, part, &self.config.views.normalisation);
        let all = self.crew.all(own).concat();
        Some((scores(&all, indices, self.labels, self.model.classes()), all))
    }

    /// What signals have asked for so far.
    fn asked(&self, stop: &AtomicBool) -> Asked {
        let come_back = self.come_back.is_some_and(|flag| flag.load(Ordering::Relaxed));
        Asked { stop: stop.load(Ordering::Relaxed), come_back }
    }
}

/// Trains, or goes on training, in the run folder `folder`. `stop` asks for an early, orderly end.
///
/// # Errors
/// [`TrainError`]; what was saved before stays.
pub fn train(
    job: &Job<'_>,
    folder: &Path,
    stop: &AtomicBool,
    progress: &Progress,
) -> Result<Outcome, TrainError> {
    let setup = job.setup();
    setup.check()?;
    job.algorithm.ready()?;
    let kind = setup.kind();
    let crew = &job.crew;
    let checkpoints = folder.join("checkpoints");
    let checkpoints = match crew.is_first() {
        true => Checkpoints::open(&checkpoints)?,
        false => Checkpoints::written_elsewhere(&checkpoints),
    };
    let mut session = Session::new(setup, crew.clone())?;
    let (mut best, mut earlier, mut saved) = (None, 0.0, None);
    if let Some(name) = crew.decide(|| checkpoints.newest())? {
        let checkpoint = checkpoints.read(&name, &kind)?;
        (best, earlier) = (checkpoint.progress.best, checkpoint.progress.seconds);
        session.restore(checkpoint)?;
        saved = Some(session.step);
        progress.milestone(&format!("going on after step {}", session.step));
    } else if let Some(weights) = &job.config.model.pretrained {
        let report = session.load_weights(weights, job.config.model.load_options());
        let report = report.map_err(TrainError::Pretrained)?;
        crew.decide(|| atomic_write(&folder.join(PRETRAINED), report.to_string().as_bytes()))?;
        progress.milestone(&format!(
            "starting from {}: {}; {PRETRAINED} tells of each",
            weights.display(),
            report.summary()
        ));
    }
    let started = Instant::now();
    let mut logs = Logs::open(folder, session.step, crew)?;
    let loader = job.loader(session.views())?;
    let training = &job.config.training;
    let (total, schedule) = (job.total_steps(), job.schedule());
    let per_step =
        training.batch as u64 * (1 + session.views().count() as u64 * u64::from(training.unlabelled_ratio));

    std::thread::scope(|scope| -> Result<(), TrainError> {
        let batches = loader.prefetch(scope, session.step..total);
        progress.set(session.step);
        while session.step < total {
            let Ok(batch) = batches.recv() else { break };
            let (step, epoch, lr) = (batch.step, batch.epoch, schedule.rate(batch.step));
            crew.progress(session.step);
            let (scalars, asked) = session.advance(batch, lr, job.asked(stop).bits());
            let line = step % u64::from(training.log_every) == 0 || session.step == total;
            logs.flush_pending(progress, saved)?;
            logs.pending = Some(Pending { step, epoch, lr, scalars, images: per_step, line });
            progress.set(session.step);

            let finished = session.step == total;
            // Of several ranks all stop after the same step; one alone need not wait for the next.
            let asked = if crew.world_size() == 1 { job.asked(stop) } else { Asked::from_bits(asked) };
            let done = session.step;
            let due = |every: u32| done.is_multiple_of(u64::from(every)) || finished;
            let mut is_best = false;
            let evaluate = due(training.evaluate_every) && !job.split.evaluation.is_empty();
            let pause = evaluate || asked.stop || due(training.checkpoint_every);
            let _paused = pause.then(|| {
                session.settle();
                crew.pause()
            });
            if evaluate {
                logs.flush_pending(progress, saved)?;
                let scores = progress
                    .meanwhile("evaluation", || job.scores(session.predictor(), &job.split.evaluation));
                let accuracy = scores.map_or(0.0, |scores| scores.accuracy);
                // Few evaluation images make ties common; the later model has seen more.
                is_best = best.is_none_or(|(highest, _)| accuracy >= highest);
                if is_best {
                    best = Some((accuracy, session.step));
                }
                logs.evaluation(session.step - 1, accuracy)?;
                progress.scalars(&[("evaluation_accuracy", accuracy)]);
                let line = format!(
                    "step {}: {:.2} % of the evaluation images right",
                    session.step,
                    100.0 * accuracy
                );
                progress.milestone(&line);
            }
            if is_best || asked.stop || due(training.checkpoint_every) {
                logs.flush_pending(progress, saved)?;
                logs.sync()?;
                let seconds = earlier + started.elapsed().as_secs_f64();
                crew.decide(|| {
                    let checkpoint = session.checkpoint(best, seconds);
                    if !checkpoint.is_finite() {
                        // The loss of this step was sound, what came of it is not.
                        return Err(TrainError::Diverged { step, loss: f32::NAN, part: None, saved });
                    }
                    Ok(checkpoints.save(&checkpoint)?)
                })?;
                saved = Some(session.step);
            }
            if asked.stop && !finished {
                return Err(TrainError::Interrupted { step: session.step, come_back: asked.come_back });
            }
        }
        Ok(())
    })?;
    let _paused = crew.pause();
    let kept = checkpoints.read(&crew.decide(|| checkpoints.best_name(&kind))?, &kind)?;
    let mut network = job.model.blank(&job.device)?;
    let tuning = scope::added(training);
    if let Some(tuning) = tuning {
        network = network.tuned(tuning, 0)?;
    }
    network.load_tensors(&kept.ema).map_err(|error| CheckpointError::Misfit(error.to_string()))?;
    let network = network.merged();
    let (of_evaluation, of_test) = progress.meanwhile("evaluation", || {
        let scored = |indices: &[u32]| job.scores_of_each(&network, indices);
        (scored(&job.split.evaluation), scored(&job.split.test))
    });
    let ((evaluation, evaluation_logits), (test, test_logits)) = (of_evaluation.unzip(), of_test.unzip());
    Ok(Outcome {
        taken_at: kept.progress.step,
        steps: total,
        seconds: earlier + started.elapsed().as_secs_f64(),
        evaluation,
        test,
        evaluation_logits: evaluation_logits.unwrap_or_default(),
        test_logits: test_logits.unwrap_or_default(),
        model: job.model.merged(tuning),
        network,
    })
}
