//! `harvest probe`: how good a network's features are, with nothing trained but a probe on them.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use harvest_models::Classifier;

use super::context::{ConfigArguments, Context, Ready, Usage};
use crate::augment::Normalisation;
use crate::config::{ModelConfig, Override};
use crate::experiment::{Dataset, network_config};
use crate::inference::Bundle;
use crate::metrics::Scores;
use crate::probe::{Features, Probed, probe};
use crate::weights::start_from;

/// Judge a network's features: k nearest neighbours and a linear classifier on them.
///
/// The network stays as it is. Both learn from the labelled images and are judged on the test images; without any, on the
/// evaluation images.
#[derive(Debug, Args)]
pub struct Probe {
    /// Folder of a finished run or of a bundle, or a preset's name with --pretrained.
    model: PathBuf,
    #[command(flatten)]
    config: ConfigArguments,
    /// Weights of a preset: a file, or a name of `harvest weights list`.
    #[arg(long, value_name = "FILE|NAME")]
    pretrained: Option<PathBuf>,
    /// Leave out what of these weights does not fit the network.
    #[arg(long)]
    allow_unexpected: bool,
    /// Labelled images of each class to use.
    #[arg(long, value_name = "N")]
    labels_per_class: Option<u32>,
    /// Seed of the division into labelled and test images.
    #[arg(long)]
    seed: Option<u64>,
}

/// A network and how it wants its images.
struct Frozen {
    network: Classifier,
    size: u32,
    normalisation: Normalisation,
}

impl Probe {
    pub fn run(self) -> anyhow::Result<()> {
        let context = self.config.resolve(self.overrides())?;
        // First: a network that cannot be read is found out before the images are.
        let frozen = self.frozen(&context)?;
        let ready = context.prepare()?;
        let split = &ready.split;
        let (held_out, test, set): (&[u32], &[u32], _) = match split.test.is_empty() {
            false => (&split.evaluation, &split.test, "test"),
            true => (&[], &split.evaluation, "evaluation"),
        };
        let [labelled, held_out, test] =
            extract(&context, &ready, &frozen, [&split.labelled, held_out, test])?;
        let found = probe(&labelled, &held_out, &test, ready.dataset.classes.len())?;
        print(&found, set);
        Ok(())
    }

    fn overrides(&self) -> Vec<Override> {
        let labels = self.labels_per_class;
        let labels = labels.map(|count| Override::flag("--labels-per-class", "data.labels_per_class", count));
        let seed = self.seed.map(|seed| Override::flag("--seed", "data.seed", seed));
        let allow = self.allow_unexpected;
        let allow = allow.then(|| Override::flag("--allow-unexpected", "model.allow_unexpected", "true"));
        labels.into_iter().chain(seed).chain(allow).collect()
    }

    fn frozen(&self, context: &Context) -> anyhow::Result<Frozen> {
        let device = context.device()?;
        let config = &context.config.value;
        if self.model.is_dir() {
            if self.pretrained.is_some() {
                let text =
                    format!("`{}` has weights of its own; leave --pretrained out", self.model.display());
                return Err(Usage(text).into());
            }
            let folder = self.model.join("bundle");
            let folder = if folder.is_dir() { folder } else { self.model.clone() };
            let (bundle, network) = Bundle::read(&folder, &device)?;
            let (size, normalisation) = (bundle.preprocessing.size, bundle.preprocessing.normalisation);
            return Ok(Frozen { network, size, normalisation });
        }
        let name = self.model.to_string_lossy().into_owned();
        let settings = ModelConfig { name: name.clone(), ..config.model.clone() };
        // The classes do not matter: features come before them.
        let model = network_config(&settings, 2)
            .with_context(|| format!("`{name}` is neither the folder of a run or bundle nor a preset"))?;
        let file = self.pretrained.clone().or_else(|| config.model.pretrained.clone().map(|path| path.0));
        let Some(file) = file else {
            let text = format!("`{name}` starts from random weights; name a file with --pretrained");
            return Err(Usage(text).into());
        };
        let mut network = model.blank(&device)?;
        let weights = || format!("cannot take weights from `{}`", file.display());
        start_from(&mut network, &file, settings.load_options()).with_context(weights)?;
        Ok(Frozen { network, size: model.image_size() as u32, normalisation: config.views.normalisation })
    }
}

/// Features of three sets of images.
fn extract(
    context: &Context,
    ready: &Ready,
    frozen: &Frozen,
    sets: [&[u32]; 3],
) -> anyhow::Result<[Features; 3]> {
    let (progress, stop) = (&context.progress, &context.stop);
    let cache = Dataset::cache(&ready.dataset.manifest, &ready.places.cache, frozen.size, progress, stop)?;
    let labels = ready.dataset.labels();
    let bar = progress.begin("features", sets.iter().map(|set| set.len() as u64).sum());
    let mut before = 0;
    let features = sets.map(|set| {
        let advance = |done| bar.set(before + done);
        let found = Features::extract(&frozen.network, &cache, set, &labels, &frozen.normalisation, advance);
        before += set.len() as u64;
        found
    });
    bar.finish();
    Ok(features)
}

fn print(found: &Probed, set: &str) {
    let line = |name: String, scores: &Scores| println!("{name:34} {}", scores.accuracy_text());
    println!(
        "{} labelled images, {} {set} images; the network is as it was",
        found.labelled, found.linear.samples
    );
    println!("{:34} accuracy (95 % interval)", "");
    line(format!("{} nearest neighbours", found.k), &found.neighbours);
    line(format!("linear classifier, penalty {}", found.strength), &found.linear);
}
