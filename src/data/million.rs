//! A million images go through every step after decoding. Times are printed, never asserted:
//! `cargo test --release a_million_images -- --nocapture`.

use std::time::Instant;

use super::testing::record;
use super::{ImageRecord, Manifest, Order, Sampler, Source, Split, SplitConfig};

#[test]
fn a_million_images_are_written_read_split_and_sampled() {
    const IMAGES: u64 = 1_000_000;
    const CLASSES: u64 = 20;
    let timed = |what: &str, since: Instant| println!("{what}: {:.2} s", since.elapsed().as_secs_f64());

    let images = (0..IMAGES).map(|i| ImageRecord {
        // One in a hundred is a copy of the one before; one in ten is labelled.
        label: (i % 10 == 0).then_some((i / 10 % CLASSES) as u16),
        ..record(
            &format!("field {}/row {}/IMG_{i:07}.jpg", i / 100_000, i / 1000 % 100),
            i - u64::from(i % 100 == 1),
        )
    });
    let mut manifest = Manifest {
        source: Source::Folder { root: "/images".into() },
        root: "/images".into(),
        classes: (0..CLASSES).map(|class| format!("class {class}")).collect(),
        images: images.collect(),
        set_aside: vec![],
        hidden: 0,
    };
    let start = Instant::now();
    manifest.link_duplicates();
    timed("link duplicates", start);

    let folder = tempfile::tempdir().expect("temporary folder");
    let file = folder.path().join("manifest.jsonl");
    let start = Instant::now();
    manifest.write(&file).expect("writes");
    timed("write", start);
    println!("{} MB", std::fs::metadata(&file).expect("is there").len() / 1_000_000);
    let start = Instant::now();
    assert!(Manifest::read(&file).expect("reads") == manifest);
    timed("read", start);

    let start = Instant::now();
    let config = SplitConfig { labels_per_class: Some(80), ..SplitConfig::default() };
    let split = Split::new(&manifest, &config).expect("enough labels");
    timed("split", start);
    assert_eq!(split.labelled.len() + split.evaluation.len(), 80 * CLASSES as usize);
    assert_eq!(split.test.len(), IMAGES as usize / 10 / 5);

    let start = Instant::now();
    let mut sampler = Sampler::new(split.unlabelled, Order::Unlabelled, 0).expect("not empty");
    let mut seen = vec![0u8; IMAGES as usize];
    let steps = 2 * sampler.epoch_len() as u64 / 448;
    for step in 0..steps {
        sampler.batch(step, 448).iter().for_each(|pick| seen[pick.index as usize] += 1);
    }
    timed("sample two epochs", start);
    assert!(seen.iter().all(|&times| times <= 2));
}
