//! A checkpoint is whole, or the one before it is; what cannot be used is an error, never a fresh start.

use std::path::{Path, PathBuf};
use std::process::Command;

use harvest::algorithms::AlgorithmName;
use harvest::training::TrainError;
use harvest::training::checkpoint::{CheckpointError, Checkpoints};

use crate::world::{Recipe, World, assert_same_run, chain, resnet_recipe, small_vit, this_test, vit_recipe};

fn refusal(world: &World, recipe: &Recipe, folder: &Path) -> CheckpointError {
    match world.train(recipe, folder) {
        Err(TrainError::Checkpoint(error)) => error,
        Err(other) => panic!("{}", chain(&other)),
        Ok(_) => panic!("it trained from something else"),
    }
}

/// The folder of the newest checkpoint.
fn newest(run: &Path) -> PathBuf {
    let checkpoints = run.join("checkpoints");
    let name = std::fs::read_to_string(checkpoints.join("last")).expect("there is a checkpoint");
    checkpoints.join(name)
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("readable"));
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().into_string().expect("ours")).collect();
    names.sort();
    names
}

#[test]
fn another_network_class_count_or_algorithm_is_refused() {
    let (world, recipe) = (World::new(), vit_recipe());
    let folder = tempfile::tempdir().expect("a temporary folder");
    world.train_until(1, &recipe, folder.path());
    let before = recipe.last(folder.path());
    let other_algorithm = {
        let mut recipe = vit_recipe();
        recipe.config.algorithm.name = AlgorithmName::FixMatch;
        recipe
    };
    let other_network = Recipe { model: resnet_recipe().model, ..vit_recipe() };
    let other_classes = Recipe { model: small_vit(7), ..vit_recipe() };
    for other in [other_algorithm, other_network, other_classes] {
        let error = refusal(&world, &other, folder.path());
        assert!(matches!(error, CheckpointError::OtherModel { .. }), "{error:?}");
        let message = error.to_string();
        let kinds = [recipe.setup().kind(), other.setup().kind()];
        assert!(kinds.iter().all(|kind| message.contains(kind)) && message.contains("--fresh"), "{message}");
    }
    assert_eq!(recipe.last(folder.path()).model, before.model);
}

#[test]
fn a_damaged_checkpoint_is_an_error_that_names_the_file() {
    let (world, recipe) = (World::new(), vit_recipe());
    let folder = tempfile::tempdir().expect("a temporary folder");
    world.train_until(1, &recipe, folder.path());
    let checkpoint = newest(folder.path());
    for file in names(&checkpoint) {
        let path = checkpoint.join(&file);
        let sound = std::fs::read(&path).expect("written");
        let other_json = b"{\"step\": 1}".to_vec();
        for damaged in
            [Vec::new(), sound[..sound.len() / 2].to_vec(), sound[..sound.len() - 1].to_vec(), other_json]
        {
            std::fs::write(&path, damaged).expect("writable");
            let error = refusal(&world, &recipe, folder.path());
            assert!(matches!(error, CheckpointError::Damaged { .. }), "{file}: {error:?}");
            let message = error.to_string();
            assert!(
                message.contains(path.to_str().expect("plain")) && message.contains("--fresh"),
                "{message}"
            );
        }
        std::fs::remove_file(&path).expect("ours");
        let error = refusal(&world, &recipe, folder.path());
        assert!(matches!(error, CheckpointError::Read { .. }), "{file}: {error:?}");
        assert!(error.to_string().contains(path.to_str().expect("plain")), "{error}");
        std::fs::write(&path, sound).expect("writable");
    }
    assert_eq!(names(&checkpoint).len(), 5);

    // A whole file of another network, and a pointer to nowhere.
    std::fs::copy(checkpoint.join("optimizer.safetensors"), checkpoint.join("model.safetensors"))
        .expect("writable");
    let error = refusal(&world, &recipe, folder.path());
    assert!(matches!(error, CheckpointError::Misfit(_)), "{error:?}");
    std::fs::write(folder.path().join("checkpoints/last"), "step-000000099").expect("writable");
    let error = refusal(&world, &recipe, folder.path());
    assert!(error.to_string().contains("step-000000099"), "{error}");
}

#[test]
fn what_a_kill_leaves_behind_is_passed_over_and_cleared_away() {
    let (world, recipe) = (World::new(), vit_recipe());
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (whole, killed) = (folder.path().join("whole"), folder.path().join("killed"));
    world.train(&recipe, &whole).expect("the run ends");
    world.train_until(2, &recipe, &killed);
    let checkpoints = killed.join("checkpoints");
    // Killed while writing the checkpoint of step 4, or between its renaming and the pointer's; while writing a pointer.
    for half in [".writing-step-000000004", "step-000000004"] {
        std::fs::create_dir(checkpoints.join(half)).expect("writable");
        std::fs::write(checkpoints.join(half).join("model.safetensors"), b"half").expect("writable");
    }
    std::fs::write(checkpoints.join(".writing-h4lf"), b"step-00").expect("writable");
    world.train(&recipe, &killed).expect("the run ends");
    assert_same_run(&recipe, &whole, &killed);
    assert_eq!(names(&checkpoints), names(&whole.join("checkpoints")));
}

#[test]
fn the_newest_and_the_best_are_kept_and_nothing_else() {
    let (world, recipe) = (World::new(), vit_recipe());
    let folder = tempfile::tempdir().expect("a temporary folder");
    let outcome = world.train(&recipe, folder.path()).expect("the run ends");
    let folder = folder.path().join("checkpoints");
    let (steps, kind) = (recipe.steps(), recipe.setup().kind());
    let mut expected =
        vec!["last".to_owned(), format!("step-{:09}", outcome.taken_at), format!("step-{steps:09}")];
    expected.dedup();
    assert_eq!(names(&folder), expected);

    // A best step that is not the newest stays, and is what is found.
    let checkpoints = Checkpoints::open(&folder).expect("writable");
    let mut newest = checkpoints.last(&kind).expect("whole").expect("one");
    newest.progress.best = Some((0.9, steps));
    checkpoints.save(&newest).expect("writable");
    for more in 1..=3 {
        newest.progress.step = steps + more;
        checkpoints.save(&newest).expect("writable");
    }
    let [best, last] = [steps, steps + 3].map(|step| format!("step-{step:09}"));
    assert_eq!(names(&folder), ["last".to_owned(), best, last]);
    assert_eq!(checkpoints.best(&kind).expect("whole").progress.step, steps);
    assert_eq!(checkpoints.last(&kind).expect("whole").expect("one").progress.step, steps + 3);
    assert_eq!(checkpoints.newest_step().expect("readable"), steps + 3);
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let (world, recipe) = (World::new(), vit_recipe());
    let folder = tempfile::tempdir().expect("a temporary folder");
    // Below a file there can be no folder, whoever asks.
    let file = folder.path().join("file");
    std::fs::write(&file, b"").expect("writable");
    let error = refusal(&world, &recipe, &file.join("run"));
    assert!(matches!(error, CheckpointError::Write(_)), "{error:?}");
    let message = chain(&error);
    assert!(message.contains(file.to_str().expect("plain")), "{message}");
}

/// Names the run that a child process goes on with.
const FOLDER: &str = "HARVEST_TEST_SAVE_INTO";

/// A limit on the size of files stands in for a full disk: unlike one it can be had everywhere. Writing fails in the
/// same place with another code.
#[cfg(unix)]
#[test]
fn a_checkpoint_that_finds_no_room_leaves_the_one_before_it() {
    let recipe = vit_recipe();
    if let Some(folder) = std::env::var_os(FOLDER) {
        let mut checkpoint = recipe.last(Path::new(&folder));
        checkpoint.progress.step += 1;
        let checkpoints = Checkpoints::open(&Path::new(&folder).join("checkpoints")).expect("it exists");
        let error = checkpoints.save(&checkpoint).expect_err("the file is larger than allowed");
        assert!(matches!(error, CheckpointError::Write(_)), "{error:?}");
        let message = chain(&error);
        assert!(
            message.contains("the one before it is untouched") && message.contains("model.safetensors"),
            "{message}"
        );
        println!("refused");
        return;
    }
    let world = World::new();
    let folder = tempfile::tempdir().expect("a temporary folder");
    world.train_until(2, &recipe, folder.path());
    let before = recipe.last(folder.path());
    let limited = "trap '' XFSZ; ulimit -f 8; exec \"$0\" \"$@\"";
    let test = this_test("checkpoints::a_checkpoint_that_finds_no_room_leaves_the_one_before_it");
    let output = Command::new("sh").args(["-c", limited]).args(&test).env(FOLDER, folder.path()).output();
    let output = output.expect("there is a shell");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("refused"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );

    let after = recipe.last(folder.path());
    assert_eq!((after.progress.step, &after.model, &after.optimizer), (2, &before.model, &before.optimizer));
    let left = names(&folder.path().join("checkpoints"));
    assert!(left.iter().all(|name| !name.starts_with(".writing")), "{left:?}");
    world.train(&recipe, folder.path()).expect("with room again, the run goes on");
}
