//! `harvest launch`: a command as a job, of Slurm or on this machine.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Parser as _, ValueEnum};

use super::context::{ConfigArguments, FrozenArguments, Usage};
use super::{Arguments, Verb};
use crate::config::Site;
use crate::files::WriteError;
use crate::jobs::{Handle, JobPlan, Ledger, Place, Record, Task, Wish, plan};
use crate::project::{FrozenLabels, Project};

/// Hand a command in as a job: of Slurm on one or more nodes, or on this machine in the background.
///
/// A job of Slurm is told before its time is up or others push it out, saves, and goes on when Slurm starts it again; so it
/// does after a node was lost. Program, images and folders must be visible on all nodes. In a project, a training takes the
/// labels and settings as they are now, however long it waits.
#[derive(Debug, Args)]
pub struct Launch {
    /// On this machine, in the background; it goes on when you log out.
    #[arg(long, conflicts_with_all = ["nodes", "gpus_per_node", "tasks_per_node", "time", "partition", "account", "mpi"])]
    here: bool,
    /// Machines.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    nodes: u32,
    /// GPUs of each node, with a rank for each.
    #[arg(long, value_name = "M", conflicts_with = "tasks_per_node", value_parser = clap::value_parser!(u32).range(1..))]
    gpus_per_node: Option<u32>,
    /// Without GPUs: ranks on each node.
    #[arg(long, value_name = "T", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    tasks_per_node: u32,
    /// Processors of each rank; without, 1, and 8 beside a GPU, which make its images ready; on this machine all.
    #[arg(long, value_name = "C", value_parser = clap::value_parser!(u32).range(1..))]
    cpus_per_task: Option<u32>,
    /// Most time at a stretch, as Slurm reads it: minutes, H:MM:SS or D-HH:MM:SS. Needs more than the three minutes that
    /// saving may take.
    #[arg(long)]
    time: Option<String>,
    /// Group of nodes to wait for; without, the usual one.
    #[arg(long)]
    partition: Option<String>,
    /// Account to be charged; without, the usual one.
    #[arg(long)]
    account: Option<String>,
    /// What lists of jobs call it.
    #[arg(long, default_value = "harvest")]
    name: String,
    /// weak: the configured batch for each rank, and a learning rate times their number; strong: the configured batch is
    /// divided.
    #[arg(long)]
    scaling: Option<Scaling>,
    /// How ranks on processors find each other: pmix, or pmi2 for MPICH; without, as the site's file says, else pmix.
    #[arg(long, value_name = "TYPE")]
    mpi: Option<String>,
    /// Starts again at most so often.
    #[arg(long, value_name = "N", default_value_t = 100)]
    most_restarts: u32,
    /// What the people who run this cluster say of it (TOML); without, the file that HARVEST_SITE names, else
    /// /etc/harvest/site.toml.
    #[arg(long, value_name = "FILE")]
    site: Option<PathBuf>,
    /// Folder of script and output; without, one of its own in `jobs`, in the project or the current folder.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Print the script; hand nothing in.
    #[arg(long)]
    dry_run: bool,
    /// The command, after `--`: train and its arguments.
    #[arg(last = true, required = true, value_name = "VERB ...")]
    command: Vec<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Scaling {
    Weak,
    Strong,
}

/// What is known of the command before it runs.
struct Command {
    /// Whether several ranks can do it.
    on_ranks: bool,
    /// The project it is for, if its labels are to be frozen.
    project: Option<Project>,
}

impl Launch {
    pub fn run(self) -> anyhow::Result<()> {
        let site = Site::find(self.site.as_deref())?;
        let command = self.check()?;
        let here = std::env::current_dir().context("cannot tell the current folder")?;
        let ledger = self.ledger(&here);
        // What cannot be is refused before a folder is made for it.
        self.plan(&command, &site, here.clone(), ledger.next(&self.command[0]))?;
        let folder = self.job_folder(&ledger)?;
        let plan = self.plan(&command, &site, here, folder)?;
        let script = plan.script_for(self.place())?;
        if self.dry_run {
            print!("{script}");
            return Ok(());
        }
        if let Some(project) = &command.project {
            FrozenLabels::of(project)?.write_for_job(project, &plan.folder)?;
        }
        let started = ledger.start(&plan.folder, self.record(&plan), &script);
        let job = started.with_context(|| {
            format!("the job is not handed in; its script is `{}`", show(&plan, self.place().script_name()))
        })?;
        match job.handle() {
            Some(handle @ Handle::Here(process)) => {
                println!("job {}: {handle}", job.id());
                println!("script: {}", job.script().display());
                println!("follow: tail -F '{}'", plan.output().display());
                println!("stop:   kill -TERM -{}", process.pid);
            }
            Some(Handle::Slurm(id)) => {
                println!("job {id}: {} ranks on {} nodes", plan.world_size(), plan.nodes);
                println!("script: {}", job.script().display());
                println!("follow: tail -F '{}'", plan.output().display());
                println!("state:  squeue --jobs={id}");
                println!("cancel: scancel {id}");
            }
            None => {}
        }
        Ok(())
    }

    fn place(&self) -> Place {
        if self.here { Place::Here } else { Place::Slurm }
    }

    fn wish(&self) -> Wish {
        Wish {
            name: self.name.clone(),
            nodes: self.nodes,
            gpus_per_node: self.gpus_per_node,
            tasks_per_node: self.tasks_per_node,
            cpus_per_task: self.cpus_per_task,
            time: self.time.clone(),
            partition: self.partition.clone(),
            account: self.account.clone(),
            mpi: self.mpi.clone(),
            most_restarts: self.most_restarts,
        }
    }

    fn plan(
        &self,
        command: &Command,
        site: &Site,
        working_folder: PathBuf,
        folder: PathBuf,
    ) -> anyhow::Result<JobPlan> {
        let program = std::env::current_exe().context("cannot tell where this program lies")?;
        let program = text(&program, "this program's path")?;
        let mut arguments = self.command.clone();
        if command.project.is_some() {
            arguments.extend(FrozenLabels::arguments(&folder)?);
        }
        if let Some(scaling) = self.scaling {
            let word = scaling.to_possible_value().expect("none is hidden");
            arguments.extend(["--set".into(), format!("distribution.scaling={}", word.get_name())]);
        }
        let task = Task { arguments, program, on_ranks: command.on_ranks, working_folder, folder };
        Ok(plan(&self.wish(), task, self.place(), site)
            .map_err(|error| Usage(format!("`{}`: {error}", self.command[0])))?)
    }

    fn record(&self, plan: &JobPlan) -> Record {
        let who = std::env::var("USER").unwrap_or_else(|_| "somebody".into());
        let (kind, title) = (&self.command[0], format!("harvest {}", self.command.join(" ")));
        Record::new(kind, &title, &who, self.place(), self.wish(), plan)
    }

    /// Refuses what would fail after a night in the queue.
    fn check(&self) -> anyhow::Result<Command> {
        let words = std::iter::once("harvest").chain(self.command.iter().map(String::as_str));
        let parsed = Arguments::try_parse_from(words).map_err(|error| {
            Usage(format!("the command after `--`: {}", error.render().to_string().trim()))
        })?;
        let project =
            |config: &ConfigArguments, frozen: &FrozenArguments| match (&frozen.labels, &frozen.settings) {
                (None, None) => config.project(),
                _ => Ok(None),
            };
        match &parsed.verb {
            Verb::Launch(_) => Err(Usage("a job cannot be launched to launch jobs".into()).into()),
            Verb::Train(train) => {
                Ok(Command { on_ranks: true, project: project(&train.config, &train.frozen)? })
            }
            _ if self.scaling.is_some() => Err(Usage("--scaling: only for train".into()).into()),
            Verb::Cluster(cluster) => {
                Ok(Command { on_ranks: false, project: project(&cluster.config, &cluster.frozen)? })
            }
            _ => Ok(Command { on_ranks: false, project: None }),
        }
    }

    /// The jobs of the project one stands in, else of the current folder.
    fn ledger(&self, here: &Path) -> Ledger {
        let project = Project::find(here).ok();
        Ledger::of(project.as_ref().map_or(here, Project::dir))
    }

    /// The folder asked for, or a new one.
    fn job_folder(&self, ledger: &Ledger) -> anyhow::Result<PathBuf> {
        let kind = &self.command[0];
        match &self.folder {
            Some(folder) => {
                let folder = std::path::absolute(folder)?;
                if !self.dry_run {
                    std::fs::create_dir_all(&folder).map_err(WriteError::at(&folder))?;
                }
                Ok(folder)
            }
            None if self.dry_run => Ok(ledger.next(kind)),
            None => Ok(ledger.claim(kind)?),
        }
    }
}

fn text(path: &Path, what: &str) -> anyhow::Result<String> {
    let text = path.to_str().ok_or_else(|| Usage(format!("{what}, `{}`, is not text", path.display())))?;
    Ok(text.to_owned())
}

fn show(plan: &JobPlan, file: &str) -> String {
    plan.folder.join(file).display().to_string()
}
