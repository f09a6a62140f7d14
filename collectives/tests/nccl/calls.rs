//! Loading the library, and its calls.

use std::path::Path;
use std::ptr::null_mut;
use std::time::{Duration, Instant};

use harvest_collectives::nccl::{Comm, DataType, Library, NcclError, UniqueId, Version};

use super::{compile, ends, nccl};

const SOON: Duration = Duration::from_secs(20);

#[test]
fn a_rank_of_one_joins_sums_and_leaves() {
    let (library, file) = nccl("one", &["VERSION=22705"]);
    assert_eq!(library.version().to_string(), "2.27.5");
    assert_eq!(library.path(), file);
    let id = library.unique_id().expect("made");
    let id = UniqueId::from_bytes(&id.to_bytes()).expect("128 bytes");
    let comm = Comm::join(library, id, 1, 0, SOON).expect("joined");
    let mut numbers = [1.0f32, 2.0, 3.0];
    let mut all = [0.0f32; 3];
    let (own, to) = (numbers.as_mut_ptr() as u64, all.as_mut_ptr() as u64);
    // SAFETY: the stand-in uses the host's memory, three numbers of it, and is done when it returns.
    unsafe {
        comm.all_reduce(own, 3, DataType::F32, null_mut()).expect("summed");
        comm.all_gather(own, to, 3, DataType::F32, null_mut()).expect("gathered");
        comm.broadcast(own, 3, DataType::F32, 0, null_mut()).expect("said");
        let refused = comm.broadcast(own, 3, DataType::F32, 1, null_mut()).expect_err("there is no rank 1");
        assert_eq!(refused.to_string(), "ncclBroadcast: invalid usage (socket closed)");
    }
    assert_eq!((numbers, all), ([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]));
    comm.leave().expect("left");
    assert_eq!(ends(&file), (0, 1));
}

#[test]
fn a_rank_that_waits_alone_gives_up() {
    let (library, file) = nccl("alone", &["VERSION=21805"]);
    let id = library.unique_id().expect("made");
    let since = Instant::now();
    let limit = Duration::from_millis(300);
    let error = Comm::join(library, id, 2, 1, limit).expect_err("nobody else comes");
    assert_eq!(error, NcclError::Timeout { function: "ncclCommInitRankConfig", limit });
    assert!(since.elapsed() >= limit && since.elapsed() < SOON, "{:?}", since.elapsed());
    assert_eq!(ends(&file), (1, 0), "what it had begun is given up");
}

#[test]
fn a_rank_that_goes_is_an_error_with_the_librarys_words() {
    let (library, file) = nccl("gone", &["VERSION=22705", "GONE"]);
    let id = library.unique_id().expect("made");
    let error = Comm::join(library, id, 2, 0, SOON).expect_err("the other rank is gone");
    assert_eq!(error.to_string(), "ncclCommInitRankConfig: remote process exited (socket closed)");
    assert_eq!(ends(&file), (1, 0));
}

#[test]
fn what_is_no_library_or_too_old_is_named() {
    let old = compile("fake.c", "old", &["VERSION=21304", "OLD"]);
    let error = Library::open(&old).expect_err("it lacks a function").to_string();
    assert!(error.contains("libold.so") && error.contains("ncclCommInitRankConfig"), "{error}");
    let none = Library::open(Path::new("/nowhere/libnccl.so.2")).expect_err("no file").to_string();
    assert!(none.contains("/nowhere/libnccl.so.2"), "{none}");
    let text = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    assert!(matches!(Library::open(&text), Err(NcclError::Unloadable { path, .. }) if path == text));
}

#[test]
fn ranks_and_ids_that_cannot_be_are_refused() {
    let (library, _) = nccl("numbers", &["VERSION=2703"]);
    assert_eq!(library.version(), Version { major: 2, minor: 7, patch: 3 });
    let id = library.unique_id().expect("made");
    assert_eq!(id.to_string().parse(), Ok(id));
    assert_eq!("07".repeat(64).parse::<UniqueId>(), Err(NcclError::Id { found: 64 }));
    assert_eq!(UniqueId::from_bytes(&[7; 127]), Err(NcclError::Id { found: 127 }));
    let error = Comm::join(library, id, 2, 2, SOON).expect_err("there is no such rank");
    assert_eq!(error, NcclError::Rank { rank: 2, world_size: 2 });
}
