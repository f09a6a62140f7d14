//! Ranks as threads of one process, for tests.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use crate::communicator::{Bucket, CollectiveError, Communicator, Pending};

/// One of several ranks in a process. A rank that panics hangs up, which fails the operations of the others.
///
/// Each rank has a thread of its own for communication, so that operations run beside the caller's work as they do with
/// MPI and NCCL.
pub struct Threads {
    rank: usize,
    world_size: usize,
    work: Sender<Work>,
}

/// An operation that waits for its turn.
type Work = Box<dyn FnOnce(&Links) + Send>;

/// What a rank tells another: which operation it is in, and its part of it.
#[derive(Debug, Clone)]
struct Part {
    operation: &'static str,
    bytes: Arc<Vec<u8>>,
}

/// To every rank and from every rank, in order.
struct Links {
    to: Vec<Sender<Part>>,
    from: Vec<Receiver<Part>>,
}

impl Threads {
    /// `world_size` ranks, each linked to all.
    pub fn ring(world_size: usize) -> Vec<Self> {
        let mut links: Vec<_> = (0..world_size).map(|_| Links { to: Vec::new(), from: Vec::new() }).collect();
        for source in 0..world_size {
            for target in 0..world_size {
                let (sender, receiver) = channel();
                links[source].to.push(sender);
                links[target].from.push(receiver);
            }
        }
        links
            .into_iter()
            .enumerate()
            .map(|(rank, links)| {
                let (work, orders) = channel::<Work>();
                // Ends when the rank is dropped; its links then hang up.
                thread::spawn(move || orders.into_iter().for_each(|work| work(&links)));
                Self { rank, world_size, work }
            })
            .collect()
    }

    /// Lets the communication thread do `work`, in the order of calls.
    fn order<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Links) -> Result<T, CollectiveError> + Send + 'static,
    ) -> Pending<T> {
        let (sender, pending) = Pending::new();
        let work: Work = Box::new(move |links| {
            // A caller may have dropped its handle.
            let _ = sender.send(work(links));
        });
        // If the thread has ended, so has the sender in `work`, and the caller learns of it when it waits.
        let _ = self.work.send(work);
        pending
    }
}

impl Links {
    /// The parts of all ranks.
    fn exchange(
        &self,
        operation: &'static str,
        bytes: Vec<u8>,
    ) -> Result<Vec<Arc<Vec<u8>>>, CollectiveError> {
        let lost = |rank: usize| CollectiveError::Lost(format!("rank {rank} has ended"));
        let part = Part { operation, bytes: Arc::new(bytes) };
        for (rank, to) in self.to.iter().enumerate() {
            to.send(part.clone()).map_err(|_| lost(rank))?;
        }
        let parts = self.from.iter().enumerate().map(|(rank, from)| {
            let part = from.recv().map_err(|_| lost(rank))?;
            if part.operation == operation {
                Ok(part.bytes)
            } else {
                let reason = format!("{operation} here, {} on rank {rank}", part.operation);
                Err(CollectiveError::Mismatch(reason))
            }
        });
        parts.collect()
    }
}

impl fmt::Debug for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rank {} of {} threads", self.rank, self.world_size)
    }
}

fn to_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn to_floats(bytes: &[u8]) -> impl Iterator<Item = f32> {
    bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes))
}

impl Communicator for Threads {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world_size(&self) -> usize {
        self.world_size
    }

    fn all_reduce_sum(&self, bucket: Bucket) -> Pending<Bucket> {
        self.order(move |links| {
            let mut host = bucket.on_the_host()?;
            let parts = links.exchange("all_reduce_sum", to_bytes(&host.local))?;
            host.sum.clear();
            host.sum.resize(host.local.len(), 0.0);
            for (rank, part) in parts.iter().enumerate() {
                if part.len() != 4 * host.local.len() {
                    let (own, other) = (host.local.len(), part.len() / 4);
                    let reason = format!("{own} numbers here, {other} on rank {rank}");
                    return Err(CollectiveError::Mismatch(reason));
                }
                host.sum.iter_mut().zip(to_floats(part)).for_each(|(sum, value)| *sum += value);
            }
            Ok(Bucket::Host(host))
        })
    }

    fn all_gather(&self, values: Vec<f32>) -> Pending<Vec<Vec<f32>>> {
        self.order(move |links| {
            let parts = links.exchange("all_gather", to_bytes(&values))?;
            Ok(parts.iter().map(|part| to_floats(part).collect()).collect())
        })
    }

    fn broadcast(&self, bytes: Vec<u8>, root: usize) -> Pending<Vec<u8>> {
        let bytes = if self.rank == root { bytes } else { Vec::new() };
        self.order(move |links| {
            let parts = links.exchange("broadcast", bytes)?;
            Ok(parts[root].to_vec())
        })
    }

    fn barrier(&self) -> Pending<()> {
        self.order(move |links| links.exchange("barrier", Vec::new()).map(drop))
    }

    fn abort(&self, reason: &str) -> ! {
        panic!("rank {}: {reason}", self.rank)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::communicator::{HostBucket, Wire};

    fn on_all<T: Send>(world_size: usize, work: impl Fn(Threads) -> T + Sync) -> Vec<T> {
        let work = &work;
        thread::scope(|scope| {
            let ranks: Vec<_> =
                Threads::ring(world_size).into_iter().map(|rank| scope.spawn(move || work(rank))).collect();
            ranks.into_iter().map(|rank| rank.join().expect("the rank ends well")).collect()
        })
    }

    #[test]
    fn sums_and_rows_are_those_of_all_ranks() {
        let seen = on_all(3, |rank| {
            let number = rank.rank() as f32;
            let mut bucket = HostBucket::new(2, Wire::F32);
            bucket.local = vec![number, 1.0];
            let sum = rank.all_reduce_sum(Bucket::Host(bucket));
            let rows = rank.all_gather(vec![number; rank.rank()]);
            let said = rank.broadcast(vec![rank.rank() as u8], 2);
            let barrier = rank.barrier();
            let sum = sum.wait().and_then(Bucket::on_the_host).expect("summed");
            barrier.wait().expect("all are there");
            (sum.sum, rows.wait().expect("gathered"), said.wait().expect("said"))
        });
        for (sum, rows, said) in seen {
            assert_eq!(sum, [3.0, 3.0]);
            assert_eq!(rows, [vec![], vec![1.0], vec![2.0; 2]]);
            assert_eq!(said, [2]);
        }
    }

    #[test]
    fn what_does_not_fit_and_who_is_gone_is_told() {
        let seen = on_all(2, |rank| match rank.rank() {
            0 => rank.all_gather(vec![1.0]).wait().map(drop),
            _ => rank.barrier().wait(),
        });
        assert!(seen.iter().all(|seen| matches!(seen, Err(CollectiveError::Mismatch(_)))), "{seen:?}");
        let alone = Threads::ring(2).into_iter().next().expect("two were made");
        assert!(matches!(alone.barrier().wait(), Err(CollectiveError::Lost(_))));
    }
}
