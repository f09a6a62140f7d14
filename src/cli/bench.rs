//! `harvest bench`: speed and memory.

use clap::Subcommand;

/// Measure speed and memory.
#[derive(Debug, Subcommand)]
pub enum Bench {}

impl Bench {
    pub fn run(self) -> anyhow::Result<()> {
        match self {}
    }
}
