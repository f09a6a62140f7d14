//! Several buffers, cut into pieces of all of them together: the pool wakes up once however many there are.

use rayon::prelude::*;

/// Where a buffer is cut: at multiples of a cache line.
const UNIT: usize = 16;

/// Something as long as a buffer that can be cut in two.
pub(super) trait Cut: Sized {
    fn length(&self) -> usize;

    /// The first `at` values and the others.
    fn cut(self, at: usize) -> (Self, Self);
}

impl Cut for &[f32] {
    fn length(&self) -> usize {
        self.len()
    }

    fn cut(self, at: usize) -> (Self, Self) {
        self.split_at(at)
    }
}

/// Pieces of about `size` values, each one or more parts of buffers, in the order of the buffers.
///
/// They depend on the lengths alone, not on the number of threads.
pub(super) fn pieces<T: Cut>(buffers: impl IntoIterator<Item = T>, size: usize) -> Vec<Vec<T>> {
    let (mut pieces, mut piece, mut room) = (Vec::new(), Vec::new(), size);
    for mut buffer in buffers {
        while buffer.length() > room.next_multiple_of(UNIT) {
            let (part, rest) = buffer.cut(room.next_multiple_of(UNIT));
            piece.push(part);
            pieces.push(std::mem::take(&mut piece));
            (buffer, room) = (rest, size);
        }
        room = room.saturating_sub(buffer.length());
        piece.push(buffer);
        if room == 0 {
            pieces.push(std::mem::take(&mut piece));
            room = size;
        }
    }
    if !piece.is_empty() {
        pieces.push(piece);
    }
    pieces
}

/// What `work` makes of each piece, in order; without the pool if there is one piece only.
pub(super) fn of_each<T: Send, R: Send>(pieces: Vec<T>, work: impl Fn(T) -> R + Send + Sync) -> Vec<R> {
    if pieces.len() == 1 {
        pieces.into_iter().map(work).collect()
    } else {
        pieces.into_par_iter().map(work).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pieces_hold_all_values_in_order_and_are_about_equal(
            lengths in prop::collection::vec(0usize..300, 0..30),
            units in 1usize..6,
        ) {
            let size = units * UNIT;
            let mut next = 0.0;
            let mut filled = |length| (0..length).map(|_| { next += 1.0; next }).collect::<Vec<f32>>();
            let buffers: Vec<Vec<f32>> = lengths.iter().map(|length| filled(*length)).collect();
            let pieces = pieces(buffers.iter().map(Vec::as_slice), size);
            let parts: Vec<f32> = pieces.iter().flatten().flat_map(|part| part.iter().copied()).collect();
            prop_assert_eq!(parts, buffers.concat());
            for (number, piece) in pieces.iter().enumerate() {
                let length: usize = piece.iter().map(|part| part.len()).sum();
                prop_assert!(length < size + UNIT);
                prop_assert!(length >= size || number + 1 == pieces.len());
            }
        }
    }
}
