//! Ranks as threads of one process that show each other rows through channels.

use std::sync::mpsc::{Receiver, Sender, channel};

use burn::tensor::{Tensor, TensorData};
use harvest::algorithms::Ranks;

/// One rank of several in a process. A rank that panics closes its channels, which ends the others too.
pub struct Linked {
    pub rank: usize,
    /// To every rank, in order.
    to: Vec<Sender<TensorData>>,
    /// From every rank, in order.
    from: Vec<Receiver<TensorData>>,
}

impl Linked {
    /// As many ranks as asked for, each linked to all.
    pub fn ring(world: usize) -> Vec<Self> {
        let mut ranks: Vec<_> =
            (0..world).map(|rank| Self { rank, to: Vec::new(), from: Vec::new() }).collect();
        for source in 0..world {
            for target in 0..world {
                let (sender, receiver) = channel();
                ranks[source].to.push(sender);
                ranks[target].from.push(receiver);
            }
        }
        ranks
    }
}

impl Ranks for Linked {
    fn world_size(&self) -> usize {
        self.to.len()
    }

    fn rank(&self) -> usize {
        self.rank
    }

    fn gather(&self, rows: Tensor<2>) -> Tensor<2> {
        let device = rows.device();
        let data = rows.into_data();
        for to in &self.to {
            to.send(data.clone()).expect("all ranks listen");
        }
        let all = self.from.iter().map(|from| from.recv().expect("all ranks speak"));
        Tensor::cat(all.map(|data| Tensor::from_data(data, &device)).collect(), 0)
    }
}

/// A rank's part of `count` rows or values.
#[allow(dead_code, reason = "not every test program divides rows itself")]
pub fn share(count: usize, ranks: &Linked) -> std::ops::Range<usize> {
    let part = count / ranks.world_size();
    assert_eq!(part * ranks.world_size(), count, "ranks get equal parts");
    ranks.rank * part..(ranks.rank + 1) * part
}
