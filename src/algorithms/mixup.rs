//! mixup: pairs of images, and their targets, blended.
//!
//! Zhang et al., ICLR 2018, arXiv:1710.09412. One weight `λ ~ Beta(α, α)` a step, taken as `max(λ, 1-λ)` so that a blend
//! stays nearer to its own row than to its partner (Berthelot et al., arXiv:1905.02249, eq. 11).

use burn::tensor::{Int, Tensor};
use rand::seq::SliceRandom;
use rand_distr::{Beta, Distribution};

use crate::random::{Purpose, stream};

/// How the rows of one step are blended.
#[derive(Debug, Clone, PartialEq)]
pub struct Mix {
    /// Share of a row's own image, in [0.5, 1].
    pub lambda: f32,
    /// The other row of each row: a permutation of `0..N`.
    pub partners: Vec<i32>,
}

/// What a step's blend is drawn by: the step's number and the number of rows.
pub type DrawMix = Box<dyn Fn(u64, usize) -> Mix + Send>;

impl Mix {
    /// Draws from the stream of `seed` and step; `alpha` is above 0. Ranks draw alike, each for its own rows.
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

    /// `λ x + (1-λ) x[partners]`, rows along the first axis.
    pub fn apply<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let partners = Tensor::<1, Int>::from_data(self.partners.as_slice(), &x.device());
        let other = x.clone().select(0, partners);
        x.mul_scalar(self.lambda) + other.mul_scalar(1.0 - self.lambda)
    }
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
