//! What the operating system and the device say of this process's memory.

use burn::tensor::Device;

const MIB: f64 = (1 << 20) as f64;

/// Most memory this process has had at once, in MiB; `None` where the system does not tell.
pub fn peak_host_mib() -> Option<u64> {
    peak_of("/proc/self/status")
}

/// Most memory that the process has had whose status is in the file `status`, in MiB.
pub fn peak_of(status: &str) -> Option<u64> {
    let status = std::fs::read_to_string(status).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some((kib / 1024.0).round() as u64)
}

/// Page faults of this process so far; `None` where the system does not tell.
pub fn page_faults() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field, the program's name in parentheses, may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    // Fields 10 and 12 of proc(5): minor and major faults; the third is the first of `rest`.
    let mut fields = rest.split_ascii_whitespace();
    let minor: u64 = fields.nth(7)?.parse().ok()?;
    let major: u64 = fields.nth(1)?.parse().ok()?;
    Some(minor + major)
}

/// Memory that the device's allocator has taken, in MiB; `None` on the CPU.
///
/// The allocator hands nothing back by itself, so this is at least the peak of what was in use: where PyTorch's
/// `max_memory_allocated` is the comparison, the difference is to our disadvantage.
pub fn reserved_device_mib(device: &Device) -> Option<u64> {
    let usage = device.memory_pool_usage()?;
    Some((usage.bytes_reserved as f64 / MIB).round() as u64)
}

/// Program and version.
pub fn program() -> String {
    format!("harvest {}", env!("CARGO_PKG_VERSION"))
}
