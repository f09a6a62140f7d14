//! Sweeps: algorithms × base models × labels per class × seeds, one run each, compared in tables and figures.
//!
//! ```toml
//! recipe = "../fashion_mnist.toml"      # what all runs share; more tables of a recipe may follow
//!
//! [sweep]
//! algorithms = ["freematch", "supervised"]
//! labels_per_class = [4, 10, 40]
//! fully_labelled = true                 # and supervised training on every label, to measure against
//! seeds = [0, 1, 2]
//!
//! [sweep.overrides.supervised.training] # for one algorithm only
//! lr = 1e-3
//! ```
//!
//! Runs are told apart by their fingerprints, as everywhere: the same command finds finished runs, goes on with an
//! unfinished one and begins the others, so a sweep may be stopped at any time. Each run depends on nothing but its own
//! settings; [`Session::run`] of single numbers may go on in several processes at once.

mod figures;
mod page;
mod plan;
mod results;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use burn::tensor::Device;

pub use plan::{Axes, Labels, Planned, Sweep, SweepFile};
pub use results::{Row, State};

use crate::data::{Classes, Split};
use crate::experiment::{
    Dataset, Experiment, ExperimentError, Finished, Places, Shown, Team, chain, network_config,
};
use crate::files::{WriteError, atomic_write};
use crate::project::{Run, RunState};

/// A sweep at work: its images are scanned, and each run's folder, if there is one, is known.
pub struct Session<'a> {
    sweep: &'a Sweep,
    places: Places,
    dataset: Dataset,
    device: Device,
    team: Team,
    /// For each run its division and fingerprint, or why it cannot be run.
    prepared: Vec<Result<Prepared, String>>,
    rows: Vec<Row>,
}

struct Prepared {
    split: Split,
    fingerprint: blake3::Hash,
}

impl<'a> Session<'a> {
    /// Scans the images once for all runs and looks for runs that are there.
    ///
    /// # Errors
    /// If images or run folders cannot be read.
    pub fn open(
        sweep: &'a Sweep,
        classes: Option<&Classes>,
        device: Device,
        progress: &Shown,
        stop: &AtomicBool,
    ) -> Result<Self, ExperimentError> {
        let first = sweep.runs.first().ok_or(ExperimentError::NoRoot)?;
        let root = first.config.value.data.root.as_deref().ok_or(ExperimentError::NoRoot)?;
        let places = Places::in_runs(&sweep.folder, root);
        let dataset = Dataset::load(&first.config, &places, classes, progress, stop)?;
        let mut session = Self {
            sweep,
            places,
            dataset,
            device,
            team: Team::alone(),
            prepared: Vec::new(),
            rows: Vec::new(),
        };
        session.prepared = sweep.runs.iter().map(|run| session.prepare(run)).collect();
        session.refresh()?;
        Ok(session)
    }

    fn prepare(&self, run: &Planned) -> Result<Prepared, String> {
        let split = self.dataset.split(&run.config, &self.places).map_err(|error| chain(&error))?;
        let plan = self.experiment(run, &split).and_then(|experiment| experiment.plan());
        let fingerprint = plan.map_err(|error| chain(&error))?.fingerprint();
        Ok(Prepared { split, fingerprint })
    }

    fn experiment<'s>(
        &'s self,
        run: &'s Planned,
        split: &'s Split,
    ) -> Result<Experiment<'s>, ExperimentError> {
        Ok(Experiment {
            config: &run.config,
            algorithm: &run.config.value.algorithm,
            model: network_config(&run.config.value.model, self.dataset.classes.len())?,
            dataset: &self.dataset,
            split,
            device: self.device.clone(),
            places: &self.places,
            baseline: None,
            team: &self.team,
        })
    }

    /// How each run stands, in the sweep's order.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Trains run number `index`, counted from 0, or goes on with it; a finished one is left alone. A run that fails is
    /// noted in its row.
    ///
    /// # Errors
    /// If asked to stop, or if the results cannot be written.
    pub fn run(&mut self, index: usize, progress: &Shown, stop: &AtomicBool) -> Result<(), ExperimentError> {
        if matches!(self.rows[index].state, State::Done(_)) {
            return self.write_results();
        }
        let planned = &self.sweep.runs[index];
        let outcome = match &self.prepared[index] {
            Err(reason) => Err(reason.clone()),
            Ok(prepared) => {
                let arguments: Vec<String> = std::env::args().collect();
                let experiment = self.experiment(planned, &prepared.split)?;
                match experiment.execute(false, &arguments, progress, stop) {
                    // Whatever it was called, it happened because somebody wants to stop.
                    Err(error) if stop.load(Ordering::Relaxed) => return Err(error),
                    outcome => outcome.map_err(|error| chain(&error)),
                }
            }
        };
        // Other processes may have finished others meanwhile.
        self.refresh()?;
        if let Err(reason) = outcome {
            self.rows[index].state = State::Failed(reason);
        }
        self.write_results()
    }

    /// Writes tables, figures and page anew.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn write_results(&self) -> Result<(), ExperimentError> {
        write(self.sweep, &self.rows)
    }

    /// Looks at all run folders.
    fn refresh(&mut self) -> Result<(), ExperimentError> {
        let mut found: Vec<(blake3::Hash, Run)> = Vec::new();
        for run in Run::list(&self.places.runs)? {
            found.push((run.fingerprint()?, run));
        }
        let earlier = std::mem::take(&mut self.rows);
        for (index, (planned, prepared)) in self.sweep.runs.iter().zip(&self.prepared).enumerate() {
            let (mut state, mut folder) = match prepared {
                Ok(_) => (State::Waiting, None),
                Err(reason) => (State::Failed(reason.clone()), None),
            };
            // A failure that left no folder is remembered.
            if let Some(Row { state: State::Failed(reason), .. }) = earlier.get(index) {
                state = State::Failed(reason.clone());
            }
            if let Ok(prepared) = prepared {
                for (_, run) in found.iter().filter(|(hash, _)| *hash == prepared.fingerprint) {
                    (state, folder) = (state_of(run)?, Some(run.dir().to_path_buf()));
                    if matches!(state, State::Done(_)) {
                        break;
                    }
                }
            }
            self.rows.push(Row::new(planned, folder, state));
        }
        Ok(())
    }
}

/// Writes all results into the sweep's folder.
fn write(sweep: &Sweep, rows: &[Row]) -> Result<(), ExperimentError> {
    let folder = &sweep.folder;
    std::fs::create_dir_all(folder).map_err(WriteError::at(folder))?;
    let put = |name: &str, text: &str| atomic_write(&folder.join(name), text.as_bytes());
    put("results.csv", &results::results_csv(rows))?;
    let settings = results::settings(rows);
    put("table.csv", &results::table_csv(&settings))?;
    let figures = figures::figures(&settings);
    for figure in &figures {
        put(&figure.file, &figure.svg)?;
    }
    Ok(put("report.html", &page::page(sweep, rows, &settings, &figures))?)
}

fn state_of(run: &Run) -> Result<State, ExperimentError> {
    Ok(match run.state()? {
        RunState::Done(_) => State::Done(Box::new(Finished::read(run.dir())?)),
        RunState::Failed(reason) => State::Failed(reason),
        RunState::Unfinished => State::Unfinished,
    })
}

/// Rows of a sweep nothing of which has been run yet; looks at no image.
pub fn untouched(sweep: &Sweep) -> Vec<Row> {
    sweep.runs.iter().map(|planned| Row::new(planned, None, State::Waiting)).collect()
}

/// Files a sweep leaves in its folder.
pub fn report(sweep: &Sweep) -> PathBuf {
    sweep.folder.join("report.html")
}
