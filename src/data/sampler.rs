//! Which images make up a step: a pure function of seed and position, so that resuming is starting at a step.
//!
//! Images come in epochs; each epoch is a permutation of its own, drawn from (seed, order, epoch), and the epochs
//! follow one another without a gap. A batch may therefore span epochs, with few labels several, and no image comes
//! twice within one epoch. All ranks share that one sequence, and in each step every rank takes its own slice of it:
//! every rank has a batch in every step, and the union over ranks is what one rank with the whole batch would take.
//!
//! With groups (classes), the sequence goes round them, and each group has epochs of its own.

use rand::Rng;

use crate::random::{Purpose, stream};

/// Which of the two sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Of labelled images.
    Labelled,
    /// Of unlabelled images.
    Unlabelled,
}

/// One place in a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pick {
    /// The image, one of those the sampler was made with.
    pub index: u32,
    /// How often all images have come before; part of the key of the image's augmentation.
    pub epoch: u64,
}

/// Why there can be no sampler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SamplerError {
    /// Nothing to sample from.
    #[error("there are no {} images to train on", match order { Order::Labelled => "labelled", Order::Unlabelled => "unlabelled" })]
    Empty {
        /// Which sequence.
        order: Order,
    },
    /// A rank outside of the world.
    #[error("rank {rank} of {world_size} does not exist")]
    Rank {
        /// This process.
        rank: u32,
        /// All processes.
        world_size: u32,
    },
}

/// The endless sequence of images of one kind; see the [module](self).
///
/// Holds the permutations last asked for, nothing else: asking is a pure function.
#[derive(Debug, Clone)]
pub struct Sampler {
    /// One cycle over all images, or one for each class.
    cycles: Vec<Cycle>,
    /// The order of the cycles within a round that takes an image of each.
    round: (u64, Vec<u32>),
    seed: u64,
    order: Order,
    rank: u32,
    world_size: u32,
}

/// Images that come equally often.
#[derive(Debug, Clone)]
struct Cycle {
    indices: Vec<u32>,
    epoch: u64,
    permuted: Vec<u32>,
}

impl Sampler {
    /// Samples from `indices` in a single process, each as often as any other.
    ///
    /// # Errors
    /// [`SamplerError::Empty`].
    pub fn new(indices: Vec<u32>, order: Order, seed: u64) -> Result<Self, SamplerError> {
        Self::balanced(vec![indices], order, seed)
    }

    /// Samples from several groups (the images of each class), each group as often as any other: every `groups.len()`
    /// images in a row hold one of each, in a new order each time. Empty groups are left out.
    ///
    /// # Errors
    /// [`SamplerError::Empty`] if all are.
    pub fn balanced(groups: Vec<Vec<u32>>, order: Order, seed: u64) -> Result<Self, SamplerError> {
        let cycles =
            groups.into_iter().filter(|indices| !indices.is_empty()).zip(0..).map(|(indices, number)| {
                let permuted = permutation(&indices, order, seed, [0, 0, number]);
                Cycle { indices, epoch: 0, permuted }
            });
        let cycles: Vec<Cycle> = cycles.collect();
        if cycles.is_empty() {
            return Err(SamplerError::Empty { order });
        }
        let mut sampler = Self { cycles, round: (0, Vec::new()), seed, order, rank: 0, world_size: 1 };
        sampler.round.1 = sampler.order_of_round(0);
        Ok(sampler)
    }

    /// The share of process `rank` of `world_size`.
    ///
    /// # Errors
    /// [`SamplerError::Rank`] unless `rank < world_size`.
    pub fn for_rank(self, rank: u32, world_size: u32) -> Result<Self, SamplerError> {
        if rank >= world_size {
            return Err(SamplerError::Rank { rank, world_size });
        }
        Ok(Self { rank, world_size, ..self })
    }

    /// The images of this rank in step `step` (from 0), where every rank takes `batch` in each step.
    pub fn batch(&mut self, step: u64, batch: usize) -> Vec<Pick> {
        let global = batch as u64 * u64::from(self.world_size);
        self.at(step * global + batch as u64 * u64::from(self.rank), batch)
    }

    /// `count` images of the shared sequence from `position` on, for callers whose batch changes between steps.
    pub fn at(&mut self, position: u64, count: usize) -> Vec<Pick> {
        (position..position + count as u64).map(|position| self.pick(position)).collect()
    }

    /// How many different images there are.
    pub fn epoch_len(&self) -> usize {
        self.cycles.iter().map(|cycle| cycle.indices.len()).sum()
    }

    fn pick(&mut self, position: u64) -> Pick {
        let cycles = self.cycles.len() as u64;
        let (round, place) = (position / cycles, position % cycles);
        if cycles > 1 && round != self.round.0 {
            self.round = (round, self.order_of_round(round));
        }
        let number = self.round.1[place as usize];
        let (order, seed) = (self.order, self.seed);
        let cycle = &mut self.cycles[number as usize];
        let length = cycle.indices.len() as u64;
        let (epoch, offset) = (round / length, round % length);
        if epoch != cycle.epoch {
            cycle.permuted = permutation(&cycle.indices, order, seed, [epoch, 0, u64::from(number)]);
            cycle.epoch = epoch;
        }
        Pick { index: cycle.permuted[offset as usize], epoch }
    }

    fn order_of_round(&self, round: u64) -> Vec<u32> {
        let numbers: Vec<u32> = (0..self.cycles.len() as u32).collect();
        permutation(&numbers, self.order, self.seed, [round, 1, 0])
    }
}

/// Fisher and Yates' shuffle, written out so that another version of `rand` cannot change a run's order.
fn permutation(indices: &[u32], order: Order, seed: u64, coordinates: [u64; 3]) -> Vec<u32> {
    let purpose = match order {
        Order::Labelled => Purpose::LabelledOrder,
        Order::Unlabelled => Purpose::UnlabelledOrder,
    };
    let mut rng = stream(seed, purpose, coordinates);
    let mut permuted = indices.to_vec();
    for last in (1..permuted.len()).rev() {
        // Uniform below last + 1 up to a bias of at most 2^-32.
        let other = (u128::from(rng.next_u64()) * (last as u128 + 1)) >> 64;
        permuted.swap(last, other as usize);
    }
    permuted
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn sampler(length: u32, seed: u64) -> Sampler {
        Sampler::new((0..length).map(|i| i * 3).collect(), Order::Labelled, seed).expect("not empty")
    }

    proptest! {
        #[test]
        fn an_epoch_holds_every_image_once(length in 1u32..50, batch in 1usize..40, seed: u64, from in 0u64..5) {
            let mut sampler = sampler(length, seed);
            let mut epochs: std::collections::BTreeMap<u64, Vec<u32>> = Default::default();
            for step in 0..20 {
                for pick in sampler.batch(from + step, batch) {
                    epochs.entry(pick.epoch).or_default().push(pick.index);
                }
            }
            let whole = epochs.len();
            for (place, picks) in epochs.into_values().enumerate() {
                prop_assert_eq!(picks.iter().collect::<HashSet<_>>().len(), picks.len());
                prop_assert!(place == 0 || place + 1 == whole || picks.len() == length as usize);
            }
        }

        #[test]
        fn groups_come_equally_often(lengths in prop::collection::vec(0u32..20, 1..6), rounds in 1u64..40, seed: u64) {
            prop_assume!(lengths.iter().any(|length| *length > 0));
            let groups: Vec<Vec<u32>> =
                (0u32..).zip(&lengths).map(|(group, length)| (0..*length).map(|i| group * 100 + i).collect()).collect();
            let filled = lengths.iter().filter(|length| **length > 0).count();
            let mut sampler = Sampler::balanced(groups, Order::Labelled, seed).expect("not empty");
            let mut counts: std::collections::BTreeMap<u32, u64> = Default::default();
            for round in 0..rounds {
                let picks = sampler.at(round * filled as u64, filled);
                let seen: HashSet<u32> = picks.iter().map(|pick| pick.index / 100).collect();
                prop_assert_eq!(seen.len(), filled, "one of each group");
                picks.iter().for_each(|pick| *counts.entry(pick.index).or_default() += 1);
            }
            // Within a group, no image is ahead of another by more than one.
            for (group, length) in (0u32..).zip(&lengths) {
                let own = || (0..*length).map(|i| counts.get(&(group * 100 + i)).copied().unwrap_or(0));
                prop_assert!(own().max().unwrap_or(0) - own().min().unwrap_or(0) <= 1);
            }
        }

        #[test]
        fn any_step_can_be_asked_at_any_time(length in 1u32..50, batch in 1usize..20, seed: u64, steps in prop::collection::vec(0u64..30, 1..20)) {
            let mut jumping = sampler(length, seed);
            for step in steps {
                prop_assert_eq!(jumping.batch(step, batch), sampler(length, seed).batch(step, batch));
            }
        }

        #[test]
        fn ranks_share_one_sequence(length in 1u32..50, batch in 1usize..8, world in 1u32..6, step in 0u64..20, seed: u64) {
            let alone = sampler(length, seed).batch(step, batch * world as usize);
            let together: Vec<Pick> = (0..world)
                .flat_map(|rank| sampler(length, seed).for_rank(rank, world).expect("exists").batch(step, batch))
                .collect();
            prop_assert_eq!(together, alone);
        }
    }

    #[test]
    fn epochs_seeds_and_orders_differ() {
        let mut one = sampler(1000, 1);
        let first: Vec<u32> = one.batch(0, 1000).iter().map(|pick| pick.index).collect();
        let second: Vec<u32> = one.batch(1, 1000).iter().map(|pick| pick.index).collect();
        let other: Vec<u32> = sampler(1000, 2).batch(0, 1000).iter().map(|pick| pick.index).collect();
        let unlabelled = permutation(&one.cycles[0].indices, Order::Unlabelled, 1, [0; 3]);
        assert!(first != second && first != other && first != unlabelled && first != one.cycles[0].indices);
    }

    #[test]
    fn nothing_to_sample_is_an_error() {
        assert_eq!(
            Sampler::new(vec![], Order::Unlabelled, 0).expect_err("empty"),
            SamplerError::Empty { order: Order::Unlabelled }
        );
        assert!(matches!(sampler(3, 0).for_rank(2, 2), Err(SamplerError::Rank { rank: 2, world_size: 2 })));
    }
}
