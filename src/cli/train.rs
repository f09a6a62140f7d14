//! `harvest train`: train a classifier on few labels and all images.

use std::sync::atomic::Ordering;

use anyhow::Context as _;
use clap::Args;

use super::context::{ComeBack, ConfigArguments, Context, FrozenArguments, Repeat, Usage};
use crate::algorithms::AlgorithmName;
use crate::config::Override;
use crate::experiment::{Comparison, Finished};

/// Train a classifier on few labels and all images.
///
/// The same command goes on with a run that was stopped or killed.
#[derive(Debug, Args)]
pub struct Train {
    #[command(flatten)]
    pub config: ConfigArguments,
    /// Begin anew, even if the same run is there unfinished.
    #[arg(long)]
    fresh: bool,
    /// Train on the labelled images alone too, and tell whether the unlabelled ones helped.
    #[arg(long)]
    with_baseline: bool,
    /// Check everything, try one step, and tell what would be done; train nothing.
    #[arg(long, conflicts_with_all = ["fresh", "with_baseline"])]
    dry_run: bool,
    /// freematch, flexmatch, fixmatch, adamatch, softmatch, mixmatch, remixmatch, uda, pseudolabel, meanteacher,
    /// self_training or supervised.
    #[arg(long)]
    algorithm: Option<String>,
    /// A preset such as vit_tiny_patch2_32 or resnet50.
    #[arg(long)]
    model: Option<String>,
    /// Weights to start from: a file, or a name of `harvest weights list`.
    #[arg(long, value_name = "FILE|NAME")]
    pretrained: Option<String>,
    /// Leave out what of these weights does not fit the network.
    #[arg(long)]
    allow_unexpected: bool,
    /// Optimizer steps.
    #[arg(long)]
    steps: Option<u32>,
    /// Labelled images of each class to use.
    #[arg(long, value_name = "N")]
    labels_per_class: Option<u32>,
    /// Seed of weights, order and views.
    #[arg(long)]
    seed: Option<u64>,
    #[command(flatten)]
    pub frozen: FrozenArguments,
}

impl Train {
    pub fn run(self) -> anyhow::Result<()> {
        let context = self.config.resolve_frozen(self.overrides(), &self.frozen)?;
        if self.dry_run {
            let ready = context.prepare()?;
            let experiment = ready.experiment(&context, None)?;
            print!("{}", experiment.rehearse()?);
            println!("nothing was trained (--dry-run)");
            return Ok(());
        }
        let supervised = context.config.value.algorithm.name == AlgorithmName::Supervised;
        if self.with_baseline && supervised {
            return Err(Usage(
                "--with-baseline: supervised is the baseline itself; choose another --algorithm".into(),
            )
            .into());
        }
        let context = context.joined()?;
        let trained = self.train(&context);
        let ended = context.team.end(trained);
        match context.team.come_back().load(Ordering::Relaxed) {
            true => ended.context(ComeBack),
            false => ended,
        }
    }

    fn train(&self, context: &Context) -> anyhow::Result<()> {
        let first = context.team.is_first();
        if !self.with_baseline {
            let finished = context.train(self.fresh)?;
            if first {
                tell(&finished);
            }
            return Ok(());
        }
        // First, so that the run's own report can compare.
        let baseline = context.train_baseline(self.fresh)?;
        if first {
            println!("baseline: {} ({})", baseline.summary(), baseline.folder.display());
        }
        let repeat = if self.fresh { Repeat::Anew } else { Repeat::Unfinished };
        let finished = context.train_beside(Some(&baseline), repeat)?;
        if first {
            tell(&finished);
            match Comparison::of(&finished.folder, &baseline)? {
                Some(comparison) => println!("{}", comparison.sentence()),
                None => println!("There are no test images to compare on; see `data.test_fraction`."),
            }
        }
        Ok(())
    }

    fn overrides(&self) -> Vec<Override> {
        let flag = |flag: &str, key: &str, value: Option<String>| {
            value.map(|value| Override::flag(flag, key, value))
        };
        [
            flag("--algorithm", "algorithm.name", self.algorithm.clone()),
            flag("--model", "model.name", self.model.clone()),
            flag("--pretrained", "model.pretrained", self.pretrained.clone()),
            flag(
                "--allow-unexpected",
                "model.allow_unexpected",
                self.allow_unexpected.then(|| "true".to_owned()),
            ),
            flag("--steps", "training.steps", self.steps.map(|steps| steps.to_string())),
            flag(
                "--labels-per-class",
                "data.labels_per_class",
                self.labels_per_class.map(|labels| labels.to_string()),
            ),
            flag("--seed", "training.seed", self.seed.map(|seed| seed.to_string())),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

fn tell(finished: &Finished) {
    println!("{}", finished.summary());
    println!("report: {}", finished.folder.join("report.html").display());
    println!("model:  {}", finished.folder.join("bundle").display());
}
