//! The classes of a project: names with a meaning to their order.

use serde::{Deserialize, Serialize};

/// What kind of question the classes answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ClassKind {
    /// One of several names without order.
    Categorical,
    /// One of two.
    Binary,
    /// A share from 0 to 100 %, cut into `bins` equal bins, in order.
    Percentage {
        /// From 2 to 100.
        bins: u16,
    },
}

impl ClassKind {
    /// Whether a class lies between its neighbours: a near miss is better than a far one.
    pub fn is_ordered(self) -> bool {
        matches!(self, Self::Percentage { .. })
    }
}

/// Checked class names; class `i` of every label and model output is `names()[i]`.
///
/// In files: `names = ["rust", "healthy"]`, `kind = "categorical"`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct Classes {
    names: Vec<String>,
    kind: ClassKind,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Unchecked {
    #[serde(default)]
    names: Vec<String>,
    #[serde(default = "categorical")]
    kind: ClassKind,
}

fn categorical() -> ClassKind {
    ClassKind::Categorical
}

impl TryFrom<Unchecked> for Classes {
    type Error = ClassesError;

    fn try_from(unchecked: Unchecked) -> Result<Self, ClassesError> {
        match unchecked.kind {
            ClassKind::Percentage { bins } if unchecked.names.is_empty() => Self::percentage(bins),
            kind => Self::new(unchecked.names, kind),
        }
    }
}

/// What is wrong with a list of classes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClassesError {
    /// Fewer than two.
    #[error("{found} classes are given, at least 2 are needed")]
    TooFew {
        /// How many there are.
        found: usize,
    },
    /// More than a label can count.
    #[error("{found} classes are given, at most 65535 are possible")]
    TooMany {
        /// How many there are.
        found: usize,
    },
    /// A name of nothing but blanks.
    #[error("class {position} has an empty name; give it one")]
    EmptyName {
        /// Counted from 1.
        position: usize,
    },
    /// The same name twice.
    #[error("the class name `{name}` is given twice; every class needs a name of its own")]
    Duplicate {
        /// The name.
        name: String,
    },
    /// A binary task with another number of classes.
    #[error(
        "a binary task has exactly 2 classes, {found} are given; add or remove some, or make it categorical"
    )]
    BinaryNeedsTwo {
        /// How many there are.
        found: usize,
    },
    /// Bins out of range, or names that do not count as many.
    #[error(
        "percentage classes need 2 to 100 bins and a name for each; {bins} bins and {names} names are given"
    )]
    Bins {
        /// Bins asked for.
        bins: u16,
        /// Names given.
        names: usize,
    },
}

impl Classes {
    /// Checks names given by people; blanks around them are removed.
    ///
    /// # Errors
    /// See [`ClassesError`].
    pub fn new(names: Vec<String>, kind: ClassKind) -> Result<Self, ClassesError> {
        let names: Vec<String> = names.into_iter().map(|name| name.trim().to_owned()).collect();
        if let ClassKind::Percentage { bins } = kind
            && (usize::from(bins) != names.len() || !(2..=100).contains(&bins))
        {
            return Err(ClassesError::Bins { bins, names: names.len() });
        }
        if kind == ClassKind::Binary && names.len() != 2 {
            return Err(ClassesError::BinaryNeedsTwo { found: names.len() });
        }
        if names.len() < 2 {
            return Err(ClassesError::TooFew { found: names.len() });
        }
        if names.len() > usize::from(u16::MAX) {
            return Err(ClassesError::TooMany { found: names.len() });
        }
        if let Some(position) = names.iter().position(String::is_empty) {
            return Err(ClassesError::EmptyName { position: position + 1 });
        }
        let mut seen = std::collections::HashSet::new();
        if let Some(name) = names.iter().find(|name| !seen.insert(name.as_str())) {
            return Err(ClassesError::Duplicate { name: name.clone() });
        }
        Ok(Self { names, kind })
    }

    /// Names without order.
    ///
    /// # Errors
    /// See [`ClassesError`].
    pub fn categorical<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Result<Self, ClassesError> {
        Self::new(names.into_iter().map(Into::into).collect(), ClassKind::Categorical)
    }

    /// `bins` equal bins of 0 to 100 %, named "0-20 %", "20-40 %" and so on; edges are rounded to whole per cent.
    ///
    /// # Errors
    /// [`ClassesError::Bins`] unless `bins` is from 2 to 100.
    pub fn percentage(bins: u16) -> Result<Self, ClassesError> {
        let edge = |bin: u32| (bin * 200 / u32::from(bins.max(1))).div_ceil(2);
        let names = (0..u32::from(bins)).map(|bin| format!("{}-{} %", edge(bin), edge(bin + 1))).collect();
        Self::new(names, ClassKind::Percentage { bins })
    }

    /// The names, class 0 first.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// What kind of question they answer.
    pub fn kind(&self) -> ClassKind {
        self.kind
    }

    /// How many there are: 2 to 65535.
    #[expect(clippy::len_without_is_empty, reason = "there are never fewer than two")]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// The class that `text` names. For percentage bins a number does too: "37.5" or "37.5 %" is its bin; a number on
    /// an edge belongs to the bin above, 100 to the last.
    pub fn find(&self, text: &str) -> Option<u16> {
        let text = text.trim();
        if let Some(position) = self.names.iter().position(|name| name == text) {
            return u16::try_from(position).ok();
        }
        let ClassKind::Percentage { bins } = self.kind else { return None };
        let value: f64 = text.strip_suffix('%').unwrap_or(text).trim_end().parse().ok()?;
        (0.0..=100.0).contains(&value).then(|| ((value / 100.0 * f64::from(bins)) as u16).min(bins - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentage_bins_are_named_in_order_and_found_by_number() {
        let five = Classes::percentage(5).expect("in range");
        assert_eq!(five.names(), ["0-20 %", "20-40 %", "40-60 %", "60-80 %", "80-100 %"]);
        for (text, bin) in [("0", 0), ("19.9", 0), ("20 %", 1), ("37.5%", 1), ("100", 4), ("40-60 %", 2)] {
            assert_eq!(five.find(text), Some(bin), "{text}");
        }
        for text in ["-1", "100.1", "NaN", "", "rust"] {
            assert_eq!(five.find(text), None, "{text}");
        }
        assert_eq!(Classes::percentage(3).expect("in range").names(), ["0-33 %", "33-67 %", "67-100 %"]);
        for bins in 2..=100 {
            Classes::percentage(bins).expect("every number of bins gives distinct names");
        }
        assert!(matches!(Classes::percentage(1), Err(ClassesError::Bins { .. })));
        assert!(matches!(Classes::percentage(101), Err(ClassesError::Bins { .. })));
    }

    #[test]
    fn wrong_lists_are_refused_with_the_reason() {
        let refused = |names: &[&str], kind| {
            Classes::new(names.iter().map(|&name| name.to_owned()).collect(), kind).expect_err("refused")
        };
        use ClassKind::{Binary, Categorical};
        assert_eq!(refused(&["a"], Categorical), ClassesError::TooFew { found: 1 });
        assert_eq!(refused(&["a", " "], Categorical), ClassesError::EmptyName { position: 2 });
        assert_eq!(refused(&["a", "b", " a"], Categorical), ClassesError::Duplicate { name: "a".into() });
        assert_eq!(refused(&["a", "b", "c"], Binary), ClassesError::BinaryNeedsTwo { found: 3 });
    }

    #[test]
    fn files_hold_names_and_kind_and_are_checked() {
        let classes: Classes = toml::from_str("names = ['rust', 'healthy']\nkind = 'binary'").expect("valid");
        assert_eq!((classes.len(), classes.kind()), (2, ClassKind::Binary));
        let bins: Classes = toml::from_str("kind = { percentage = { bins = 4 } }").expect("valid");
        assert_eq!(bins.names()[3], "75-100 %");
        let back: Classes = toml::from_str(&toml::to_string(&bins).expect("writes")).expect("reads");
        assert_eq!(back, bins);
        let error = toml::from_str::<Classes>("names = ['a', 'a']").expect_err("twice");
        assert!(error.to_string().contains("given twice"), "{error}");
        assert!(toml::from_str::<Classes>("names = ['a', 'b']\ncolour = 1").is_err());
    }
}
