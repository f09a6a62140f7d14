//! From what a form says to a project on disk.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml_edit::{DocumentMut, Item, Table, Value};

use super::settings;
use crate::config::SourceKind;
use crate::files::atomic_write;
use crate::project::{Class, ClassKind, Classes, FILE, Project};
use crate::web::error::WebError;
use crate::web::security::Roots;

/// Letters of a project's name.
const LONGEST_NAME: usize = 120;

/// What the form sends.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NewProject {
    /// Folder of the images.
    pub images: String,
    /// Folder of the project, to be made.
    pub folder: String,
    /// Its name.
    pub name: String,
    /// What the classes are to each other.
    pub kind: ClassKind,
    /// Number of bins of a percentage.
    pub bins: String,
    /// The classes, in order; of a percentage, none.
    pub classes: Vec<NewClass>,
    /// Text by the key of a setting; see [`settings`].
    pub settings: BTreeMap<String, String>,
}

impl Default for NewProject {
    fn default() -> Self {
        Self {
            images: String::new(),
            folder: String::new(),
            name: String::new(),
            kind: ClassKind::Categorical,
            bins: String::new(),
            classes: Vec::new(),
            settings: BTreeMap::new(),
        }
    }
}

/// A class as the form sends it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NewClass {
    /// What people call it.
    pub name: String,
    /// `#rrggbb`; empty for that of its number.
    pub colour: String,
    /// How to recognise it.
    pub description: String,
}

/// Words by the name of a field.
type Wrong = BTreeMap<String, String>;

impl NewProject {
    /// Makes the project.
    ///
    /// # Errors
    /// With words for each field that is wrong; nothing is made then.
    pub fn found(&self, roots: &Roots) -> Result<Project, WebError> {
        let mut wrong = Wrong::new();
        let images = self.images(roots).map_err(|words| wrong.insert("images".into(), words)).ok();
        let name = self.name().map_err(|words| wrong.insert("name".into(), words)).ok();
        let folder = self.folder(roots, images.as_deref());
        let folder = folder.map_err(|words| wrong.insert("folder".into(), words)).ok();
        let classes = self.classes().map_err(|words| wrong.extend(words)).ok();
        let count = classes.as_ref().map_or(0, Classes::len);
        let settings = settings::check(&self.settings, count).map_err(|words| wrong.extend(words)).ok();
        let (Some(images), Some(name), Some(folder), Some(classes), Some(settings)) =
            (images, name, folder, classes, settings)
        else {
            return Err(WebError::Form { fields: wrong });
        };
        let project = Project::init(&folder, &name, &images, SourceKind::Folder, &classes)?;
        let text = std::fs::read_to_string(project.file()).unwrap_or_default();
        if let Some(text) = with_settings(&text, &settings) {
            atomic_write(&project.file(), text.as_bytes())?;
        }
        Ok(project)
    }

    fn images(&self, roots: &Roots) -> Result<PathBuf, String> {
        if self.images.trim().is_empty() {
            return Err("choose the folder that holds the images".into());
        }
        let folder = roots.inside(Path::new(self.images.trim())).map_err(|error| error.to_string())?;
        if folder.is_dir() {
            Ok(folder)
        } else {
            Err("this is a file; choose the folder that holds it".into())
        }
    }

    fn name(&self) -> Result<String, String> {
        let name = self.name.trim();
        match name.chars().count() {
            0 => Err("give the project a name".into()),
            LONGEST_NAME.. => Err(format!("is longer than {LONGEST_NAME} letters")),
            _ if name.chars().any(char::is_control) => Err("has letters that cannot be shown".into()),
            _ => Ok(name.to_owned()),
        }
    }

    fn folder(&self, roots: &Roots, images: Option<&Path>) -> Result<PathBuf, String> {
        if self.folder.trim().is_empty() {
            return Err("say where labels and models are to be kept".into());
        }
        let folder = roots.new_folder(Path::new(self.folder.trim())).map_err(|error| error.to_string())?;
        if folder.join(FILE).exists() {
            return Err("there is a project in this folder already; choose another name".into());
        }
        if folder.exists() && !folder.is_dir() {
            return Err("there is a file of this name; choose another".into());
        }
        // Its thumbnails and sheets would be found as images by the next scan.
        if images.is_some_and(|images| folder.starts_with(images)) {
            return Err("this lies within the images, and the project's own files would be taken for some; choose a folder beside them".into());
        }
        Ok(folder)
    }

    fn classes(&self) -> Result<Classes, Wrong> {
        let all = |words: String| Wrong::from([("classes".to_owned(), words)]);
        if self.kind == ClassKind::Percentage {
            let bins = self.bins.trim().parse::<u16>().ok().filter(|bins| (2..=100).contains(bins));
            let bins = bins.ok_or_else(|| {
                Wrong::from([("bins".to_owned(), "must be a whole number from 2 to 100".to_owned())])
            })?;
            return Classes::percentage(bins).map_err(|error| all(error.to_string()));
        }
        let mut wrong = Wrong::new();
        let mut list: Vec<Class> = Vec::new();
        for (row, class) in self.classes.iter().enumerate() {
            let name = class.name.trim();
            if name.is_empty() && (self.kind == ClassKind::Binary || !class.description.trim().is_empty()) {
                wrong.insert(format!("classes.{row}"), "needs a name".into());
            }
            if name.is_empty() {
                continue;
            }
            if list.iter().any(|other| other.name == name) {
                wrong.insert(format!("classes.{row}"), format!("there is a class `{name}` already"));
                continue;
            }
            let id = u16::try_from(list.len()).map_err(|_| all("there are too many classes".into()))?;
            let mut made = Class::plain(id, name);
            class.description.trim().clone_into(&mut made.description);
            if !class.colour.is_empty() {
                match class.colour.parse() {
                    Ok(colour) => made.colour = colour,
                    Err(_) => drop(wrong.insert(
                        format!("classes.{row}"),
                        "has a colour that is none, such as #1f6b48".into(),
                    )),
                }
            }
            list.push(made);
        }
        if wrong.is_empty() && list.len() < 2 {
            return Err(all("name at least two classes: there must be something to tell apart".into()));
        }
        if !wrong.is_empty() {
            return Err(wrong);
        }
        Classes::new(self.kind, list).map_err(|error| all(error.reason))
    }
}

/// The text of a project's file with `settings`, everything else as it is; `None` if there are none.
fn with_settings(text: &str, settings: &[(String, toml::Value)]) -> Option<String> {
    let mut document: DocumentMut = text.parse().ok().filter(|_| !settings.is_empty())?;
    for (key, value) in settings {
        let (section, name) = key.split_once('.')?;
        let table = document.entry(section).or_insert_with(|| Item::Table(Table::new()));
        let value: Value = value.to_string().parse().ok()?;
        table.as_table_like_mut()?.insert(name, Item::Value(value));
    }
    Some(document.to_string())
}

#[cfg(test)]
#[path = "found_tests.rs"]
mod tests;
