use std::path::Path;

use image::{Rgb, RgbImage};

use super::*;
use crate::data::{ScanOptions, Silent, Source, scan};

/// A picture of two colours, told apart by `number`.
fn picture(width: u32, height: u32, number: u8) -> RgbImage {
    RgbImage::from_fn(width, height, |x, _| match 2 * x < width {
        true => Rgb([220, number.wrapping_mul(37), 30]),
        false => Rgb([20, 40, number.wrapping_mul(53)]),
    })
}

fn scanned(root: &Path) -> Manifest {
    let stop = AtomicBool::new(false);
    let source = Source::Folder { root: root.to_owned() };
    scan(&source, &ScanOptions::default(), &Silent, &stop).expect("images are there")
}

fn made(manifest: &Manifest, folder: &Path) -> Made {
    make(manifest, folder, &Silent, &AtomicBool::new(false)).expect("writable")
}

fn sizes(thumbs: &Thumbs, manifest: &Manifest) -> Vec<(u32, u32)> {
    let size = |image: &ImageRecord| {
        let bytes = thumbs.get(&image.hash).expect("every image has a thumbnail");
        image::load_from_memory(&bytes).expect("a JPEG").into_rgb8().dimensions()
    };
    manifest.images.iter().map(size).collect()
}

/// JPEG and PNG, small and large, copies, and one lying on its side.
fn folder_of_pictures() -> tempfile::TempDir {
    use crate::data::testing::{jpeg, png, with_orientation};
    let folder = tempfile::tempdir().expect("temporary folder");
    let write =
        |name: &str, bytes: Vec<u8>| std::fs::write(folder.path().join(name), bytes).expect("writable");
    write("a-large.jpg", jpeg(&picture(1600, 1200, 1)));
    write("b-large.png", png(&picture(400, 800, 2)));
    write("c-small.jpg", jpeg(&picture(60, 40, 3)));
    write("d-copy.png", png(&picture(400, 800, 2)));
    write("e-turned.jpg", with_orientation(&jpeg(&picture(1600, 1200, 4)), 6));
    write("f-thin.png", png(&picture(3000, 2, 5)));
    folder
}

#[test]
fn thumbnails_are_upright_and_never_enlarged_and_made_once() {
    let images = folder_of_pictures();
    let manifest = scanned(images.path());
    let folder = tempfile::tempdir().expect("temporary folder");
    let first = made(&manifest, folder.path());
    assert_eq!((first.new, first.known, first.failed.len()), (5, 0, 0));
    let thumbs = Thumbs::open(folder.path()).expect("readable");
    let expected = [(192, 144), (96, 192), (60, 40), (96, 192), (144, 192), (192, 1)];
    assert_eq!(sizes(&thumbs, &manifest), expected);
    let again = made(&manifest, folder.path());
    assert_eq!((again.new, again.known), (0, 5));
    assert_eq!(thumbs.get(&ContentHash([7; 32])), None);
}

#[test]
fn a_file_that_shows_something_else_or_nothing_gets_no_thumbnail() {
    let images = folder_of_pictures();
    let manifest = scanned(images.path());
    std::fs::write(images.path().join("a-large.jpg"), crate::data::testing::jpeg(&picture(90, 90, 9)))
        .expect("writable");
    std::fs::write(images.path().join("b-large.png"), b"no picture").expect("writable");
    // The same picture with another time, as after copying the folder.
    let turned = std::fs::read(images.path().join("e-turned.jpg")).expect("readable");
    std::fs::write(images.path().join("e-turned.jpg"), turned).expect("writable");
    let folder = tempfile::tempdir().expect("temporary folder");
    let made = made(&manifest, folder.path());
    assert_eq!(made.new, 3);
    let failed: Vec<&str> = made.failed.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(failed, ["a-large.jpg", "b-large.png"]);
    assert!(made.failed[0].1.contains("scan again"), "{}", made.failed[0].1);
}

#[test]
fn images_of_idx_files_have_thumbnails_too() {
    use crate::data::testing::idx_images;
    let images = tempfile::tempdir().expect("temporary folder");
    std::fs::write(images.path().join("train-images-idx3-ubyte"), idx_images(3, 28, 20)).expect("writable");
    let source = Source::Idx { root: images.path().to_owned() };
    let stop = AtomicBool::new(false);
    let manifest = scan(&source, &ScanOptions::default(), &Silent, &stop).expect("readable");
    let folder = tempfile::tempdir().expect("temporary folder");
    assert_eq!(made(&manifest, folder.path()).failed, []);
    let thumbs = Thumbs::open(folder.path()).expect("readable");
    assert!(sizes(&thumbs, &manifest).into_iter().all(|size| size == (20, 28)));
}

#[test]
fn whatever_is_cut_off_is_made_again_and_the_rest_stays() {
    let images = folder_of_pictures();
    let manifest = scanned(images.path());
    let whole = tempfile::tempdir().expect("temporary folder");
    made(&manifest, whole.path());
    let read = |name: &str| std::fs::read(whole.path().join(name)).expect("readable");
    let (index, pack) = (read("index"), read("000000.pack"));
    let cuts = |length: usize| (0..=length).step_by(length / 23 + 1).chain([length]);
    let damaged = cuts(index.len())
        .map(|cut| (index[..cut].to_vec(), pack.clone()))
        .chain(cuts(pack.len()).map(|cut| (index.clone(), pack[..cut].to_vec())))
        // Written but not flushed before the power went.
        .chain([(index.iter().copied().chain([0; 100]).collect(), pack.clone())])
        .chain([(index.clone(), vec![0; pack.len()])]);
    for (index, pack) in damaged {
        let folder = tempfile::tempdir().expect("temporary folder");
        std::fs::write(folder.path().join("index"), &index).expect("writable");
        std::fs::write(folder.path().join("000000.pack"), &pack).expect("writable");
        let zeros = pack.iter().all(|byte| *byte == 0) && !pack.is_empty();
        let thumbs = Thumbs::open(folder.path()).expect("readable");
        // Nothing wrong is ever shown.
        for image in &manifest.images {
            if let Some(bytes) = thumbs.get(&image.hash) {
                image::load_from_memory(&bytes).expect("a JPEG");
            }
        }
        if zeros {
            continue; // as long as it should be: readers see it by the checksum
        }
        let again = made(&manifest, folder.path());
        assert_eq!(again.new + again.known, 5, "{} and {} bytes", index.len(), pack.len());
        sizes(&Thumbs::open(folder.path()).expect("readable"), &manifest);
    }
}

#[test]
fn a_reader_sees_what_is_made_meanwhile_and_an_interruption_keeps_what_is_made() {
    let images = folder_of_pictures();
    let manifest = scanned(images.path());
    let folder = tempfile::tempdir().expect("temporary folder");
    let thumbs = Thumbs::open(&folder.path().join("thumbs")).expect("none yet");
    assert!(thumbs.is_empty());
    let stopped = make(&manifest, &folder.path().join("thumbs"), &Silent, &AtomicBool::new(true));
    assert!(matches!(stopped, Err(ThumbError::Interrupted)));
    made(&manifest, &folder.path().join("thumbs"));
    std::thread::sleep(std::time::Duration::from_millis(600));
    sizes(&thumbs, &manifest);
    assert_eq!(thumbs.len(), 5);
}

#[test]
fn two_cannot_make_thumbnails_at_once_and_other_files_are_left_alone() {
    let images = folder_of_pictures();
    let manifest = scanned(images.path());
    let folder = tempfile::tempdir().expect("temporary folder");
    let writer = Writer::open(folder.path()).expect("writable");
    let second = make(&manifest, folder.path(), &Silent, &AtomicBool::new(false));
    assert!(matches!(second, Err(ThumbError::Lock(_))));
    drop(writer);
    std::fs::write(folder.path().join("index"), b"somebody else's file").expect("writable");
    let foreign = make(&manifest, folder.path(), &Silent, &AtomicBool::new(false));
    assert!(matches!(foreign, Err(ThumbError::Foreign { .. })));
    assert!(matches!(Thumbs::open(folder.path()), Err(ThumbError::Foreign { .. })));
}
