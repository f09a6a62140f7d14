//! A course of steps: batches made ahead, a log, checkpoints, an orderly end. SimCLR, SCAN and self-labelling are one each.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::Instant;

use burn::tensor::Tensor;

use super::ClusterError;
use crate::files::WriteError;
use crate::report::{MetricsLog, MetricsLogError, Progress};
use crate::training::Scalars;
use crate::training::checkpoint::{self, Checkpoint, CheckpointError, Checkpoints};

/// Batches that wait at most.
const AHEAD: usize = 2;

/// Why features or clusters could not be learned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LearnError {
    /// The images, or a request to stop; what was done so far is saved.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The network is broken, or this image does something to it.
    #[error(
        "the features of image {image} are not all numbers; the weights they come from are damaged, or the image is beyond them"
    )]
    NotFinite {
        /// Its number in the data set.
        image: u32,
    },
    /// The loss or a weight is no longer a finite number. Nothing of it is in any checkpoint.
    #[error(
        "the loss or a weight of {course} became {loss} in step {step}; {}; try a lower `{key}`",
        saved.map_or("nothing had been saved yet".to_owned(), |saved| format!("the checkpoint after step {saved} is sound and kept"))
    )]
    Diverged {
        /// SimCLR, SCAN or self-labelling.
        course: &'static str,
        /// The step, from 0.
        step: u64,
        /// What the loss is; NaN too if it was a weight.
        loss: f32,
        /// Steps of the newest checkpoint.
        saved: Option<u64>,
        /// The key of the learning rate.
        key: &'static str,
    },
    /// Saving or resuming.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Logging.
    #[error("cannot log metrics")]
    Metrics(#[from] MetricsLogError),
    /// A file or folder.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// Weights or stored features.
    #[error("cannot store features or weights")]
    Weights(#[from] harvest_models::WeightsError),
}

impl LearnError {
    pub(super) fn interrupted() -> Self {
        Self::Cluster(ClusterError::Interrupted)
    }
}

/// What a course teaches.
pub(super) trait Lesson {
    /// What a step learns from, as the host made it.
    type Batch: Send;

    /// One step with learning rate `lr`: `loss` first.
    fn step(&mut self, step: u64, batch: Self::Batch, lr: f64) -> Scalars;

    /// Everything, for the disk.
    fn save(&self, progress: checkpoint::Progress) -> Checkpoint;

    /// Goes back to where a checkpoint was taken.
    fn restore(&mut self, checkpoint: Checkpoint) -> Result<(), CheckpointError>;
}

/// How a lesson is taught.
pub(super) struct Course<'a> {
    /// What it is called.
    pub name: &'static str,
    /// What identifies it in checkpoints.
    pub kind: String,
    /// Where its log and checkpoints are.
    pub folder: &'a Path,
    pub steps: u64,
    /// The learning rate of a step, and the key that sets it.
    pub rate: &'a dyn Fn(u64) -> f64,
    pub rate_key: &'static str,
    pub checkpoint_every: u32,
    pub log_every: u32,
    pub stop: &'a AtomicBool,
    pub progress: &'a Progress,
    /// Steps of the courses before it, for the progress display.
    pub before: u64,
}

/// Scalars that wait to be read until the device has gone on with the next step.
struct Pending {
    step: u64,
    lr: f64,
    scalars: Scalars,
}

impl Course<'_> {
    /// Teaches to the end, or goes on from where it was left. `batch` makes that of a step, in a thread of its own.
    pub fn teach<L: Lesson>(
        &self,
        lesson: &mut L,
        mut batch: impl FnMut(u64) -> L::Batch + Send,
    ) -> Result<(), LearnError> {
        let checkpoints = Checkpoints::open(&self.folder.join("checkpoints"))?;
        let (mut done, mut saved, mut earlier) = (0, None, 0.0);
        if let Some(checkpoint) = checkpoints.last(&self.kind)? {
            (done, earlier) = (checkpoint.progress.step, checkpoint.progress.seconds);
            lesson.restore(checkpoint)?;
            saved = Some(done);
            if done < self.steps {
                self.progress.milestone(&format!("{}: going on after step {done}", self.name));
            }
        }
        self.progress.set(self.before + done);
        if done >= self.steps {
            return Ok(());
        }
        let (file, columns) = (self.folder.join("metrics.csv"), ["lr", "loss"]);
        let mut log = match done.checked_sub(1) {
            None => MetricsLog::create(&file, &columns)?,
            Some(last) => MetricsLog::resume(&file, &columns, last)?,
        };
        let started = Instant::now();
        std::thread::scope(|scope| {
            let (sender, batches) = sync_channel(AHEAD);
            let steps = done..self.steps;
            scope.spawn(move || {
                for step in steps {
                    // Nobody listens any longer: the course was interrupted, or it failed.
                    if sender.send(batch(step)).is_err() {
                        return;
                    }
                }
            });
            let mut pending = None;
            while done < self.steps {
                let Ok(batch) = batches.recv() else { break };
                let (step, lr) = (done, (self.rate)(done));
                let scalars = lesson.step(step, batch, lr);
                done += 1;
                self.look(&mut log, pending.replace(Pending { step, lr, scalars }), saved)?;
                self.progress.set(self.before + done);
                let (finished, interrupted) = (done == self.steps, self.stop.load(Ordering::Relaxed));
                if finished || interrupted || done.is_multiple_of(u64::from(self.checkpoint_every)) {
                    self.look(&mut log, pending.take(), saved)?;
                    log.sync()?;
                    let seconds = earlier + started.elapsed().as_secs_f64();
                    let kind = self.kind.clone();
                    let checkpoint =
                        lesson.save(checkpoint::Progress { step: done, best: None, seconds, kind });
                    if !checkpoint.is_finite() {
                        return Err(self.diverged(step, f32::NAN, saved));
                    }
                    checkpoints.save(&checkpoint)?;
                    saved = Some(done);
                }
                if interrupted && !finished {
                    return Err(LearnError::interrupted());
                }
            }
            Ok(())
        })
    }

    /// Reads the scalars of a step and logs them if their turn has come.
    fn look(
        &self,
        log: &mut MetricsLog,
        pending: Option<Pending>,
        saved: Option<u64>,
    ) -> Result<(), LearnError> {
        let Some(Pending { step, lr, scalars }) = pending else { return Ok(()) };
        let names: Vec<&str> = scalars.iter().map(|(name, _)| *name).collect();
        let values = Tensor::cat(scalars.into_iter().map(|(_, value)| value).collect(), 0).into_data();
        let values: Vec<f32> = values.iter::<f32>().collect();
        if let Some(loss) = values.iter().find(|value| !value.is_finite()) {
            return Err(self.diverged(step, *loss, saved));
        }
        if step.is_multiple_of(u64::from(self.log_every)) || step + 1 == self.steps {
            let mut row = vec![("lr", lr)];
            row.extend(names.iter().copied().zip(values.iter().map(|value| f64::from(*value))));
            log.append(step, &row)?;
            self.progress.message(format!("{} loss {:.3}", self.name, values[0]));
        }
        Ok(())
    }

    fn diverged(&self, step: u64, loss: f32, saved: Option<u64>) -> LearnError {
        LearnError::Diverged { course: self.name, step, loss, saved, key: self.rate_key }
    }
}
