//! A crew as the algorithms see it, and the rows of its ranks.

use std::ops::Range;

use burn::tensor::{Tensor, TensorData};
use harvest_collectives::{Bucket, CollectiveError, HostBucket, Pending, Wire};
use harvest_kernels::Exchange;

use super::crew::Crew;
use crate::algorithms::Ranks;

impl Crew {
    /// Rows of this rank among `count` of a step, a multiple of its labelled images: as many for each of those, so that the
    /// rank's part of them is [`Crew::share`] too.
    ///
    /// # Panics
    /// If it is no multiple.
    pub fn rows_among(&self, count: usize) -> Range<usize> {
        let batch = self.rows_of(self.world_size() - 1).end;
        assert!(count.is_multiple_of(batch), "{count} rows for {batch} labelled images");
        let rows = self.rows();
        rows.start * (count / batch)..rows.end * (count / batch)
    }

    /// The result of an operation of all ranks. There is no going on without it.
    pub(super) fn arrived<T>(&self, what: &str, pending: Pending<T>) -> T {
        self.succeeded(what, pending.wait())
    }

    /// As [`Crew::arrived`], for a result that is already there.
    pub(super) fn succeeded<T>(&self, what: &str, result: Result<T, CollectiveError>) -> T {
        result.unwrap_or_else(|error| self.communicator().abort(&format!("{what}: {error}")))
    }
}

/// What ranks want to do after a step, on its way between them.
#[derive(Debug)]
pub(super) enum Vote {
    /// Nobody else to ask.
    Own(u32),
    /// One number for each bit.
    Joint(Pending<Bucket>),
}

impl Crew {
    /// Begins to tell all ranks what this one wants: a set of bits.
    pub(super) fn vote(&self, wants: u32) -> Vote {
        if self.world_size() == 1 {
            return Vote::Own(wants);
        }
        let mut bucket = HostBucket::new(u32::BITS as usize, Wire::F32);
        for (bit, place) in bucket.local.iter_mut().enumerate() {
            *place = (wants >> bit & 1) as f32;
        }
        Vote::Joint(self.communicator().all_reduce_sum(Bucket::Host(bucket)))
    }

    /// What any rank wants, the same on every rank.
    pub(super) fn agreed(&self, vote: Vote) -> u32 {
        match vote {
            Vote::Own(wants) => wants,
            Vote::Joint(pending) => {
                let votes = self.arrived("what ranks want to do next", pending).host_sum();
                (0u32..).zip(votes).filter(|(_, votes)| *votes > 0.5).map(|(bit, _)| 1 << bit).sum()
            }
        }
    }

    /// The mean over ranks of `own`, weighted by their shares; the same on every rank.
    pub(super) fn mean(&self, own: &[f32]) -> Vec<f32> {
        if self.world_size() == 1 {
            return own.to_vec();
        }
        let mut bucket = HostBucket::new(own.len(), Wire::F32);
        bucket.local.iter_mut().zip(own).for_each(|(place, value)| *place = value * self.share() as f32);
        let pending = self.communicator().all_reduce_sum(Bucket::Host(bucket));
        self.arrived("means over ranks", pending).host_sum()
    }
}

/// Ranks that normalise their images together.
#[derive(Debug)]
pub(super) struct JointStatistics(pub Crew);

impl Exchange for JointStatistics {
    /// Doubles travel as two singles each, which keeps 48 bits.
    fn gather(&self, own: &[f64]) -> Vec<Vec<f64>> {
        let halves = own.iter().flat_map(|value| {
            let high = *value as f32;
            [high, (value - f64::from(high)) as f32]
        });
        let pending = self.0.communicator().all_gather(halves.collect());
        let all = self.0.arrived("statistics of batch normalisation", pending);
        let whole = |rank: Vec<f32>| -> Vec<f64> {
            rank.as_chunks::<2>().0.iter().map(|[high, low]| f64::from(*high) + f64::from(*low)).collect()
        };
        all.into_iter().map(whole).collect()
    }

    fn weighted_sum(&self, own: &[f64]) -> Vec<f64> {
        let crew = &self.0;
        let mut sum = vec![0.0; own.len()];
        for (rank, values) in self.gather(own).into_iter().enumerate() {
            let weight = crew.rows_of(rank).len() as f64 / crew.rows().len() as f64;
            sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += weight * value);
        }
        sum
    }
}

/// The sum in a bucket that came back.
trait HostSum {
    fn host_sum(self) -> Vec<f32>;
}

impl HostSum for Bucket {
    fn host_sum(self) -> Vec<f32> {
        match self {
            Bucket::Host(bucket) => bucket.sum,
            _ => unreachable!("a bucket comes back as it went out"),
        }
    }
}

impl Ranks for Crew {
    fn world_size(&self) -> usize {
        self.world_size()
    }

    fn rank(&self) -> usize {
        self.rank()
    }

    fn gather(&self, rows: Tensor<2>) -> Tensor<2> {
        if self.world_size() == 1 {
            return rows;
        }
        let (device, [_, width]) = (rows.device(), rows.dims());
        let own = rows.into_data().iter::<f32>().collect();
        let all = self.arrived("statistics of a step", self.communicator().all_gather(own)).concat();
        let shape = [all.len() / width, width];
        Tensor::from_data(TensorData::new(all, shape), &device)
    }

    fn share(&self) -> f64 {
        self.share()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use burn::tensor::Device;
    use harvest_collectives::Threads;

    use super::*;
    use crate::algorithms::joined_sum;

    fn on_all<T: Send>(world_size: usize, batch: usize, work: impl Fn(Crew) -> T + Sync) -> Vec<T> {
        let work = &work;
        std::thread::scope(|scope| {
            let ranks = Threads::ring(world_size).into_iter().map(|rank| {
                let crew = Crew::new(Arc::new(rank), batch).expect("a row for each");
                scope.spawn(move || work(crew))
            });
            let ranks: Vec<_> = ranks.collect();
            ranks.into_iter().map(|rank| rank.join().expect("the rank ends well")).collect()
        })
    }

    #[test]
    fn rows_of_unequal_ranks_come_in_order() {
        let seen = on_all(3, 8, |crew| {
            let own = crew.rows_among(16);
            let values: Vec<f32> = own.clone().flat_map(|row| [row as f32, -(row as f32)]).collect();
            let rows = Tensor::<1>::from_data(values.as_slice(), &Device::flex()).reshape([own.len(), 2]);
            (own, crew.gather(rows).into_data().iter::<f32>().collect::<Vec<_>>())
        });
        let expected: Vec<f32> = (0..16).flat_map(|row| [row as f32, -(row as f32)]).collect();
        assert_eq!(seen.iter().map(|(own, _)| own.len()).collect::<Vec<_>>(), [6, 6, 4]);
        assert!(seen.iter().all(|(_, rows)| *rows == expected));
    }

    /// `f = (Σ x)²` over 8 rows of three ranks: each rank's gradient, weighted by its share, is `2 Σ x` at its own rows.
    #[test]
    fn a_joined_sum_has_the_gradient_of_the_joined_batch() {
        let seen = on_all(3, 8, |crew| {
            let values: Vec<f32> = crew.rows().map(|row| row as f32).collect();
            let x = Tensor::<1>::from_data(values.as_slice(), &Device::flex().autodiff()).require_grad();
            let sum = joined_sum(&crew, x.clone().sum());
            let gradients = sum.clone().powi_scalar(2).sum().backward();
            let gradient = x.grad(&gradients).expect("tracked").mul_scalar(crew.share() as f32);
            (sum.inner().into_scalar::<f32>(), gradient.into_data().iter::<f32>().collect::<Vec<_>>())
        });
        for (sum, gradient) in seen {
            assert_eq!(sum, 28.0);
            assert!(gradient.iter().all(|slope| (slope - 56.0).abs() < 1e-4), "{gradient:?}");
        }
    }
}
