//! One folder for each run: what went in, what it was run with, how it ended.
//!
//! ```text
//! runs/2026-11-23T10-15-00-freematch-vit_tiny_patch2_32/
//!   config.toml        every key with its origin; can be used as a recipe
//!   inputs/            manifest, classes, labels, split: a run reads only these and the images
//!   environment.json   versions, and each session's machine, device, arguments, times
//!   fingerprint        tells whether the same command would do the same
//!   checkpoints/
//!   DONE | FAILED      with the reason in plain words
//! ```
//!
//! A folder appears complete or not at all, and is never written by another run.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::lock::{Lock, LockError, host};
use super::plan::RunPlan;
use crate::files::{WriteError, atomic_write, publish_folder};

/// The tensor library, pinned in the workspace's manifest.
pub const BURN_VERSION: &str = "0.22.1";

/// What this program was built with, beyond the CPU.
pub fn features() -> Vec<&'static str> {
    let all = [("cuda", cfg!(feature = "cuda")), ("mpi", cfg!(feature = "mpi"))];
    all.into_iter().filter(|(_, built)| *built).map(|(name, _)| name).collect()
}

/// A run that cannot be made, opened or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// Something cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// Another process works on it.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Something cannot be read.
    #[error("cannot read `{path}`", path = path.display())]
    Read {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Not what a run writes.
    #[error("`{path}` is damaged: {reason}", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// In what way.
        reason: String,
    },
}

/// How a run stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunState {
    /// Running, or stopped before its end.
    Unfinished,
    /// At its end; with a summary.
    Done(String),
    /// Stopped by an error; in plain words. It can be resumed once the cause is mended.
    Failed(String),
}

/// `environment.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// Version of this program.
    pub harvest: String,
    /// Version of its tensor library.
    pub burn: String,
    /// Features it was built with.
    pub features: Vec<String>,
    /// When the folder was made, UTC.
    pub created: String,
    /// Each time a process worked on it, the last one last.
    pub sessions: Vec<Session>,
}

/// One process's work on a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Name of the machine.
    pub host: String,
    /// Its system, `linux x86_64`.
    pub system: String,
    /// Threads it can run at once.
    pub threads: usize,
    /// The device computed on.
    pub device: String,
    /// The command line.
    pub arguments: Vec<String>,
    /// UTC.
    pub started: String,
    /// UTC; missing if the process was killed.
    pub ended: Option<String>,
}

/// A run's folder.
#[derive(Debug)]
pub struct Run {
    dir: PathBuf,
    lock: Option<Lock>,
}

impl Run {
    /// Makes the folder of a new run in `runs`, which is made too if need be.
    pub fn create(runs: &Path, plan: &RunPlan) -> Result<Self, RunError> {
        Self::create_at(runs, plan, &jiff::Zoned::now())
    }

    fn create_at(runs: &Path, plan: &RunPlan, now: &jiff::Zoned) -> Result<Self, RunError> {
        fs::create_dir_all(runs).map_err(WriteError::at(runs))?;
        let mut builder = tempfile::Builder::new();
        builder.prefix(".creating-");
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
        // Deleted again if anything below fails.
        let draft = builder.tempdir_in(runs).map_err(WriteError::at(runs))?;
        for folder in ["inputs", "checkpoints"] {
            let folder = draft.path().join(folder);
            fs::create_dir(&folder).map_err(WriteError::at(&folder))?;
        }
        for input in plan.inputs.iter().chain(&plan.derived) {
            atomic_write(&draft.path().join("inputs").join(&input.name), &input.bytes)?;
        }
        atomic_write(&draft.path().join("config.toml"), plan.config.as_bytes())?;
        atomic_write(&draft.path().join("fingerprint"), format!("{}\n", plan.fingerprint()).as_bytes())?;
        write_environment(draft.path(), &Environment::of_this_program())?;

        let name = format!("{}-{}-{}", now.strftime("%Y-%m-%dT%H-%M-%S"), plan.algorithm, plan.model);
        let dir = claim(runs, &name)?;
        publish_folder(draft.path(), &dir).inspect_err(|_| {
            // Still empty, or it could not be removed so.
            let _ = fs::remove_dir(&dir);
        })?;
        let _ = draft.keep();
        Ok(Self { dir, lock: None })
    }

    /// An existing run.
    pub fn open(dir: &Path) -> Result<Self, RunError> {
        let run = Self { dir: dir.to_path_buf(), lock: None };
        run.fingerprint()?;
        Ok(run)
    }

    /// All runs in `runs`, oldest first; none if there is no such folder.
    pub fn list(runs: &Path) -> Result<Vec<Self>, RunError> {
        let read = |source| RunError::Read { path: runs.to_path_buf(), source };
        let folder = match fs::read_dir(runs) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            folder => folder.map_err(read)?,
        };
        let mut found = Vec::new();
        for entry in folder {
            let dir = entry.map_err(read)?.path();
            let hidden = dir.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            // A folder without it is a run being made, or something else.
            if !hidden && dir.join("fingerprint").is_file() {
                let run = Self { dir, lock: None };
                found.push((run.environment()?.created, run));
            }
        }
        found.sort_by(|(a, first), (b, second)| (a, &first.dir).cmp(&(b, &second.dir)));
        Ok(found.into_iter().map(|(_, run)| run).collect())
    }

    /// The latest run with this [`RunPlan::fingerprint`] that is not done, to be resumed: killed ones and failed ones.
    pub fn latest_unfinished(runs: &Path, fingerprint: &blake3::Hash) -> Result<Option<Self>, RunError> {
        for run in Self::list(runs)?.into_iter().rev() {
            if run.fingerprint()? == *fingerprint && !matches!(run.state()?, RunState::Done(_)) {
                return Ok(Some(run));
            }
        }
        Ok(None)
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A file or folder in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Folder of its checkpoints.
    pub fn checkpoints(&self) -> PathBuf {
        self.path("checkpoints")
    }

    /// A frozen input.
    pub fn input(&self, name: &str) -> Result<Vec<u8>, RunError> {
        let path = self.path("inputs").join(name);
        fs::read(&path).map_err(|source| RunError::Read { path, source })
    }

    /// See [`RunPlan::fingerprint`].
    pub fn fingerprint(&self) -> Result<blake3::Hash, RunError> {
        let path = self.path("fingerprint");
        let text =
            fs::read_to_string(&path).map_err(|source| RunError::Read { path: path.clone(), source })?;
        text.trim()
            .parse()
            .map_err(|error: blake3::HexError| RunError::Damaged { path, reason: error.to_string() })
    }

    /// How it stands.
    pub fn state(&self) -> Result<RunState, RunError> {
        let marker = |name: &str| {
            let path = self.path(name);
            match fs::read_to_string(&path) {
                Ok(text) => Ok(Some(text.trim_end().to_string())),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(source) => Err(RunError::Read { path, source }),
            }
        };
        Ok(match (marker("DONE")?, marker("FAILED")?) {
            (Some(summary), _) => RunState::Done(summary),
            (None, Some(reason)) => RunState::Failed(reason),
            (None, None) => RunState::Unfinished,
        })
    }

    /// Begins to work on it, for the first time or again: takes its lock, removes the mark of an earlier failure
    /// and writes the session down.
    pub fn begin(&mut self, device: &str, arguments: &[String]) -> Result<(), RunError> {
        if self.lock.is_none() {
            self.lock = Some(Lock::take(&self.path("run.lock"), &self.dir)?);
        }
        let failed = self.path("FAILED");
        match fs::remove_file(&failed) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(WriteError::at(&failed)(error).into());
            }
            _ => {}
        }
        let mut environment = self.environment()?;
        environment.sessions.push(Session {
            host: host(),
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            device: device.to_string(),
            arguments: arguments.to_vec(),
            started: now_utc(),
            ended: None,
        });
        Ok(write_environment(&self.dir, &environment)?)
    }

    /// Marks it as done.
    pub fn finish(&mut self, summary: &str) -> Result<(), RunError> {
        self.end("DONE", summary)
    }

    /// Marks it as failed, for a reason in plain words.
    pub fn fail(&mut self, reason: &str) -> Result<(), RunError> {
        self.end("FAILED", reason)
    }

    /// Notes the end of this session, with no mark: it was stopped and can be resumed.
    pub fn pause(&mut self) -> Result<(), RunError> {
        let mut environment = self.environment()?;
        if let Some(session) = environment.sessions.last_mut() {
            session.ended = Some(now_utc());
        }
        write_environment(&self.dir, &environment)?;
        self.lock = None;
        Ok(())
    }

    fn end(&mut self, marker: &str, text: &str) -> Result<(), RunError> {
        atomic_write(&self.path(marker), format!("{}\n", text.trim_end()).as_bytes())?;
        self.pause()
    }

    /// What it was made and run with.
    pub fn environment(&self) -> Result<Environment, RunError> {
        let path = self.path("environment.json");
        let bytes = fs::read(&path).map_err(|source| RunError::Read { path: path.clone(), source })?;
        serde_json::from_slice(&bytes).map_err(|error| RunError::Damaged { path, reason: error.to_string() })
    }
}

impl Environment {
    fn of_this_program() -> Self {
        Self {
            harvest: env!("CARGO_PKG_VERSION").into(),
            // Pinned in the workspace's manifest.
            burn: BURN_VERSION.into(),
            features: features().into_iter().map(str::to_owned).collect(),
            created: now_utc(),
            sessions: Vec::new(),
        }
    }
}

fn write_environment(dir: &Path, environment: &Environment) -> Result<(), WriteError> {
    let mut json = serde_json::to_vec_pretty(environment).expect("plain fields always become JSON");
    json.push(b'\n');
    atomic_write(&dir.join("environment.json"), &json)
}

/// Always with the same number of digits, so that sorting the text sorts the times.
fn now_utc() -> String {
    format!("{:.9}", jiff::Timestamp::now())
}

/// Makes an empty folder of that name, with a number after it if the name is taken.
fn claim(runs: &Path, name: &str) -> Result<PathBuf, WriteError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let name: String = name.chars().map(|c| if plain(c) { c } else { '_' }).collect();
    for number in 1.. {
        let dir = runs.join(if number == 1 { name.clone() } else { format!("{name}-{number}") });
        match fs::create_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            made => return made.map(|()| dir.clone()).map_err(WriteError::at(&dir)),
        }
    }
    unreachable!("the numbers do not end before the folders do")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Override, Sources, resolve};
    use crate::project::Input;

    fn plan(settings: &[&str]) -> RunPlan {
        let overrides =
            settings.iter().map(|setting| Override::parse(setting).expect("well formed")).collect();
        let config = resolve(&Sources { overrides, ..Sources::default() }).expect("the settings are good");
        RunPlan::new(&config, "freematch", vec![Input::new("split.json", b"[1]".to_vec())])
    }

    fn noon() -> jiff::Zoned {
        jiff::civil::date(2026, 11, 23).at(10, 15, 0, 0).in_tz("UTC").expect("UTC is known")
    }

    #[test]
    fn a_run_has_a_folder_of_its_own_with_all_that_went_in() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let runs = folder.path().join("deep/runs");
        let first = Run::create_at(&runs, &plan(&["model.name=a/b"]), &noon()).expect("writable");
        let second = Run::create_at(&runs, &plan(&["model.name=a/b"]), &noon()).expect("writable");
        assert_eq!(first.dir(), runs.join("2026-11-23T10-15-00-freematch-a_b"));
        assert_eq!(second.dir(), runs.join("2026-11-23T10-15-00-freematch-a_b-2"));
        assert_eq!(first.input("split.json").expect("it was frozen"), b"[1]");
        let sources = Sources { recipe: Some(first.path("config.toml")), ..Sources::default() };
        assert_eq!(resolve(&sources).expect("a run's configuration is a recipe").value.model.name, "a/b");
        assert_eq!(Run::list(&runs).expect("readable").len(), 2);
        assert_eq!(fs::read_dir(&runs).expect("readable").count(), 2, "no drafts are left");
    }

    #[test]
    fn the_same_plan_resumes_the_latest_run_that_is_not_done() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let runs = folder.path();
        let (same, other) = (plan(&["run.device=cpu"]), plan(&["training.seed=1"]));
        let latest = |plan: &RunPlan| {
            let run = Run::latest_unfinished(runs, &plan.fingerprint()).expect("readable");
            run.map(|run| run.dir().to_path_buf())
        };
        assert_eq!(latest(&same), None);
        let mut first = Run::create(runs, &plan(&[])).expect("writable");
        let mut second = Run::create(runs, &plan(&[])).expect("writable");
        Run::create(runs, &other).expect("writable");
        assert_eq!(latest(&same).as_deref(), Some(second.dir()));
        second.begin("cpu", &["train".into()]).expect("it is free");
        second.finish("accuracy 0.9").expect("writable");
        assert_eq!(second.state().expect("readable"), RunState::Done("accuracy 0.9".into()));
        assert_eq!(latest(&same).as_deref(), Some(first.dir()));
        first.begin("cpu", &[]).expect("it is free");
        first.fail("the disk is full").expect("writable");
        assert_eq!(first.state().expect("readable"), RunState::Failed("the disk is full".into()));
        assert_eq!(latest(&same).as_deref(), Some(first.dir()), "a failed run can be resumed");
        first.begin("cpu", &[]).expect("it is free");
        assert_eq!(first.state().expect("readable"), RunState::Unfinished);
        assert_eq!(first.environment().expect("readable").sessions.len(), 2);
        let mut changed = plan(&[]);
        changed.inputs[0] = Input::new("split.json", b"[2]".to_vec());
        assert_eq!(latest(&changed), None, "other inputs make another run");
    }

    #[test]
    fn two_processes_cannot_work_on_one_run() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let mut first = Run::create(folder.path(), &plan(&[])).expect("writable");
        let mut second = Run::open(first.dir()).expect("it exists");
        first.begin("cpu", &[]).expect("it is free");
        assert!(matches!(second.begin("cpu", &[]), Err(RunError::Lock(LockError::Held { .. }))));
        first.pause().expect("writable");
        second.begin("cpu", &[]).expect("it is free again");
    }

    #[test]
    fn what_is_no_run_is_passed_over_or_refused() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        fs::create_dir(folder.path().join("notes")).expect("writable");
        assert!(Run::list(folder.path()).expect("readable").is_empty());
        assert!(matches!(Run::open(&folder.path().join("notes")), Err(RunError::Read { .. })));
        fs::write(folder.path().join("notes/fingerprint"), "xyz").expect("writable");
        assert!(matches!(Run::open(&folder.path().join("notes")), Err(RunError::Damaged { .. })));
        let error = Run::create(Path::new("/proc/self/runs"), &plan(&[])).expect_err("unwritable");
        assert!(error.to_string().starts_with("cannot write `/proc/self/runs`"), "{error}");
    }
}
