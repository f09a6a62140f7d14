//! The communicator, its ranks being threads of this process.

use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use harvest_collectives::nccl::{Nccl, NcclError, NcclOptions};
use harvest_collectives::{Bucket, CollectiveError, Communicator, HostBucket, Wire};

use super::{cuda, ends, nccl};

const SOON: Duration = Duration::from_secs(20);

/// From now on CUDA's driver is the stand-in: the loader knows a library that is there already by the name it was given.
fn stand_in_for_cuda() {
    static LOADED: OnceLock<()> = OnceLock::new();
    LOADED.get_or_init(|| {
        // SAFETY: it has no initialisers.
        let library = unsafe { libloading::Library::new(cuda()) }.expect("it was just made");
        std::mem::forget(library);
    });
}

fn options(rank: usize, world_size: usize) -> NcclOptions {
    NcclOptions { rank, world_size, device_index: 0, limit: SOON, operation_limit: SOON }
}

/// What `work` returns on each rank.
fn on_all<T: Send>(
    name: &str,
    world_size: usize,
    operation_limit: Duration,
    work: impl Fn(Nccl) -> T + Sync,
) -> (Vec<T>, (i32, i32)) {
    stand_in_for_cuda();
    let (library, file) = nccl(name, &["VERSION=22705"]);
    let id = library.unique_id().expect("made");
    let work = &work;
    let seen = thread::scope(|scope| {
        let ranks = (0..world_size).map(|rank| {
            let (library, options) = (library.clone(), options(rank, world_size));
            let options = NcclOptions { operation_limit, ..options };
            scope.spawn(move || work(Nccl::new(library, id, &options).expect("joined")))
        });
        let ranks: Vec<_> = ranks.collect();
        ranks.into_iter().map(|rank| rank.join().expect("the rank ends well")).collect()
    });
    (seen, ends(&file))
}

#[test]
fn sums_and_rows_are_those_of_all_ranks() {
    let (seen, ends) = on_all("sums", 3, SOON, |rank| {
        let number = rank.rank() as f32;
        let mut bucket = HostBucket::new(2, Wire::F32);
        bucket.local = vec![number, 1.0];
        let sum = rank.all_reduce_sum(Bucket::Host(bucket));
        // Rank 0 has none.
        let rows = rank.all_gather(vec![number; rank.rank()]);
        let said = rank.broadcast(vec![rank.rank() as u8; 3], 2);
        let nothing = rank.broadcast(Vec::new(), 0);
        let empty = rank.all_reduce_sum(Bucket::Host(HostBucket::default()));
        // Fetched in another order than begun.
        rank.barrier().wait().expect("all are there");
        assert_eq!(nothing.wait(), Ok(Vec::new()));
        empty.wait().expect("a sum of no numbers");
        let sum = sum.wait().and_then(Bucket::on_the_host).expect("summed").sum;
        let seen = (sum, rows.wait().expect("gathered"), said.wait().expect("said"));
        rank.finish();
        let after = rank.barrier().wait();
        assert!(matches!(after, Err(CollectiveError::Lost(_))), "{after:?}");
        seen
    });
    for (sum, rows, said) in seen {
        assert_eq!(sum, [3.0, 3.0]);
        assert_eq!(rows, [vec![], vec![1.0], vec![2.0; 2]]);
        assert_eq!(said, [2; 3]);
    }
    assert_eq!(ends, (0, 3), "all left in good order");
}

#[test]
fn ranks_that_do_not_do_the_same_are_told() {
    let (seen, _) = on_all("mismatch", 2, SOON, |rank| {
        let operation = match rank.rank() {
            0 => rank.all_gather(vec![1.0]).wait().map(drop),
            _ => rank.barrier().wait(),
        };
        let mut bucket = HostBucket::new(2 + rank.rank(), Wire::F32);
        bucket.local.fill(1.0);
        let lengths = rank.all_reduce_sum(Bucket::Host(bucket)).wait().map(drop);
        [operation, lengths]
    });
    for result in seen.concat() {
        assert!(matches!(result, Err(CollectiveError::Mismatch(_))), "{result:?}");
    }
}

#[test]
fn a_rank_that_stays_away_ends_in_an_error_and_not_in_a_hang() {
    let (seen, ends) = on_all("away", 2, Duration::from_millis(300), |rank| {
        if rank.rank() == 1 {
            thread::sleep(Duration::from_millis(900));
            return [Ok(()), Ok(())];
        }
        let (first, second) = (rank.barrier(), rank.all_gather(vec![1.0]));
        [first.wait(), second.wait().map(drop)]
    });
    let [first, second] = &seen[0];
    assert!(
        matches!(first, Err(CollectiveError::Lost(reason)) if reason.contains("not all ranks")),
        "{first:?}"
    );
    assert_eq!(first, second, "nothing is tried after that");
    assert!(ends.0 >= 1, "what was begun is given up");
}

#[test]
fn a_device_that_is_not_there_is_an_error() {
    stand_in_for_cuda();
    let (library, _) = nccl("device", &["VERSION=22705"]);
    let id = library.unique_id().expect("made");
    let error = Nccl::new(library, id, &NcclOptions { device_index: 7, ..options(0, 1) });
    let error = error.expect_err("there is one device");
    assert!(matches!(&error, NcclError::Cuda { reason } if reason.contains("INVALID_DEVICE")), "{error}");
}
