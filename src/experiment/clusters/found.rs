//! What is left of a clustering.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::TensorData;
use harvest_models::{NamedTensors, read_safetensors, write_safetensors};
use serde::{Deserialize, Serialize};

use crate::clustering::{Embedding, LearnError, Quality};
use crate::experiment::{ExperimentError, Places};
use crate::files::atomic_write;
use crate::metrics::ClusterScores;
use crate::project::{ClusterRow, Run, RunState, read_clusters, write_clusters};

/// The table of all images in a cluster folder.
pub const CLUSTERS: &str = "clusters.csv";
/// A [`Clustered`].
const SUMMARY: &str = "clusters.json";
/// Features of every image, in the order of the table.
const FEATURES: &str = "features.safetensors";
/// The cluster of every image by every way that was tried.
const WAYS: &str = "ways.safetensors";

/// A way to group, and the cluster of each image.
pub(super) type Way = (FoundBy, Vec<u32>);

/// How clusters were found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FoundBy {
    /// k-means on the features.
    KMeans,
    /// SCAN's heads.
    Scan,
    /// SCAN's heads, taught by their own confident images.
    SelfLabel,
}

impl FoundBy {
    /// For files.
    fn key(self) -> &'static str {
        match self {
            Self::KMeans => "kmeans",
            Self::Scan => "scan",
            Self::SelfLabel => "selflabel",
        }
    }

    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Self::KMeans => "k-means",
            Self::Scan => "SCAN",
            Self::SelfLabel => "SCAN with self-labelling",
        }
    }
}

/// One way to group the images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// How.
    pub found_by: FoundBy,
    /// Without labels.
    pub quality: Quality,
    /// With the labels that are known, if any are.
    pub scores: Option<ClusterScores>,
}

/// What is left of a clustering; kept as `clusters.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Clustered {
    /// Its folder.
    #[serde(skip)]
    pub folder: PathBuf,
    /// Images.
    pub images: usize,
    /// Clusters.
    pub clusters: usize,
    /// The way that was taken.
    pub found_by: FoundBy,
    /// All that were tried.
    pub candidates: Vec<Candidate>,
    /// Images that are the same or nearly the same as an earlier one.
    pub near_duplicates: usize,
    /// Seconds of each part of the work in this session.
    pub seconds: BTreeMap<String, f64>,
    /// What a person should know of how the clusters were found.
    pub notes: Vec<String>,
}

impl Clustered {
    /// The quality of what was taken.
    pub fn quality(&self) -> Quality {
        let taken = self.candidates.iter().find(|candidate| candidate.found_by == self.found_by);
        taken.map_or(Quality { silhouette: 0.0, agreement: 0.0, stability: None }, |candidate| {
            candidate.quality
        })
    }

    /// Reads it back from a folder.
    ///
    /// # Errors
    /// If the folder's work is not at its end, or the file is damaged.
    pub fn read(folder: &Path) -> Result<Self, ExperimentError> {
        let path = folder.join(SUMMARY);
        let damaged = |reason: String| ExperimentError::Damaged { path: path.clone(), reason };
        let bytes = std::fs::read(&path).map_err(|error| damaged(error.to_string()))?;
        let read: Self = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        Ok(Self { folder: folder.to_owned(), ..read })
    }

    /// The newest finished clustering of these places, if there is one.
    ///
    /// # Errors
    /// If a folder cannot be read.
    pub fn latest(places: &Places) -> Result<Option<Self>, ExperimentError> {
        for run in Run::list(&places.clusters())?.into_iter().rev() {
            if matches!(run.state()?, RunState::Done(_)) {
                return Self::read(run.dir()).map(Some);
            }
        }
        Ok(None)
    }

    /// The line of every image.
    ///
    /// # Errors
    /// If the table is damaged.
    pub fn table(&self) -> Result<Vec<ClusterRow>, ExperimentError> {
        Ok(read_clusters(&self.folder.join(CLUSTERS))?)
    }

    /// Writes table and features.
    pub(super) fn write_table(&self, table: &[ClusterRow], rows: &Embedding) -> Result<(), ExperimentError> {
        let data = TensorData::new(rows.values().to_vec(), [rows.len(), rows.dim()]);
        let tensors = NamedTensors::from([("features".to_owned(), data)]);
        write_safetensors(&self.folder.join(FEATURES), &tensors, Default::default())
            .map_err(LearnError::from)?;
        Ok(write_clusters(&self.folder.join(CLUSTERS), table)?)
    }

    /// Writes which cluster each way puts each image in.
    pub(super) fn write_ways(&self, ways: &[Way]) -> Result<(), ExperimentError> {
        let tensors: NamedTensors = ways
            .iter()
            .map(|(found_by, clusters)| {
                let clusters: Vec<i64> = clusters.iter().map(|cluster| i64::from(*cluster)).collect();
                (found_by.key().to_owned(), TensorData::new(clusters, [self.images]))
            })
            .collect();
        Ok(write_safetensors(&self.folder.join(WAYS), &tensors, Default::default())
            .map_err(LearnError::from)?)
    }

    /// Which cluster each way puts each image in.
    ///
    /// # Errors
    /// If the file is damaged.
    pub(super) fn ways(&self) -> Result<Vec<Way>, ExperimentError> {
        let path = self.folder.join(WAYS);
        let damaged = |reason: String| ExperimentError::Damaged { path: path.clone(), reason };
        let mut tensors = read_safetensors(&path).map_err(|error| damaged(error.to_string()))?;
        let mut way = |candidate: &Candidate| {
            let found_by = candidate.found_by;
            let data = tensors.remove(found_by.key()).filter(|data| data.shape().to_vec() == [self.images]);
            let data = data.ok_or_else(|| damaged(format!("it does not hold `{}`", found_by.key())))?;
            Ok((found_by, data.iter::<i64>().map(|cluster| cluster as u32).collect()))
        };
        self.candidates.iter().map(&mut way).collect()
    }

    /// Writes the summary.
    pub(super) fn write(&self) -> Result<(), ExperimentError> {
        let json = serde_json::to_vec_pretty(self).expect("scores and times are plain data");
        Ok(atomic_write(&self.folder.join(SUMMARY), &json)?)
    }

    /// The file of [`Self::features`]: a safetensors file with a table `features`, rows of length one.
    pub fn features_file(&self) -> PathBuf {
        self.folder.join(FEATURES)
    }

    /// The features of every image, in the order of the table.
    ///
    /// # Errors
    /// If the file is damaged.
    pub fn features(&self) -> Result<Embedding, ExperimentError> {
        let path = self.features_file();
        let damaged = |reason: String| ExperimentError::Damaged { path: path.clone(), reason };
        let mut tensors = read_safetensors(&path).map_err(|error| damaged(error.to_string()))?;
        let data = tensors.remove("features").ok_or_else(|| damaged("it holds no features".to_owned()))?;
        let dim = *data.shape().to_vec().last().unwrap_or(&0);
        Embedding::new(data.iter::<f32>().collect(), dim).map_err(|error| damaged(error.to_string()))
    }

    /// A sentence for `DONE` and the terminal.
    pub fn summary(&self) -> String {
        format!(
            "{} images in {} clusters by {}: {}",
            self.images,
            self.clusters,
            self.found_by.words(),
            self.quality().sentence()
        )
    }
}
