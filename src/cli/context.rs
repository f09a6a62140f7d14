//! What most verbs need: the configuration, the project, the device, the signal to stop.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use burn::tensor::Device;
use clap::Args;
use harvest_collectives::{Identity, JoinOptions, Passport, host_name, join};

use super::signals::Asked;
use crate::config::{Override, Resolved, Sources, resolve};
use crate::data::{Classes, Progress as _, Split};
use crate::experiment::{
    Dataset, Experiment, ExperimentError, Finished, Places, Shown, Team, network_config,
};
use crate::project::{FrozenLabels, Project};

/// A command that makes no sense, in words.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// An end that is to be followed by another start, whatever was being done when it was asked for.
#[derive(Debug, thiserror::Error)]
#[error("the time is up; start again to go on")]
pub struct ComeBack;

/// Arguments of every verb that reads a configuration.
#[derive(Debug, Clone, Default, Args)]
pub struct ConfigArguments {
    /// Recipe to read (TOML).
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Set one value, such as training.lr=3e-4. May be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Folder of the project; without, the one around the current folder, if any.
    #[arg(long, value_name = "DIR")]
    pub project: Option<PathBuf>,
    /// cpu, cuda, cuda:N, or auto for the best there is.
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<String>,
    /// fused, or reference for burn's own operations: slower, to see whether a kernel is at fault.
    #[arg(long, value_name = "KERNELS")]
    pub kernels: Option<String>,
    /// Folder of images, or CSV file of path,label.
    #[arg(long, value_name = "PATH")]
    pub data: Option<PathBuf>,
    /// Say nothing but results and errors.
    #[arg(long, short)]
    pub quiet: bool,
}

/// What a job goes by in place of the project's own.
#[derive(Debug, Clone, Default, Args)]
pub struct FrozenArguments {
    /// Labels and classes to go by in place of the project's own: a file that `harvest launch` and the page write for a job.
    #[arg(long, value_name = "FILE")]
    pub labels: Option<PathBuf>,
    /// Settings to go by in place of those in the project's file: a copy of it that `harvest launch` and the page write for a job.
    #[arg(long, value_name = "FILE")]
    pub settings: Option<PathBuf>,
}

/// What becomes of earlier runs of the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// A finished one is what is wanted; an unfinished one goes on.
    Unless,
    /// A finished one is done again; an unfinished one goes on.
    Unfinished,
    /// All are left alone.
    Anew,
}

impl Repeat {
    fn of(fresh: bool) -> Self {
        if fresh { Self::Anew } else { Self::Unfinished }
    }
}

/// A resolved configuration and where it leads.
pub struct Context {
    /// The layers they come from.
    pub sources: Sources,
    /// All settings.
    pub config: Resolved,
    /// The project, if there is one.
    pub project: Option<Project>,
    /// Its classes, if it has two or more.
    pub classes: Option<Classes>,
    /// Labels and classes to go by in place of the project's own.
    pub frozen: Option<Arc<FrozenLabels>>,
    /// Shows progress.
    pub progress: Shown,
    /// Set by signals that ask for an end.
    pub stop: Arc<AtomicBool>,
    /// The ranks that do this together.
    pub team: Team,
    /// Which of those on this machine this is.
    pub local_rank: usize,
}

/// Images, scanned and divided.
pub struct Ready {
    /// Where lists, caches and runs are kept.
    pub places: Places,
    /// All images.
    pub dataset: Dataset,
    /// What each is for.
    pub split: Split,
}

impl Ready {
    /// What `context` asks for, on these images.
    pub fn experiment<'a>(
        &'a self,
        context: &'a Context,
        baseline: Option<&'a Finished>,
    ) -> anyhow::Result<Experiment<'a>> {
        Ok(Experiment {
            config: &context.config,
            algorithm: &context.config.value.algorithm,
            model: network_config(&context.config.value.model, self.dataset.classes.len())?,
            dataset: &self.dataset,
            split: &self.split,
            device: context.device()?,
            places: &self.places,
            baseline,
            team: &context.team,
        })
    }
}

impl ConfigArguments {
    /// The project that is meant, if one is.
    ///
    /// # Errors
    /// If the one that is named is none.
    pub fn project(&self) -> anyhow::Result<Option<Project>> {
        Ok(match &self.project {
            Some(folder) => Some(Project::open(folder)?),
            // A recipe names its own images; only without one does the folder one stands in matter.
            None if self.config.is_some() || self.data.is_some() => None,
            None => Project::find(Path::new(".")).ok(),
        })
    }

    /// Reads all layers. Further `overrides` come from a verb's own flags.
    pub fn resolve(&self, overrides: Vec<Override>) -> anyhow::Result<Context> {
        self.resolve_frozen(overrides, &FrozenArguments::default())
    }

    /// [`Self::resolve`], but for what `frozen` says in place of the project's own.
    ///
    /// # Errors
    /// Also if there is no project, or a file cannot be read.
    pub fn resolve_frozen(
        &self,
        overrides: Vec<Override>,
        frozen: &FrozenArguments,
    ) -> anyhow::Result<Context> {
        let project = self.project()?;
        for (flag, file) in [("--labels", &frozen.labels), ("--settings", &frozen.settings)] {
            if file.is_some() && project.is_none() {
                return Err(Usage(format!("{flag}: only for a project; name it with --project")).into());
            }
        }
        let mut sources = Sources::of_this_machine();
        sources.project = project.as_ref().map(Project::file);
        sources.frozen_project = frozen.settings.clone();
        sources.recipe = self.config.clone();
        sources.overrides = overrides;
        if let Some(device) = &self.device {
            sources.overrides.push(Override::flag("--device", "run.device", device));
        }
        if let Some(kernels) = &self.kernels {
            sources.overrides.push(Override::flag("--kernels", "run.kernels", kernels));
        }
        if let Some(data) = &self.data {
            sources.overrides.push(Override::flag("--data", "data.root", data.display()));
        }
        for setting in &self.set {
            sources.overrides.push(Override::parse(setting)?);
        }
        let asked = Asked::listen()?;
        let frozen = frozen.labels.as_deref().map(FrozenLabels::read).transpose()?.map(Arc::new);
        let classes = match (&frozen, &project) {
            (Some(frozen), _) => Some(&frozen.classes),
            (None, project) => project.as_ref().map(Project::classes),
        };
        let classes = classes.filter(|classes| classes.len() >= 2);
        let classes = classes.map(|classes| classes.for_data()).transpose()?;
        let config = resolve(&sources)?;
        harvest_kernels::choose(config.value.run.kernels.into());
        Ok(Context {
            config,
            sources,
            project,
            classes,
            frozen,
            progress: Shown::new(self.quiet),
            stop: asked.stop,
            team: Team::alone().told_by(asked.come_back),
            local_rank: 0,
        })
    }
}

impl Context {
    /// With the other ranks of this job, if there are any: waits until all have met.
    ///
    /// # Errors
    /// If they do not find each other, or do not fit together.
    pub fn joined(mut self) -> anyhow::Result<Self> {
        let Some(identity) = Identity::from_environment()?.filter(|identity| identity.world_size > 1) else {
            return Ok(self);
        };
        self.local_rank = identity.local_rank;
        let device = self.device()?;
        let run = &self.config.value.run;
        let passport = Passport {
            host: host_name(),
            device: match crate::device::is_cpu(&device) {
                true => "cpu".to_owned(),
                false => format!("cuda:{}", crate::device::index(&device)),
            },
            driver: crate::device::driver(&device),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            config: short(&self.config.fingerprint()),
            data: self
                .config
                .value
                .data
                .root
                .as_deref()
                .map_or_else(String::new, |root| root.display().to_string()),
        };
        let options = JoinOptions {
            limit: Duration::from_secs(run.limit_seconds.into()),
            device_index: (!crate::device::is_cpu(&device)).then(|| crate::device::index(&device)),
            ..JoinOptions::default()
        };
        let host = passport.host.clone();
        let joined = join(&identity, passport, &options)?;
        let table = joined.table();
        if identity.rank == 0 {
            self.progress.note(&format!("{} ranks:\n{table}", identity.world_size));
        } else {
            self.progress = Shown::new(true);
        }
        let neighbours = (0..identity.world_size).filter(|rank| table.host(*rank) == host).count();
        share_threads(neighbours);
        self.team = self.team.joined(joined);
        Ok(self)
    }

    /// Where lists, caches and runs are kept.
    pub fn places(&self) -> Result<Places, ExperimentError> {
        if let Some(project) = &self.project {
            return Ok(Places::in_project(project).with_labels(self.frozen.clone()));
        }
        let runs = self.config.value.run.folder.as_deref().unwrap_or(Path::new("runs"));
        let root = self.config.value.data.root.as_deref().ok_or(ExperimentError::NoRoot)?;
        Ok(Places::in_runs(runs, root))
    }

    /// Scans, splits and trains as configured; tells on standard error what is not used. Goes on with an unfinished run
    /// unless `fresh`.
    pub fn train(&self, fresh: bool) -> anyhow::Result<Finished> {
        self.train_beside(None, Repeat::of(fresh))
    }

    /// [`Self::train`], with a comparison with `baseline` in the report.
    pub fn train_beside(&self, baseline: Option<&Finished>, repeat: Repeat) -> anyhow::Result<Finished> {
        let ready = self.prepare()?;
        let experiment = ready.experiment(self, baseline)?;
        if repeat == Repeat::Unless
            && let Some(finished) = experiment.finished()?
        {
            return Ok(finished);
        }
        let arguments: Vec<String> = std::env::args().collect();
        Ok(experiment.execute(repeat == Repeat::Anew, &arguments, &self.progress, &self.stop)?)
    }

    /// Scans and splits; tells on standard error what is not used.
    pub fn prepare(&self) -> anyhow::Result<Ready> {
        let places = self.places()?;
        let dataset = self.team.first_then_all(|| {
            Dataset::load(&self.config, &places, self.classes.as_ref(), &self.progress, &self.stop)
        })?;
        self.team.agree("images", &dataset.manifest.fingerprint().to_string()[..16])?;
        let set_aside = dataset.manifest.set_aside.len();
        if set_aside > 0 && self.team.is_first() {
            eprintln!(
                "set aside: {set_aside} of the files; `harvest scan` and the report list them with reasons"
            );
        }
        let split = dataset.split(&self.config, &places)?;
        for conflict in split.conflicts.iter().filter(|_| self.team.is_first()) {
            eprintln!("left out: {}", conflict.describe(&dataset.manifest));
        }
        Ok(Ready { places, dataset, split })
    }

    /// Trains on the labelled images alone, all else equal; a finished run of the same is taken unless `fresh`.
    pub fn train_baseline(&self, fresh: bool) -> anyhow::Result<Finished> {
        let mut sources = self.sources.clone();
        sources.overrides.push(Override::flag("--with-baseline:", "algorithm.name", "supervised"));
        let baseline = Self {
            config: resolve(&sources)?,
            sources,
            project: self.project.clone(),
            classes: self.classes.clone(),
            frozen: self.frozen.clone(),
            progress: Shown::new(self.progress.is_quiet()),
            stop: self.stop.clone(),
            team: self.team.clone(),
            local_rank: self.local_rank,
        };
        baseline.train_beside(None, if fresh { Repeat::Anew } else { Repeat::Unless })
    }

    /// The device asked for.
    pub fn device(&self) -> anyhow::Result<Device> {
        Ok(crate::device::of_local_rank(&self.config.value.run.device, self.local_rank)?)
    }
}

/// The beginning of a hash, enough to tell two apart.
fn short(hash: &blake3::Hash) -> String {
    hash.to_hex()[..16].to_owned()
}

/// Leaves the other ranks of this machine their part of its processors, unless somebody has said how many threads there are
/// to be.
fn share_threads(ranks: usize) {
    if std::env::var_os("RAYON_NUM_THREADS").is_some() {
        return;
    }
    let given = std::env::var("SLURM_CPUS_PER_TASK").ok().and_then(|count| count.parse().ok());
    let all = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = given.unwrap_or(all / ranks).max(1);
    // If the threads are running already, they stay as they are: slower, not wrong.
    let _ = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
}

/// Where the image cache of a run lies: beside the runs, in the project or in `data`.
pub fn run_cache(run: &Path) -> PathBuf {
    let run = std::path::absolute(run).unwrap_or_else(|_| run.to_owned());
    let runs = run.parent().unwrap_or(Path::new("."));
    match runs.parent().and_then(|project| Project::open(project).ok()) {
        Some(project) => project.cache(),
        None => runs.join("data").join("cache"),
    }
}
