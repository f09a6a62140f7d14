//! Checks of single values, with messages that say what would be right.

/// A value that makes no sense: the key and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{key}` {reason}")]
pub struct Invalid {
    /// Full name.
    pub key: &'static str,
    /// What is wrong with it, and what would be right.
    pub reason: String,
}

/// Refuses 0.
pub fn at_least_one(key: &'static str, value: u32) -> Result<(), Invalid> {
    let reason = || "is 0; it must be 1 or more".to_string();
    if value > 0 { Ok(()) } else { Err(Invalid { key, reason: reason() }) }
}

/// Lower end of a range.
#[derive(Debug, Clone, Copy)]
pub enum Lower {
    /// Included.
    From(f64),
    /// Excluded.
    Above(f64),
}

/// Upper end of a range.
#[derive(Debug, Clone, Copy)]
pub enum Upper {
    /// Included.
    Upto(f64),
    /// Excluded.
    Below(f64),
}

/// Refuses a value outside the range.
pub fn range(key: &'static str, value: f64, lower: Lower, upper: Upper) -> Result<(), Invalid> {
    let (low_enough, low) = match lower {
        Lower::From(low) => (value >= low, format!("{low} or more")),
        Lower::Above(low) => (value > low, format!("more than {low}")),
    };
    let (high_enough, high) = match upper {
        Upper::Upto(f64::MAX) => (true, String::new()),
        Upper::Upto(high) => (value <= high, format!(" and {high} or less")),
        Upper::Below(high) => (value < high, format!(" and less than {high}")),
    };
    if low_enough && high_enough {
        return Ok(());
    }
    Err(Invalid { key, reason: format!("is {value}; it must be {low}{high}") })
}
