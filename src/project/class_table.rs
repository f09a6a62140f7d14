//! The classes as `harvest.toml` says them. Numbers are keys, and TOML's keys are strings.
//!
//! ```toml
//! [classes]
//! kind = "categorical"
//! order = [1, 0]              # to show them in; without, that of their numbers
//! [classes.names]
//! 0 = "healthy"
//! 1 = "rust"
//! [classes.colours]           # without, one that follows from the number
//! 1 = "#d55e00"
//! [classes.descriptions]
//! 1 = "orange spots below the leaf"
//! [classes.retired]           # merged or deleted: the history still tells their names
//! 2 = "brown rust"
//! ```

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::classes::{Class, ClassKind, Classes};
use super::colour::Colour;
use crate::config::Invalid;

/// The table `classes`.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ClassTable {
    kind: ClassKind,
    order: Vec<u16>,
    names: BTreeMap<String, String>,
    colours: BTreeMap<String, String>,
    descriptions: BTreeMap<String, String>,
    retired: BTreeMap<String, String>,
}

/// Values by class number.
type ById = BTreeMap<u16, String>;

impl ClassTable {
    pub(super) fn check(&self) -> Result<Classes, Invalid> {
        let names = by_id("classes.names", &self.names)?;
        let retired = by_id("classes.retired", &self.retired)?;
        if let Some(id) = retired.keys().find(|id| names.contains_key(id)) {
            let reason =
                format!("has the number {id}, which `classes.names` has too; remove one of the lines");
            return Err(Invalid { key: "classes.retired", reason });
        }
        let known = |id: &u16| names.contains_key(id) || retired.contains_key(id);
        let about = |key: &'static str, table: &BTreeMap<String, String>| -> Result<ById, Invalid> {
            let table = by_id(key, table)?;
            match table.keys().find(|id| !known(id)) {
                Some(id) => {
                    let reason =
                        format!("has the number {id}, but no class has it; remove the line, or add a name");
                    Err(Invalid { key, reason })
                }
                None => Ok(table),
            }
        };
        let mut colours = BTreeMap::new();
        for (id, text) in about("classes.colours", &self.colours)? {
            let colour = text.parse::<Colour>().map_err(|error| Invalid {
                key: "classes.colours",
                reason: format!("has for class {id} a value that cannot be used: {error}"),
            })?;
            colours.insert(id, colour);
        }
        let descriptions = about("classes.descriptions", &self.descriptions)?;
        let class = |(id, name): (&u16, &String)| {
            let mut class = Class::plain(*id, name);
            class.colour = colours.get(id).copied().unwrap_or(class.colour);
            class.description = descriptions.get(id).map_or(String::new(), |text| text.trim().to_owned());
            class
        };
        let order = self.order(&names)?;
        let classes = Classes {
            kind: self.kind,
            order,
            list: names.iter().map(class).collect(),
            retired: retired.iter().map(class).collect(),
        };
        classes.check_names().map_err(|reason| Invalid { key: "classes.names", reason })?;
        classes.check_count().map_err(|reason| Invalid { key: "classes.kind", reason })?;
        Ok(classes)
    }

    /// The order as written, then the classes it leaves out.
    fn order(&self, names: &ById) -> Result<Vec<u16>, Invalid> {
        let invalid = |reason| Invalid { key: "classes.order", reason };
        let mut seen = BTreeSet::new();
        for id in &self.order {
            if !names.contains_key(id) {
                return Err(invalid(format!("has the number {id}, which `classes.names` does not have")));
            }
            if !seen.insert(*id) {
                return Err(invalid(format!("has the number {id} twice")));
            }
        }
        if self.kind == ClassKind::Percentage && !self.order.is_sorted() {
            return Err(invalid("cannot be another than that of the percentages; remove the line".into()));
        }
        let others = names.keys().filter(|id| !seen.contains(id));
        Ok(self.order.iter().chain(others).copied().collect())
    }
}

fn by_id(key: &'static str, table: &BTreeMap<String, String>) -> Result<ById, Invalid> {
    let mut found = ById::new();
    for (number, value) in table {
        // Only the plain form, so that no number can be written in two ways.
        let id = number.parse::<u16>().ok().filter(|id| id.to_string() == *number);
        let reason = || format!("has the class number `{number}`; numbers go from 0 to 65535");
        found.insert(id.ok_or_else(|| Invalid { key, reason: reason() })?, value.clone());
    }
    Ok(found)
}
