//! `harvest demo`: the whole loop on drawn leaves.

use clap::Args;

/// See the whole loop at work on drawn leaves, in a few minutes.
#[derive(Debug, Args)]
pub struct Demo {}

impl Demo {
    pub fn run(self) -> anyhow::Result<()> {
        Ok(())
    }
}
