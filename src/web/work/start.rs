//! Planning and starting jobs: what is shown is what is started.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use axum::Json;
use serde::{Deserialize, Serialize};

use super::super::desk::{AtDesk, Desk, Event};
use super::super::error::WebError;
use super::super::off_thread;
use super::super::security::Visitor;
use super::kinds::{Kind, Settings};
use super::train::{FEWEST, label_counts};
use super::watch;
use crate::config::Site;
use crate::experiment::ExperimentError;
use crate::jobs::{JobPlan, Ledger, Place, Record, Task, Wish, plan};
use crate::project::{FrozenLabels, ImageHash, Label, Project};

/// The label of every image that has one.
type Labels = BTreeMap<ImageHash, Label>;

/// Longest script that is taken; ours have some kilobytes.
const LONGEST_SCRIPT: usize = 256 * 1024;

/// A job as a page asks for it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ask {
    kind: Kind,
    #[serde(default)]
    settings: Settings,
    #[serde(default, rename = "where")]
    place: Place,
    #[serde(default)]
    slurm: Wish,
    /// The script as it was changed by somebody; without, as it is planned.
    #[serde(default)]
    script: Option<String>,
}

/// What would be done.
#[derive(Debug, Serialize)]
pub struct Planned {
    script: String,
    /// What somebody should know before it is started.
    warnings: Vec<String>,
}

/// The name of a job that was started.
#[derive(Debug, Serialize)]
pub struct Started {
    id: String,
}

impl Ask {
    fn read(value: serde_json::Value) -> Result<Self, WebError> {
        serde_json::from_value(value).map_err(|error| WebError::Bad(format!("this cannot be done: {error}")))
    }

    /// The plan of a job in `folder`.
    fn plan(&self, project: &Project, folder: &Path) -> Result<JobPlan, WebError> {
        let mut arguments = self.kind.arguments(project, &self.settings)?;
        if self.kind.takes_labels() {
            arguments.extend(FrozenLabels::arguments(folder).map_err(ExperimentError::from)?);
        }
        let program = std::env::current_exe()
            .map_err(|error| WebError::Bad(format!("cannot tell where this program lies: {error}")))?;
        let program = program.into_os_string().into_string().map_err(|path| {
            let path = path.to_string_lossy();
            WebError::Bad(format!("the path `{path}` of this program is not text; rename its folders"))
        })?;
        let task = Task {
            arguments,
            program,
            on_ranks: self.kind.on_ranks(),
            working_folder: project.dir().to_owned(),
            folder: folder.to_owned(),
        };
        let site = Site::find(None).map_err(|error| WebError::Bad(error.to_string()))?;
        let wish = Wish { name: format!("{} {}", project.name(), self.kind.word()), ..self.slurm.clone() };
        plan(&wish, task, self.place, &site).map_err(|error| WebError::Bad(error.to_string()))
    }

    fn script(&self, plan: &JobPlan) -> Result<String, WebError> {
        plan.script_for(self.place).map_err(|error| WebError::Bad(error.to_string()))
    }

    /// Starts it.
    fn start(&self, desk: &Desk, labels: Labels, who: &str) -> Result<String, WebError> {
        let project = desk.project();
        let ledger = Ledger::of(project.dir());
        // What cannot be is refused before a folder is made for it.
        self.plan(&project, &ledger.next(self.kind.word()))?;
        if let Some(length) = self.script.as_ref().map(String::len).filter(|length| *length > LONGEST_SCRIPT)
        {
            return Err(WebError::Bad(format!("a script of {length} bytes is too long")));
        }
        let folder = ledger.claim(self.kind.word())?;
        let started = self.start_in(&ledger, &folder, &project, labels, who);
        if started.is_err() {
            // Nothing runs; an empty job would only puzzle.
            let _ = std::fs::remove_dir_all(&folder);
        }
        started
    }

    fn start_in(
        &self,
        ledger: &Ledger,
        folder: &Path,
        project: &Project,
        labels: Labels,
        who: &str,
    ) -> Result<String, WebError> {
        let plan = self.plan(project, folder)?;
        let script = match &self.script {
            Some(changed) => in_folder(changed, folder),
            None => self.script(&plan)?,
        };
        if self.kind.takes_labels() {
            let frozen = FrozenLabels::new(project.classes(), labels);
            let written = frozen.and_then(|frozen| frozen.write_for_job(project, folder));
            written.map_err(ExperimentError::from)?;
        }
        let mut record =
            Record::new(self.kind.word(), self.kind.title(), who, self.place, self.slurm.clone(), &plan);
        record.settings = serde_json::to_value(&self.settings).expect("settings are plain data");
        let job = ledger.start(folder, record, &script).map_err(WebError::from)?;
        Ok(job.id().to_owned())
    }

    /// What somebody should know.
    fn warnings(&self, desk: &Desk) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.kind == Kind::Train {
            warnings.extend(too_few(desk));
        }
        if self.place == Place::Here
            && let Ok(job) = std::env::var("SLURM_JOB_ID")
        {
            warnings.push(format!(
                "This page runs in Slurm's job {job}. What it starts on this machine ends with that job; what is not finished by \
                 then goes on when you press Resume."
            ));
        }
        warnings
    }
}

/// The stand-in for the folder in a script that is shown before there is one.
const NO_FOLDER: &str = "JOB";

/// A script that was shown with a folder that did not exist yet, for the folder that it has now.
fn in_folder(script: &str, folder: &Path) -> String {
    let jobs = folder.parent().unwrap_or(folder);
    let shown = jobs.join(NO_FOLDER);
    let text = script.replace("\r\n", "\n").replace(&*shown.to_string_lossy(), &folder.to_string_lossy());
    if text.ends_with('\n') { text } else { text + "\n" }
}

/// Classes with fewer labels than a training can begin with.
fn too_few(desk: &Desk) -> Vec<String> {
    let few = label_counts(desk).into_iter().filter(|(_, count)| *count < FEWEST);
    few.map(|(name, count)| {
        format!(
            "“{name}” has {count} labelled images. With fewer than {FEWEST} of a class little can be learned: label a few more."
        )
    })
    .collect()
}

/// `POST api/jobs/plan`
pub async fn plan_job(
    AtDesk(desk): AtDesk,
    Json(ask): Json<serde_json::Value>,
) -> Result<Json<Planned>, WebError> {
    let ask = Ask::read(ask)?;
    off_thread(move || -> Result<_, WebError> {
        let project = desk.project();
        let folder = project.dir().join("jobs").join(NO_FOLDER);
        let script = ask.script(&ask.plan(&project, &folder)?)?;
        Ok(Json(Planned { script, warnings: ask.warnings(&desk) }))
    })
    .await
}

/// `POST api/jobs`
pub async fn start_job(
    AtDesk(desk): AtDesk,
    visitor: Visitor,
    Json(ask): Json<serde_json::Value>,
) -> Result<Json<Started>, WebError> {
    let ask = Ask::read(ask)?;
    let labels = if ask.kind.takes_labels() { desk.scribe.current().await? } else { BTreeMap::new() };
    let at: Arc<Desk> = desk.clone();
    let id = off_thread(move || ask.start(&at, labels, &visitor.name)).await?;
    watch::begin(&desk, Some(&id));
    desk.tell(Event::Job { id: id.clone() });
    Ok(Json(Started { id }))
}

impl From<crate::jobs::LedgerError> for WebError {
    fn from(error: crate::jobs::LedgerError) -> Self {
        use crate::jobs::LedgerError;
        match error {
            LedgerError::Missing { id } => Self::Missing { what: format!("job `{id}`") },
            LedgerError::Write(error) => error.into(),
            other => Self::Bad(crate::errors::chain(&other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_script_works_in_the_folder_it_gets() {
        let shown = "cd /p\r\nfolder=/p/jobs/JOB\r\nharvest --labels /p/jobs/JOB/labels.json";
        let script = in_folder(shown, Path::new("/p/jobs/2026-train"));
        assert_eq!(
            script,
            "cd /p\nfolder=/p/jobs/2026-train\nharvest --labels /p/jobs/2026-train/labels.json\n"
        );
    }
}
