//! What a trained run leaves for its user: bundle, predictions, report.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use super::baseline::{BASELINE, Comparison, PREDICTIONS};
use super::execute::{RESULT, Trained, run_name};
use super::reliability::{OnImages, section};
use super::scale::Scale;
use super::self_training::Taught;
use super::{Experiment, ExperimentError, Finished, Shown};
use crate::cells;
use crate::data::FIT_FILTER;
use crate::device;
use crate::files::{WriteError, atomic_write};
use crate::inference::{Bundle, CARD, Confidence, Preprocessing};
use crate::project::Run;
use crate::report::{
    ConfigurationRow, MemberRow, MetricsTable, Results, RunSummary, SetAsideRow, confusion_svg,
    standard_charts,
};
use crate::training::Outcome;

impl Experiment<'_> {
    /// Bundle, predictions, report.
    pub(super) fn write_up(
        &self,
        run: &Run,
        trained: Trained,
        progress: &Shown,
        stop: &AtomicBool,
    ) -> Result<Finished, ExperimentError> {
        let Trained { outcome, taught, scale, cache } = trained;
        let mut bundle = self.bundle(run.dir(), &outcome);
        bundle.about.extend(taught.iter().flat_map(Taught::facts));
        bundle.write(&run.path("bundle"), &outcome.network)?;
        self.predictions(run.dir(), &bundle, &outcome)?;
        self.write_beliefs(run, (&bundle, &outcome.network), &cache, progress, stop)?;
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
        let sets =
            [(&self.split.test, &outcome.test_logits), (&self.split.evaluation, &outcome.evaluation_logits)];
        for ((_, file), (indices, logits)) in PREDICTIONS.into_iter().zip(sets) {
            self.predictions_of(indices, logits, bundle, &folder.join(file))?;
        }
        if let Some(baseline) = self.baseline {
            atomic_write(&folder.join(BASELINE), format!("{}\n", run_name(&baseline.folder)).as_bytes())?;
        }
        Ok(())
    }

    fn predictions_of(
        &self,
        indices: &[u32],
        logits: &[f32],
        bundle: &Bundle,
        file: &Path,
    ) -> Result<(), ExperimentError> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        let images = &self.dataset.manifest.images;
        let logits = logits.chunks_exact(self.dataset.classes.len());
        let rows = indices.iter().zip(logits).map(|(index, logits)| {
            let image = &images[*index as usize];
            let label = image.label.map_or_else(String::new, |label| label.to_string());
            let said = bundle.predict(logits);
            let confidence = format!("{:.6}", said.confidence);
            let path = cells::harmless(&image.path).into_owned();
            let hash = image.hash.to_string();
            [path, label, said.class.to_string(), confidence, said.abstained.to_string(), hash]
        });
        let heading = ["image", "label", "prediction", "confidence", "abstained", "hash"].map(String::from);
        for row in std::iter::once(heading).chain(rows) {
            writer.write_record(row).expect("rows of six can be written to memory");
        }
        let bytes = writer.into_inner().expect("memory takes what it is given");
        Ok(atomic_write(file, &bytes)?)
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
