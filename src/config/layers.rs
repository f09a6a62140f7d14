//! One layer of a configuration: a file, the environment, or the command line, as `key, value, origin`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::Value;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Origin};
use super::schema::{Kind, Schema, join};
use super::suggest;

/// Values by full key, each with where it was said.
pub(super) type Values = BTreeMap<String, (Value, Origin)>;

/// One setting of the command line, `--set KEY=VALUE` or a named flag that stands for a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    /// Full key, `training.lr`.
    pub key: String,
    /// As typed; read by the key's type.
    pub value: String,
    /// The argument to name in messages, `--lr 3e-4`.
    pub argument: String,
}

impl Override {
    /// From the argument of `--set`.
    pub fn parse(setting: &str) -> Result<Self, ConfigError> {
        let argument = format!("--set {setting}");
        match setting.split_once('=') {
            Some((key, value)) if !key.trim().is_empty() => {
                Ok(Self { key: key.trim().into(), value: value.trim().into(), argument })
            }
            _ => Err(ConfigError::NoValue { argument }),
        }
    }

    /// From a named flag.
    pub fn flag(flag: &str, key: &str, value: impl ToString) -> Self {
        let value = value.to_string();
        Self { key: key.into(), argument: format!("{flag} {value}"), value }
    }
}

/// Which top-level tables of a file to read; the others belong to another room.
#[derive(Debug, Clone, Copy)]
pub enum Tables<'a> {
    /// Every one.
    All,
    /// All but these.
    Except(&'a [&'a str]),
    /// These alone.
    Only(&'a [&'a str]),
}

impl Tables<'_> {
    fn passes_over(self, name: &str) -> bool {
        match self {
            Self::All => false,
            Self::Except(names) => names.contains(&name),
            Self::Only(names) => !names.contains(&name),
        }
    }
}

/// Reads a file.
pub(super) fn read_file(schema: &Schema, path: &Path, tables: Tables<'_>) -> Result<Values, ConfigError> {
    read_copy(schema, path, path, tables)
}

/// Reads `copy` as if it were the file at `path`: places and relative paths are those of `path`.
pub(super) fn read_copy(
    schema: &Schema,
    path: &Path,
    copy: &Path,
    tables: Tables<'_>,
) -> Result<Values, ConfigError> {
    read_text(schema, &text_of(copy)?, path, tables, &[])
}

/// Reads one table inside a file, `within` from the outside in, as if its content were the whole file; nothing if the
/// file has no such table.
pub(super) fn read_table(schema: &Schema, path: &Path, within: &[&str]) -> Result<Values, ConfigError> {
    read_text(schema, &text_of(path)?, path, Tables::All, within)
}

fn text_of(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_path_buf(), source })
}

/// Reads the text of a file; relative paths in it are taken from the folder of `path`.
fn read_text(
    schema: &Schema,
    text: &str,
    path: &Path,
    tables: Tables<'_>,
    within: &[&str],
) -> Result<Values, ConfigError> {
    let place = |offset: usize| Origin::File {
        path: path.to_path_buf(),
        line: 1 + text.as_bytes()[..offset.min(text.len())].iter().filter(|byte| **byte == b'\n').count(),
    };
    let syntax = |error: toml::de::Error| ConfigError::Syntax {
        origin: place(error.span().map_or(0, |span| span.start)),
        message: error.message().trim().replace('\n', ", "),
    };
    let parsed = DeTable::parse(text).map_err(syntax)?;
    let whole: toml::Table = toml::from_str(text).map_err(syntax)?;
    let (mut spans, mut values) = (parsed.get_ref(), &whole);
    for name in within {
        match (spans.get(*name).map(|value| value.get_ref()), values.get(*name)) {
            (Some(DeValue::Table(inner)), Some(Value::Table(table))) => (spans, values) = (inner, table),
            _ => return Ok(Values::new()),
        }
    }
    let base = std::path::absolute(path).ok();
    let mut reader = Reader {
        schema,
        place: &place,
        base: base.as_deref().and_then(Path::parent).unwrap_or(Path::new("")),
        values: Values::new(),
    };
    for (key, value) in spans {
        if tables.passes_over(key.get_ref()) {
            continue;
        }
        let name = key.get_ref().to_string();
        if let Some(whole) = values.get(name.as_str()) {
            let known = |error| match (error, tables) {
                (ConfigError::UnknownKey { origin, key, hint }, Tables::Except(others)) => {
                    // A table of its own is nearer than a key of that name in some section.
                    let table = suggest::nearest(&key, others.iter().copied());
                    let hint = table.map(str::to_string).or(hint);
                    ConfigError::UnknownKey { origin, key, hint }
                }
                (error, _) => error,
            };
            reader.read(name, key.span().start, value.get_ref(), whole).map_err(known)?;
        }
    }
    Ok(reader.values)
}

struct Reader<'a> {
    schema: &'a Schema,
    place: &'a dyn Fn(usize) -> Origin,
    base: &'a Path,
    values: Values,
}

impl Reader<'_> {
    /// `spanned` and `value` are the same thing twice: one knows its place in the text, the other is ready for use.
    fn read(
        &mut self,
        name: String,
        offset: usize,
        spanned: &DeValue<'_>,
        value: &Value,
    ) -> Result<(), ConfigError> {
        let origin = (self.place)(offset);
        let Some(key) = self.schema.get(&name) else { return Err(unknown(self.schema, &name, origin)) };
        match (&key.kind, spanned, value) {
            (Kind::Table, DeValue::Table(children), Value::Table(table)) => {
                for (child, spanned) in children {
                    if let Some(value) = table.get(child.get_ref().as_ref()) {
                        let name = join(&name, child.get_ref());
                        self.read(name, child.span().start, spanned.get_ref(), value)?;
                    }
                }
                Ok(())
            }
            (kind, _, value) => {
                let value = accept(kind, value.clone(), &name, &origin, self.base)?;
                self.values.insert(name, (value, origin));
                Ok(())
            }
        }
    }
}

/// Reads variables `HARVEST_SECTION__KEY`; relative paths are taken from the current folder.
pub(super) fn read_environment(
    schema: &Schema,
    variables: &[(String, String)],
) -> Result<Values, ConfigError> {
    let mut values = Values::new();
    for (variable, text) in variables {
        let Some(rest) = variable.strip_prefix("HARVEST_") else { continue };
        let name = rest.to_lowercase().replace("__", ".");
        if !name.contains('.') {
            let section = schema.sections().find(|section| name.starts_with(&format!("{section}_")));
            if section.is_some() {
                let hint = schema
                    .keys()
                    .iter()
                    .find(|key| key.kind != Kind::Table && key.name.replace('.', "_") == name)
                    .map(|key| variable_name(&key.name));
                return Err(ConfigError::Variable { variable: variable.clone(), hint });
            }
            // Not ours: HARVEST_REFERENCE and its like are read elsewhere.
            continue;
        }
        let origin = Origin::Environment(variable.clone());
        let key = schema.get(&name).ok_or_else(|| match unknown(schema, &name, origin.clone()) {
            ConfigError::UnknownKey { origin, key, hint } => {
                ConfigError::UnknownKey { origin, key, hint: hint.map(|hint| variable_name(&hint)) }
            }
            other => other,
        })?;
        let value = accept(&key.kind, parse(&key.kind, text), &name, &origin, &current_folder())?;
        values.insert(name, (value, origin));
    }
    Ok(values)
}

/// The environment variable of a key: `HARVEST_TRAINING__LR`.
pub fn variable_name(key: &str) -> String {
    format!("HARVEST_{}", key.to_uppercase().replace('.', "__"))
}

/// Reads the command line, later settings over earlier ones.
pub(super) fn read_overrides(schema: &Schema, overrides: &[Override]) -> Result<Values, ConfigError> {
    let mut values = Values::new();
    for setting in overrides {
        let origin = Origin::CommandLine(setting.argument.clone());
        let key = schema.get(&setting.key).ok_or_else(|| unknown(schema, &setting.key, origin.clone()))?;
        let parsed = parse(&key.kind, &setting.value);
        let value = accept(&key.kind, parsed, &setting.key, &origin, &current_folder())?;
        values.insert(setting.key.clone(), (value, origin));
    }
    Ok(values)
}

fn current_folder() -> PathBuf {
    std::env::current_dir().unwrap_or_default()
}

/// Outside a file there are no quotes: words stand for themselves, everything else is TOML.
fn parse(kind: &Kind, text: &str) -> Value {
    let as_toml = || {
        let mut table: toml::Table = toml::from_str(&format!("value = {text}")).ok()?;
        if table.len() == 1 { table.remove("value") } else { None }
    };
    let verbatim = || Value::String(text.to_string());
    match kind {
        Kind::Text | Kind::Path | Kind::Choice(_) => as_toml().filter(Value::is_str).unwrap_or_else(verbatim),
        _ => as_toml().unwrap_or_else(verbatim),
    }
}

fn unknown(schema: &Schema, name: &str, origin: Origin) -> ConfigError {
    let known = schema.keys().iter().map(|key| key.name.as_str());
    ConfigError::UnknownKey {
        origin,
        key: name.to_string(),
        hint: suggest::nearest_key(name, known).map(str::to_string),
    }
}

/// The value if `kind` accepts it: whole numbers may stand for numbers, relative paths are completed by `base`.
fn accept(kind: &Kind, value: Value, key: &str, origin: &Origin, base: &Path) -> Result<Value, ConfigError> {
    convert(kind, &value, base).ok_or_else(|| {
        let (wrong, wanted, place) = culprit(kind, &value, base);
        ConfigError::WrongType {
            origin: origin.clone(),
            key: key.to_string(),
            expected: describe(kind).into(),
            found: format!("{}{place}", found(wrong)).into(),
            hint: match (wanted, wrong) {
                (Kind::Choice(words), Value::String(word)) => {
                    suggest::nearest(word, words.iter().copied()).map(Into::into)
                }
                _ => None,
            },
        }
    })
}

/// What is wrong about a value that `kind` does not accept, what it should be, and where it stands in a list: an element of a
/// list of the right length, else the value itself.
fn culprit<'a>(kind: &'a Kind, value: &'a Value, base: &Path) -> (&'a Value, &'a Kind, String) {
    if let (Kind::List(element, count), Value::Array(list)) = (kind, value)
        && count.is_none_or(|count| count == list.len())
        && let Some(position) = list.iter().position(|value| convert(element, value, base).is_none())
    {
        return (&list[position], element, format!(" (element {})", position + 1));
    }
    (value, kind, String::new())
}

fn convert(kind: &Kind, value: &Value, base: &Path) -> Option<Value> {
    match (kind, value) {
        (Kind::Boolean, Value::Boolean(_)) | (Kind::Text, Value::String(_)) => Some(value.clone()),
        (Kind::Integer(min, max), Value::Integer(number)) => {
            (min..=max).contains(&number).then(|| value.clone())
        }
        (Kind::Number { .. }, Value::Integer(number)) => Some(Value::Float(*number as f64)),
        (Kind::Number { single }, Value::Float(number)) => {
            let fits = number.is_finite() && (!single || (*number as f32).is_finite());
            fits.then(|| value.clone())
        }
        (Kind::Path, Value::String(path)) if !path.is_empty() => {
            Some(Value::String(base.join(path).to_str()?.to_string()))
        }
        (Kind::Choice(words), Value::String(word)) => words.contains(&word.as_str()).then(|| value.clone()),
        (Kind::List(element, count), Value::Array(list)) => {
            if count.is_some_and(|count| count != list.len()) {
                return None;
            }
            list.iter().map(|value| convert(element, value, base)).collect::<Option<_>>().map(Value::Array)
        }
        (Kind::Map(element), Value::Table(table)) => table
            .iter()
            .map(|(name, value)| Some((name.clone(), convert(element, value, base)?)))
            .collect::<Option<_>>()
            .map(Value::Table),
        (Kind::Any, _) => Some(value.clone()),
        _ => None,
    }
}

fn describe(kind: &Kind) -> String {
    match kind {
        Kind::Table => "a section".into(),
        Kind::Boolean => "true or false".into(),
        Kind::Integer(0, i64::MAX) => "a whole number, 0 or more".into(),
        Kind::Integer(i64::MIN, i64::MAX) => "a whole number".into(),
        Kind::Integer(min, max) => format!("a whole number from {min} to {max}"),
        Kind::Number { .. } => "a finite number".into(),
        Kind::Text => "a string".into(),
        Kind::Path => "a path".into(),
        Kind::Choice(words) => match words {
            [only] => format!("\"{only}\""),
            [others @ .., last] => format!(
                "{} or \"{last}\"",
                others.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ")
            ),
            [] => "nothing".into(),
        },
        Kind::List(element, None) => format!("a list, each element {}", describe(element)),
        Kind::List(element, Some(count)) => {
            format!("a list of {count} elements, each {}", describe(element))
        }
        Kind::Map(element) => format!("a table, each value {}", describe(element)),
        Kind::Any => "a value".into(),
    }
}

fn found(value: &Value) -> String {
    match value {
        Value::Table(_) => "a table".into(),
        Value::Array(_) => "a list".into(),
        Value::String(text) => format!("{text:?}"),
        other => other.to_string(),
    }
}
