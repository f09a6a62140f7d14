//! Keeps the pixels decoded at one time within a budget, whatever the number of threads.

use std::cell::Cell;
use std::sync::{Condvar, Mutex, PoisonError};

/// Admits images to memory: at most `budget` pixels at once, or a single image larger than that.
#[derive(Debug)]
pub(crate) struct PixelGate {
    budget: u64,
    used: Mutex<u64>,
    freed: Condvar,
}

thread_local! {
    /// Permits this thread holds. A thread that already holds one never waits: should the code under a permit
    /// use rayon, the thread may pick up another image there, and waiting for itself would hang.
    static HELD: Cell<u32> = const { Cell::new(0) };
}

impl PixelGate {
    pub(crate) fn new(budget: u64) -> Self {
        Self { budget, used: Mutex::new(0), freed: Condvar::new() }
    }

    /// Waits until `pixels` more fit; they are given back when the permit is dropped.
    pub(crate) fn admit(&self, pixels: u64) -> Permit<'_> {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if HELD.get() == 0 {
            while *used > 0 && used.saturating_add(pixels) > self.budget {
                used = self.freed.wait(used).unwrap_or_else(PoisonError::into_inner);
            }
        }
        *used += pixels;
        HELD.set(HELD.get() + 1);
        Permit { gate: self, pixels, _this_thread: std::marker::PhantomData }
    }
}

/// Room for one image; tied to the thread it was given to.
pub(crate) struct Permit<'a> {
    gate: &'a PixelGate,
    pixels: u64,
    _this_thread: std::marker::PhantomData<*const ()>,
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        *self.gate.used.lock().unwrap_or_else(PoisonError::into_inner) -= self.pixels;
        HELD.set(HELD.get() - 1);
        self.gate.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn the_budget_holds_and_an_oversized_image_passes_alone() {
        let gate = PixelGate::new(10);
        let (now, most) = (AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for thread in 0..8u64 {
                let (gate, now, most) = (&gate, &now, &most);
                scope.spawn(move || {
                    for turn in 0..200 {
                        let pixels = (thread + turn) % 5 + 1;
                        let _permit = gate.admit(pixels);
                        most.fetch_max(now.fetch_add(pixels, Ordering::SeqCst) + pixels, Ordering::SeqCst);
                        now.fetch_sub(pixels, Ordering::SeqCst);
                    }
                    drop(gate.admit(1000));
                });
            }
        });
        assert!(most.load(Ordering::SeqCst) <= 10);
        assert_eq!(*gate.used.lock().expect("no thread panicked"), 0);
    }

    #[test]
    fn a_thread_never_waits_for_itself() {
        let gate = PixelGate::new(10);
        let _first = gate.admit(10);
        let _second = gate.admit(10);
    }
}
