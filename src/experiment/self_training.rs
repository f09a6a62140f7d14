//! Self-training: its members are trained first, each in a run of its own; the run proper learns from what they say of the
//! unlabelled images.
//!
//! ```text
//! runs/…-supervised-NETWORK/           a member: an ordinary run, found again by its fingerprint
//!   unlabelled.safetensors             its class probabilities of every unlabelled image
//! runs/…-self_training-NETWORK/
//!   inputs/members.json                which runs the members are: part of the fingerprint
//!   inputs/pseudo_labels.safetensors   what they say, joined: computed once, before the run has a folder
//!   inputs/member_scores.json          how good each is
//! ```
//!
//! The fingerprint holds the members' runs and not what came of them: whether a run is there is known before any member is
//! trained, and one that is resumed needs no member any more.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize};
use serde::{Deserialize, Serialize};

use super::execute::run_name;
use super::{Experiment, ExperimentError, Finished, FinishedRun, Shown, network_config};
use crate::algorithms::{AlgorithmBuilder, JoinedLabels, NotReady, SelfTrainingBuilder};
use crate::config::Member;
use crate::data::Progress as _;
use crate::files::atomic_write;
use crate::project::{Input, Run};
use crate::report::MemberRow;
use crate::training::TrainError;

/// File of a member's run folder: `[unlabelled images, classes]`, in the split's order.
const SAID: &str = "unlabelled.safetensors";
/// Inputs of the run proper.
const MEMBERS: &str = "members.json";
const PSEUDO_LABELS: &str = "pseudo_labels.safetensors";
const SCORES: &str = "member_scores.json";
/// The one tensor of such a file.
const TENSOR: &str = "probabilities";

/// A member, before it is trained.
#[derive(Serialize)]
struct Planned<'a> {
    line: &'a str,
    /// Of its run.
    fingerprint: String,
}

/// A member, once it is trained.
#[derive(Debug, Serialize, Deserialize)]
struct Trained {
    line: String,
    /// Name of its run folder.
    run: String,
    /// Which images it was scored on, how many there are, and the share it got right; nothing without such images.
    scored: Option<(String, u64, f64)>,
}

/// The algorithm of a run whose members have been trained.
pub(super) struct Taught {
    builder: SelfTrainingBuilder,
    members: Vec<Trained>,
}

impl Experiment<'_> {
    /// Whether members have to be trained before this can run.
    fn needs_members(&self) -> bool {
        matches!(self.algorithm.ready(), Err(NotReady::NoPseudoLabels))
    }

    /// What `act` gives for the run of each member, of which it is told the number, from 1, and the line; nothing unless
    /// members are needed.
    fn each_member<T>(
        &self,
        mut act: impl FnMut(usize, &Member, &Experiment<'_>) -> Result<T, ExperimentError>,
    ) -> Result<Vec<T>, ExperimentError> {
        let members = if self.needs_members() { self.config.members()? } else { Vec::new() };
        let mut all = Vec::with_capacity(members.len());
        for (number, member) in (1..).zip(&members) {
            let experiment = self.of_member(member);
            let result = experiment.and_then(|experiment| act(number, member, &experiment));
            all.push(result.map_err(|error| match error {
                // A wish, not a fault of the member.
                ExperimentError::Train(TrainError::Interrupted { .. }) => error,
                error => {
                    ExperimentError::Member { number, line: member.line.clone(), source: Box::new(error) }
                }
            })?);
        }
        Ok(all)
    }

    /// A supervised run on the same images.
    fn of_member<'m>(&'m self, member: &'m Member) -> Result<Experiment<'m>, ExperimentError> {
        Ok(Experiment {
            config: &member.config,
            algorithm: &member.config.value.algorithm,
            model: network_config(&member.config.value.model, self.dataset.classes.len())?,
            device: self.device.clone(),
            baseline: None,
            ..*self
        })
    }

    /// Refuses members that could not be trained.
    pub(super) fn check_members(&self) -> Result<(), ExperimentError> {
        self.each_member(|_, _, member| member.check()).map(drop)
    }

    /// A line on each member, of which one step was tried.
    pub(super) fn rehearse_members(&self) -> Result<Vec<String>, ExperimentError> {
        self.each_member(|number, Member { line, .. }, member| {
            let rehearsal = member.rehearse()?;
            Ok(format!("{number}: {line}: {}; {}", rehearsal.line("network"), rehearsal.line("tried")))
        })
    }

    /// The input that names the members' runs; none without members.
    pub(super) fn planned_members(&self) -> Result<Option<Input>, ExperimentError> {
        let members = self.each_member(|_, member, experiment| {
            Ok((member.line.clone(), experiment.plan()?.fingerprint().to_string()))
        })?;
        let planned: Vec<_> =
            members.iter().map(|(line, hash)| Planned { line, fingerprint: hash.clone() }).collect();
        Ok((!planned.is_empty()).then(|| json(MEMBERS, &planned)))
    }

    /// Trains every member that is not there yet, or goes on with it, and joins what they say of the unlabelled images: the
    /// derived inputs of the run proper; none without members. With `fresh`, all members are trained anew.
    pub(super) fn train_members(
        &self,
        fresh: bool,
        arguments: &[String],
        progress: &Shown,
        stop: &AtomicBool,
    ) -> Result<Vec<Input>, ExperimentError> {
        if !self.needs_members() {
            return Ok(Vec::new());
        }
        let settings = &self.config.value.algorithm.self_training;
        let total = settings.members.len();
        let (members, said): (Vec<Trained>, Vec<Vec<f32>>) = self
            .each_member(|number, Member { line, .. }, member| {
                progress.note(&format!("member {number} of {total}: {line}"));
                let there = if fresh { None } else { member.finished()? };
                let finished = match there {
                    Some(finished) => finished,
                    None => member.execute(fresh, arguments, progress, stop)?,
                };
                let folder = finished.folder.display();
                progress.note(&format!("member {number} of {total}: {} ({folder})", finished.summary()));
                // Only the first rank writes the joined labels down, from where all ranks read them.
                let said =
                    member.team.is_first().then(|| member.says(&finished, progress, stop)).transpose()?;
                Ok((Trained::of(line, &finished), said.unwrap_or_default()))
            })?
            .into_iter()
            .unzip();
        if !self.team.is_first() {
            return Ok(Vec::new());
        }
        let classes = self.dataset.classes.len();
        let joined = JoinedLabels::join(self.split.unlabelled.clone(), &said, classes, settings.join)
            .expect("each member says probabilities of these images");
        let bytes = to_bytes(joined.probabilities(), classes);
        Ok(vec![Input::new(PSEUDO_LABELS, bytes), json(SCORES, &members)])
    }

    /// What the network of a finished run of this says of each unlabelled image, `[images, classes]`: computed once, and
    /// kept in its folder.
    fn says(
        &self,
        finished: &Finished,
        progress: &Shown,
        stop: &AtomicBool,
    ) -> Result<Vec<f32>, ExperimentError> {
        let (path, images) = (finished.folder.join(SAID), &self.split.unlabelled);
        let classes = self.dataset.classes.len();
        if let Ok(bytes) = std::fs::read(&path) {
            let again = |reason| format!("{reason}; delete it, and it is made again");
            let read = from_bytes(&bytes, images.len(), classes);
            // For its checks.
            let checked = read.and_then(|read| {
                JoinedLabels::new(images.clone(), read, classes).map_err(|error| error.to_string())
            });
            return match checked {
                Ok(said) => Ok(said.probabilities().to_vec()),
                Err(reason) => Err(damaged(&path, again(reason))),
            };
        }
        let run = FinishedRun::open(&finished.folder, &self.device)?;
        let cache = run.cache(&self.places.cache, progress, stop)?;
        let bar = progress.begin("pseudo-labels", images.len() as u64);
        let said = run.probabilities(&cache, images, |done| {
            bar.set(done);
            !stop.load(Ordering::Relaxed)
        });
        bar.finish();
        let Some(said) = said else {
            let come_back = self.team.come_back().load(Ordering::Relaxed);
            return Err(TrainError::Interrupted { step: finished.steps, come_back }.into());
        };
        atomic_write(&path, &to_bytes(&said, classes))?;
        Ok(said)
    }

    /// The algorithm with the pseudo-labels that `run` was frozen with; `None` for algorithms without members.
    pub(super) fn taught(&self, run: &Run) -> Result<Option<Taught>, ExperimentError> {
        if !self.needs_members() {
            return Ok(None);
        }
        let broken = |name: &str, reason: String| damaged(&run.path("inputs").join(name), reason);
        let (images, classes) = (self.split.unlabelled.clone(), self.dataset.classes.len());
        let joined =
            from_bytes(&run.input(PSEUDO_LABELS)?, images.len(), classes).and_then(|probabilities| {
                JoinedLabels::new(images, probabilities, classes).map_err(|error| error.to_string())
            });
        let joined = Arc::new(joined.map_err(|reason| broken(PSEUDO_LABELS, reason))?);
        let members = serde_json::from_slice(&run.input(SCORES)?);
        let members = members.map_err(|error| broken(SCORES, error.to_string()))?;
        let config = self.config.value.algorithm.self_training.clone();
        Ok(Some(Taught { builder: SelfTrainingBuilder { config, joined }, members }))
    }
}

impl Taught {
    /// The algorithm to train with.
    pub(super) fn builder(&self) -> &dyn AlgorithmBuilder {
        &self.builder
    }

    /// For the bundle and its card: a fact on each member. Numbers are filled up to one width, since facts are sorted by name.
    pub(super) fn facts(&self) -> impl Iterator<Item = (String, String)> {
        let width = self.members.len().to_string().len();
        (1..).zip(&self.members).map(move |(number, member)| {
            let Trained { line, run, .. } = member;
            (format!("member {number:0width$}"), format!("{line}: {} ({run})", member.score()))
        })
    }

    /// For the report page.
    pub(super) fn rows(&self) -> impl Iterator<Item = MemberRow> {
        self.members.iter().map(|member| MemberRow {
            line: member.line.clone(),
            score: member.score(),
            run: member.run.clone(),
        })
    }
}

impl Trained {
    fn of(line: &str, finished: &Finished) -> Self {
        let scored = finished.scores().map(|(set, scores)| (set.to_owned(), scores.samples, scores.accuracy));
        Self { line: line.to_owned(), run: run_name(&finished.folder), scored }
    }

    /// In words.
    fn score(&self) -> String {
        match &self.scored {
            Some((set, count, share)) => format!("{:.2} % of {count} {set} images right", 100.0 * share),
            None => "not scored, for lack of labelled images".to_owned(),
        }
    }
}

fn json(name: &str, value: &impl Serialize) -> Input {
    let bytes = serde_json::to_vec_pretty(value).expect("names and numbers are plain data");
    Input::new(name, bytes)
}

fn damaged(path: &Path, reason: String) -> ExperimentError {
    ExperimentError::Damaged { path: path.to_owned(), reason }
}

/// Rows of `classes` values as a safetensors file.
fn to_bytes(values: &[f32], classes: usize) -> Vec<u8> {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let view = TensorView::new(Dtype::F32, vec![values.len() / classes, classes], &bytes);
    serialize([(TENSOR, view.expect("whole rows"))], None).expect("one tensor can be written to memory")
}

/// Reads `rows` rows of `classes` values back; if they are not that, says why.
fn from_bytes(bytes: &[u8], rows: usize, classes: usize) -> Result<Vec<f32>, String> {
    let file = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
    let view = file.tensor(TENSOR).map_err(|error| error.to_string())?;
    if view.dtype() != Dtype::F32 || view.shape() != [rows, classes] {
        let found = (view.dtype(), view.shape());
        return Err(format!("it holds {found:?} instead of {rows} rows of {classes} F32"));
    }
    Ok(view.data().as_chunks::<4>().0.iter().map(|value| f32::from_le_bytes(*value)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_bit_for_bit_and_others_are_refused() {
        for (rows, classes) in [(0, 3), (1, 2), (5, 7)] {
            let values: Vec<f32> = (0..rows * classes).map(|i| 1.0 / (i as f32 + 3.0)).collect();
            let bytes = to_bytes(&values, classes);
            assert_eq!(from_bytes(&bytes, rows, classes).expect("as written"), values);
            assert!(from_bytes(&bytes, rows + 1, classes).is_err_and(|reason| reason.contains("rows of")));
            assert!(from_bytes(&bytes[..bytes.len() / 2], rows, classes).is_err());
        }
        assert!(from_bytes(b"", 0, 3).is_err());
    }

    #[test]
    fn ten_members_stay_in_order() {
        let member = |line: usize| Trained { line: format!("net{line} full"), run: "r".into(), scored: None };
        let joined = Arc::new(JoinedLabels::uniform(1, 2));
        let builder = SelfTrainingBuilder { config: Default::default(), joined };
        let taught = Taught { builder, members: (1..=10).map(member).collect() };
        let facts: std::collections::BTreeMap<_, _> = taught.facts().collect();
        let lines = facts.values().map(|fact| fact.split_once(": not scored").expect("without images").0);
        assert!(lines.eq((1..=10).map(|line| format!("net{line} full")).collect::<Vec<_>>()), "{facts:?}");
        assert!(taught.rows().map(|row| row.line).eq((1..=10).map(|line| format!("net{line} full"))));
    }
}
