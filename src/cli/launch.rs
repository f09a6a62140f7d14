//! `harvest launch`: a command as a job of Slurm.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Parser as _, ValueEnum};

use super::context::Usage;
use super::{Arguments, Verb};
use crate::files::WriteError;
use crate::jobs::{JobPlan, RanksPerNode, SCRIPT, Slurm};
use crate::project::Project;

/// Hand a command in as a job of Slurm, on one or more nodes.
///
/// The job is told before its time is up or others push it out, saves, and goes on when Slurm starts it again; so it does
/// after a node was lost. Program, images and folders must be visible on all nodes.
#[derive(Debug, Args)]
pub struct Launch {
    /// Machines.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    nodes: u32,
    /// GPUs of each node, with a rank for each.
    #[arg(long, value_name = "M", conflicts_with = "tasks_per_node", value_parser = clap::value_parser!(u32).range(1..))]
    gpus_per_node: Option<u32>,
    /// Without GPUs: ranks on each node.
    #[arg(long, value_name = "T", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    tasks_per_node: u32,
    /// Processors of each rank; without, 1, and 8 beside a GPU, which make its images ready.
    #[arg(long, value_name = "C", value_parser = clap::value_parser!(u32).range(1..))]
    cpus_per_task: Option<u32>,
    /// Most time at a stretch, as Slurm reads it: minutes, H:MM:SS or D-HH:MM:SS. Needs more than the three minutes that
    /// saving may take.
    #[arg(long)]
    time: Option<String>,
    /// Group of nodes to wait for.
    #[arg(long)]
    partition: Option<String>,
    /// Account to be charged.
    #[arg(long)]
    account: Option<String>,
    /// What lists of jobs call it.
    #[arg(long, default_value = "harvest")]
    name: String,
    /// weak: the configured batch for each rank, and a learning rate times their number; strong: the configured batch is
    /// divided.
    #[arg(long)]
    scaling: Option<Scaling>,
    /// How ranks on processors find each other: pmix, or pmi2 for MPICH.
    #[arg(long, value_name = "TYPE", default_value = "pmix")]
    mpi: String,
    /// Starts again at most so often.
    #[arg(long, value_name = "N", default_value_t = 100)]
    most_restarts: u32,
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

impl Launch {
    pub fn run(self) -> anyhow::Result<()> {
        let plan = self.plan()?;
        if self.dry_run {
            print!("{}", plan.script()?);
            return Ok(());
        }
        let job = Slurm::new()
            .submit(&plan)
            .with_context(|| format!("the job is not handed in; its script is `{}`", show(&plan, SCRIPT)))?;
        println!("job {job}: {} ranks on {} nodes", plan.world_size(), plan.nodes);
        println!("script: {}", show(&plan, SCRIPT));
        println!("follow: tail -F '{}'", plan.output().display());
        println!("state:  squeue --jobs={job}");
        println!("cancel: scancel {job}");
        Ok(())
    }

    fn plan(&self) -> anyhow::Result<JobPlan> {
        let ranks = match self.gpus_per_node {
            Some(gpus) => RanksPerNode::Gpus(gpus),
            None => RanksPerNode::Tasks(self.tasks_per_node),
        };
        let alone = self.nodes.saturating_mul(ranks.count()) == 1;
        self.check(ranks, alone)?;
        let program = std::env::current_exe().context("cannot tell where this program lies")?;
        let program = program.to_str().ok_or_else(|| Usage("this program's path is not text".into()))?;
        let mut command = vec![program.to_owned()];
        command.extend(self.command.iter().cloned());
        if let Some(scaling) = self.scaling {
            let word = scaling.to_possible_value().expect("none is hidden");
            command.extend(["--set".into(), format!("distribution.scaling={}", word.get_name())]);
        }
        let working_folder = std::env::current_dir().context("cannot tell the current folder")?;
        Ok(JobPlan {
            name: self.name.clone(),
            command,
            folder: self.job_folder(&working_folder)?,
            working_folder,
            nodes: self.nodes,
            ranks,
            cpus_per_rank: self.cpus_per_task.unwrap_or(match ranks {
                RanksPerNode::Gpus(_) => 8,
                RanksPerNode::Tasks(_) => 1,
            }),
            mpi: (matches!(ranks, RanksPerNode::Tasks(_)) && !alone).then(|| self.mpi.clone()),
            time: self.time.clone(),
            partition: self.partition.clone(),
            account: self.account.clone(),
            most_restarts: self.most_restarts,
        })
    }

    /// Refuses what would fail after a night in the queue.
    fn check(&self, ranks: RanksPerNode, alone: bool) -> anyhow::Result<()> {
        let words = std::iter::once("harvest").chain(self.command.iter().map(String::as_str));
        let parsed = Arguments::try_parse_from(words).map_err(|error| {
            Usage(format!("the command after `--`: {}", error.render().to_string().trim()))
        })?;
        match parsed.verb {
            Verb::Launch(_) => return Err(Usage("a job cannot be launched to launch jobs".into()).into()),
            Verb::Train(_) => {}
            _ if self.scaling.is_some() => return Err(Usage("--scaling: only for train".into()).into()),
            _ if alone => {}
            _ => {
                let reason = format!(
                    "only train works on several ranks; for `{}` ask for one node and one rank",
                    self.command[0]
                );
                return Err(Usage(reason).into());
            }
        }
        match ranks {
            RanksPerNode::Gpus(_) if !cfg!(feature = "cuda") => Err(Usage(
                "--gpus-per-node: this program is built without CUDA; build it with `--features cuda`".into(),
            )
            .into()),
            RanksPerNode::Tasks(_) if !alone && !cfg!(feature = "mpi") => Err(Usage(
                "several ranks on processors need MPI, which this program is built without; build it with `--features mpi`, \
                 or ask for GPUs with --gpus-per-node"
                    .into(),
            )
            .into()),
            _ => Ok(()),
        }
    }

    /// The folder asked for, or a new one.
    fn job_folder(&self, working_folder: &Path) -> anyhow::Result<PathBuf> {
        if let Some(folder) = &self.folder {
            return Ok(std::path::absolute(folder)?);
        }
        let project = Project::find(Path::new(".")).ok();
        let jobs = project.map_or(working_folder.to_owned(), |project| project.dir().to_owned()).join("jobs");
        let time = jiff::Zoned::now().strftime("%Y-%m-%dT%H-%M-%S").to_string();
        if self.dry_run {
            return Ok(jobs.join(time));
        }
        std::fs::create_dir_all(&jobs).map_err(WriteError::at(&jobs))?;
        let mut count = 1;
        loop {
            let name = if count == 1 { time.clone() } else { format!("{time}-{count}") };
            let folder = jobs.join(name);
            match std::fs::create_dir(&folder) {
                Ok(()) => return Ok(folder),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => count += 1,
                Err(error) => return Err(WriteError::at(&folder)(error).into()),
            }
        }
    }
}

fn show(plan: &JobPlan, file: &str) -> String {
    plan.folder.join(file).display().to_string()
}
