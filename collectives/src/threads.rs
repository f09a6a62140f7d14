//! Ranks as threads of one process, for tests.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use crate::bf16;
use crate::communicator::{Bucket, CollectiveError, Communicator, HostBucket, Pending, Wire};

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

impl Links {
    fn sum(&self, host: &mut HostBucket) -> Result<(), CollectiveError> {
        let parts = self.exchange("all_reduce_sum", to_bytes(&host.local))?;
        fit(&parts, 4 * host.local.len())?;
        host.sum.clear();
        host.sum.resize(host.local.len(), 0.0);
        for part in &parts {
            host.sum.iter_mut().zip(to_floats(part)).for_each(|(sum, value)| *sum += value);
        }
        Ok(())
    }

    /// As [`bf16`] says.
    fn sum_rounded(&self, host: &mut HostBucket, rank: usize) -> Result<(), CollectiveError> {
        let world_size = self.to.len();
        let length = bf16::chunk_length(host.local.len(), world_size);
        let halves = bf16::round_local(host, world_size);
        let parts = self.exchange("all_reduce_sum in bf16", halves_to_bytes(&halves))?;
        fit(&parts, 2 * halves.len())?;
        let chunks: Vec<_> =
            parts.iter().flat_map(|part| to_halves(&part[2 * rank * length..][..2 * length])).collect();
        let sums = bf16::sum_own_chunk(host, rank, world_size, &chunks);
        let parts = self.exchange("sums in bf16", halves_to_bytes(&sums))?;
        let sums: Vec<_> = parts.iter().flat_map(|part| to_halves(part)).collect();
        bf16::widen_sums(host, &sums);
        Ok(())
    }
}

/// Whether the parts of all ranks have the length of this rank's.
fn fit(parts: &[Arc<Vec<u8>>], length: usize) -> Result<(), CollectiveError> {
    match parts.iter().position(|part| part.len() != length) {
        Some(rank) => {
            let reason = format!("a bucket of {length} bytes here, of {} on rank {rank}", parts[rank].len());
            Err(CollectiveError::Mismatch(reason))
        }
        None => Ok(()),
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

fn halves_to_bytes(halves: &[u16]) -> Vec<u8> {
    halves.iter().flat_map(|half| half.to_le_bytes()).collect()
}

fn to_halves(bytes: &[u8]) -> impl Iterator<Item = u16> {
    bytes.as_chunks::<2>().0.iter().map(|bytes| u16::from_le_bytes(*bytes))
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
        let rank = self.rank;
        self.order(move |links| {
            let mut host = bucket.on_the_host()?;
            match host.wire {
                Wire::F32 => links.sum(&mut host)?,
                Wire::Bf16 => links.sum_rounded(&mut host, rank)?,
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
    fn rounded_sums_are_the_same_on_all_ranks_and_keep_what_they_leave_out() {
        // 5 numbers on 3 ranks: the last chunk is filled up.
        let seen = on_all(3, |rank| {
            let mut bucket = HostBucket::new(5, Wire::Bf16);
            let mut total = [0.0f64; 5];
            for _ in 0..100 {
                bucket.local = (0..5).map(|at| 0.001 * (1 + at + rank.rank()) as f32).collect();
                let sum = rank.all_reduce_sum(Bucket::Host(bucket)).wait();
                let sum = sum.and_then(Bucket::on_the_host).expect("summed");
                total.iter_mut().zip(&sum.sum).for_each(|(total, sum)| *total += f64::from(*sum));
                bucket = sum;
            }
            (bucket.sum, total)
        });
        assert!(seen.iter().all(|(sum, _)| *sum == seen[0].0));
        for (at, total) in seen[0].1.iter().enumerate() {
            let step = 0.001 * (6 + 3 * at) as f64;
            // What the last step may still owe, see `bf16`.
            assert!((total - 100.0 * step).abs() < 2.0 * step / 256.0, "{total} is not {}", 100.0 * step);
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
