//! `harvest export`: a finished run's model, to take elsewhere.

use std::path::PathBuf;

use clap::Args;

use super::context::Usage;
use crate::experiment::FinishedRun;

/// Copy a finished run's model, to take elsewhere.
#[derive(Debug, Args)]
pub struct Export {
    /// The run folder.
    run: PathBuf,
    /// Folder to write; must not exist.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

impl Export {
    pub fn run(self) -> anyhow::Result<()> {
        if self.out.exists() {
            return Err(Usage(format!("`{}` exists; name a new folder", self.out.display())).into());
        }
        let device = crate::device::by_name("cpu")?;
        let run = FinishedRun::open(&self.run, &device)?;
        run.export(&self.out)?;
        println!("model.safetensors (PyTorch names), config.json and MODEL_CARD.md: {}", self.out.display());
        Ok(())
    }
}
