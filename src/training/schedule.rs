//! The learning rate over time.

/// Linear warm-up, then part of a cosine: the rate ends at `cos(7π/16) ≈ 0.195` of its peak (FixMatch, section 2.4 of
/// arXiv:2001.07685).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CosineWithWarmup {
    /// Rate after warm-up.
    pub peak: f64,
    /// Steps of the whole run.
    pub total_steps: u64,
    /// Steps of warm-up; during step 0 of it the rate is 0.
    pub warmup_steps: u64,
    /// Half cosines from the peak to the end; FixMatch's is 7/16.
    pub cycles: f64,
}

/// FixMatch's share of a cosine.
pub const FIXMATCH_CYCLES: f64 = 7.0 / 16.0;

impl CosineWithWarmup {
    /// The rate of update `step`, counted from 0.
    pub fn rate(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            return self.peak * step as f64 / self.warmup_steps as f64;
        }
        let span = self.total_steps.saturating_sub(self.warmup_steps).max(1);
        let progress = (step - self.warmup_steps) as f64 / span as f64;
        self.peak * (std::f64::consts::PI * self.cycles * progress).cos().max(0.0)
    }
}

/// Linear warm-up, then half a cosine down to 0, as in SimCLR (arXiv:2002.05709, section 2.2).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HalfCosine {
    /// Rate after warm-up.
    pub peak: f64,
    /// Steps of the whole run.
    pub total_steps: u64,
    /// Steps of warm-up; the first of them has a rate above 0 already.
    pub warmup_steps: u64,
}

impl HalfCosine {
    /// The rate of update `step`, counted from 0.
    pub fn rate(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            return self.peak * (step + 1) as f64 / self.warmup_steps as f64;
        }
        let span = self.total_steps.saturating_sub(self.warmup_steps).max(1);
        let progress = ((step - self.warmup_steps) as f64 / span as f64).min(1.0);
        self.peak * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_cosine_rises_and_ends_at_nothing() {
        let schedule = HalfCosine { peak: 2.0, total_steps: 14, warmup_steps: 4 };
        let rates: Vec<f64> = (0..=14).map(|step| schedule.rate(step)).collect();
        assert_eq!(&rates[..5], &[0.5, 1.0, 1.5, 2.0, 2.0]);
        assert!((rates[9] - 1.0).abs() < 1e-12 && rates[14].abs() < 1e-12);
        assert!(rates[4..].is_sorted_by(|a, b| a > b));
    }
}
