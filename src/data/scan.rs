//! Looks at every file of a source once and writes down what it found.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::UNIX_EPOCH;

use harvest_picture::{decode_admitted, read_file};
use rayon::prelude::*;

use super::gate::PixelGate;
use super::progress::Running;
use super::source::ClassLayout;
use super::walk::{self, Listing};
use super::{
    Classes, ContentHash, DataError, DecodeError, DecodeLimits, IdxError, IdxFiles, IdxImages, ImageRecord,
    LabelRow, LabelsError, Manifest, Part, Progress, SetAside, Source, read_idx_labels, read_labels,
};

/// How to scan.
#[derive(Debug, Clone, Default)]
pub struct ScanOptions<'a> {
    /// What an image may cost.
    pub limits: DecodeLimits,
    /// The classes, where the project has them; labels that are none of them are an error. Without, the classes are
    /// the labels found, sorted (as numbers if all are).
    pub classes: Option<&'a Classes>,
    /// An earlier scan: files whose size and time of change are the same are not decoded again.
    pub previous: Option<&'a Manifest>,
    /// Absolute paths of folders or files that are no images though they lie below the root, such as the project.
    pub exclude: Vec<PathBuf>,
}

/// A file to look at, with what the source says of it.
struct Item {
    path: String,
    label: Option<u16>,
    part: Option<Part>,
}

/// Decodes every file of the source in parallel. Files that cannot be used are set aside with the reason; exact
/// duplicates (the same pixels) are linked to the first. The result does not depend on the number of threads.
///
/// `stop` ends the scan with [`DataError::Interrupted`] as soon as the images in work are done.
///
/// # Errors
/// [`DataError`], for what concerns the source as a whole.
pub fn scan(
    source: &Source,
    options: &ScanOptions<'_>,
    progress: &dyn Progress,
    stop: &AtomicBool,
) -> Result<Manifest, DataError> {
    let root = absolute(source.root())?;
    if !root.is_dir() {
        return Err(match root.exists() {
            true => DataError::NotAFolder { path: root },
            false => DataError::Missing { path: root },
        });
    }
    let mut manifest = Manifest {
        source: source.clone(),
        root,
        classes: options.classes.map(|classes| classes.names().to_vec()).unwrap_or_default(),
        images: Vec::new(),
        set_aside: Vec::new(),
        hidden: 0,
    };
    match source {
        Source::Idx { .. } => scan_idx(&mut manifest, options, progress, stop)?,
        _ => {
            let items = list(source, &mut manifest, options)?;
            examine_all(items, &mut manifest, options, progress, stop)?;
        }
    }
    if manifest.images.is_empty() {
        return Err(DataError::NoImages {
            root: manifest.root,
            set_aside: manifest.set_aside.len(),
            example: manifest.set_aside.first().map(|file| format!("`{}`: {}", file.path, file.reason)),
        });
    }
    if u32::try_from(manifest.images.len()).is_err() {
        return Err(DataError::TooManyImages { found: manifest.images.len() });
    }
    manifest.set_aside.sort_by(|a, b| a.path.cmp(&b.path));
    manifest.link_duplicates();
    Ok(manifest)
}

fn absolute(root: &Path) -> Result<PathBuf, DataError> {
    let absolute =
        std::path::absolute(root).map_err(|source| DataError::Read { path: root.into(), source })?;
    match absolute.to_str() {
        Some(_) => Ok(absolute),
        None => Err(DataError::FolderName { path: absolute.to_string_lossy().into_owned() }),
    }
}

/// The files to look at, sorted by path, with labels; classes are written to the manifest.
fn list(source: &Source, manifest: &mut Manifest, options: &ScanOptions<'_>) -> Result<Vec<Item>, DataError> {
    let walked = match source {
        Source::Csv { root: None, .. } => Listing::default(),
        _ => walk::list(&manifest.root, &options.exclude)?,
    };
    manifest.set_aside = walked.set_aside;
    manifest.hidden = walked.hidden;
    match source {
        Source::ClassFolders { .. } => by_class_folder(walked.files, manifest, options.classes),
        Source::Csv { file, .. } => by_table(file, walked.files, manifest, options.classes),
        Source::Folder { .. } | Source::Idx { .. } => {
            Ok(walked.files.into_iter().map(|path| Item { path, label: None, part: None }).collect())
        }
    }
}

fn by_class_folder(
    files: Vec<String>,
    manifest: &mut Manifest,
    classes: Option<&Classes>,
) -> Result<Vec<Item>, DataError> {
    let layout = ClassLayout::of(&manifest.root)?;
    // A class keeps its place even if all of its files turn out unusable.
    let folders: BTreeSet<&str> = files.iter().filter_map(|path| layout.place(path).0).collect();
    if folders.is_empty() {
        return Err(DataError::NoClassFolders { root: manifest.root.clone() });
    }
    let names = Names::new(classes, folders.into_iter())?;
    let items = files.iter().map(|path| {
        let (folder, part) = layout.place(path);
        let label = folder.map(|folder| {
            names.find(folder).ok_or_else(|| DataError::UnknownClassFolder {
                root: manifest.root.clone(),
                folder: folder.to_owned(),
                known: names.known(),
            })
        });
        Ok(Item { path: path.clone(), label: label.transpose()?, part })
    });
    let items = items.collect::<Result<_, DataError>>()?;
    manifest.classes = names.into_list();
    Ok(items)
}

fn by_table(
    file: &Path,
    walked: Vec<String>,
    manifest: &mut Manifest,
    classes: Option<&Classes>,
) -> Result<Vec<Item>, DataError> {
    let rows = read_labels(file)?;
    let names = Names::new(classes, rows.iter().filter_map(|row| row.label.as_deref()))?;
    let mut items: HashMap<String, Item> = walked
        .into_iter()
        .filter(|path| manifest.root.join(path) != file)
        .map(|path| (path.clone(), Item { path, label: None, part: None }))
        .collect();
    let missing = missing_images(&rows, &items, &manifest.root);
    if let Some(first) = missing.first() {
        return Err(LabelsError::UnknownImage {
            file: file.into(),
            line: first.line,
            path: first.path.clone(),
            root: manifest.root.clone(),
            more: missing.len() - 1,
        }
        .into());
    }
    for row in rows {
        let label = row.label.as_deref().map(|label| {
            names.find(label).ok_or_else(|| LabelsError::UnknownClass {
                file: file.into(),
                line: row.line,
                label: label.to_owned(),
                known: names.known(),
            })
        });
        let path = below(&manifest.root, row.path);
        items.insert(path.clone(), Item { path, label: label.transpose()?, part: row.part });
    }
    manifest.classes = names.into_list();
    let mut items: Vec<Item> = items.into_values().collect();
    items.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    Ok(items)
}

/// An absolute path below the root, relative; others as they are.
fn below(root: &Path, path: String) -> String {
    match Path::new(&path).strip_prefix(root).ok().and_then(Path::to_str) {
        Some(relative) => relative.to_owned(),
        None => path,
    }
}

/// Lines whose images do not exist, in the order of the table.
fn missing_images<'a>(
    rows: &'a [LabelRow],
    walked: &HashMap<String, Item>,
    root: &Path,
) -> Vec<&'a LabelRow> {
    rows.par_iter()
        .filter(|row| {
            !walked.contains_key(&row.path) && std::fs::symlink_metadata(root.join(&row.path)).is_err()
        })
        .collect()
}

/// Class names given or found.
struct Names<'a> {
    given: Option<&'a Classes>,
    found: Vec<String>,
}

impl<'a> Names<'a> {
    fn new<'b>(given: Option<&'a Classes>, labels: impl Iterator<Item = &'b str>) -> Result<Self, DataError> {
        let mut found = Vec::new();
        if given.is_none() {
            found = labels.collect::<BTreeSet<_>>().into_iter().map(str::to_owned).collect();
            if found.iter().all(|name| name.parse::<u64>().is_ok()) {
                found.sort_by_key(|name| name.parse::<u64>().unwrap_or(u64::MAX));
            }
        }
        if found.len() > usize::from(u16::MAX) {
            return Err(DataError::TooManyClasses { found: found.len() });
        }
        Ok(Self { given, found })
    }

    fn find(&self, name: &str) -> Option<u16> {
        match self.given {
            Some(classes) => classes.find(name),
            // Few classes; the list is sorted, but not always by text.
            None => self.found.iter().position(|found| found == name).and_then(|at| u16::try_from(at).ok()),
        }
    }

    fn list(&self) -> &[String] {
        self.given.map_or(&self.found, |classes| classes.names())
    }

    fn known(&self) -> String {
        let shown =
            self.list().iter().take(20).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        if self.list().len() > 20 { format!("{shown} and {} more", self.list().len() - 20) } else { shown }
    }

    fn into_list(self) -> Vec<String> {
        self.given.map(|classes| classes.names().to_vec()).unwrap_or(self.found)
    }
}

fn examine_all(
    items: Vec<Item>,
    manifest: &mut Manifest,
    options: &ScanOptions<'_>,
    progress: &dyn Progress,
    stop: &AtomicBool,
) -> Result<(), DataError> {
    let known: HashMap<&str, &ImageRecord> = match options.previous {
        Some(previous) if previous.root == manifest.root => {
            previous.images.iter().map(|image| (image.path.as_str(), image)).collect()
        }
        _ => HashMap::new(),
    };
    let gate = PixelGate::new(options.limits.pixels_in_flight);
    let running = Running::start(progress, "decoding images", items.len());
    let root = &manifest.root;
    let outcomes =
        items
            .into_par_iter()
            .map(|item| {
                if stop.load(Ordering::Relaxed) {
                    return Err(DataError::Interrupted);
                }
                let outcome = examine(root, &item, &known, &options.limits, &gate).map_err(|error| {
                    SetAside { path: item.path, problem: error.problem(), reason: error.to_string() }
                });
                running.advance(1);
                Ok(outcome)
            })
            .collect::<Result<Vec<_>, DataError>>()?;
    for outcome in outcomes {
        match outcome {
            Ok(image) => manifest.images.push(image),
            Err(aside) => manifest.set_aside.push(aside),
        }
    }
    Ok(())
}

fn examine(
    root: &Path,
    item: &Item,
    known: &HashMap<&str, &ImageRecord>,
    limits: &DecodeLimits,
    gate: &PixelGate,
) -> Result<ImageRecord, DecodeError> {
    let path = root.join(&item.path);
    let metadata = std::fs::metadata(&path).map_err(|source| DecodeError::Unreadable { source })?;
    let (size_bytes, modified_ns) = (metadata.len(), modified_ns(&metadata));
    let unchanged = known.get(item.path.as_str()).filter(|earlier| {
        modified_ns != 0 && (earlier.size_bytes, earlier.modified_ns) == (size_bytes, modified_ns)
    });
    let (hash, (width, height)) = match unchanged {
        Some(earlier) => (earlier.hash, (earlier.width, earlier.height)),
        None => {
            let bytes = read_file(&path, limits)?;
            decode_admitted(
                &bytes,
                limits,
                |pixels| gate.admit(pixels),
                |image| (ContentHash::of(&image), image.dimensions()),
            )?
        }
    };
    Ok(ImageRecord {
        path: item.path.clone(),
        hash,
        width,
        height,
        size_bytes,
        modified_ns,
        duplicate_of: None,
        label: item.label,
        part: item.part,
    })
}

/// When a file was last changed, in nanoseconds since 1970; 0 if unknown.
pub fn modified_ns(metadata: &std::fs::Metadata) -> i64 {
    let since = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    since.and_then(|since| i64::try_from(since.as_nanos()).ok()).unwrap_or(0)
}

fn scan_idx(
    manifest: &mut Manifest,
    options: &ScanOptions<'_>,
    progress: &dyn Progress,
    stop: &AtomicBool,
) -> Result<(), DataError> {
    let sets = IdxFiles::find(&manifest.root)?;
    if sets.is_empty() {
        return Err(IdxError::None { root: manifest.root.clone() }.into());
    }
    let mut highest = None;
    for set in sets {
        let file = manifest.root.join(&set.images);
        let images = IdxImages::read(&file)?;
        let labels = match &set.labels {
            None => None,
            Some(name) => Some(idx_labels(&manifest.root.join(name), &file, images.len(), options.classes)?),
        };
        highest = highest.max(labels.iter().flatten().max().copied());
        let metadata = std::fs::metadata(&file).map_err(|source| IdxError::Read { file, source })?;
        let running = Running::start(progress, "reading images", images.len());
        let records = (0..images.len()).into_par_iter().map(|position| {
            if stop.load(Ordering::Relaxed) {
                return Err(DataError::Interrupted);
            }
            let image = images.image(position).expect("the position is below the number of images");
            running.advance(1);
            Ok(ImageRecord {
                path: format!("{}#{position}", set.images),
                hash: ContentHash::of(&image),
                width: image.width(),
                height: image.height(),
                size_bytes: metadata.len(),
                modified_ns: modified_ns(&metadata),
                duplicate_of: None,
                label: labels.as_ref().map(|labels| u16::from(labels[position])),
                part: set.part,
            })
        });
        manifest.images.extend(records.collect::<Result<Vec<_>, DataError>>()?);
    }
    if let (None, Some(highest)) = (options.classes, highest) {
        manifest.classes = (0..=highest).map(|label| label.to_string()).collect();
    }
    Ok(())
}

fn idx_labels(
    file: &Path,
    images: &Path,
    image_count: usize,
    classes: Option<&Classes>,
) -> Result<Vec<u8>, IdxError> {
    let labels = read_idx_labels(file)?;
    if labels.len() != image_count {
        return Err(IdxError::Counts {
            images: images.into(),
            labels: file.into(),
            image_count,
            label_count: labels.len(),
        });
    }
    if let Some(classes) = classes
        && let Some(position) = labels.iter().position(|&label| usize::from(label) >= classes.len())
    {
        return Err(IdxError::UnknownClass {
            file: file.into(),
            position,
            label: labels[position],
            classes: classes.len(),
        });
    }
    Ok(labels)
}

#[cfg(test)]
mod tests;
