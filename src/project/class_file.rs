//! Changes of classes, in memory and in a file that people edit too: comments, order and all else stay as they are.

use std::fs;

use serde::Deserialize;
use toml_edit::{DocumentMut, InlineTable, Item, Key, Table, TableLike, Value, value};

use super::class_table::ClassTable;
use super::classes::{Class, ClassKind, Classes, ClassesError};
use super::colour::Colour;
use super::{Project, ProjectError};
use crate::config::ConfigError;
use crate::files::atomic_write;

/// A change of the list of classes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClassChange {
    /// One more.
    Add {
        /// Its name.
        name: String,
        /// Without, that of its number.
        colour: Option<Colour>,
        /// May be empty.
        description: String,
    },
    /// Another name, colour or description; what is `None` stays.
    Change {
        /// Which.
        id: u16,
        /// Its name.
        name: Option<String>,
        /// Its colour.
        colour: Option<Colour>,
        /// Its description.
        description: Option<String>,
    },
    /// Another order to show them in: each number once.
    Reorder {
        /// The numbers.
        ids: Vec<u16>,
    },
    /// It is no more, but for the history.
    Retire {
        /// Which.
        id: u16,
    },
    /// It is there again, after an undo.
    Revive {
        /// Which.
        id: u16,
    },
}

impl Classes {
    /// The classes after a change. A new one gets the first number above all that ever were, `taken` included: the highest
    /// number in the label history.
    ///
    /// # Errors
    /// If the kind does not allow it, or there is no such class.
    pub fn changed(&self, change: &ClassChange, taken: Option<u16>) -> Result<Self, ClassesError> {
        self.allows(change)?;
        let mut classes = self.clone();
        match change {
            ClassChange::Add { name, colour, description } => {
                let id = classes.free_number(taken)?;
                let mut class = Class::plain(id, name);
                class.colour = colour.unwrap_or(class.colour);
                class.description = description.trim().to_owned();
                classes.put(class);
            }
            ClassChange::Change { id, name, colour, description } => {
                let index = classes.index_of(*id).ok_or_else(|| no_class(*id))?;
                let class = &mut classes.list[index];
                if let Some(name) = name {
                    class.name = name.trim().to_owned();
                }
                class.colour = colour.unwrap_or(class.colour);
                if let Some(description) = description {
                    class.description = description.trim().to_owned();
                }
            }
            ClassChange::Reorder { ids } => {
                let sorted = |ids: &[u16]| {
                    let mut ids = ids.to_vec();
                    ids.sort_unstable();
                    ids
                };
                if sorted(ids) != sorted(&classes.order) {
                    return Err(ClassesError::new(
                        "has other classes by now; load the page anew and order them again",
                    ));
                }
                classes.order.clone_from(ids);
            }
            ClassChange::Retire { id } => {
                let index = classes.index_of(*id).ok_or_else(|| no_class(*id))?;
                let class = classes.list.remove(index);
                classes.order.retain(|other| other != id);
                let place = classes.retired.partition_point(|other| other.id < *id);
                classes.retired.insert(place, class);
            }
            ClassChange::Revive { id } => {
                let index = classes.retired.iter().position(|class| class.id == *id);
                let mut class = classes.retired.remove(index.ok_or_else(|| no_class(*id))?);
                // Its name may have gone to another class meanwhile.
                let name = class.name.clone();
                let mut number = 2;
                while classes.named(&class.name).is_some() {
                    class.name = format!("{name} ({number})");
                    number += 1;
                }
                classes.put(class);
            }
        }
        classes.check_names().and_then(|()| classes.check_count()).map_err(ClassesError::new)?;
        Ok(classes)
    }

    fn allows(&self, change: &ClassChange) -> Result<(), ClassesError> {
        let number = matches!(change, ClassChange::Add { .. } | ClassChange::Retire { .. });
        match (self.kind, change) {
            (ClassKind::Binary, _) if number => Err(ClassesError::new(
                "is binary and always has exactly two; give the two other names, or make a new project with more classes",
            )),
            (ClassKind::Percentage, _) if number => Err(ClassesError::new(
                "is made of percentage bins, which together cover everything: none can be added, merged or deleted; make \
                 a new project with other bins",
            )),
            (ClassKind::Percentage, ClassChange::Reorder { .. }) => {
                Err(ClassesError::new("is made of percentage bins, which have an order of their own"))
            }
            _ => Ok(()),
        }
    }

    fn free_number(&self, taken: Option<u16>) -> Result<u16, ClassesError> {
        let highest = self.list.iter().chain(&self.retired).map(|class| class.id).chain(taken).max();
        match highest {
            None => Ok(0),
            Some(id) => {
                id.checked_add(1).ok_or_else(|| ClassesError::new("has used up its numbers, 0 to 65535"))
            }
        }
    }

    fn put(&mut self, class: Class) {
        // One that comes back takes its old place, if there is such a thing.
        let shown = match self.order.is_sorted() {
            true => self.order.partition_point(|other| *other < class.id),
            false => self.order.len(),
        };
        self.order.insert(shown, class.id);
        let place = self.list.partition_point(|other| other.id < class.id);
        self.list.insert(place, class);
    }
}

fn no_class(id: u16) -> ClassesError {
    ClassesError::new(format!(
        "has no number {id}; somebody may have merged or deleted it: load the page anew"
    ))
}

impl Project {
    /// Changes the classes in the project's file, which is read again first: somebody may have edited it. `taken`: see
    /// [`Classes::changed`].
    ///
    /// # Errors
    /// If the change makes no sense, or the file is wrong or cannot be written; it is then as it was.
    pub fn change_classes(&self, change: &ClassChange, taken: Option<u16>) -> Result<Self, ProjectError> {
        let now = Self::open(&self.dir)?;
        let classes = now.classes.changed(change, taken)?;
        let file = now.file();
        let text =
            fs::read_to_string(&file).map_err(|source| ConfigError::Read { path: file.clone(), source })?;
        let by_hand = || ProjectError::ByHand { file: file.clone() };
        let edited = edited(&text, &now.classes, &classes).ok_or_else(by_hand)?;
        // An edit that is read as anything else is worse than none.
        if read(&edited).as_ref() != Some(&classes) {
            return Err(by_hand());
        }
        atomic_write(&file, edited.as_bytes())?;
        Ok(Self { classes, ..now })
    }
}

/// The classes that a text says.
fn read(text: &str) -> Option<Classes> {
    #[derive(Deserialize)]
    struct File {
        classes: ClassTable,
    }
    toml::from_str::<File>(text).ok()?.classes.check().ok()
}

/// The text with `new` in place of `old`; `None` if it is written in a way that cannot be changed.
fn edited(text: &str, old: &Classes, new: &Classes) -> Option<String> {
    let mut document: DocumentMut = text.parse().ok()?;
    let table = document.entry("classes").or_insert_with(|| Item::Table(Table::new()));
    let style = Style::of(table);
    let plain = new.order.is_sorted();
    if !plain
        && old.order != new.order
        && let Item::Table(table) = &mut *table
    {
        give_header(table);
    }
    let classes = table.as_table_like_mut()?;
    let (was, is) = (by_number(old), by_number(new));
    for (id, now) in &is {
        let before = was.iter().find(|(other, _)| other == id).map(|(_, state)| state);
        let key = id.to_string();
        let home = |live: bool| if live { "names" } else { "retired" };
        match before {
            Some(before) if before.live != now.live => {
                // The line goes with what people wrote beside it.
                let (line, mut name) = take(style.table(classes, home(before.live))?, &key)?;
                set(&mut name, now.class.name.as_str());
                let target = style.table(classes, home(now.live))?;
                put(target, line, name);
            }
            Some(before) if before.class.name == now.class.name => {}
            _ => set(line(style.table(classes, home(now.live))?, &key), now.class.name.as_str()),
        }
        if before.map_or(Colour::default_of(*id), |before| before.class.colour) != now.class.colour {
            set(line(style.table(classes, "colours")?, &key), now.class.colour.to_string());
        }
        let said = before.map_or("", |before| before.class.description.as_str());
        if said != now.class.description {
            let descriptions = style.table(classes, "descriptions")?;
            if now.class.description.is_empty() {
                descriptions.remove(&key);
            } else {
                set(line(descriptions, &key), now.class.description.as_str());
            }
        }
    }
    if (!plain || classes.contains_key("order")) && old.order != new.order {
        let order: toml_edit::Array = new.order.iter().map(|id| i64::from(*id)).collect();
        set(line(classes, "order"), order);
    }
    Some(document.to_string())
}

/// Where only tables inside `classes` have headers, the first of them hands what stands above it to the new one.
fn give_header(classes: &mut Table) {
    if !classes.is_implicit() || classes.is_dotted() {
        return;
    }
    classes.set_implicit(false);
    let first = classes.iter_mut().find_map(|(_, item)| item.as_table_mut());
    let above = first.map(|first| {
        let above = first.decor().prefix().cloned().unwrap_or_default();
        first.decor_mut().set_prefix("\n");
        above
    });
    classes.decor_mut().set_prefix(above.unwrap_or_default());
}

struct State<'a> {
    class: &'a Class,
    live: bool,
}

fn by_number(classes: &Classes) -> Vec<(u16, State<'_>)> {
    let live = classes.list.iter().map(|class| (class.id, State { class, live: true }));
    live.chain(classes.retired.iter().map(|class| (class.id, State { class, live: false }))).collect()
}

/// How the table of classes is written, which is how tables in it are.
#[derive(Clone, Copy)]
enum Style {
    /// `[classes]`
    Header,
    /// `classes.kind = …`
    Dotted,
    /// `classes = { … }`
    Inline,
}

impl Style {
    fn of(table: &Item) -> Self {
        match table {
            Item::Value(Value::InlineTable(_)) => Self::Inline,
            Item::Table(table) if table.is_dotted() => Self::Dotted,
            _ => Self::Header,
        }
    }

    /// The table `name` inside `classes`, made if need be.
    fn table<'a>(self, classes: &'a mut dyn TableLike, name: &str) -> Option<&'a mut dyn TableLike> {
        if !classes.contains_key(name) {
            let mut table = Table::new();
            let item = match self {
                Self::Inline => Item::Value(Value::InlineTable(InlineTable::new())),
                Self::Dotted => {
                    table.set_dotted(true);
                    Item::Table(table)
                }
                Self::Header => {
                    table.decor_mut().set_prefix(match name {
                        "retired" => "\n# Merged or deleted. The history still needs the names; the numbers stay taken.\n",
                        _ => "\n",
                    });
                    Item::Table(table)
                }
            };
            classes.insert(name, item);
        }
        classes.get_mut(name)?.as_table_like_mut()
    }
}

/// The line of that key, made if need be.
fn line<'a>(table: &'a mut dyn TableLike, key: &str) -> &'a mut Item {
    table.entry(key).or_insert(Item::None)
}

fn take(table: &mut dyn TableLike, key: &str) -> Option<(Key, Item)> {
    let line = table.key(key)?.clone();
    Some((line, table.remove(key)?))
}

fn put(table: &mut dyn TableLike, key: Key, item: Item) {
    let name = key.get().to_owned();
    table.insert(&name, item);
    if let Some(mut line) = table.key_mut(&name) {
        *line.leaf_decor_mut() = key.leaf_decor().clone();
    }
}

/// Another value in the place of a line's; what stands beside it stays.
fn set(item: &mut Item, new: impl Into<Value>) {
    let mut new = new.into();
    if let Some(old) = item.as_value() {
        *new.decor_mut() = old.decor().clone();
    }
    *item = value(new);
}

#[cfg(test)]
#[path = "class_file_tests.rs"]
mod tests;
