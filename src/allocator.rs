//! The allocator's settings.

/// `mi_option_purge_delay` of mimalloc's header.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// Keeps freed memory instead of giving its pages back to the system.
///
/// Training frees and allocates the same large buffers in every step; with the default, fetching fresh zeroed pages takes
/// about a sixth of the CPU time. The peak is what a step needs either way.
///
/// It is mimalloc's second version, which looks for a large block from the beginning of its memory. The third has each thread begin in
/// a place of its own: what one has freed another does not find, and a ResNet-50 took new pages for seven steps, and 100 MiB more.
#[expect(unsafe_code, reason = "mimalloc's options have no safe interface")]
pub fn keep_freed_memory() {
    // SAFETY: the call stores one number in a table of options; `PURGE_DELAY` is one of them, and -1 one of its values
    // (never). No other thread runs yet.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, -1) };
}
