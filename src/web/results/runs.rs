//! The runs of a project, as a page tells of them.

use std::path::PathBuf;

use crate::experiment::{Comparison, Finished, read_class_ids};
use crate::inference::Bundle;
use crate::metrics::Scores;
use crate::project::{Classes, Project, Run, RunState};
use crate::web::error::WebError;

/// One run in a list.
pub struct Listed {
    /// Its folder's name.
    pub name: String,
    /// When it was made, in the server's own time.
    pub made: String,
    /// How it stands.
    pub state: RunState,
    /// The algorithm, if it is told.
    pub algorithm: Option<String>,
    /// The network, if it is told.
    pub network: Option<String>,
    /// Labelled images it was given, to train on and to choose the model by.
    pub labels: Option<u64>,
    /// What came of it.
    pub finished: Option<Finished>,
}

/// A finished run.
pub struct Shown {
    /// Its line in the list.
    pub listed: Listed,
    /// Its folder.
    pub folder: PathBuf,
    /// What its model says of itself.
    pub bundle: Bundle,
    /// The project's number of each class of the network.
    pub class_ids: Vec<u16>,
    /// What came of it.
    pub finished: Finished,
    /// Beside a run on the labelled images alone.
    pub baseline: Option<(Comparison, Finished)>,
}

/// Whether `name` can be a run's folder: nothing that leads anywhere else.
fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with('.')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

/// The folder of a run of the project; links out of the project lead nowhere.
///
/// # Errors
/// If there is none of that name.
pub fn folder_of(project: &Project, name: &str) -> Result<PathBuf, WebError> {
    let missing =
        || WebError::Missing { what: format!("run `{}`", name.chars().take(80).collect::<String>()) };
    if !is_plain(name) {
        return Err(missing());
    }
    let folder = project.runs().join(name).canonicalize().map_err(|_| missing())?;
    let inside = project.dir().canonicalize().is_ok_and(|project| folder.starts_with(project));
    if inside && folder.join("fingerprint").is_file() { Ok(folder) } else { Err(missing()) }
}

/// A file of a run's folder; links out of the folder lead nowhere.
///
/// # Errors
/// If there is none.
pub fn file_of(folder: &std::path::Path, name: &str) -> Result<PathBuf, WebError> {
    let missing = || WebError::Missing { what: format!("`{name}` in this run") };
    let file = folder.join(name).canonicalize().map_err(|_| missing())?;
    if file.starts_with(folder) && file.is_file() { Ok(file) } else { Err(missing()) }
}

/// All runs, the latest first. A run that cannot be read is left out: the others are worth seeing.
///
/// # Errors
/// If the folder of runs cannot be read.
pub fn list(project: &Project) -> Result<Vec<Listed>, WebError> {
    let runs = Run::list(&project.runs()).map_err(crate::experiment::ExperimentError::from)?;
    Ok(runs.iter().rev().filter_map(|run| Listed::read(run).ok()).collect())
}

/// Name of the latest finished run.
pub fn latest(runs: &[Listed]) -> Option<&str> {
    runs.iter().find(|run| run.finished.is_some()).map(|run| run.name.as_str())
}

impl Listed {
    fn read(run: &Run) -> Result<Self, WebError> {
        let state = run.state().map_err(crate::experiment::ExperimentError::from)?;
        let finished = match state {
            RunState::Done(_) => Some(Finished::read(run.dir())?),
            _ => None,
        };
        let created = run.environment().map(|environment| environment.created).unwrap_or_default();
        let bundle = Bundle::describe(&run.path("bundle")).ok();
        let about = |key: &str| bundle.as_ref().and_then(|bundle| bundle.about.get(key).cloned());
        let evaluated = finished.as_ref().and_then(|finished| finished.evaluation.as_ref());
        let labels = about("labelled images").and_then(|count| count.parse::<u64>().ok());
        Ok(Self {
            name: run.dir().file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
            made: spoken_time(&created),
            algorithm: about("algorithm"),
            network: about("network"),
            labels: labels.map(|count| count + evaluated.map_or(0, |scores| scores.samples)),
            state,
            finished,
        })
    }

    /// The scores that count, and on which images.
    pub fn scores(&self) -> Option<(&'static str, &Scores)> {
        self.finished.as_ref().and_then(Finished::scores)
    }
}

impl Shown {
    /// Reads a finished run.
    ///
    /// # Errors
    /// If there is none of that name, or it is not at its end.
    pub fn read(project: &Project, name: &str) -> Result<Self, WebError> {
        let folder = folder_of(project, name)?;
        let run = Run::open(&folder).map_err(crate::experiment::ExperimentError::from)?;
        let mut listed = Listed::read(&run)?;
        let Some(finished) = listed.finished.take() else {
            return Err(WebError::Missing {
                what: format!("result of run `{name}` yet; it is not finished"),
            });
        };
        let bundle =
            Bundle::describe(&run.path("bundle")).map_err(crate::experiment::ExperimentError::from)?;
        let class_ids = match read_class_ids(&run)? {
            Some(ids) => ids,
            None => ids_by_name(project.classes(), &bundle.classes),
        };
        // A baseline that has gone or is damaged is no reason not to show the run.
        let baseline = Comparison::recorded(&folder).ok().flatten();
        Ok(Self { listed, folder, bundle, class_ids, finished, baseline })
    }

    /// What the project calls a class of the network now; the name it had, if it has gone.
    pub fn class_name<'a>(&'a self, classes: &'a Classes, class: usize) -> &'a str {
        let now = self.class_ids.get(class).and_then(|id| classes.name_of(*id));
        now.or_else(|| self.bundle.classes.get(class).map(String::as_str)).unwrap_or("?")
    }
}

/// For runs of earlier versions: by name, else by place.
fn ids_by_name(classes: &Classes, names: &[String]) -> Vec<u16> {
    let id = |(place, name): (usize, &String)| classes.named(name).map_or(place as u16, |class| class.id);
    names.iter().enumerate().map(id).collect()
}

/// "29 November 2026, 15:04".
fn spoken_time(created: &str) -> String {
    match created.parse::<jiff::Timestamp>() {
        Ok(time) => time.to_zoned(jiff::tz::TimeZone::system()).strftime("%-d %B %Y, %H:%M").to_string(),
        Err(_) => created.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_leads_elsewhere_is_no_run() {
        for name in ["..", ".", "", "a/b", "../x", "a\\b", ".hidden", "a\0", "ä", "%2e%2e"] {
            assert!(!is_plain(name), "{name}");
        }
        assert!(is_plain("2026-11-29T15-04-00-freematch-vit_tiny_patch2_32"));
    }

    #[test]
    fn links_out_of_a_run_lead_nowhere() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let run = folder.path().join("run").canonicalize().unwrap_or_else(|_| {
            std::fs::create_dir(folder.path().join("run")).expect("writable");
            folder.path().join("run").canonicalize().expect("just made")
        });
        std::fs::write(folder.path().join("secret"), "x").expect("writable");
        std::fs::write(run.join("report.html"), "x").expect("writable");
        std::os::unix::fs::symlink("../secret", run.join("link")).expect("writable");
        assert!(file_of(&run, "report.html").is_ok());
        for name in ["link", "../secret", "/etc/passwd", "nothing", "."] {
            assert!(file_of(&run, name).is_err(), "{name}");
        }
    }

    #[test]
    fn times_are_spoken() {
        assert!(spoken_time("2026-11-29T15:04:00.000000000Z").contains("November 2026"));
        assert_eq!(spoken_time("never"), "never");
    }
}
