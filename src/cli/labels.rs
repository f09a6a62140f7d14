//! `harvest labels`: a label for every image of a finished run.

use std::path::PathBuf;

use clap::Args;

use super::context::run_cache;
use super::signals::Asked;
use crate::experiment::{FinishedRun, Shown};
use crate::inference::{write_class_lists, write_labels_csv};

/// Write a label for every image of a finished run.
#[derive(Debug, Args)]
pub struct Labels {
    /// The run folder.
    run: PathBuf,
    /// Folder to write `labels.csv` and `classes.json` to; without, the run folder.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// cpu, cuda, cuda:N, or auto for the best there is.
    #[arg(long, default_value = "auto")]
    device: String,
    /// Say nothing but results and errors.
    #[arg(long, short)]
    quiet: bool,
}

impl Labels {
    pub fn run(self) -> anyhow::Result<()> {
        let stop = Asked::listen()?.stop;
        let progress = Shown::new(self.quiet);
        let run = FinishedRun::open(&self.run, &crate::device::by_name(&self.device)?)?;
        let cache = run.cache(&run_cache(&self.run), &progress, &stop)?;
        let bar = progress.begin("labelling", run.manifest.images.len() as u64);
        let images = run.label_all(&cache, |done| bar.set(done));
        bar.finish();
        let folder = self.out.unwrap_or(self.run);
        let (table, lists) = (folder.join("labels.csv"), folder.join("classes.json"));
        write_labels_csv(&table, &images, &run.bundle.classes)?;
        write_class_lists(&lists, &images, &run.bundle.classes)?;
        println!("{} images: {}", images.len(), table.display());
        if let Some(confidence) = &run.bundle.confidence {
            let abstained = images.iter().filter(|image| image.abstained).count();
            println!("{}", confidence.summary(abstained, images.len()));
        }
        println!("indices and full paths by class: {}", lists.display());
        Ok(())
    }
}
