//! `harvest labels`: a label for every image of a finished run.

use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{Args, ValueEnum};

use super::context::run_cache;
use super::signals::Asked;
use crate::experiment::{BELIEFS, ExperimentError, FinishedRun, LabelFile, Labelling, Shown};
use crate::files::{WriteError, write_with};

/// Write a label for every image of a finished run: experts' labels where there are some, else what the model believes.
#[derive(Debug, Args)]
pub struct Labels {
    /// The run folder.
    run: PathBuf,
    /// Folder to write to; without, the run folder.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// What to write: csv (labels.csv), json (classes.json: indices and full paths by class), parquet (labels.parquet), lists
    /// (lists.zip: a file of full paths for each class).
    #[arg(long, value_name = "KIND", value_delimiter = ',', default_value = "csv,json")]
    format: Vec<Format>,
    /// cpu, cuda, cuda:N, or auto for the best there is.
    #[arg(long, default_value = "auto")]
    device: String,
    /// Say nothing but results and errors.
    #[arg(long, short)]
    quiet: bool,
}

/// A kind of file, as [`LabelFile`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Csv,
    Json,
    Parquet,
    Lists,
}

impl From<Format> for LabelFile {
    fn from(format: Format) -> Self {
        match format {
            Format::Csv => Self::Csv,
            Format::Json => Self::Json,
            Format::Parquet => Self::Parquet,
            Format::Lists => Self::Lists,
        }
    }
}

impl Labels {
    pub fn run(self) -> anyhow::Result<()> {
        let stop = Asked::listen()?.stop;
        let run = FinishedRun::open(&self.run, &crate::device::by_name(&self.device)?)?;
        let folder = self.out.clone().unwrap_or_else(|| self.run.clone());
        let beliefs = self.beliefs(&run, &folder, &stop)?;
        let labelling = run.labelling()?.believing(beliefs);
        let (mut images, mut abstained) = (0, 0);
        labelling.each(|image| {
            images += 1;
            abstained += usize::from(image.abstained);
            Ok(())
        })?;
        for kind in self.format.iter().map(|format| LabelFile::from(*format)) {
            let file = folder.join(kind.name());
            write(&labelling, kind, &file)?;
            println!("{images} images: {}", file.display());
        }
        if let Some(confidence) = &run.bundle.confidence {
            println!("{}", confidence.summary(abstained, images));
        }
        Ok(())
    }

    /// The file of what the model believes; made now if the run has none, or its bundle was changed since.
    fn beliefs(&self, run: &FinishedRun, folder: &Path, stop: &AtomicBool) -> anyhow::Result<PathBuf> {
        let own = self.run.join(BELIEFS);
        let changed = |path: &Path| std::fs::metadata(path).and_then(|file| file.modified()).ok();
        if changed(&own) >= changed(&self.run.join("bundle/config.json")) && own.is_file() {
            return Ok(own);
        }
        let progress = Shown::new(self.quiet);
        let cache = run.cache(&run_cache(&self.run), &progress, stop)?;
        let bar = progress.begin("predicting", run.distinct_images());
        let file = folder.join(BELIEFS);
        let go_on = |done| {
            bar.set(done);
            !stop.load(Ordering::Relaxed)
        };
        if !run.write_beliefs(&cache, &file, go_on)? {
            anyhow::bail!("stopped as asked; nothing was written");
        }
        bar.finish();
        Ok(file)
    }
}

/// Writes a file, whole or not at all.
fn write(labelling: &Labelling, kind: LabelFile, file: &Path) -> Result<(), WriteError> {
    write_with(file, |out| {
        let mut out = BufWriter::new(out);
        labelling.write(kind, &mut out).map_err(|error| match error {
            ExperimentError::Output { source } => source,
            other => io::Error::other(other),
        })?;
        out.flush()
    })
}
