//! From images without labels to clusters: `harvest cluster`.
//!
//! ```text
//! images ─▶ features (a loaded network's, or SimCLR's) ─▶ neighbours ─▶ k-means, SCAN ─▶ the better ─▶ map, sheets, page
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use burn::tensor::Device;
use harvest_models::{Classifier, LoadOptions};
use rand::RngExt;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::clusters_page::{ClusterPage, SheetOf};
use super::{Dataset, ExperimentError, Places, Shown, network_config};
use crate::algorithms::Alone;
use crate::augment::View;
use crate::clustering::{
    Assignment, AugmentedCopy, ClusterError, Embedding, KMeans, LearnError, Learning, Look, Neighbours,
    Quality, Scan, Scanned, SimClr, embed, embed_copy, map, near_duplicates,
};
use crate::config::{ClusteringMethod, Resolved, Switch};
use crate::data::{ImageCache, Manifest};
use crate::device;
use crate::files::{WriteError, atomic_write};
use crate::metrics::ClusterScores;
use crate::project::{ClusterRow, Input, Run, RunPlan, RunState, write_clusters};
use crate::random::{Purpose, stream};
use crate::weights::start_from;

/// Files of a cluster folder.
pub const CLUSTERS: &str = "clusters.csv";
/// See [`CLUSTERS`].
const SUMMARY: &str = "clusters.json";
/// Features of every image in the order of the table; see [`Features`].
const FEATURES: &str = "features.safetensors";
/// k-means starts.
const STARTS: u64 = 10;
/// Neighbours must agree by so much more than with k-means for SCAN to be preferred.
const CLEARLY: f64 = 0.01;

/// Everything clustering needs.
pub struct Clustering<'a> {
    /// Sections `clustering`, `model` and `views` are used.
    pub config: &'a Resolved,
    /// The images; labels in it only judge the clusters.
    pub manifest: &'a Manifest,
    /// Where to compute.
    pub device: Device,
    /// Where lists, caches and clusters are kept.
    pub places: &'a Places,
}

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
}

impl Clustered {
    /// The quality of what was taken.
    pub fn quality(&self) -> Quality {
        let taken = self.candidates.iter().find(|candidate| candidate.found_by == self.found_by);
        taken.map_or(Quality { silhouette: 0.0, agreement: 0.0 }, |candidate| candidate.quality)
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

    /// The features of every image, in the order of the table.
    ///
    /// # Errors
    /// If the file is damaged.
    pub fn features(&self) -> Result<Embedding, ExperimentError> {
        let path = self.folder.join(FEATURES);
        let damaged = |reason: String| ExperimentError::Damaged { path: path.clone(), reason };
        let mut tensors =
            harvest_models::read_safetensors(&path).map_err(|error| damaged(error.to_string()))?;
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

impl Clustering<'_> {
    /// Groups the images in a new folder, or goes on with an unfinished one of the same images and settings unless `fresh`; a
    /// finished one is taken as it is.
    ///
    /// # Errors
    /// Whatever stops it. The folder then says so in plain words, and keeps what was learned.
    pub fn execute(
        &self,
        fresh: bool,
        arguments: &[String],
        progress: &Shown,
        stop: &AtomicBool,
    ) -> Result<Clustered, ExperimentError> {
        self.check()?;
        let (plan, folder) = (self.plan(), self.places.clusters());
        if !fresh {
            for run in Run::list(&folder)?.into_iter().rev() {
                if run.fingerprint()? == plan.fingerprint() && matches!(run.state()?, RunState::Done(_)) {
                    return Clustered::read(run.dir());
                }
            }
        }
        let unfinished = if fresh { None } else { Run::latest_unfinished(&folder, &plan.fingerprint())? };
        let mut run = match unfinished {
            Some(run) => run,
            None => Run::create(&folder, &plan)?,
        };
        run.begin(device::describe(&self.device), arguments)?;
        let result = self.work(run.dir(), progress, stop);
        match &result {
            Ok(clustered) => run.finish(&clustered.summary())?,
            Err(ExperimentError::Cluster(LearnError::Cluster(ClusterError::Interrupted))) => run.pause()?,
            Err(error) => run.fail(&super::chain(error))?,
        }
        result
    }

    fn labels(&self) -> Vec<Option<u16>> {
        self.manifest.images.iter().map(|image| image.label).collect()
    }

    /// How many clusters.
    fn clusters(&self) -> usize {
        self.config.value.clustering.clusters.map_or(self.manifest.classes.len(), |count| count as usize)
    }

    /// How many of them are left: more clusters than classes are merged to as many.
    fn kept(&self) -> usize {
        let classes = self.manifest.classes.len();
        if classes >= 2 { self.clusters().min(classes) } else { self.clusters() }
    }

    fn check(&self) -> Result<(), ExperimentError> {
        let (images, clusters) = (self.manifest.images.len(), self.clusters());
        if clusters < 2 {
            return Err(ExperimentError::HowManyClusters);
        }
        if images < clusters {
            return Err(ExperimentError::FewerImagesThanClusters { images, clusters });
        }
        if let Some(named) = &self.config.value.model.pretrained {
            crate::weights::find(named).map_err(ExperimentError::Pretrained)?;
        }
        Ok(())
    }

    /// What is to be done. Settings of training do not matter, so that other ones find the same clusters.
    fn plan(&self) -> RunPlan {
        let config = &self.config.value;
        let settings =
            serde_json::to_vec(&(&config.clustering, &config.model, &config.views, self.clusters()));
        let images = Input { name: "images.jsonl".into(), bytes: self.manifest.to_bytes() };
        let plan = RunPlan::new(self.config, "cluster", vec![images]);
        RunPlan { config_fingerprint: blake3::hash(&settings.expect("settings are plain data")), ..plan }
    }

    fn work(&self, folder: &Path, progress: &Shown, stop: &AtomicBool) -> Result<Clustered, ExperimentError> {
        let mut clock = Clock::default();
        let config = &self.config.value;
        let (images, seed) = (&self.manifest.images, config.clustering.seed);
        let all: Vec<u32> = (0..images.len() as u32).collect();
        let model = network_config(&config.model, self.manifest.classes.len().max(2))?;
        let size = model.image_size() as u32;
        let cache = Dataset::cache(self.manifest, &self.places.cache, size, progress, stop)?;
        clock.mark("pictures");

        let network = self.network(folder, &cache, &all, progress, stop)?;
        clock.mark("pretraining");
        let bar = progress.begin("features", images.len() as u64);
        let store = self.places.cache.join("features");
        let rows =
            embed(&network, &cache, &all, &config.views.normalisation, &store, stop, &bar)?.normalised();
        bar.finish();
        clock.mark("features");

        let bar = progress.begin("neighbours", Neighbours::work(&rows));
        let (k, search) = (config.clustering.neighbours as usize, config.clustering.search);
        let neighbours =
            Neighbours::search(&rows, k, search, seed, &self.device, stop, &mut |done| bar.set(done))
                .map_err(LearnError::from)?;
        bar.finish();
        clock.mark("neighbours");

        let seen = Seen {
            rows: &rows,
            neighbours: &neighbours,
            network: &network,
            cache: &cache,
            all: &all,
            folder,
        };
        let found = self.group(&seen, progress, stop)?;
        clock.mark("clusters");
        let looks = Look::of_all(all.par_iter().map(|image| cache.image(*image)), size);
        let first = near_duplicates(&looks, &neighbours);
        clock.mark("near-duplicates");
        let points = map(&rows, seed, &self.device, stop).map_err(LearnError::from)?;
        clock.mark("map");

        let (best, candidates) = self.judged(&rows, &neighbours, found)?;
        let table: Vec<ClusterRow> = images
            .iter()
            .enumerate()
            .map(|(index, image)| ClusterRow {
                path: image.path.clone(),
                hash: image.hash,
                cluster: best.clusters[index],
                confidence: best.confidence[index],
                first: first[index],
                x: points[index][0],
                y: points[index][1],
            })
            .collect();
        let clustered = Clustered {
            folder: folder.to_owned(),
            images: images.len(),
            clusters: self.kept(),
            found_by: best.found_by,
            candidates,
            near_duplicates: (0u32..).zip(&first).filter(|(image, first)| image != *first).count(),
            seconds: clock.seconds,
        };
        self.write(&clustered, &table, &rows, &cache, &points)?;
        Ok(clustered)
    }

    /// The network whose features are used: a loaded one, or one that learned from these images.
    fn network(
        &self,
        folder: &Path,
        cache: &ImageCache,
        all: &[u32],
        progress: &Shown,
        stop: &AtomicBool,
    ) -> Result<Classifier, ExperimentError> {
        let config = &self.config.value;
        let model = network_config(&config.model, self.manifest.classes.len().max(2))?;
        if let Some(named) = &config.model.pretrained {
            let mut network = model.blank(&self.device)?;
            start_from(&mut network, named, LoadOptions::default()).map_err(ExperimentError::Pretrained)?;
            return Ok(network);
        }
        let seed = config.clustering.seed;
        let weights = stream(seed, Purpose::Initialisation, [0; 3]).random();
        let network = model.init(weights, &self.device.clone().autodiff())?;
        let lessons = SimClr {
            config: &config.clustering.simclr,
            views: &config.views,
            cache,
            indices: all,
            seed,
            ranks: &Alone,
        };
        let bar = progress.begin("SimCLR", lessons.steps());
        let network = lessons.pretrain(&network, &folder.join("simclr"), stop, &bar)?;
        bar.finish();
        Ok(network)
    }

    /// Groups in every way that is asked for, k-means first.
    fn group(
        &self,
        seen: &Seen<'_>,
        progress: &Shown,
        stop: &AtomicBool,
    ) -> Result<Vec<Groups>, ExperimentError> {
        let config = &self.config.value.clustering;
        let (clusters, seed) = (self.clusters(), config.seed);
        let found =
            KMeans::fit(seen.rows, clusters, STARTS, seed, &self.device, stop).map_err(LearnError::from)?;
        let mut groups = vec![(FoundBy::KMeans, Assignment::of_kmeans(seen.rows, &found))];
        if config.method != ClusteringMethod::KMeans {
            let scanned = self.scan(seen, progress, stop)?;
            groups.push((FoundBy::Scan, scanned.before));
            if config.scan.self_label_epochs > 0 {
                groups.push((FoundBy::SelfLabel, scanned.assignment));
            }
        }
        let count = self.kept();
        let grouped = groups.into_iter().map(|(found_by, found)| {
            let found = if found.clusters() > count { found.merged(seen.neighbours, count) } else { found };
            Groups { found_by, clusters: found.labels(), confidence: found.confidences() }
        });
        Ok(grouped.collect())
    }

    /// SCAN, on stored features or with the network.
    fn scan(&self, seen: &Seen<'_>, progress: &Shown, stop: &AtomicBool) -> Result<Scanned, ExperimentError> {
        let config = &self.config.value;
        let settings = &config.clustering.scan;
        let scan = Scan {
            config: settings,
            clusters: self.clusters(),
            seed: config.clustering.seed,
            features: seen.rows,
            neighbours: seen.neighbours,
            device: self.device.clone(),
        };
        let frozen = match settings.frozen {
            Switch::On => true,
            Switch::Off => false,
            Switch::Auto => device::is_cpu(&self.device),
        };
        let mut copies = Vec::new();
        for number in 0..if frozen { u64::from(settings.copies) } else { 0 } {
            let copy = AugmentedCopy { view: View::Contrast, number, seed: config.clustering.seed };
            let bar = progress.begin("features of views", seen.all.len() as u64);
            let (network, cache, views) = (seen.network, seen.cache, &config.views);
            let found = embed_copy(network, cache, seen.all, views, copy, &self.store(), stop, &bar)?;
            copies.push(found.normalised());
            bar.finish();
        }
        let learning = match frozen {
            true => Learning::Frozen { copies: &copies },
            false => Learning::Whole {
                network: seen.network,
                cache: seen.cache,
                indices: seen.all,
                views: &config.views,
            },
        };
        let bar = progress.begin("SCAN", scan.steps());
        let found = scan.learn(learning, &seen.folder.join("scan"), stop, &bar)?;
        bar.finish();
        Ok(found)
    }

    /// Where features are kept, by content.
    fn store(&self) -> PathBuf {
        self.places.cache.join("features")
    }

    /// The ways with their quality, and the one to take.
    fn judged(
        &self,
        rows: &Embedding,
        neighbours: &Neighbours,
        found: Vec<Groups>,
    ) -> Result<(Groups, Vec<Candidate>), ExperimentError> {
        let labels = self.labels();
        let candidates: Vec<Candidate> = found
            .iter()
            .map(|groups| Candidate {
                found_by: groups.found_by,
                quality: Quality::of(rows, neighbours, &groups.clusters, self.config.value.clustering.seed),
                scores: scores(&groups.clusters, &labels, self.kept(), self.manifest.classes.len()),
            })
            .collect();
        let asked_for = self.config.value.clustering.method == ClusteringMethod::Scan;
        let best = match asked_for {
            true => candidates.len() - 1,
            false => preferred(&candidates),
        };
        let best = found.into_iter().nth(best).expect("k-means never fails");
        Ok((best, candidates))
    }

    fn write(
        &self,
        clustered: &Clustered,
        table: &[ClusterRow],
        rows: &Embedding,
        cache: &ImageCache,
        points: &[[f32; 2]],
    ) -> Result<(), ExperimentError> {
        let folder = &clustered.folder;
        let data = burn::tensor::TensorData::new(rows.values().to_vec(), [rows.len(), rows.dim()]);
        let tensors = harvest_models::NamedTensors::from([("features".to_owned(), data)]);
        harvest_models::write_safetensors(&folder.join(FEATURES), &tensors, Default::default())
            .map_err(LearnError::from)?;
        write_clusters(&folder.join(CLUSTERS), table)?;
        self.places.write_near_duplicates(table)?;
        let sheets = SheetOf::each_cluster(table, rows, cache, clustered.clusters);
        let pictures = folder.join("sheets");
        std::fs::create_dir_all(&pictures).map_err(WriteError::at(&pictures))?;
        for sheet in &sheets {
            atomic_write(&pictures.join(sheet.file_name()), &sheet.jpeg)?;
        }
        ClusterPage {
            clustered,
            sheets: &sheets,
            points,
            clusters: &table.iter().map(|row| row.cluster).collect::<Vec<_>>(),
            labels: &self.labels(),
            classes: &self.manifest.classes,
        }
        .write()?;
        let json = serde_json::to_vec_pretty(clustered).expect("scores and times are plain data");
        Ok(atomic_write(&folder.join(SUMMARY), &json)?)
    }
}

/// What clusters are made from.
struct Seen<'a> {
    rows: &'a Embedding,
    neighbours: &'a Neighbours,
    network: &'a Classifier,
    cache: &'a ImageCache,
    all: &'a [u32],
    folder: &'a Path,
}

/// One way's result.
struct Groups {
    found_by: FoundBy,
    clusters: Vec<u32>,
    confidence: Vec<f32>,
}

/// The way that is clearly better than k-means inside, without being worse by how far its clusters lie apart; else k-means.
fn preferred(candidates: &[Candidate]) -> usize {
    let mut best = 0;
    for (place, candidate) in candidates.iter().enumerate() {
        let (new, old) = (candidate.quality, candidates[best].quality);
        if new.agreement > old.agreement + CLEARLY && new.silhouette > old.silhouette - CLEARLY {
            best = place;
        }
    }
    best
}

/// Against the labels that are known, if any are.
fn scores(clusters: &[u32], labels: &[Option<u16>], count: usize, classes: usize) -> Option<ClusterScores> {
    let known = clusters
        .iter()
        .zip(labels)
        .filter_map(|(cluster, label)| Some((*cluster as usize, usize::from((*label)?))));
    let (clusters, targets): (Vec<usize>, Vec<usize>) = known.unzip();
    if targets.is_empty() {
        return None;
    }
    ClusterScores::of(&clusters, &targets, count, classes).ok()
}

/// Seconds of each part of the work.
struct Clock {
    seconds: BTreeMap<String, f64>,
    mark: Instant,
}

impl Default for Clock {
    fn default() -> Self {
        Self { seconds: BTreeMap::new(), mark: Instant::now() }
    }
}

impl Clock {
    fn mark(&mut self, part: &str) {
        self.seconds.insert(part.to_owned(), self.mark.elapsed().as_secs_f64());
        self.mark = Instant::now();
    }
}
