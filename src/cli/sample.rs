//! `harvest sample`: which images to label next.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::context::{ConfigArguments, Usage};
use crate::clustering::Selection;
use crate::experiment::{Dataset, FinishedRun, Round};

/// Choose the images to label next; write them as a table to fill in for `harvest label`.
#[derive(Debug, Args)]
pub struct Sample {
    #[command(flatten)]
    config: ConfigArguments,
    /// How to choose.
    #[arg(long, value_enum, default_value_t = By::Typical)]
    by: By,
    /// How many images.
    #[arg(long, short = 'n', default_value_t = 40)]
    count: usize,
    /// Seed of all draws.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Run folder of the current model, for `--by uncertain`.
    #[arg(long, value_name = "RUN")]
    run: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum By {
    /// By lot.
    Random,
    /// By lot, one cluster after the other.
    Clusters,
    /// The most typical image of each group of like images: best for the first labels.
    Typical,
    /// What is least like anything labelled.
    Coverage,
    /// What the current model is least sure of, spread over classes and looks: best for later labels.
    Uncertain,
}

impl By {
    fn selection(self) -> Selection {
        match self {
            Self::Random => Selection::Random,
            Self::Clusters => Selection::Clusters,
            Self::Typical => Selection::Typical,
            Self::Coverage => Selection::Coverage,
            Self::Uncertain => Selection::Uncertain,
        }
    }
}

impl Sample {
    pub fn run(self) -> anyhow::Result<()> {
        let context = self.config.resolve(Vec::new())?;
        let (places, device) = (context.places()?, context.device()?);
        if context.project.is_none() {
            return Err(Usage("labels belong to a project; make one with `harvest init`".to_owned()).into());
        }
        if self.by == By::Uncertain && self.run.is_none() {
            let text = "what a model doubts needs the model; name its run folder with --run";
            return Err(Usage(text.to_owned()).into());
        }
        let model = self.run.as_deref().map(|run| FinishedRun::open(run, &device)).transpose()?;
        let manifest = Dataset::scan(
            &context.config,
            &places,
            context.classes.as_ref(),
            &context.progress,
            &context.stop,
        )?;
        let round = Round {
            manifest: &manifest,
            places: &places,
            selection: self.by.selection(),
            count: self.count,
            seed: self.seed,
            model: model.as_ref(),
            device,
        };
        let chosen = round.write(&context.progress, &context.stop)?;
        for note in &chosen.notes {
            eprintln!("{note}");
        }
        println!("{} images to label: {}", chosen.images, chosen.file.display());
        println!("what they look like, in the same order: {}", chosen.sheet.display());
        println!("fill in the column `label`, then: harvest label {}", chosen.file.display());
        Ok(())
    }
}
