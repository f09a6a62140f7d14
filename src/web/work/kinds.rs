//! What a job of the page can do. One more kind is one more line in each match below.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::super::error::WebError;
use crate::config::{Config, Origin, Override, Resolved, Sources, Tables, read_document, resolve};
use crate::project::{Project, Run};

/// What looks at images to group them, where nobody chose a network: it learns from a few hundred of them in a minute on
/// two processors, where the network that trains by default takes hours and 7 GB.
const GROUPS_BY: &str = "resnet8";

/// What a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Looks at every image once, and makes thumbnails.
    Scan,
    /// Groups like images.
    Cluster,
    /// Trains a model.
    Train,
    /// Writes a label for every image of a finished run.
    LabelAll,
}

/// What somebody chose for it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Values of the configuration by key, as typed: `training.lr` to `3e-4`. Empty ones count as not said.
    pub set: BTreeMap<String, String>,
    /// Train on the labelled images alone too, to compare.
    pub with_baseline: bool,
    /// Name of the run whose model a training starts from.
    pub from: Option<String>,
    /// Do it anew, even if the same was done before.
    pub fresh: bool,
    /// Name of the run that is used.
    pub run: Option<String>,
}

impl Kind {
    /// In one word, part of the job's name.
    pub fn word(self) -> &'static str {
        match self {
            Self::Scan => "scan",
            Self::Cluster => "cluster",
            Self::Train => "train",
            Self::LabelAll => "label-all",
        }
    }

    /// For people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Scan => "Look at the images",
            Self::Cluster => "Group the images",
            Self::Train => "Train a model",
            Self::LabelAll => "Label every image",
        }
    }

    /// The kind that a record names by its word.
    pub fn of_word(word: &str) -> Option<Self> {
        [Self::Scan, Self::Cluster, Self::Train, Self::LabelAll].into_iter().find(|kind| kind.word() == word)
    }

    /// Whether several ranks can do it together.
    pub fn on_ranks(self) -> bool {
        self == Self::Train
    }

    /// Whether it goes by the labels as they are when it is planned.
    pub fn takes_labels(self) -> bool {
        matches!(self, Self::Train | Self::Cluster)
    }

    /// Arguments of this program that do it.
    ///
    /// # Errors
    /// If a setting makes no sense, in words that name it.
    pub fn arguments(self, project: &Project, settings: &Settings) -> Result<Vec<String>, WebError> {
        let dir = text(project.dir().to_owned())?;
        let mut arguments: Vec<String> = match self {
            Self::Scan => ["scan", "--thumbnails", "--project", &dir].map(str::to_owned).to_vec(),
            Self::Cluster => ["cluster", "--project", &dir].map(str::to_owned).to_vec(),
            Self::Train => ["train", "--project", &dir].map(str::to_owned).to_vec(),
            Self::LabelAll => {
                let run = settings.run.as_deref().ok_or_else(|| WebError::Bad("no run is named".into()))?;
                let folder = run_folder(project, run)?;
                return Ok(vec!["labels".into(), text(folder)?]);
            }
        };
        let resolved = self.check(project, settings)?;
        let chosen = |key: &str| !matches!(resolved.origin(key), Origin::Default);
        if self == Self::Cluster && !chosen("model.name") && !chosen("model.pretrained") {
            arguments.extend(["--model".into(), GROUPS_BY.into()]);
        }
        if self == Self::Train {
            if settings.with_baseline && !is_supervised(settings) {
                arguments.push("--with-baseline".into());
            }
            if let Some(run) = from(settings) {
                let weights = run_folder(project, run)?.join("bundle").join("model.safetensors");
                if !weights.is_file() {
                    return Err(WebError::Bad(format!("the run `{run}` has no model to start from")));
                }
                arguments.extend(["--pretrained".into(), text(weights)?]);
                // A model goes on as what it is.
                for (key, value) in model_of(project, run, settings)? {
                    arguments.extend(["--set".into(), format!("{key}={value}")]);
                }
            }
        }
        if settings.fresh && matches!(self, Self::Train | Self::Cluster) {
            arguments.push("--fresh".into());
        }
        for (key, value) in said(settings) {
            arguments.extend(["--set".into(), format!("{key}={value}")]);
        }
        Ok(arguments)
    }

    /// What the settings come to, with all layers below them.
    ///
    /// # Errors
    /// The first one that makes no sense.
    pub fn check(self, project: &Project, settings: &Settings) -> Result<Resolved, WebError> {
        let mut sources = Sources::of_this_machine();
        sources.project = Some(project.file());
        sources.overrides = said(settings)
            .map(|(key, value)| Override { argument: key.clone(), key: key.clone(), value: value.to_owned() })
            .collect();
        let resolved = resolve(&sources).map_err(|error| WebError::Bad(error.to_string()))?;
        let classes = project.classes().len().max(2);
        crate::experiment::network_config(&resolved.value.model, classes)
            .map_err(|error| WebError::Bad(format!("`model.name`: {error}")))?;
        Ok(resolved)
    }
}

/// The keys that were given a value.
fn said(settings: &Settings) -> impl Iterator<Item = (&String, &str)> {
    settings.set.iter().map(|(key, value)| (key, value.trim())).filter(|(_, value)| !value.is_empty())
}

/// Name of the run whose model a training starts from.
fn from(settings: &Settings) -> Option<&str> {
    settings.from.as_deref().filter(|run| !run.is_empty())
}

/// The settings by which a network is the one of `run`, but for those that were said.
fn model_of(
    project: &Project,
    run: &str,
    settings: &Settings,
) -> Result<Vec<(&'static str, String)>, WebError> {
    let path = run_folder(project, run)?.join("config.toml");
    let own =
        read_document::<Config>(&path, Tables::All).map_err(|error| WebError::Bad(error.to_string()))?;
    let own = own.value.model;
    let known =
        [("model.name", Some(own.name)), ("model.image_size", own.image_size.map(|size| size.to_string()))];
    let mut wanted = Vec::new();
    for (key, value) in known {
        let Some(value) = value else { continue };
        match said(settings).find(|(other, _)| *other == key) {
            None => wanted.push((key, value)),
            Some((_, other)) if key == "model.name" && other != value => {
                return Err(WebError::Bad(format!(
                    "`model.name` is {other}, but the model to continue from is {value}; leave it empty, or start from scratch"
                )));
            }
            Some(_) => {}
        }
    }
    Ok(wanted)
}

fn is_supervised(settings: &Settings) -> bool {
    settings.set.get("algorithm.name").is_some_and(|name| name.trim() == "supervised")
}

/// The folder of a run of this project.
fn run_folder(project: &Project, name: &str) -> Result<PathBuf, WebError> {
    let missing = || WebError::Missing { what: format!("run `{name}`") };
    // A name, and no path that leads elsewhere.
    let plain =
        name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)) && !name.starts_with('.');
    let folder = project.runs().join(name);
    if !plain || name.is_empty() || Run::open(&folder).is_err() {
        return Err(missing());
    }
    Ok(folder)
}

fn text(path: PathBuf) -> Result<String, WebError> {
    path.into_os_string().into_string().map_err(|path| {
        WebError::Bad(format!("the path `{}` is not text; rename its folders", path.to_string_lossy()))
    })
}
