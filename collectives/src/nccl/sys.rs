//! NCCL's functions as C declares them: only those in use, all there since 2.14.
//!
//! Signatures and numbers are those of NCCL's public interface (`nccl.h`).

#![expect(unsafe_code, reason = "functions of a C library, found by name at run time")]

use std::ffi::{c_char, c_int, c_uint, c_void};

/// `ncclComm_t`.
pub type RawComm = *mut c_void;
/// `cudaStream_t`, which is the driver's `CUstream` too.
pub type RawStream = *mut c_void;

/// `ncclResult_t`: done.
pub const SUCCESS: c_int = 0;
/// `ncclResult_t`: of a communicator that does not block, not done yet.
pub const IN_PROGRESS: c_int = 7;
/// `ncclSum`.
pub const SUM: c_int = 0;

/// `ncclUniqueId`, handed over by value.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawId(pub [u8; 128]);

/// `ncclDataType_t`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum DataType {
    /// `ncclUint8`.
    U8 = 1,
    /// `ncclUint64`.
    U64 = 5,
    /// `ncclFloat32`.
    F32 = 7,
    /// `ncclBfloat16`.
    Bf16 = 9,
}

/// `ncclConfig_t` as of 2.14. Later ones are longer; `size` and `version` tell the library which this is, and it fills in
/// the rest.
#[repr(C)]
#[derive(Debug)]
pub struct Config {
    size: usize,
    magic: c_uint,
    version: c_uint,
    blocking: c_int,
    /// `cgaClusterSize` since 2.17, where it falls into what C pads this struct with.
    undefined: c_int,
}

impl Config {
    /// Calls return at once, and [`Functions::async_error`] tells how they went: a rank that waits for one that is gone can
    /// then give up.
    pub const NOT_BLOCKING: Self = Self {
        size: size_of::<Self>(),
        magic: 0xcafe_beef,
        version: 21400,
        blocking: 0,
        undefined: c_int::MIN,
    };
}

macro_rules! functions {
    ($($(#[$doc:meta])* $field:ident = $name:literal: fn($($argument:ty),*) -> $result:ty;)*) => {
        /// Pointers to NCCL's functions. They are good for as long as the library is loaded.
        #[derive(Debug, Clone, Copy)]
        pub struct Functions {
            $($(#[$doc])* pub $field: unsafe extern "C" fn($($argument),*) -> $result,)*
        }

        impl Functions {
            /// Looks them up.
            ///
            /// # Errors
            /// The name of one that is missing.
            pub fn of(library: &libloading::Library) -> Result<Self, &'static str> {
                Ok(Self {
                    $($field: {
                        // SAFETY: a library that has a function of this name is NCCL, and NCCL's function has had this
                        // signature since 2.14. The pointer is copied; `Library` never unloads what it points into.
                        let found = unsafe { library.get::<unsafe extern "C" fn($($argument),*) -> $result>($name) };
                        *found.map_err(|_| $name)?
                    },)*
                })
            }
        }
    };
}

functions! {
    /// The version as one number.
    version = "ncclGetVersion": fn(*mut c_int) -> c_int;
    /// What a result means; a text that lives for ever.
    meaning = "ncclGetErrorString": fn(c_int) -> *const c_char;
    /// The last error message; a text that the next error overwrites.
    last_error = "ncclGetLastError": fn(RawComm) -> *const c_char;
    /// A new id.
    unique_id = "ncclGetUniqueId": fn(*mut RawId) -> c_int;
    /// Communicator, ranks, id, rank, configuration.
    join = "ncclCommInitRankConfig": fn(*mut RawComm, c_int, RawId, c_int, *mut Config) -> c_int;
    /// How the calls on a communicator went.
    async_error = "ncclCommGetAsyncError": fn(RawComm, *mut c_int) -> c_int;
    /// Waits for all ranks, and lets go of the network.
    finalize = "ncclCommFinalize": fn(RawComm) -> c_int;
    /// Frees a communicator that is done.
    destroy = "ncclCommDestroy": fn(RawComm) -> c_int;
    /// Frees a communicator whatever it is doing.
    abort = "ncclCommAbort": fn(RawComm) -> c_int;
    /// From, to, count, type, operation, communicator, stream.
    all_reduce = "ncclAllReduce": fn(*const c_void, *mut c_void, usize, c_int, c_int, RawComm, RawStream) -> c_int;
    /// From, to, count of one rank, type, communicator, stream.
    all_gather = "ncclAllGather": fn(*const c_void, *mut c_void, usize, c_int, RawComm, RawStream) -> c_int;
    /// From, to, count, type, root, communicator, stream.
    broadcast = "ncclBroadcast": fn(*const c_void, *mut c_void, usize, c_int, c_int, RawComm, RawStream) -> c_int;
}
