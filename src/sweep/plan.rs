//! A sweep's file: which runs it stands for.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::algorithms::AlgorithmName;
use crate::bounds::Invalid;
use crate::config::{
    ConfigError, ConfigPath, Override, Resolved, SWEEP_TABLES, Sources, SweepLayer, Tables, nearest,
    read_document, resolve,
};
use crate::experiment::network_config;

/// What a sweep's file says beyond a recipe's tables.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SweepFile {
    /// The recipe all runs share; the file's own tables win over it.
    pub recipe: Option<ConfigPath>,
    /// What differs from run to run.
    pub sweep: Axes,
}

/// Every combination of these is one run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Axes {
    /// Algorithms, in the order of tables and legends.
    pub algorithms: Vec<AlgorithmName>,
    /// Base models; left out, the recipe's.
    pub models: Vec<String>,
    /// Labelled images of each class.
    pub labels_per_class: Vec<u32>,
    /// Also supervised training on every label there is, one run for each model and seed: what the others are measured
    /// against, as in the published figure 7.
    pub fully_labelled: bool,
    /// Each chooses the labels (`data.seed`), and weights, order and views (`training.seed`).
    pub seeds: Vec<u64>,
    /// Settings of one algorithm only: `[sweep.overrides.fixmatch.training]`.
    pub overrides: BTreeMap<String, toml::Table>,
}

/// How many images of each class are labelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Labels {
    /// So many.
    PerClass(u32),
    /// All there are.
    All,
}

impl fmt::Display for Labels {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PerClass(labels) => labels.fmt(formatter),
            Self::All => "all".fmt(formatter),
        }
    }
}

/// One run of a sweep.
#[derive(Debug, Clone)]
pub struct Planned {
    /// Algorithm.
    pub algorithm: AlgorithmName,
    /// Base model.
    pub model: String,
    /// Labelled images of each class.
    pub labels_per_class: Labels,
    /// Seed of labels and training.
    pub seed: u64,
    /// All settings.
    pub config: Resolved,
}

/// All runs of a sweep, and where they go.
#[derive(Debug, Clone)]
pub struct Sweep {
    /// The file's name without its ending.
    pub name: String,
    /// Folder of the results and of all run folders.
    pub folder: PathBuf,
    /// In the order they are run: all of the first seed, then all of the next, so that a sweep that is not yet at its end
    /// already compares everything.
    pub runs: Vec<Planned>,
}

impl Sweep {
    /// Reads a sweep's file and the layers around it; `sources` has neither recipe nor sweep. `folder`: where the results
    /// go; without, a folder named like the file among the runs.
    ///
    /// # Errors
    /// What is wrong with any of the runs' settings, with file and line.
    pub fn read(file: &Path, sources: &Sources, folder: Option<&Path>) -> Result<Self, ConfigError> {
        let document = read_document::<SweepFile>(file, Tables::Only(&SWEEP_TABLES))?;
        let SweepFile { recipe, sweep: axes } = &document.value;
        axes.check().map_err(|invalid| document.locate(invalid))?;
        let mut sources = sources.clone();
        sources.recipe = recipe.as_ref().map(|ConfigPath(path)| path.clone());
        let name = file.file_stem().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let models: Vec<Option<&String>> =
            if axes.models.is_empty() { vec![None] } else { axes.models.iter().map(Some).collect() };

        let mut runs = Vec::new();
        let mut place = folder.map(Path::to_path_buf);
        for &seed in &axes.seeds {
            for &model in &models {
                for labels in axes.labels() {
                    for &algorithm in axes.algorithms(labels) {
                        let mut sources = sources.clone();
                        sources.sweep = Some(SweepLayer { file: file.into(), algorithm: algorithm.as_str() });
                        // The axes win over everything: a sweep whose runs do not differ would compare nothing.
                        let axis = |key: &str, value: String| Override::flag("sweep:", key, value);
                        if let Labels::PerClass(labels) = labels {
                            sources.overrides.push(axis("data.labels_per_class", labels.to_string()));
                        }
                        sources.overrides.extend(model.map(|model| axis("model.name", model.clone())));
                        sources.overrides.extend([
                            axis("algorithm.name", algorithm.to_string()),
                            axis("data.fully_labelled", (labels == Labels::All).to_string()),
                            axis("data.seed", seed.to_string()),
                            axis("training.seed", seed.to_string()),
                        ]);
                        let config = resolve(&sources)?;
                        // Two classes stand for any number: only the settings are looked at.
                        network_config(&config.value.model, 2).map_err(|error| {
                            let (key, reason) = ("model.name".to_owned(), format!("cannot be used: {error}"));
                            ConfigError::Invalid { origin: config.origin("model.name"), key, reason }
                        })?;
                        place.get_or_insert_with(|| {
                            config.value.run.folder.as_deref().unwrap_or(Path::new("runs")).join(&name)
                        });
                        let model = config.value.model.name.clone();
                        runs.push(Planned { algorithm, model, labels_per_class: labels, seed, config });
                    }
                }
            }
        }
        one_data_set(&runs)?;
        Ok(Self { name, folder: place.unwrap_or_default(), runs })
    }
}

impl Axes {
    fn labels(&self) -> impl Iterator<Item = Labels> {
        let all = self.fully_labelled.then_some(Labels::All);
        self.labels_per_class.iter().copied().map(Labels::PerClass).chain(all)
    }

    fn algorithms(&self, labels: Labels) -> &[AlgorithmName] {
        match labels {
            Labels::PerClass(_) => &self.algorithms,
            Labels::All => &[AlgorithmName::Supervised],
        }
    }

    fn check(&self) -> Result<(), Invalid> {
        axis("sweep.algorithms", &self.algorithms.iter().map(|name| name.as_str()).collect::<Vec<_>>())?;
        axis("sweep.labels_per_class", &self.labels_per_class)?;
        axis("sweep.seeds", &self.seeds)?;
        if !self.models.is_empty() {
            axis("sweep.models", &self.models)?;
        }
        for name in self.overrides.keys() {
            let known = || AlgorithmName::ALL.iter().map(|algorithm| algorithm.as_str());
            if !known().any(|algorithm| algorithm == name) {
                let hint =
                    nearest(name, known()).map_or(String::new(), |near| format!("; did you mean `{near}`?"));
                let reason = format!("has a table for `{name}`, which is no algorithm{hint}");
                return Err(Invalid { key: "sweep.overrides", reason });
            }
        }
        Ok(())
    }
}

/// Refuses an axis without values, or with one twice.
fn axis<T: Ord + std::fmt::Display>(key: &'static str, values: &[T]) -> Result<(), Invalid> {
    if values.is_empty() {
        return Err(Invalid { key, reason: "is missing or empty; name at least one".into() });
    }
    let mut seen = BTreeSet::new();
    match values.iter().find(|value| !seen.insert(*value)) {
        Some(twice) => Err(Invalid { key, reason: format!("names {twice} twice") }),
        None => Ok(()),
    }
}

/// All runs are trained and tested on the same images, which are scanned once.
fn one_data_set(runs: &[Planned]) -> Result<(), ConfigError> {
    let Some(first) = runs.first() else { return Ok(()) };
    for run in runs {
        for (key, same) in [
            ("data.root", run.config.value.data.root == first.config.value.data.root),
            ("data.kind", run.config.value.data.kind == first.config.value.data.kind),
            ("run.device", run.config.value.run.device == first.config.value.run.device),
            ("run.folder", run.config.value.run.folder == first.config.value.run.folder),
        ] {
            if !same {
                let reason = format!("differs for {}; all runs of a sweep share it", run.algorithm);
                return Err(ConfigError::Invalid { origin: run.config.origin(key), key: key.into(), reason });
            }
        }
    }
    Ok(())
}

impl Planned {
    /// As people call it: "freematch, resnet8, 10 labels per class, seed 1".
    pub fn describe(&self) -> String {
        let labels = match self.labels_per_class {
            Labels::PerClass(1) => "1 label per class".to_owned(),
            Labels::PerClass(labels) => format!("{labels} labels per class"),
            Labels::All => "all labels".to_owned(),
        };
        let Self { algorithm, model, seed, .. } = self;
        format!("{algorithm}, {model}, {labels}, seed {seed}")
    }
}
