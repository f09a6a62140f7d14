//! `harvest config`: look at the settings.

use clap::Subcommand;

use super::context::ConfigArguments;

/// Look at the settings.
#[derive(Debug, Subcommand)]
pub enum ConfigVerb {
    /// Print every value with its origin.
    Show {
        #[command(flatten)]
        config: ConfigArguments,
    },
}

impl ConfigVerb {
    pub fn run(self) -> anyhow::Result<()> {
        let Self::Show { config } = self;
        print!("{}", config.resolve(Vec::new())?.config.show());
        Ok(())
    }
}
