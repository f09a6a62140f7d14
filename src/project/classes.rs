//! The classes of a project. A class is its number; its name may change.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::labels::Label;
use crate::config::Invalid;

/// What the classes are to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClassKind {
    /// Without order.
    #[default]
    Categorical,
    /// Two, such as absent and present.
    Binary,
    /// Bins of a percentage, in order.
    Percentage,
}

impl ClassKind {
    /// As written in a file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Categorical => "categorical",
            Self::Binary => "binary",
            Self::Percentage => "percentage",
        }
    }
}

/// One class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Class {
    /// What labels refer to. Never reused, not necessarily without gaps.
    pub id: u16,
    /// What people call it.
    pub name: String,
}

/// Classes in the order of their numbers, with different names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Classes {
    kind: ClassKind,
    list: Vec<Class>,
}

/// Classes that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the list of classes {reason}")]
pub struct ClassesError {
    /// What is wrong, and what would be right.
    pub reason: String,
}

impl Classes {
    /// Classes numbered from 0. The list may be empty: a project can begin before its classes are known.
    pub fn categorical<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, ClassesError> {
        Self::numbered(ClassKind::Categorical, names.into_iter().map(str::to_string))
    }

    /// Two classes: the first is the absence, the second the presence of what is looked for.
    pub fn binary(absent: &str, present: &str) -> Result<Self, ClassesError> {
        Self::numbered(ClassKind::Binary, [absent, present].map(str::to_string))
    }

    /// Equal bins from 0 to 100 %, named `0-25 %`, `25-50 %`, ...; from 2 to 100 of them.
    pub fn percentage(bins: u16) -> Result<Self, ClassesError> {
        let classes = crate::data::Classes::percentage(bins)
            .map_err(|_| ClassesError { reason: format!("has {bins} percentage bins; use from 2 to 100") })?;
        Self::numbered(ClassKind::Percentage, classes.names().iter().cloned())
    }

    /// The same classes as networks and labels number them: by position, not by id.
    pub fn for_data(&self) -> Result<crate::data::Classes, crate::data::ClassesError> {
        let names: Vec<String> = self.list.iter().map(|class| class.name.clone()).collect();
        let kind = match self.kind {
            ClassKind::Categorical => crate::data::ClassKind::Categorical,
            ClassKind::Binary => crate::data::ClassKind::Binary,
            ClassKind::Percentage => crate::data::ClassKind::Percentage { bins: names.len() as u16 },
        };
        crate::data::Classes::new(names, kind)
    }

    /// Classes by number, as they were written down.
    pub(super) fn of(kind: ClassKind, names: BTreeMap<u16, String>) -> Result<Self, ClassesError> {
        let list = names.into_iter().map(|(id, name)| Class { id, name }).collect();
        let classes = Self { kind, list };
        classes
            .check_names()
            .and_then(|()| classes.check_count())
            .map_err(|reason| ClassesError { reason })?;
        Ok(classes)
    }

    fn numbered(kind: ClassKind, names: impl IntoIterator<Item = String>) -> Result<Self, ClassesError> {
        let mut list = Vec::new();
        for (index, name) in names.into_iter().enumerate() {
            let id = u16::try_from(index)
                .map_err(|_| ClassesError { reason: "has more than 65536 entries".into() })?;
            list.push(Class { id, name: name.trim().to_string() });
        }
        let classes = Self { kind, list };
        classes
            .check_names()
            .and_then(|()| classes.check_count())
            .map_err(|reason| ClassesError { reason })?;
        Ok(classes)
    }

    fn check_names(&self) -> Result<(), String> {
        let mut seen = std::collections::HashSet::new();
        for Class { id, name } in &self.list {
            if name.is_empty() {
                return Err(format!("has no name for class {id}"));
            }
            if name.chars().any(char::is_control) {
                return Err(format!("has the name {name:?}, with characters that cannot be printed"));
            }
            if Label::STATES.iter().any(|(_, word)| word.eq_ignore_ascii_case(name)) {
                return Err(format!("has the name `{name}`, which is a label of its own; choose another"));
            }
            if !seen.insert(name) {
                return Err(format!("has the name `{name}` twice"));
            }
        }
        Ok(())
    }

    fn check_count(&self) -> Result<(), String> {
        let count = self.list.len();
        match self.kind {
            ClassKind::Binary if count != 2 => {
                Err(format!("is binary, which takes exactly two classes; there are {count}"))
            }
            ClassKind::Percentage if count < 2 => {
                Err(format!("is percentage, which takes two bins or more; there are {count}"))
            }
            _ => Ok(()),
        }
    }

    /// What they are to each other.
    pub fn kind(&self) -> ClassKind {
        self.kind
    }

    /// In the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = &Class> {
        self.list.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there are none yet.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Position of a class among all, which is its output in a network trained on them.
    pub fn index_of(&self, id: u16) -> Option<usize> {
        self.list.binary_search_by_key(&id, |class| class.id).ok()
    }

    /// Name of a class.
    pub fn name_of(&self, id: u16) -> Option<&str> {
        self.index_of(id).map(|index| self.list[index].name.as_str())
    }

    /// The class of that name.
    pub fn named(&self, name: &str) -> Option<&Class> {
        self.list.iter().find(|class| class.name == name)
    }
}

/// As written in `harvest.toml`: numbers are keys, and TOML's keys are strings.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ClassTable {
    kind: ClassKind,
    names: BTreeMap<String, String>,
}

impl ClassTable {
    pub(super) fn check(&self) -> Result<Classes, Invalid> {
        let names = |reason| Invalid { key: "classes.names", reason };
        let mut list = Vec::new();
        for (number, name) in &self.names {
            // Only the plain form, so that no number can be written in two ways.
            let id = number.parse::<u16>().ok().filter(|id| id.to_string() == *number);
            let id = id.ok_or_else(|| {
                names(format!("has the class number `{number}`; numbers go from 0 to 65535"))
            })?;
            list.push(Class { id, name: name.trim().to_string() });
        }
        list.sort_by_key(|class| class.id);
        let classes = Classes { kind: self.kind, list };
        classes.check_names().map_err(names)?;
        classes.check_count().map_err(|reason| Invalid { key: "classes.kind", reason })?;
        Ok(classes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentage_bins_cover_everything_in_order() {
        let names = |bins| {
            let classes = Classes::percentage(bins).expect("a good number of bins");
            classes.iter().map(|class| class.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(names(4), ["0-25 %", "25-50 %", "50-75 %", "75-100 %"]);
        assert_eq!(names(3), ["0-33 %", "33-67 %", "67-100 %"]);
        assert!(Classes::percentage(1).is_err());
        assert!(Classes::percentage(101).is_err());
    }

    #[test]
    fn bad_names_are_refused() {
        for names in [&["a", "a "][..], &["", "b"], &["Not sure", "b"], &["a\nb", "c"]] {
            assert!(Classes::categorical(names.iter().copied()).is_err(), "{names:?}");
        }
    }
}
