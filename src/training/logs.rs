//! What of a step is written down: `metrics.csv` and TensorBoard events.

use std::path::Path;
use std::time::Instant;

use burn::tensor::Tensor;

use super::crew::Crew;
use super::session::Scalars;
use super::trainer::TrainError;
use crate::report::{EventWriter, MetricsLog, Progress};

/// Scalars that wait to be read until the device has gone on with the next step.
pub(super) struct Pending {
    pub step: u64,
    pub epoch: u64,
    pub lr: f64,
    pub scalars: Scalars,
    pub images: u64,
    /// Whether they make a line of the log, or are only looked at.
    pub line: bool,
}

/// What of a step is written down, by the first rank.
pub(super) struct Logs<'a> {
    /// Of the first rank.
    files: Option<Files>,
    crew: &'a Crew,
    pub pending: Option<Pending>,
    /// When and at which step scalars were last read, for the speed.
    mark: Option<(Instant, u64)>,
}

/// `metrics.csv` and TensorBoard events.
struct Files {
    metrics: MetricsLog,
    events: EventWriter,
}

impl Files {
    /// For a run that goes on at `step`; later rows are dropped.
    pub fn open(folder: &Path, step: u64) -> Result<Self, TrainError> {
        let (file, events) = (folder.join("metrics.csv"), folder.join("events"));
        let columns = ["epoch", "lr", "loss"];
        std::fs::create_dir_all(&events).map_err(TrainError::Events)?;
        let (metrics, events) = match step.checked_sub(1) {
            None => (MetricsLog::create(&file, &columns)?, EventWriter::create(&events)),
            Some(last) => (MetricsLog::resume(&file, &columns, last)?, EventWriter::resume(&events, last)),
        };
        Ok(Self { metrics, events: events.map_err(TrainError::Events)? })
    }

    pub fn write(&mut self, step: u64, row: &[(&str, f64)], tag: &str) -> Result<(), TrainError> {
        self.metrics.append(step, row)?;
        let tagged: Vec<(String, f64)> =
            row.iter().map(|(name, value)| (format!("{tag}/{name}"), *value)).collect();
        self.events(step, &tagged)
    }

    pub fn events(&mut self, step: u64, values: &[(String, f64)]) -> Result<(), TrainError> {
        let values: Vec<(&str, f64)> = values.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        self.events.scalars(step, &values).map_err(TrainError::Events)
    }
}

impl<'a> Logs<'a> {
    /// For a run that goes on at `step`.
    pub fn open(folder: &Path, step: u64, crew: &'a Crew) -> Result<Self, TrainError> {
        let files = crew.is_first().then(|| Files::open(folder, step)).transpose()?;
        Ok(Self { files, crew, pending: None, mark: None })
    }

    /// Reads the scalars that wait, of all ranks: their means. `saved`: steps of the newest checkpoint, for the words if they
    /// are no numbers.
    pub fn flush_pending(&mut self, progress: &Progress, saved: Option<u64>) -> Result<(), TrainError> {
        let Some(pending) = self.pending.take() else { return Ok(()) };
        let names: Vec<&'static str> = pending.scalars.iter().map(|(name, _)| *name).collect();
        let values = Tensor::cat(pending.scalars.into_iter().map(|(_, value)| value).collect(), 0);
        let values = self.crew.mean(&values.into_data().iter::<f32>().collect::<Vec<_>>());
        if let Some(&loss) = values.first().filter(|loss| !loss.is_finite()) {
            let part = names.iter().zip(&values).skip(1).find(|(_, value)| !value.is_finite());
            let part = part.map(|(name, _)| *name);
            return Err(TrainError::Diverged { step: pending.step, loss, part, saved });
        }
        if !pending.line {
            return Ok(());
        }
        let mut row = vec![("epoch", pending.epoch as f64), ("lr", pending.lr)];
        row.extend(names.iter().copied().zip(values.iter().map(|value| f64::from(*value))));
        let now = Instant::now();
        if let Some((then, step)) = self.mark.filter(|(_, step)| *step < pending.step) {
            let images = (pending.step - step) * pending.images;
            row.push(("images_per_second", images as f64 / now.duration_since(then).as_secs_f64()));
        }
        self.mark = Some((now, pending.step));
        if let Some(files) = &mut self.files {
            files.write(pending.step, &row, "train")?;
        }
        progress.scalars(&row);
        let mask = names.iter().position(|name| *name == "mask_ratio").map(|i| values[i]);
        let mask = mask.map_or(String::new(), |mask| format!(", {:.0} % kept", 100.0 * mask));
        progress.message(format!("loss {:.3}{mask}", values[0]));
        Ok(())
    }

    pub fn evaluation(&mut self, step: u64, accuracy: f64) -> Result<(), TrainError> {
        let Some(files) = &mut self.files else { return Ok(()) };
        files.metrics.append(step, &[("evaluation_accuracy", accuracy)])?;
        files.events(step, &[("evaluation/accuracy".to_owned(), accuracy)])
    }

    pub fn sync(&mut self) -> Result<(), TrainError> {
        match &mut self.files {
            Some(files) => Ok(files.metrics.sync()?),
            None => Ok(()),
        }
    }
}
