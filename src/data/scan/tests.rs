use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};

use image::ImageFormat;

use super::super::testing::{encode, gzip, idx_images, idx_labels, jpeg, noise, png};
use super::super::{ClassKind, Problem, Silent, SourceKind};
use super::*;

struct Place(tempfile::TempDir);

impl Place {
    fn new(files: &[(&str, Vec<u8>)]) -> Self {
        let place = Self(tempfile::tempdir().expect("temporary folder"));
        files.iter().for_each(|(path, bytes)| place.put(path, bytes));
        place
    }

    fn put(&self, path: &str, bytes: &[u8]) {
        let path = self.0.path().join(path);
        std::fs::create_dir_all(path.parent().expect("below the root")).expect("creates");
        std::fs::write(path, bytes).expect("writes");
    }

    fn scan_as(&self, kind: SourceKind, options: &ScanOptions<'_>) -> Result<Manifest, DataError> {
        let source = Source::of_kind(kind, self.0.path())?;
        scan(&source, options, &Silent, &AtomicBool::new(false))
    }

    fn scan(&self, kind: SourceKind) -> Result<Manifest, DataError> {
        self.scan_as(kind, &ScanOptions::default())
    }
}

fn picture(seed: u64) -> Vec<u8> {
    png(&noise(6, 5, seed))
}

fn paths(manifest: &Manifest) -> Vec<&str> {
    manifest.images.iter().map(|image| image.path.as_str()).collect()
}

fn labels(manifest: &Manifest) -> Vec<(&str, Option<u16>, Option<Part>)> {
    manifest.images.iter().map(|image| (image.path.as_str(), image.label, image.part)).collect()
}

#[test]
fn a_messy_folder_gives_its_pictures_and_a_table_of_the_rest() {
    let place = Place::new(&[
        ("b/deep/er/1.png", picture(1)),
        ("a.PNG", picture(2)),
        ("copy.bmp", encode(noise(6, 5, 1), ImageFormat::Bmp)),
        ("photo.jpg", jpeg(&noise(20, 10, 3))),
        ("cut.jpg", {
            let whole = jpeg(&noise(40, 40, 4));
            whole[..whole.len() / 2].to_vec()
        }),
        ("empty.png", vec![]),
        ("notes.txt", b"field notes".to_vec()),
        (".hidden.png", picture(5)),
        ("project/cache.png", picture(6)),
    ]);
    let options = ScanOptions { exclude: vec![place.0.path().join("project")], ..ScanOptions::default() };
    let manifest = place.scan_as(SourceKind::Folder, &options).expect("scans");
    assert_eq!(paths(&manifest), ["a.PNG", "b/deep/er/1.png", "copy.bmp", "photo.jpg"]);
    assert_eq!(manifest.images[2].duplicate_of, Some(1), "the same pixels in another format");
    assert_eq!((manifest.images[3].width, manifest.images[3].height), (20, 10));
    assert_eq!(manifest.hidden, 1);
    let aside: Vec<_> = manifest.set_aside.iter().map(|file| (file.path.as_str(), file.problem)).collect();
    assert_eq!(
        aside,
        [("cut.jpg", Problem::Truncated), ("empty.png", Problem::Empty), ("notes.txt", Problem::NotAnImage)]
    );
}

#[test]
fn folders_are_classes_and_divisions_parts() {
    let plain = Place::new(&[
        ("rust/1.png", picture(1)),
        ("healthy/x/2.png", picture(2)),
        ("broken/3.png", vec![]),
        ("loose.png", picture(4)),
    ]);
    let manifest = plain.scan(SourceKind::ClassFolders).expect("scans");
    assert_eq!(
        manifest.classes,
        ["broken", "healthy", "rust"],
        "a class keeps its place without usable images"
    );
    assert_eq!(
        labels(&manifest),
        [("healthy/x/2.png", Some(1), None), ("loose.png", None, None), ("rust/1.png", Some(2), None)]
    );

    let divided = Place::new(&[
        ("train/10/1.png", picture(1)),
        ("train/9/2.png", picture(2)),
        ("test/9/3.png", picture(3)),
        ("extra/4.png", picture(4)),
    ]);
    let manifest = divided.scan(SourceKind::ClassFolders).expect("scans");
    assert_eq!(manifest.classes, ["9", "10"], "numbers are ordered as numbers");
    assert_eq!(
        labels(&manifest),
        [
            ("extra/4.png", None, None),
            ("test/9/3.png", Some(0), Some(Part::Test)),
            ("train/10/1.png", Some(1), Some(Part::Train)),
            ("train/9/2.png", Some(0), Some(Part::Train)),
        ]
    );
    let classes = Classes::categorical(["9", "11"]).expect("valid");
    let error = divided
        .scan_as(SourceKind::ClassFolders, &ScanOptions { classes: Some(&classes), ..ScanOptions::default() })
        .expect_err("10 is no class");
    assert!(matches!(error, DataError::UnknownClassFolder { ref folder, .. } if folder == "10"), "{error}");
}

#[test]
fn a_table_labels_what_it_lists_or_a_whole_folder() {
    let place = Place::new(&[
        ("x/1.png", picture(1)),
        ("2, \"two\".png", picture(2)),
        ("unlisted.png", picture(3)),
        ("labels.csv", b"path,label,part\nx/1.png,rust,test\n\"2, \"\"two\"\".png\",healthy,\n".to_vec()),
    ]);
    let whole = place.scan(SourceKind::Csv).expect("scans");
    assert_eq!(whole.classes, ["healthy", "rust"]);
    assert_eq!(
        labels(&whole),
        [
            ("2, \"two\".png", Some(0), None),
            ("unlisted.png", None, None),
            ("x/1.png", Some(1), Some(Part::Test))
        ]
    );
    assert!(whole.set_aside.is_empty(), "the table itself is no failed picture");
    let listed = Source::Csv { file: place.0.path().join("labels.csv"), root: None };
    let listed = scan(&listed, &ScanOptions::default(), &Silent, &AtomicBool::new(false)).expect("scans");
    assert_eq!(paths(&listed), ["2, \"two\".png", "x/1.png"]);
}

#[test]
fn a_table_with_unknown_images_or_classes_is_refused_with_the_line() {
    let place = Place::new(&[("1.png", picture(1)), ("2.png", picture(2))]);
    let refused = |table: &str, classes: Option<&Classes>| {
        place.put("labels.csv", table.as_bytes());
        place
            .scan_as(SourceKind::Csv, &ScanOptions { classes, ..ScanOptions::default() })
            .expect_err("refused")
            .to_string()
    };
    let unknown = refused("path,label\n1.png,a\n3.png,b\n4.png,b\n", None);
    assert!(
        unknown.contains("line 3: there is no image `3.png`") && unknown.contains("1 more lines"),
        "{unknown}"
    );
    let classes = Classes::categorical(["rust", "healthy"]).expect("valid");
    let class = refused("path,label\n1.png,rust\n2.png,rsut\n", Some(&classes));
    assert!(class.contains("line 3: `rsut` is none of the classes (`rust`, `healthy`)"), "{class}");
    let two = refused("path,label\n1.png,a\n1.png,b\n", None);
    assert!(two.contains("`1.png` is `a` in line 2 and `b` in line 3"), "{two}");
}

#[test]
fn numbers_fall_into_percentage_bins() {
    let place = Place::new(&[
        ("1.png", picture(1)),
        ("2.png", picture(2)),
        ("labels.csv", b"path,label\n1.png,37.5\n2.png,100 %\n".to_vec()),
    ]);
    let bins = Classes::percentage(4).expect("valid");
    let options = ScanOptions { classes: Some(&bins), ..ScanOptions::default() };
    let manifest = place.scan_as(SourceKind::Csv, &options).expect("scans");
    assert_eq!(manifest.images.iter().map(|image| image.label).collect::<Vec<_>>(), [Some(1), Some(3)]);
    assert_eq!(manifest.classes, bins.names());
    assert_eq!(bins.kind(), ClassKind::Percentage { bins: 4 });
}

#[test]
fn idx_files_bring_labels_and_their_test_part() {
    let place = Place::new(&[
        ("train-images-idx3-ubyte.gz", gzip(&idx_images(3, 2, 4))),
        ("train-labels-idx1-ubyte.gz", gzip(&idx_labels(&[2, 0, 1]))),
        ("t10k-images-idx3-ubyte.gz", gzip(&idx_images(1, 2, 4))),
        ("t10k-labels-idx1-ubyte.gz", gzip(&idx_labels(&[2]))),
    ]);
    let manifest = place.scan(SourceKind::Idx).expect("scans");
    assert_eq!(manifest.classes, ["0", "1", "2"]);
    assert_eq!(
        labels(&manifest),
        [
            ("train-images-idx3-ubyte.gz#0", Some(2), Some(Part::Train)),
            ("train-images-idx3-ubyte.gz#1", Some(0), Some(Part::Train)),
            ("train-images-idx3-ubyte.gz#2", Some(1), Some(Part::Train)),
            ("t10k-images-idx3-ubyte.gz#0", Some(2), Some(Part::Test)),
        ]
    );
    assert_eq!(manifest.images[3].duplicate_of, Some(0));
    assert_eq!(manifest.full_path(3), manifest.root.join("t10k-images-idx3-ubyte.gz"));

    let two = Classes::categorical(["a", "b"]).expect("valid");
    let options = ScanOptions { classes: Some(&two), ..ScanOptions::default() };
    assert!(matches!(
        place.scan_as(SourceKind::Idx, &options),
        Err(DataError::Idx(IdxError::UnknownClass { position: 0, label: 2, .. }))
    ));
    place.put("t10k-labels-idx1-ubyte.gz", &gzip(&idx_labels(&[2, 2])));
    assert!(matches!(place.scan(SourceKind::Idx), Err(DataError::Idx(IdxError::Counts { .. }))));
}

#[test]
fn a_source_without_pictures_says_what_was_wrong_with_the_rest() {
    let empty = Place::new(&[]);
    assert!(empty.scan(SourceKind::Folder).expect_err("empty").to_string().contains("it holds no files"));
    assert!(matches!(empty.scan(SourceKind::ClassFolders), Err(DataError::NoClassFolders { .. })));
    assert!(matches!(empty.scan(SourceKind::Idx), Err(DataError::Idx(IdxError::None { .. }))));
    let useless = Place::new(&[("a.txt", b"x".to_vec())]);
    let error = useless.scan(SourceKind::Folder).expect_err("no picture").to_string();
    assert!(error.contains("1 files were set aside, the first: `a.txt`: this is not a picture"), "{error}");
    let gone = Source::Folder { root: empty.0.path().join("gone") };
    let error = scan(&gone, &ScanOptions::default(), &Silent, &AtomicBool::new(false)).expect_err("gone");
    assert!(matches!(error, DataError::Missing { .. }));
}

#[test]
fn a_second_scan_decodes_only_what_changed() {
    let place = Place::new(&[("1.png", picture(1)), ("2.png", picture(2)), ("3.png", picture(3))]);
    let first = place.scan(SourceKind::Folder).expect("scans");
    // A record that could only come from the earlier scan shows that it was taken over.
    let mut earlier = first.clone();
    earlier.images[0].hash = ContentHash([7; 32]);
    earlier.images[1].hash = ContentHash([8; 32]);
    earlier.images[1].modified_ns -= 1;
    place.put("3.png", &picture(30));
    let options = ScanOptions { previous: Some(&earlier), ..ScanOptions::default() };
    let second = place.scan_as(SourceKind::Folder, &options).expect("scans");
    assert_eq!(second.images[0].hash, ContentHash([7; 32]));
    assert_eq!(second.images[1].hash, first.images[1].hash);
    assert_eq!(second.images[2].hash, ContentHash::of(&noise(6, 5, 30)));
}

#[derive(Default)]
struct Recorded {
    done: AtomicU64,
    events: Mutex<Vec<String>>,
}

impl Progress for Recorded {
    fn start(&self, task: &str, total: u64) {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{task} {total}"));
    }
    fn advance(&self, images: u64) {
        self.done.fetch_add(images, Ordering::Relaxed);
    }
    fn note(&self, _message: &str) {}
    fn finish(&self) {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).push("finish".into());
    }
}

#[test]
fn progress_is_told_and_a_stop_is_heard() {
    let files: Vec<_> = (0..20).map(|seed| (format!("{seed}.png"), picture(seed))).collect();
    let files: Vec<_> = files.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect();
    let place = Place::new(&files);
    let source = Source::Folder { root: place.0.path().into() };
    let progress = Recorded::default();
    scan(&source, &ScanOptions::default(), &progress, &AtomicBool::new(false)).expect("scans");
    assert_eq!(progress.done.load(Ordering::Relaxed), 20);
    let stopped = scan(&source, &ScanOptions::default(), &progress, &AtomicBool::new(true));
    assert!(matches!(stopped, Err(DataError::Interrupted)));
    let events = progress.events.into_inner().expect("no thread panicked");
    assert_eq!(events, ["decoding images 20", "finish", "decoding images 20", "finish"]);
}

#[test]
fn the_result_does_not_depend_on_the_number_of_threads() {
    let files: Vec<_> = (0..40).map(|seed| (format!("{seed}.png"), picture(seed % 25))).collect();
    let files: Vec<_> = files.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect();
    let place = Place::new(&files);
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        pool.install(|| place.scan(SourceKind::Folder).expect("scans"))
    };
    assert_eq!(with(1), with(7));
}

#[cfg(target_os = "linux")]
#[test]
fn pipes_are_set_aside_and_do_not_hang() {
    let place = Place::new(&[("1.png", picture(1))]);
    let pipe = place.0.path().join("pipe.png");
    let made =
        std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo is part of every Linux");
    assert!(made.success());
    let manifest = place.scan(SourceKind::Folder).expect("scans");
    assert_eq!(manifest.set_aside[0].path, "pipe.png");
}
