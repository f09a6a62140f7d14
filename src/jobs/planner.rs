//! From what somebody wants to a plan that this site allows. `harvest launch` and the page ask the same.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{JobPlan, Place, RanksPerNode};
use crate::config::site::{TIMES, minutes};
use crate::config::{Partition, Site, nearest};

/// Processors beside a GPU, which make its images ready.
const CPUS_PER_GPU: u32 = 8;

/// Starts again at most so often.
const MOST_RESTARTS: u32 = 100;

/// What somebody wants of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Wish {
    /// What lists of jobs call it.
    pub name: String,
    /// Machines.
    pub nodes: u32,
    /// GPUs of each node, with a rank for each.
    pub gpus_per_node: Option<u32>,
    /// Without GPUs: ranks on each node.
    pub tasks_per_node: u32,
    /// Processors of each rank; unset, 1, and 8 beside a GPU. On this machine: all.
    pub cpus_per_task: Option<u32>,
    /// Most time at a stretch, in Slurm's words; unset, what the partition gives.
    pub time: Option<String>,
    /// Group of nodes; unset, the site's usual one.
    pub partition: Option<String>,
    /// Account to be charged; unset, the site's usual one.
    pub account: Option<String>,
    /// How ranks on processors find each other; unset, the site's way, else `pmix`.
    pub mpi: Option<String>,
    /// Starts again at most so often.
    pub most_restarts: u32,
}

impl Default for Wish {
    fn default() -> Self {
        Self {
            name: "harvest".into(),
            nodes: 1,
            gpus_per_node: None,
            tasks_per_node: 1,
            cpus_per_task: None,
            time: None,
            partition: None,
            account: None,
            mpi: None,
            most_restarts: MOST_RESTARTS,
        }
    }
}

/// A wish that cannot be met.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// None at all.
    #[error("{what} is 0; ask for 1 or more")]
    Nothing {
        /// Of what.
        what: &'static str,
    },
    /// One machine is one machine.
    #[error(
        "on this machine a job has one process; for {nodes} nodes of {ranks} ranks each, hand the job in to Slurm"
    )]
    OnlyOneHere {
        /// Machines asked for.
        nodes: u32,
        /// Ranks on each.
        ranks: u32,
    },
    /// The command is for one rank.
    #[error("only train works on several ranks; for this ask for one node and one rank")]
    OnlyOneRank,
    /// GPUs need another program.
    #[error("--gpus-per-node: this program is built without CUDA; build it with `--features cuda`")]
    NoCuda,
    /// Ranks on processors need another program.
    #[error(
        "several ranks on processors need MPI, which this program is built without; build it with `--features mpi`, or ask for \
         GPUs with --gpus-per-node"
    )]
    NoMpi,
    /// More than the site gives.
    #[error("{asked} are more than the {most} that {whose} gives a job; ask for fewer")]
    TooMany {
        /// With the unit: `9 nodes`.
        asked: String,
        /// Most of them.
        most: u32,
        /// A partition, or the site.
        whose: String,
    },
    /// Longer than the site gives.
    #[error(
        "a time of {asked} is more than the {most} that {whose} gives a job; ask for less: a training that is cut short goes on \
         by itself"
    )]
    TooLong {
        /// As asked.
        asked: String,
        /// Most time.
        most: String,
        /// A partition, or the site.
        whose: String,
    },
    /// Not a time.
    #[error("`{time}` is no time; {TIMES}")]
    Time {
        /// As asked.
        time: String,
    },
    /// Not one of the site's.
    #[error("there is no {what} `{name}` here{}; there are {known}", meant(hint))]
    Unknown {
        /// What: a partition, an account.
        what: &'static str,
        /// As asked.
        name: String,
        /// The nearest that there is.
        hint: Option<String>,
        /// Those there are.
        known: String,
    },
}

fn meant(hint: &Option<String>) -> String {
    hint.as_ref().map_or(String::new(), |hint| format!("; did you mean `{hint}`?"))
}

/// What is to be run.
#[derive(Debug, Clone)]
pub struct Task {
    /// Arguments of this program, the verb first.
    pub arguments: Vec<String>,
    /// This program, called so unless the site says otherwise.
    pub program: String,
    /// Whether several ranks can do it together.
    pub on_ranks: bool,
    /// Where it runs.
    pub working_folder: PathBuf,
    /// Where script and output are kept.
    pub folder: PathBuf,
}

/// What meets `wish` at `site`.
///
/// # Errors
/// If nothing does; found here and not after a night in the queue.
pub fn plan(wish: &Wish, task: Task, place: Place, site: &Site) -> Result<JobPlan, PlanError> {
    let ranks = match wish.gpus_per_node {
        Some(gpus) => RanksPerNode::Gpus(gpus),
        None => RanksPerNode::Tasks(wish.tasks_per_node),
    };
    for (what, count) in [
        ("the number of nodes", wish.nodes),
        ("the number of ranks", ranks.count()),
        ("the number of processors", wish.cpus_per_task.unwrap_or(1)),
    ] {
        if count == 0 {
            return Err(PlanError::Nothing { what });
        }
    }
    let alone = wish.nodes.saturating_mul(ranks.count()) == 1;
    if !alone && !task.on_ranks {
        return Err(PlanError::OnlyOneRank);
    }
    // Of another program it is not known what it can do.
    let own = site.program.is_none();
    match (place, ranks) {
        (Place::Here, _) if !alone => {
            return Err(PlanError::OnlyOneHere { nodes: wish.nodes, ranks: ranks.count() });
        }
        (_, RanksPerNode::Gpus(_)) if own && !cfg!(feature = "cuda") => return Err(PlanError::NoCuda),
        (_, RanksPerNode::Tasks(_)) if own && !alone && !cfg!(feature = "mpi") => {
            return Err(PlanError::NoMpi);
        }
        _ => {}
    }
    let there = place == Place::Slurm;
    let (partition, account) = if there { queue(wish, site)? } else { (None, None) };
    if there {
        limits(wish, ranks, partition.as_deref(), site)?;
    }
    let program = if there { site.program.clone().unwrap_or(task.program) } else { task.program };
    let mpi = || wish.mpi.clone().or_else(|| site.mpi.clone()).unwrap_or_else(|| "pmix".into());
    let of_slurm = match ranks {
        RanksPerNode::Gpus(_) => CPUS_PER_GPU,
        RanksPerNode::Tasks(_) => 1,
    };
    Ok(JobPlan {
        name: wish.name.clone(),
        command: std::iter::once(program).chain(task.arguments).collect(),
        working_folder: task.working_folder,
        folder: task.folder,
        nodes: wish.nodes,
        ranks,
        cpus_per_rank: wish.cpus_per_task.or(there.then_some(of_slurm)),
        mpi: (there && matches!(ranks, RanksPerNode::Tasks(_)) && !alone).then(mpi),
        time: if there { wish.time.clone() } else { None },
        partition,
        account,
        most_restarts: wish.most_restarts,
        modules: if there { site.modules.clone() } else { Vec::new() },
        container: if there { site.container.clone() } else { Vec::new() },
        environment: if there { site.environment.clone().into_iter().collect() } else { Vec::new() },
    })
}

/// Partition and account: what was asked for, else the site's usual ones.
fn queue(wish: &Wish, site: &Site) -> Result<(Option<String>, Option<String>), PlanError> {
    let partition = wish.partition.clone().or_else(|| site.default_partition.clone());
    let account = wish.account.clone().or_else(|| site.accounts.first().cloned());
    let partitions: Vec<&str> = site.partitions.keys().map(String::as_str).collect();
    let accounts: Vec<&str> = site.accounts.iter().map(String::as_str).collect();
    for (what, asked, known) in [("partition", &partition, partitions), ("account", &account, accounts)] {
        if let Some(name) = asked
            && !known.is_empty()
            && !known.contains(&name.as_str())
        {
            return Err(PlanError::Unknown {
                what,
                name: name.clone(),
                hint: nearest(name, known.iter().copied()).map(str::to_owned),
                known: known.join(", "),
            });
        }
    }
    Ok((partition, account))
}

/// Refuses more than the partition or the site gives.
fn limits(wish: &Wish, ranks: RanksPerNode, partition: Option<&str>, site: &Site) -> Result<(), PlanError> {
    let own =
        partition.and_then(|name| Some((format!("the partition `{name}`"), site.partitions.get(name)?)));
    let site_wide =
        Partition { most_nodes: site.most_nodes, most_time: site.most_time.clone(), ..Partition::default() };
    let asked_time = match &wish.time {
        Some(time) => Some(minutes(time).ok_or_else(|| PlanError::Time { time: time.clone() })?),
        None => None,
    };
    for (whose, limit) in
        own.iter().map(|(whose, limit)| (whose.as_str(), *limit)).chain([("this cluster", &site_wide)])
    {
        let gpus = match ranks {
            RanksPerNode::Gpus(count) => count,
            RanksPerNode::Tasks(_) => 0,
        };
        for (asked, most, unit) in
            [(wish.nodes, limit.most_nodes, "nodes"), (gpus, limit.gpus_per_node, "GPUs of a node")]
        {
            if let Some(most) = most.filter(|most| asked > *most) {
                return Err(PlanError::TooMany {
                    asked: format!("{asked} {unit}"),
                    most,
                    whose: whose.into(),
                });
            }
        }
        if let (Some(asked), Some(most)) = (asked_time, &limit.most_time)
            && minutes(most).is_some_and(|most| asked > most)
        {
            let asked = wish.time.clone().unwrap_or_default();
            return Err(PlanError::TooLong { asked, most: most.clone(), whose: whose.into() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn task() -> Task {
        Task {
            arguments: vec!["train".into()],
            program: "/opt/harvest".into(),
            on_ranks: true,
            working_folder: "/data".into(),
            folder: "/data/jobs/1".into(),
        }
    }

    fn site() -> Site {
        let gpu = Partition {
            most_nodes: Some(2),
            most_time: Some("1-00:00:00".into()),
            gpus_per_node: Some(4),
            ..Partition::default()
        };
        Site {
            default_partition: Some("cpu".into()),
            partitions: BTreeMap::from([("cpu".into(), Partition::default()), ("gpu".into(), gpu)]),
            accounts: vec!["bio".into(), "plants".into()],
            modules: vec!["cuda/12.4".into()],
            container: ["apptainer", "exec", "--nv", "/images/harvest.sif"].map(Into::into).to_vec(),
            program: Some("harvest".into()),
            environment: BTreeMap::from([("A".into(), "b c".into())]),
            most_nodes: Some(4),
            ..Site::default()
        }
    }

    fn words(wish: Wish) -> String {
        plan(&wish, task(), Place::Slurm, &site()).expect_err("it cannot be met").to_string()
    }

    #[test]
    fn what_the_site_says_is_in_the_plan() {
        let wish = Wish { gpus_per_node: Some(4), partition: Some("gpu".into()), ..Wish::default() };
        let plan = plan(&wish, task(), Place::Slurm, &site()).expect("it can be met");
        assert_eq!(plan.command, ["harvest", "train"]);
        assert_eq!((plan.account.as_deref(), plan.cpus_per_rank), (Some("bio"), Some(8)));
        let script = plan.script().expect("it can be written");
        for wanted in [
            "#SBATCH --partition=gpu\n#SBATCH --account=bio\n",
            "module load cuda/12.4 || exit 1\n",
            "export A='b c'\n",
            "-- apptainer exec --nv /images/harvest.sif harvest train\n",
        ] {
            assert!(script.contains(wanted), "`{wanted}` is not in:\n{script}");
        }
    }

    #[test]
    fn this_machine_needs_nothing_of_the_site() {
        let here = plan(&Wish::default(), task(), Place::Here, &site()).expect("it can be met");
        assert_eq!(here.command, ["/opt/harvest", "train"]);
        assert!(here.modules.is_empty() && here.container.is_empty() && here.partition.is_none());
        let wish = Wish { tasks_per_node: 2, ..Wish::default() };
        let error = plan(&wish, task(), Place::Here, &Site::default()).expect_err("one process");
        assert!(error.to_string().contains("hand the job in to Slurm"), "{error}");
    }

    #[test]
    fn more_than_there_is_never_waits_in_a_queue() {
        let gpu = || Wish { partition: Some("gpu".into()), gpus_per_node: Some(4), ..Wish::default() };
        for (wish, wanted) in [
            (Wish { nodes: 3, ..gpu() }, "3 nodes are more than the 2 that the partition `gpu` gives"),
            (Wish { gpus_per_node: Some(8), ..gpu() }, "8 GPUs of a node are more than the 4"),
            (Wish { nodes: 5, ..Wish::default() }, "5 nodes are more than the 4 that this cluster gives"),
            (Wish { time: Some("2-00".into()), ..gpu() }, "a time of 2-00 is more than the 1-00:00:00"),
            (Wish { time: Some("soon".into()), ..gpu() }, "`soon` is no time; write it as Slurm does"),
            (
                Wish { partition: Some("gpus".into()), ..gpu() },
                "there is no partition `gpus` here; did you mean `gpu`?; there are cpu, gpu",
            ),
            (
                Wish { account: Some("physics".into()), ..gpu() },
                "there is no account `physics` here; there are bio",
            ),
            (Wish { nodes: 0, ..gpu() }, "the number of nodes is 0"),
        ] {
            let words = words(wish);
            assert!(words.starts_with(wanted), "{words}");
        }
    }
}
