//! From images without labels to clusters: `harvest cluster`.
//!
//! ```text
//! images ─▶ features (a loaded network's, or SimCLR's) ─▶ neighbours ─▶ k-means, SCAN ─▶ the better ─▶ map, sheets, page
//! ```

mod found;
mod grouping;
mod page;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use burn::tensor::Device;
use harvest_models::Classifier;
use rand::RngExt;
use rayon::prelude::*;

pub use found::{CLUSTERS, Candidate, Clustered, FoundBy};

use self::found::Way;
use self::grouping::{Seen, scores};
use self::page::{ClusterPage, SheetOf};
use super::execute::content_of_pretrained;
use super::{Dataset, ExperimentError, Places, Shown, network_config};
use crate::algorithms::Alone;
use crate::clustering::{
    ClusterError, Embedding, LearnError, Look, Neighbours, SimClr, embed, map, near_duplicates,
};
use crate::config::{FeatureSource, Resolved};
use crate::data::{ImageCache, Manifest, Progress as _};
use crate::device;
use crate::files::{WriteError, atomic_write};
use crate::project::{ClusterRow, Input, Run, RunPlan, RunState};
use crate::random::{Purpose, stream};
use crate::training::not_rounded;
use crate::weights::start_from;

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

impl Clustering<'_> {
    /// Groups the images in a new folder, or goes on with an unfinished one of the same images and settings unless `fresh`; a
    /// finished one is shown anew, with the labels there are now.
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
        let (plan, folder) = (self.plan()?, self.places.clusters());
        if !fresh {
            for run in Run::list(&folder)?.into_iter().rev() {
                if run.fingerprint()? == plan.fingerprint() && matches!(run.state()?, RunState::Done(_)) {
                    return self.shown_again(run.dir(), progress, stop);
                }
            }
        }
        let unfinished = if fresh { None } else { Run::latest_unfinished(&folder, &plan.fingerprint())? };
        let mut run = match unfinished {
            Some(run) => run,
            None => Run::create(&folder, &plan)?,
        };
        let settings = &self.config.value.clustering;
        let asked = [settings.simclr.precision, settings.scan.precision];
        if let Some(words) = asked.into_iter().find_map(|asked| not_rounded(asked, &self.device)) {
            progress.note(words);
        }
        run.begin(device::describe(&self.device), arguments)?;
        let result = self.work(run.dir(), progress, stop).map_err(|error| self.naming(error));
        match &result {
            Ok(clustered) => run.finish(&clustered.summary())?,
            Err(ExperimentError::Cluster(LearnError::Cluster(ClusterError::Interrupted))) => run.pause()?,
            Err(error) => run.fail(&super::chain(error))?,
        }
        result
    }

    /// An error that knows an image by its number alone, with the file's path.
    fn naming(&self, error: ExperimentError) -> ExperimentError {
        match error {
            ExperimentError::Cluster(LearnError::NotFinite { image }) => {
                ExperimentError::NotFinite { path: self.manifest.full_path(image) }
            }
            error => error,
        }
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
    fn plan(&self) -> Result<RunPlan, ExperimentError> {
        let config = &self.config.value;
        let settings =
            serde_json::to_vec(&(&config.clustering, &config.model, &config.views, self.clusters()));
        // Labels come one by one and change no cluster.
        let mut manifest = self.manifest.clone();
        manifest.images.iter_mut().for_each(|image| image.label = None);
        let mut inputs = vec![Input::images(&manifest)];
        inputs.extend(content_of_pretrained(&config.model)?);
        let plan = RunPlan::new(self.config, "cluster", inputs);
        Ok(RunPlan { config_fingerprint: blake3::hash(&settings.expect("settings are plain data")), ..plan })
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

        let network = match config.clustering.features {
            FeatureSource::Pixels => None,
            FeatureSource::Network => Some(self.network(folder, &cache, &all, progress, stop)?),
        };
        clock.mark("pretraining");
        let bar = progress.begin("features", images.len() as u64);
        let normalisation = &config.views.normalisation;
        let rows = match &network {
            Some(network) => embed(network, &cache, &all, normalisation, &self.store(), stop, &bar)?,
            None => Embedding::of_pixels(&cache, &all).map_err(LearnError::from)?,
        }
        .normalised();
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
            network: network.as_ref(),
            cache: &cache,
            all: &all,
            folder,
        };
        let (found, notes) = self.group(&seen, progress, stop)?;
        clock.mark("clusters");
        let looks = Look::of_all(all.par_iter().map(|image| cache.image(*image)), size);
        let first = near_duplicates(&looks, &neighbours);
        clock.mark("near-duplicates");
        let points = map(&rows, seed, &self.device, stop).map_err(LearnError::from)?;
        clock.mark("map");

        let ways: Vec<Way> = found.iter().map(|groups| (groups.found_by, groups.clusters.clone())).collect();
        let (best, candidates) = self.judged(&seen, found, progress, stop)?;
        clock.mark("judging");
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
            notes,
        };
        clustered.write_ways(&ways)?;
        clustered.write_table(&table, &rows)?;
        self.places.write_near_duplicates(&table)?;
        self.show(&clustered, &table, &rows, &cache)?;
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
            start_from(&mut network, named, config.model.load_options())
                .map_err(ExperimentError::Pretrained)?;
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

    /// A finished clustering with the labels that are known now.
    fn shown_again(
        &self,
        folder: &Path,
        progress: &Shown,
        stop: &AtomicBool,
    ) -> Result<Clustered, ExperimentError> {
        let mut clustered = Clustered::read(folder)?;
        let (table, rows) = (clustered.table()?, clustered.features()?);
        let size = network_config(&self.config.value.model, 2)?.image_size() as u32;
        let cache = Dataset::cache(self.manifest, &self.places.cache, size, progress, stop)?;
        let (labels, count) = (self.labels(), clustered.clusters);
        for (found_by, clusters) in clustered.ways()? {
            let known = scores(&clusters, &labels, count, self.manifest.classes.len());
            let ways = clustered.candidates.iter_mut().filter(|candidate| candidate.found_by == found_by);
            ways.for_each(|candidate| candidate.scores.clone_from(&known));
        }
        self.show(&clustered, &table, &rows, &cache)?;
        Ok(clustered)
    }

    /// Writes everything a person looks at.
    fn show(
        &self,
        clustered: &Clustered,
        table: &[ClusterRow],
        rows: &Embedding,
        cache: &ImageCache,
    ) -> Result<(), ExperimentError> {
        let sheets = SheetOf::each_cluster(table, rows, cache, clustered.clusters);
        let pictures = clustered.folder.join("sheets");
        std::fs::create_dir_all(&pictures).map_err(WriteError::at(&pictures))?;
        for sheet in &sheets {
            atomic_write(&pictures.join(sheet.file_name()), &sheet.jpeg)?;
        }
        let page = ClusterPage {
            clustered,
            sheets: &sheets,
            table,
            labels: &self.labels(),
            classes: &self.manifest.classes,
        };
        page.write()?;
        clustered.write()
    }
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
