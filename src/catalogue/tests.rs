use std::collections::{BTreeMap, BTreeSet, HashMap};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::bench::page::project::{write_grouping, write_run};
use crate::data::{ScanOptions, Silent, scan};
use crate::demo::leaves::{CLASSES, write_set};
use crate::experiment::{BELIEFS, RunPart};
use crate::project::ClusterRow;

/// Drawn leaves in a project, with clusters, beliefs and labels that follow from their numbers.
struct World {
    _folder: TempDir,
    manifest: Manifest,
    places: Places,
    catalogue: Catalogue,
    run: String,
}

const CLUSTERS: u32 = 5;

/// What the model is made to believe of image `number`.
fn belief(number: usize) -> (u16, f32, f32) {
    let confidence = 0.5 + (number * 7 % 40) as f32 / 100.0;
    ((number * 3 % CLASSES.len()) as u16, confidence, 1.0 - confidence)
}

fn part(number: usize) -> &'static str {
    ["train", "evaluation", "test", "unlabelled"][number % 4]
}

fn feature(number: usize) -> [f32; 2] {
    let angle = number as f32 * 0.05;
    [angle.cos(), angle.sin()]
}

fn world() -> World {
    let folder = tempfile::tempdir().expect("temporary folder");
    let root = folder.path().join("images");
    write_set(&root, 4, 1, 1, 24, |_, _| ()).expect("writable");
    // Copies of a picture, elsewhere.
    for name in ["copy one.png", "copy two.png"] {
        std::fs::copy(root.join("train/rust/00002.png"), root.join("train/rust").join(name))
            .expect("writable");
    }
    let stop = std::sync::atomic::AtomicBool::new(false);
    let source = Source::Folder { root };
    let manifest = scan(&source, &ScanOptions::default(), &Silent, &stop).expect("pictures are there");
    let places = Places {
        manifest: folder.path().join("images.jsonl"),
        cache: folder.path().join("cache"),
        runs: folder.path().join("runs"),
        project: Some(folder.path().to_owned()),
        frozen: None,
    };
    manifest.write(&places.manifest).expect("writable");
    let (rows, table) = found(&manifest);
    write_grouping(&places, &rows, |folder| {
        let values: Vec<f32> = (0..rows.len()).flat_map(feature).collect();
        let data = burn::tensor::TensorData::new(values, [rows.len(), 2]);
        let tensors = harvest_models::NamedTensors::from([("features".to_owned(), data)]);
        let file = folder.join("features.safetensors");
        harvest_models::write_safetensors(&file, &tensors, Default::default()).expect("writable");
        Ok(())
    })
    .expect("writable");
    let run = write_run(&places, &table).expect("writable");
    let catalogue = Catalogue::load(&places, labels(&manifest)).expect("all is there");
    World { _folder: folder, manifest, places, catalogue, run }
}

/// Clusters and beliefs.
fn found(manifest: &Manifest) -> (Vec<ClusterRow>, String) {
    let rows = manifest.images.iter().enumerate().map(|(number, image)| ClusterRow {
        path: image.path.clone(),
        hash: image.hash,
        cluster: number as u32 % CLUSTERS,
        confidence: 0.5 + (number % 7) as f32 / 20.0,
        first: if number % 10 == 3 { number as u32 - 1 } else { number as u32 },
        x: number as f32 / 50.0 - 0.5,
        y: 0.5 - number as f32 / 50.0,
    });
    let mut table = String::from("hash,part,class,confidence,second,second_confidence,abstained\n");
    for (number, image) in manifest.images.iter().enumerate() {
        // One in nine the run has not seen.
        if image.duplicate_of.is_none() && number % 9 != 0 {
            let (class, confidence, second) = belief(number);
            table += &format!("{},{},{class},{confidence},7,{second},false\n", image.hash, part(number));
        }
    }
    (rows.collect(), table)
}

fn given(number: usize) -> Option<Label> {
    match number % 6 {
        0 => Some(Label::Class((number % CLASSES.len()) as u16)),
        1 => Some(Label::NotSure),
        2 if number.is_multiple_of(4) => Some(Label::BadImage),
        2 => Some(Label::NoneOfThese),
        _ => None,
    }
}

fn labels(manifest: &Manifest) -> Vec<(ImageHash, Label)> {
    let firsts = manifest.images.iter().enumerate().filter(|(_, image)| image.duplicate_of.is_none());
    firsts.filter_map(|(number, image)| Some((image.hash.0, given(number)?))).collect()
}

impl World {
    /// Numbers of the images of a view.
    fn numbers(&self, query: &Query) -> Vec<usize> {
        let view = self.catalogue.view(query).expect("can be answered");
        let rows = self.catalogue.rows(&view.token, 0, usize::MAX).expect("just made");
        assert_eq!(rows.len(), view.total);
        let places: HashMap<&str, usize> = self
            .manifest
            .images
            .iter()
            .enumerate()
            .map(|(number, image)| (image.path.as_str(), number))
            .collect();
        rows.iter().map(|row| places[row.path]).collect()
    }

    fn firsts(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.manifest.images.len()).filter(|&number| self.manifest.images[number].duplicate_of.is_none())
    }

    fn ordered_by<K: PartialOrd + std::fmt::Debug>(&self, order: Order, key: impl Fn(usize) -> K) {
        let numbers = self.numbers(&Query { order, ..Query::default() });
        assert_eq!(numbers.len(), self.firsts().count(), "{order:?} leaves nothing out");
        for pair in numbers.windows(2) {
            let (before, after) = (key(pair[0]), key(pair[1]));
            assert!(before <= after, "{order:?}: {before:?} before {after:?}");
        }
    }

    fn known(&self, number: usize) -> Option<(u16, f32)> {
        (!number.is_multiple_of(9)).then(|| belief(number)).map(|(class, confidence, _)| (class, confidence))
    }
}

#[test]
fn every_filter_lets_through_what_it_says() {
    let world = world();
    let all: Vec<usize> = world.firsts().collect();
    let check = |query: Query, admits: &dyn Fn(usize) -> bool| {
        let wanted: Vec<usize> = all.iter().copied().filter(|&number| admits(number)).collect();
        assert!(!wanted.is_empty() && wanted.len() < all.len(), "{query:?} tells images apart");
        assert_eq!(world.numbers(&query), wanted, "{query:?}");
    };
    let q = Query::default;
    assert_eq!(world.numbers(&q()), all);
    let is = |label| Query { labels: vec![LabelFilter::Is(label)], ..q() };
    check(is(Label::Class(0)), &|n| given(n) == Some(Label::Class(0)));
    check(is(Label::NotSure), &|n| given(n) == Some(Label::NotSure));
    check(is(Label::BadImage), &|n| given(n) == Some(Label::BadImage));
    check(Query { labels: vec![LabelFilter::Unlabelled], ..q() }, &|n| given(n).is_none());
    let several = vec![LabelFilter::AnyClass, LabelFilter::Is(Label::NoneOfThese)];
    check(Query { labels: several, ..q() }, &|n| {
        matches!(given(n), Some(Label::Class(_) | Label::NoneOfThese))
    });
    check(Query { predicted: vec![3, 6], ..q() }, &|n| matches!(world.known(n), Some((3 | 6, _))));
    check(Query { clusters: vec![1, 4], ..q() }, &|n| [1, 4].contains(&(n as u32 % CLUSTERS)));
    check(Query { min: Some(0.6), max: Some(0.7), ..q() }, &|n| {
        world.known(n).is_some_and(|(_, confidence)| (0.6..=0.7).contains(&confidence))
    });
    for word in ["train", "evaluation", "test", "unlabelled"] {
        let query = Query { part: RunPart::named(word), ..q() };
        check(query, &|n| n % 9 != 0 && part(n) == word);
    }
    let path = |n: usize| &world.manifest.images[n].path;
    check(Query { folder: Some("train".into()), ..q() }, &|n| path(n).starts_with("train/"));
    check(Query { folder: Some("train/rust/".into()), ..q() }, &|n| path(n).starts_with("train/rust/"));
    check(Query { text: Some("RUST/0000".into()), ..q() }, &|n| path(n).contains("rust/0000"));
    check(Query { within: Some([0.1, 0.5, -0.2, -0.5]), ..q() }, &|n| {
        (-0.2..=0.1).contains(&(n as f32 / 50.0 - 0.5))
    });
    assert_eq!(world.numbers(&Query { folder: Some("tra".into()), ..q() }), [0; 0], "half a name is none");
}

#[test]
fn copies_are_shown_once_unless_asked_for_and_share_their_label() {
    let world = world();
    let all = world.numbers(&Query { copies: Copies::All, ..Query::default() });
    assert_eq!(all.len(), world.manifest.images.len());
    let only = Query { copies: Copies::Only, ..Query::default() };
    assert_eq!(world.numbers(&only).len(), 3);
    let view = world.catalogue.view(&only).expect("all is there");
    let hashes = world.catalogue.hashes(&view.token, 0, 99).expect("just made");
    assert_eq!(hashes.len(), 1, "one picture");
    world.catalogue.set_labels(&[(hashes[0], Some(Label::Class(2)))]);
    let rows = world.catalogue.rows(&view.token, 0, 9).expect("just made");
    assert!(rows.iter().all(|row| row.label == Some(Label::Class(2)) && row.copies == 2));
    let (summary, distinct) = (world.catalogue.summary(), world.firsts().count());
    assert_eq!((summary.images, summary.distinct), (distinct + 2, distinct));
}

#[test]
fn every_order_is_what_it_says() {
    let world = world();
    let last = |class: Option<u16>| class.map_or(99, u32::from);
    world.ordered_by(Order::Path, |n| n);
    world.ordered_by(Order::Unlabelled, |n| (given(n).is_some(), n));
    world.ordered_by(Order::Class, |n| match given(n) {
        Some(Label::Class(id)) => (u32::from(id), n),
        Some(Label::NotSure) => (100, n),
        Some(Label::NoneOfThese) => (101, n),
        Some(Label::BadImage) => (102, n),
        None => (103, n),
    });
    world.ordered_by(Order::Predicted, |n| {
        (last(world.known(n).map(|(class, _)| class)), world.known(n).map_or(0.0, |(_, c)| -c))
    });
    world.ordered_by(Order::Confidence, |n| world.known(n).map_or(2.0, |(_, confidence)| confidence));
    world.ordered_by(Order::Sure, |n| world.known(n).map_or(2.0, |(_, confidence)| -confidence));
    world.ordered_by(Order::Cluster, |n| (n as u32 % CLUSTERS, -((n % 7) as i32)));
    let folder = |n: usize| {
        let path = &world.manifest.images[n].path;
        path.rsplit_once('/').map_or(String::new(), |(folder, _)| folder.to_owned())
    };
    world.ordered_by(Order::Folder, |n| (folder(n), n));
    world.ordered_by(Order::Date, |n| world.manifest.images[n].modified_ns);
    world.ordered_by(Order::Newest, |n| -world.manifest.images[n].modified_ns);
    let classes = vec![5, 2];
    let shown = world.numbers(&Query { order: Order::Class, classes, ..Query::default() });
    let first: Vec<_> = shown.iter().filter_map(|&n| given(n)?.class()).collect();
    let rank =
        |class: &u16| [5, 2].iter().position(|shown| shown == class).unwrap_or(2 + usize::from(*class));
    assert!(first.is_sorted_by_key(rank), "as displayed: {first:?}");
}

#[test]
fn duplicates_stand_together_and_before_all_others() {
    let world = world();
    let numbers = world.numbers(&Query { order: Order::Duplicates, copies: Copies::All, ..Query::default() });
    let first = |n: usize| world.manifest.images[n].duplicate_of.map_or(n, |first| first as usize);
    let group = |n: usize| if first(n) % 10 == 3 { first(first(n) - 1) } else { first(n) };
    let mut sizes = BTreeMap::<usize, usize>::new();
    numbers.iter().for_each(|&n| *sizes.entry(group(n)).or_default() += 1);
    let groups: Vec<usize> = numbers.iter().map(|&n| group(n)).collect();
    let runs = groups.chunk_by(|a, b| a == b).count();
    assert_eq!(runs, sizes.len(), "each group is in one place");
    assert!(groups.is_sorted_by_key(|group| sizes[group] == 1), "single ones last: {groups:?}");
}

#[test]
fn disagreements_are_between_a_label_and_a_confident_model() {
    let world = world();
    let numbers = world.numbers(&Query { order: Order::Disagreement, ..Query::default() });
    assert!(!numbers.is_empty());
    for &n in &numbers {
        let label = given(n).and_then(Label::class).expect("labelled");
        assert!(world.known(n).is_some_and(|(class, _)| class != label));
    }
    assert!(numbers.is_sorted_by_key(|&n| world.known(n).map(|(_, confidence)| (-1e4 * confidence) as i32)));
    let agreeing = world.firsts().filter(|&n| {
        given(n).and_then(Label::class).zip(world.known(n)).is_some_and(|(label, (class, _))| label == class)
    });
    assert!(agreeing.into_iter().all(|n| !numbers.contains(&n)));
}

#[test]
fn doubt_takes_turns_over_classes_and_shows_nothing_twice() {
    let world = world();
    let numbers = world.numbers(&Query { order: Order::Doubt, ..Query::default() });
    assert_eq!(numbers.len(), world.firsts().count());
    let labelled = numbers.iter().position(|&n| given(n).is_some()).expect("some are");
    assert!(numbers[labelled..].iter().all(|&n| given(n).is_some()), "what has a label helps least");
    // The first round: one image of each class, the narrowest of all that were not labelled. What is nearly the same as one
    // before comes after all rounds.
    let mut pairs = BTreeSet::new();
    let is_new = |number: &usize| !matches!(number % 10, 2 | 3) || pairs.insert(number / 10);
    let open: Vec<usize> = numbers[..labelled].iter().copied().filter(is_new).collect();
    let kinds: BTreeSet<_> = open.iter().filter_map(|&n| world.known(n).map(|(class, _)| class)).collect();
    let round: BTreeSet<_> =
        open.iter().filter_map(|&n| world.known(n).map(|(class, _)| class)).take(kinds.len()).collect();
    assert_eq!(round, kinds);
    let narrowest = open.iter().filter_map(|&n| world.known(n)).map(|(_, c)| c).fold(1.0, f32::min);
    assert_eq!(world.known(open[0]).map(|(_, confidence)| confidence), Some(narrowest));
}

#[test]
fn like_images_come_by_the_product_of_their_features() {
    let world = world();
    let like = world.manifest.images[9].hash;
    let numbers = world.numbers(&Query { order: Order::Similar, like: Some(like), ..Query::default() });
    assert_eq!(numbers[0], 9);
    let product = |n: usize| feature(n)[0] * feature(9)[0] + feature(n)[1] * feature(9)[1];
    for pair in numbers.windows(2) {
        assert!(product(pair[0]) >= product(pair[1]) - 1e-6, "{pair:?}");
    }
    let stranger = Query { order: Order::Similar, like: Some(ContentHash([9; 32])), ..Query::default() };
    assert!(matches!(world.catalogue.view(&stranger), Err(CatalogueError::NotGrouped)));
}

#[test]
fn a_view_stays_as_it_was_while_its_labels_change() {
    let world = world();
    let open = Query { labels: vec![LabelFilter::Unlabelled], ..Query::default() };
    let view = world.catalogue.view(&open).expect("all is there");
    assert_eq!(world.catalogue.view(&open).expect("the same").token, view.token);
    let before = world.numbers(&open);
    let hashes = world.catalogue.hashes(&view.token, 2, 5).expect("just made");
    let version = world
        .catalogue
        .set_labels(&hashes.iter().map(|hash| (*hash, Some(Label::NotSure))).collect::<Vec<_>>());
    assert!(version > view.version && world.catalogue.version() == version);
    let rows = world.catalogue.rows(&view.token, 0, 99).expect("still there");
    assert_eq!(rows.len(), before.len());
    let marked: Vec<usize> = (0..rows.len()).filter(|&at| rows[at].label.is_some()).collect();
    assert_eq!(marked, [2, 3, 4]);
    assert_eq!(world.catalogue.locate(&view.token, &hashes[1]), Some(Some(3)));
    assert_eq!(world.catalogue.locate(&view.token, &[8; 32]), Some(None));
    assert_eq!(world.catalogue.locate("nothing", &hashes[1]), None);
    let now = world.catalogue.view(&open).expect("all is there");
    assert!(now.token != view.token && now.total + 3 == view.total);
    assert_eq!(
        world.catalogue.hashes_in_cluster(&view.token, 2).expect("still there").len(),
        before.iter().filter(|&&n| n % 5 == 2).count()
    );
}

#[test]
fn views_make_room_for_others_and_say_so() {
    let world = world();
    let narrow = |least: usize| Query { min: Some(least as f32 / 1e4), ..Query::default() };
    let first = world.catalogue.view(&narrow(0)).expect("all is there").token;
    for least in 1..600 {
        world.catalogue.view(&narrow(least)).expect("all is there");
    }
    assert!(world.catalogue.rows(&first, 0, 1).is_none());
}

#[test]
fn what_is_not_there_is_asked_for_in_words() {
    let World { manifest, places, catalogue, run, .. } = &world();
    let error =
        |catalogue: &Catalogue, query: Query| catalogue.view(&query).expect_err("missing").to_string();
    let run_query = |run: &str| Query { run: Some(run.into()), order: Order::Sure, ..Query::default() };
    catalogue.view(&run_query(run)).expect("that is its name");
    for stranger in ["", ".", "..", "../runs", "a/b", "nothing"] {
        assert!(error(catalogue, run_query(stranger)).contains("has left no predictions"));
    }
    std::fs::remove_dir_all(&places.runs).expect("was there");
    std::fs::remove_dir_all(places.clusters()).expect("was there");
    let bare = Catalogue::load(places, []).expect("a list is enough");
    assert!(error(&bare, Query { order: Order::Sure, ..Query::default() }).contains("train first"));
    assert!(error(&bare, Query { order: Order::Doubt, ..Query::default() }).contains("train first"));
    assert!(error(&bare, Query { order: Order::Cluster, ..Query::default() }).contains("run clustering"));
    assert!(error(&bare, Query { order: Order::Similar, ..Query::default() }).contains("run clustering"));
    assert_eq!(bare.summary().counts.unlabelled, manifest.images.len() - 2);
    std::fs::remove_file(&places.manifest).expect("was there");
    assert_eq!(Catalogue::load(places, []).expect("not scanned yet").summary().images, 0);
}

#[test]
fn damaged_tables_are_left_out_with_a_note() {
    let World { places, run, manifest, .. } = &world();
    let file = places.runs.join(run).join(BELIEFS);
    for (text, words) in [
        ("hash,class\n", "its first line is not"),
        (
            "hash,part,class,confidence,second,second_confidence,abstained\nzz,test,1,0.5,0,0.1,false\n",
            "line 2",
        ),
        ("hash,part,class,confidence,second,second_confidence,abstained\nx,y\n", "line 2"),
    ] {
        std::fs::write(&file, text).expect("writable");
        let catalogue = Catalogue::load(places, []).expect("the images are there");
        let summary = catalogue.summary();
        assert!(summary.run.is_none() && summary.notes[0].contains(words), "{:?}", summary.notes);
        assert!(summary.grouped);
    }
    // Made good by another training.
    let catalogue = Catalogue::load(places, []).expect("the images are there");
    std::fs::write(&file, found(manifest).1).expect("writable");
    catalogue.refresh();
    assert_eq!(catalogue.summary().notes, [""; 0]);
}

#[test]
fn the_map_shows_the_same_choice_each_time() {
    let world = world();
    let all = world.catalogue.map(20_000);
    assert_eq!(all.len(), world.firsts().count());
    let some = world.catalogue.map(7);
    assert_eq!((some.len(), &some), (7, &world.catalogue.map(7)));
    assert!(some.iter().all(|point| all.contains(point)));
}

#[test]
fn folders_and_clusters_are_counted() {
    let world = world();
    let summary = world.catalogue.summary();
    assert_eq!(summary.clusters.iter().map(|(_, count)| count).sum::<usize>(), world.firsts().count());
    assert!(summary.folders.contains(&("train/rust".into(), 4)), "{:?}", summary.folders);
    assert_eq!(summary.folders.iter().map(|(_, count)| count).sum::<usize>(), world.firsts().count());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn counts_are_those_of_the_labels(changes in prop::collection::vec((0usize..60, 0u16..9), 0..300), first in 0usize..3) {
        thread_local!(static WORLD: World = world());
        WORLD.with(|world| {
            let catalogue = Catalogue::load(&world.places, labels(&world.manifest)).expect("all is there");
            let mut current: BTreeMap<ImageHash, Label> = labels(&world.manifest).into_iter().collect();
            let label = |code: u16| match code {
                0..5 => Some(Label::Class(code)),
                5 => Some(Label::NotSure),
                6 => Some(Label::NoneOfThese),
                7 => Some(Label::BadImage),
                _ => None,
            };
            for (turn, step) in changes.chunks(first + 1).enumerate() {
                let step: Vec<(ImageHash, Option<Label>)> = step.iter().map(|&(image, code)| {
                    // Some are of no image of the list.
                    let hash = world.manifest.images.get(image).map_or([image as u8; 32], |image| image.hash.0);
                    (hash, label(code))
                }).collect();
                for (hash, label) in step.iter().filter(|(hash, _)| catalogue.knows(hash)) {
                    match label {
                        Some(label) => current.insert(*hash, *label),
                        None => current.remove(hash),
                    };
                }
                assert_eq!(catalogue.set_labels(&step), turn as u64 + 1);
            }
            let counts = catalogue.summary().counts;
            let mut expected = Counts { unlabelled: world.firsts().count() - current.len(), ..Counts::default() };
            for label in current.values() {
                match label {
                    Label::Class(id) => *expected.classes.entry(*id).or_default() += 1,
                    Label::NotSure => expected.not_sure += 1,
                    Label::NoneOfThese => expected.none += 1,
                    Label::BadImage => expected.bad += 1,
                }
            }
            assert_eq!(counts, expected);
            assert!(world.manifest.images.iter().all(|image| catalogue.label(&image.hash.0) == current.get(&image.hash.0).copied()));
        });
    }
}

#[test]
fn many_who_label_and_look_at_once_do_not_disturb_each_other() {
    let world = world();
    let hashes: Vec<ImageHash> = world.firsts().map(|n| world.manifest.images[n].hash.0).collect();
    std::thread::scope(|scope| {
        for (person, own) in hashes.chunks(5).enumerate() {
            let catalogue = &world.catalogue;
            scope.spawn(move || {
                for turn in 0..200u16 {
                    let label = Some(Label::Class((turn + person as u16) % 8));
                    catalogue.set_labels(&own.iter().map(|hash| (*hash, label)).collect::<Vec<_>>());
                    assert_eq!(catalogue.label(&own[0]), label);
                    let view = catalogue
                        .view(&Query { order: Order::Class, ..Query::default() })
                        .expect("all is there");
                    assert_eq!(view.total, hashes_in(catalogue));
                }
            });
        }
    });
    assert_eq!(world.catalogue.summary().counts.labelled(), hashes.len());
    assert_eq!(world.catalogue.version(), 200 * hashes.len().div_ceil(5) as u64);
}

fn hashes_in(catalogue: &Catalogue) -> usize {
    catalogue.summary().distinct
}
