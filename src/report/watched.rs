//! How far long work is, for programs to read: a small JSON file that is replaced now and then.
//!
//! A job's script names it in `HARVEST_PROGRESS`. As there is one standard error for a process, there is one such file: whatever
//! shows its progress writes there as well, on the first of several ranks. A thread of its own writes, at most twice a second,
//! and every ten seconds even if nothing changed, so that who cannot see the process knows that it is alive.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use harvest_collectives::Identity;
use serde::{Deserialize, Serialize};

use crate::jobs::PROGRESS_VARIABLE;

/// Least time between two writes.
const INTERVAL: Duration = Duration::from_millis(500);

/// Most time between two.
const SIGN_OF_LIFE: Duration = Duration::from_secs(10);

/// What the file holds.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct WatchedState {
    /// What is being done, in one word that stays the same.
    pub phase: String,
    /// The same for people.
    pub words: String,
    /// Items or steps done.
    pub position: u64,
    /// Of so many; 0 if that is not known.
    pub total: u64,
    /// Items or steps a second, since the phase began here.
    pub rate: Option<f64>,
    /// Seconds until the phase ends, at that rate.
    pub seconds_left: Option<f64>,
    /// The latest line worth keeping.
    pub message: String,
    /// The folder that is written to, once it is known.
    pub folder: Option<PathBuf>,
    /// The latest numbers: `loss`, `mask_ratio`, `images_per_second`, `evaluation_accuracy`.
    pub scalars: BTreeMap<String, f64>,
    /// When it was written, in seconds since 1970.
    pub at: u64,
}

/// The file, and what is to be in it.
pub struct Watched {
    shared: Arc<Mutex<Shared>>,
    path: PathBuf,
}

struct Shared {
    state: WatchedState,
    /// When this phase began here and at which position: resumed work does not begin at 0.
    first: Option<(Instant, u64)>,
    changed: bool,
}

/// A phase by the label of its progress: its word, and the words for people.
const PHASES: [(&str, &str, &str); 17] = [
    ("decoding images", "look", "Looking at your images"),
    ("reading images", "look", "Looking at your images"),
    ("making thumbnails", "thumbnails", "Making small pictures for the page"),
    ("preparing training images", "prepare", "Making smaller copies"),
    ("copying training images to this node", "copy", "Copying the images to the machine that computes"),
    ("SimCLR", "features", "Learning what your images look like"),
    ("features", "embed", "Describing every image in numbers"),
    ("features of views", "embed", "Trying the groups on changed copies"),
    ("neighbours", "neighbours", "Finding images that look alike"),
    ("SCAN", "group", "Forming groups"),
    ("training", "train", "Learning from labelled and unlabelled images"),
    ("training on labels alone", "baseline", "Learning from the labelled images alone, to compare"),
    ("evaluation", "evaluate", "Trying the model on images kept aside"),
    ("report", "report", "Writing the report"),
    ("labelling", "label", "Labelling every image"),
    ("predicting", "predict", "Asking the model about the images"),
    ("pseudo-labels", "predict", "Asking the models about the unlabelled images"),
];

/// The file that the environment names, if it does, and this is the first rank.
pub fn watched() -> Option<&'static Watched> {
    static WATCHED: OnceLock<Option<Watched>> = OnceLock::new();
    WATCHED
        .get_or_init(|| {
            let path = std::env::var_os(PROGRESS_VARIABLE).filter(|path| !path.is_empty())?;
            let rank = Identity::from_environment().ok().flatten().map_or(0, |identity| identity.rank);
            (rank == 0).then(|| Watched::open(PathBuf::from(path)))
        })
        .as_ref()
}

impl Watched {
    /// Begins to write to `path`. A file that cannot be written stops nothing: nobody watches then.
    pub fn open(path: PathBuf) -> Self {
        let state =
            WatchedState { words: "Starting".into(), phase: "start".into(), ..WatchedState::default() };
        let shared = Arc::new(Mutex::new(Shared { state, first: None, changed: true }));
        let seen = Arc::downgrade(&shared);
        let own = path.clone();
        std::thread::spawn(move || {
            let mut written = Instant::now();
            while let Some(shared) = seen.upgrade() {
                let due = written.elapsed() >= SIGN_OF_LIFE;
                let state = {
                    let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
                    let changed = std::mem::take(&mut shared.changed);
                    (changed || due).then(|| shared.state.clone())
                };
                drop(shared);
                if let Some(state) = state {
                    write(&own, state);
                    written = Instant::now();
                }
                std::thread::sleep(INTERVAL);
            }
        });
        Self { shared, path }
    }

    /// Writes what is known, before the process ends and with it the thread that writes.
    pub fn finish(&self) {
        let shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        write(&self.path, shared.state.clone());
    }

    fn change(&self, act: impl FnOnce(&mut Shared)) {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        act(&mut shared);
        shared.changed = true;
    }

    /// The work called `label` begins, of `total` items or steps; 0 if that is not known.
    pub fn begin(&self, label: &str, total: u64) {
        let (phase, words) = named(label);
        self.change(|shared| {
            let state = &mut shared.state;
            (state.phase, state.words) = (phase, words);
            (state.position, state.total, state.rate, state.seconds_left) = (0, total, None, None);
            shared.first = None;
        });
    }

    /// Something else is done in between, or again what the progress is of; position and total stay.
    pub fn meanwhile(&self, label: &str) {
        let (phase, words) = named(label);
        self.change(|shared| (shared.state.phase, shared.state.words) = (phase, words));
    }

    /// So many are done.
    pub fn set(&self, position: u64) {
        self.change(|shared| {
            let (since, from) = *shared.first.get_or_insert((Instant::now(), position));
            let state = &mut shared.state;
            state.position = position;
            let (seconds, moved) = (since.elapsed().as_secs_f64(), position.saturating_sub(from));
            if seconds > 0.5 && moved > 0 {
                let rate = moved as f64 / seconds;
                state.rate = Some(rate);
                state.seconds_left =
                    (state.total > 0).then(|| state.total.saturating_sub(position) as f64 / rate);
            }
        });
    }

    /// A line worth keeping.
    pub fn message(&self, text: &str) {
        self.change(|shared| text.clone_into(&mut shared.state.message));
    }

    /// The latest numbers; those not named stay.
    pub fn scalars(&self, row: &[(&str, f64)]) {
        let finite = row.iter().filter(|(_, value)| value.is_finite());
        self.change(|shared| {
            shared.state.scalars.extend(finite.map(|(name, value)| ((*name).to_owned(), *value)));
        });
    }

    /// The folder that is written to.
    pub fn folder(&self, folder: &Path) {
        let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
        self.change(|shared| {
            // Numbers of another run are not this one's.
            if shared.state.folder.as_ref() != Some(&folder) {
                shared.state.scalars.clear();
            }
            shared.state.folder = Some(folder);
        });
    }
}

impl WatchedState {
    /// What the file at `path` says; nothing if there is none yet, or it makes no sense.
    pub fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    }
}

/// Word and words of a phase; a label that nobody put into words stands for itself.
fn named(label: &str) -> (String, String) {
    match PHASES.iter().find(|(known, ..)| *known == label) {
        Some((_, phase, words)) => ((*phase).to_owned(), (*words).to_owned()),
        None => {
            let mut letters = label.chars();
            let first = letters.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
            (label.to_owned(), first + letters.as_str())
        }
    }
}

/// Replaces the file, without waiting for the disk: it tells of now, and is of no use after a power cut.
fn write(path: &Path, mut state: WatchedState) {
    // Two threads write when the process ends.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    state.at = now.map_or(0, |time| time.as_secs());
    let draft = path.with_extension("writing");
    let bytes = serde_json::to_vec(&state).expect("plain fields always become JSON");
    // Nobody is watching if it cannot be written.
    let _ = std::fs::write(&draft, bytes).and_then(|()| std::fs::rename(&draft, path));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn until(path: &Path, wanted: impl Fn(&WatchedState) -> bool) -> WatchedState {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(state) = WatchedState::read(path).filter(&wanted) {
                return state;
            }
            assert!(Instant::now() < end, "it was not written in time");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    #[test]
    fn the_file_tells_what_is_done_and_how_far_it_is() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("progress.json");
        let watched = Watched::open(path.clone());
        assert_eq!(until(&path, |_| true).phase, "start");
        watched.begin("training", 100);
        watched.set(40);
        std::thread::sleep(Duration::from_millis(700));
        watched.set(60);
        watched.scalars(&[("loss", 0.5), ("odd", f64::NAN)]);
        watched.folder(Path::new("/data/runs/1"));
        let state = until(&path, |state| state.position == 60 && state.folder.is_some());
        assert_eq!(state.words, "Learning from labelled and unlabelled images");
        let (rate, left) = (state.rate.expect("it moved"), state.seconds_left.expect("it has an end"));
        assert!(rate > 1.0 && rate < 30.0, "20 in 0.7 s and more, not 60: {rate}");
        assert!((left * rate - 40.0).abs() < 1e-6, "{left}");
        assert!(!state.scalars.contains_key("odd"));
        watched.meanwhile("evaluation");
        assert_eq!(until(&path, |state| state.phase == "evaluate").position, 60);
        watched.begin("something new", 0);
        assert_eq!(until(&path, |state| state.phase == "something new").words, "Something new");
    }
}
