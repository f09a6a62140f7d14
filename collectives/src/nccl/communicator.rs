//! [`Nccl`]: the ranks of a job, each with a GPU.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

#[cfg(feature = "cuda")]
use super::device_bucket::DeviceBucket;
use super::error::NcclError;
use super::library::{Library, UniqueId};
use super::worker::Worker;
use crate::communicator::{Bucket, CollectiveError, Communicator, Pending};
use crate::watch::Pulse;

/// Ranks that talk through NCCL.
///
/// A thread of its own makes the calls, in the order in which they were asked for, on a CUDA stream of its own; the caller
/// goes on queueing work for the device. [`Bucket::Device`] is summed where it lies, behind what was queued before; all else
/// passes through a buffer on the device.
///
/// Whatever goes wrong ends in an error: NCCL is asked now and then whether it has lost a rank, and no operation may take
/// longer than the limit. After an error all operations fail with it.
///
/// Buckets of the host travel in single precision, whatever their [`Wire`](crate::Wire) says: they are small where gradients
/// stay on the device.
pub struct Nccl {
    rank: usize,
    world_size: usize,
    orders: Option<Sender<Order>>,
    thread: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    pulse: Arc<Pulse>,
}

/// An operation that waits for its turn.
type Order = Box<dyn FnOnce(&mut Worker) + Send>;

/// Which rank on which device.
#[derive(Debug, Clone, Copy)]
pub struct NcclOptions {
    /// Which rank this is.
    pub rank: usize,
    /// How many there are.
    pub world_size: usize,
    /// Number of the CUDA device, as in `cuda:N`.
    pub device_index: usize,
    /// How long ranks may wait for each other when they join.
    pub limit: Duration,
    /// How long they may in an operation. [`Duration::MAX`] where something else watches over them.
    pub operation_limit: Duration,
}

impl Nccl {
    /// Joins the ranks that were given the same `id`.
    ///
    /// # Errors
    /// [`NcclError`]: no such device, or a rank that does not come.
    pub fn new(library: Arc<Library>, id: UniqueId, options: &NcclOptions) -> Result<Self, NcclError> {
        let (orders, inbox) = channel::<Order>();
        let (joined, answer) = channel();
        let stop = Arc::new(AtomicBool::new(false));
        let (options, stopped) = (*options, Arc::clone(&stop));
        let work = move || match Worker::join(library, id, &options, stopped) {
            Ok(mut worker) => {
                let heard = joined.send(Ok(())).is_ok();
                if heard {
                    inbox.into_iter().for_each(|order| order(&mut worker));
                    worker.leave();
                }
            }
            // If nobody listens any more, nobody needs to know.
            Err(error) => drop(joined.send(Err(error))),
        };
        let cannot = |reason: String| NcclError::Cuda { reason };
        let thread = thread::Builder::new().name("nccl".to_owned()).spawn(work);
        let thread = thread.map_err(|error| cannot(format!("no thread for communication: {error}")))?;
        answer.recv().unwrap_or_else(|_| Err(cannot("the communication thread ended early".to_owned())))?;
        let NcclOptions { rank, world_size, .. } = options;
        let pulse = Arc::new(Pulse::default());
        Ok(Self { rank, world_size, orders: Some(orders), thread: Some(thread), stop, pulse })
    }

    /// As part of a [`Team`](crate::Team): it sees operations begin, and tells the others when this rank aborts.
    pub(crate) fn watched(mut self, pulse: Arc<Pulse>) -> Self {
        self.pulse = pulse;
        self
    }

    /// Lets the communication thread do `work`, in the order of calls.
    fn order<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Worker) -> Result<T, CollectiveError> + Send + 'static,
    ) -> Pending<T> {
        let (sender, pending) = Pending::new();
        self.pulse.begin_operation();
        let order: Order = Box::new(move |worker| {
            // A caller may have dropped its handle.
            let _ = sender.send(work(worker));
        });
        if let Some(orders) = &self.orders {
            // If the thread has ended, so has the sender in `order`, and the caller learns of it when it waits.
            let _ = orders.send(order);
        }
        pending
    }

    /// Lets the communication thread do `work` and waits for it.
    fn last_order(&self, work: fn(&mut Worker), limit: Duration) {
        let (sender, done) = channel();
        let order: Order = Box::new(move |worker| {
            work(worker);
            let _ = sender.send(());
        });
        if self.orders.as_ref().is_some_and(|orders| orders.send(order).is_ok()) {
            // If the thread has ended meanwhile, there is nothing to wait for.
            let _ = done.recv_timeout(limit);
        }
    }

    #[cfg(feature = "cuda")]
    fn reduce_on_device(&self, mut bucket: Box<DeviceBucket>) -> Pending<Bucket> {
        let travelling = match bucket.depart() {
            Ok(travelling) => travelling,
            Err(error) => return Pending::ready(Err(error)),
        };
        self.order(move |worker| {
            let arrived = worker.reduce_device(travelling)?;
            bucket.arrive(arrived);
            Ok(Bucket::Device(bucket))
        })
    }
}

impl Communicator for Nccl {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world_size(&self) -> usize {
        self.world_size
    }

    fn all_reduce_sum(&self, bucket: Bucket) -> Pending<Bucket> {
        match bucket {
            #[cfg(feature = "cuda")]
            Bucket::Device(bucket) => self.reduce_on_device(bucket),
            Bucket::Host(mut bucket) => self.order(move |worker| {
                bucket.sum.clone_from(&bucket.local);
                worker.reduce_host(&mut bucket.sum)?;
                Ok(Bucket::Host(bucket))
            }),
        }
    }

    fn all_gather(&self, values: Vec<f32>) -> Pending<Vec<Vec<f32>>> {
        self.order(move |worker| worker.all_gather(&values))
    }

    fn broadcast(&self, bytes: Vec<u8>, root: usize) -> Pending<Vec<u8>> {
        self.order(move |worker| worker.broadcast(bytes, root))
    }

    fn barrier(&self) -> Pending<()> {
        self.order(Worker::barrier)
    }

    fn abort(&self, reason: &str) -> ! {
        // What is under way ends, and the communicator is freed. A driver that hangs is not waited for.
        self.stop.store(true, Ordering::Release);
        self.last_order(Worker::release, Duration::from_secs(2));
        self.pulse.abort(reason)
    }

    fn sums_on_gpus(&self) -> bool {
        cfg!(feature = "cuda")
    }

    fn finish(&self) {
        self.last_order(Worker::leave, Duration::MAX);
    }
}

impl fmt::Debug for Nccl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rank {} of {} over NCCL", self.rank, self.world_size)
    }
}

impl Drop for Nccl {
    /// Ends together with the other ranks, which do so too, unless [`Communicator::finish`] has done it.
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed.
            let _ = thread.join();
        }
    }
}
