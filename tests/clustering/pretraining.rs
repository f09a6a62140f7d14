//! SimCLR learns something, survives interruptions, and does with several ranks what one does.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use harvest::algorithms::{Alone, Ranks};
use harvest::augment::{Normalisation, ViewConfig};
use harvest::clustering::{BACKBONE, ClusterError, LearnError, SimClr, embed};
use harvest::config::{OptimizerName, SimClrConfig};
use harvest::report::{MetricsTable, Progress};
use harvest_models::{Classifier, NamedTensors};

use crate::linked::ring;
use crate::world::{Clothes, agreement, resnet, vit};

/// A run of a few steps.
fn short(steps: u32) -> SimClrConfig {
    SimClrConfig {
        steps: Some(steps),
        batch: 16,
        warmup_steps: Some(2),
        checkpoint_every: 3,
        log_every: 1,
        ..SimClrConfig::default()
    }
}

fn pretrain(
    config: &SimClrConfig,
    network: &Classifier,
    clothes: &Clothes,
    folder: &Path,
    stop: bool,
    ranks: &dyn Ranks,
) -> Result<Classifier, LearnError> {
    let views = ViewConfig::default();
    let (cache, indices) = (&clothes.cache, &clothes.indices[..]);
    let simclr = SimClr { config, views: &views, cache, indices, seed: 3, ranks };
    simclr.pretrain(network, folder, &AtomicBool::new(stop), &Progress::hidden())
}

fn losses(folder: &Path) -> Vec<(f64, f64)> {
    MetricsTable::read(&folder.join("metrics.csv")).expect("a log").series("loss")
}

#[test]
fn the_loss_falls_and_neighbours_become_alike() {
    let clothes = Clothes::new(1500);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = SimClrConfig { batch: 128, steps: Some(150), ..SimClrConfig::default() };
    let start = resnet();
    let before = start.to_tensors();
    let network = pretrain(&config, &start, &clothes, folder.path(), false, &Alone).expect("it runs");
    assert_eq!(start.to_tensors(), before, "the network given is as it was");
    let losses = losses(folder.path());
    let mean = |part: &[(f64, f64)]| part.iter().map(|(_, loss)| loss).sum::<f64>() / part.len() as f64;
    let (first, last) = (mean(&losses[..3]), mean(&losses[losses.len() - 3..]));
    let features = |network: &Classifier| {
        let (normalisation, stop) = (Normalisation::default(), AtomicBool::new(false));
        let store = folder.path().join("features");
        embed(network, &clothes.cache, &clothes.indices, &normalisation, &store, &stop, &Progress::hidden())
            .expect("it runs")
    };
    let [random, pixels, learned] = [features(&start), clothes.pixels(), features(&network)]
        .map(|features| agreement(&features, &clothes.labels));
    println!(
        "loss {first:.3} → {last:.3}; agreement: random {random:.3}, pixels {pixels:.3}, SimCLR {learned:.3}"
    );
    assert!(last < first - 0.4, "{first} {last}");
    assert!(learned > random + 0.03, "{learned} {random}");
    let mut stored = resnet();
    stored.load_safetensors(&folder.path().join(BACKBONE)).expect("a file of weights");
    assert_eq!(stored.to_tensors(), network.to_tensors());
}

#[test]
fn an_interrupted_run_goes_on_to_the_same_numbers() {
    let clothes = Clothes::new(50);
    for (network, optimizer) in [(resnet(), OptimizerName::AdamW), (vit(), OptimizerName::Sgd)] {
        let config = SimClrConfig { optimizer, ..short(7) };
        let [whole, parts] = [0, 1].map(|_| tempfile::tempdir().expect("a temporary folder"));
        let expected =
            pretrain(&config, &network, &clothes, whole.path(), false, &Alone).expect("it runs").to_tensors();
        for done in 1..7 {
            let stopped = pretrain(&config, &network, &clothes, parts.path(), true, &Alone);
            assert!(matches!(stopped, Err(LearnError::Cluster(ClusterError::Interrupted))), "after {done}");
        }
        let found = pretrain(&config, &network, &clothes, parts.path(), false, &Alone).expect("it runs");
        assert_same(&found.to_tensors(), &expected);
        assert_eq!(losses(parts.path()), losses(whole.path()));
        // Once more: nothing is left to do.
        let found = pretrain(&config, &network, &clothes, parts.path(), true, &Alone).expect("it is done");
        assert_same(&found.to_tensors(), &expected);
    }
}

fn assert_same(found: &NamedTensors, expected: &NamedTensors) {
    assert!(found.keys().eq(expected.keys()));
    for (name, data) in found {
        assert_eq!(data.as_bytes(), expected[name].as_bytes(), "{name}");
    }
}

#[test]
fn two_ranks_learn_what_one_learns() {
    let clothes = Clothes::new(40);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let own = |name: &str| folder.path().join(name);
    // SGD, for AdamW makes steps of full size of gradients that are nothing but rounding.
    let config = SimClrConfig { optimizer: OptimizerName::Sgd, lr: 0.05, ..short(5) };
    let alone = pretrain(&config, &vit(), &clothes, &own("alone"), false, &Alone).expect("it runs");
    let config = SimClrConfig { batch: 8, ..config };
    let ranks = ring(2);
    let found: Vec<_> = std::thread::scope(|scope| {
        let runs = ranks.into_iter().map(|rank| {
            let (config, clothes, folder) = (&config, &clothes, own(&format!("rank{}", rank.rank())));
            scope.spawn(move || {
                let found = pretrain(config, &vit(), clothes, &folder, false, &rank).expect("it runs");
                (found.to_tensors(), folder.join(BACKBONE).exists())
            })
        });
        let runs: Vec<_> = runs.collect();
        runs.into_iter().map(|run| run.join().expect("a rank")).collect()
    });
    assert_eq!((found[0].1, found[1].1), (true, false), "the first rank writes the result");
    assert_same(&found[0].0, &found[1].0);
    let start = vit().to_tensors();
    let mut moved = 0.0f32;
    for (name, data) in alone.to_tensors() {
        for ((one, two), start) in
            data.iter::<f32>().zip(found[0].0[&name].iter::<f32>()).zip(start[&name].iter::<f32>())
        {
            moved = moved.max((one - start).abs());
            // f32 sums in another order.
            assert!((one - two).abs() < 1e-4, "{name}: {one} {two}");
        }
    }
    assert!(moved > 0.01, "{moved}");
}

#[test]
fn a_loss_that_is_no_number_is_said_and_not_saved() {
    let clothes = Clothes::new(30);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = SimClrConfig { lr: 1e30, optimizer: OptimizerName::Sgd, ..short(20) };
    let error = pretrain(&config, &vit(), &clothes, folder.path(), false, &Alone).expect_err("no such rate");
    assert!(matches!(error, LearnError::Diverged { .. }), "{error:?}");
    let words = error.to_string();
    assert!(words.contains("SimCLR") && words.contains("clustering.simclr.lr"), "{words}");
    // With a rate that works another run begins: the settings are part of what a checkpoint is of.
    let error = pretrain(&short(20), &vit(), &clothes, folder.path(), false, &Alone);
    assert!(match error {
        Ok(_) => true,
        Err(error) => error.to_string().contains("--fresh"),
    });
}

#[test]
fn one_image_and_none() {
    let clothes = Clothes::new(3);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let views = ViewConfig::default();
    let config = short(3);
    let run = |indices: &[u32], name: &str| {
        let simclr =
            SimClr { config: &config, views: &views, cache: &clothes.cache, indices, seed: 3, ranks: &Alone };
        let folder = folder.path().join(name);
        simclr.pretrain(&resnet(), &folder, &AtomicBool::new(false), &Progress::hidden())
    };
    assert!(matches!(run(&[], "none"), Err(LearnError::Cluster(ClusterError::Empty))));
    run(&[1], "one").expect("there is nothing to tell it from, and no panic");
    run(&[0, 2], "two").expect("it runs");
}
