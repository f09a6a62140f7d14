//! From layers to one configuration.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::error::{ConfigError, Origin};
use super::layers::{
    Override, Tables, Values, read_copy, read_environment, read_file, read_overrides, read_table,
};
use super::schema::{Kind, Schema};
use super::sections::Config;
use crate::bounds::Invalid;

/// Tables of a project's file that are not configuration.
pub const PROJECT_TABLES: [&str; 2] = ["project", "classes"];

/// What a sweep's file says beyond a recipe's tables; see [`crate::sweep`].
pub const SWEEP_TABLES: [&str; 2] = ["recipe", "sweep"];

/// A sweep's file as a layer.
#[derive(Debug, Clone)]
pub struct SweepLayer {
    /// The file: a recipe's tables, and [`SWEEP_TABLES`].
    pub file: PathBuf,
    /// The algorithm whose table in `sweep.overrides` counts too.
    pub algorithm: &'static str,
}

/// Where the layers are to be found. Empty by default: nothing but the built-in values.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// Passed over when it does not exist.
    pub site: Option<PathBuf>,
    /// Passed over when it does not exist.
    pub user: Option<PathBuf>,
    /// The project's `harvest.toml`.
    pub project: Option<PathBuf>,
    /// A copy of it as it was once, which is read in its place; paths in it are still taken from the project's folder.
    pub frozen_project: Option<PathBuf>,
    /// The file of `--config`.
    pub recipe: Option<PathBuf>,
    /// The file of a sweep, over the recipe it builds on.
    pub sweep: Option<SweepLayer>,
    /// Variables; those that do not begin with `HARVEST_` are passed over.
    pub environment: Vec<(String, String)>,
    /// In the order of the command line.
    pub overrides: Vec<Override>,
}

impl Sources {
    /// The site's and the user's usual files, and this process's environment.
    pub fn of_this_machine() -> Self {
        let user = std::env::var_os("XDG_CONFIG_HOME")
            .filter(|folder| !folder.is_empty())
            .map(PathBuf::from)
            .or_else(|| std::env::home_dir().map(|home| home.join(".config")));
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
        };
        Self {
            site: Some("/etc/harvest/harvest.toml".into()),
            user: user.map(|folder| folder.join("harvest").join("harvest.toml")),
            environment: std::env::vars_os().filter_map(text).collect(),
            ..Self::default()
        }
    }
}

/// Reads all layers, checks them, and merges them.
pub fn resolve(sources: &Sources) -> Result<Resolved, ConfigError> {
    let schema = Schema::of::<Config>();
    let mut values = Values::new();
    for path in [&sources.site, &sources.user].into_iter().flatten() {
        match read_file(&schema, path, Tables::All) {
            Err(ConfigError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
            layer => values.extend(layer?),
        }
    }
    if let Some(path) = &sources.project {
        let copy = sources.frozen_project.as_ref().unwrap_or(path);
        values.extend(read_copy(&schema, path, copy, Tables::Except(&PROJECT_TABLES))?);
    }
    if let Some(path) = &sources.recipe {
        values.extend(read_file(&schema, path, Tables::All)?);
    }
    if let Some(SweepLayer { file, algorithm }) = &sources.sweep {
        values.extend(read_file(&schema, file, Tables::Except(&SWEEP_TABLES))?);
        values.extend(read_table(&schema, file, &["sweep", "overrides", algorithm])?);
    }
    values.extend(read_environment(&schema, &sources.environment)?);
    values.extend(read_overrides(&schema, &sources.overrides)?);

    Resolved::checked(schema, values)
}

/// The configuration of a run.
pub type Resolved = Document<Config>;

/// Reads the file that holds a `T` in some of its tables, with the same checks and messages as a layer.
pub fn read_document<T: DeserializeOwned + Serialize>(
    path: &Path,
    tables: Tables<'_>,
) -> Result<Document<T>, ConfigError> {
    let schema = Schema::of::<T>();
    let values = read_file(&schema, path, tables)?;
    Document::build(schema, values)
}

/// One key of a configuration, as it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Full name.
    pub key: String,
    /// `None` if it is unset.
    pub value: Option<Value>,
    /// Where it was said.
    pub origin: Origin,
}

/// A value read from layers, with the origin of each of its keys.
#[derive(Debug, Clone)]
pub struct Document<T> {
    /// The value itself.
    pub value: T,
    schema: Schema,
    origins: BTreeMap<String, Origin>,
    entries: Vec<Entry>,
}

impl<T: DeserializeOwned + Serialize> Document<T> {
    fn build(schema: Schema, values: Values) -> Result<Self, ConfigError> {
        let mut tree = Table::new();
        for (key, (value, _)) in &values {
            insert(&mut tree, key, value.clone());
        }
        let value = T::deserialize(Value::Table(tree)).map_err(|error| mismatch(&error, &values))?;
        let whole = Table::try_from(&value)
            .map_err(|error| ConfigError::Syntax { origin: Origin::Default, message: error.to_string() })?;
        let leaves = schema.keys().iter().filter(|key| key.kind != Kind::Table);
        let entries = leaves
            .map(|key| match values.get(&key.name) {
                Some((value, origin)) => {
                    Entry { key: key.name.clone(), value: Some(value.clone()), origin: origin.clone() }
                }
                None => Entry {
                    key: key.name.clone(),
                    value: find(&whole, &key.name).map(|value| shorten(&key.kind, value)),
                    origin: Origin::Default,
                },
            })
            .collect();
        let origins = values.into_iter().map(|(key, (_, origin))| (key, origin)).collect();
        Ok(Self { value, schema, origins, entries })
    }
}

impl<T> Document<T> {
    /// Where the value of `key` was said.
    pub fn origin(&self, key: &str) -> Origin {
        self.origins.get(key).cloned().unwrap_or(Origin::Default)
    }

    /// Every key with its value and origin, in the order of declaration.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Puts the place into a complaint about a value.
    pub fn locate(&self, invalid: Invalid) -> ConfigError {
        ConfigError::Invalid {
            origin: self.origin(invalid.key),
            key: invalid.key.into(),
            reason: invalid.reason,
        }
    }

    /// One line for each key: `training.lr = 0.0003   # recipe.toml:4`.
    pub fn show(&self) -> String {
        let line = |entry: &Entry| match &entry.value {
            Some(value) => format!("{} = {value}", entry.key),
            None => format!("{} is unset", entry.key),
        };
        let width = self.entries.iter().map(|entry| line(entry).chars().count()).max().unwrap_or(0).min(60);
        self.entries.iter().fold(String::new(), |mut text, entry| {
            let _ = writeln!(text, "{:width$}  # {}", line(entry), entry.origin);
            text
        })
    }

    /// A TOML file of every key, its origin beside it. It can be used as a recipe.
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        for section in self.schema.keys().iter().filter(|key| key.kind == Kind::Table) {
            let own =
                |entry: &&Entry| entry.key.rsplit_once('.').is_some_and(|(parent, _)| parent == section.name);
            if self.entries.iter().any(|entry| own(&entry)) {
                let _ = writeln!(text, "\n[{}]", section.name);
            }
            for entry in self.entries.iter().filter(own) {
                let name = entry.key.rsplit('.').next().unwrap_or(&entry.key);
                let _ = match &entry.value {
                    // A comment ends with its line, and a path may hold anything.
                    Some(value) => {
                        writeln!(text, "{name} = {value} # {}", entry.origin.to_string().replace('\n', " "))
                    }
                    None => writeln!(text, "# {name} is unset"),
                };
            }
        }
        text.trim_start().to_string()
    }
}

impl Resolved {
    fn checked(schema: Schema, values: Values) -> Result<Self, ConfigError> {
        let document = Self::build(schema, values)?;
        document.value.check().map_err(|invalid| document.locate(invalid))?;
        Ok(document)
    }

    /// The same settings, but for `overrides`; keys that begin with one of `reset` go back to their defaults first.
    ///
    /// # Errors
    /// What is wrong with the overrides, or with what comes of them.
    pub fn varied(&self, reset: &[&str], overrides: &[Override]) -> Result<Self, ConfigError> {
        let said = self.entries.iter().filter(|entry| entry.origin != Origin::Default);
        let kept = said.filter(|entry| !reset.iter().any(|prefix| entry.key.starts_with(prefix)));
        let kept =
            kept.filter_map(|entry| Some((entry.key.clone(), (entry.value.clone()?, entry.origin.clone()))));
        let mut values: Values = kept.collect();
        values.extend(read_overrides(&self.schema, overrides)?);
        Self::checked(self.schema.clone(), values)
    }

    /// Tells one run from another: a hash of every value except those of `[run]`, which change no result.
    pub fn fingerprint(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        let told = |entry: &&Entry| {
            let unsaid = entry.value.is_none() && came_later(&entry.key);
            !unsaid && !shapes_nothing(&entry.key)
        };
        for entry in self.entries.iter().filter(told) {
            let value = entry.value.as_ref().map_or(String::new(), Value::to_string);
            for part in [entry.key.as_str(), value.as_str()] {
                hasher.update(&(part.len() as u64).to_le_bytes());
                hasher.update(part.as_bytes());
            }
        }
        hasher.finalize()
    }
}

fn insert(table: &mut Table, key: &str, value: Value) {
    match key.split_once('.') {
        None => drop(table.insert(key.to_string(), value)),
        Some((section, rest)) => {
            let section = table.entry(section.to_string()).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(section) = section {
                insert(section, rest, value);
            }
        }
    }
}

fn find<'a>(table: &'a Table, key: &str) -> Option<&'a Value> {
    match key.split_once('.') {
        None => table.get(key),
        Some((section, rest)) => find(table.get(section)?.as_table()?, rest),
    }
}

/// An `f32` widened to `f64` has digits nobody wrote (0.999 becomes 0.9990000128746033): back to the short form.
fn shorten(kind: &Kind, value: &Value) -> Value {
    match (kind, value) {
        (Kind::Number { single: true }, Value::Float(number)) => {
            Value::Float((*number as f32).to_string().parse().unwrap_or(*number))
        }
        (Kind::List(element, _), Value::Array(list)) => {
            Value::Array(list.iter().map(|value| shorten(element, value)).collect())
        }
        _ => value.clone(),
    }
}

/// A type that refuses a value of the kind it asked for; the origin is that of its first value.
fn mismatch(error: &toml::de::Error, values: &Values) -> ConfigError {
    let origin = values.values().next().map_or(Origin::Default, |(_, origin)| origin.clone());
    ConfigError::Syntax { origin, message: error.to_string().trim().replace('\n', ", ") }
}

/// Keys that change no result, and so do not tell one run from another.
fn shapes_nothing(key: &str) -> bool {
    ["run.", "published.", "distribution.bucket_mib"].iter().any(|section| key.starts_with(section))
}

/// Keys that earlier versions did not have. Unset, they leave a run what it was there, so that it can go on.
fn came_later(key: &str) -> bool {
    key == "training.clip_norm"
}
