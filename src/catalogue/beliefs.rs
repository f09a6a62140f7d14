//! What a finished run's model believes of every image: its file `beliefs.csv`.

use std::path::Path;
use std::sync::OnceLock;

use super::CatalogueError;
use super::columns::{Columns, sorted};
use crate::experiment::{self, BELIEFS, Places, RunPart};
use crate::project::{Run, RunState};

/// What a model believes of an image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Believed {
    /// Number of the class.
    pub class: u16,
    /// How likely that is, from 0 to 1.
    pub confidence: f32,
    /// How much likelier than the next class.
    pub margin: f32,
    /// What the run used the image for.
    pub part: RunPart,
    /// Whether the model rather says nothing.
    pub abstained: bool,
}

/// What one run's model believes of every image.
pub struct Beliefs {
    /// Name of the run's folder.
    pub run: String,
    /// By image; only of those that are the first with their pixels.
    rows: Vec<Option<Believed>>,
    surest: OnceLock<Vec<u32>>,
    narrowest: OnceLock<Vec<u32>>,
}

impl Beliefs {
    /// Of the newest finished run that has left any.
    pub(super) fn latest(places: &Places, columns: &Columns) -> Result<Option<Self>, CatalogueError> {
        for run in Run::list(&places.runs)?.into_iter().rev() {
            let file = run.path(BELIEFS);
            if file.is_file() && matches!(run.state()?, RunState::Done(_)) {
                return Self::read(&file, name(run.dir()), columns).map(Some);
            }
        }
        Ok(None)
    }

    /// Of the run whose folder is called `run`.
    pub(super) fn of_run(places: &Places, run: &str, columns: &Columns) -> Result<Self, CatalogueError> {
        let missing = || CatalogueError::NoSuchRun { run: run.to_owned() };
        // A name and nothing else: no way out of the folder of runs.
        if run.is_empty() || run.starts_with('.') || run.contains(['/', '\\']) {
            return Err(missing());
        }
        let file = places.runs.join(run).join(BELIEFS);
        if !file.is_file() {
            return Err(missing());
        }
        Self::read(&file, run.to_owned(), columns)
    }

    fn read(file: &Path, run: String, columns: &Columns) -> Result<Self, CatalogueError> {
        let table = experiment::Beliefs::open(file)?;
        let table = table.ok_or_else(|| CatalogueError::NoSuchRun { run: run.clone() })?;
        let mut rows = vec![None; columns.len()];
        for belief in table {
            let belief = belief?;
            // Of images that have gone since, nobody asks.
            if let Some(image) = columns.find(&belief.hash.0) {
                rows[image as usize] = Some(Believed {
                    class: belief.class,
                    confidence: belief.confidence,
                    margin: (belief.confidence - belief.second_confidence).max(0.0),
                    part: belief.part,
                    abstained: belief.abstained,
                });
            }
        }
        Ok(Self { run, rows, surest: OnceLock::new(), narrowest: OnceLock::new() })
    }

    /// What it believes of an image that is the first with its pixels; `None` if the run did not know it.
    pub(super) fn get(&self, first: u32) -> Option<Believed> {
        self.rows[first as usize]
    }

    /// All images, those it is surest of first, then those it knows nothing of.
    pub(super) fn surest(&self, columns: &Columns) -> &[u32] {
        self.surest.get_or_init(|| {
            let key = |believed: Believed| ordered(believed.confidence);
            sorted(columns.len(), |image| self.get(columns.first(image)).map_or(u32::MAX, |b| !key(b)))
        })
    }

    /// All images, those between two classes first, then those it knows nothing of.
    pub(super) fn narrowest(&self, columns: &Columns) -> &[u32] {
        self.narrowest.get_or_init(|| {
            let key = |believed: Believed| ordered(believed.margin);
            sorted(columns.len(), |image| self.get(columns.first(image)).map_or(u32::MAX, key))
        })
    }
}

/// Numbers from 0 up in an order that integers have too.
pub(super) fn ordered(value: f32) -> u32 {
    // The bits of positive numbers count up with them.
    value.max(0.0).to_bits()
}

fn name(folder: &Path) -> String {
    folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
