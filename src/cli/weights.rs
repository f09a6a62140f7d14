//! `harvest weights`: published weights to start from, by name.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use clap::{Args, Subcommand};
use harvest_models::checkpoint::read_weights;
use harvest_models::{ClassifierConfig, LoadOptions, LoadReport};

use super::context::Usage;
use crate::report::{Progress, thousands};
use crate::weights::{Added, Checksum, Fetched, KNOWN, Limits, Store, Wanted, find, known, start_from};

/// Keep published weights to start from, by name.
#[derive(Debug, Subcommand)]
pub enum Weights {
    /// Read a weight file (.safetensors, .pth, .pt or .bin) whole and keep it under a name.
    ///
    /// Nothing in the file is run, and nothing is kept of a damaged one.
    Add {
        /// Name to keep it under.
        name: String,
        /// The file.
        file: PathBuf,
        /// Preset that the weights must fit, such as resnet50.
        #[arg(long, value_name = "PRESET")]
        model: Option<String>,
        /// Leave out what does not fit the preset.
        #[arg(long, requires = "model")]
        allow_unexpected: bool,
    },
    /// Fetch published weights, compare their checksum, and keep them under a name.
    ///
    /// For a machine with a way out, such as a login node: training never fetches anything. What a broken connection left
    /// is gone on with. A proxy is taken from HTTPS_PROXY.
    Fetch(Fetch),
    /// List what is kept, and what can be fetched by name.
    List,
    /// Show every tensor of a weight file, or what would become of each in a network.
    Show {
        /// A name of the list, or a file.
        #[arg(value_name = "NAME|FILE")]
        weights: PathBuf,
        /// Preset to load them into.
        #[arg(long, value_name = "PRESET")]
        model: Option<String>,
        /// Leave out what does not fit the preset.
        #[arg(long, requires = "model")]
        allow_unexpected: bool,
    },
}

/// What to fetch.
#[derive(Debug, Args)]
pub struct Fetch {
    /// A name of `harvest weights list`, or the address of a file.
    #[arg(value_name = "NAME|URL")]
    what: String,
    /// SHA-256 of the file, which an address needs.
    #[arg(long, value_name = "HEX")]
    sha256: Option<String>,
    /// Name to keep it under, which an address needs.
    #[arg(long = "as", value_name = "NAME")]
    name: Option<String>,
    /// Preset that the weights must fit; those of a known name must fit theirs.
    #[arg(long, value_name = "PRESET")]
    model: Option<String>,
    /// Largest file that is taken, in gigabytes.
    #[arg(long, value_name = "N", default_value_t = 4)]
    limit_gb: u64,
}

impl Weights {
    /// Whether nothing is lost if it ends as soon as nobody reads what it prints.
    pub fn only_prints(&self) -> bool {
        !matches!(self, Self::Fetch(_))
    }

    pub fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Add { name, file, model, allow_unexpected } => {
                let store = Store::of_this_user()?;
                let options = LoadOptions { allow_unexpected, ..LoadOptions::default() };
                tell(&store, &store.add(&name, &file, model.as_deref(), options)?);
            }
            Self::Fetch(fetch) => fetch.run()?,
            Self::List => {
                let store = Store::of_this_user()?;
                let entries = store.list()?;
                let fetchable: Vec<_> = KNOWN
                    .iter()
                    .filter(|known| entries.iter().all(|entry| entry.name != known.name))
                    .collect();
                let names = entries.iter().map(|entry| entry.name.len());
                let width = names.chain(fetchable.iter().map(|known| known.name.len())).max().unwrap_or(0);
                for entry in &entries {
                    let values = thousands(entry.values as u64);
                    let model = entry.model.as_deref().unwrap_or("");
                    println!("{:width$}  {values:>13} values  {model}  from {}", entry.name, entry.origin);
                }
                if entries.is_empty() {
                    println!("nothing in {}; `harvest weights add NAME FILE`", store.folder().display());
                }
                if !fetchable.is_empty() {
                    println!("to be had with `harvest weights fetch NAME`:");
                }
                for known in fetchable {
                    println!("{:width$}  {}", known.name, known.url);
                }
            }
            Self::Show { weights, model: Some(model), allow_unexpected } => {
                print!("{}", fits(&weights, &model, allow_unexpected)?);
            }
            Self::Show { weights, model: None, .. } => {
                let weights = read_weights(&find(&weights)?)?;
                let width = weights.tensors.keys().map(|name| name.chars().count()).max().unwrap_or(0);
                for (name, data) in &weights.tensors {
                    println!("{name:width$}  {:?} {:?}", data.dtype(), data.shape().to_vec());
                }
                println!("{} tensors ({})", weights.tensors.len(), weights.format);
            }
        }
        Ok(())
    }
}

impl Fetch {
    fn run(self) -> anyhow::Result<()> {
        let store = Store::of_this_user()?;
        let limits = Limits { size: self.limit_gb.saturating_mul(1_000_000_000), ..Limits::default() };
        match store.fetch(&self.wanted()?, &limits, Progress::new)? {
            Fetched::New(added) => {
                if let Some(sha256) = &added.entry.origin_sha256 {
                    println!("SHA-256 {sha256}");
                }
                tell(&store, &added);
            }
            Fetched::Kept(entry) => println!("{} is kept already, from {}", entry.name, entry.origin),
        }
        Ok(())
    }

    fn wanted(self) -> anyhow::Result<Wanted> {
        let checksum = self.sha256.as_deref().map(Checksum::whole).transpose()?;
        if let Some(known) = known(&self.what) {
            let wanted = Wanted::from(known);
            return Ok(Wanted {
                name: self.name.unwrap_or(wanted.name),
                checksum: checksum.unwrap_or(wanted.checksum),
                model: self.model.or(wanted.model),
                ..wanted
            });
        }
        let what = self.what;
        if !what.contains("://") {
            let names = KNOWN.map(|known| known.name).join(", ");
            let text = format!("`{what}` is neither a known name ({names}) nor an address (https://…)");
            return Err(Usage(text).into());
        }
        match (self.name, checksum) {
            (Some(name), Some(checksum)) => Ok(Wanted { name, url: what, checksum, model: self.model }),
            (None, _) => Err(Usage(format!("say with --as NAME what to call `{what}`")).into()),
            (_, None) => {
                let text = format!("say with --sha256 HEX what `{what}` must hash to; its publisher tells");
                Err(Usage(text).into())
            }
        }
    }
}

fn tell(store: &Store, added: &Added) {
    let Added { entry, report } = added;
    let values = thousands(entry.values as u64);
    println!("{}: {} tensors, {values} values ({})", entry.name, entry.tensors, entry.format);
    if let (Some(report), Some(model)) = (report, &entry.model) {
        println!("fits {model}: {}", report.summary());
    }
    println!("kept in {}", store.file(&entry.name).display());
}

/// What becomes of each tensor in a network of that preset, with a new classifier.
fn fits(weights: &Path, model: &str, allow_unexpected: bool) -> anyhow::Result<LoadReport> {
    let mut network = ClassifierConfig::preset(model, 2)?.blank(&Device::flex())?;
    Ok(start_from(&mut network, weights, LoadOptions { allow_unexpected, ..LoadOptions::default() })?)
}
