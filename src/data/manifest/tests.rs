use super::*;
use crate::data::testing::record;
use proptest::prelude::*;

fn round_trip(manifest: &Manifest) -> Manifest {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("manifest.jsonl");
    manifest.write(&path).expect("writes");
    Manifest::read(&path).expect("reads")
}

fn example() -> Manifest {
    let mut manifest = Manifest {
        source: Source::Folder { root: "/images".into() },
        root: "/images".into(),
        classes: vec!["a,b".into(), "c\"d\n".into()],
        images: vec![record("x.png", 1), record("y, \"z\"\n.png", 2), record("ü/ﾄ.png", 1)],
        set_aside: vec![SetAside { path: "n\r\no".into(), problem: Problem::Empty, reason: "empty".into() }],
        hidden: 3,
    };
    manifest.images[1].label = Some(1);
    manifest.images[2].part = Some(Part::Test);
    manifest.link_duplicates();
    manifest
}

proptest! {
    #[test]
    fn any_names_survive_the_file(
        rows in prop::collection::vec((any::<String>(), 0u64..4, prop::option::of(0u16..3)), 0..20),
        aside in prop::collection::vec((any::<String>(), any::<String>()), 0..5),
        classes in prop::collection::vec(any::<String>(), 3..5),
    ) {
        let images = rows
            .into_iter()
            .map(|(path, content, label)| ImageRecord { label, ..record(&path, content) })
            .collect();
        let set_aside = aside
            .into_iter()
            .map(|(path, reason)| SetAside { path, problem: Problem::Damaged, reason })
            .collect();
        let mut manifest = Manifest { images, set_aside, classes, ..example() };
        manifest.link_duplicates();
        prop_assert_eq!(round_trip(&manifest), manifest);
    }
}

#[test]
fn duplicates_point_to_the_first() {
    let links: Vec<_> = example().images.iter().map(|image| image.duplicate_of).collect();
    assert_eq!(links, [None, None, Some(0)]);
}

#[test]
fn a_damaged_file_is_refused_with_its_line() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("manifest.jsonl");
    example().write(&path).expect("writes");
    let text = std::fs::read_to_string(&path).expect("reads");
    let read = |text: &str| {
        std::fs::write(&path, text).expect("writes");
        Manifest::read(&path).expect_err("damaged")
    };
    let cut = text.rfind("{").expect("lines");
    assert!(matches!(read(&text[..cut]), ManifestError::Line { line: 5, .. }));
    assert!(matches!(read(&text[..cut + 5]), ManifestError::Line { line: 5, .. }));
    assert!(matches!(read(&(text.clone() + "{}\n")), ManifestError::Line { line: 6, .. }));
    let label = text.replace("\"label\":1", "\"label\":2");
    assert!(matches!(read(&label), ManifestError::Line { line: 3, .. }));
    let link = text.replace("\"duplicate_of\":0", "\"duplicate_of\":1");
    assert!(matches!(read(&link), ManifestError::Line { line: 4, .. }));
    assert!(matches!(read("name,label\n"), ManifestError::Foreign { .. }));
    assert!(matches!(read(""), ManifestError::Foreign { .. }));
}

#[test]
fn an_unwritable_folder_is_an_error_and_leaves_the_old_file() {
    let missing = Path::new("/nonexistent-folder/manifest.jsonl");
    assert!(matches!(example().write(missing), Err(ManifestError::Write { .. })));
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("kept");
    std::fs::write(&path, "old").expect("writes");
    let failed = write_atomically(&path, |out| {
        out.write_all(b"new")?;
        Err(std::io::ErrorKind::StorageFull.into())
    });
    assert!(failed.is_err());
    assert_eq!(std::fs::read_to_string(&path).expect("reads"), "old");
    assert_eq!(std::fs::read_dir(folder.path()).expect("lists").count(), 1, "no temporary file is left");
}

#[test]
fn the_table_of_files_set_aside_is_csv() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("set_aside.csv");
    example().write_set_aside(&path).expect("writes");
    let text = std::fs::read_to_string(&path).expect("reads");
    assert_eq!(text, "path,problem,reason\n\"n\r\no\",empty,empty\n");
}

#[test]
fn what_a_run_learns_from_is_its_identity() {
    let known = example();
    let changed = |change: fn(&mut Manifest)| {
        let mut manifest = example();
        change(&mut manifest);
        manifest.identity() != known.identity()
    };
    // A folder that was touched or restored, and a note beside the images.
    assert!(!changed(|manifest| manifest.images[0].modified_ns += 1));
    assert!(!changed(|manifest| manifest.images[0].size_bytes += 1));
    assert!(!changed(|manifest| manifest.root = "/elsewhere".into()));
    assert!(!changed(|manifest| manifest.hidden += 1));
    assert!(!changed(|manifest| manifest.set_aside.clear()));

    assert!(changed(|manifest| manifest.images[0].label = Some(0)));
    assert!(changed(|manifest| manifest.images[0].part = Some(Part::Train)));
    assert!(changed(|manifest| manifest.images[0].path.push('x')));
    assert!(changed(|manifest| manifest.images[0].hash = manifest.images[1].hash));
    assert!(changed(|manifest| manifest.images.swap(0, 1)));
    assert!(changed(|manifest| drop(manifest.images.pop())));
    assert!(changed(|manifest| manifest.classes.swap(0, 1)));
}
