//! Files to take away, made while they are sent.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path as FilePath, PathBuf};

use axum::Extension;
use axum::extract::Path;
use axum::response::Response;
use zip::CompressionMethod;
use zip::write::SimpleFileOptions;

use super::labelling_of;
use super::model::{Exports, made};
use super::stream::download;
use crate::data::{ContentHash, ManifestStream};
use crate::experiment::{ExperimentError, LabelFile};
use crate::project::{LabelStore, Project, write_labels};
use crate::web::desk::AtDesk;
use crate::web::error::WebError;
use crate::web::off_thread;
use crate::web::results::runs::{file_of, folder_of};

/// Files of a run that are handed out as they are: what addresses call them, where they lie, what they are.
const PLAIN: [(&str, &str, &str); 4] = [
    ("report.html", "report.html", "text/html; charset=utf-8"),
    ("MODEL_CARD.md", "bundle/MODEL_CARD.md", "text/markdown; charset=utf-8"),
    ("settings.toml", "config.toml", "text/plain; charset=utf-8"),
    ("metrics.csv", "metrics.csv", "text/csv; charset=utf-8"),
];

/// A file of a run.
pub async fn file(
    AtDesk(desk): AtDesk,
    Path((_, run, file)): Path<(String, String, String)>,
    Extension(exports): Extension<Exports>,
) -> Result<Response, WebError> {
    let project = desk.project();
    let folder = folder_of(&project, &run)?;
    let name = format!("{}-{file}", desk.key);
    if let Some(kind) = LabelFile::ALL.into_iter().find(|kind| kind.name() == file) {
        return download(&name, type_of(kind), move |out| {
            Ok(labelling_of(&project, &folder)?.write(kind, out)?)
        })
        .await;
    }
    if let Some((_, path, kind)) = PLAIN.into_iter().find(|(name, ..)| *name == file) {
        return download(&name, kind, move |out| {
            let path = file_of(&folder, path)?;
            copy(&path, out)
        })
        .await;
    }
    let zip = "application/zip";
    match file.as_str() {
        "model.zip" => {
            download(&name, zip, move |out| pack(&file_of(&folder, "bundle/config.json")?, out)).await
        }
        "onnx.zip" | "onnx-int8.zip" => {
            let config = made(&exports, &project, folder, file == "onnx-int8.zip").await?.join("config.json");
            download(&name, zip, move |out| pack(&config, out)).await
        }
        _ => Err(WebError::Missing {
            what: format!("`{}` to take away", file.chars().take(80).collect::<String>()),
        }),
    }
}

fn type_of(kind: LabelFile) -> &'static str {
    match kind {
        LabelFile::Csv => "text/csv; charset=utf-8",
        LabelFile::Parquet => "application/vnd.apache.parquet",
        LabelFile::Lists => "application/zip",
        LabelFile::Json => "application/json",
    }
}

/// The labels that people gave, and nothing of any model; `harvest label` reads it.
pub async fn by_people(AtDesk(desk): AtDesk) -> Result<Response, WebError> {
    let project = desk.project();
    let entries = off_thread({
        let project = project.clone();
        move || LabelStore::read_entries(project.dir())
    })
    .await?;
    download(&format!("{}-labels-by-people.csv", desk.key), "text/csv; charset=utf-8", move |out| {
        let mut paths: HashMap<[u8; 32], Vec<String>> =
            entries.iter().map(|entry| (entry.image, Vec::new())).collect();
        each_path(&project, |hash, path| {
            if let Some(paths) = paths.get_mut(hash) {
                paths.push(path.to_owned());
            }
        })?;
        let of = |hash: &[u8; 32]| paths.get(hash).cloned().unwrap_or_default();
        write_labels(&entries, project.classes(), of, out).map_err(lost)?;
        Ok(())
    })
    .await
}

/// Paths of the project's images as they were scanned last; none before the first scan.
fn each_path(project: &Project, mut take: impl FnMut(&[u8; 32], &str)) -> Result<(), WebError> {
    let list = project.dir().join("images.jsonl");
    if !list.exists() {
        return Ok(());
    }
    for image in ManifestStream::open(&list).map_err(ExperimentError::from)? {
        let image = image.map_err(ExperimentError::from)?;
        let ContentHash(hash) = image.hash;
        take(&hash, &image.path);
    }
    Ok(())
}

fn lost(error: io::Error) -> WebError {
    ExperimentError::Output { source: error }.into()
}

fn copy(path: &FilePath, out: &mut (dyn Write + Send)) -> Result<(), WebError> {
    let mut file = File::open(path).map_err(lost)?;
    io::copy(&mut file, out).map_err(lost)?;
    Ok(())
}

/// Packs the folder that `config` lies in. Weights hardly shrink, and are taken as they are.
fn pack(config: &FilePath, out: &mut (dyn Write + Send)) -> Result<(), WebError> {
    let folder = config.parent().unwrap_or(config);
    let entries = std::fs::read_dir(folder).map_err(lost)?;
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    // No links, no folders, nothing that is being written.
    files.retain(|file| file.symlink_metadata().is_ok_and(|found| found.is_file()));
    files.retain(|file| file.file_name().is_some_and(|name| !name.to_string_lossy().starts_with('.')));
    files.sort();
    let mut archive = zip::ZipWriter::new_stream(out);
    for path in files {
        let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let mut file = File::open(&path).map_err(lost)?;
        let size = file.metadata().map_err(lost)?.len();
        let weights = name.ends_with(".safetensors") || name.ends_with(".onnx");
        let method = if weights { CompressionMethod::Stored } else { CompressionMethod::Deflated };
        let options =
            SimpleFileOptions::default().compression_method(method).large_file(size > u32::MAX.into());
        archive.start_file(format!("model/{name}"), options).map_err(|error| lost(error.into()))?;
        io::copy(&mut file, &mut archive).map_err(lost)?;
    }
    archive.finish().map_err(|error| lost(error.into()))?;
    Ok(())
}
