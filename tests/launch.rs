//! `harvest launch` through the real program. Under a real Slurm: scripts/slurm-check.

#[path = "support/program.rs"]
mod program;

use std::process::Output;

use assert_cmd::Command;
use program::{World, fails, succeeds};

/// With nothing in PATH but what a test puts there.
fn launch(world: &World, arguments: &[&str]) -> Output {
    Command::cargo_bin("harvest")
        .expect("the program")
        .arg("launch")
        .args(arguments)
        .current_dir(world.0.path())
        .env("PATH", world.path("bin"))
        .env("XDG_CONFIG_HOME", world.path("no-such-folder"))
        .output()
        .expect("the program starts")
}

#[test]
fn a_dry_run_prints_the_script_and_leaves_nothing() {
    let world = World::new();
    let train = ["--", "train", "--data", "it's here", "--steps", "3"];
    let options = ["--dry-run", "--time", "2:00:00", "--partition", "day", "--scaling", "strong"];
    let script = succeeds(&launch(&world, &[&options[..], &train].concat()));
    for wanted in [
        "#!/bin/bash\n",
        "#SBATCH --nodes=1\n",
        "#SBATCH --time=2:00:00\n",
        "#SBATCH --partition=day\n",
        "#SBATCH --requeue\n",
        "#SBATCH --signal=USR2@180\n",
        r"train --data 'it'\''s here' --steps 3 --set distribution.scaling=strong",
    ] {
        assert!(script.contains(wanted), "`{wanted}` is not in:\n{script}");
    }
    assert!(!world.path("jobs").exists());
}

#[test]
fn what_is_frozen_already_is_not_frozen_again() {
    let world = World::new();
    for flag in ["--labels", "--settings"] {
        let train = ["--dry-run", "--", "train", "--project", "p", flag, "frozen"];
        let script = succeeds(&launch(&world, &train));
        let frozen = script.matches("--labels").count() + script.matches("--settings").count();
        assert_eq!(frozen, 1, "{script}");
    }
}

#[test]
fn a_job_is_handed_in_and_told_how_to_follow() {
    let world = World::new();
    std::fs::create_dir(world.path("bin")).expect("a folder");
    let sbatch = world.write("bin/sbatch", "#!/bin/sh\necho 17\n");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(&sbatch, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    }
    for count in 1..=2 {
        let said = succeeds(&launch(&world, &["--", "train", "--data", "images"]));
        for wanted in ["job 17: 1 ranks on 1 nodes", "tail -F", "scancel 17"] {
            assert!(said.contains(wanted), "`{wanted}` is not in:\n{said}");
        }
        let folders: Vec<_> = std::fs::read_dir(world.path("jobs")).expect("jobs").flatten().collect();
        assert_eq!(folders.len(), count, "each job has a folder of its own");
        assert!(folders.iter().all(|folder| folder.path().join("job.sbatch").is_file()));
    }
}

#[test]
fn what_makes_no_sense_never_waits_in_a_queue() {
    let world = World::new();
    let refused = |arguments: &[&str], words: &[&str]| fails(&launch(&world, arguments), 2, words);
    refused(&["--", "trian"], &["after `--`", "trian"]);
    refused(&["--", "train", "--stesp", "3"], &["--stesp"]);
    refused(&["--", "launch", "--", "train"], &["cannot be launched"]);
    refused(&["--nodes", "2", "--", "doctor"], &["only train works on several ranks", "doctor"]);
    refused(&["--nodes", "0", "--", "train"], &["--nodes"]);
    if !cfg!(feature = "mpi") {
        refused(&["--nodes", "2", "--", "train"], &["--features mpi"]);
    }
    if !cfg!(feature = "cuda") {
        refused(&["--gpus-per-node", "4", "--", "train"], &["--features cuda"]);
    }
    fails(&launch(&world, &["--", "train"]), 1, &["is not handed in", "there is no `sbatch` here"]);
}
