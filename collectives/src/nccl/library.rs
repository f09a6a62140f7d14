//! Finding NCCL, and what it does without a GPU.

use std::env;
use std::error::Error;
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use super::comm;
use super::error::NcclError;
use super::sys::{Functions, RawId};

/// Names the library's file; then no other is looked for.
pub const VARIABLE: &str = "HARVEST_NCCL";

/// NCCL, loaded.
#[derive(Debug)]
pub struct Library {
    functions: Functions,
    path: PathBuf,
    version: Version,
}

/// Which NCCL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// 2 for all that exist.
    pub major: u32,
    /// What changes with each release.
    pub minor: u32,
    /// Repairs.
    pub patch: u32,
}

/// What the ranks of a communicator know it by: made by one of them, and brought to the others by other means.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct UniqueId(pub(super) RawId);

impl Library {
    /// Looks for NCCL and loads it: the file named by `HARVEST_NCCL` and no other, else what the system's loader finds
    /// (`LD_LIBRARY_PATH` included), else what lies beside CUDA or among the packages of a Python on `PATH`.
    ///
    /// It stays loaded: NCCL keeps threads of its own.
    ///
    /// # Errors
    /// [`NcclError`]: where it was looked for and what to install, or what is wrong with the file.
    pub fn load() -> Result<Arc<Self>, NcclError> {
        if let Some(named) = env::var_os(VARIABLE).filter(|named| !named.is_empty()) {
            return Self::open(named.as_ref());
        }
        for name in ["libnccl.so.2", "libnccl.so"] {
            // A bare name is the loader's to find.
            if let Ok(handle) = comm::open(name.as_ref()) {
                return Self::of(handle, name.into());
            }
        }
        let folders = places();
        match folders.iter().map(|folder| folder.join("libnccl.so.2")).find(|file| file.exists()) {
            Some(file) => Self::open(&file),
            None => Err(NcclError::Missing { looked_in: folders, variable: VARIABLE }),
        }
    }

    /// Loads this file.
    ///
    /// # Errors
    /// If it is not there, or is no NCCL.
    pub fn open(file: &Path) -> Result<Arc<Self>, NcclError> {
        let handle = comm::open(file.as_os_str())
            .map_err(|error| NcclError::Unloadable { path: file.to_owned(), reason: in_full(&error) })?;
        Self::of(handle, file.to_owned())
    }

    fn of(handle: libloading::Library, path: PathBuf) -> Result<Arc<Self>, NcclError> {
        let functions = Functions::of(&handle).map_err(|function| NcclError::TooOld {
            path: path.clone(),
            function,
            variable: VARIABLE,
        })?;
        // Code of NCCL's own threads must not go away under them.
        std::mem::forget(handle);
        let version = Version::from_number(comm::version(&functions)?);
        Ok(Arc::new(Self { functions, path, version }))
    }

    /// Where it was found: a file, or the name by which the system's loader knows it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Which NCCL this is.
    pub fn version(&self) -> Version {
        self.version
    }

    /// A new id. The rank that makes it listens for the others, so that it must stay alive until all have joined.
    ///
    /// # Errors
    /// If NCCL finds no network.
    pub fn unique_id(&self) -> Result<UniqueId, NcclError> {
        comm::unique_id(&self.functions).map(UniqueId)
    }

    pub(super) fn functions(&self) -> &Functions {
        &self.functions
    }
}

/// An error and what caused it: the loader's own words are in the cause.
fn in_full(error: &dyn Error) -> String {
    error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

/// Folders where NCCL may lie without the system's loader knowing. Those that do not exist are left out.
fn places() -> Vec<PathBuf> {
    let beside = |variable: &str, folder: &str| Some(PathBuf::from(env::var_os(variable)?).join(folder));
    let cuda = ["NCCL_HOME", "CUDA_HOME", "CUDA_PATH"].into_iter();
    let cuda = cuda.flat_map(|variable| [beside(variable, "lib"), beside(variable, "lib64")]).flatten();
    let usual = [PathBuf::from("/usr/local/cuda/lib64")];
    // A Python in `somewhere/bin` has its packages in `somewhere/lib/python3.N/site-packages`.
    let path = env::var_os("PATH").unwrap_or_default();
    let prefixes = env::split_paths(&path).filter(|folder| folder.ends_with("bin"));
    let packages =
        prefixes.filter_map(|folder| Some(folder.parent()?.join("lib"))).flat_map(|lib| packages(&lib));
    let mut found: Vec<_> = cuda.chain(usual).chain(packages).filter(|folder| folder.is_dir()).collect();
    found.dedup();
    found
}

/// NCCL's folder among the packages of each Python in `lib`.
fn packages(lib: &Path) -> Vec<PathBuf> {
    let is_python = |name: &OsStr| name.to_str().is_some_and(|name| name.starts_with("python3"));
    let entries = fs::read_dir(lib).into_iter().flatten().flatten();
    let mut pythons: Vec<_> =
        entries.filter(|entry| is_python(&entry.file_name())).map(|entry| entry.path()).collect();
    pythons.sort();
    let folders = ["site-packages", "dist-packages"].map(|kind| format!("{kind}/nvidia/nccl/lib"));
    pythons.iter().flat_map(|python| folders.each_ref().map(|folder| python.join(folder))).collect()
}

impl Version {
    /// From NCCL's number: 2.7.3 is 2703, and since 2.9 2.18.1 is 21801.
    fn from_number(number: u32) -> Self {
        let thousand = if number < 10_000 { 1_000 } else { 10_000 };
        Self { major: number / thousand, minor: number % thousand / 100, patch: number % 100 }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl UniqueId {
    /// The 128 bytes to send to the other ranks.
    pub fn to_bytes(self) -> Vec<u8> {
        self.0.0.to_vec()
    }

    /// From the bytes that another rank sent.
    ///
    /// # Errors
    /// If there are not 128.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, NcclError> {
        let bytes = bytes.try_into().map_err(|_| NcclError::Id { found: bytes.len() })?;
        Ok(Self(RawId(bytes)))
    }
}

/// Two digits for each byte, for ways that carry text.
impl fmt::Display for UniqueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for UniqueId {
    type Err = NcclError;

    fn from_str(digits: &str) -> Result<Self, NcclError> {
        let (pairs, _) = digits.as_bytes().as_chunks::<2>();
        let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        let bytes: Vec<_> = pairs.iter().map_while(byte).collect();
        Self::from_bytes(&bytes)
    }
}

impl fmt::Debug for UniqueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an NCCL id")
    }
}
