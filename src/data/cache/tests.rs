use super::super::testing::{gzip, idx_images, noise, png};
use super::super::{ScanOptions, Silent, Source, scan};
use super::*;

const SIZE: u32 = 8;

struct Place {
    folder: tempfile::TempDir,
    manifest: Manifest,
}

impl Place {
    /// `count` pictures of different sizes, some of training size already.
    fn new(count: u64) -> Self {
        let folder = tempfile::tempdir().expect("temporary folder");
        let images = folder.path().join("images");
        fs::create_dir(&images).expect("creates");
        for seed in 0..count {
            let side = SIZE + (seed % 3) as u32 * 5;
            fs::write(images.join(format!("{seed:02}.png")), png(&noise(side, SIZE, seed))).expect("writes");
        }
        let manifest =
            scan(&Source::Folder { root: images }, &ScanOptions::default(), &Silent, &AtomicBool::new(false))
                .expect("scans");
        Self { folder, manifest }
    }

    fn cache(&self) -> PathBuf {
        self.folder.path().join("cache")
    }

    fn open(&self) -> Result<ImageCache, CacheError> {
        // Three images a shard.
        let options =
            CacheOptions { shard_bytes: u64::from(SIZE * SIZE * 3) * 3 + 1, ..CacheOptions::default() };
        ImageCache::open_or_build(
            &self.cache(),
            &self.manifest,
            SIZE,
            &options,
            &Silent,
            &AtomicBool::new(false),
        )
    }

    fn assert_right(&self, cache: &ImageCache) {
        assert_eq!((cache.len(), cache.size()), (self.manifest.images.len(), SIZE));
        for index in 0..cache.len() as u32 {
            let seed = u64::from(index);
            let image = fit(noise(SIZE + (seed % 3) as u32 * 5, SIZE, seed), SIZE);
            assert_eq!(cache.image(index), image.as_raw().as_slice(), "image {index}");
        }
        let kept: Vec<_> =
            fs::read_dir(self.cache()).expect("lists").flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(kept.len(), 2, "the lock and one cache, nothing half-built: {kept:?}");
    }
}

#[test]
fn images_come_back_in_order_from_several_shards() {
    let place = Place::new(8);
    let built = place.open().expect("builds");
    place.assert_right(&built);
    let shards = fs::read_dir(built.path()).expect("lists").count() - 1;
    assert_eq!(shards, 3);
    let modified =
        |cache: &ImageCache| fs::metadata(cache.path()).and_then(|data| data.modified()).expect("is there");
    let before = modified(&built);
    let opened = place.open().expect("opens");
    place.assert_right(&opened);
    assert_eq!(modified(&opened), before, "a good cache is not built again");
}

#[test]
fn damaged_caches_are_built_again() {
    let place = Place::new(8);
    let path = place.open().expect("builds").path().to_owned();
    let shard = path.join("shard-00001.u8");
    let index = path.join("index.json");
    let damages: [&dyn Fn(); 6] = [
        &|| {
            fs::OpenOptions::new()
                .write(true)
                .open(&shard)
                .and_then(|file| file.set_len(10))
                .expect("truncates")
        },
        &|| {
            let mut bytes = fs::read(&shard).expect("reads");
            bytes[100] ^= 1;
            fs::write(&shard, bytes).expect("writes");
        },
        &|| fs::remove_file(&shard).expect("removes"),
        &|| fs::write(&index, "{").expect("writes"),
        &|| fs::remove_file(&index).expect("removes"),
        &|| {
            let text = fs::read_to_string(&index).expect("reads");
            fs::write(&index, text.replace("\"version\": 1", "\"version\": 2")).expect("writes");
        },
    ];
    for damage in damages {
        damage();
        place.assert_right(&place.open().expect("builds again"));
    }
}

#[test]
fn other_sizes_and_other_images_have_caches_of_their_own() {
    let place = Place::new(4);
    let open = |manifest: &Manifest, size| {
        let options = CacheOptions::default();
        ImageCache::open_or_build(&place.cache(), manifest, size, &options, &Silent, &AtomicBool::new(false))
            .expect("builds")
    };
    let mut fewer = place.manifest.clone();
    fewer.images.remove(0);
    fewer.link_duplicates();
    let caches = [open(&place.manifest, 8), open(&place.manifest, 9), open(&fewer, 8)];
    assert_eq!(caches[2].image(0), caches[0].image(1));
    assert!(caches[0].path() != caches[1].path() && caches[0].path() != caches[2].path());
    // A cache put under another's name is found out.
    fs::remove_dir_all(caches[2].path()).expect("removes");
    fs::rename(caches[0].path(), caches[2].path()).expect("renames");
    assert_eq!(open(&fewer, 8).len(), 3);
}

#[test]
fn images_that_changed_since_the_scan_are_named_and_nothing_is_left() {
    let place = Place::new(4);
    let image = place.manifest.full_path(2);
    fs::write(&image, png(&noise(3, 3, 99))).expect("writes");
    assert!(matches!(place.open(), Err(CacheError::Changed { path }) if path == image));
    fs::write(&image, "no picture").expect("writes");
    assert!(matches!(place.open(), Err(CacheError::Image { .. })));
    fs::remove_file(&image).expect("removes");
    assert!(matches!(place.open(), Err(CacheError::Image { .. })));
    assert_eq!(fs::read_dir(place.cache()).expect("lists").count(), 1, "only the lock");
}

#[test]
fn a_stop_and_a_killed_builder_leave_nothing() {
    let place = Place::new(4);
    let stopped = ImageCache::open_or_build(
        &place.cache(),
        &place.manifest,
        SIZE,
        &CacheOptions::default(),
        &Silent,
        &AtomicBool::new(true),
    );
    assert!(matches!(stopped, Err(CacheError::Interrupted)));
    assert_eq!(fs::read_dir(place.cache()).expect("lists").count(), 1, "only the lock");
    fs::create_dir(place.cache().join(".building-killed")).expect("creates");
    place.assert_right(&place.open().expect("builds"));
}

#[test]
fn a_full_disk_is_told_with_what_is_needed() {
    let place = Place::new(4);
    let plan = Plan::new(&place.cache(), &place.manifest, SIZE, &CacheOptions::default()).expect("valid");
    let full = plan.write_shards(&CacheOptions::default(), &Silent, &AtomicBool::new(false), |_| Ok(Full));
    match full {
        Err(CacheError::DiskFull { needed_bytes, .. }) => assert_eq!(needed_bytes, 4 * 8 * 8 * 3),
        other => panic!("{other:?}"),
    }
    let words = plan.cannot_write("x".into(), std::io::ErrorKind::StorageFull.into()).to_string();
    assert!(words.contains("the disk is full") && words.contains("needs 1 MB"), "{words}");
}

struct Full;

impl Write for Full {
    fn write(&mut self, _bytes: &[u8]) -> std::io::Result<usize> {
        Err(std::io::ErrorKind::StorageFull.into())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Flushed for Full {
    fn flush_to_disk(&self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn an_unwritable_folder_and_a_senseless_size_are_refused() {
    let place = Place::new(2);
    fs::write(place.cache(), "a file in the way").expect("writes");
    assert!(matches!(place.open(), Err(CacheError::Write { .. })));
    let open = |size| {
        ImageCache::open_or_build(
            &place.cache(),
            &place.manifest,
            size,
            &CacheOptions::default(),
            &Silent,
            &AtomicBool::new(false),
        )
    };
    assert!(matches!(open(0), Err(CacheError::Size { size: 0 })));
    assert!(matches!(open(20_000), Err(CacheError::Size { size: 20_000 })));
}

#[test]
fn idx_images_are_cached_too() {
    let folder = tempfile::tempdir().expect("temporary folder");
    fs::write(folder.path().join("train-images-idx3-ubyte.gz"), gzip(&idx_images(3, 4, 4))).expect("writes");
    let source = Source::Idx { root: folder.path().into() };
    let stop = AtomicBool::new(false);
    let manifest = scan(&source, &ScanOptions::default(), &Silent, &stop).expect("scans");
    let cache = folder.path().join("cache");
    let cache = ImageCache::open_or_build(&cache, &manifest, 4, &CacheOptions::default(), &Silent, &stop)
        .expect("builds");
    assert_eq!(cache.image(1)[..6], [16, 16, 16, 17, 17, 17]);
}

#[test]
fn a_node_gets_one_copy_however_many_processes_ask() {
    let place = Place::new(8);
    let shared = place.open().expect("builds");
    let local = place.folder.path().join("node");
    let copy = || {
        let options = CacheOptions::default();
        shared.copied_to(&local, &place.manifest, &options, &Silent, &AtomicBool::new(false))
    };
    std::thread::scope(|scope| {
        let ranks: Vec<_> = (0..4).map(|_| scope.spawn(copy)).collect();
        for rank in ranks {
            let copied = rank.join().expect("no rank panics").expect("it can be copied");
            assert!(copied.path().starts_with(&local));
            (0..8).for_each(|index| assert_eq!(copied.image(index), shared.image(index)));
        }
    });
    let entries = || fs::read_dir(&local).expect("lists").flatten().count();
    assert_eq!(entries(), 2, "the lock and one copy");
    // A damaged copy is made again.
    let shard = copy().expect("opens").path().join(shard_name(1));
    fs::write(&shard, vec![0; fs::metadata(&shard).expect("is there").len() as usize]).expect("writes");
    let again = copy().expect("copies");
    (0..8).for_each(|index| assert_eq!(again.image(index), shared.image(index)));
    let stopped = AtomicBool::new(true);
    let elsewhere = place.folder.path().join("another");
    let refused = shared.copied_to(&elsewhere, &place.manifest, &CacheOptions::default(), &Silent, &stopped);
    assert!(matches!(refused, Err(CacheError::Interrupted)));
    assert_eq!(fs::read_dir(&elsewhere).expect("lists").flatten().count(), 1, "only the lock");
}
