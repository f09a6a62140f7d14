//! `harvest sweep`: algorithms × models × labels per class × seeds, one run each.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;

use super::context::Usage;
use super::signals::Asked;
use crate::config::{Override, Sources};
use crate::experiment::Shown;
use crate::report::duration;
use crate::sweep::{Row, Session, State, Sweep, report, untouched};

/// Compare algorithms over labels per class and seeds: one run each, tables and figures of all.
///
/// The same command goes on with a sweep that was stopped or killed, and does nothing twice.
#[derive(Debug, Args)]
pub struct SweepVerb {
    /// The sweep (TOML): a table [sweep] and a recipe's tables.
    file: PathBuf,
    /// Folder of results and runs; without, one named like the file in the folder of runs.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// List the runs and how they stand; run nothing.
    #[arg(long)]
    dry_run: bool,
    /// Do this run of the list only, counted from 1: for arrays of jobs.
    #[arg(long, value_name = "N")]
    only: Option<usize>,
    /// Set one value for all runs, such as training.steps=300. May be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// cpu, cuda, cuda:N, or auto for the best there is.
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    /// Folder of images, or CSV file of path,label.
    #[arg(long, value_name = "PATH")]
    data: Option<PathBuf>,
    /// Say nothing but results and errors.
    #[arg(long, short)]
    quiet: bool,
}

/// Some runs of a sweep failed; each is told where it happened.
#[derive(Debug, thiserror::Error)]
#[error(
    "{failed} of {total} runs failed; results.csv gives the reasons, and the same command tries them again"
)]
struct SomeFailed {
    failed: usize,
    total: usize,
}

impl SweepVerb {
    pub fn run(self) -> anyhow::Result<()> {
        let sweep = Sweep::read(&self.file, &self.sources()?, self.out.as_deref())?;
        let total = sweep.runs.len();
        let chosen: Vec<usize> = match self.only {
            None => (0..total).collect(),
            Some(number) if (1..=total).contains(&number) => vec![number - 1],
            Some(number) => {
                return Err(Usage(format!("--only {number}: the sweep has runs 1 to {total}")).into());
            }
        };
        if self.dry_run && !sweep.folder.exists() {
            list(&sweep, &untouched(&sweep), &chosen);
            return Ok(());
        }
        let (progress, stop) = (Shown::new(self.quiet), Asked::listen()?.stop);
        let device = crate::device::by_name(&sweep.runs[0].config.value.run.device)?;
        let mut session = Session::open(&sweep, None, device, &progress, &stop)?;
        if self.dry_run {
            list(&sweep, session.rows(), &chosen);
            return Ok(());
        }
        let mut pace = Pace::default();
        for (position, &index) in chosen.iter().enumerate() {
            let known = matches!(session.rows()[index].state, State::Done(_));
            let name = format!("run {} of {total}: {}", index + 1, sweep.runs[index].describe());
            if !known && !self.quiet {
                let left = pace.left(session.rows(), &chosen[position..]);
                eprintln!(
                    "{name}{}",
                    left.map_or(String::new(), |left| format!(" ({} left)", duration(left)))
                );
            }
            let started = Instant::now();
            session.run(index, &progress, &stop)?;
            if !known {
                pace.add(started.elapsed());
            }
            println!("{name}: {}", outcome(&session.rows()[index]));
        }
        println!("results: {}", sweep.folder.join("results.csv").display());
        println!("report:  {}", report(&sweep).display());
        let failed =
            chosen.iter().filter(|index| matches!(session.rows()[**index].state, State::Failed(_))).count();
        if failed > 0 {
            return Err(SomeFailed { failed, total: chosen.len() }.into());
        }
        Ok(())
    }

    fn sources(&self) -> anyhow::Result<Sources> {
        let mut sources = Sources::of_this_machine();
        if let Some(device) = &self.device {
            sources.overrides.push(Override::flag("--device", "run.device", device));
        }
        if let Some(data) = &self.data {
            sources.overrides.push(Override::flag("--data", "data.root", data.display()));
        }
        for setting in &self.set {
            sources.overrides.push(Override::parse(setting)?);
        }
        Ok(sources)
    }
}

fn list(sweep: &Sweep, rows: &[Row], chosen: &[usize]) {
    let width = sweep.runs.len().to_string().len();
    for &index in chosen {
        println!("{:>width$}  {}: {}", index + 1, sweep.runs[index].describe(), outcome(&rows[index]));
    }
}

/// How a run stands, in words.
fn outcome(row: &Row) -> String {
    match &row.state {
        State::Done(finished) => match finished.scores() {
            Some((_, scores)) => format!("{} in {:.1} s", scores.accuracy_text(), finished.seconds),
            None => format!("done in {:.1} s; there are no images to test on", finished.seconds),
        },
        State::Failed(reason) => format!("failed: {reason}"),
        state => state.as_str().to_owned(),
    }
}

/// How long runs take.
#[derive(Default)]
struct Pace {
    taken: Duration,
    runs: u32,
}

impl Pace {
    fn add(&mut self, taken: Duration) {
        self.taken += taken;
        self.runs += 1;
    }

    /// Time for the runs of `chosen` that are not done: each takes as long as those of its algorithm and model did, else as
    /// long as any.
    fn left(&self, rows: &[Row], chosen: &[usize]) -> Option<Duration> {
        let alike = |row: &Row| {
            let same = |other: &&Row| other.algorithm == row.algorithm && other.model == row.model;
            let times: Vec<f64> =
                rows.iter().filter(same).filter_map(Row::finished).map(|finished| finished.seconds).collect();
            (!times.is_empty()).then(|| times.iter().sum::<f64>() / times.len() as f64)
        };
        let any = (self.runs > 0).then(|| (self.taken / self.runs).as_secs_f64());
        let waiting = chosen.iter().map(|index| &rows[*index]).filter(|row| row.finished().is_none());
        let seconds = waiting.map(|row| alike(row).or(any)).sum::<Option<f64>>()?;
        Duration::try_from_secs_f64(seconds).ok()
    }
}
