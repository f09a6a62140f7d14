//! Every algorithm on every family of networks: it trains, and goes on after an interruption as if there had been none.

use std::sync::atomic::AtomicBool;

use harvest::algorithms::AlgorithmName;
use harvest::report::Progress;
use harvest::training::{TrainError, train};

use crate::resume::resumes;
use crate::world::{Recipe, World, resnet_recipe, vit_recipe};

/// Interrupted after 4 of 11 steps, past the first evaluation.
fn goes_on(recipe: fn() -> Recipe) {
    for name in AlgorithmName::ALL {
        println!("{name}");
        let mut recipe = recipe();
        recipe.config.algorithm.name = *name;
        resumes(&recipe, 4);
        // Whole distributions as targets take another path through the student pass.
        recipe.config.algorithm.adamatch.hard_labels = false;
        if *name == AlgorithmName::AdaMatch {
            resumes(&recipe, 4);
        }
    }
}

#[test]
fn every_algorithm_trains_a_transformer() {
    goes_on(vit_recipe);
}

#[test]
fn every_algorithm_trains_a_residual_network() {
    goes_on(resnet_recipe);
}

/// Mean Teacher needs an average even where the run asks for none.
#[test]
fn a_teacher_lags_behind_its_student() {
    let world = World::new();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut recipe = resnet_recipe();
    assert_eq!(recipe.config.training.ema, 0.0);
    let weights = |recipe: &Recipe, name: &str| {
        let folder = folder.path().join(name);
        world.train_until(2, recipe, &folder);
        let last = recipe.last(&folder);
        (last.model["fc.weight"].clone(), last.ema["fc.weight"].clone())
    };
    let (student, average) = weights(&recipe, "fixmatch");
    assert_eq!(student, average);
    recipe.config.algorithm.name = AlgorithmName::MeanTeacher;
    let (student, average) = weights(&recipe, "meanteacher");
    assert_ne!(student, average);
}

/// Its members are trained before it; a configuration alone says so before the first step, and leaves nothing.
#[test]
fn self_training_without_pseudo_labels_is_refused_before_the_first_step() {
    let (world, mut recipe) = (World::new(), resnet_recipe());
    recipe.config.algorithm.name = AlgorithmName::SelfTraining;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut job = world.job(&recipe);
    job.algorithm = &recipe.config.algorithm;
    let error = train(&job, folder.path(), &AtomicBool::new(false), &Progress::hidden()).err();
    let error = error.expect("there is nothing to learn from");
    assert!(matches!(error, TrainError::NotReady(_)), "{error}");
    assert!(error.to_string().contains("members") && error.to_string().contains("harvest train"), "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0);
}
