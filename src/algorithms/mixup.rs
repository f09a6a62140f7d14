//! mixup: pairs of images, and their targets, blended.
//!
//! Zhang et al., ICLR 2018, arXiv:1710.09412. One weight `λ ~ Beta(α, α)` a step, taken as `max(λ, 1-λ)` so that a blend
//! stays nearer to its own row than to its partner (Berthelot et al., arXiv:1905.02249, eq. 11).

use burn::tensor::{Int, Tensor};
use rand::seq::SliceRandom;
use rand_distr::{Beta, Distribution};

use super::{Place, Ranks};
use crate::random::{Purpose, stream};

/// How the rows of one step are blended, those of all ranks.
#[derive(Debug, Clone, PartialEq)]
pub struct Mix {
    /// Share of a row's own image, in [0.5, 1].
    pub lambda: f32,
    /// The other row of each row: a permutation of `0..N`.
    pub partners: Vec<i32>,
}

/// What a step's blend is drawn by: the step's number and the number of rows over all ranks.
pub type DrawMix = Box<dyn Fn(u64, usize) -> Mix + Send>;

impl Mix {
    /// Draws from the stream of `seed` and step; `alpha` is above 0. All ranks draw the same.
    pub fn by_seed(seed: u64, alpha: f32) -> DrawMix {
        Box::new(move |step, rows| {
            let mut rng = stream(seed, Purpose::Mix, [step, 0, 0]);
            // Refuses only what `check` of a configuration has refused before.
            let share = Beta::new(alpha, alpha).map_or(1.0, |beta| beta.sample(&mut rng));
            let mut partners: Vec<i32> = (0..rows as i32).collect();
            partners.shuffle(&mut rng);
            Self { lambda: share.max(1.0 - share), partners }
        })
    }

    /// This rank's rows of `λ x + (1-λ) x[partners]`, where `x` are the `parts` one behind the other, rows along the first axis.
    ///
    /// A part holds this rank's rows of one kind and their place among those of all ranks. Partners may be any rank's, so
    /// ranks show each other their rows.
    pub fn apply<const D: usize>(&self, parts: Vec<(Tensor<D>, Place)>, ranks: &dyn Ranks) -> Tensor<D> {
        let (mut before, mut partners) = (0, Vec::new());
        for (rows, place) in &parts {
            let first = before + place.start;
            partners.extend_from_slice(&self.partners[first..first + rows.dims()[0]]);
            before += place.of;
        }
        let (own, all) = joined(parts.into_iter().map(|(rows, _)| rows).collect(), ranks);
        let partners = Tensor::<1, Int>::from_data(partners.as_slice(), &all.device());
        let other = all.select(0, partners).reshape(own.dims());
        own.mul_scalar(self.lambda) + other.mul_scalar(1.0 - self.lambda)
    }
}

/// The parts one behind the other, and those of all ranks, flattened to `[N, ..]`.
fn joined<const D: usize>(parts: Vec<Tensor<D>>, ranks: &dyn Ranks) -> (Tensor<D>, Tensor<2>) {
    let flat = |rows: Tensor<D>| {
        let count = rows.dims()[0];
        let width = rows.dims()[1..].iter().product::<usize>();
        rows.reshape([count, width])
    };
    let all = parts.iter().map(|part| ranks.gather(flat(part.clone()))).collect();
    (Tensor::cat(parts, 0), Tensor::cat(all, 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_draw_is_a_permutation_near_its_own_rows(seed: u64, step in 0u64..1000, rows in 1usize..50, alpha in 0.01f32..10.0) {
            let mix = Mix::by_seed(seed, alpha)(step, rows);
            prop_assert!((0.5..=1.0).contains(&mix.lambda));
            prop_assert_eq!(&mix, &Mix::by_seed(seed, alpha)(step, rows));
            let mut sorted = mix.partners;
            sorted.sort_unstable();
            prop_assert!(sorted.into_iter().eq(0..rows as i32));
        }
    }
}
