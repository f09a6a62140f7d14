//! What to label next: a round of images chosen from a clustering, written as a table to fill in.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use burn::tensor::Device;
use image::ImageFormat;
use rayon::prelude::*;

use super::clusters::{CLUSTERS, Clustered};
use super::{Dataset, ExperimentError, FinishedRun, Places, Shown};
use crate::clustering::{Choice, ClusterError, LearnError, Pool, Selection};
use crate::data::{ContentHash, DecodeLimits, Images, Manifest, fit};
use crate::files::{WriteError, atomic_write};
use crate::project::{CHOSEN_BY, LabelStore};
use crate::report::contact_sheet;

/// Columns of a round's contact sheet, and how wide each picture is shown.
const COLUMNS: u32 = 10;
const SIDE: u32 = 96;

/// What to choose from, and how.
pub struct Round<'a> {
    /// The images as they are now.
    pub manifest: &'a Manifest,
    /// Where lists, caches and clusters are kept; in a project.
    pub places: &'a Places,
    /// How to choose.
    pub selection: Selection,
    /// How many.
    pub count: usize,
    /// Seed of all draws.
    pub seed: u64,
    /// The current model, for choosing by what it doubts.
    pub model: Option<&'a FinishedRun>,
    /// Where to compute.
    pub device: Device,
}

/// A round that was written.
#[derive(Debug)]
pub struct Chosen {
    /// The table to fill in: `path,label,chosen_by,score`.
    pub file: PathBuf,
    /// The pictures, in the order of the table.
    pub sheet: PathBuf,
    /// Images in it.
    pub images: usize,
    /// What a person should know.
    pub notes: Vec<String>,
}

impl Round<'_> {
    /// Chooses images that have no label yet and writes the next `rounds/round-N.csv`.
    ///
    /// # Errors
    /// If there is no clustering, the labels cannot be read, or nothing is left to label.
    pub fn write(&self, progress: &Shown, stop: &AtomicBool) -> Result<Chosen, ExperimentError> {
        let clustered = Clustered::latest(self.places)?.ok_or(ExperimentError::NotClustered)?;
        let table = clustered.table()?;
        let rows = clustered.features()?;
        if rows.len() != table.len() {
            let reason = format!("it has {} images, its features {}", table.len(), rows.len());
            return Err(ExperimentError::Damaged { path: clustered.folder.join(CLUSTERS), reason });
        }
        let project = self.places.project.as_ref().ok_or(ExperimentError::NoRoot)?;
        let labels = LabelStore::read(project)?;
        let now: HashMap<ContentHash, u32> = self
            .manifest
            .images
            .iter()
            .enumerate()
            .rev()
            .map(|(place, image)| (image.hash, place as u32))
            .collect();
        let is_labelled = |row: &u32| labels.contains_key(&table[*row as usize].hash.0);
        let all = 0..table.len() as u32;
        let (labelled, others): (Vec<u32>, Vec<u32>) = all.partition(is_labelled);
        let open: Vec<u32> =
            others.into_iter().filter(|row| now.contains_key(&table[*row as usize].hash)).collect();
        if open.is_empty() {
            return Err(ExperimentError::NothingToLabel);
        }
        let hashes: Vec<ContentHash> = table.iter().map(|row| row.hash).collect();
        let mut notes = self.changes(&hashes);
        let selection = self.selection(&clustered, &mut notes);
        let image_of = |row: u32| now.get(&table[row as usize].hash).copied();
        let probabilities = self.probabilities(&hashes, &now, progress, stop)?;
        let pool = Pool {
            rows: &rows,
            clusters: &table.iter().map(|row| row.cluster).collect::<Vec<_>>(),
            first: &table.iter().map(|row| row.first).collect::<Vec<_>>(),
            labelled: &labelled,
            open: &open,
            probabilities: probabilities.as_ref().map(|(values, classes)| (values.as_slice(), *classes)),
        };
        let choices =
            pool.choose(selection, self.count, self.seed, &self.device, stop).map_err(LearnError::from)?;
        if choices.len() < self.count {
            notes.push(format!("only {} different images are left to label", choices.len()));
        }
        let (file, sheet) = self.next_files()?;
        let images: Vec<u32> = choices.iter().filter_map(|choice| image_of(choice.image)).collect();
        self.write_table(&file, &choices, &images, selection)?;
        self.write_sheet(&sheet, &images, &mut notes)?;
        Ok(Chosen { file, sheet, images: images.len(), notes })
    }

    /// A note on images that came since the clustering, if any did.
    fn changes(&self, known: &[ContentHash]) -> Vec<String> {
        let known: HashSet<&ContentHash> = known.iter().collect();
        match self.manifest.images.iter().filter(|image| !known.contains(&image.hash)).count() {
            0 => Vec::new(),
            new => vec![format!(
                "{new} images came after the clustering and are not chosen; run `harvest cluster` again"
            )],
        }
    }

    /// The way asked for, or by lot where clusters mean nothing.
    fn selection(&self, clustered: &Clustered, notes: &mut Vec<String>) -> Selection {
        if self.selection == Selection::Clusters && !clustered.quality().is_informative() {
            notes.push(clustered.quality().sentence());
            return Selection::Random;
        }
        self.selection
    }

    /// What the current model says of each row of the table, `[rows, classes]`, and the number of classes; for images that
    /// have gone, which are not open, something.
    fn probabilities(
        &self,
        rows: &[ContentHash],
        now: &HashMap<ContentHash, u32>,
        progress: &Shown,
        stop: &AtomicBool,
    ) -> Result<Option<(Vec<f32>, usize)>, ExperimentError> {
        let Some(model) = self.model.filter(|_| self.selection == Selection::Uncertain) else {
            return Ok(None);
        };
        let size = model.bundle.preprocessing.size;
        let cache = Dataset::cache(self.manifest, &self.places.cache, size, progress, stop)?;
        let images: Vec<u32> = rows.iter().map(|hash| now.get(hash).copied().unwrap_or(0)).collect();
        let bar = progress.begin("predicting", images.len() as u64);
        let probabilities = model.probabilities(&cache, &images, |done| {
            bar.set(done);
            !stop.load(Ordering::Relaxed)
        });
        bar.finish();
        let probabilities = probabilities.ok_or(LearnError::Cluster(ClusterError::Interrupted))?;
        Ok(Some((probabilities, model.bundle.classes.len())))
    }

    /// The first number that is free.
    fn next_files(&self) -> Result<(PathBuf, PathBuf), ExperimentError> {
        let folder = self.places.manifest.with_file_name("rounds");
        std::fs::create_dir_all(&folder).map_err(WriteError::at(&folder))?;
        let mut files = (1u32..).map(|number| {
            let file = folder.join(format!("round-{number:03}.csv"));
            (file.with_extension("jpg"), file)
        });
        let (sheet, file) = files.find(|(_, file)| !file.exists()).expect("numbers do not end");
        Ok((file, sheet))
    }

    fn write_table(
        &self,
        file: &Path,
        choices: &[Choice],
        images: &[u32],
        selection: Selection,
    ) -> Result<(), ExperimentError> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(["path", "label", CHOSEN_BY, "score"]).expect("memory takes a row");
        let how = format!("{} (seed {})", selection.as_str(), self.seed);
        for (choice, image) in choices.iter().zip(images) {
            let path = self.manifest.images[*image as usize].path.as_str();
            let score = format!("{:.4}", choice.score);
            writer.write_record([path, "", &how, &score]).expect("memory takes a row");
        }
        let bytes = writer.into_inner().expect("memory takes what it is given");
        Ok(atomic_write(file, &bytes)?)
    }

    /// The pictures of the table, from their files; what cannot be read any more leaves its place empty.
    fn write_sheet(
        &self,
        file: &Path,
        images: &[u32],
        notes: &mut Vec<String>,
    ) -> Result<(), ExperimentError> {
        let source = Images::new(self.manifest, DecodeLimits::default());
        let read = |image: &u32| source.load(*image).map(|picture| fit(picture, SIDE));
        let pictures: Vec<_> = images.par_iter().map(read).collect();
        let mut shown: Vec<&[u8]> = Vec::new();
        for picture in &pictures {
            match picture {
                Ok(picture) => shown.push(picture),
                Err(error) => {
                    notes.push(format!("not on the sheet: {error}"));
                    shown.push(&[]);
                }
            }
        }
        let sheet = contact_sheet(&shown, SIDE, COLUMNS, SIDE);
        let mut bytes = std::io::Cursor::new(Vec::new());
        sheet.write_to(&mut bytes, ImageFormat::Jpeg).expect("a sheet is encoded to memory");
        Ok(atomic_write(file, bytes.get_ref())?)
    }
}
