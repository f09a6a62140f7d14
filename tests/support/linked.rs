//! Ranks as threads of one process, as the algorithms see them.

use std::sync::Arc;

use harvest::training::Crew;
use harvest_collectives::Threads;

/// As many ranks as asked for, each linked to all.
pub fn ring(world: usize) -> Vec<Crew> {
    // Only how rows are shown matters here, not how a batch is divided: one image for each.
    let crew = |rank| Crew::new(Arc::new(rank), world).expect("a row for each");
    Threads::ring(world).into_iter().map(crew).collect()
}

/// A rank's part of `count` rows or values.
#[allow(dead_code, reason = "not every test program divides rows itself")]
pub fn share(count: usize, ranks: &Crew) -> std::ops::Range<usize> {
    let part = count / ranks.world_size();
    assert_eq!(part * ranks.world_size(), count, "ranks get equal parts");
    ranks.rank() * part..(ranks.rank() + 1) * part
}
