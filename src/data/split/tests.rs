use std::collections::{BTreeSet, HashSet};

use proptest::prelude::*;

use super::super::testing::record;
use super::super::{ImageRecord, Source};
use super::*;

/// Rows of (content, label, part).
fn manifest(rows: &[(u64, Option<u16>, Option<Part>)], classes: usize) -> Manifest {
    let images = rows.iter().enumerate().map(|(index, &(content, label, part))| ImageRecord {
        label,
        part,
        ..record(&format!("{index}.png"), content)
    });
    let mut manifest = Manifest {
        source: Source::Folder { root: "/images".into() },
        root: "/images".into(),
        classes: (0..classes).map(|class| format!("class {class}")).collect(),
        images: images.collect(),
        set_aside: vec![],
        hidden: 0,
    };
    manifest.link_duplicates();
    manifest
}

fn contents(manifest: &Manifest, list: &[u32]) -> BTreeSet<ContentHash> {
    list.iter().map(|&index| manifest.images[index as usize].hash).collect()
}

/// `each` different images of each class, in turn.
fn balanced(classes: u16, each: u64) -> Vec<(u64, Option<u16>, Option<Part>)> {
    (0..u64::from(classes) * each).map(|i| (i, Some((i % u64::from(classes)) as u16), None)).collect()
}

fn arbitrary_rows() -> impl Strategy<Value = Vec<(u64, Option<u16>, Option<Part>)>> {
    let part = prop_oneof![8 => Just(None), 1 => Just(Some(Part::Train)), 1 => Just(Some(Part::Test))];
    prop::collection::vec((0u64..60, prop::option::weighted(0.7, 0u16..3), part), 20..150)
}

proptest! {
    #[test]
    fn every_image_is_in_one_place_and_copies_on_one_side(
        rows in arbitrary_rows(), seed: u64, labels in prop::option::of(1u32..4), shares in (0.0f64..0.9, 0.0f64..0.9),
    ) {
        let manifest = manifest(&rows, 3);
        let config =
            SplitConfig { labels_per_class: labels, evaluation_fraction: shares.0, test_fraction: shares.1, seed };
        let Ok(split) = Split::new(&manifest, &config) else { return Ok(()) };
        let mut all: Vec<u32> =
            [&split.unlabelled, &split.evaluation, &split.test, &split.left_out].into_iter().flatten().copied().collect();
        all.sort_unstable();
        prop_assert_eq!(all, (0..rows.len() as u32).collect::<Vec<_>>());

        let sides = [&split.unlabelled, &split.evaluation, &split.test].map(|list| contents(&manifest, list));
        prop_assert!(sides[0].is_disjoint(&sides[1]) && sides[0].is_disjoint(&sides[2]) && sides[1].is_disjoint(&sides[2]));
        prop_assert!(contents(&manifest, &split.labelled).is_subset(&sides[0]));
        prop_assert_eq!(contents(&manifest, &split.labelled).len(), split.labelled.len(), "labelled images are different");
        prop_assert!(split.unlabelled.iter().all(|&i| manifest.images[i as usize].part != Some(Part::Test)));
        for &index in split.labelled.iter().chain(&split.evaluation).chain(&split.test) {
            prop_assert!(manifest.images[index as usize].label.is_some());
        }
        let conflicting: HashSet<ContentHash> =
            split.conflicts.iter().map(|conflict| manifest.images[conflict.first as usize].hash).collect();
        for &index in split.labelled.iter().chain(&split.evaluation) {
            prop_assert!(!conflicting.contains(&manifest.images[index as usize].hash));
        }
        if let Some(labels) = labels {
            for class in 0..3 {
                let of_class = split.labelled.iter().chain(&split.evaluation)
                    .filter(|&&index| manifest.images[index as usize].label == Some(class)).count();
                prop_assert_eq!(of_class, labels as usize);
            }
        }
    }

    #[test]
    fn order_and_names_of_files_change_nothing(rows in arbitrary_rows(), seed: u64, shift in 0usize..150) {
        let config = SplitConfig { seed, labels_per_class: Some(2), ..SplitConfig::default() };
        let mut turned = rows.clone();
        turned.rotate_left(shift % rows.len());
        turned.reverse();
        let (here, there) = (manifest(&rows, 3), manifest(&turned, 3));
        match (Split::new(&here, &config), Split::new(&there, &config)) {
            (Ok(a), Ok(b)) => {
                for (one, other) in [
                    (&a.labelled, &b.labelled), (&a.evaluation, &b.evaluation),
                    (&a.test, &b.test), (&a.unlabelled, &b.unlabelled),
                ] {
                    prop_assert_eq!(contents(&here, one), contents(&there, other));
                }
            }
            (a, b) => prop_assert_eq!(a.err(), b.err()),
        }
    }
}

#[test]
fn each_class_gives_its_share() {
    let manifest = manifest(&balanced(3, 50), 3);
    let config = SplitConfig { labels_per_class: Some(10), ..SplitConfig::default() };
    let split = Split::new(&manifest, &config).expect("enough");
    let count = |list: &[u32], class| {
        list.iter().filter(|&&index| manifest.images[index as usize].label == Some(class)).count()
    };
    for class in 0..3 {
        assert_eq!(
            (count(&split.test, class), count(&split.evaluation, class), count(&split.labelled, class)),
            (10, 2, 8)
        );
    }
    assert_eq!(split.unlabelled.len(), 150 - 30 - 6);
    assert_ne!(
        split.labelled,
        Split::new(&manifest, &SplitConfig { seed: 1, ..config }).expect("enough").labelled
    );
}

#[test]
fn more_labels_keep_the_test_and_the_labels_there_were() {
    let manifest = manifest(&balanced(2, 60), 2);
    let with = |labels| {
        Split::new(&manifest, &SplitConfig { labels_per_class: Some(labels), ..SplitConfig::default() })
            .expect("enough")
    };
    let (few, many) = (with(5), with(20));
    assert_eq!(few.test, many.test);
    let used =
        |split: &Split| split.labelled.iter().chain(&split.evaluation).copied().collect::<BTreeSet<_>>();
    assert!(used(&few).is_subset(&used(&many)));
}

#[test]
fn a_test_part_of_the_source_stays_whole_and_its_copies_are_not_trained_on() {
    let mut rows = balanced(2, 10);
    rows.extend([
        (100, Some(0), Some(Part::Test)),
        (101, Some(1), Some(Part::Test)),
        (101, Some(1), Some(Part::Test)),
    ]);
    rows.extend([(100, Some(0), Some(Part::Train)), (102, None, Some(Part::Test))]);
    let manifest = manifest(&rows, 2);
    let split = Split::new(&manifest, &SplitConfig::default()).expect("enough");
    assert_eq!(split.test, [20, 21, 22]);
    assert_eq!(split.left_out, [23, 24]);
    assert_eq!(split.evaluation.len(), 4);
    assert_eq!(split.labelled.len(), 16);
}

#[test]
fn a_class_with_too_few_labels_is_named() {
    let mut rows = balanced(3, 5);
    rows.retain(|row| row.1 != Some(1) || row.0 < 5);
    let manifest = manifest(&rows, 3);
    let config = SplitConfig { labels_per_class: Some(4), test_fraction: 0.0, ..SplitConfig::default() };
    let error = Split::new(&manifest, &config).expect_err("two labels of class 1");
    assert_eq!(
        error.to_string(),
        "class `class 1` has 2 different labelled images, 4 are needed; label more of it or lower `labels_per_class`"
    );
    let all = SplitConfig { labels_per_class: Some(6), ..SplitConfig::default() };
    assert!(matches!(Split::new(&manifest, &all), Err(SplitError::TooFew { kept_for_test: 1, more: 2, .. })));
}

#[test]
fn wrong_configurations_are_refused() {
    let labelled = manifest(&balanced(2, 5), 2);
    let refused = |config| Split::new(&labelled, &config).expect_err("refused");
    let fraction = |value| refused(SplitConfig { test_fraction: value, ..SplitConfig::default() });
    assert!(matches!(fraction(1.0), SplitError::Fraction { name: "test_fraction", .. }));
    assert!(matches!(fraction(f64::NAN), SplitError::Fraction { .. }));
    let none = SplitConfig { labels_per_class: Some(0), ..SplitConfig::default() };
    assert_eq!(refused(none), SplitError::NoLabelsAsked);
    let unlabelled = manifest(&[(1, None, None)], 2);
    assert_eq!(Split::new(&unlabelled, &SplitConfig::default()), Err(SplitError::NoLabels));
}

#[test]
fn two_labels_of_one_picture_are_told_with_both_files() {
    let mut rows = balanced(2, 5);
    rows.push((0, Some(1), None));
    let manifest = manifest(&rows, 2);
    let split = Split::new(&manifest, &SplitConfig::default()).expect("enough");
    assert_eq!(split.conflicts, [Conflict { first: 0, second: 10 }]);
    assert_eq!(
        split.conflicts[0].describe(&manifest),
        "the same picture has two labels: `0.png` is labelled `class 0`, `10.png` is labelled `class 1`"
    );
    assert!([0, 10].iter().all(|index| split.unlabelled.contains(index) && !split.labelled.contains(index)));
}

#[test]
fn a_split_knows_its_images_and_survives_json() {
    let (ours, other) = (manifest(&balanced(2, 10), 2), manifest(&balanced(2, 11), 2));
    let split = Split::new(&ours, &SplitConfig::default()).expect("enough");
    let back: Split = serde_json::from_str(&serde_json::to_string(&split).expect("writes")).expect("reads");
    assert_eq!(back, split);
    assert_eq!(split.belongs_to(&ours), Ok(()));
    assert_eq!(split.belongs_to(&other), Err(SplitError::OtherManifest));
}

#[test]
fn near_duplicates_stay_on_one_side_and_keep_their_labels() {
    // Image 3 n + 1 is nearly image 3 n, image 3 n + 2 is alone.
    let rows: Vec<_> = (0..60).map(|i| (i, Some((i / 3 % 2) as u16), None)).collect();
    let manifest = manifest(&rows, 2);
    let first: Vec<u32> = (0..60).map(|i| if i % 3 == 1 { i - 1 } else { i }).collect();
    for labels_per_class in [None, Some(8)] {
        let config = SplitConfig { labels_per_class, ..SplitConfig::default() };
        let split = Split::grouped(&manifest, &first, &config).expect("enough");
        let groups = |list: &[u32]| list.iter().map(|i| first[*i as usize]).collect::<BTreeSet<u32>>();
        let sides = [&split.unlabelled, &split.evaluation, &split.test].map(|list| groups(list));
        assert!(
            sides[0].is_disjoint(&sides[1])
                && sides[0].is_disjoint(&sides[2])
                && sides[1].is_disjoint(&sides[2])
        );
        assert!(!split.left_out.is_empty(), "copies of test and evaluation images are used nowhere");
        let pairs = split.labelled.len() - groups(&split.labelled).len();
        assert_eq!(pairs > 0, labels_per_class.is_none(), "all labels are used where nobody counts them");
        let twice: BTreeSet<u32> = split.labelled.iter().copied().collect();
        assert_eq!(twice.len(), split.labelled.len());
    }
}

#[test]
fn near_duplicates_with_other_labels_are_no_conflict() {
    let manifest = manifest(&balanced(2, 10), 2);
    // Of every four, the second (of class 1) is nearly the first (of class 0).
    let first: Vec<u32> = (0..20).map(|i| if i % 4 == 1 { i - 1 } else { i }).collect();
    let split = Split::grouped(&manifest, &first, &SplitConfig::default()).expect("enough");
    assert!(split.conflicts.is_empty());
}
