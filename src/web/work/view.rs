//! Jobs as pages see them.

use std::path::Path;

use axum::Json;
use axum::extract::{Path as UrlPath, Query};
use serde::{Deserialize, Serialize};

use super::super::desk::{AtDesk, Desk};
use super::super::error::WebError;
use super::super::off_thread;
use super::super::security::Visitor;
use super::kinds::Kind;
use super::watch;
use crate::jobs::{Explanation, Job, JobState, LABELS, Ledger, PROGRESS, Place, Queue, explain};
use crate::project::{Run, RunState};
use crate::report::{MetricsTable, WatchedState};

/// Lines of output that a page shows.
const TAIL: usize = 60;

/// Points of a curve that a page draws.
const POINTS: usize = 300;

/// A job as a page sees it.
#[derive(Debug, Serialize)]
pub struct View {
    /// Its folder's name.
    pub id: String,
    kind: String,
    title: String,
    who: String,
    /// When it was planned, UTC.
    created: String,
    #[serde(rename = "where")]
    place: Place,
    /// The process or Slurm's number.
    handle: String,
    /// How it stands.
    pub state: JobState,
    /// What it does now, in words.
    words: String,
    /// The machines it runs on.
    nodes: Option<String>,
    queue: Option<Queue>,
    /// Why the scheduler could not be asked.
    trouble: Option<String>,
    progress: Option<WatchedState>,
    failure: Option<Explanation>,
    /// Name of the finished run that it made.
    run: Option<String>,
    /// When it ended, UTC.
    ended: Option<String>,
    /// What may be done with it.
    can: Can,
    /// The last lines of its output; empty in lists.
    log: String,
}

#[derive(Debug, Serialize)]
struct Can {
    stop: bool,
    resume: bool,
    forget: bool,
}

impl View {
    /// Of `job`, as it stands now.
    pub fn of(desk: &Desk, ledger: &Ledger, job: &mut Job, whole: bool) -> Self {
        let standing = desk.watching.standing(ledger, job);
        let state = standing.state;
        let progress = WatchedState::read(&job.folder.join(PROGRESS));
        let record = &job.record;
        let words = match (state, &progress) {
            (JobState::Waiting, _) => "Waiting for its turn".to_owned(),
            (JobState::Running, Some(progress)) => progress.words.clone(),
            (JobState::Running, None) => "Starting".to_owned(),
            (JobState::Stopping, _) => "Stopping: it saves what it has".to_owned(),
            (JobState::Done, _) => "Done".to_owned(),
            (JobState::Stopped, _) => "Stopped; it can go on from what was saved".to_owned(),
            (JobState::Failed, _) => "Failed".to_owned(),
        };
        let over = state.is_over();
        Self {
            id: job.id().to_owned(),
            kind: record.kind.clone(),
            title: record.title.clone(),
            who: record.who.clone(),
            created: record.created.clone(),
            place: record.place,
            handle: job.handle().map_or_else(String::new, ToString::to_string),
            state,
            words,
            nodes: standing.nodes,
            queue: standing.queue,
            trouble: standing.trouble,
            failure: explain(job),
            run: finished_run(desk, progress.as_ref()),
            progress,
            ended: record.ended.as_ref().map(|ended| ended.at.clone()),
            can: Can {
                stop: !over,
                resume: matches!(state, JobState::Stopped | JobState::Failed),
                forget: over,
            },
            log: if whole { job.tail(TAIL) } else { String::new() },
        }
    }
}

impl View {
    /// What it does.
    pub fn title(&self) -> &str {
        &self.title
    }

    /// What it does now.
    pub fn words(&self) -> &str {
        &self.words
    }

    /// Who wanted it.
    pub fn who(&self) -> &str {
        &self.who
    }

    /// When it was planned, UTC.
    pub fn created(&self) -> &str {
        &self.created
    }

    /// Where it runs, for people.
    pub fn place_words(&self) -> &'static str {
        match self.place {
            Place::Here => "this machine",
            Place::Slurm => "cluster",
        }
    }
}

/// Name of the run in the folder that was written to, if it is one of the project's and at its end.
fn finished_run(desk: &Desk, progress: Option<&WatchedState>) -> Option<String> {
    let name = run_name(desk, progress?.folder.as_deref()?)?;
    let run = Run::open(&desk.project().runs().join(&name)).ok()?;
    matches!(run.state().ok()?, RunState::Done(_)).then_some(name)
}

/// Name of the run in `folder`, if that is one of the project's.
fn run_name(desk: &Desk, folder: &Path) -> Option<String> {
    let runs = desk.project().runs();
    let name = folder.strip_prefix(&runs).ok()?.to_str()?;
    (!name.is_empty() && !name.contains('/')).then(|| name.to_owned())
}

/// `GET api/jobs`
#[derive(Debug, Serialize)]
pub struct All {
    jobs: Vec<View>,
}

/// Which jobs are asked for.
#[derive(Debug, Default, Deserialize)]
pub struct Which {
    /// Those of a kind, by its word.
    kind: Option<String>,
    /// The latest so many.
    count: Option<usize>,
}

/// All jobs, the latest first.
pub async fn list(AtDesk(desk): AtDesk, Query(which): Query<Which>) -> Result<Json<All>, WebError> {
    off_thread(move || -> Result<_, WebError> {
        Ok(Json(All { jobs: views(&desk, which.kind.as_deref(), which.count.unwrap_or(200)) }))
    })
    .await
}

/// The latest `count` jobs of a kind, or of all.
pub fn views(desk: &Desk, kind: Option<&str>, count: usize) -> Vec<View> {
    let ledger = Ledger::of(desk.project().dir());
    let mut jobs = ledger.list();
    jobs.retain(|job| kind.is_none_or(|kind| job.record.kind == kind));
    jobs.iter_mut().take(count).map(|job| View::of(desk, &ledger, job, false)).collect()
}

/// The job that an address names.
#[derive(Debug, Deserialize)]
pub struct OfJob {
    /// The job's.
    pub id: String,
}

/// `GET api/jobs/ID`
pub async fn one(AtDesk(desk): AtDesk, UrlPath(at): UrlPath<OfJob>) -> Result<Json<View>, WebError> {
    let here = desk.clone();
    let view = off_thread(move || -> Result<_, WebError> {
        let ledger = Ledger::of(desk.project().dir());
        let mut job = ledger.find(&at.id)?;
        Ok(View::of(&desk, &ledger, &mut job, true))
    })
    .await?;
    if !view.state.is_over() {
        // Somebody else may have started it, `harvest launch` for one.
        watch::begin(&here, None);
    }
    Ok(Json(view))
}

/// The curves of a training: each a list of step and value.
#[derive(Debug, Default, Serialize)]
pub struct Curves {
    loss: Vec<(f64, f64)>,
    accuracy: Vec<(f64, f64)>,
    used: Vec<(f64, f64)>,
}

/// `GET api/jobs/ID/curves`
pub async fn curves(AtDesk(desk): AtDesk, UrlPath(at): UrlPath<OfJob>) -> Result<Json<Curves>, WebError> {
    off_thread(move || -> Result<_, WebError> {
        let job = Ledger::of(desk.project().dir()).find(&at.id)?;
        let progress = WatchedState::read(&job.folder.join(PROGRESS));
        let folder = progress.and_then(|progress| progress.folder);
        let name = folder.and_then(|folder| run_name(&desk, &folder));
        let Some(name) = name else { return Ok(Json(Curves::default())) };
        // Not there before the first steps, and being written this moment perhaps.
        let table = MetricsTable::read(&desk.project().runs().join(name).join("metrics.csv"));
        Ok(Json(table.map_or_else(
            |_| Curves::default(),
            |table| Curves {
                loss: thinned(table.series("loss")),
                accuracy: thinned(table.series("evaluation_accuracy")),
                used: thinned(table.series("mask_ratio")),
            },
        )))
    })
    .await
}

/// At most [`POINTS`], each the mean of those it stands for, the last one kept as it is.
fn thinned(mut points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    points.retain(|(x, y)| x.is_finite() && y.is_finite());
    let Some(last) = points.last().copied().filter(|_| points.len() > POINTS) else { return points };
    let each = points.len().div_ceil(POINTS - 1);
    let mean = |part: &[(f64, f64)]| {
        let (x, y) = part.iter().fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
        (x / part.len() as f64, y / part.len() as f64)
    };
    points[..points.len() - 1].chunks(each).map(mean).chain([last]).collect()
}

/// `POST api/jobs/ID/stop`
pub async fn stop(
    AtDesk(desk): AtDesk,
    visitor: Visitor,
    UrlPath(at): UrlPath<OfJob>,
) -> Result<Json<View>, WebError> {
    off_thread(move || -> Result<_, WebError> {
        let ledger = Ledger::of(desk.project().dir());
        let mut job = ledger.find(&at.id)?;
        ledger.stop(&mut job, &visitor.name)?;
        desk.watching.changed(&at.id);
        Ok(Json(View::of(&desk, &ledger, &mut job, true)))
    })
    .await
}

/// `POST api/jobs/ID/resume`
pub async fn resume(
    AtDesk(desk): AtDesk,
    visitor: Visitor,
    UrlPath(at): UrlPath<OfJob>,
) -> Result<Json<View>, WebError> {
    let (here, id) = (desk.clone(), at.id.clone());
    let view = off_thread(move || -> Result<_, WebError> {
        let ledger = Ledger::of(desk.project().dir());
        let mut job = ledger.find(&at.id)?;
        ledger.resume(&mut job, &visitor.name)?;
        desk.watching.changed(&at.id);
        Ok(Json(View::of(&desk, &ledger, &mut job, true)))
    })
    .await?;
    watch::begin(&here, Some(&id));
    Ok(view)
}

/// `POST api/jobs/ID/forget`
pub async fn forget(
    AtDesk(desk): AtDesk,
    _: Visitor,
    UrlPath(at): UrlPath<OfJob>,
) -> Result<Json<serde_json::Value>, WebError> {
    off_thread(move || -> Result<_, WebError> {
        let ledger = Ledger::of(desk.project().dir());
        ledger.forget(ledger.find(&at.id)?)?;
        Ok(Json(serde_json::json!({ "forgotten": at.id })))
    })
    .await
}

/// `GET api/jobs/ID/details`: its script, what Slurm tells of it, and how many labels it was given.
pub async fn details(
    AtDesk(desk): AtDesk,
    UrlPath(at): UrlPath<OfJob>,
) -> Result<Json<serde_json::Value>, WebError> {
    off_thread(move || -> Result<_, WebError> {
        let ledger = Ledger::of(desk.project().dir());
        let job = ledger.find(&at.id)?;
        let labels = crate::project::FrozenLabels::read(&job.folder.join(LABELS)).ok();
        Ok(Json(serde_json::json!({
            "script": std::fs::read_to_string(job.script()).unwrap_or_default(),
            "slurm": ledger.details(&job),
            "labels": labels.map(|labels| labels.labels.len()),
            "folder": job.folder.display().to_string(),
            "kind": Kind::of_word(&job.record.kind),
        })))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thinned_curves_keep_their_end_and_their_mean() {
        let points: Vec<(f64, f64)> = (0..10_000).map(|x| (f64::from(x), f64::from(x % 2))).collect();
        let thin = thinned(points.clone());
        assert!(thin.len() <= POINTS, "{}", thin.len());
        assert_eq!(thin.last(), points.last());
        assert!(thin[..thin.len() - 2].iter().all(|(_, y)| (y - 0.5).abs() < 0.1));
        assert_eq!(thinned(points[..10].to_vec()), points[..10]);
        assert!(thinned(vec![(1.0, f64::NAN)]).is_empty());
    }
}
