//! project (being written).
