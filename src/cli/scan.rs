//! `harvest scan`: decode every image once, list what cannot be used.

use std::collections::BTreeMap;

use clap::Args;

use super::context::ConfigArguments;
use crate::data::Manifest;
use crate::experiment::Dataset;
use crate::thumbs::{self, Made};

/// Rows of the table shown; the rest is in the file.
const SHOWN: usize = 20;

/// Decode every image once; list what cannot be used.
#[derive(Debug, Args)]
pub struct Scan {
    #[command(flatten)]
    config: ConfigArguments,
    /// Also make a thumbnail of every image, for the page.
    #[arg(long)]
    thumbnails: bool,
}

impl Scan {
    pub fn run(self) -> anyhow::Result<()> {
        let context = self.config.resolve(Vec::new())?;
        let places = context.places()?;
        let manifest = Dataset::scan(
            &context.config,
            &places,
            context.classes.as_ref(),
            &context.progress,
            &context.stop,
        )?;
        let table = places.manifest.with_extension("set_aside.csv");
        manifest.write_set_aside(&table)?;
        print(&manifest);
        println!("list of images: {}", places.manifest.display());
        if !manifest.set_aside.is_empty() {
            println!("files set aside, with reasons: {}", table.display());
        }
        if self.thumbnails {
            let folder = places.thumbnails();
            let made = thumbs::make(&manifest, &folder, &context.progress, &context.stop)?;
            print_thumbnails(&made);
            println!("thumbnails: {}", folder.display());
        }
        Ok(())
    }
}

fn print_thumbnails(made: &Made) {
    println!("{} thumbnails made, {} were there", made.new, made.known);
    for (path, reason) in made.failed.iter().take(SHOWN) {
        println!("  no thumbnail of {path}: {reason}");
    }
    if made.failed.len() > SHOWN {
        println!("  … and of {} more", made.failed.len() - SHOWN);
    }
}

fn print(manifest: &Manifest) {
    let duplicates = manifest.images.iter().filter(|image| image.duplicate_of.is_some()).count();
    println!(
        "{} images, {duplicates} of them copies of others; {} files set aside; {} hidden files not looked at",
        manifest.images.len(),
        manifest.set_aside.len(),
        manifest.hidden
    );
    let mut counts = BTreeMap::<u16, usize>::new();
    manifest
        .images
        .iter()
        .filter_map(|image| image.label)
        .for_each(|label| *counts.entry(label).or_default() += 1);
    for (label, count) in counts {
        let name = manifest.classes.get(usize::from(label)).map_or("?", String::as_str);
        println!("  {count:>8} labelled {name}");
    }
    let width =
        manifest.set_aside.iter().take(SHOWN).map(|file| file.path.chars().count()).max().unwrap_or(0);
    for file in manifest.set_aside.iter().take(SHOWN) {
        println!("  {:width$}  {}", file.path, file.reason);
    }
    if manifest.set_aside.len() > SHOWN {
        println!("  … and {} more", manifest.set_aside.len() - SHOWN);
    }
}
