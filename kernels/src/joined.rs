//! Batch normalisation over the images of several ranks: what they show each other.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::backend::DispatchTensor;
use burn::tensor::{Tensor, TensorData};

use crate::tap::{BackwardHook, Found, hooked};

/// The ranks whose images are normalised together, seen from one of them. All ranks must ask in the same order.
pub trait Exchange: Debug + Send + Sync {
    /// The values of all ranks, as many each, in the order of ranks; the same on every rank.
    fn gather(&self, own: &[f64]) -> Vec<Vec<f64>>;

    /// The sum over ranks of values that are parts of a gradient, each rank's times the weight of its loss, over this rank's
    /// weight: what they are to this rank, whose own gradient is multiplied by that weight later on.
    fn weighted_sum(&self, own: &[f64]) -> Vec<f64>;
}

/// An exchange, and how many values a channel had over all ranks when it was last asked for.
#[derive(Debug, Clone)]
pub(crate) struct Joined {
    pub(crate) exchange: Arc<dyn Exchange>,
    pub(crate) count: Arc<AtomicUsize>,
}

impl Joined {
    pub(crate) fn new(exchange: &Arc<dyn Exchange>) -> Self {
        Self { exchange: exchange.clone(), count: Arc::default() }
    }

    /// Mean and biased variance of every channel over all ranks, from those of this rank's `count` values a channel, by the
    /// rule of Chan et al. (1983); and how many values there are.
    pub(crate) fn moments(&self, [means, variances]: [Vec<f64>; 2], count: usize) -> ([Vec<f64>; 2], usize) {
        let channels = means.len();
        let own: Vec<f64> = [count as f64].into_iter().chain(means).chain(variances).collect();
        let all = self.exchange.gather(&own);
        let total: f64 = all.iter().map(|rank| rank[0]).sum();
        let over_ranks = |of: &dyn Fn(&[f64], &[f64]) -> f64| -> f64 {
            all.iter().map(|rank| rank[0] * of(&rank[1..=channels], &rank[1 + channels..])).sum::<f64>()
                / total
        };
        let mean: Vec<f64> = (0..channels).map(|c| over_ranks(&|means, _| means[c])).collect();
        let variance = (0..channels)
            .map(|c| over_ranks(&|means, variances| variances[c] + (means[c] - mean[c]).powi(2)))
            .collect();
        self.count.store(total as usize, Ordering::Relaxed);
        ([mean, variance], total as usize)
    }
}

/// The sum over all ranks of `x` `[N]`, with its gradient.
pub(crate) fn summed(x: Tensor<1>, exchange: &Arc<dyn Exchange>) -> Tensor<1> {
    let values = floats(x.clone().inner().into_dispatch());
    let mut sum = vec![0.0; values.len()];
    for rank in exchange.gather(&values) {
        sum.iter_mut().zip(rank).for_each(|(sum, value)| *sum += value);
    }
    let sum = tensor(&sum, &x.device().inner());
    if !x.is_tracked() {
        return if x.is_autodiff() { Tensor::from_inner(sum) } else { sum };
    }
    let x = hooked(x, Arc::new(Weigh { exchange: exchange.clone() }));
    // The value is that of all ranks, the gradient goes to this rank's part.
    x.clone() - Tensor::from_inner(x.inner()) + Tensor::from_inner(sum)
}

/// Makes the gradient of a sum over ranks that of a part of it.
#[derive(Debug)]
struct Weigh {
    exchange: Arc<dyn Exchange>,
}

impl BackwardHook for Weigh {
    fn passed(&self, gradient: DispatchTensor, _found: &Found<'_>) -> DispatchTensor {
        let device = Tensor::<1>::from_dispatch(gradient.clone()).device();
        let sum = self.exchange.weighted_sum(&floats(gradient));
        tensor(&sum, &device).into_dispatch()
    }
}

fn floats(x: DispatchTensor) -> Vec<f64> {
    Tensor::<1>::from_dispatch(x).into_data().iter::<f64>().collect()
}

fn tensor(values: &[f64], device: &burn::tensor::Device) -> Tensor<1> {
    let values: Vec<f32> = values.iter().map(|value| *value as f32).collect();
    let count = values.len();
    Tensor::from_data(TensorData::new(values, [count]), device)
}

#[cfg(test)]
pub(crate) mod testing {
    use std::sync::{Barrier, Mutex};

    use super::*;

    /// Ranks as threads of a test; `weights` sum to 1.
    #[derive(Debug)]
    pub struct Table {
        pub weights: Vec<f64>,
        seats: Mutex<Vec<Vec<f64>>>,
        barrier: Barrier,
    }

    impl Table {
        pub fn of(weights: &[f64]) -> Vec<Arc<dyn Exchange>> {
            let ranks = weights.len();
            let table = Arc::new(Self {
                weights: weights.to_vec(),
                seats: Mutex::new(vec![Vec::new(); ranks]),
                barrier: Barrier::new(ranks),
            });
            (0..ranks)
                .map(|rank| Arc::new(Seat { rank, table: table.clone() }) as Arc<dyn Exchange>)
                .collect()
        }
    }

    #[derive(Debug)]
    struct Seat {
        rank: usize,
        table: Arc<Table>,
    }

    impl Exchange for Seat {
        fn gather(&self, own: &[f64]) -> Vec<Vec<f64>> {
            self.table.seats.lock().expect("no panic")[self.rank] = own.to_vec();
            self.table.barrier.wait();
            let all = self.table.seats.lock().expect("no panic").clone();
            // Nobody writes the next values before all have read these.
            self.table.barrier.wait();
            all
        }

        fn weighted_sum(&self, own: &[f64]) -> Vec<f64> {
            let weights = &self.table.weights;
            let mut sum = vec![0.0; own.len()];
            for (rank, values) in self.gather(own).into_iter().enumerate() {
                sum.iter_mut()
                    .zip(values)
                    .for_each(|(sum, value)| *sum += weights[rank] / weights[self.rank] * value);
            }
            sum
        }
    }
}
