//! A project of very many images, all known to differ, with few pictures behind them.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use image::codecs::jpeg::JpegEncoder;
use rand::{Rng, RngExt};
use rayon::prelude::*;

use crate::config::{Resolved, SourceKind, Sources, resolve};
use crate::data::{ContentHash, ImageRecord, Manifest, Source};
use crate::demo::leaves::{CLASSES, leaf};
use crate::experiment::{BELIEFS, CLUSTERS, Clustered, FoundBy, Places};
use crate::files::{WriteError, atomic_write, write_with};
use crate::project::{Classes, ClusterRow, ImageHash, Label, Project, Run, RunPlan, write_clusters};
use crate::random::{Purpose, stream};
use crate::thumbs;

use super::PageError;

/// Pictures that the thumbnails are of.
const PICTURES: usize = 64;
/// Pixels of a thumbnail's sides.
const SIDE: u32 = 192;
/// Clusters that images are said to be in.
const CLUSTER_COUNT: u32 = 100;
/// Of how many images one has a label at the beginning.
const LABELLED: u32 = 50;

/// What to make.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    /// Images.
    pub images: u32,
    /// Features of each; 0: none.
    pub features: usize,
}

/// Makes a project in `dir`, which must exist and be empty: list of images, thumbnails, a clustering, a finished run's beliefs,
/// and a label for one image of fifty.
pub(crate) fn generate(dir: &Path, size: Size) -> Result<Project, PageError> {
    let images = dir.join("images");
    std::fs::create_dir_all(&images).map_err(WriteError::at(&images))?;
    let classes = Classes::categorical(CLASSES)?;
    let project = Project::init(dir, "a large project", &images, SourceKind::Folder, &classes)?;
    let places = Places::in_project(&project);
    let manifest = list(&images, size.images);
    manifest.write(&places.manifest)?;
    let pictures = (0..PICTURES).into_par_iter().map(thumbnail).collect::<Result<Vec<_>, _>>()?;
    thumbs::write_repeated(
        &dir.join(thumbs::FOLDER),
        manifest.images.iter().map(|image| image.hash),
        &pictures,
    )?;
    write_grouping(&places, &rows(&manifest), |folder| write_features(folder, size))?;
    write_run(&places, &beliefs(&manifest))?;
    let mut store = project.labels()?;
    let labels: Vec<(ImageHash, Option<Label>)> = manifest
        .images
        .iter()
        .zip(0u32..)
        .filter(|(_, number)| number.is_multiple_of(LABELLED))
        .map(|(image, number)| {
            let class = (number / LABELLED) as usize % CLASSES.len();
            (image.hash.0, Some(Label::Class(class as u16)))
        })
        .collect();
    store.append(&labels, "the bench", "bench")?;
    Ok(project)
}

/// A hash without a pattern.
fn hash(image: u32) -> ContentHash {
    let mut bytes = [0; 32];
    stream(0, Purpose::Demo, [u64::from(image), 0, 0]).fill_bytes(&mut bytes);
    ContentHash(bytes)
}

/// Folders of a thousand images, as an archive of field trials has them.
fn list(root: &Path, count: u32) -> Manifest {
    let images = (0..count).into_par_iter().map(|image| ImageRecord {
        path: format!("field {:02}/row {:02}/IMG_{image:07}.jpg", image / 100_000, image / 1000 % 100),
        hash: hash(image),
        width: 4000,
        height: 3000,
        size_bytes: 3_000_000,
        // Taken in an order of its own.
        modified_ns: 1_700_000_000_000_000_000
            + i64::from(image.wrapping_mul(2_654_435_761) >> 8) * 1_000_000_000,
        duplicate_of: None,
        label: None,
        part: None,
    });
    Manifest {
        source: Source::Folder { root: root.to_owned() },
        root: root.to_owned(),
        classes: Vec::new(),
        images: images.collect(),
        set_aside: Vec::new(),
        hidden: 0,
    }
}

fn thumbnail(number: usize) -> Result<Vec<u8>, PageError> {
    let picture = leaf(0, number % CLASSES.len(), number as u64, SIDE);
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, 82).encode_image(&picture)?;
    Ok(bytes)
}

fn rows(manifest: &Manifest) -> Vec<ClusterRow> {
    let row = |(image, number): (&ImageRecord, u32)| {
        let mut random = stream(0, Purpose::Cluster, [u64::from(number), 0, 0]);
        let mut place = || random.random_range(-1.0..1.0f32);
        ClusterRow {
            path: image.path.clone(),
            hash: image.hash,
            cluster: number.wrapping_mul(2_654_435_761) % CLUSTER_COUNT,
            x: place(),
            y: place(),
            confidence: place().abs(),
            // One in a hundred is nearly the one before.
            first: if number % 100 == 1 { number - 1 } else { number },
        }
    };
    manifest.images.iter().zip(0u32..).map(row).collect()
}

/// Writes a finished clustering; `features` writes its features into the folder.
pub(crate) fn write_grouping(
    places: &Places,
    rows: &[ClusterRow],
    features: impl FnOnce(&Path) -> Result<(), WriteError>,
) -> Result<(), PageError> {
    let plan = RunPlan::new(&defaults()?, "clusters", Vec::new());
    let mut run = Run::create(&places.clusters(), &plan)?;
    let folder = run.dir().to_owned();
    write_clusters(&folder.join(CLUSTERS), rows)?;
    features(&folder)?;
    let clusters = rows.iter().map(|row| row.cluster + 1).max().unwrap_or(0) as usize;
    let clustered = Clustered {
        folder: folder.clone(),
        images: rows.len(),
        clusters,
        found_by: FoundBy::KMeans,
        candidates: Vec::new(),
        near_duplicates: 0,
        seconds: Default::default(),
        notes: Vec::new(),
    };
    let summary = serde_json::to_vec(&clustered).map_err(std::io::Error::other);
    let file = folder.join("clusters.json");
    atomic_write(&file, &summary.map_err(WriteError::at(&file))?)?;
    Ok(run.finish("made up")?)
}

/// Writes a finished run whose beliefs are the given table.
pub(crate) fn write_run(places: &Places, beliefs: &str) -> Result<String, PageError> {
    let plan = RunPlan::new(&defaults()?, "freematch", Vec::new());
    let mut run = Run::create(&places.runs, &plan)?;
    atomic_write(&run.path(BELIEFS), beliefs.as_bytes())?;
    run.finish("made up")?;
    let name = run.dir().file_name().map(|name| name.to_string_lossy().into_owned());
    Ok(name.unwrap_or_default())
}

fn defaults() -> Result<Resolved, PageError> {
    Ok(resolve(&Sources::default())?)
}

/// Random rows of length one, written as they are made: all together may be more than there is memory.
fn write_features(folder: &Path, size: Size) -> Result<(), WriteError> {
    let (rows, dim) = (size.images as usize, size.features);
    if dim == 0 {
        return Ok(());
    }
    let file = folder.join("features.safetensors");
    write_with(&file, |file: &mut File| {
        let mut out = BufWriter::with_capacity(1 << 20, file);
        let end = rows * dim * 4;
        let mut header = format!(
            "{{\"features\":{{\"dtype\":\"F32\",\"shape\":[{rows},{dim}],\"data_offsets\":[0,{end}]}}}}"
        );
        header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(header.as_bytes())?;
        let mut random = stream(0, Purpose::Cluster, [u64::MAX, 0, 0]);
        let mut bytes = vec![0u8; dim];
        for _ in 0..rows {
            random.fill_bytes(&mut bytes);
            let values: Vec<f32> = bytes.iter().map(|&byte| f32::from(byte) - 127.5).collect();
            let length = values.iter().map(|value| value * value).sum::<f32>().sqrt();
            for value in values {
                out.write_all(&(value / length).to_le_bytes())?;
            }
        }
        out.flush()
    })
}

fn beliefs(manifest: &Manifest) -> String {
    use std::fmt::Write as _;
    let mut table = String::from("hash,part,class,confidence,second,second_confidence,abstained\n");
    for (image, number) in manifest.images.iter().zip(0u32..) {
        let mut random = stream(0, Purpose::Select, [u64::from(number), 0, 0]);
        let class = random.random_range(0..CLASSES.len());
        let second = (class + 1) % CLASSES.len();
        let confidence = random.random_range(0.4..1.0f32);
        let part = match number % 100 {
            0 => "train",
            1 => "evaluation",
            2 => "test",
            _ => "unlabelled",
        };
        let rest = (1.0 - confidence) * 0.9;
        // Writing to memory cannot fail.
        let _ = writeln!(table, "{},{part},{class},{confidence:.4},{second},{rest:.4},false", image.hash);
    }
    table
}
