//! From a process among others to a member of a job.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::address;
use crate::communicator::Communicator;
use crate::identity::{Head, Identity};
#[cfg(feature = "nccl")]
use crate::nccl::{Library, Nccl, NcclError, NcclOptions};
use crate::rendezvous::{self, MeetError, Met, Place};
use crate::solo::Solo;
use crate::table::{Passport, RankTable};
use crate::team::Team;
use crate::unconnected::Unconnected;
use crate::watch::{Pulse, Watch};
use crate::wire::{Exchanged, Hello};

/// How data travel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Transport {
    /// Over NCCL if this rank has a CUDA device and it is built in, else over MPI.
    #[default]
    Auto,
    /// Over MPI, in the memory of the host.
    Mpi,
    /// Over NCCL, in the memory of GPUs.
    Nccl,
    /// Not at all: the ranks watch each other and compare values.
    None,
}

/// How to join.
#[derive(Debug, Clone)]
pub struct JoinOptions {
    /// How data travel.
    pub transport: Transport,
    /// How long ranks wait for each other at the start, and how long one may be silent, or stand still, later.
    pub limit: Duration,
    /// The CUDA device of this rank, if it computes on one.
    pub device_index: Option<usize>,
}

impl Default for JoinOptions {
    fn default() -> Self {
        Self { transport: Transport::Auto, limit: Duration::from_secs(600), device_index: None }
    }
}

/// Why this rank did not become part of a job.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// Ranks did not meet.
    #[error(transparent)]
    Meet(#[from] MeetError),
    /// The program lacks it.
    #[error(
        "{why} needs {library}, and this program was built without it: build it with `--features {feature}`{instead}"
    )]
    NotBuilt {
        /// What asks for it.
        why: String,
        /// MPI or NCCL.
        library: &'static str,
        /// The feature of the program.
        feature: &'static str,
        /// Another way, if there is one.
        instead: &'static str,
    },
    /// The library underneath.
    #[error("{library}: {reason}")]
    Library {
        /// MPI or NCCL.
        library: &'static str,
        /// Its words.
        reason: String,
    },
    /// MPI sees another job than the launcher.
    #[error(
        "MPI has {found} ranks where {launcher} started {expected}: every rank would train alone. Start with `srun \
         --mpi=pmix` (Open MPI) or `srun --mpi=pmi2` (MPICH), or with `mpirun`"
    )]
    WorldSize {
        /// Of MPI's world.
        found: usize,
        /// Of the job.
        expected: usize,
        /// What started it.
        launcher: String,
    },
    /// MPI would start alone, or end the program with words of its own.
    #[error(
        "`srun` was not asked to start MPI programs: start with `srun --mpi=pmix` (Open MPI) or `srun --mpi=pmi2` (MPICH); \
         `srun --mpi=list` shows what this cluster has"
    )]
    PlainSrun,
    /// Another rank could not begin.
    #[error("ranks could not connect: {0}")]
    Elsewhere(String),
    /// MPI numbers ranks otherwise.
    #[error("MPI calls this rank {found}, {launcher} calls it {expected}; start all ranks with one launcher")]
    Rank {
        /// By MPI.
        found: usize,
        /// By the launcher.
        expected: usize,
        /// What started it.
        launcher: String,
    },
    /// No thread or socket.
    #[error("cannot watch the other ranks")]
    Watch(#[source] std::io::Error),
}

/// Meets the other ranks and connects them.
///
/// # Errors
/// [`JoinError`]. Where ranks do not fit together, all of them get the same one.
pub fn join(identity: &Identity, passport: Passport, options: &JoinOptions) -> Result<Team, JoinError> {
    let pulse = Arc::new(Pulse::default());
    let own = Hello {
        job: identity.job.clone(),
        rank: identity.rank,
        world_size: identity.world_size,
        process: std::process::id(),
        passport,
    };
    let transport = options.transport.chosen(options.device_index.is_some());
    if own.world_size == 1 && transport != Transport::Nccl {
        return Ok(Team::new(Arc::new(Solo), RankTable(vec![own.passport]), pulse, None));
    }
    if transport == Transport::Mpi {
        expect_mpi(identity)?;
    }
    // Under `mpirun` the ranks find each other through MPI, elsewhere they meet first and are watched while MPI starts.
    let (met, early) = match &identity.head {
        Head::Host { host, port } => {
            let place =
                Place { hosts: vec![host.clone()], port: *port, asks_slurm: identity.launcher.is_slurm() };
            (meet(&place, &own, options.limit)?, None)
        }
        Head::OverMpi => {
            let mpi = start_mpi("meeting under `mpirun`", identity, &pulse, options.limit)?;
            (meet_over(mpi.as_ref(), own.clone(), options.limit)?, Some(mpi))
        }
    };
    let table = met.table.clone();
    let watch = Watch::start(own.rank, met, &pulse, options.limit).map_err(JoinError::Watch)?;
    let communicator: Result<Arc<dyn Communicator>, JoinError> = match (transport, early) {
        (Transport::None, _) => Ok(Arc::new(Unconnected::new(&own, &pulse))),
        (Transport::Nccl, _) => start_nccl(own.rank, own.world_size, options, &pulse, &watch),
        (Transport::Auto | Transport::Mpi, Some(mpi)) => Ok(mpi),
        (Transport::Auto | Transport::Mpi, None) => {
            start_mpi("training on several ranks", identity, &pulse, options.limit)
        }
    };
    let communicator = all_started(&watch, communicator)?;
    Ok(Team::new(communicator, table, pulse, Some(watch)))
}

/// Either all ranks have a way for data, or all give up.
fn all_started(
    watch: &Watch,
    communicator: Result<Arc<dyn Communicator>, JoinError>,
) -> Result<Arc<dyn Communicator>, JoinError> {
    let own = communicator.as_ref().map_or_else(JoinError::to_string, |_| String::new());
    let elsewhere = match watch.exchange("the start of data exchange", &own) {
        Exchanged::Same(error) if error.is_empty() => return communicator,
        Exchanged::Same(error) | Exchanged::Mixed(error) => error,
        Exchanged::Each(errors) => {
            let mut errors = errors.into_iter().enumerate().filter(|(_, error)| !error.is_empty());
            errors.next().map_or_else(String::new, |(rank, error)| format!("rank {rank}: {error}"))
        }
    };
    watch.disband();
    communicator.and(Err(JoinError::Elsewhere(elsewhere)))
}

impl Transport {
    /// What [`Self::Auto`] stands for.
    fn chosen(self, has_cuda: bool) -> Self {
        match self {
            Self::Auto if has_cuda && cfg!(feature = "cuda") => Self::Nccl,
            Self::Auto => Self::Mpi,
            chosen => chosen,
        }
    }
}

/// At a place that all ranks know.
fn meet(place: &Place, own: &Hello, limit: Duration) -> Result<Met, MeetError> {
    if own.rank > 0 {
        return rendezvous::visit(place, own, limit);
    }
    let listener = rendezvous::listen(place.port, &own.passport.host)?;
    rendezvous::host(&listener, own, limit)
}

/// Rank 0 listens on a port of the system's choice, and tells all where, and the name of this very meeting.
fn meet_over(communicator: &dyn Communicator, mut own: Hello, limit: Duration) -> Result<Met, JoinError> {
    let host = own.passport.host.clone();
    let listener = if own.rank == 0 { Some(rendezvous::listen(0, &host)?) } else { None };
    let mut said = Vec::new();
    if let Some(listener) = &listener {
        let address = listener.local_addr().map_err(|source| MeetError::Listen { port: 0, host, source })?;
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let job = format!("mpirun {} on {} at {}", own.process, own.passport.host, since.as_nanos());
        said = vec![address.port().to_string(), job];
        said.extend(address::own_addresses());
    }
    let library = |reason: String| JoinError::Library { library: "MPI", reason };
    let said = communicator.broadcast(said.join("\n").into_bytes(), 0).wait();
    let said = said.map_err(|error| library(error.to_string()))?;
    let said = String::from_utf8_lossy(&said);
    let mut words = said.lines().map(str::to_owned);
    let port = words.next().and_then(|port| port.parse().ok());
    let (Some(port), Some(job)) = (port, words.next()) else {
        return Err(library(format!("what rank 0 said about where it listens cannot be read: {said}")));
    };
    own.job = job;
    Ok(match listener {
        Some(listener) => rendezvous::host(&listener, &own, limit)?,
        None => rendezvous::visit(&Place { hosts: words.collect(), port, asks_slurm: false }, &own, limit)?,
    })
}

/// Whether MPI can start at all, as far as can be told before ranks meet.
fn expect_mpi(identity: &Identity) -> Result<(), JoinError> {
    if !cfg!(feature = "mpi") {
        return Err(without_mpi("training on several ranks"));
    }
    // Every kind of support for MPI sets some.
    let has_support = || std::env::vars_os().any(|(name, _)| name.to_string_lossy().starts_with("PMI"));
    if identity.launcher.is_slurm() && !has_support() { Err(JoinError::PlainSrun) } else { Ok(()) }
}

fn without_mpi(why: &str) -> JoinError {
    let instead = "; without it `mpirun` needs `MASTER_ADDR` and `MASTER_PORT`";
    JoinError::NotBuilt { why: why.to_owned(), library: "MPI", feature: "mpi", instead }
}

/// MPI, with as many ranks as the job has.
#[cfg(feature = "mpi")]
fn start_mpi(
    _why: &str,
    identity: &Identity,
    pulse: &Arc<Pulse>,
    limit: Duration,
) -> Result<Arc<dyn Communicator>, JoinError> {
    let mpi = crate::mpi::Mpi::start(Arc::clone(pulse), limit)
        .map_err(|error| JoinError::Library { library: "MPI", reason: error.to_string() })?;
    let launcher = identity.launcher.to_string();
    if mpi.world_size() != identity.world_size {
        return Err(JoinError::WorldSize {
            found: mpi.world_size(),
            expected: identity.world_size,
            launcher,
        });
    }
    if mpi.rank() != identity.rank {
        return Err(JoinError::Rank { found: mpi.rank(), expected: identity.rank, launcher });
    }
    Ok(Arc::new(mpi))
}

/// A program without MPI says so.
#[cfg(not(feature = "mpi"))]
fn start_mpi(
    why: &str,
    _identity: &Identity,
    _pulse: &Arc<Pulse>,
    _limit: Duration,
) -> Result<Arc<dyn Communicator>, JoinError> {
    Err(without_mpi(why))
}

/// NCCL, whose id goes over the connections by which the ranks have met.
#[cfg(feature = "nccl")]
fn start_nccl(
    rank: usize,
    world_size: usize,
    options: &JoinOptions,
    pulse: &Arc<Pulse>,
    watch: &Watch,
) -> Result<Arc<dyn Communicator>, JoinError> {
    let library = |reason: String| JoinError::Library { library: "NCCL", reason };
    let prepare = || -> Result<_, JoinError> {
        let cpu = || library("it computes on the CPU; give every rank a CUDA device".to_owned());
        let device_index = options.device_index.ok_or_else(cpu)?;
        let nccl = Library::load()?;
        let id = if rank == 0 { nccl.unique_id()?.to_string() } else { String::new() };
        Ok((device_index, nccl, id))
    };
    let prepared = prepare();
    // A rank that fails takes part all the same, or the others would wait for it inside NCCL.
    let own = match &prepared {
        Ok((_, _, id)) => format!("ready {id}"),
        Err(_) => String::new(),
    };
    let exchanged = watch.exchange("the id of NCCL", &own);
    let (device_index, nccl, _) = prepared?;
    let first = match exchanged {
        Exchanged::Same(value) => value,
        Exchanged::Each(values) => match values.iter().position(String::is_empty) {
            Some(rank) => return Err(library(format!("rank {rank} cannot use it"))),
            None => values.into_iter().next().unwrap_or_default(),
        },
        Exchanged::Mixed(reason) => return Err(library(reason)),
    };
    let id = first.strip_prefix("ready ").unwrap_or_default().parse()?;
    let options = NcclOptions {
        rank,
        world_size,
        device_index,
        limit: options.limit,
        // Whoever hangs in an operation is noticed by the watch, which knows when waiting is in order.
        operation_limit: Duration::MAX,
    };
    Ok(Arc::new(Nccl::new(nccl, id, &options)?.watched(Arc::clone(pulse))))
}

#[cfg(feature = "nccl")]
impl From<NcclError> for JoinError {
    fn from(error: NcclError) -> Self {
        Self::Library { library: "NCCL", reason: error.to_string() }
    }
}

/// A program without NCCL says so.
#[cfg(not(feature = "nccl"))]
fn start_nccl(
    _rank: usize,
    _world_size: usize,
    _options: &JoinOptions,
    _pulse: &Arc<Pulse>,
    _watch: &Watch,
) -> Result<Arc<dyn Communicator>, JoinError> {
    let why = "training on CUDA devices".to_owned();
    Err(JoinError::NotBuilt { why, library: "NCCL", feature: "cuda", instead: "" })
}
