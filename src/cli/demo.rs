//! `harvest demo`: the whole loop on drawn leaves.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;

use super::context::{Context, Repeat, Usage};
use super::signals::Asked;
use crate::config::{Override, Sources, resolve};
use crate::demo::leaves::{CLASSES, write_set};
use crate::experiment::{Comparison, Finished, Shown, Team};

/// Pictures of each class to train on and to test on, and their side in pixels.
const TRAIN: usize = 400;
const TEST: usize = 100;
const SIZE: u32 = 32;
/// The recipe, also to be found in `configs/`.
const RECIPE: &str = include_str!("../../configs/demo.toml");

/// See the whole loop at work on drawn leaves, in a few minutes.
///
/// Draws leaves in eight conditions, trains once on a few labelled pictures of each condition alone, and once on these and all
/// unlabelled ones, and compares the two on pictures neither has seen. If it is interrupted, the same command goes on from there.
#[derive(Debug, Args)]
pub struct Demo {
    /// Folder for pictures and runs; made if it does not exist.
    #[arg(long, value_name = "DIR", default_value = "harvest-demo")]
    out: PathBuf,
    /// Seed of pictures and training.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Steps of each training; the recipe's number without.
    #[arg(long)]
    steps: Option<u32>,
    /// cpu, cuda, cuda:N, or auto for the best there is.
    #[arg(long, default_value = "auto")]
    device: String,
}

impl Demo {
    pub fn run(self) -> anyhow::Result<()> {
        let started = Instant::now();
        let progress = Shown::new(false);
        let stop = Asked::listen()?.stop;
        if self.out.is_file() {
            return Err(Usage(format!("`{}` is a file; name a folder", self.out.display())).into());
        }
        let pictures = self.out.join("leaves");
        let bar = progress.begin("drawing leaves", ((TRAIN + TEST) * CLASSES.len()) as u64);
        write_set(&pictures, TRAIN, TEST, self.seed, SIZE, |done, _| bar.set(done as u64))?;
        bar.finish();
        let recipe = self.out.join("demo.toml");
        crate::files::atomic_write(&recipe, RECIPE.as_bytes())?;

        let context = |algorithm: &str| -> anyhow::Result<Context> {
            let mut overrides = vec![
                Override::flag("--data", "data.root", pictures.display()),
                Override::flag("--device", "run.device", &self.device),
                Override::flag("--algorithm", "algorithm.name", algorithm),
                Override::flag("--seed", "training.seed", self.seed),
                Override::flag("--seed", "data.seed", self.seed),
                Override::flag("--out", "run.folder", self.out.join("runs").display()),
            ];
            overrides.extend(self.steps.map(|steps| Override::flag("--steps", "training.steps", steps)));
            // The demo is the same everywhere: neither site, user nor environment changes it.
            let sources = Sources { recipe: Some(recipe.clone()), overrides, ..Sources::default() };
            Ok(Context {
                config: resolve(&sources)?,
                sources,
                project: None,
                classes: None,
                frozen: None,
                progress: Shown::new(false),
                stop: stop.clone(),
                team: Team::alone(),
                local_rank: 0,
            })
        };
        let labels = context("supervised")?;
        let per_class = labels.config.value.data.labels_per_class;
        println!("1. {per_class} labelled pictures of each of {} conditions, nothing else", CLASSES.len());
        let few = labels.train_beside(None, Repeat::Unless)?;
        println!("2. the same labels, and {} pictures without", TRAIN * CLASSES.len());
        let all = context("freematch")?.train_beside(Some(&few), Repeat::Unfinished)?;

        let accuracy =
            |run: &Finished| run.test.as_ref().map_or_else(String::new, |scores| scores.accuracy_text());
        println!("\n{:34} accuracy on {} unseen pictures", "", TEST * CLASSES.len());
        println!("{:34} {:22}   {}", "labelled pictures alone", accuracy(&few), few.folder.display());
        println!("{:34} {:22}   {}", "with the unlabelled (FreeMatch)", accuracy(&all), all.folder.display());
        if let Some(comparison) = Comparison::of(&all.folder, &few)? {
            println!("\n{}", comparison.sentence());
        }
        println!(
            "\n{:.0} s in all. Open {} in a browser.",
            started.elapsed().as_secs_f64(),
            all.folder.join("report.html").display()
        );
        Ok(())
    }
}
