//! Seconds that a sum over ranks takes on a network.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A class of links.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Link {
    /// α: seconds until a message's first byte arrives.
    pub latency: f64,
    /// β: bytes a second, in each direction.
    pub bandwidth: f64,
}

/// Nodes of equally many ranks; links within a node, and one link between nodes that the ranks of a node share.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Network {
    /// Ranks of a node.
    pub ranks_per_node: usize,
    /// Between two ranks of a node.
    pub within: Link,
    /// From a node to others, shared by its ranks.
    pub between: Link,
    /// Seconds to begin an operation: a kernel's launch, a thread's waking.
    pub call: f64,
}

/// The way a sum takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// One ring through all ranks.
    Ring,
    /// A binary tree over all ranks, up and down.
    Tree,
    /// Within nodes, then between nodes, then within nodes.
    Hierarchical,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ring => "ring",
            Self::Tree => "tree",
            Self::Hierarchical => "within nodes, between nodes, within nodes",
        })
    }
}

/// A measured sum over ranks: its bytes and its seconds.
pub type Sample = (f64, f64);

/// What the other samples say of one, and what was measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LeftOut {
    /// Where it was measured: bytes, or ranks.
    pub at: f64,
    /// Seconds.
    pub measured: f64,
    /// Seconds, predicted without this sample.
    pub predicted: f64,
}

impl LeftOut {
    /// Relative: 0.1 is a prediction of 10 % too many seconds.
    pub fn error(&self) -> f64 {
        self.predicted / self.measured - 1.0
    }
}

impl Link {
    /// A ring: `2 (n-1)` messages of `B / n` bytes, one after the other. `2 (n-1) α + 2 (n-1)/n · B/β`
    pub fn ring(&self, ranks: usize, bytes: f64) -> f64 {
        let (n, hops) = (ranks as f64, 2.0 * (ranks as f64 - 1.0));
        hops * self.latency + hops / n * bytes / self.bandwidth
    }

    /// A binary tree, up and down, in pieces that follow each other: `2 ⌈log₂ n⌉ α + 2 B/β`; nothing for one rank.
    pub fn tree(&self, ranks: usize, bytes: f64) -> f64 {
        if ranks < 2 {
            return 0.0;
        }
        2.0 * f64::from(ranks.next_power_of_two().ilog2()) * self.latency + 2.0 * bytes / self.bandwidth
    }

    /// α and β of a ring of `ranks`, such that the squares of the relative errors are least. Neither is below 0.
    ///
    /// `None` where samples of two sizes or more are missing, or larger ones take no longer.
    pub fn fit(ranks: usize, samples: &[Sample]) -> Option<Self> {
        let hops = 2.0 * (ranks as f64 - 1.0);
        // T ≈ α x + y / β, each row divided by its T.
        let (mut xx, mut xy, mut yy, mut x1, mut y1) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for &(bytes, seconds) in samples {
            let (x, y) = (hops / seconds, hops / ranks as f64 * bytes / seconds);
            xx += x * x;
            xy += x * y;
            yy += y * y;
            x1 += x;
            y1 += y;
        }
        let determinant = xx * yy - xy * xy;
        if ranks < 2 || determinant.is_nan() || determinant <= 1e-9 * xx * yy {
            return None;
        }
        let latency = (x1 * yy - y1 * xy) / determinant;
        let (latency, per_byte) =
            if latency < 0.0 { (0.0, y1 / yy) } else { (latency, (y1 * xx - x1 * xy) / determinant) };
        (per_byte > 0.0).then(|| Self { latency, bandwidth: 1.0 / per_byte })
    }

    /// Each sample, predicted from a fit of all others.
    pub fn leave_one_out(ranks: usize, samples: &[Sample]) -> Vec<LeftOut> {
        let without = |left_out: usize| -> Vec<Sample> {
            samples.iter().enumerate().filter(|(i, _)| *i != left_out).map(|(_, sample)| *sample).collect()
        };
        let predict = |(i, &(at, measured)): (usize, &Sample)| {
            let link = Self::fit(ranks, &without(i))?;
            Some(LeftOut { at, measured, predicted: link.ring(ranks, at) })
        };
        samples.iter().enumerate().filter_map(predict).collect()
    }
}

impl Network {
    /// All ranks alike.
    pub fn flat(link: Link) -> Self {
        Self { ranks_per_node: 1, within: link, between: link, call: 0.0 }
    }

    /// Seconds to sum `bytes` over `ranks`, on the best way.
    pub fn all_reduce(&self, ranks: usize, bytes: f64) -> (f64, Way) {
        if ranks < 2 {
            return (0.0, Way::Ring);
        }
        let (inside, nodes) = (ranks.min(self.ranks_per_node), ranks.div_ceil(self.ranks_per_node));
        // A ring or tree through all ranks is as slow as its slowest link.
        let link = if nodes == 1 { self.within } else { self.slowest() };
        let mut ways = vec![(link.ring(ranks, bytes), Way::Ring), (link.tree(ranks, bytes), Way::Tree)];
        if nodes > 1 && inside > 1 {
            // Each of a node's ranks sums its part of the bucket with its like of the other nodes; together these parts
            // are the whole bucket, and share the node's link.
            let outside = self.between.ring(nodes, bytes).min(self.between.tree(nodes, bytes));
            ways.push((self.within.ring(inside, bytes) + outside, Way::Hierarchical));
        }
        let (seconds, way) =
            ways.into_iter().min_by(|a, b| a.0.total_cmp(&b.0)).expect("a ring is always there");
        (self.call + seconds, way)
    }

    /// Seconds to show `bytes` of each rank to all: a ring of `n-1` messages, each of one rank's bytes.
    pub fn all_gather(&self, ranks: usize, bytes: f64) -> f64 {
        if ranks < 2 {
            return 0.0;
        }
        let link = if ranks <= self.ranks_per_node { self.within } else { self.slowest() };
        // As of a sum, there are trees for what is small.
        let (n, depth) = (ranks as f64, f64::from(ranks.next_power_of_two().ilog2()));
        self.call + link.latency * depth + (n - 1.0) * bytes / link.bandwidth
    }

    fn slowest(&self) -> Link {
        Link {
            latency: self.within.latency.max(self.between.latency),
            bandwidth: self.within.bandwidth.min(self.between.bandwidth),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn link() -> impl Strategy<Value = Link> {
        (1e-7..1e-3f64, 1e8..1e12f64).prop_map(|(latency, bandwidth)| Link { latency, bandwidth })
    }

    proptest! {
        #[test]
        fn more_bytes_or_slower_links_take_longer(
            within in link(), between in link(), ranks_per_node in 1usize..9, ranks in 2usize..1025, bytes in 1.0..1e9f64,
        ) {
            let network = Network { ranks_per_node, within, between, call: 1e-5 };
            let (seconds, _) = network.all_reduce(ranks, bytes);
            prop_assert!(seconds > 1e-5 && seconds.is_finite());
            prop_assert!(network.all_reduce(ranks, 2.0 * bytes).0 > seconds);
            let slow = |link: Link| Link { latency: 2.0 * link.latency, bandwidth: link.bandwidth / 2.0 };
            let slower = Network { within: slow(within), between: slow(between), ..network };
            let doubled = slower.all_reduce(ranks, bytes).0 - 1e-5;
            prop_assert!((doubled / (seconds - 1e-5) - 2.0).abs() < 1e-6);
            // No way moves the bucket through the slowest link it must pass in less time than a ring's share of it.
            let nodes = ranks.div_ceil(ranks_per_node) as f64;
            let least = if nodes > 1.0 { 2.0 * (nodes - 1.0) / nodes * bytes / between.bandwidth } else { 0.0 };
            prop_assert!(seconds > least);
        }

        #[test]
        fn what_a_line_made_a_line_finds(link in link(), ranks in 2usize..65) {
            let samples: Vec<Sample> =
                (12..28).map(|power| 2f64.powi(power)).map(|bytes| (bytes, link.ring(ranks, bytes))).collect();
            let found = Link::fit(ranks, &samples).expect("sizes differ");
            prop_assert!((found.latency / link.latency - 1.0).abs() < 1e-3, "{found:?}");
            prop_assert!((found.bandwidth / link.bandwidth - 1.0).abs() < 1e-3, "{found:?}");
            for left_out in Link::leave_one_out(ranks, &samples) {
                prop_assert!(left_out.error().abs() < 1e-3);
            }
        }
    }

    #[test]
    fn costs_are_those_of_the_formulas() {
        let link = Link { latency: 1.0, bandwidth: 10.0 };
        assert_eq!(link.ring(4, 100.0), 6.0 + 1.5 * 10.0);
        assert_eq!(link.tree(5, 100.0), 6.0 + 2.0 * 10.0);
        let network = Network {
            ranks_per_node: 4,
            within: Link { latency: 0.0, bandwidth: 1e9 },
            ..Network::flat(link)
        };
        let (seconds, way) = network.all_reduce(16, 100.0);
        assert_eq!(way, Way::Hierarchical);
        assert!(
            (seconds - (6.0 + 1.5 * 10.0)).abs() < 1e-6,
            "four nodes, not sixteen ranks, are in the slow ring"
        );
        assert_eq!(network.all_reduce(1, 100.0).0, 0.0);
    }

    #[test]
    fn nothing_can_be_said_of_one_size() {
        assert_eq!(Link::fit(2, &[(8.0, 1.0), (8.0, 1.1)]), None);
        assert_eq!(Link::fit(2, &[]), None);
        assert_eq!(Link::fit(1, &[(8.0, 1.0), (16.0, 2.0)]), None);
        assert_eq!(Link::fit(2, &[(8.0, 1.0), (1e9, 0.5)]), None, "more bytes in less time");
        let through_zero = Link::fit(2, &[(1.0, 1.0), (2.0, 3.0)]).expect("sizes differ");
        assert_eq!(through_zero.latency, 0.0, "no message arrives before it is sent");
    }
}
