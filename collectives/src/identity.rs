//! Which rank this process is, as its launcher says in the environment.
//!
//! `mpirun` comes first: inside a Slurm job it starts its helpers with `srun`, and its ranks then see variables of both.
//! Slurm's count only inside a step that `srun` has started: a batch script too has `SLURM_PROCID=0`. Where several launchers have left their
//! variables they must agree.

mod launchers;

use std::fmt;

use self::launchers::Variables;
use crate::hostlist::HostListError;

/// Who a process is among the ranks of its job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Below [`Self::world_size`].
    pub rank: usize,
    /// Ranks of the job, 1 or more.
    pub world_size: usize,
    /// The number of this rank among those of its node, which chooses its device.
    pub local_rank: usize,
    /// The number of its node.
    pub node: usize,
    /// Who started it.
    pub launcher: Launcher,
    /// What tells this job from others, as far as the launcher says; the same on every rank.
    pub job: String,
    /// Where rank 0 is to be found.
    pub head: Head,
}

/// What started the ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Launcher {
    /// `srun`.
    Slurm,
    /// `mpirun` or `mpiexec`.
    Mpi,
    /// Someone who sets `RANK` and `WORLD_SIZE`.
    Environment,
}

impl Launcher {
    pub(crate) fn is_slurm(self) -> bool {
        self == Self::Slurm
    }
}

impl fmt::Display for Launcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Slurm => "srun",
            Self::Mpi => "mpirun",
            Self::Environment => "RANK and WORLD_SIZE",
        })
    }
}

/// Where rank 0 listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Head {
    /// On this host.
    Host {
        /// Its name or address.
        host: String,
        /// The port.
        port: u16,
    },
    /// Rank 0 says it over MPI.
    OverMpi,
}

/// An environment that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// Half of what is needed.
    #[error("`{name}` is not set, but {beside} is; set both, or neither to run alone")]
    Missing {
        /// The variable.
        name: &'static str,
        /// The one that asks for it, with its value.
        beside: String,
    },
    /// No number.
    #[error("`{name}={value}` is not a whole number")]
    Number {
        /// The variable.
        name: &'static str,
        /// Its value.
        value: String,
    },
    /// No ranks at all.
    #[error("`{name}=0`: a job has one rank or more")]
    NoRanks {
        /// The variable.
        name: &'static str,
    },
    /// Ranks count from 0.
    #[error("`{name}={rank}` must be below `{size_name}={size}`: ranks count from 0")]
    Range {
        /// The variable with the rank.
        name: &'static str,
        /// Its value.
        rank: usize,
        /// The variable with the number of ranks.
        size_name: &'static str,
        /// Its value.
        size: usize,
    },
    /// Two launchers.
    #[error(
        "`{name}={value}` and `{other}={other_value}` disagree; unset what does not belong to this start of the program"
    )]
    Conflict {
        /// A variable.
        name: &'static str,
        /// Its value.
        value: usize,
        /// Another that should say the same.
        other: &'static str,
        /// Its value.
        other_value: usize,
    },
    /// Slurm's nodes.
    #[error("`{name}={value}` is no list of hosts: {source}")]
    Hosts {
        /// The variable.
        name: &'static str,
        /// Its value.
        value: String,
        /// What is wrong.
        source: HostListError,
    },
    /// Rank 0 is where nobody looks for it.
    #[error(
        "rank 0 runs on `{node}`, but the step's list of nodes begins with `{first}`, where the others look for it; \
         start with `srun --distribution=block`"
    )]
    Misplaced {
        /// Where it runs.
        node: String,
        /// Where it should.
        first: String,
    },
    /// No port.
    #[error("`{name}={value}` is not a port: a number from 1 to 65535")]
    Port {
        /// The variable.
        name: &'static str,
        /// Its value.
        value: String,
    },
}

impl Identity {
    /// From this process's environment; `None` if it was started alone.
    ///
    /// # Errors
    /// [`IdentityError`], if variables are missing or contradict each other.
    pub fn from_environment() -> Result<Option<Self>, IdentityError> {
        Self::from_lookup(|name| std::env::var(name).ok())
    }

    /// As [`Self::from_environment`], with the value of each variable from `lookup`.
    ///
    /// # Errors
    /// As [`Self::from_environment`].
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, IdentityError> {
        let variables = Variables(&lookup);
        // Hydra, MPICH's `mpirun`, sets `MPI_LOCALRANKID`; `srun --mpi=pmi2` sets `PMI_RANK` alone.
        if variables.text("OMPI_COMM_WORLD_RANK").is_some() {
            variables.of_mpi("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE").map(Some)
        } else if variables.text("MPI_LOCALRANKID").is_some() && variables.text("PMI_RANK").is_some() {
            variables.of_mpi("PMI_RANK", "PMI_SIZE").map(Some)
        } else if variables.is_slurm_task() {
            variables.of_slurm().map(Some)
        } else if variables.text("PMI_RANK").is_some() {
            variables.of_mpi("PMI_RANK", "PMI_SIZE").map(Some)
        } else if variables.text("RANK").is_some() || variables.text("WORLD_SIZE").is_some() {
            variables.of_environment()
        } else {
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::launchers::derived_port;
    use super::*;
    use std::collections::HashMap;

    /// What rank 3 of `srun -N2 --ntasks-per-node=2` was seen to get.
    const SRUN: &str = "SLURM_PROCID=3 SLURM_NTASKS=4 SLURM_LOCALID=1 SLURM_NODEID=1 SLURMD_NODENAME=n2 \
        SLURM_STEP_NODELIST=n[1-2] SLURM_JOB_NODELIST=n[1-2] SLURM_STEP_NUM_TASKS=4 \
        SLURM_STEP_TASKS_PER_NODE=2(x2) SLURM_JOB_ID=4 SLURM_STEP_ID=0 SLURM_GTIDS=2,3 \
        SLURM_LAUNCH_NODE_IPADDR=127.0.0.1 SLURM_STEP_RESV_PORTS=19006-19008";
    const MPIRUN: &str = "OMPI_COMM_WORLD_RANK=2 OMPI_COMM_WORLD_SIZE=3 OMPI_COMM_WORLD_LOCAL_RANK=0 \
        OMPI_COMM_WORLD_LOCAL_SIZE=2 PMIX_RANK=2";
    const TORCHRUN: &str = "RANK=1 WORLD_SIZE=2 LOCAL_RANK=1 MASTER_ADDR=10.0.0.7 MASTER_PORT=29500";

    /// The later of two equal names counts.
    fn read(text: &str) -> Result<Option<Identity>, IdentityError> {
        let variables: HashMap<_, _> =
            text.split_whitespace().filter_map(|variable| variable.split_once('=')).collect();
        Identity::from_lookup(|name| variables.get(name).map(|value| (*value).to_owned()))
    }

    fn rank(text: &str) -> Identity {
        read(text).expect("it makes sense").expect("it is a rank")
    }

    fn error(text: &str) -> String {
        read(text).expect_err("it makes no sense").to_string()
    }

    #[test]
    fn srun_says_all() {
        let seen = rank(SRUN);
        assert_eq!((seen.rank, seen.world_size, seen.local_rank, seen.node), (3, 4, 1, 1));
        assert_eq!(seen.launcher, Launcher::Slurm);
        assert_eq!(seen.head, Head::Host { host: "n1".to_owned(), port: 19006 });
        assert_eq!(seen.job, "Slurm job 4.0, start 0");
        assert_eq!(rank(&format!("{SRUN} PMIX_RANK=3 PMI_RANK=3 PMI_SIZE=4")), seen);
        assert_ne!(rank(&format!("{SRUN} SLURM_RESTART_COUNT=1")).job, seen.job);
        let chosen = rank(&format!("{SRUN} HARVEST_PORT=4000"));
        assert_eq!(chosen.head, Head::Host { host: "n1".to_owned(), port: 4000 });
    }

    #[test]
    fn ports_of_jobs_and_steps_differ() {
        let mut seen = std::collections::HashSet::new();
        for job in 100..200 {
            for step in 0..4 {
                let port = derived_port(&job.to_string(), &step.to_string());
                assert!((20_000..32_768).contains(&port));
                assert!(seen.insert(port), "job {job}.{step} meets another on port {port}");
            }
        }
    }

    #[test]
    fn mpirun_and_torchrun_and_nothing() {
        let seen = rank(MPIRUN);
        assert_eq!((seen.rank, seen.world_size, seen.local_rank, seen.node), (2, 3, 0, 1));
        assert_eq!((seen.launcher, seen.head), (Launcher::Mpi, Head::OverMpi));
        // Inside a Slurm job its ranks also see what Slurm told mpirun's own helper.
        let inside = rank(&format!("{SRUN} {MPIRUN} SLURM_NTASKS=2 SLURM_STEP_NUM_TASKS=2 SLURM_PROCID=1"));
        assert_eq!((inside.rank, inside.world_size, inside.launcher), (2, 3, Launcher::Mpi));
        let hydra = rank("PMI_RANK=1 PMI_SIZE=2 MPI_LOCALRANKID=1 MPI_LOCALNRANKS=2");
        assert_eq!((hydra.rank, hydra.local_rank, hydra.launcher), (1, 1, Launcher::Mpi));

        let seen = rank(TORCHRUN);
        assert_eq!((seen.rank, seen.world_size, seen.local_rank), (1, 2, 1));
        assert_eq!(seen.head, Head::Host { host: "10.0.0.7".to_owned(), port: 29500 });

        // Neither a batch script nor the shell of `salloc` is a rank.
        let batch = "SLURM_PROCID=0 SLURM_NTASKS=4 SLURM_JOB_ID=4";
        let salloc = format!("{batch} SLURM_STEP_ID=4294967290 SLURM_STEP_NUM_TASKS=1");
        for alone in ["", batch, &salloc, "WORLD_SIZE=1"] {
            assert_eq!(read(alone), Ok(None), "{alone}");
        }
    }

    #[test]
    fn wrong_values_are_named() {
        for (text, part) in [
            (format!("{SRUN} SLURM_PROCID=4"), "`SLURM_PROCID=4` must be below `SLURM_STEP_NUM_TASKS=4`"),
            (format!("{SRUN} SLURM_NTASKS=5"), "`SLURM_NTASKS=5` and `SLURM_STEP_NUM_TASKS=4` disagree"),
            (format!("{SRUN} PMI_RANK=0"), "`SLURM_PROCID=3` and `PMI_RANK=0` disagree"),
            (format!("{SRUN} WORLD_SIZE=2"), "`SLURM_STEP_NUM_TASKS=4` and `WORLD_SIZE=2` disagree"),
            (format!("{SRUN} SLURM_STEP_NODELIST=n[1-"), "`SLURM_STEP_NODELIST=n[1-` is no list of hosts"),
            (
                format!("{SRUN} SLURM_PROCID=0"),
                "rank 0 runs on `n2`, but the step's list of nodes begins with `n1`",
            ),
            (format!("{SRUN} HARVEST_PORT=70000"), "`HARVEST_PORT=70000` is not a port"),
            (format!("{SRUN} SLURM_LOCALID=x"), "`SLURM_LOCALID=x` is not a whole number"),
            (format!("{MPIRUN} OMPI_COMM_WORLD_SIZE=2"), "must be below `OMPI_COMM_WORLD_SIZE=2`"),
            (format!("{TORCHRUN} WORLD_SIZE=0"), "`WORLD_SIZE=0`: a job has one rank or more"),
            (format!("{TORCHRUN} RANK=2"), "`RANK=2` must be below `WORLD_SIZE=2`"),
            (format!("{TORCHRUN} RANK=-1"), "`RANK=-1` is not a whole number"),
            ("WORLD_SIZE=2".to_owned(), "`RANK` is not set, but `WORLD_SIZE=2` is"),
            ("RANK=0".to_owned(), "`WORLD_SIZE` is not set, but `RANK=0` is"),
            ("RANK=0 WORLD_SIZE=2".to_owned(), "`MASTER_ADDR` is not set, but `WORLD_SIZE=2` is"),
            ("RANK=0 WORLD_SIZE=2 MASTER_ADDR=a".to_owned(), "`MASTER_PORT` is not set"),
        ] {
            let said = error(&text);
            assert!(said.contains(part), "{text}: {said}");
        }
    }
}
