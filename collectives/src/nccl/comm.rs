//! NCCL's calls, made so that none waits for ever.

#![expect(unsafe_code, reason = "calls into a C library")]

use std::ffi::{CStr, OsStr, c_int, c_void};
use std::ptr::null_mut;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::error::NcclError;
use super::library::{Library, UniqueId};
use super::sys::{Config, DataType, Functions, IN_PROGRESS, RawComm, RawId, RawStream, SUCCESS, SUM};

/// Opens a library, whose start-up code then runs.
pub(super) fn open(file: &OsStr) -> Result<libloading::Library, libloading::Error> {
    // SAFETY: loading runs the library's initialisers. NCCL's set up tables of its own; a file that claims to be NCCL and
    // does worse was named by the user or installed by root.
    unsafe { libloading::Library::new(file) }
}

/// The version as NCCL's number.
pub(super) fn version(functions: &Functions) -> Result<u32, NcclError> {
    let mut number: c_int = 0;
    // SAFETY: writes one int.
    let code = unsafe { (functions.version)(&raw mut number) };
    check(functions, "ncclGetVersion", null_mut(), code)?;
    Ok(number.unsigned_abs())
}

pub(super) fn unique_id(functions: &Functions) -> Result<RawId, NcclError> {
    let mut id = RawId([0; 128]);
    // SAFETY: writes 128 bytes.
    let code = unsafe { (functions.unique_id)(&raw mut id) };
    check(functions, "ncclGetUniqueId", null_mut(), code)?;
    Ok(id)
}

/// `code` as an error with NCCL's words, unless it says success.
fn check(functions: &Functions, function: &'static str, comm: RawComm, code: c_int) -> Result<(), NcclError> {
    if code == SUCCESS {
        return Ok(());
    }
    let text = |text: *const std::ffi::c_char| match text.is_null() {
        true => String::new(),
        // SAFETY: both functions return a text with a zero at its end that stays until the next error; it is copied here.
        false => unsafe { CStr::from_ptr(text) }.to_string_lossy().trim().to_owned(),
    };
    // SAFETY: takes any number.
    let meaning = text(unsafe { (functions.meaning)(code) });
    // SAFETY: takes a communicator or null.
    let last = text(unsafe { (functions.last_error)(comm) });
    Err(NcclError::Call { function, code, meaning, last })
}

/// One rank's end of a communicator. Used by one thread.
///
/// It is made not to block: calls return at once, and the waiting is done here, with a time limit. A rank that is gone is
/// then an error and not a hang.
#[derive(Debug)]
pub struct Comm {
    library: Arc<Library>,
    raw: RawComm,
    limit: Duration,
}

impl Comm {
    /// Joins the other ranks, which must all do so within `limit`. The CUDA device of this rank must be current.
    ///
    /// # Errors
    /// [`NcclError::Timeout`] if some rank does not come, [`NcclError::Call`] if there is no driver, device or network.
    pub fn join(
        library: Arc<Library>,
        id: UniqueId,
        world_size: usize,
        rank: usize,
        limit: Duration,
    ) -> Result<Self, NcclError> {
        let (Ok(ranks), Ok(own)) = (c_int::try_from(world_size), c_int::try_from(rank)) else {
            return Err(NcclError::Rank { rank, world_size });
        };
        if rank >= world_size {
            return Err(NcclError::Rank { rank, world_size });
        }
        let mut raw: RawComm = null_mut();
        let mut config = Config::NOT_BLOCKING;
        let join = library.functions().join;
        // SAFETY: writes a pointer to `raw` and reads `config`, both of which outlive the call; NCCL copies the configuration.
        let code = unsafe { join(&raw mut raw, ranks, id.0, own, &raw mut config) };
        if raw.is_null() {
            // Without a communicator there is nothing to wait for.
            let code = if code == IN_PROGRESS { SUCCESS } else { code };
            check(library.functions(), "ncclCommInitRankConfig", raw, code)?;
            let (meaning, last) = ("it made no communicator".to_owned(), String::new());
            return Err(NcclError::Call { function: "ncclCommInitRankConfig", code, meaning, last });
        }
        let comm = Self { library, raw, limit };
        comm.settle("ncclCommInitRankConfig", code)?;
        Ok(comm)
    }

    /// From now on calls may take this long.
    pub fn limited_to(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// How the calls so far went: `true` once all are under way on the device.
    ///
    /// # Errors
    /// What NCCL found meanwhile, for example that another rank's connection is closed.
    pub fn poll(&self, function: &'static str) -> Result<bool, NcclError> {
        let mut state: c_int = SUCCESS;
        // SAFETY: `raw` is a communicator that has not been freed; writes one int.
        let code = unsafe { (self.functions().async_error)(self.raw, &raw mut state) };
        check(self.functions(), "ncclCommGetAsyncError", self.raw, code)?;
        if state == IN_PROGRESS {
            return Ok(false);
        }
        check(self.functions(), function, self.raw, state)?;
        Ok(true)
    }

    /// Sums `count` numbers over all ranks, in the order of `stream`, into the place they are read from.
    ///
    /// # Safety
    /// `buffer` is memory of this rank's device with room for them. It stays allocated, and nothing else uses it, until
    /// `stream` has come to the end of this.
    ///
    /// # Errors
    /// NCCL's, or if it does not begin within the limit.
    pub unsafe fn all_reduce(
        &self,
        buffer: u64,
        count: usize,
        kind: DataType,
        stream: RawStream,
    ) -> Result<(), NcclError> {
        let buffer = buffer as *mut c_void;
        // SAFETY: the caller's.
        let code = unsafe {
            (self.functions().all_reduce)(buffer, buffer, count, kind as c_int, SUM, self.raw, stream)
        };
        self.settle("ncclAllReduce", code)
    }

    /// The `count` numbers of every rank, in the order of ranks, into `to`.
    ///
    /// # Safety
    /// As [`Self::all_reduce`], for `from` of `count` and `to` of `count` times the number of ranks, which do not overlap.
    ///
    /// # Errors
    /// As [`Self::all_reduce`].
    pub unsafe fn all_gather(
        &self,
        from: u64,
        to: u64,
        count: usize,
        kind: DataType,
        stream: RawStream,
    ) -> Result<(), NcclError> {
        let (from, to) = (from as *const c_void, to as *mut c_void);
        // SAFETY: the caller's.
        let code = unsafe { (self.functions().all_gather)(from, to, count, kind as c_int, self.raw, stream) };
        self.settle("ncclAllGather", code)
    }

    /// The `count` numbers of rank `root`, into the same place on every rank.
    ///
    /// # Safety
    /// As [`Self::all_reduce`].
    ///
    /// # Errors
    /// As [`Self::all_reduce`].
    pub unsafe fn broadcast(
        &self,
        buffer: u64,
        count: usize,
        kind: DataType,
        root: usize,
        stream: RawStream,
    ) -> Result<(), NcclError> {
        let buffer = buffer as *mut c_void;
        let root = c_int::try_from(root).unwrap_or(c_int::MAX);
        // SAFETY: the caller's; a root that there is not is refused by NCCL.
        let code = unsafe {
            (self.functions().broadcast)(buffer, buffer, count, kind as c_int, root, self.raw, stream)
        };
        self.settle("ncclBroadcast", code)
    }

    /// Ends it together with the other ranks; they all call this, and have half a minute for it.
    ///
    /// # Errors
    /// If they do not. The communicator is freed all the same.
    pub fn leave(mut self) -> Result<(), NcclError> {
        self.limit = self.limit.min(Duration::from_secs(30));
        // SAFETY: not freed before.
        let code = unsafe { (self.functions().finalize)(self.raw) };
        self.settle("ncclCommFinalize", code)?;
        let raw = std::mem::replace(&mut self.raw, null_mut());
        // SAFETY: finalized, and not used again, since `raw` is null now.
        let code = unsafe { (self.functions().destroy)(raw) };
        check(self.functions(), "ncclCommDestroy", null_mut(), code)
    }

    fn functions(&self) -> &Functions {
        self.library.functions()
    }

    /// Waits until a call is under way on the device, which may take until the other ranks have made it too.
    fn settle(&self, function: &'static str, code: c_int) -> Result<(), NcclError> {
        if code != IN_PROGRESS {
            return check(self.functions(), function, self.raw, code);
        }
        let mut pause = Pause::new(self.limit);
        while !self.poll(function)? {
            pause.wait(function)?;
        }
        Ok(())
    }
}

impl Drop for Comm {
    /// Whatever it was doing ends; the other ranks find it gone.
    fn drop(&mut self) {
        if !self.raw.is_null() {
            // SAFETY: not freed before, and not used after.
            unsafe { (self.functions().abort)(self.raw) };
        }
    }
}

/// Waiting by asking again and again: often at first, for most sums take less than a millisecond.
#[derive(Debug)]
pub(super) struct Pause {
    since: Instant,
    limit: Duration,
}

impl Pause {
    pub(super) fn new(limit: Duration) -> Self {
        Self { since: Instant::now(), limit }
    }

    /// Waits a little.
    pub(super) fn wait(&mut self, function: &'static str) -> Result<(), NcclError> {
        let waited = self.since.elapsed();
        if waited > self.limit {
            return Err(NcclError::Timeout { function, limit: self.limit });
        }
        if waited < Duration::from_micros(200) {
            thread::yield_now();
        } else {
            // A twentieth of what has passed is not noticed.
            thread::sleep((waited / 20).min(Duration::from_millis(5)));
        }
        Ok(())
    }
}
