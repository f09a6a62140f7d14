//! What a run is to do, before it has a folder, and what tells it from others.
//!
//! A run that was interrupted is found again by what it follows from: its settings, and of each input what the run depends on.

use crate::config::Resolved;
use crate::data::Manifest;

/// A file for the folder `inputs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// Its name, `split.json`.
    pub name: String,
    /// Its content.
    pub bytes: Vec<u8>,
    /// Two inputs of the same name are the same exactly if this is.
    identity: blake3::Hash,
}

impl Input {
    /// One that is told from others by all of its content.
    pub fn new(name: impl Into<String>, bytes: Vec<u8>) -> Self {
        Self { name: name.into(), identity: blake3::hash(&bytes), bytes }
    }

    /// The list of a run's images. What a run does not depend on is no part of its identity, see [`Manifest::identity`].
    pub fn images(manifest: &Manifest) -> Self {
        Self { name: "images.jsonl".into(), bytes: manifest.to_bytes(), identity: manifest.identity() }
    }
}

/// What a run is to do, before it has a folder.
#[derive(Debug, Clone)]
pub struct RunPlan {
    /// First part of the folder's name after the time.
    pub algorithm: String,
    /// Last part of the folder's name.
    pub model: String,
    /// Content of `config.toml`.
    pub config: String,
    /// See [`Resolved::fingerprint`].
    pub config_fingerprint: blake3::Hash,
    /// What is frozen with it.
    pub inputs: Vec<Input>,
    /// What was computed from these and is frozen too; no part of the fingerprint, so that the run is found again without it.
    pub derived: Vec<Input>,
}

impl RunPlan {
    /// The plan of a training run with the algorithm called `algorithm`.
    pub fn new(config: &Resolved, algorithm: &str, inputs: Vec<Input>) -> Self {
        // A name that somebody else chose becomes part of a folder's.
        let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
        Self {
            algorithm: algorithm.chars().map(plain).collect(),
            model: config.value.model.name.clone(),
            config: format!(
                "# Every key of this run, and where its value came from.\n\n{}",
                config.to_toml()
            ),
            config_fingerprint: config.fingerprint(),
            inputs,
            derived: Vec::new(),
        }
    }

    /// The same for two plans exactly if they have the same configuration (but for `[run]`) and the same inputs.
    pub fn fingerprint(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.config_fingerprint.as_bytes());
        let mut inputs: Vec<_> = self.inputs.iter().collect();
        inputs.sort_by(|a, b| a.name.cmp(&b.name));
        for input in inputs {
            hasher.update(blake3::hash(input.name.as_bytes()).as_bytes());
            hasher.update(input.identity.as_bytes());
        }
        hasher.finalize()
    }
}
