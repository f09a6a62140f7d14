//! A seed decides everything, the number of threads nothing.

use std::path::Path;
use std::process::Command;

use burn::tensor::{Tensor, Tolerance};
use harvest::algorithms::Views;
use harvest::data::{Order, Sampler};
use harvest::training::{Crew, HostBatch, HostViews, Intake, Job, Loader, Session};

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
    for planned in [false, true] {
        in_any_order_and_ahead_of_time(|| loader(&job, planned));
    }
}

fn loader<'a>(job: &'a Job<'a>, planned: bool) -> Loader<'a> {
    let sampler = |indices: &[u32], order| Sampler::new(indices.to_vec(), order, 3).expect("images");
    Loader {
        wanted: Views { weak: 1, strong: 2 },
        planned,
        cache: job.cache,
        labels: job.labels,
        views: &job.config.views,
        seed: 3,
        labelled: Intake::whole(sampler(&job.split.labelled, Order::Labelled), 4),
        unlabelled: Some(Intake::whole(sampler(&job.split.unlabelled, Order::Unlabelled), 8)),
    }
}

fn in_any_order_and_ahead_of_time<'a>(loader: impl Fn() -> Loader<'a>) {
    let parts = |batch: HostBatch| {
        let HostBatch { step, views, labels, indices, places, epoch } = batch;
        (step, views, labels, indices, places, epoch)
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
    let views = |step: usize| match &expected[step].1 {
        HostViews::Made(bytes) => {
            bytes.clone().map(|bytes| format!("{bytes:?}"), |bytes| format!("{bytes:?}"))
        }
        HostViews::Planned { plans, .. } => {
            plans.clone().map(|plans| format!("{plans:?}"), |plans| format!("{plans:?}"))
        }
    };
    let [first, second] = [views(0), views(1)];
    assert!(first.labelled != second.labelled && first.weak != second.weak, "steps differ");
    assert!(first.weak[0] != first.strong[0], "a strong view is no weak one");
    assert!(first.strong[0] != first.strong[1], "nor another strong one");
}

#[test]
fn views_that_the_device_makes_are_those_that_threads_make() {
    let (world, recipe) = (World::new(), vit_recipe());
    let job = world.job(&recipe);
    let session = Session::new(recipe.setup(), Crew::alone(1)).expect("a valid network");
    let [made, planned] = [false, true].map(|planned| session.upload(loader(&job, planned).batch(2)));
    assert_eq!((made.indices, made.labels.to_data()), (planned.indices, planned.labels.to_data()));
    let all = |labelled, weak: Vec<_>, strong: Vec<_>| {
        let images: Vec<Tensor<4>> = [vec![labelled], weak, strong].concat();
        images.into_iter().map(Tensor::into_data).collect::<Vec<_>>()
    };
    let made = all(made.labelled, made.weak, made.strong);
    let planned = all(planned.labelled, planned.weak, planned.strong);
    assert_eq!(made.len(), 4);
    for (made, planned) in made.iter().zip(&planned) {
        // Normalised by a table and by arithmetic; a level is 0.017.
        made.assert_approx_eq::<f32>(planned, Tolerance::absolute(1e-5));
    }
}
