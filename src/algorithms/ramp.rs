//! Weights that grow over the first part of a run.

use super::SslBatch;

/// How much of an unlabelled loss counts at this step: from 0 at the first step linearly to 1 once the share `warm_up` of
/// the run is over; 1 throughout where `warm_up` is 0.
pub fn linear(batch: &SslBatch, warm_up: f32) -> f32 {
    factor(batch.step, batch.total_steps, warm_up)
}

fn factor(step: u64, total_steps: u64, warm_up: f32) -> f32 {
    let length = f64::from(warm_up) * total_steps as f64;
    if length <= 0.0 {
        return 1.0;
    }
    (step as f64 / length).clamp(0.0, 1.0) as f32
}

#[cfg(test)]
mod tests {
    use super::factor;

    #[test]
    fn grows_to_one_and_stays() {
        assert_eq!(factor(0, 100, 0.5), 0.0);
        assert_eq!(factor(25, 100, 0.5), 0.5);
        assert_eq!(factor(99, 100, 0.5), 1.0);
    }

    #[test]
    fn without_warm_up_or_steps_everything_counts() {
        assert_eq!(factor(0, 100, 0.0), 1.0);
        assert_eq!(factor(0, 0, 0.4), 1.0);
    }
}
