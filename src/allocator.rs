//! The allocator's settings.

/// `mi_option_purge_delay` of mimalloc's header.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// Keeps freed memory instead of giving its pages back to the system.
///
/// Training frees and allocates the same large buffers in every step; with the default, fetching fresh zeroed pages takes
/// about a sixth of the CPU time. The peak is what a step needs either way.
///
/// It is mimalloc's second version: the third has each thread look for large blocks in another place first, so that a ResNet-50 took
/// new pages for seven steps and 100 MiB more in the end.
#[expect(unsafe_code, reason = "mimalloc's options have no safe interface")]
pub fn keep_freed_memory() {
    // SAFETY: the call stores one number in a table of options; `PURGE_DELAY` is one of them, and -1 one of its values
    // (never). No other thread runs yet.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, -1) };
}
