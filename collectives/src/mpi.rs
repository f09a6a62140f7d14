//! Sums over MPI.
//!
//! MPI moves data only while the program calls it, and may be called by one thread only. So one thread owns it: it takes
//! orders, begins them in their order without waiting for earlier ones, and looks again and again whether one has ended.
//! Between looks it sleeps, since its core belongs to the computation. Operations thus run while the caller computes.
//!
//! Some operations have two parts, and ranks may see the end of a first part at different times. All second parts use a
//! communicator of their own and begin in the order of their operations, so that both communicators see the same sequence
//! on every rank.

mod flight;

use std::collections::VecDeque;
use std::fmt;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use mpi::Threading;
use mpi::environment::Universe;
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator as _, Source};

use self::flight::Flight;
use crate::bf16;
use crate::communicator::{Bucket, CollectiveError, Communicator, HostBucket, Pending, Wire};
use crate::watch::Pulse;

/// The ranks of an MPI world.
pub struct Mpi {
    rank: usize,
    world_size: usize,
    orders: Sender<Order>,
    thread: Mutex<Option<JoinHandle<()>>>,
    pulse: Arc<Pulse>,
}

/// MPI did not start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("MPI did not start: {0}")]
pub struct MpiError(String);

type Reply<T> = Sender<Result<T, CollectiveError>>;

/// What the communication thread is asked for.
enum Order {
    Sum(HostBucket, Reply<Bucket>),
    Gather(Vec<f32>, Reply<Vec<Vec<f32>>>),
    Broadcast(Vec<u8>, usize, Reply<Vec<u8>>),
    Barrier(Reply<()>),
    /// Leave MPI together.
    Finish,
}

impl Mpi {
    /// Starts MPI on a thread of its own; all ranks must. `pulse` counts the operations.
    ///
    /// # Errors
    /// If MPI has been started in this process before, or does not come up within `limit`.
    pub(crate) fn start(pulse: Arc<Pulse>, limit: Duration) -> Result<Self, MpiError> {
        let (orders, received) = channel();
        let (ready, started) = channel();
        let work = move || {
            // Only this thread will call MPI.
            let Some((universe, _)) = mpi::initialize_with_threading(Threading::Funneled) else {
                let _ = ready.send(Err(MpiError("it has been started before in this process".to_owned())));
                return;
            };
            let world = universe.world();
            let seen = (world.rank() as usize, world.size() as usize);
            let _ = ready.send(Ok(seen));
            // No message before there is something to do, for then all ranks have started (`join` asks them). MPI should wait
            // for them itself, but under Slurm some leave `MPI_Init` while others are inside (Slurm 22.05 with PMIx 4.2, two
            // starts in a hundred), and a message ends Open MPI 4.1 there: it has nothing yet to call for it.
            let Ok(first) = received.recv() else {
                std::mem::forget(universe);
                return;
            };
            let communicators = [world.duplicate(), world.duplicate()];
            Engine { universe, communicators, world_size: seen.1, rank: seen.0, flying: VecDeque::new() }
                .serve(first, &received);
        };
        let thread = thread::Builder::new().name("mpi".to_owned()).spawn(work);
        let thread = thread.map_err(|error| MpiError(format!("no thread for it: {error}")))?;
        let (rank, world_size) = match started.recv_timeout(limit) {
            Ok(seen) => seen?,
            Err(RecvTimeoutError::Timeout) => {
                return Err(MpiError(format!("ranks did not find each other within {} s", limit.as_secs())));
            }
            Err(RecvTimeoutError::Disconnected) => return Err(MpiError("its thread ended".to_owned())),
        };
        Ok(Self { rank, world_size, orders, thread: Mutex::new(Some(thread)), pulse })
    }

    fn order<T>(&self, order: impl FnOnce(Reply<T>) -> Order) -> Pending<T> {
        let (reply, pending) = Pending::new();
        self.pulse.begin_operation();
        // If the thread has ended the reply is dropped, and the caller learns of it when it waits.
        let _ = self.orders.send(order(reply));
        pending
    }
}

impl Communicator for Mpi {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world_size(&self) -> usize {
        self.world_size
    }

    fn all_reduce_sum(&self, bucket: Bucket) -> Pending<Bucket> {
        match bucket.on_the_host() {
            Ok(host) => self.order(|reply| Order::Sum(host, reply)),
            Err(error) => Pending::ready(Err(error)),
        }
    }

    fn all_gather(&self, values: Vec<f32>) -> Pending<Vec<Vec<f32>>> {
        self.order(|reply| Order::Gather(values, reply))
    }

    fn broadcast(&self, bytes: Vec<u8>, root: usize) -> Pending<Vec<u8>> {
        self.order(|reply| Order::Broadcast(bytes, root, reply))
    }

    fn barrier(&self) -> Pending<()> {
        self.order(Order::Barrier)
    }

    fn abort(&self, reason: &str) -> ! {
        self.pulse.abort(reason)
    }

    fn finish(&self) {
        let _ = self.orders.send(Order::Finish);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A thread that panicked has said so.
        let _ = thread.map(JoinHandle::join);
    }
}

impl Drop for Mpi {
    fn drop(&mut self) {
        // The thread must not be inside MPI while the process ends. It sees that no more orders can come.
        drop(std::mem::replace(&mut self.orders, channel().0));
        let thread = self.thread.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let _ = thread.map(JoinHandle::join);
    }
}

impl fmt::Debug for Mpi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rank {} of {} over MPI", self.rank, self.world_size)
    }
}

/// Where an operation is.
enum Stage {
    Sum(Flight<f32, f32>, HostBucket, Reply<Bucket>),
    /// Chunks on their way to their owners.
    Halves(Flight<u16, u16>, HostBucket, Reply<Bucket>),
    /// Sums of chunks on their way back.
    HalfSums(Flight<u16, u16>, HostBucket, Reply<Bucket>),
    Lengths(Flight<u64, u64>, Vec<f32>, Reply<Vec<Vec<f32>>>),
    Rows(Flight<f32, f32>, Vec<u64>, Reply<Vec<Vec<f32>>>),
    Length(Flight<u64, u64>, Vec<u8>, usize, Reply<Vec<u8>>),
    Bytes(Flight<u8, u8>, Reply<Vec<u8>>),
    Barrier(Flight<u8, u8>, Reply<()>),
}

impl Stage {
    fn has_landed(&mut self) -> bool {
        match self {
            Self::Sum(flight, ..) | Self::Rows(flight, ..) => flight.has_landed(),
            Self::Halves(flight, ..) | Self::HalfSums(flight, ..) => flight.has_landed(),
            Self::Lengths(flight, ..) | Self::Length(flight, ..) => flight.has_landed(),
            Self::Bytes(flight, ..) | Self::Barrier(flight, ..) => flight.has_landed(),
        }
    }

    /// Whether a second part follows.
    fn is_first(&self) -> bool {
        matches!(self, Self::Halves(..) | Self::Lengths(..) | Self::Length(..))
    }
}

/// The communication thread.
struct Engine {
    universe: Universe,
    /// For first and for second parts.
    communicators: [SimpleCommunicator; 2],
    rank: usize,
    world_size: usize,
    /// In the order of orders.
    flying: VecDeque<Stage>,
}

impl Engine {
    fn serve(mut self, first: Order, orders: &Receiver<Order>) {
        let mut pause = Pause::default();
        let mut next = Ok(first);
        loop {
            match next {
                Ok(Order::Finish) => return self.finish(),
                Ok(order) => {
                    if let Some(stage) = self.begin(order) {
                        self.flying.push_back(stage);
                    }
                    pause = Pause::default();
                }
                Err(RecvTimeoutError::Timeout) => {}
                // The job ends in disorder: ranks that are gone would be waited for.
                Err(RecvTimeoutError::Disconnected) => {
                    std::mem::forget(self);
                    return;
                }
            }
            if self.look() {
                pause = Pause::default();
            }
            next = orders.recv_timeout(pause.time(self.flying.is_empty()));
        }
    }

    /// All ranks end MPI; what is under way is waited for. While MPI itself waits for others it keeps a core busy, so they
    /// wait for each other before.
    fn finish(mut self) {
        let (reply, _) = channel();
        self.flying.extend(self.begin(Order::Barrier(reply)));
        while !self.flying.is_empty() {
            if !self.look() {
                thread::sleep(Duration::from_micros(200));
            }
        }
        let Self { universe, communicators, .. } = self;
        // They belong to the universe.
        drop(communicators);
        drop(universe);
    }

    fn begin(&self, order: Order) -> Option<Stage> {
        let first = &self.communicators[0];
        Some(match order {
            Order::Sum(mut host, reply) => {
                if let Err(error) = fits(host.local.len() + self.world_size) {
                    let _ = reply.send(Err(error));
                    return None;
                }
                if host.local.is_empty() {
                    host.sum.clear();
                    let _ = reply.send(Ok(Bucket::Host(host)));
                    return None;
                }
                match host.wire {
                    Wire::F32 => {
                        let (local, mut sum) =
                            (std::mem::take(&mut host.local), std::mem::take(&mut host.sum));
                        sum.resize(local.len(), 0.0);
                        Stage::Sum(Flight::sum(first, local, sum), host, reply)
                    }
                    Wire::Bf16 => {
                        let halves = bf16::round_local(&mut host, self.world_size);
                        Stage::Halves(Flight::exchange(first, halves), host, reply)
                    }
                }
            }
            Order::Gather(values, reply) => {
                Stage::Lengths(Flight::gather(first, vec![values.len() as u64]), values, reply)
            }
            Order::Broadcast(bytes, root, reply) => {
                let length = vec![bytes.len() as u64];
                Stage::Length(Flight::broadcast(first, length, root as i32), bytes, root, reply)
            }
            Order::Barrier(reply) => Stage::Barrier(Flight::gather(first, vec![0]), reply),
            Order::Finish => return None,
        })
    }

    /// Goes on with what can go on; whether anything could.
    fn look(&mut self) -> bool {
        if self.flying.is_empty() {
            // Lets MPI send what others still wait for.
            let _ = self.communicators[0].any_process().immediate_probe();
            return false;
        }
        let (mut moved, mut is_turn) = (false, true);
        for mut stage in std::mem::take(&mut self.flying) {
            if stage.has_landed() && (is_turn || !stage.is_first()) {
                moved = true;
                self.flying.extend(self.go_on(stage));
            } else {
                is_turn &= !stage.is_first();
                self.flying.push_back(stage);
            }
        }
        moved
    }

    /// The second part of an operation, or its end. Nobody may wait for a reply any more, which is no fault.
    fn go_on(&self, stage: Stage) -> Option<Stage> {
        let second = &self.communicators[1];
        match stage {
            Stage::Sum(flight, mut host, reply) => {
                (host.local, host.sum) = flight.land();
                let _ = reply.send(Ok(Bucket::Host(host)));
            }
            Stage::Halves(flight, mut host, reply) => {
                let (_, chunks) = flight.land();
                let sums = bf16::sum_own_chunk(&mut host, self.rank, self.world_size, &chunks);
                return Some(Stage::HalfSums(Flight::gather(second, sums), host, reply));
            }
            Stage::HalfSums(flight, mut host, reply) => {
                bf16::widen_sums(&mut host, &flight.land().1);
                let _ = reply.send(Ok(Bucket::Host(host)));
            }
            Stage::Lengths(flight, mut values, reply) => {
                let (_, lengths) = flight.land();
                let longest = lengths.iter().max().map_or(0, |longest| *longest as usize);
                match fits(longest * self.world_size) {
                    Ok(()) if longest == 0 => drop(reply.send(Ok(vec![Vec::new(); self.world_size]))),
                    // Rows differ by one or none; filling them up is cheaper than counts for each.
                    Ok(()) => {
                        values.resize(longest, 0.0);
                        return Some(Stage::Rows(Flight::gather(second, values), lengths, reply));
                    }
                    Err(error) => drop(reply.send(Err(error))),
                }
            }
            Stage::Rows(flight, lengths, reply) => {
                let (sent, rows) = flight.land();
                let rows = (0..self.world_size).map(|rank| &rows[rank * sent.len()..]);
                let rows = rows.zip(&lengths).map(|(row, length)| row[..*length as usize].to_vec());
                let _ = reply.send(Ok(rows.collect()));
            }
            Stage::Length(flight, mut bytes, root, reply) => {
                let length = flight.land().1[0] as usize;
                match fits(length) {
                    Ok(()) if length == 0 => drop(reply.send(Ok(Vec::new()))),
                    Ok(()) => {
                        bytes.resize(length, 0);
                        return Some(Stage::Bytes(Flight::broadcast(second, bytes, root as i32), reply));
                    }
                    Err(error) => drop(reply.send(Err(error))),
                }
            }
            Stage::Bytes(flight, reply) => drop(reply.send(Ok(flight.land().1))),
            Stage::Barrier(_, reply) => drop(reply.send(Ok(()))),
        }
        None
    }
}

/// MPI counts in 31 bits. (Nothing at all is not sent either: Open MPI 4.1 refuses to.)
fn fits(length: usize) -> Result<(), CollectiveError> {
    if i32::try_from(length).is_ok() {
        return Ok(());
    }
    let reason = format!("{length} numbers at once are more than it can count; send them in parts");
    Err(CollectiveError::Library { library: "MPI", reason })
}

/// Time between two looks.
struct Pause {
    since: Instant,
}

impl Default for Pause {
    fn default() -> Self {
        Self { since: Instant::now() }
    }
}

impl Pause {
    /// Short ones first: small operations end within microseconds, and large ones do not mind.
    fn time(&self, is_idle: bool) -> Duration {
        let passed = self.since.elapsed();
        match is_idle {
            false if passed < Duration::from_micros(20) => Duration::ZERO,
            false => (passed / 32).clamp(Duration::from_micros(50), Duration::from_micros(400)),
            // Orders wake the thread; only what MPI still has to send waits.
            true => passed.clamp(Duration::from_micros(200), Duration::from_millis(20)),
        }
    }
}
