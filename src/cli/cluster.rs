//! `harvest cluster`: group like images, without labels.

use anyhow::Context as _;
use clap::Args;

use super::context::{ConfigArguments, FrozenArguments};
use crate::config::Override;
use crate::experiment::{Clustered, Clustering, Dataset};

/// Group like images, without labels: clusters, a map, a sheet of pictures for each.
#[derive(Debug, Args)]
pub struct Cluster {
    #[command(flatten)]
    pub config: ConfigArguments,
    /// How many clusters; without, as many as classes.
    #[arg(long, value_name = "N")]
    clusters: Option<u32>,
    /// kmeans, scan, or auto for the better of the two.
    #[arg(long, value_name = "METHOD")]
    method: Option<String>,
    /// Network to look with, such as resnet8 or vit_small_patch16_224.
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Weights of the network (a file, or a name of `harvest weights`); without, it learns from these images (SimCLR).
    #[arg(long, value_name = "FILE|NAME")]
    pretrained: Option<String>,
    /// Seed of everything that is drawn.
    #[arg(long)]
    seed: Option<u64>,
    /// Start anew, even if the same was done before.
    #[arg(long)]
    fresh: bool,
    #[command(flatten)]
    pub frozen: FrozenArguments,
}

impl Cluster {
    pub fn run(self) -> anyhow::Result<()> {
        let context = self.config.resolve_frozen(self.overrides(), &self.frozen)?;
        let places = context.places()?;
        let (progress, stop) = (&context.progress, &context.stop);
        // Unlabelled images have no classes yet, unless a project names them.
        let manifest = match &context.classes {
            Some(classes) => Dataset::load(&context.config, &places, Some(classes), progress, stop)?.manifest,
            None => Dataset::scan(&context.config, &places, None, progress, stop)?,
        };
        let clustering = Clustering {
            config: &context.config,
            manifest: &manifest,
            device: context.device()?,
            places: &places,
        };
        let arguments: Vec<String> = std::env::args().collect();
        let found =
            clustering.execute(self.fresh, &arguments, progress, stop).context("cannot group the images")?;
        progress.folder(&found.folder);
        print(&found);
        Ok(())
    }

    fn overrides(&self) -> Vec<Override> {
        let set = |flag, key, value: Option<String>| value.map(|value| Override::flag(flag, key, value));
        [
            set("--clusters", "clustering.clusters", self.clusters.map(|count| count.to_string())),
            set("--method", "clustering.method", self.method.clone()),
            set("--model", "model.name", self.model.clone()),
            set("--pretrained", "model.pretrained", self.pretrained.clone()),
            set("--seed", "clustering.seed", self.seed.map(|seed| seed.to_string())),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

fn print(found: &Clustered) {
    println!("{}", found.summary());
    for candidate in &found.candidates {
        let quality = candidate.quality;
        print!(
            "  {:<28} silhouette {:.3}, agreement {:.3}",
            candidate.found_by.words(),
            quality.silhouette,
            quality.agreement
        );
        if let Some(stability) = quality.stability {
            print!(", stability {stability:.3}");
        }
        match &candidate.scores {
            Some(scores) => println!(
                ", {:.2} % right, NMI {:.3}, ARI {:.3} on {} labelled images",
                100.0 * scores.accuracy,
                scores.nmi,
                scores.ari,
                scores.samples
            ),
            None => println!(),
        }
    }
    for note in &found.notes {
        println!("  {note}");
    }
    let seconds: Vec<String> =
        found.seconds.iter().map(|(part, time)| format!("{part} {time:.1} s")).collect();
    println!("  {}", seconds.join(", "));
    println!("page, map and sheets: {}", found.folder.join("clusters.html").display());
    println!("cluster of every image: {}", found.folder.join(crate::experiment::CLUSTERS).display());
}
