//! The classes of a project. A class is its number; its name may change.

use serde::{Deserialize, Serialize};

use super::colour::Colour;
use super::labels::Label;

/// Characters in a class's name; longer ones fit into no page.
const LONGEST_NAME: usize = 200;

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
    /// The project's choice, or that of its number.
    pub colour: Colour,
    /// How to recognise it; may be empty.
    pub description: String,
}

impl Class {
    /// With the colour of its number and no description.
    pub fn plain(id: u16, name: &str) -> Self {
        let name = name.trim().to_owned();
        Self { id, name, colour: Colour::default_of(id), description: String::new() }
    }
}

/// Classes with different names, in the order of their numbers and in an order to show them, and those that are no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Classes {
    pub(super) kind: ClassKind,
    /// By number.
    pub(super) list: Vec<Class>,
    /// Their numbers as people want to see them.
    pub(super) order: Vec<u16>,
    /// Merged into others or deleted, by number. Only the history and undo know them, and their numbers stay taken.
    pub(super) retired: Vec<Class>,
}

/// Classes that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the list of classes {reason}")]
pub struct ClassesError {
    /// What is wrong, and what would be right.
    pub reason: String,
}

impl ClassesError {
    pub(super) fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into() }
    }
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

    fn numbered(kind: ClassKind, names: impl IntoIterator<Item = String>) -> Result<Self, ClassesError> {
        let mut list = Vec::new();
        for (index, name) in names.into_iter().enumerate() {
            let id = u16::try_from(index)
                .map_err(|_| ClassesError { reason: "has more than 65536 entries".into() })?;
            list.push(Class::plain(id, &name));
        }
        Self::new(kind, list)
    }

    /// Classes with numbers, colours and descriptions of their own, shown in the order given.
    ///
    /// # Errors
    /// If two have one number or name, or the kind does not take so many.
    pub fn new(kind: ClassKind, mut list: Vec<Class>) -> Result<Self, ClassesError> {
        let order = list.iter().map(|class| class.id).collect();
        list.sort_by_key(|class| class.id);
        if let Some(twice) = list.windows(2).find(|pair| pair[0].id == pair[1].id) {
            return Err(ClassesError::new(format!("has the number {} twice", twice[0].id)));
        }
        let classes = Self { kind, list, order, retired: Vec::new() };
        classes.check_names().and_then(|()| classes.check_count()).map_err(ClassesError::new)?;
        Ok(classes)
    }

    pub(super) fn check_names(&self) -> Result<(), String> {
        let mut seen = std::collections::HashSet::new();
        for Class { id, name, .. } in &self.list {
            if name.is_empty() {
                return Err(format!("has no name for class {id}"));
            }
            if name.chars().any(char::is_control) {
                return Err(format!("has the name {name:?}, with characters that cannot be printed"));
            }
            if Label::STATES.iter().any(|(_, word)| word.eq_ignore_ascii_case(name)) {
                return Err(format!("has the name `{name}`, which is a label of its own; choose another"));
            }
            if name.chars().count() > LONGEST_NAME {
                return Err(format!("has the name `{name}`, which is longer than {LONGEST_NAME} characters"));
            }
            if !seen.insert(name) {
                return Err(format!("has the name `{name}` twice"));
            }
        }
        Ok(())
    }

    pub(super) fn check_count(&self) -> Result<(), String> {
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

    /// As people want to see them.
    pub fn displayed(&self) -> impl Iterator<Item = &Class> {
        self.order.iter().filter_map(|id| self.get(*id))
    }

    /// Merged into others or deleted, in the order of their numbers.
    pub fn retired(&self) -> impl Iterator<Item = &Class> {
        self.retired.iter()
    }

    /// The class of that number.
    pub fn get(&self, id: u16) -> Option<&Class> {
        self.index_of(id).map(|index| &self.list[index])
    }

    /// The class that had or has that number, for reading the history.
    pub fn ever(&self, id: u16) -> Option<&Class> {
        self.get(id).or_else(|| self.retired.iter().find(|class| class.id == id))
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
        self.get(id).map(|class| class.name.as_str())
    }

    /// The class of that name.
    pub fn named(&self, name: &str) -> Option<&Class> {
        self.list.iter().find(|class| class.name == name)
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
