//! The images of a configuration or project, with what is known of their classes.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::{ExperimentError, Shown};
use crate::config::{Origin, Resolved, SourceKind};
use crate::data::{
    self, CacheOptions, Classes, ContentHash, ImageCache, Manifest, ScanOptions, Source, Split, SplitConfig,
    scan,
};
use crate::files::{WriteError, atomic_write};
use crate::project::{self, ClusterRow, FrozenLabels, Label, Project};

/// Where lists, caches and runs are kept.
#[derive(Debug, Clone)]
pub struct Places {
    /// The list of images; rewritten by each scan.
    pub manifest: PathBuf,
    /// Folder of image caches.
    pub cache: PathBuf,
    /// Folder of run folders.
    pub runs: PathBuf,
    /// The project, whose label history is read.
    pub project: Option<PathBuf>,
    /// Labels and classes to go by in place of the project's own.
    pub frozen: Option<Arc<FrozenLabels>>,
}

impl Places {
    /// In a project, the project's own folders.
    pub fn in_project(project: &Project) -> Self {
        Self {
            manifest: project.dir().join("images.jsonl"),
            cache: project.cache(),
            runs: project.runs(),
            project: Some(project.dir().to_owned()),
            frozen: None,
        }
    }

    /// With labels and classes as they were.
    pub fn with_labels(self, frozen: Option<Arc<FrozenLabels>>) -> Self {
        Self { frozen, ..self }
    }

    /// Labels of images by content, and the classes they name: the frozen ones, else the project's as they are now. Nothing
    /// without a project.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn labels(&self) -> Result<Option<Arc<FrozenLabels>>, ExperimentError> {
        if self.frozen.is_some() {
            return Ok(self.frozen.clone());
        }
        let Some(dir) = &self.project else { return Ok(None) };
        let damaged = |reason: String| ExperimentError::Damaged { path: dir.join(project::FILE), reason };
        let project = Project::open(dir).map_err(|error| damaged(error.to_string()))?;
        Ok(Some(Arc::new(FrozenLabels::of(&project)?)))
    }

    /// Folder of the folders that `harvest cluster` makes.
    pub fn clusters(&self) -> PathBuf {
        match &self.project {
            Some(project) => project.join("clusters"),
            None => self.manifest.with_extension("clusters"),
        }
    }

    /// Folder of thumbnails.
    pub fn thumbnails(&self) -> PathBuf {
        match &self.project {
            Some(project) => project.join(crate::thumbs::FOLDER),
            None => self.manifest.with_extension(crate::thumbs::FOLDER),
        }
    }

    /// The file of near-duplicates beside the list of images.
    fn near_duplicates(&self) -> PathBuf {
        self.manifest.with_extension("near.csv")
    }

    /// Writes which images are nearly the same, by content, for later divisions.
    pub(super) fn write_near_duplicates(&self, table: &[ClusterRow]) -> Result<(), WriteError> {
        let mut text = String::from("image,nearly_the_same_as\n");
        for row in table {
            let first = table[row.first as usize].hash;
            if first != row.hash {
                text.push_str(&format!("{},{first}\n", row.hash));
            }
        }
        atomic_write(&self.near_duplicates(), text.as_bytes())
    }

    /// For each image the first that is the same or nearly the same, as far as is known. Images with different labels were told
    /// apart by somebody and are not the same.
    fn first_of_group(&self, manifest: &Manifest) -> Vec<u32> {
        let images = &manifest.images;
        let mut first: Vec<u32> =
            (0..images.len() as u32).map(|image| manifest.first_of_group(image)).collect();
        let Ok(text) = std::fs::read_to_string(self.near_duplicates()) else { return first };
        let places: HashMap<String, u32> = (0u32..)
            .zip(images)
            .filter(|(_, image)| image.duplicate_of.is_none())
            .map(|(place, image)| (image.hash.to_string(), place))
            .collect();
        for line in text.lines().skip(1) {
            let Some((image, like)) = line.split_once(',') else { continue };
            let (Some(&image), Some(&like)) = (places.get(image), places.get(like)) else { continue };
            let labels = [image, like].map(|place| images[place as usize].label);
            if labels[0] == labels[1] || labels.contains(&None) {
                first[image as usize] = like;
            }
        }
        // Exact copies go where their first goes.
        (0..images.len()).for_each(|image| first[image] = first[first[image] as usize]);
        first
    }

    /// Without a project, everything in the folder of runs; lists of different sources do not get into each other's way.
    pub fn in_runs(runs: &Path, root: &Path) -> Self {
        let root = std::path::absolute(root).unwrap_or_else(|_| root.to_owned());
        let key = blake3::hash(root.as_os_str().as_encoded_bytes()).to_hex();
        Self {
            manifest: runs.join("data").join(format!("{}.jsonl", &key[..16])),
            cache: runs.join("data").join("cache"),
            runs: runs.to_owned(),
            project: None,
            frozen: None,
        }
    }
}

/// Images and labels.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// The images; labels in it are those training may use.
    pub manifest: Manifest,
    /// The classes.
    pub classes: Classes,
    /// Whether the labels come from an expert's history, not from the source.
    pub expert: bool,
    /// Images an expert marked as belonging to no class or as bad: not trained on.
    pub excluded: Vec<u32>,
}

impl Dataset {
    /// Scans the source (files known from an earlier scan and unchanged are not decoded again), writes the list of
    /// images, and joins the expert's labels. `classes`: the project's, if it has any.
    ///
    /// # Errors
    /// If the source, the list or the labels cannot be read.
    pub fn load(
        config: &Resolved,
        places: &Places,
        classes: Option<&Classes>,
        progress: &Shown,
        stop: &AtomicBool,
    ) -> Result<Self, ExperimentError> {
        let mut manifest = Self::scan(config, places, classes, progress, stop)?;
        let mut expert = false;
        let mut excluded = Vec::new();
        if classes.is_some()
            && let Some(said) = places.labels()?
            && !said.labels.is_empty()
        {
            expert = true;
            excluded = join_labels(&mut manifest, &said);
        }
        let classes = match classes {
            Some(classes) => classes.clone(),
            None => Classes::categorical(manifest.classes.clone())?,
        };
        manifest.classes = classes.names().to_vec();
        Ok(Self { manifest, classes, expert, excluded })
    }

    /// Only the scan: decodes what is new and writes the list of images.
    ///
    /// # Errors
    /// If the source or the list cannot be read or written.
    pub fn scan(
        config: &Resolved,
        places: &Places,
        classes: Option<&Classes>,
        progress: &Shown,
        stop: &AtomicBool,
    ) -> Result<Manifest, ExperimentError> {
        let root = config.value.data.root.as_deref().ok_or(ExperimentError::NoRoot)?;
        let source = match config.value.data.kind {
            SourceKind::Auto => Source::detect(root)?,
            SourceKind::Folder => Source::of_kind(data::SourceKind::Folder, root)?,
            SourceKind::ClassFolders => Source::of_kind(data::SourceKind::ClassFolders, root)?,
            SourceKind::Csv => Source::of_kind(data::SourceKind::Csv, root)?,
            SourceKind::Idx => Source::of_kind(data::SourceKind::Idx, root)?,
        };
        // An earlier list that cannot be read only costs the time to decode all images again.
        let previous = Manifest::read(&places.manifest).ok();
        let options = ScanOptions {
            classes,
            previous: previous.as_ref(),
            exclude: [&places.cache, &places.runs, &places.thumbnails(), &places.clusters()]
                .into_iter()
                .filter_map(|folder| std::path::absolute(folder).ok())
                .collect(),
            ..ScanOptions::default()
        };
        let manifest = scan(&source, &options, progress, stop)?;
        if let Some(folder) = places.manifest.parent() {
            std::fs::create_dir_all(folder).map_err(crate::files::WriteError::at(folder))?;
        }
        // Ranks read what the first one wrote; an unchanged list need not be written again by each.
        if previous.as_ref() != Some(&manifest) {
            manifest.write(&places.manifest)?;
        }
        Ok(manifest)
    }

    /// Divides the images as configured. An expert's labels are all used, unless the configuration says how many, and
    /// none are spent on a test.
    ///
    /// # Errors
    /// If there are too few labels.
    pub fn split(&self, config: &Resolved, places: &Places) -> Result<Split, ExperimentError> {
        let data = &config.value.data;
        let chosen = |key: &str| !matches!(config.origin(key), Origin::Default);
        let all = data.fully_labelled || (self.expert && !chosen("data.labels_per_class"));
        let labels_per_class = (!all).then_some(data.labels_per_class);
        let test_fraction =
            if self.expert && !chosen("data.test_fraction") { 0.0 } else { data.test_fraction };
        let config = SplitConfig {
            labels_per_class,
            evaluation_fraction: data.evaluation_fraction,
            test_fraction,
            seed: data.seed,
        };
        let mut split = Split::grouped(&self.manifest, &places.first_of_group(&self.manifest), &config)?;
        if !self.excluded.is_empty() {
            let (kept, excluded) =
                split.unlabelled.iter().partition(|index| self.excluded.binary_search(index).is_err());
            split.unlabelled = kept;
            split.left_out.extend::<Vec<u32>>(excluded);
            split.left_out.sort_unstable();
        }
        Ok(split)
    }

    /// The images at training size, built on first use.
    ///
    /// # Errors
    /// If the cache cannot be built.
    pub fn cache(
        manifest: &Manifest,
        folder: &Path,
        size: u32,
        progress: &Shown,
        stop: &AtomicBool,
    ) -> Result<ImageCache, ExperimentError> {
        Ok(ImageCache::open_or_build(folder, manifest, size, &CacheOptions::default(), progress, stop)?)
    }

    /// The copy of `cache` in `folder`, on this node's own disk.
    ///
    /// # Errors
    /// If it cannot be copied.
    pub fn cache_on_node(
        cache: ImageCache,
        folder: &Path,
        manifest: &Manifest,
        progress: &Shown,
        stop: &AtomicBool,
    ) -> Result<ImageCache, ExperimentError> {
        Ok(cache.copied_to(folder, manifest, &CacheOptions::default(), progress, stop)?)
    }

    /// Class of every image, where known.
    pub fn labels(&self) -> Vec<Option<u16>> {
        self.manifest.images.iter().map(|image| image.label).collect()
    }
}

/// Replaces the labels of the manifest by the expert's; returns the images that are to be left out, in order.
fn join_labels(manifest: &mut Manifest, said: &FrozenLabels) -> Vec<u32> {
    let mut excluded = Vec::new();
    for (index, image) in manifest.images.iter_mut().enumerate() {
        let ContentHash(hash) = image.hash;
        let label = said.labels.get(&hash);
        image.label = match label {
            Some(Label::Class(id)) => said.classes.index_of(*id).and_then(|class| u16::try_from(class).ok()),
            _ => None,
        };
        if matches!(label, Some(Label::NoneOfThese | Label::BadImage)) {
            excluded.push(index as u32);
        }
    }
    excluded
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::ImageRecord;

    fn image(content: u8, label: Option<u16>) -> ImageRecord {
        ImageRecord {
            path: format!("{content}.png"),
            hash: ContentHash([content; 32]),
            width: 1,
            height: 1,
            size_bytes: 1,
            modified_ns: 0,
            duplicate_of: None,
            label,
            part: None,
        }
    }

    fn manifest(images: Vec<ImageRecord>) -> Manifest {
        let root = PathBuf::from("/images");
        let source = Source::Folder { root: root.clone() };
        let mut manifest =
            Manifest { source, root, classes: Vec::new(), images, set_aside: Vec::new(), hidden: 0 };
        manifest.link_duplicates();
        manifest
    }

    #[test]
    fn near_duplicates_are_remembered_by_content_and_yield_to_labels() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let places = Places::in_runs(folder.path(), Path::new("/images"));
        std::fs::create_dir_all(places.manifest.parent().expect("a folder")).expect("made");
        let row = |content: u8, first| ClusterRow {
            path: String::new(),
            hash: ContentHash([content; 32]),
            cluster: 0,
            confidence: 1.0,
            first,
            x: 0.0,
            y: 0.0,
        };
        // 2 is nearly 1, 4 is nearly 3.
        let table = [row(1, 0), row(2, 0), row(3, 2), row(4, 2)];
        places.write_near_duplicates(&table).expect("written");
        // In another order, with a copy of 2 and one image that is new.
        let now = [2, 9, 1, 4, 2, 3].map(|content| image(content, None));
        assert_eq!(places.first_of_group(&manifest(now.to_vec())), [2, 1, 2, 5, 2, 5]);
        // Whoever gave 3 and 4 different labels told them apart.
        let mut told = now.to_vec();
        (told[3].label, told[5].label) = (Some(0), Some(1));
        assert_eq!(places.first_of_group(&manifest(told)), [2, 1, 2, 3, 2, 5]);
        let elsewhere = Places::in_runs(folder.path(), Path::new("/others"));
        assert_eq!(elsewhere.first_of_group(&manifest(now.to_vec())), [0, 1, 2, 3, 0, 5]);
    }
}
