//! Where tensors live: chosen at run time by name.

use std::sync::{Mutex, TryLockError};

use burn::tensor::Device;

/// A device that cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// Not a name.
    #[error("there is no device `{name}`; say cpu, cuda, cuda:N or auto")]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// The program lacks the feature.
    #[error(
        "this program was built without `cuda`; build it with `cargo build --release --features cuda`, or say --device cpu"
    )]
    NotBuilt,
    /// No such GPU.
    #[error("there is no CUDA device {index} here: {reason}; `harvest doctor` tells more")]
    Absent {
        /// Its number.
        index: usize,
        /// What was found instead.
        reason: String,
    },
}

/// The device called `name`: `cpu`, `cuda`, `cuda:N`, or `auto` for the best there is.
///
/// # Errors
/// If the name is none, or the device is not there.
pub fn by_name(name: &str) -> Result<Device, DeviceError> {
    let unknown = || DeviceError::Unknown { name: name.to_owned() };
    match name {
        "cpu" => Ok(Device::flex()),
        "auto" => Ok(cuda(0).unwrap_or_else(|_| Device::flex())),
        "cuda" => cuda(0),
        _ => cuda(name.strip_prefix("cuda:").and_then(|n| n.parse().ok()).ok_or_else(unknown)?),
    }
}

/// The device called `name` for the process that is number `local_rank` of its job on this machine: where `name` leaves the
/// choice, each has a GPU of its own.
///
/// # Errors
/// As [`by_name`]; and if there are fewer GPUs than processes.
pub fn of_local_rank(name: &str, local_rank: usize) -> Result<Device, DeviceError> {
    match (name, cuda_devices()) {
        // A scheduler that shows each process its own GPU alone has chosen already.
        ("auto" | "cuda", Ok(count)) if count > 1 || local_rank > 0 && !one_each() => {
            by_name(&format!("cuda:{local_rank}"))
        }
        _ => by_name(name),
    }
}

/// Whether the environment shows this process one GPU, which then is its own.
fn one_each() -> bool {
    std::env::var("CUDA_VISIBLE_DEVICES").is_ok_and(|list| !list.is_empty() && !list.contains(','))
}

/// What to call a device in logs.
pub fn describe(device: &Device) -> &'static str {
    if is_cpu(device) { "cpu" } else { "cuda" }
}

/// The number of a GPU on this machine; 0 for the CPU.
pub fn index(device: &Device) -> usize {
    let words = format!("{:?}", device.clone().inner());
    let digits: String = words.chars().filter(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(0)
}

/// The version of what drives a device; empty for the CPU.
pub fn driver(device: &Device) -> String {
    if is_cpu(device) {
        return String::new();
    }
    let version = std::fs::read_to_string("/proc/driver/nvidia/version").unwrap_or_default();
    // "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 …"
    let number = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.');
    version.split_whitespace().find(number).unwrap_or("unknown").to_owned()
}

/// Whether this is the CPU.
pub fn is_cpu(device: &Device) -> bool {
    device.clone().inner() == Device::flex()
}

/// Runs `work`, which computes on `device`: if that is the CPU, on a thread of the pool. Its operations then go on at once and the
/// other threads join them; from any other thread each operation would be handed over, and that thread woken when it is done.
///
/// One at a time: a thread of the pool that waits for others may take up whatever else is to be done there, and `work` may hold a
/// lock that the same would need. Who comes meanwhile computes where it is. `work` must wait for nothing that needs the pool.
pub(crate) fn compute<R: Send>(device: &Device, work: impl FnOnce() -> R + Send) -> R {
    static ONE: Mutex<()> = Mutex::new(());
    if is_cpu(device) { in_pool(&ONE, work) } else { work() }
}

/// On a thread of the pool unless somebody holds `one`, which is held meanwhile.
fn in_pool<R: Send>(one: &Mutex<()>, work: impl FnOnce() -> R + Send) -> R {
    match one.try_lock() {
        Err(TryLockError::WouldBlock) => work(),
        // Poisoned by a panic of other work, it guards as well as before.
        _held => rayon::scope(|_| work()),
    }
}

/// Number of CUDA devices, or why there is none.
///
/// # Errors
/// In words: not built in, no driver, no device.
pub fn cuda_devices() -> Result<usize, String> {
    #[cfg(not(feature = "cuda"))]
    return Err("this program was built without the feature `cuda`".to_owned());
    #[cfg(feature = "cuda")]
    {
        // Touching CUDA where its libraries are missing panics deep inside; that is an answer, not a crash.
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let found =
            std::panic::catch_unwind(|| Device::enumerate(burn::tensor::DeviceType::Cuda).into_vec().len());
        std::panic::set_hook(hook);
        let found = found.map_err(|panic| {
            let words = panic.downcast_ref::<String>().cloned();
            let words = words.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            words.unwrap_or_else(|| "CUDA cannot be loaded".to_owned())
        })?;
        if found == 0 { Err("the driver reports no device".to_owned()) } else { Ok(found) }
    }
}

#[cfg(feature = "cuda")]
fn cuda(index: usize) -> Result<Device, DeviceError> {
    match cuda_devices() {
        Ok(count) if index < count => Ok(Device::cuda(index)),
        Ok(count) => Err(DeviceError::Absent { index, reason: format!("there are {count}") }),
        Err(reason) => Err(DeviceError::Absent { index, reason }),
    }
}

#[cfg(not(feature = "cuda"))]
fn cuda(_index: usize) -> Result<Device, DeviceError> {
    Err(DeviceError::NotBuilt)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a thread of the pool computes.
    fn inside() -> bool {
        rayon::current_thread_index().is_some()
    }

    #[test]
    fn work_is_done_in_the_pool_one_at_a_time_and_after_a_panic_too() {
        // Other tests may be at work beside this one.
        let one = Mutex::new(());
        let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a pool");
        for _ in 0..2 {
            assert!(in_pool(&one, inside));
            assert!(in_pool(&one, || in_pool(&one, inside)), "nested, it is there already");
            assert!(alone.install(|| in_pool(&one, inside)), "a pool of one thread");
            let meanwhile = in_pool(&one, || {
                std::thread::scope(|scope| scope.spawn(|| in_pool(&one, inside)).join().expect("no panic"))
            });
            assert!(!meanwhile, "who comes meanwhile computes where it is");
            let panic = std::panic::catch_unwind(|| in_pool(&one, || panic!("on purpose")));
            assert!(panic.is_err());
        }
    }
}
