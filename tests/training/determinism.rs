//! A seed decides everything, the number of threads nothing.

use std::path::Path;
use std::process::Command;

use harvest::algorithms::Views;
use harvest::data::{Order, Sampler};
use harvest::training::{HostBatch, Intake, Loader};

use crate::world::{World, assert_same_run, metrics, resnet_recipe, run, this_test, vit_recipe};

/// Names the folder that a child process trains into.
const FOLDER: &str = "HARVEST_TEST_TRAIN_INTO";

#[test]
fn one_thread_and_two_give_the_same_numbers() {
    let recipes = [("vit", vit_recipe()), ("resnet", resnet_recipe())];
    // Each process has one pool of threads for good, so each count needs a process of its own.
    if let Some(folder) = std::env::var_os(FOLDER) {
        let world = World::new();
        for (name, recipe) in &recipes {
            world.train(recipe, &Path::new(&folder).join(name)).expect("the run ends");
        }
        let threads = rayon::current_num_threads().to_string();
        return std::fs::write(Path::new(&folder).join("threads"), threads).expect("writable");
    }
    let folders = ["1", "2"].map(|threads| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let test = this_test("determinism::one_thread_and_two_give_the_same_numbers");
        let command = &mut Command::new(&test[0]);
        run(command.args(&test[1..]).env("RAYON_NUM_THREADS", threads).env(FOLDER, folder.path()));
        assert_eq!(std::fs::read_to_string(folder.path().join("threads")).expect("written"), threads);
        folder
    });
    for (name, recipe) in &recipes {
        let [one, two] = [0, 1].map(|i: usize| folders[i].path().join(name));
        assert_same_run(recipe, &one, &two);
    }
}

#[test]
fn seeds_differ() {
    let world = World::new();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let losses = [1, 2].map(|seed| {
        let mut recipe = vit_recipe();
        recipe.config.training.seed = seed;
        let own = folder.path().join(seed.to_string());
        world.train(&recipe, &own).expect("the run ends");
        metrics(&own).into_iter().find(|(name, _)| name == "loss").expect("it is logged").1
    });
    assert!(losses[0].iter().zip(&losses[1]).all(|(one, other)| one.0 == other.0 && one.1 != other.1));
}

#[test]
fn a_batch_is_a_function_of_the_step() {
    let (world, recipe) = (World::new(), vit_recipe());
    let job = world.job(&recipe);
    let loader = || {
        let sampler = |indices: &[u32], order| Sampler::new(indices.to_vec(), order, 3).expect("images");
        Loader {
            wanted: Views { weak: 1, strong: 1 },
            cache: job.cache,
            labels: job.labels,
            views: &job.config.views,
            seed: 3,
            labelled: Intake::whole(sampler(&job.split.labelled, Order::Labelled), 4),
            unlabelled: Some(Intake::whole(sampler(&job.split.unlabelled, Order::Unlabelled), 8)),
        }
    };
    let parts = |batch: HostBatch| {
        let HostBatch { step, labelled, labels, weak, strong, indices, places, epoch } = batch;
        (step, labelled, labels, weak, strong, indices, places, epoch)
    };
    let mut forwards = loader();
    let mut expected: Vec<_> = (0..8).map(|step| parts(forwards.batch(step))).collect();
    let mut backwards = loader();
    let mut found: Vec<_> = (0..8).rev().map(|step| parts(backwards.batch(step))).collect();
    found.reverse();
    assert!(found == expected, "in any order");
    let later: Vec<_> =
        std::thread::scope(|scope| loader().prefetch(scope, 5..8).into_iter().map(parts).collect());
    assert!(later == expected.split_off(5), "ahead of time, from any step");
    let [first, second] = [&expected[0], &expected[1]];
    assert!(first.1 != second.1 && first.3 != second.3, "steps differ");
    assert!(first.3 != first.4, "a strong view is no weak one");
}
