//! The real program, killed without warning again and again, ends in the numbers of a run that was left alone.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use harvest::training::checkpoint::Progress;
use harvest_models::read_safetensors;

use crate::world::{metrics, write_pictures};

const KILLS: usize = 4;

/// `harvest train` on the pictures in `folder`, for enough steps to be killed in.
fn program(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_harvest"));
    command.args(["train", "--quiet", "--device", "cpu", "--model", "resnet8", "--steps", "60"]);
    command.arg("--data").arg(folder.join("pictures"));
    for setting in [
        "model.image_size=16",
        "data.labels_per_class=5",
        "training.batch=2",
        "training.ema=0.9",
        "training.log_every=3",
        "training.evaluate_every=20",
        "training.checkpoint_every=7",
    ] {
        command.args(["--set", setting]);
    }
    command.args(["--set", &format!("run.folder={}", folder.join("runs").display())]);
    // Nobody's own settings.
    command.env("XDG_CONFIG_HOME", folder).env("HOME", folder).current_dir(folder);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The folders of runs: those with a log.
fn runs(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder.join("runs")) else { return Vec::new() };
    let paths = entries.map(|entry| entry.expect("readable").path());
    paths.filter(|path| path.join("metrics.csv").exists()).collect()
}

/// Changes when each file below was last changed, and nothing else.
fn touch(folder: &Path) {
    for entry in std::fs::read_dir(folder).expect("readable") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            touch(&path);
        } else {
            let file = std::fs::File::options().append(true).open(path).expect("ours");
            file.set_modified(std::time::SystemTime::now()).expect("ours");
        }
    }
}

fn newest(folder: &Path) -> Option<String> {
    let run = runs(folder).into_iter().next()?;
    std::fs::read_to_string(run.join("checkpoints/last")).ok()
}

fn finish(child: Child) {
    let output = child.wait_with_output().expect("it can be waited for");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Waits for a checkpoint after `before`; false if the program ended without one.
fn wait_for_progress(folder: &Path, child: &mut Child, before: &Option<String>) -> bool {
    while newest(folder) == *before {
        if child.try_wait().expect("it can be asked").is_some() {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}

#[test]
fn a_killed_program_goes_on_as_if_never_interrupted() {
    let folders = [(); 2].map(|()| tempfile::tempdir().expect("a temporary folder"));
    let [alone, killed] = [0, 1].map(|i: usize| folders[i].path());
    write_pictures(&alone.join("pictures"));
    write_pictures(&killed.join("pictures"));
    finish(program(alone).spawn().expect("it can be started"));
    for _ in 0..KILLS {
        // As if the folder had been restored meanwhile: the same pictures with other times.
        touch(&killed.join("pictures"));
        let before = newest(killed);
        let mut child = program(killed).spawn().expect("it can be started");
        let alive = wait_for_progress(killed, &mut child, &before);
        child.kill().expect("it is ours");
        child.wait().expect("it is ours");
        if !alive {
            break; // It was faster than the kill; what follows must hold all the same.
        }
    }
    if !runs(killed).iter().any(|run| run.join("DONE").exists()) {
        finish(program(killed).spawn().expect("it can be started"));
    }

    let [alone, killed] = [alone, killed].map(|folder| {
        let runs = runs(folder);
        assert_eq!(runs.len(), 1, "the same command goes on with its run");
        runs.into_iter().next().expect("just counted")
    });
    assert_eq!(metrics(&alone), metrics(&killed));
    let last = |run: &Path| {
        let name = std::fs::read_to_string(run.join("checkpoints/last")).expect("a finished run has one");
        run.join("checkpoints").join(name)
    };
    let (alone_last, killed_last) = (last(&alone), last(&killed));
    assert_eq!(alone_last.file_name(), killed_last.file_name());
    for file in ["model", "ema", "optimizer", "algorithm"] {
        let read =
            |folder: &Path| read_safetensors(&folder.join(format!("{file}.safetensors"))).expect("whole");
        assert_eq!(read(&alone_last), read(&killed_last), "{file}");
    }
    let progress = |folder: &Path| -> Progress {
        let text = std::fs::read(folder.join("state.json")).expect("written");
        serde_json::from_slice(&text).expect("whole")
    };
    assert_eq!(progress(&alone_last).best, progress(&killed_last).best);
    let scores = |run: &Path| std::fs::read(run.join("scores.json")).expect("written");
    assert_eq!(scores(&alone), scores(&killed));
}

#[test]
fn a_killed_demo_goes_on_with_what_it_has() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let demo = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_harvest"));
        command.args(["demo", "--steps", "30", "--device", "cpu", "--out", "."]).current_dir(folder.path());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("it can be started")
    };
    let named = |algorithm: &str| {
        let mut found = runs(folder.path());
        found.retain(|run| run.to_string_lossy().contains(algorithm));
        found
    };
    let done = |algorithm: &str| named(algorithm).iter().any(|run| run.join("DONE").exists());
    let mut child = demo();
    while !done("supervised") && child.try_wait().expect("it can be asked").is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().expect("it is ours");
    child.wait().expect("it is ours");
    assert!(done("supervised"), "it ended before it was killed");
    // Had it been faster than the kill, it would be trained once more.
    let finished = usize::from(done("freematch"));
    finish(demo());
    assert_eq!((named("supervised").len(), named("freematch").len()), (1, 1 + finished));
    assert!(done("freematch"));
}
