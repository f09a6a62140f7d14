//! Seconds of one step on several ranks, simulated bucket by bucket.

use super::Network;

/// What a step is made of on one rank.
#[derive(Debug, Clone, PartialEq)]
pub struct StepProfile {
    /// Seconds before the backward pass.
    pub forward: f64,
    /// The backward pass, in its order.
    pub backward: Vec<Stage>,
    /// Seconds of the optimizer.
    pub optimizer: f64,
    /// Bytes of each rank that all ranks are shown in the course of the forward pass, which waits for it: the
    /// algorithm's statistics.
    pub gathers: Vec<f64>,
    /// Standard deviation of a rank's computing time from step to step, as a share of it.
    pub jitter: f64,
    /// Share of its speed that the backward pass loses while a bucket travels.
    pub interference: f64,
}

/// A part of the backward pass.
#[derive(Debug, Clone, PartialEq)]
pub struct Stage {
    /// Seconds it takes.
    pub seconds: f64,
    /// Bytes of each bucket that is complete at its end.
    pub buckets: Vec<f64>,
}

/// Where the time of a step goes, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Timeline {
    /// Forward, backward and optimizer, as if alone.
    pub computing: f64,
    /// Statistics gathered.
    pub gathering: f64,
    /// What travelling buckets cost the backward pass.
    pub slowed: f64,
    /// All sums, hidden or not.
    pub reducing: f64,
    /// Sums after the backward pass has ended.
    pub exposed: f64,
    /// For the slowest rank.
    pub waiting: f64,
}

impl Timeline {
    /// The whole step.
    pub fn seconds(&self) -> f64 {
        self.computing + self.gathering + self.slowed + self.exposed + self.waiting
    }

    /// Share of the sums' time that the backward pass hid; 1 where there are none.
    pub fn hidden(&self) -> f64 {
        if self.reducing > 0.0 { (1.0 - self.exposed / self.reducing).max(0.0) } else { 1.0 }
    }
}

impl StepProfile {
    /// Seconds on one rank.
    pub fn computing(&self) -> f64 {
        self.forward + self.backward.iter().map(|stage| stage.seconds).sum::<f64>() + self.optimizer
    }

    /// The step on `ranks`. A bucket starts when it is complete and the one before it has arrived.
    pub fn on(&self, network: &Network, ranks: usize) -> Timeline {
        let mut timeline = Timeline { computing: self.computing(), ..Timeline::default() };
        if ranks < 2 {
            return timeline;
        }
        timeline.gathering = self.gathers.iter().map(|bytes| network.all_gather(ranks, *bytes)).sum();
        // The clocks of the backward pass and of the link.
        let (mut now, mut free) = (0.0f64, 0.0f64);
        for stage in &self.backward {
            let busy = (free - now).max(0.0);
            // While the link is busy, work goes on at a lesser speed.
            let slowed =
                (stage.seconds * self.interference / (1.0 - self.interference)).min(busy * self.interference);
            now += stage.seconds + slowed;
            timeline.slowed += slowed;
            for &bytes in &stage.buckets {
                let (seconds, _) = network.all_reduce(ranks, bytes);
                free = free.max(now) + seconds;
                timeline.reducing += seconds;
            }
        }
        timeline.exposed = (free - now).max(0.0);
        timeline.waiting = self.jitter * timeline.computing * slowest_of(ranks);
        timeline
    }
}

/// How many standard deviations the largest of `count` normal variables is above their mean, on average.
///
/// `∫ x d(Φ(x)^n)`, summed over cells so narrow that four digits are right.
pub fn slowest_of(count: usize) -> f64 {
    const CELL: f64 = 1.0 / 256.0;
    const END: i32 = 8 * 256;
    let density = |x: f64| (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
    let (mut below, mut mean) = (0.0f64, 0.0);
    for cell in -END..END {
        let middle = (f64::from(cell) + 0.5) * CELL;
        let above = below + density(middle) * CELL;
        mean += middle * (above.powf(count as f64) - below.powf(count as f64));
        below = above;
    }
    mean
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Link;
    use super::*;

    fn profile(stages: &[(f64, Vec<f64>)]) -> StepProfile {
        StepProfile {
            forward: 10.0,
            backward: stages
                .iter()
                .map(|(seconds, buckets)| Stage { seconds: *seconds, buckets: buckets.clone() })
                .collect(),
            optimizer: 1.0,
            gathers: Vec::new(),
            jitter: 0.0,
            interference: 0.0,
        }
    }

    /// On two ranks a byte takes a second.
    fn network() -> Network {
        Network::flat(Link { latency: 0.0, bandwidth: 1.0 })
    }

    #[test]
    fn buckets_hide_behind_the_stages_that_follow() {
        // Complete after 4 s, arrives at 7 s; the next is complete at 8 s and stands alone.
        let two = profile(&[(4.0, vec![3.0]), (4.0, vec![2.0])]).on(&network(), 2);
        assert_eq!((two.computing, two.reducing, two.exposed), (19.0, 5.0, 2.0));
        assert_eq!((two.seconds(), two.hidden()), (21.0, 0.6));
        // The second waits for the first.
        assert_eq!(profile(&[(4.0, vec![4.0, 5.0]), (4.0, vec![2.0])]).on(&network(), 2).exposed, 7.0);
        // In the 3 s in which the bucket travels the backward pass does the work of 1.5.
        let slow = StepProfile { interference: 0.5, ..profile(&[(4.0, vec![3.0]), (4.0, vec![])]) };
        assert_eq!(slow.on(&network(), 2).slowed, 1.5);
        assert_eq!(slow.on(&network(), 1).seconds(), 19.0);
    }

    #[test]
    fn the_slowest_of_few_is_known() {
        // Means of the largest of 1, 2, 3, 16 normal variables: 0, 1/√π, 3/(2√π), and a table's value.
        let root = std::f64::consts::PI.sqrt();
        for (count, mean) in [(1, 0.0), (2, 1.0 / root), (3, 1.5 / root), (16, 1.76599)] {
            assert!((slowest_of(count) - mean).abs() < 1e-3, "{count}: {}", slowest_of(count));
        }
    }

    proptest! {
        #[test]
        fn a_step_lies_between_all_hidden_and_none(
            stages in proptest::collection::vec((0.01..5.0f64, proptest::collection::vec(0.1..5.0f64, 0..3)), 1..12), ranks in 2usize..65,
            jitter in 0.0..0.1f64, interference in 0.0..0.9f64,
        ) {
            let profile = StepProfile { jitter, interference, gathers: vec![0.1], ..profile(&stages) };
            let network = network();
            let step = profile.on(&network, ranks);
            let sum = |buckets: &Vec<f64>| buckets.iter().map(|&bytes| network.all_reduce(ranks, bytes).0).sum::<f64>();
            let sums: f64 = stages.iter().map(|stage| sum(&stage.1)).sum();
            prop_assert!((step.reducing - sums).abs() < 1e-9);
            prop_assert!(step.exposed <= sums + 1e-9 && step.slowed <= interference * sums + 1e-9);
            let last = sum(&stages.last().expect("one or more").1);
            prop_assert!(step.exposed >= last - 1e-9, "the last buckets hide behind nothing");
            prop_assert!((0.0..=1.0 + 1e-9).contains(&step.hidden()));
            prop_assert!(step.seconds() > profile.computing());
            prop_assert_eq!(profile.on(&network, 1).seconds(), profile.computing());
        }
    }
}
