//! A run without the training: everything is checked and told, and one step is tried.

use std::fmt;

use super::{Experiment, ExperimentError};
use crate::algorithms::Views;
use crate::report::thousands;
use crate::training::{Crew, HostBatch, Session, Setup, TrainError, total_steps};

/// What a run would do.
#[derive(Debug, Clone)]
pub struct Rehearsal {
    /// Name and value of each line.
    lines: Vec<(&'static str, String)>,
}

impl Experiment<'_> {
    /// Checks all that can be checked before training: images, classes, division, network, algorithm; tries one step on an
    /// image of noise.
    ///
    /// # Errors
    /// Whatever would stop the run.
    pub fn rehearse(&self) -> Result<Rehearsal, ExperimentError> {
        self.check()?;
        let (config, labels) = (&self.config.value, self.dataset.labels());
        let setup = Setup::of(config, self.algorithm, &self.model, &labels, self.split, &self.device);
        let counts = setup.problem.labelled_per_class.clone();
        let mut session = Session::new(setup, Crew::alone(2))?;
        let pretrained = match &config.model.pretrained {
            Some(weights) => {
                let report = session.load_weights(weights, config.model.load_options());
                Some(report.map_err(TrainError::Pretrained)?)
            }
            None => None,
        };
        let views = session.views();
        let parameters = session.num_parameters();
        // Two of each: batch normalisation needs more than one image.
        let unlabelled = if views == Views::NONE { 0 } else { 2 };
        let batch = HostBatch::noise(2, unlabelled, views, &self.model, 0);
        let (scalars, _) = session.advance(batch, config.training.lr, 0);
        let loss = scalars.into_iter().next().map_or(f32::NAN, |(_, loss)| loss.into_scalar::<f32>());

        let (manifest, split, training) = (&self.dataset.manifest, self.split, &config.training);
        let number = |count: usize| thousands(count as u64);
        let (fewest, most) = (counts.iter().min().unwrap_or(&0), counts.iter().max().unwrap_or(&0));
        let each = if fewest == most { fewest.to_string() } else { format!("{fewest} to {most}") };
        let length = match training.steps {
            Some(_) => String::new(),
            None => format!(" ({} passes over the unlabelled images)", training.epochs),
        };
        let images = number(manifest.images.len());
        let unlabelled = match views {
            Views::NONE => String::new(),
            _ => format!(" and {} unlabelled", training.batch * training.unlabelled_ratio),
        };
        let mut lines = vec![
            (
                "images",
                format!("{images} of {} classes, {} set aside", counts.len(), manifest.set_aside.len()),
            ),
            ("labelled", format!("{} to train on, {each} of each class", number(split.labelled.len()))),
            ("", format!("{} to choose the model by", number(split.evaluation.len()))),
            ("test", number(split.test.len())),
            ("unlabelled", number(split.unlabelled.len())),
            (
                "network",
                format!(
                    "{}, {:.1} million parameters, images of {} pixels",
                    config.model.name,
                    parameters as f64 / 1e6,
                    self.model.image_size()
                ),
            ),
            (
                "algorithm",
                format!(
                    "{}: {} weak and {} strong views of an unlabelled image",
                    self.algorithm.name(),
                    views.weak,
                    views.strong
                ),
            ),
            (
                "steps",
                format!(
                    "{} of {} labelled{unlabelled} images{length}",
                    thousands(total_steps(training, split)),
                    training.batch
                ),
            ),
        ];
        if let Some(rate) = config.published.error_rate {
            let source = config.published.source.as_deref().unwrap_or("source not given");
            lines.push(("published", format!("error rate {rate} % ({source})")));
        }
        if let Some(report) = pretrained {
            lines.push(("pretrained", report.summary()));
        }
        lines.extend(self.rehearse_members()?.into_iter().map(|member| ("member", member)));
        lines.push(("tried", format!("one step on two images of noise: loss {loss:.3}")));
        Ok(Rehearsal { lines })
    }
}

impl Rehearsal {
    /// The value of the line of that name; empty if there is none.
    pub(super) fn line(&self, name: &str) -> &str {
        self.lines.iter().find(|(own, _)| *own == name).map_or("", |(_, value)| value)
    }
}

impl fmt::Display for Rehearsal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|(name, value)| writeln!(formatter, "{name:11} {value}"))
    }
}
