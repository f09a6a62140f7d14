//! `harvest export`: a finished run's model, to take elsewhere.

use std::path::PathBuf;

use clap::Args;

use super::context::{Usage, run_cache};
use super::signals::Asked;
use crate::experiment::{FinishedRun, Shown, chain};

/// Copy a finished run's model, to take elsewhere; every file is read back and must give the same answers.
#[derive(Debug, Args)]
pub struct Export {
    /// The run folder.
    run: PathBuf,
    /// Folder to write; must not exist.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Add `model.int8.onnx`, a quarter of the size, and measure what it loses on the run's own images.
    #[arg(long)]
    int8: bool,
    /// Say nothing but results and errors.
    #[arg(long, short)]
    quiet: bool,
}

impl Export {
    pub fn run(self) -> anyhow::Result<()> {
        if self.out.exists() {
            return Err(Usage(format!("`{}` exists; name a new folder", self.out.display())).into());
        }
        let stop = Asked::listen()?.stop;
        let progress = Shown::new(self.quiet);
        let device = crate::device::by_name("cpu")?;
        let run = FinishedRun::open(&self.run, &device)?;
        let cache = match run.cache(&run_cache(&self.run), &progress, &stop) {
            Ok(cache) => Some(cache),
            // What a model is worth elsewhere must not depend on whether its images are still here.
            Err(error) if !stop.load(std::sync::atomic::Ordering::Relaxed) => {
                eprintln!(
                    "warning: without the run's images the self-test has a drawn one: {}",
                    chain(&error)
                );
                None
            }
            Err(error) => return Err(error.into()),
        };
        let bundle = run.export(&self.out, cache.as_ref(), self.int8)?;
        println!(
            "model.safetensors (PyTorch names), model.onnx, config.json and MODEL_CARD.md: {}",
            self.out.display()
        );
        for name in ["evaluation", "test"] {
            let accuracy = |key: String| bundle.about.get(&key).map_or("unknown", String::as_str);
            let (own, small) = (format!("{name} accuracy"), format!("int8 {name} accuracy"));
            if self.int8 && bundle.about.contains_key(&small) {
                let loss = bundle.about.get(&format!("int8 {name} loss"));
                let loss = loss.map_or_else(String::new, |loss| format!("; loss {loss}"));
                println!("{own} {}, in eight bits {}{loss}", accuracy(own.clone()), accuracy(small));
            }
        }
        Ok(())
    }
}
