//! The folder of stored weights.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use harvest_models::checkpoint::{Weights, read_weights};
use harvest_models::{LoadOptions, LoadReport, write_safetensors};
use serde::{Deserialize, Serialize};

use super::{WeightsError, content, fit};
use crate::files::{WriteError, atomic_write};

/// Weights by name, in one folder.
#[derive(Debug, Clone)]
pub struct Store {
    folder: PathBuf,
}

/// What is known of stored weights; kept beside them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Their name.
    pub name: String,
    /// File or address they came from.
    pub origin: String,
    /// How that was stored.
    pub format: String,
    /// BLAKE3 of that file.
    pub origin_blake3: String,
    /// SHA-256 of that file, if it was fetched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin_sha256: Option<String>,
    /// BLAKE3 of the stored file.
    pub blake3: String,
    /// Tensors in it.
    pub tensors: usize,
    /// Values in them.
    pub values: usize,
    /// Preset that they were seen to fit, if one was named.
    pub model: Option<String>,
}

/// Where weights come from, in words, and what they must hash to.
pub(super) struct Origin {
    pub text: String,
    pub sha256: Option<String>,
}

/// Weights that were stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Added {
    /// What is known of them.
    pub entry: Entry,
    /// What became of each in the network of the preset that was named.
    pub report: Option<LoadReport>,
}

impl Store {
    /// The store in `folder`, which need not exist.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// `$HARVEST_WEIGHTS`, else `$XDG_DATA_HOME/harvest/weights`, else `~/.local/share/harvest/weights`.
    ///
    /// # Errors
    /// If there is no home folder either.
    pub fn of_this_user() -> Result<Self, WeightsError> {
        let variable =
            |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        if let Some(folder) = variable("HARVEST_WEIGHTS") {
            return Ok(Self::new(folder));
        }
        let data =
            variable("XDG_DATA_HOME").or_else(|| Some(std::env::home_dir()?.join(".local").join("share")));
        Ok(Self::new(data.ok_or(WeightsError::NoFolder)?.join("harvest").join("weights")))
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The weights stored as `name`, whether they exist or not.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.safetensors"))
    }

    fn record(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.json"))
    }

    /// Reads `source` whole and stores what it holds as `name`, if it fits the preset `model`. Nothing is stored of a
    /// damaged file.
    ///
    /// # Errors
    /// If the file cannot be used, or the name is taken by other weights.
    pub fn add(
        &self,
        name: &str,
        source: &Path,
        model: Option<&str>,
        options: LoadOptions,
    ) -> Result<Added, WeightsError> {
        let text = std::path::absolute(source).unwrap_or_else(|_| source.to_owned()).display().to_string();
        self.keep(name, source, Origin { text, sha256: None }, model, options)
    }

    /// [`Store::add`] of a file that has another origin than its path.
    pub(super) fn keep(
        &self,
        name: &str,
        source: &Path,
        origin: Origin,
        model: Option<&str>,
        options: LoadOptions,
    ) -> Result<Added, WeightsError> {
        let name = checked(name)?;
        let weights = read_weights(source)?;
        refuse_what_is_no_number(&weights, source)?;
        let report = model.map(|model| fit(&weights, source, model, options)).transpose()?;
        let origin_blake3 = content(source)?.to_string();
        let file = self.file(name);
        if let Ok(earlier) = self.get(name)
            && earlier.origin_blake3 != origin_blake3
        {
            return Err(self.taken(earlier));
        }
        fs::create_dir_all(&self.folder).map_err(WriteError::at(&self.folder))?;
        // Written beside, then renamed; the record last, which is what makes the weights known.
        let beside = tempfile::Builder::new().prefix(".adding-").tempdir_in(&self.folder);
        let beside = beside.map_err(WriteError::at(&self.folder))?;
        let temporary = beside.path().join("weights.safetensors");
        let metadata = HashMap::from([
            ("format".to_owned(), "pt".to_owned()),
            ("origin_blake3".to_owned(), origin_blake3.clone()),
        ]);
        let failed = |error: harvest_models::WeightsError| WriteError {
            path: file.clone(),
            source: std::io::Error::other(error),
        };
        write_safetensors(&temporary, &weights.tensors, metadata).map_err(failed)?;
        let blake3 = content(&temporary)?.to_string();
        let synced = fs::File::open(&temporary).and_then(|written| written.sync_all());
        synced.and_then(|()| fs::rename(&temporary, &file)).map_err(WriteError::at(&file))?;
        let entry = Entry {
            name: name.to_owned(),
            origin: origin.text,
            format: weights.format.to_string(),
            origin_blake3,
            origin_sha256: origin.sha256,
            blake3,
            tensors: weights.tensors.len(),
            values: weights.tensors.values().map(|data| data.num_elements()).sum(),
            model: model.map(str::to_owned),
        };
        let json = serde_json::to_vec_pretty(&entry).expect("a record is plain data");
        atomic_write(&self.record(name), &json)?;
        Ok(Added { entry, report })
    }

    pub(super) fn taken(&self, earlier: Entry) -> WeightsError {
        WeightsError::Taken { path: self.file(&earlier.name), name: earlier.name, origin: earlier.origin }
    }

    /// What is known of the weights stored as `name`.
    ///
    /// # Errors
    /// If there are none, or their record cannot be read.
    pub fn get(&self, name: &str) -> Result<Entry, WeightsError> {
        let record = self.record(checked(name)?);
        match fs::read(&record) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|error| WeightsError::Read { path: record, source: error.into() }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(WeightsError::NotStored { name: name.to_owned(), known: self.known()? })
            }
            Err(source) => Err(WeightsError::Read { path: record, source }),
        }
    }

    /// All stored weights, by name.
    ///
    /// # Errors
    /// If the folder or a record cannot be read.
    pub fn list(&self) -> Result<Vec<Entry>, WeightsError> {
        self.names()?.iter().map(|name| self.get(name)).collect()
    }

    /// Refuses a stored file that is not what was stored.
    ///
    /// # Errors
    /// If its content has changed, or cannot be read.
    pub fn check(&self, file: &Path) -> Result<(), WeightsError> {
        let name = file.file_stem().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let entry = self.get(&name)?;
        match content(file)?.to_string() == entry.blake3 {
            true => Ok(()),
            false => Err(WeightsError::Changed { path: file.to_owned() }),
        }
    }

    fn names(&self) -> Result<Vec<String>, WeightsError> {
        let failed = |source| WeightsError::Read { path: self.folder.clone(), source };
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let file = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
            names.extend(file.strip_suffix(".json").filter(|name| checked(name).is_ok()).map(str::to_owned));
        }
        names.sort();
        Ok(names)
    }

    /// Stored names, in words.
    fn known(&self) -> Result<String, WeightsError> {
        let names = self.names()?;
        Ok(if names.is_empty() { "none yet".into() } else { names.join(", ") })
    }
}

/// A name that is one part of a path and hides nothing.
fn checked(name: &str) -> Result<&str, WeightsError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let good =
        name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.len() <= 100 && name.chars().all(plain);
    if good { Ok(name) } else { Err(WeightsError::Name { name: name.to_owned() }) }
}

fn refuse_what_is_no_number(weights: &Weights, path: &Path) -> Result<(), WeightsError> {
    for (name, data) in &weights.tensors {
        if let Some(value) = data.as_slice::<f32>().ok().and_then(|v| v.iter().find(|v| !v.is_finite())) {
            let (path, tensor) = (path.to_owned(), name.clone());
            return Err(WeightsError::NotFinite { path, tensor, value: *value });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tests/checkpoints").join(name)
    }

    #[test]
    fn stored_weights_are_what_the_file_held_and_a_change_is_noticed() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = Store::new(folder.path().join("weights"));
        assert!(store.list().expect("nothing is there").is_empty());
        let add = |file: &str| store.add("tiny", &fixture(file), None, LoadOptions::default());
        let added = add("training.pth").expect("a good file");
        assert_eq!(store.list().expect("one"), [added.entry]);
        add("training.pth").expect("the same once more");
        assert!(matches!(add("legacy.pth"), Err(WeightsError::Taken { .. })));
        let (kept, source) = (read_weights(&store.file("tiny")), read_weights(&fixture("training.pth")));
        assert_eq!(kept.expect("stored").tensors, source.expect("a good file").tensors);
        store.check(&store.file("tiny")).expect("unchanged");
        let mut bytes = fs::read(store.file("tiny")).expect("stored");
        *bytes.last_mut().expect("not empty") ^= 1;
        fs::write(store.file("tiny"), bytes).expect("writable");
        assert!(matches!(store.check(&store.file("tiny")), Err(WeightsError::Changed { .. })));
    }

    #[test]
    fn a_refused_file_leaves_nothing() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = Store::new(folder.path());
        let add =
            |name: &str, file: &str, model| store.add(name, &fixture(file), model, LoadOptions::default());
        assert!(add("bad", "hostile.pth", None).is_err());
        assert!(matches!(add("../bad", "legacy.pth", None), Err(WeightsError::Name { .. })));
        let error = add("bad", "legacy.pth", Some("resnet8")).expect_err("a vision transformer's");
        assert!(error.to_string().contains("--allow-unexpected"), "{error}");
        assert!(matches!(add("bad", "legacy.pth", Some("resnet9")), Err(WeightsError::Preset { .. })));
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0);
        let error = store.get("bad").expect_err("not stored").to_string();
        assert!(error.contains("none yet"), "{error}");
    }
}
