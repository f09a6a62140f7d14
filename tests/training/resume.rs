//! A run that is interrupted and continued ends in the same numbers as one that never was.

use harvest::training::{Outcome, TrainError};

use crate::world::{Recipe, World, assert_same_run, metrics, resnet_recipe, vit_recipe};

fn network(outcome: &Outcome) -> harvest_models::NamedTensors {
    outcome.network.to_tensors()
}

/// Compares an uninterrupted run with one that is interrupted `interruptions` times, after one step each.
pub fn resumes(recipe: &Recipe, interruptions: u64) {
    let world = World::new();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (whole, parts) = (folder.path().join("whole"), folder.path().join("parts"));
    let expected = world.train(recipe, &whole).expect("the run ends");
    world.train_until(interruptions, recipe, &parts);
    assert_eq!(recipe.last(&parts).progress.step, interruptions);
    let found = world.train(recipe, &parts).expect("the run ends");

    assert_same_run(recipe, &whole, &parts);
    assert_eq!(recipe.last(&whole).progress.step, recipe.steps());
    let facts = |outcome: &Outcome| (outcome.taken_at, outcome.steps);
    assert_eq!(facts(&found), facts(&expected));
    assert_eq!(found.evaluation, expected.evaluation);
    assert_eq!(found.test, expected.test);
    assert!(expected.evaluation.is_some() && expected.test.is_some());
    assert_eq!(network(&found), network(&expected));
}

#[test]
fn a_transformer_goes_on_as_if_never_interrupted() {
    resumes(&vit_recipe(), 3);
}

#[test]
fn a_residual_network_goes_on_as_if_never_interrupted() {
    resumes(&resnet_recipe(), 3);
}

#[test]
fn a_restart_after_every_step_changes_nothing() {
    for recipe in [vit_recipe(), resnet_recipe()] {
        resumes(&recipe, recipe.steps() - 1);
    }
}

#[test]
fn the_log_has_the_rows_asked_for() {
    let (world, recipe) = (World::new(), vit_recipe());
    let folder = tempfile::tempdir().expect("a temporary folder");
    world.train(&recipe, folder.path()).expect("the run ends");
    let steps = |column: &str| {
        let metrics = metrics(folder.path());
        let (_, points) = metrics.into_iter().find(|(name, _)| name == column).expect(column);
        points.into_iter().map(|(step, _)| step).collect::<Vec<_>>()
    };
    // Every third step and the last; evaluations after every fourth and the last.
    for column in ["epoch", "lr", "loss", "sup", "unsup", "mask_ratio"] {
        assert_eq!(steps(column), [0, 3, 6, 9, 10], "{column}");
    }
    assert_eq!(steps("evaluation_accuracy"), [3, 7, 10]);
}

#[test]
fn a_finished_run_is_not_trained_again() {
    let (world, recipe) = (World::new(), vit_recipe());
    let folder = tempfile::tempdir().expect("a temporary folder");
    let first = world.train(&recipe, folder.path()).expect("the run ends");
    let before = (metrics(folder.path()), recipe.last(folder.path()).model);
    // A request to stop finds nothing to stop.
    let again = world.train_a_step(&recipe, folder.path()).expect("it has ended");
    assert_eq!(network(&again), network(&first));
    assert_eq!((metrics(folder.path()), recipe.last(folder.path()).model), before);
}

#[test]
fn supervised_training_needs_no_unlabelled_images() {
    let (world, mut recipe) = (World::new(), vit_recipe());
    recipe.config.algorithm.name = harvest::algorithms::AlgorithmName::Supervised;
    resumes(&recipe, 2);
    recipe.config.training.steps = Some(1);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut job = world.job(&recipe);
    let none = harvest::data::Split { unlabelled: Vec::new(), ..job.split.clone() };
    job.split = &none;
    let go_on = std::sync::atomic::AtomicBool::new(false);
    let progress = harvest::report::Progress::hidden();
    harvest::training::train(&job, folder.path(), &go_on, &progress).expect("labelled images suffice");

    let recipe = vit_recipe();
    job = world.job(&recipe);
    job.split = &none;
    let error = harvest::training::train(&job, folder.path().join("other").as_path(), &go_on, &progress);
    let error = error.err().expect("FreeMatch has nothing to learn from");
    assert!(matches!(error, TrainError::Sampler(_)), "{error}");
    assert_eq!(error.to_string(), "there are no unlabelled images to train on");
}
