//! Where the rows of one rank lie in a step of all ranks.

use std::ops::Range;

/// The place of a rank's rows of one kind among those of all ranks.
///
/// Whatever is drawn for each row (stochastic depth, blends, turns) is drawn by the row's number in the joined batch, so
/// that ranks together draw what one rank with the whole batch draws.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Number of the first.
    pub start: usize,
    /// How many all ranks have.
    pub of: usize,
}

impl Place {
    /// That of `rows` rows which are all there are.
    pub fn whole(rows: usize) -> Self {
        Self { start: 0, of: rows }
    }

    /// That of the rows `rows` of `of`.
    pub fn of(rows: &Range<usize>, of: usize) -> Self {
        Self { start: rows.start, of }
    }
}

/// Places of the images of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Places {
    /// Of the labelled ones.
    pub labelled: Place,
    /// Of the unlabelled ones; the same for each of their views.
    pub unlabelled: Place,
}

impl Places {
    /// Those of a step that is all on one rank.
    pub fn whole(labelled: usize, unlabelled: usize) -> Self {
        Self { labelled: Place::whole(labelled), unlabelled: Place::whole(unlabelled) }
    }
}
