//! How far long work is: a bar on a terminal, a line now and then anywhere else.
//!
//! Off a terminal (a log file, a job's output) a line appears at the start and at the end, otherwise every
//! [`INTERVAL`] at most; each begins with the time of day. A `Progress` may be shared by threads.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::watched::{Watched, watched};

/// Least time between two lines off a terminal.
const INTERVAL: Duration = Duration::from_secs(10);

/// Shows how far one piece of work is, on standard error, and in the file that whoever watches this process has named.
pub struct Progress {
    label: String,
    watched: Option<&'static Watched>,
    /// 0: not known.
    total: u64,
    position: AtomicU64,
    display: Display,
}

enum Display {
    Bar(ProgressBar),
    Lines(Mutex<Lines>),
    Hidden,
}

struct Lines {
    sink: Box<dyn Write + Send>,
    clock: Box<dyn Fn() -> Duration + Send>,
    interval: Duration,
    /// Position at the start, from which the rate is taken: resumed work does not begin at 0.
    first: Option<(Duration, u64)>,
    shown: Duration,
    message: String,
    finished: bool,
}

impl Progress {
    /// Starts showing `label`, such as "scan", over `total` items or steps; 0 if that is not known.
    pub fn new(label: &str, total: u64) -> Self {
        if std::io::stderr().is_terminal() {
            return Self::with_display(label, total, Display::Bar(bar(label, total))).told(total);
        }
        let start = Instant::now();
        let clock = Box::new(move || start.elapsed());
        Self::lines(label, total, INTERVAL, Box::new(std::io::stderr()), clock).told(total)
    }

    /// Shows nothing: for tests and for callers without anyone watching.
    pub fn hidden() -> Self {
        Self::with_display("", 0, Display::Hidden)
    }

    /// Shows nothing on standard error; who watches the process by its file is told.
    pub fn quiet(label: &str, total: u64) -> Self {
        Self::with_display(label, total, Display::Hidden).told(total)
    }

    /// With the file of whoever watches.
    fn told(mut self, total: u64) -> Self {
        self.watched = watched();
        if let Some(watched) = self.watched {
            watched.begin(&self.label, total);
        }
        self
    }

    /// Lines into `sink`, at most one every `interval` of `clock`.
    fn lines(
        label: &str,
        total: u64,
        interval: Duration,
        sink: Box<dyn Write + Send>,
        clock: Box<dyn Fn() -> Duration + Send>,
    ) -> Self {
        let shown = clock();
        let (message, finished) = (String::new(), false);
        let lines = Lines { sink, clock, interval, first: None, shown, message, finished };
        let progress = Self::with_display(label, total, Display::Lines(Mutex::new(lines)));
        let amount = if total == 0 { "started".to_owned() } else { format!("{} to go", thousands(total)) };
        progress.with_lines(|lines| lines.say(&format!("{label}: {amount}")));
        progress
    }

    fn with_display(label: &str, total: u64, display: Display) -> Self {
        Self { label: label.to_owned(), total, position: AtomicU64::new(0), display, watched: None }
    }

    /// `position` items or steps are done. Cheap enough to call for every one of them.
    pub fn set(&self, position: u64) {
        self.position.store(position, Ordering::Relaxed);
        self.show(position);
    }

    /// `count` more are done; for threads that each know only their own part.
    pub fn advance(&self, count: u64) {
        let position = self.position.fetch_add(count, Ordering::Relaxed) + count;
        self.show(position);
    }

    /// Text beside the numbers, such as the current loss; shown with the next update.
    pub fn message(&self, message: impl Into<String>) {
        match &self.display {
            Display::Bar(bar) => bar.set_message(message.into()),
            Display::Lines(_) => self.with_lines(|lines| lines.message = message.into()),
            Display::Hidden => {}
        }
    }

    /// Numbers for whoever watches the process, such as the loss.
    pub fn scalars(&self, row: &[(&str, f64)]) {
        if let Some(watched) = self.watched {
            watched.scalars(row);
        }
    }

    /// Tells who watches the process that something else is done in between, such as an evaluation; runs `act`.
    pub fn meanwhile<T>(&self, label: &str, act: impl FnOnce() -> T) -> T {
        let Some(watched) = self.watched else { return act() };
        watched.meanwhile(label);
        let result = act();
        watched.meanwhile(&self.label);
        result
    }

    /// A line of its own, at once, above the bar: something worth keeping, such as an evaluation's result.
    pub fn milestone(&self, text: &str) {
        if let Some(watched) = self.watched {
            watched.message(text);
        }
        match &self.display {
            Display::Bar(bar) => bar.suspend(|| eprintln!("{text}")),
            Display::Lines(_) => self.with_lines(|lines| lines.say(&format!("{}: {text}", self.label))),
            Display::Hidden => {}
        }
    }

    /// The work is over: the bar stays with its last numbers, or a last line says how long it took. Later calls
    /// do nothing. Dropping without it (an error, a stop) removes the bar and says nothing.
    pub fn finish(&self) {
        match &self.display {
            Display::Bar(bar) => bar.finish(),
            Display::Lines(_) => self.with_lines(|lines| {
                if !std::mem::replace(&mut lines.finished, true) {
                    let position = self.position.load(Ordering::Relaxed);
                    let (took, message) = (duration((lines.clock)()), lines.suffix());
                    lines.say(&format!("{}: {} done in {took}{message}", self.label, thousands(position)));
                }
            }),
            Display::Hidden => {}
        }
    }

    fn show(&self, position: u64) {
        if let Some(watched) = self.watched {
            watched.set(position);
        }
        match &self.display {
            Display::Bar(bar) => bar.set_position(position),
            Display::Lines(_) => self.with_lines(|lines| lines.update(&self.label, position, self.total)),
            Display::Hidden => {}
        }
    }

    fn with_lines(&self, act: impl FnOnce(&mut Lines)) {
        if let Display::Lines(lines) = &self.display {
            // A panic elsewhere leaves the lines in order: every change is whole.
            act(&mut lines.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Display::Bar(bar) = &self.display
            && !bar.is_finished()
        {
            bar.finish_and_clear();
        }
    }
}

impl std::fmt::Debug for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let position = self.position.load(Ordering::Relaxed);
        f.debug_struct("Progress").field("label", &self.label).field("position", &position).finish()
    }
}

impl Lines {
    fn update(&mut self, label: &str, position: u64, total: u64) {
        let now = (self.clock)();
        let (since, from) = *self.first.get_or_insert((now, position));
        if now.saturating_sub(self.shown) < self.interval || self.finished {
            return;
        }
        self.shown = now;
        let done = thousands(position);
        let mut line = match total {
            0 => format!("{label}: {done}"),
            _ => format!("{label}: {done} of {} ({}%)", thousands(total), percent(position, total)),
        };
        let (seconds, moved) = (now.saturating_sub(since).as_secs_f64(), position.saturating_sub(from));
        if seconds > 0.0 && moved > 0 {
            let per_second = moved as f64 / seconds;
            line += &format!(", {} a second", rate(per_second));
            if total > position {
                let left = Duration::try_from_secs_f64((total - position) as f64 / per_second)
                    .unwrap_or(Duration::MAX);
                line += &format!(", {} left", duration(left));
            }
        }
        line += &self.suffix();
        self.say(&line);
    }

    fn suffix(&self) -> String {
        if self.message.is_empty() { String::new() } else { format!(" | {}", self.message) }
    }

    /// A closed standard error must not stop the work, so failures to write are ignored.
    fn say(&mut self, line: &str) {
        let time = jiff::Zoned::now().strftime("%H:%M:%S").to_string();
        let _ = writeln!(self.sink, "{time} {line}");
        let _ = self.sink.flush();
    }
}

fn bar(label: &str, total: u64) -> ProgressBar {
    let template = match total {
        0 => "{prefix} {spinner} {human_pos} ({rate}) {wide_msg}",
        _ => "{prefix} {bar:24.cyan/dim} {human_pos}/{human_len} {percent}% ({rate}, {left} left) {wide_msg}",
    };
    let style = ProgressStyle::with_template(template).expect("the template is well formed");
    let style = style
        .with_key("rate", |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            let _ = write!(out, "{}/s", rate(state.per_sec()));
        })
        .with_key("left", |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            let _ = out.write_str(&duration(state.eta()));
        });
    let bar = ProgressBar::with_draw_target((total > 0).then_some(total), ProgressDrawTarget::stderr());
    bar.set_style(style.progress_chars("━━╌"));
    bar.set_prefix(label.to_owned());
    bar
}

/// Rounded down: 100 only when everything is done.
fn percent(position: u64, total: u64) -> u64 {
    (u128::from(position.min(total)) * 100 / u128::from(total.max(1))) as u64
}

/// Three digits or so: "0.42", "17", "1204".
fn rate(per_second: f64) -> String {
    if per_second < 10.0 { format!("{per_second:.2}") } else { format!("{per_second:.0}") }
}

/// 1234567 → "1,234,567".
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Two units at most: "4 s", "2 min 5 s", "3 h 20 min", "2 d 4 h".
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86400 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// Lines with a clock set by hand, in seconds.
    fn lines(label: &str, total: u64) -> (Progress, Log, Arc<AtomicU64>) {
        let (log, time) = (Log::default(), Arc::new(AtomicU64::new(0)));
        let clock = {
            let time = time.clone();
            Box::new(move || Duration::from_secs(time.load(Ordering::Relaxed)))
        };
        (Progress::lines(label, total, INTERVAL, Box::new(log.clone()), clock), log, time)
    }

    /// What was said, without the times of day.
    fn said(log: &Log) -> Vec<String> {
        let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        text.lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
    }

    #[test]
    fn off_a_terminal_a_line_appears_every_ten_seconds_at_most() {
        let (progress, log, time) = lines("scan", 60_000);
        for second in 0..=25 {
            time.store(second, Ordering::Relaxed);
            progress.set(second * 1000);
            progress.message(format!("{second} set aside"));
        }
        progress.milestone("half-time");
        progress.finish();
        progress.finish();
        assert_eq!(
            said(&log),
            [
                "scan: 60,000 to go",
                "scan: 10,000 of 60,000 (16%), 1000 a second, 50 s left | 9 set aside",
                "scan: 20,000 of 60,000 (33%), 1000 a second, 40 s left | 19 set aside",
                "scan: half-time",
                "scan: 25,000 done in 25 s | 25 set aside",
            ]
        );
    }

    #[test]
    fn resumed_work_is_not_credited_with_what_was_done_before() {
        let (progress, log, time) = lines("train", 1000);
        progress.set(900);
        time.store(10, Ordering::Relaxed);
        progress.set(910);
        assert_eq!(said(&log)[1], "train: 910 of 1,000 (91%), 1.00 a second, 1 min 30 s left");
    }

    #[test]
    fn threads_may_share_it_and_the_total_may_be_unknown() {
        let (progress, log, time) = lines("walk", 0);
        std::thread::scope(|scope| {
            (0..4).for_each(|_| drop(scope.spawn(|| (0..100).for_each(|_| progress.advance(1)))));
        });
        time.store(3700, Ordering::Relaxed);
        progress.finish();
        assert_eq!(said(&log), ["walk: started", "walk: 400 done in 1 h 1 min"]);
        Progress::hidden().set(3);
    }
}
