//! Tells all who have a page open when a job has changed its state.
//!
//! A task for each project looks at its jobs twice a second, as long as any goes on. That reads files; Slurm is asked about a job
//! every few seconds only, however many people watch: its controller has others to serve.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::super::desk::{Desk, Event};
use super::kinds::Kind;
use crate::jobs::{Job, JobState, Ledger, Place, Standing};

const INTERVAL: Duration = Duration::from_millis(500);

/// How long an answer of Slurm's is good for.
const SLURM_INTERVAL: Duration = Duration::from_secs(4);

/// What is known of a project's jobs that go on.
#[derive(Debug, Default)]
pub struct Watching {
    /// Whether a task looks.
    on: AtomicBool,
    /// Their states when it last looked.
    known: Mutex<HashMap<String, JobState>>,
    /// What Slurm said of them, and when.
    answers: Mutex<HashMap<String, (Instant, Standing)>>,
}

impl Watching {
    fn known(&self) -> MutexGuard<'_, HashMap<String, JobState>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answers(&self) -> MutexGuard<'_, HashMap<String, (Instant, Standing)>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How `job` stands, by Slurm's word of a moment ago if there is one.
    pub fn standing(&self, ledger: &Ledger, job: &mut Job) -> Standing {
        if job.record.place == Place::Here || job.record.ended.is_some() {
            return ledger.look(job);
        }
        let id = job.id().to_owned();
        let fresh = |(asked, _): &&(Instant, Standing)| asked.elapsed() < SLURM_INTERVAL;
        if let Some((_, standing)) = self.answers().get(&id).filter(fresh) {
            return standing.clone();
        }
        let standing = ledger.look(job);
        let mut answers = self.answers();
        answers.retain(|_, answer| fresh(&&*answer));
        answers.insert(id, (Instant::now(), standing.clone()));
        standing
    }

    /// What was said of the job holds no longer.
    pub fn changed(&self, id: &str) {
        self.answers().remove(id);
    }
}

/// Watches the jobs of `desk` until all have ended; nothing happens outside of a server, or if that is being done already.
/// `started`: one that was started this moment.
pub fn begin(desk: &Arc<Desk>, started: Option<&str>) {
    if let Some(id) = started {
        // Its end is told even if somebody else saw it first.
        desk.watching.known().insert(id.to_owned(), JobState::Waiting);
    }
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    if desk.watching.on.swap(true, Ordering::AcqRel) {
        return;
    }
    let desk = desk.clone();
    runtime.spawn(async move {
        loop {
            let at = desk.clone();
            let Ok(seen) = tokio::task::spawn_blocking(move || look(&at)).await else {
                // A panic there is a fault of ours, and would be one again: stop watching rather than spin.
                desk.watching.on.store(false, Ordering::Release);
                return;
            };
            for change in seen.changes {
                tell(&desk, change).await;
            }
            if !seen.going {
                break;
            }
            tokio::time::sleep(INTERVAL).await;
        }
        desk.watching.on.store(false, Ordering::Release);
        // One may have been started between the last look and now.
        if !desk.watching.known().is_empty() {
            begin(&desk, None);
        }
    });
}

/// A job whose state is another.
struct Change {
    id: String,
    /// Its kind, if it is at its end.
    ended: Option<String>,
}

/// What a look has found.
struct Seen {
    changes: Vec<Change>,
    /// Whether any job goes on.
    going: bool,
}

/// Tells of a change, once what the job has made can be seen.
async fn tell(desk: &Desk, Change { id, ended }: Change) {
    match ended.as_deref().and_then(Kind::of_word) {
        Some(Kind::Scan) => {
            // A list that cannot be read is told of by whoever asks for it; the one in memory is as it was.
            let _ = desk.reload().await;
        }
        Some(Kind::Cluster | Kind::Train | Kind::LabelAll) => desk.refresh().await,
        None => {}
    }
    desk.tell(Event::Job { id });
}

/// Looks at all jobs that have not ended.
fn look(desk: &Desk) -> Seen {
    let ledger = Ledger::of(desk.project().dir());
    let mut seen = Seen { changes: Vec::new(), going: false };
    let jobs = ledger.list();
    // A job that was forgotten is not waited for.
    desk.watching.known().retain(|id, _| jobs.iter().any(|job| job.id() == id));
    for mut job in jobs {
        let id = job.id().to_owned();
        let before = desk.watching.known().get(&id).copied();
        if job.record.ended.is_some() && before.is_none() {
            continue;
        }
        let state = desk.watching.standing(&ledger, &mut job).state;
        if state.is_over() {
            desk.watching.known().remove(&id);
            seen.changes.push(Change { id, ended: Some(job.record.kind) });
            continue;
        }
        seen.going = true;
        desk.watching.known().insert(id.clone(), state);
        if before.is_some_and(|before| before != state) {
            seen.changes.push(Change { id, ended: None });
        }
    }
    seen
}
