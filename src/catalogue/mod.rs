//! A project's images as a page shows them: in memory, with labels, clusters and predictions, filtered and in any order.
//!
//! Made for a million images: everything about an image lies in columns, about 150 bytes each in all. Labels change while
//! others read them; clusters and beliefs are replaced as a whole when a job has made new ones. What a page scrolls through
//! is a *view*: a list of images frozen at the moment it was asked for, so that labelling makes none of them jump.
//!
//! ```text
//! images.jsonl ──▶ Columns ─┐
//! label history ─▶ Marks ───┼──▶ Query ──▶ view (frozen list) ──▶ rows
//! clusters.csv ──▶ Groups ──┤
//! beliefs.csv ───▶ Beliefs ─┘
//! ```

mod beliefs;
mod columns;
mod groups;
mod marks;
mod order;
mod query;
mod similar;
#[cfg(test)]
mod tests;
mod views;

use std::sync::{Arc, PoisonError, RwLock};

pub use beliefs::{Beliefs, Believed};
pub use marks::Counts;
pub use query::{Copies, LabelFilter, Order, Query};
pub use views::View;

use crate::data::{ContentHash, DecodeLimits, ImageRecord, Manifest, ManifestError, Pictures, Source};
use crate::experiment::{ExperimentError, Places};
use crate::project::{ImageHash, Label, RunError};
use columns::Columns;
use groups::Groups;
use marks::Marks;
use views::Views;

/// Why images cannot be shown as asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CatalogueError {
    /// The list of images.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A run or clustering.
    #[error(transparent)]
    Experiment(#[from] ExperimentError),
    /// A run's folder.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A run that has none.
    #[error("the run `{run}` has left no predictions for this project's images")]
    NoSuchRun {
        /// As asked for.
        run: String,
    },
    /// Predictions are needed.
    #[error("there are no predictions yet; train first")]
    NoPredictions,
    /// Clusters are needed.
    #[error("the images are not grouped yet; run clustering first (page Images)")]
    NoClusters,
    /// Features are needed.
    #[error("like images are found by what clustering has seen in them; run clustering first (page Images)")]
    NoFeatures,
    /// An image that clustering has not seen.
    #[error("this image was not there when the images were grouped; run clustering again (page Images)")]
    NotGrouped,
    /// Nobody said what the images are to be like.
    #[error("say which image the others are to be like")]
    LikeWhat,
}

impl CatalogueError {
    /// Whether something else should have been asked for, while nothing is broken.
    pub fn is_about_the_request(&self) -> bool {
        match self {
            Self::Manifest(_) | Self::Experiment(_) | Self::Run(_) => false,
            Self::NoSuchRun { .. }
            | Self::NoPredictions
            | Self::NoClusters
            | Self::NoFeatures
            | Self::NotGrouped
            | Self::LikeWhat => true,
        }
    }
}

/// What clustering and training have left, replaced as a whole.
#[derive(Clone, Default)]
struct Found {
    groups: Option<Arc<Groups>>,
    beliefs: Option<Arc<Beliefs>>,
    /// Counts up whenever it is replaced.
    generation: u64,
    /// What could not be read, in words.
    notes: Vec<String>,
}

/// All images of a project, in memory.
pub struct Catalogue {
    places: Places,
    columns: Columns,
    marks: Marks,
    pictures: Pictures,
    found: RwLock<Found>,
    /// Of runs that were asked for by name, the last one.
    asked: RwLock<Option<Arc<Beliefs>>>,
    views: Views,
}

/// One line of a view.
#[derive(Debug, Clone, PartialEq)]
pub struct Row<'a> {
    /// Of the pixels.
    pub hash: ContentHash,
    /// Relative to the images' folder.
    pub path: &'a str,
    /// What somebody said.
    pub label: Option<Label>,
    /// What the model believes.
    pub believed: Option<Believed>,
    /// Where clustering has put it.
    pub cluster: Option<u32>,
    /// Other files with the same pixels.
    pub copies: u32,
    /// Upright width and height in pixels.
    pub size: [u32; 2],
    /// When the file was last changed, in seconds since 1970; 0 if unknown.
    pub modified: i64,
}

/// A place on the map.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Within -1..=1.
    pub x: f32,
    /// Within -1..=1.
    pub y: f32,
    /// Its cluster.
    pub cluster: u32,
    /// Which image.
    pub hash: ContentHash,
    /// What somebody said.
    pub label: Option<Label>,
}

/// A project's images in numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Images, copies included.
    pub images: usize,
    /// Images that differ.
    pub distinct: usize,
    /// Labels, of images that differ.
    pub counts: Counts,
    /// Number and images of each cluster, in order.
    pub clusters: Vec<(u32, usize)>,
    /// The folders with most images, by name, with the number of images directly in each.
    pub folders: Vec<(String, usize)>,
    /// Whether images have places on a map and features to compare them by.
    pub grouped: bool,
    /// Name of the run that predictions are from.
    pub run: Option<String>,
    /// Counts up with every change of labels.
    pub version: u64,
    /// What could not be read, in words.
    pub notes: Vec<String>,
}

impl Catalogue {
    /// Reads the list of images, the newest clusters and what the newest finished run believes. `labels`: the current label of
    /// every image that has one; labels of images that are not in the list are left alone.
    ///
    /// A project that has not been scanned has no images. Clusters or beliefs that cannot be read are left out, with a note in
    /// [`Summary::notes`].
    ///
    /// # Errors
    /// If the list of images is damaged.
    pub fn load(
        places: &Places,
        labels: impl IntoIterator<Item = (ImageHash, Label)>,
    ) -> Result<Self, CatalogueError> {
        let manifest = if places.manifest.exists() {
            Manifest::read(&places.manifest)?
        } else {
            let source = Source::Folder { root: std::path::PathBuf::new() };
            let (root, set_aside) = (std::path::PathBuf::new(), Vec::new());
            Manifest { source, root, classes: Vec::new(), images: Vec::new(), set_aside, hidden: 0 }
        };
        // A page shows one large picture at a time, and the server's memory is to stay small.
        let limits = DecodeLimits { pixels_in_flight: 64_000_000, ..DecodeLimits::default() };
        let pictures = Pictures::new(&manifest.source, &manifest.root, limits);
        let columns = Columns::new(manifest);
        let marks = Marks::new(&columns, labels);
        let catalogue = Self {
            places: places.clone(),
            columns,
            marks,
            pictures,
            found: RwLock::default(),
            asked: RwLock::default(),
            views: Views::default(),
        };
        catalogue.refresh();
        Ok(catalogue)
    }

    /// Reads clusters and beliefs again, after a job has made new ones. Views that are open stay as they are.
    pub fn refresh(&self) {
        let mut notes = Vec::new();
        let (groups, beliefs) = rayon::join(
            || Groups::latest(&self.places, &self.columns),
            || Beliefs::latest(&self.places, &self.columns),
        );
        let groups = groups.unwrap_or_else(|error| {
            notes.push(crate::errors::chain(&error));
            None
        });
        let beliefs = beliefs.unwrap_or_else(|error| {
            notes.push(crate::errors::chain(&error));
            None
        });
        let mut found = self.found.write().unwrap_or_else(PoisonError::into_inner);
        let generation = found.generation + 1;
        *found = Found { groups: groups.map(Arc::new), beliefs: beliefs.map(Arc::new), generation, notes };
        drop(found);
        // A run may have been trained on since it was read.
        *self.asked.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn found(&self) -> Found {
        self.found.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the run called `run` believes; of the newest finished one without a name.
    fn beliefs(&self, run: Option<&str>) -> Result<Option<Arc<Beliefs>>, CatalogueError> {
        let latest = self.found().beliefs;
        let Some(run) = run else { return Ok(latest) };
        let asked = self.asked.read().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(known) = [latest, asked].into_iter().flatten().find(|beliefs| beliefs.run == run) {
            return Ok(Some(known));
        }
        let read = Arc::new(Beliefs::of_run(&self.places, run, &self.columns)?);
        *self.asked.write().unwrap_or_else(PoisonError::into_inner) = Some(read.clone());
        Ok(Some(read))
    }

    /// How many images the run called `run` does not know: they came, or were changed, after it began. Copies count once.
    ///
    /// # Errors
    /// If the run has left no predictions.
    pub fn unknown_to(&self, run: &str) -> Result<usize, CatalogueError> {
        let Some(beliefs) = self.beliefs(Some(run))? else { return Ok(0) };
        Ok(self.columns.heads().filter(|first| beliefs.get(*first).is_none()).count())
    }

    /// Notes that images have other labels now; returns the new [`version`](Self::version). Images that are not in the list
    /// are skipped.
    ///
    /// To be called in the order in which the history has them, that is while the history is still locked for writing.
    pub fn set_labels(&self, changes: &[(ImageHash, Option<Label>)]) -> u64 {
        self.marks.set(&self.columns, changes)
    }

    /// Counts up with every change of labels.
    pub fn version(&self) -> u64 {
        self.marks.version()
    }

    /// Whether there is an image with these pixels.
    pub fn knows(&self, image: &ImageHash) -> bool {
        self.columns.find(image).is_some()
    }

    /// What somebody said of an image.
    pub fn label(&self, image: &ImageHash) -> Option<Label> {
        self.columns.find(image).and_then(|image| self.marks.get(image))
    }

    /// Path of the first file with these pixels, relative to the images' folder.
    pub fn path(&self, image: &ImageHash) -> Option<&str> {
        self.columns.find(image).map(|image| self.columns.path(image))
    }

    /// The first file with these pixels, as the scan has written it down.
    pub fn record(&self, image: &ImageHash) -> Option<ImageRecord> {
        self.columns.find(image).map(|image| self.columns.record(image))
    }

    /// Reads the files that [`Self::record`] names.
    pub fn pictures(&self) -> &Pictures {
        &self.pictures
    }

    /// The images in numbers.
    pub fn summary(&self) -> Summary {
        let found = self.found();
        Summary {
            images: self.columns.len(),
            distinct: self.columns.distinct(),
            counts: self.marks.counts(),
            clusters: found.groups.as_ref().map(|groups| groups.sizes(&self.columns)).unwrap_or_default(),
            folders: self.columns.largest_folders().to_vec(),
            grouped: found.groups.is_some(),
            run: found.beliefs.map(|beliefs| beliefs.run.clone()),
            version: self.version(),
            notes: found.notes,
        }
    }

    /// Freezes the images that a query asks for; the same query gives the same view as long as nothing changes.
    ///
    /// # Errors
    /// If it asks for what is not there: predictions, clusters, features, a run.
    pub fn view(&self, query: &Query) -> Result<View, CatalogueError> {
        let Found { groups, generation, .. } = self.found();
        let version = self.version();
        if let Some(view) = self.views.same(query, version, generation) {
            return Ok(view);
        }
        let beliefs = self.beliefs(query.run.as_deref())?;
        let images = order::Search {
            columns: &self.columns,
            marks: &self.marks,
            groups: groups.as_deref(),
            beliefs: beliefs.as_deref(),
            query,
        }
        .images()?;
        Ok(self.views.keep(query.clone(), images, version, generation, beliefs))
    }

    /// Lines `from..from + count` of a view, fewer at its end; `None` if the view is gone.
    pub fn rows(&self, view: &str, from: usize, count: usize) -> Option<Vec<Row<'_>>> {
        let kept = self.views.get(view)?;
        let groups = self.found().groups;
        let images = kept.images.get(from..).unwrap_or_default();
        Some(
            images
                .iter()
                .take(count)
                .map(|&image| {
                    let first = self.columns.first(image);
                    Row {
                        hash: self.columns.hash(image),
                        path: self.columns.path(image),
                        label: self.marks.get(first),
                        believed: kept.beliefs.as_ref().and_then(|beliefs| beliefs.get(first)),
                        cluster: groups.as_ref().and_then(|groups| groups.cluster(first)),
                        copies: self.columns.copies(first),
                        size: self.columns.size(image),
                        modified: self.columns.modified_ns(image).div_euclid(1_000_000_000),
                    }
                })
                .collect(),
        )
    }

    /// Where an image stands in a view; `None` if the view is gone, `Some(None)` if the image is not in it.
    pub fn locate(&self, view: &str, image: &ImageHash) -> Option<Option<usize>> {
        let kept = self.views.get(view)?;
        let wanted = self.columns.find(image);
        Some(
            wanted
                .and_then(|wanted| kept.images.iter().position(|&image| self.columns.first(image) == wanted)),
        )
    }

    /// The images at `from..to` of a view, each once; `None` if the view is gone.
    pub fn hashes(&self, view: &str, from: usize, to: usize) -> Option<Vec<ImageHash>> {
        let kept = self.views.get(view)?;
        let end = to.min(kept.images.len());
        Some(self.distinct(kept.images.get(from..end).unwrap_or_default().iter().copied()))
    }

    /// The images of a view that are in a cluster, each once; `None` if the view is gone.
    pub fn hashes_in_cluster(&self, view: &str, cluster: u32) -> Option<Vec<ImageHash>> {
        let kept = self.views.get(view)?;
        let Some(groups) = self.found().groups else { return Some(Vec::new()) };
        let inside = |image: &u32| groups.cluster(self.columns.first(*image)) == Some(cluster);
        Some(self.distinct(kept.images.iter().copied().filter(inside)))
    }

    /// Hashes without repetition: a view may hold several copies of a picture.
    fn distinct(&self, images: impl Iterator<Item = u32>) -> Vec<ImageHash> {
        let mut seen = std::collections::HashSet::new();
        let firsts = images.map(|image| self.columns.first(image)).filter(|first| seen.insert(*first));
        firsts.map(|first| self.columns.hash(first).0).collect()
    }

    /// At most `most` images with their places on the map, always the same ones.
    pub fn map(&self, most: usize) -> Vec<Point> {
        let Some(groups) = self.found().groups else { return Vec::new() };
        let shown = groups.on_map(&self.columns, most);
        shown
            .iter()
            .filter_map(|&image| {
                let [x, y] = groups.place(image)?;
                let cluster = groups.cluster(image)?;
                Some(Point { x, y, cluster, hash: self.columns.hash(image), label: self.marks.get(image) })
            })
            .collect()
    }
}
