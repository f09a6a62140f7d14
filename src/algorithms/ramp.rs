//! Weights that grow over the first part of a run.

use serde::{Deserialize, Serialize};

use super::SslBatch;

/// How a weight grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ramp {
    /// `exp(-5 (1 - x)²)`, from 0.0067 on: Laine and Aila, ICLR 2017, arXiv:1610.02242, section 2.
    #[default]
    Sigmoid,
    /// `x`.
    Linear,
}

/// How much of an unlabelled loss counts at this step: from 0 at the first step linearly to 1 once the share `warm_up` of
/// the run is over; 1 throughout where `warm_up` is 0.
pub fn linear(batch: &SslBatch, warm_up: f32) -> f32 {
    of(Ramp::Linear, batch, warm_up)
}

/// As [`linear`], along another curve.
pub fn of(ramp: Ramp, batch: &SslBatch, warm_up: f32) -> f32 {
    factor(ramp, batch.step, batch.total_steps, warm_up)
}

fn factor(ramp: Ramp, step: u64, total_steps: u64, warm_up: f32) -> f32 {
    let length = f64::from(warm_up) * total_steps as f64;
    if length <= 0.0 {
        return 1.0;
    }
    let x = (step as f64 / length).clamp(0.0, 1.0);
    match ramp {
        Ramp::Linear => x as f32,
        Ramp::Sigmoid => (-5.0 * (1.0 - x).powi(2)).exp() as f32,
    }
}

#[cfg(test)]
mod tests {
    use super::{Ramp, factor};

    #[test]
    fn grows_to_one_and_stays() {
        for (ramp, first, half) in
            [(Ramp::Linear, 0.0, 0.5), (Ramp::Sigmoid, (-5f32).exp(), (-1.25f32).exp())]
        {
            assert_eq!(factor(ramp, 0, 100, 0.5), first);
            assert_eq!(factor(ramp, 25, 100, 0.5), half);
            assert_eq!(factor(ramp, 99, 100, 0.5), 1.0);
        }
    }

    #[test]
    fn without_warm_up_or_steps_everything_counts() {
        assert_eq!(factor(Ramp::Linear, 0, 100, 0.0), 1.0);
        assert_eq!(factor(Ramp::Sigmoid, 0, 0, 0.4), 1.0);
    }
}
