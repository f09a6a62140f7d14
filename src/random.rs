//! One seed, many independent streams.
//!
//! Every random decision names what it is for: the stream of (seed, purpose, epoch, image, view) is a ChaCha8
//! generator of its own, so results depend neither on the number of threads nor on the order of work.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// What a stream of randomness is used for; part of its key, so no two uses share draws.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Purpose {
    /// Weights at the start of training.
    Initialisation = 1,
    /// Which images are labelled, evaluated on, tested on.
    Split = 2,
    /// Order of the labelled images in an epoch.
    LabelledOrder = 3,
    /// Order of the unlabelled images in an epoch.
    UnlabelledOrder = 4,
    /// Augmentation of one view of one image.
    View = 5,
    /// Stochastic depth and other noise inside the network.
    Network = 6,
    /// Generated pictures of the demo.
    Demo = 7,
    /// Which images of a step are blended, and how much.
    Mix = 8,
    /// Quarter turns of a pretext task.
    Turn = 9,
    /// Where clusters begin.
    Cluster = 10,
    /// Which images to label next.
    Select = 11,
}

/// The stream for `purpose` and up to three further coordinates, such as epoch, image and view.
pub fn stream(seed: u64, purpose: Purpose, coordinates: [u64; 3]) -> ChaCha8Rng {
    let mut key = [0u8; 32];
    // The seed and the purpose share a word each with nothing else; mixing keeps nearby seeds unrelated anyway,
    // because ChaCha's key schedule is a full mix.
    for (chunk, word) in key.chunks_exact_mut(8).zip([
        seed,
        (purpose as u64) << 56 | coordinates[2],
        coordinates[0],
        coordinates[1],
    ]) {
        chunk.copy_from_slice(&word.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::RngExt;

    #[test]
    fn streams_repeat_and_differ_in_every_coordinate() {
        let first = |rng: &mut ChaCha8Rng| rng.random::<u64>();
        let base = first(&mut stream(1, Purpose::View, [2, 3, 4]));
        assert_eq!(base, first(&mut stream(1, Purpose::View, [2, 3, 4])));
        for other in [
            stream(2, Purpose::View, [2, 3, 4]),
            stream(1, Purpose::Split, [2, 3, 4]),
            stream(1, Purpose::View, [9, 3, 4]),
            stream(1, Purpose::View, [2, 9, 4]),
            stream(1, Purpose::View, [2, 3, 9]),
        ] {
            assert_ne!(base, first(&mut { other }));
        }
    }
}
