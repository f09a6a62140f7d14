//! What each launcher says, and whether it makes sense.

use super::{Head, Identity, IdentityError, Launcher};
use crate::hostlist;

/// Chooses the port on which rank 0 listens.
const PORT: &str = "HARVEST_PORT";
/// Names a job, where its launcher does not: ranks of another job are told apart by it.
const JOB: &str = "HARVEST_JOB";

/// From here on steps are Slurm's own: the batch script, the shell of `salloc`.
const FIRST_SPECIAL_STEP: u64 = 0xffff_fff0;

/// Reads variables, and says which one is wrong.
pub(super) struct Variables<'a>(pub &'a dyn Fn(&str) -> Option<String>);

impl Variables<'_> {
    /// Whether `srun` started this process.
    pub fn is_slurm_task(&self) -> bool {
        let step = self.text("SLURM_STEP_ID");
        let is_srun =
            step.and_then(|step| step.parse().ok()).is_some_and(|step: u64| step < FIRST_SPECIAL_STEP);
        is_srun && self.text("SLURM_PROCID").is_some()
    }

    pub fn of_slurm(&self) -> Result<Identity, IdentityError> {
        let beside = "SLURM_STEP_ID";
        let size_name = if self.text("SLURM_STEP_NUM_TASKS").is_some() {
            self.agree("SLURM_NTASKS", "SLURM_STEP_NUM_TASKS")?;
            "SLURM_STEP_NUM_TASKS"
        } else {
            "SLURM_NTASKS"
        };
        let (rank, world_size) = self.place("SLURM_PROCID", size_name)?;
        for other in ["PMI_RANK", "PMIX_RANK", "RANK"] {
            self.agree("SLURM_PROCID", other)?;
        }
        for other in ["PMI_SIZE", "WORLD_SIZE"] {
            self.agree(size_name, other)?;
        }
        let job = self.needed("SLURM_JOB_ID", beside)?;
        let step = self.needed("SLURM_STEP_ID", beside)?;
        let name = if self.text("SLURM_STEP_NODELIST").is_some() {
            "SLURM_STEP_NODELIST"
        } else {
            "SLURM_JOB_NODELIST"
        };
        let list = self.needed(name, beside)?;
        let hosts = hostlist::expand(&list);
        let hosts = hosts.map_err(|source| IdentityError::Hosts { name, value: list.clone(), source })?;
        let first = hosts.into_iter().next().unwrap_or_default();
        match self.text("SLURMD_NODENAME") {
            Some(node) if rank == 0 && node != first => return Err(IdentityError::Misplaced { node, first }),
            _ => {}
        }
        let port = match (self.port(PORT)?, self.text("SLURM_STEP_RESV_PORTS")) {
            (Some(port), _) => port,
            (None, Some(ports)) => first_port("SLURM_STEP_RESV_PORTS", &ports)?,
            (None, None) => derived_port(&job, &step),
        };
        let restarts = self.text("SLURM_RESTART_COUNT").unwrap_or_else(|| "0".to_owned());
        Ok(Identity {
            rank,
            world_size,
            local_rank: self.number("SLURM_LOCALID")?.unwrap_or(0),
            node: self.number("SLURM_NODEID")?.unwrap_or(0),
            launcher: Launcher::Slurm,
            job: format!("Slurm job {job}.{step}, start {restarts}"),
            head: Head::Host { host: first, port },
        })
    }

    pub fn of_mpi(
        &self,
        rank_name: &'static str,
        size_name: &'static str,
    ) -> Result<Identity, IdentityError> {
        let (rank, world_size) = self.place(rank_name, size_name)?;
        self.agree(rank_name, "RANK")?;
        self.agree(size_name, "WORLD_SIZE")?;
        let first = |names: [&'static str; 2]| {
            names.into_iter().find_map(|name| self.number(name).transpose()).transpose()
        };
        let local_rank = first(["OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID"])?.unwrap_or(0);
        let local_size = first(["OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS"])?.unwrap_or(world_size);
        let head = match self.text("MASTER_ADDR") {
            Some(host) => Head::Host { host, port: self.master_port()? },
            None => Head::OverMpi,
        };
        Ok(Identity {
            rank,
            world_size,
            local_rank,
            node: rank / local_size.max(1),
            launcher: Launcher::Mpi,
            job: self.text(JOB).or_else(|| self.text("PMIX_NAMESPACE")).unwrap_or_default(),
            head,
        })
    }

    /// `WORLD_SIZE=1` alone is no job: many environments set it always.
    pub fn of_environment(&self) -> Result<Option<Identity>, IdentityError> {
        let size = self.number("WORLD_SIZE")?;
        if size == Some(1) && self.text("RANK").is_none() {
            return Ok(None);
        }
        let (rank, world_size) = self.place("RANK", "WORLD_SIZE")?;
        let head = match world_size {
            1 => Head::Host { host: "localhost".to_owned(), port: 0 },
            _ => Head::Host { host: self.needed("MASTER_ADDR", "WORLD_SIZE")?, port: self.master_port()? },
        };
        Ok(Some(Identity {
            rank,
            world_size,
            local_rank: self.number("LOCAL_RANK")?.unwrap_or(0),
            node: self.number("GROUP_RANK")?.unwrap_or(0),
            launcher: Launcher::Environment,
            job: self.text(JOB).or_else(|| self.text("TORCHELASTIC_RUN_ID")).unwrap_or_default(),
            head,
        }))
    }

    /// Rank and number of ranks.
    fn place(&self, name: &'static str, size_name: &'static str) -> Result<(usize, usize), IdentityError> {
        let size = self.number(size_name)?;
        let rank = self.number(name)?;
        match (rank, size) {
            (_, Some(0)) => Err(IdentityError::NoRanks { name: size_name }),
            (Some(rank), Some(size)) if rank < size => Ok((rank, size)),
            (Some(rank), Some(size)) => Err(IdentityError::Range { name, rank, size_name, size }),
            (None, _) => Err(self.missing(name, size_name)),
            (_, None) => Err(self.missing(size_name, name)),
        }
    }

    /// Two variables that say the same, if both are there.
    fn agree(&self, name: &'static str, other: &'static str) -> Result<(), IdentityError> {
        match (self.number(name)?, self.number(other)?) {
            (Some(value), Some(other_value)) if value != other_value => {
                Err(IdentityError::Conflict { name, value, other, other_value })
            }
            _ => Ok(()),
        }
    }

    fn master_port(&self) -> Result<u16, IdentityError> {
        match (self.port(PORT)?, self.port("MASTER_PORT")?) {
            (Some(port), _) | (None, Some(port)) => Ok(port),
            (None, None) => Err(self.missing("MASTER_PORT", "MASTER_ADDR")),
        }
    }

    pub fn text(&self, name: &str) -> Option<String> {
        (self.0)(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    fn needed(&self, name: &'static str, beside: &'static str) -> Result<String, IdentityError> {
        self.text(name).ok_or_else(|| self.missing(name, beside))
    }

    fn missing(&self, name: &'static str, beside: &'static str) -> IdentityError {
        let value = self.text(beside).unwrap_or_default();
        IdentityError::Missing { name, beside: format!("`{beside}={value}`") }
    }

    fn number(&self, name: &'static str) -> Result<Option<usize>, IdentityError> {
        let Some(value) = self.text(name) else { return Ok(None) };
        value.parse().map(Some).map_err(|_| IdentityError::Number { name, value })
    }

    fn port(&self, name: &'static str) -> Result<Option<u16>, IdentityError> {
        self.text(name).map(|value| first_port(name, &value)).transpose()
    }
}

/// `19006-19008` → 19006.
fn first_port(name: &'static str, value: &str) -> Result<u16, IdentityError> {
    let first = value.split(['-', ',']).next().unwrap_or_default();
    match first.parse() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(IdentityError::Port { name, value: value.to_owned() }),
    }
}

/// A port below those that systems hand out by themselves. Jobs and steps that follow each other have different ones.
pub(super) fn derived_port(job: &str, step: &str) -> u16 {
    let number =
        |text: &str| text.bytes().fold(0u64, |sum, byte| sum.wrapping_mul(10).wrapping_add(byte.into()));
    // A prime, so that steps of 16 visit all ports.
    let offset = number(job).wrapping_mul(16).wrapping_add(number(step)) % 11_987;
    20_000 + offset as u16
}
