//! `harvest init`: start a project.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::context::Usage;
use crate::config::SourceKind;
use crate::project::{Classes, Project};

/// Start a project: where the images are and what the classes are called.
#[derive(Debug, Args)]
pub struct Init {
    /// Folder of the project; made if it does not exist.
    folder: PathBuf,
    /// Folder of images (or CSV file of path,label).
    #[arg(long, value_name = "PATH")]
    images: PathBuf,
    /// Class names, separated by commas. Without, a folder for each class must tell them.
    #[arg(long, value_name = "A,B,…", value_delimiter = ',')]
    classes: Vec<String>,
    /// What kind of classes they are.
    #[arg(long, value_enum, default_value_t = Kind::Categorical)]
    kind: Kind,
    /// Number of equal bins from 0 to 100 %, for `--kind percentage`.
    #[arg(long, value_name = "N")]
    bins: Option<u16>,
    /// The project's name; without, its folder's.
    #[arg(long)]
    name: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// One of several names.
    Categorical,
    /// Absent or present: two names.
    Binary,
    /// Bins from 0 to 100 %, in order.
    Percentage,
}

impl Init {
    pub fn run(self) -> anyhow::Result<()> {
        let classes = self.classes()?;
        let name = self.name.clone().or_else(|| {
            Some(std::path::absolute(&self.folder).ok()?.file_name()?.to_string_lossy().into_owned())
        });
        let name = name.unwrap_or_else(|| "harvest".to_owned());
        let project = Project::init(&self.folder, &name, &self.images, SourceKind::Auto, &classes)?;
        println!("made the project `{}` in {}", project.name(), project.dir().display());
        println!(
            "its settings are in {}; next: harvest scan --project {}",
            project.file().display(),
            self.folder.display()
        );
        Ok(())
    }

    fn classes(&self) -> anyhow::Result<Classes> {
        let names = || self.classes.iter().map(String::as_str);
        let usage = |text: &str| Usage(text.to_owned());
        if self.kind != Kind::Percentage && self.bins.is_some() {
            return Err(usage("--bins goes with --kind percentage").into());
        }
        Ok(match self.kind {
            Kind::Categorical => Classes::categorical(names())?,
            Kind::Binary => match self.classes.as_slice() {
                [absent, present] => Classes::binary(absent, present)?,
                _ => return Err(usage("--kind binary needs --classes ABSENT,PRESENT").into()),
            },
            Kind::Percentage if !self.classes.is_empty() => {
                return Err(usage("--kind percentage names its classes itself; say --bins N").into());
            }
            Kind::Percentage => {
                Classes::percentage(self.bins.ok_or_else(|| usage("--kind percentage needs --bins N"))?)?
            }
        })
    }
}
