//! `harvest label`: take labels over from a CSV file.

use std::collections::HashMap;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use super::context::{ConfigArguments, Usage};
use crate::data::{ContentHash, Manifest};
use crate::project::import_labels;

/// Take labels over from a CSV file of path,label.
#[derive(Debug, Args)]
pub struct LabelVerb {
    /// The file; paths in it are relative to the images.
    file: PathBuf,
    /// Who gave the labels; without, the user's name here.
    #[arg(long)]
    who: Option<String>,
    #[command(flatten)]
    config: ConfigArguments,
}

impl LabelVerb {
    pub fn run(self) -> anyhow::Result<()> {
        let context = self.config.resolve(Vec::new())?;
        let no_project = || Usage("labels belong to a project; make one with `harvest init`".to_owned());
        let project = context.project.as_ref().ok_or_else(no_project)?;
        let manifest = Manifest::read(&context.places()?.manifest)
            .context("the images are not known yet; run `harvest scan` first")?;
        let images: HashMap<&str, [u8; 32]> = manifest
            .images
            .iter()
            .map(|image| {
                let ContentHash(hash) = image.hash;
                (image.path.as_str(), hash)
            })
            .collect();
        let mut store = project.labels()?;
        let who = self.who.or_else(|| std::env::var("USER").ok()).unwrap_or_else(|| "unknown".to_owned());
        let count = import_labels(&mut store, &self.file, |path| images.get(path).copied(), &who)?;
        println!("took {count} labels over; {} images have a label now", store.current()?.len());
        Ok(())
    }
}
