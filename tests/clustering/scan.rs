//! SCAN finds what there is to find, survives interruptions, and has a result where there is nothing.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use burn::tensor::Device;
use harvest::augment::{Normalisation, ViewConfig};
use harvest::clustering::{
    ClusterError, Embedding, LearnError, Learning, Scan, Scanned, SelfLabelling, embed,
};
use harvest::config::{HeadStart, ScanConfig};
use harvest::metrics::ClusterScores;
use harvest::report::Progress;
use harvest_models::Classifier;

use crate::world::{Clothes, clouds, neighbours, resnet, vit};

fn learn(
    config: &ScanConfig,
    features: &Embedding,
    clusters: usize,
    learning: Learning<'_>,
    folder: &Path,
    stop: bool,
) -> Result<Scanned, LearnError> {
    let neighbours = neighbours(features, 20);
    let scan = Scan { config, clusters, seed: 1, features, neighbours: &neighbours, device: Device::flex() };
    scan.learn(learning, folder, &AtomicBool::new(stop), &Progress::hidden())
}

fn frozen(config: &ScanConfig, features: &Embedding, clusters: usize) -> Scanned {
    let folder = tempfile::tempdir().expect("a temporary folder");
    learn(config, features, clusters, Learning::Frozen { copies: &[] }, folder.path(), false)
        .expect("it runs")
}

fn accuracy(labels: &[u32], groups: &[usize], clusters: usize, classes: usize) -> f64 {
    let labels: Vec<usize> = labels.iter().map(|label| *label as usize).collect();
    ClusterScores::of(&labels, groups, clusters, classes).expect("sound").accuracy
}

#[test]
fn separated_clouds_are_found() {
    let (features, groups) = clouds(&[80; 10], 32, 0.4, 1);
    let found = frozen(&ScanConfig::default(), &features, 10);
    let accuracy = accuracy(&found.assignment.labels(), &groups, 10, 10);
    assert!(accuracy > 0.95, "{accuracy}");
    assert!(found.assignment.empty().is_empty());
    assert_eq!(found.self_labelling, SelfLabelling::Done);
    assert_eq!((found.losses.len(), found.network.is_none()), (5, true));
    assert!(found.losses.iter().all(|loss| *loss >= found.losses[found.head]));
    let confident = [&found.before, &found.assignment].map(|found| found.confident(0.99));
    assert!(confident[1] >= confident[0] && confident[1] > 0.5, "{confident:?}");
}

/// The entropy wants clusters of equal size; of unequal ones its weight must allow.
#[test]
fn clouds_of_unequal_size_want_a_smaller_weight_of_the_entropy() {
    let (features, groups) = clouds(&[140, 60, 60, 140, 60, 60], 32, 0.4, 1);
    let config = ScanConfig { entropy_weight: 2.0, ..ScanConfig::default() };
    let found = frozen(&config, &features, 6);
    let accuracy = accuracy(&found.assignment.labels(), &groups, 6, 6);
    assert!(accuracy > 0.95, "{accuracy}");
}

#[test]
fn the_unsure_do_not_teach() {
    // Hardly any clouds at all, and no time to become sure.
    let (features, _) = clouds(&[30; 6], 8, 3.0, 4);
    let found = frozen(&ScanConfig { epochs: 1, ..ScanConfig::default() }, &features, 6);
    assert!(matches!(found.self_labelling, SelfLabelling::TooFewConfident(share) if share < 0.1));
    assert_eq!(found.assignment, found.before);
    let off = ScanConfig { self_label_epochs: 0, ..ScanConfig::default() };
    assert_eq!(frozen(&off, &features, 6).self_labelling, SelfLabelling::Off);
}

#[test]
fn more_clusters_than_classes_are_merged() {
    let (features, groups) = clouds(&[160, 80, 80, 160, 80], 16, 0.3, 2);
    let found = frozen(&ScanConfig::default(), &features, 12).assignment;
    assert_eq!(found.clusters(), 12);
    let merged = found.merged(&neighbours(&features, 20), 5);
    let accuracy = accuracy(&merged.labels(), &groups, 5, 5);
    assert!(accuracy > 0.95, "{accuracy}");
}

#[test]
fn an_interrupted_run_goes_on_to_the_same_numbers() {
    let (features, _) = clouds(&[40, 20, 20, 40], 8, 0.5, 3);
    let (copy, _) = clouds(&[40, 20, 20, 40], 8, 0.5, 3);
    let copies = [copy];
    let config = ScanConfig {
        epochs: 3,
        self_label_epochs: 2,
        batch: 50,
        heads: 2,
        checkpoint_every: 2,
        // Below the share of a cluster: every image teaches.
        confidence: 0.2,
        start: HeadStart::Random,
        ..ScanConfig::default()
    };
    let clothes = Clothes::new(60);
    let network = resnet();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let plain = embedding(&network, &clothes, &folder.path().join("features"));
    let views = ViewConfig::default();
    let whole = Learning::Whole {
        network: &network,
        cache: &clothes.cache,
        indices: &clothes.indices,
        views: &views,
    };
    for (name, features, learning) in
        [("frozen", &features, Learning::Frozen { copies: &copies }), ("whole", &plain, whole)]
    {
        let own = |part: &str| folder.path().join(name).join(part);
        let expected = learn(&config, features, 4, learning, &own("once"), false).expect("it runs");
        let mut interruptions = 0;
        let found = loop {
            match learn(&config, features, 4, learning, &own("parts"), true) {
                Err(LearnError::Cluster(ClusterError::Interrupted)) if interruptions < 50 => {
                    interruptions += 1
                }
                Err(other) => panic!("{other}"),
                Ok(found) => break found,
            }
        };
        // After every step but the last of each part: of 9 and 6, of 6 and 4.
        assert_eq!(interruptions, if name == "frozen" { 13 } else { 8 });
        assert_eq!(found.assignment, expected.assignment, "{name}");
        assert_eq!((found.losses, found.repaired), (expected.losses, expected.repaired), "{name}");
        assert_eq!(found.self_labelling, expected.self_labelling);
        assert!(matches!(found.self_labelling, SelfLabelling::Done | SelfLabelling::Undone));
        let weights = |network: &Option<Classifier>| network.as_ref().map(Classifier::to_tensors);
        assert_eq!(weights(&found.network), weights(&expected.network), "{name}");
        assert_eq!(found.network.is_some(), name == "whole");
    }
}

fn embedding(network: &Classifier, clothes: &Clothes, folder: &Path) -> Embedding {
    let (normalisation, stop) = (Normalisation::default(), AtomicBool::new(false));
    embed(network, &clothes.cache, &clothes.indices, &normalisation, folder, &stop, &Progress::hidden())
        .expect("it runs")
}

#[test]
fn a_network_learns_with_its_heads_and_the_one_given_stays() {
    let clothes = Clothes::new(64);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = ScanConfig { epochs: 2, self_label_epochs: 1, heads: 2, batch: 32, ..ScanConfig::default() };
    for network in [resnet(), vit()] {
        let before = network.to_tensors();
        let features = embedding(&network, &clothes, &folder.path().join("features"));
        let views = ViewConfig::default();
        let (cache, indices) = (&clothes.cache, &clothes.indices[..]);
        let learning = Learning::Whole { network: &network, cache, indices, views: &views };
        let own = folder.path().join(features.dim().to_string());
        let found = learn(&config, &features, 10, learning, &own, false).expect("it runs");
        assert_eq!(network.to_tensors(), before);
        assert_ne!(found.network.expect("it learned").to_tensors(), before);
        assert_eq!(found.assignment.len(), indices.len());
    }
}

#[test]
fn a_head_that_begins_at_random_repairs_emptied_clusters() {
    // Balance hardly counts, so that clusters empty.
    let (features, _) = clouds(&[80, 40, 40, 80, 40, 40], 12, 0.3, 5);
    let config =
        ScanConfig { start: HeadStart::Random, entropy_weight: 1.0, lr: Some(0.02), ..ScanConfig::default() };
    let found = frozen(&config, &features, 12);
    assert!(found.repaired > 0, "no cluster emptied");
    let few = ScanConfig { epochs: 1, self_label_epochs: 0, ..config };
    assert_eq!(frozen(&few, &features, 12).repaired, 0);
}

#[test]
fn there_is_a_result_where_there_is_nothing_to_find() {
    let config = ScanConfig { epochs: 3, self_label_epochs: 2, ..ScanConfig::default() };
    let (cloud, _) = clouds(&[40], 6, 0.1, 1);
    let equal = Embedding::new(vec![0.5; 30 * 4], 4).expect("finite");
    let zeros = Embedding::new(vec![0.0; 30 * 4], 4).expect("finite");
    let few = cloud.select(&[0, 1, 2]);
    let one = cloud.select(&[0]);
    for (what, rows) in
        [("one class", &cloud), ("equal", &equal), ("zeros", &zeros), ("few", &few), ("one", &one)]
    {
        for clusters in [1, 5] {
            for start in [HeadStart::KMeans, HeadStart::Random] {
                let config = ScanConfig { start, ..config.clone() };
                let found = frozen(&config, rows, clusters).assignment;
                assert_eq!(found.len(), rows.len(), "{what}");
                let sound = (0..found.len())
                    .all(|row| (found.probabilities(row).iter().sum::<f32>() - 1.0).abs() < 1e-4);
                assert!(sound, "{what} in {clusters}");
            }
        }
    }
    let none = Embedding::new(Vec::new(), 4).expect("no rows");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let error = learn(&config, &none, 3, Learning::Frozen { copies: &[] }, folder.path(), false);
    assert!(matches!(error, Err(LearnError::Cluster(ClusterError::Empty))));
}

#[test]
fn an_absurd_rate_is_said() {
    let (features, _) = clouds(&[40, 20, 20], 6, 0.3, 1);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = ScanConfig { lr: Some(f64::MAX), ..ScanConfig::default() };
    let error = learn(&config, &features, 3, Learning::Frozen { copies: &[] }, folder.path(), false)
        .expect_err("no such rate");
    let words = error.to_string();
    assert!(words.contains("SCAN") && words.contains("clustering.scan.lr"), "{words}");
}
