//! Signals to stop: a person's Ctrl-C, a scheduler's end of time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use signal_hook::consts::{SIGHUP, SIGINT, SIGPIPE, SIGTERM, SIGUSR2};
use signal_hook::iterator::Signals;

/// Lets the system end this process once nobody reads what it prints, as other programs are: `harvest doctor | head -3`. Rust
/// has that signal ignored, and printing would panic.
pub fn end_with_the_reader() {
    // Where the system does not let us, printing to nobody stays a panic.
    let _ = signal_hook::flag::register_conditional_default(SIGPIPE, Arc::new(AtomicBool::new(true)));
}

/// What signals ask for.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// To come to an orderly end: SIGINT, SIGTERM, SIGHUP, SIGUSR2.
    pub stop: Arc<AtomicBool>,
    /// To be started again afterwards: SIGUSR2, which Slurm sends before the time is up.
    pub come_back: Arc<AtomicBool>,
}

impl Asked {
    /// Listens from now on.
    ///
    /// Ctrl-C ends the program at once if a signal came before, but no second signal of another kind does: schedulers send
    /// several while they wait for the end they asked for.
    ///
    /// # Errors
    /// If the system does not let it listen.
    pub fn listen() -> anyhow::Result<Self> {
        let asked = Self::default();
        let mut signals =
            Signals::new([SIGINT, SIGTERM, SIGHUP, SIGUSR2]).context("cannot listen for signals")?;
        let flags = asked.clone();
        std::thread::spawn(move || {
            for signal in signals.forever() {
                if signal == SIGINT && flags.stop.load(Ordering::Relaxed) {
                    std::process::exit(130);
                }
                if signal == SIGUSR2 {
                    flags.come_back.store(true, Ordering::Relaxed);
                }
                if !flags.stop.swap(true, Ordering::Relaxed) {
                    let more = if signal == SIGINT { "; once more to stop at once" } else { "" };
                    eprintln!("stopping after this step{more}");
                }
            }
        });
        Ok(asked)
    }
}
