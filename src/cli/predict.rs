//! `harvest predict`: classify new images.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;

use super::context::Usage;
use crate::data::{DecodeLimits, decode_file, fit};
use crate::inference::{Bundle, Predictor};

/// Images decoded and classified at a time.
const BATCH: usize = 64;

/// Classify new images.
///
/// The table has a line for each image: path, the most likely class, how sure the model is of it, and `true` under `abstained`
/// where that is too little for the class to count (see MODEL_CARD.md of the model).
#[derive(Debug, Args)]
pub struct Predict {
    /// Images, and folders of images.
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Folder of a finished run, or of a bundle.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Write the table to this file instead of the terminal.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// cpu, cuda, cuda:N, or auto for the best there is.
    #[arg(long, default_value = "auto")]
    device: String,
}

impl Predict {
    pub fn run(self) -> anyhow::Result<()> {
        let device = crate::device::by_name(&self.device)?;
        let folder = self.model.join("bundle");
        let folder = if folder.is_dir() { folder } else { self.model.clone() };
        let (bundle, network) = Bundle::read(&folder, &device)?;
        let files = files(&self.paths)?;
        let mut table = Vec::new();
        let mut set_aside = Vec::new();
        let size = bundle.preprocessing.size;
        let predictor = Predictor::new(&network, size as usize, &bundle.preprocessing.normalisation, BATCH);
        let mut csv = csv::Writer::from_writer(&mut table);
        csv.write_record(["path", "class", "confidence", "abstained"])?;
        let mut abstained = 0;
        for files in files.chunks(BATCH) {
            let (images, paths) = decode_all(files, size, &mut set_aside);
            let slices = images.iter().map(Vec::as_slice);
            let mut predictions = Vec::new();
            predictor.logits(slices, |_, logits| {
                predictions.extend(logits.chunks_exact(bundle.classes.len()).map(|row| bundle.predict(row)));
                true
            });
            for (path, prediction) in paths.iter().zip(predictions) {
                let confidence = format!("{:.6}", prediction.confidence);
                let class = &bundle.classes[prediction.class];
                let silent = if prediction.abstained { "true" } else { "false" };
                abstained += usize::from(prediction.abstained);
                csv.write_record([&path.display().to_string(), class, &confidence, silent])?;
            }
        }
        csv.flush()?;
        drop(csv);
        match &self.out {
            Some(file) => crate::files::atomic_write(file, &table)?,
            None => std::io::stdout().write_all(&table).context("cannot print the table")?,
        }
        for (path, reason) in &set_aside {
            eprintln!("set aside: {}: {reason}", path.display());
        }
        let classified = files.len() - set_aside.len();
        if let Some(confidence) = &bundle.confidence {
            // Not on standard output, where the table may be.
            eprintln!("{}", confidence.summary(abstained, classified));
        }
        if classified == 0 {
            anyhow::bail!("none of the {} files could be classified; the reasons are above", files.len());
        }
        Ok(())
    }
}

/// Every file named, and every file that is not hidden in every folder named, in the order of paths.
fn files(paths: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        if !path.exists() {
            return Err(Usage(format!("there is no `{}`", path.display())).into());
        }
        let visible = |entry: &walkdir::DirEntry| {
            entry.depth() == 0 || !entry.file_name().to_string_lossy().starts_with('.')
        };
        let walk = walkdir::WalkDir::new(path).sort_by_file_name().follow_links(true);
        for entry in walk.into_iter().filter_entry(visible) {
            let entry = entry.with_context(|| format!("cannot look into `{}`", path.display()))?;
            if entry.file_type().is_file() {
                files.push(entry.into_path());
            }
        }
    }
    if files.is_empty() {
        return Err(Usage("there are no files in what you named".to_owned()).into());
    }
    Ok(files)
}

/// Decodes in parallel; what cannot be decoded goes to `set_aside` with the reason.
fn decode_all<'f>(
    files: &'f [PathBuf],
    size: u32,
    set_aside: &mut Vec<(PathBuf, String)>,
) -> (Vec<Vec<u8>>, Vec<&'f Path>) {
    use rayon::prelude::*;
    let decoded: Vec<_> = files
        .par_iter()
        .map(|file| decode_file(file, &DecodeLimits::default()).map(|image| fit(image, size).into_raw()))
        .collect();
    let mut images = (Vec::new(), Vec::new());
    for (file, result) in files.iter().zip(decoded) {
        match result {
            Ok(image) => {
                images.0.push(image);
                images.1.push(file.as_path());
            }
            Err(error) => set_aside.push((file.clone(), crate::experiment::chain(&error))),
        }
    }
    images
}
