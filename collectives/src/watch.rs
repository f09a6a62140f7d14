//! Notices that a rank is gone or hangs, and then ends all others.
//!
//! One thread on each rank, on the connections over which the ranks have met. Every rank tells rank 0 about once a second
//! how far it is, and rank 0 tells that it is there. A connection that ends without a goodbye is a death; so is silence
//! for the limit; a rank that lives and stands still is caught by [`Ledger`]. Rank 0 tells everyone who is lost and why;
//! should rank 0 itself be lost, the others notice without being told.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Signal, getpid, kill_process};

use crate::ledger::{Ledger, Loss};
use crate::rendezvous::{Links, Met};
use crate::table::RankTable;
use crate::wire::{Beat, Exchanged, Link, Message, wait};

/// The exit code of a rank whose job has lost another: come back and go on (`EX_TEMPFAIL`).
pub const EXIT_LOST: i32 = 75;
/// Time between two looks at the connections, at least.
const ROUND: Duration = Duration::from_millis(20);
/// Between the message and the end, so that a launcher that stops all ranks with the first one does not stop those that
/// have yet to print it.
const LAST_WORDS: Duration = Duration::from_millis(250);
/// For what has to be done before the end. Exit handlers of libraries may wait for what will not come.
const LAST_DEEDS: Duration = Duration::from_secs(10);

/// How far this rank is. Costs an atomic store for each change.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    step: AtomicU64,
    operations: AtomicU64,
    has_begun: AtomicBool,
    pauses: AtomicUsize,
    orders: OnceLock<Orders>,
}

impl Pulse {
    pub fn progress(&self, step: u64) {
        self.step.store(step, Relaxed);
        self.has_begun.store(true, Relaxed);
    }

    pub fn begin_operation(&self) {
        self.operations.fetch_add(1, Relaxed);
    }

    pub fn pause(&self) {
        self.pauses.fetch_add(1, Relaxed);
    }

    pub fn resume(&self) {
        self.pauses.fetch_sub(1, Relaxed);
    }

    fn beat(&self) -> Beat {
        Beat {
            step: self.step.load(Relaxed),
            operations: self.operations.load(Relaxed),
            stepping: self.has_begun.load(Relaxed) && self.pauses.load(Relaxed) == 0,
        }
    }

    /// Ends this rank and tells the others why.
    pub fn abort(&self, reason: &str) -> ! {
        match self.orders.get() {
            // The watch ends the process.
            Some(orders) if orders.give(Order::Abort(reason.to_owned())) => thread::sleep(LAST_DEEDS * 2),
            _ => eprintln!("{reason}"),
        }
        process::exit(EXIT_LOST)
    }
}

type Hook = Box<dyn FnOnce(&str) + Send>;

/// What the watch is asked for.
enum Order {
    Exchange {
        what: String,
        value: String,
        reply: Sender<Exchanged>,
    },
    OnLoss(Hook),
    Abort(String),
    /// In good order.
    Leave,
    /// In good order too, since all ranks know that the job is over: nobody waits.
    Disband,
    /// In disorder: the others are told, and this rank ends as it likes.
    Fail(String),
}

/// The way to the watch.
#[derive(Debug, Clone)]
struct Orders {
    sender: Sender<Order>,
    /// A byte wakes it.
    wake: Arc<UnixStream>,
}

impl Orders {
    /// Whether the watch is there to take it.
    fn give(&self, order: Order) -> bool {
        let is_taken = self.sender.send(order).is_ok();
        // If its buffer is full the watch is awake.
        let _ = (&*self.wake).write(&[0]);
        is_taken
    }
}

/// Watches until it is told to leave.
#[derive(Debug)]
pub(crate) struct Watch {
    orders: Orders,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Watch {
    /// Of rank `rank`. `limit`: how long a rank may be silent or stand still.
    pub fn start(rank: usize, met: Met, pulse: &Arc<Pulse>, limit: Duration) -> std::io::Result<Self> {
        let (wake, woken) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        let (sender, received) = channel();
        let orders = Orders { sender, wake: Arc::new(wake) };
        let (links, ledger) = match met.links {
            Links::Head(links) => (links, met.table.0.len()),
            // Only rank 0 is watched from here.
            Links::Member(link) => (vec![link], 1),
        };
        let guard = Guard {
            rank,
            values: vec![None; met.table.0.len()],
            table: met.table,
            links: links.into_iter().map(Some).collect(),
            ledger: Ledger::new(ledger, limit, Instant::now()),
            pulse: Arc::clone(pulse),
            limit,
            hook: None,
            reply: None,
            leaving: None,
        };
        let _ = pulse.orders.set(orders.clone());
        let work = move || guard.watch(&received, &woken);
        let thread = thread::Builder::new().name("watch".to_owned()).spawn(work)?;
        Ok(Self { orders, thread: Mutex::new(Some(thread)) })
    }

    /// What all ranks bring to it, which all must do.
    pub fn exchange(&self, what: &str, value: &str) -> Exchanged {
        let (reply, answer) = channel();
        self.orders.give(Order::Exchange { what: what.to_owned(), value: value.to_owned(), reply });
        answer.recv().unwrap_or_else(|_| Exchanged::Mixed("rank 0 has left".to_owned()))
    }

    pub fn on_loss(&self, hook: impl FnOnce(&str) + Send + 'static) {
        self.orders.give(Order::OnLoss(Box::new(hook)));
    }

    pub fn leave(&self) {
        self.end(Order::Leave);
    }

    pub fn disband(&self) {
        self.end(Order::Disband);
    }

    pub fn fail(&self, why: &str) {
        self.end(Order::Fail(why.to_owned()));
    }

    fn end(&self, order: Order) {
        self.orders.give(order);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let _ = thread.map(JoinHandle::join);
    }
}

/// The thread behind [`Watch`].
struct Guard {
    rank: usize,
    table: RankTable,
    /// On rank 0 to ranks 1 and up, elsewhere to rank 0 alone. `None` once the other has left.
    links: Vec<Option<Link>>,
    ledger: Ledger,
    pulse: Arc<Pulse>,
    limit: Duration,
    hook: Option<Hook>,
    /// What ranks have brought to the exchange so far; used by rank 0.
    values: Vec<Option<(String, String)>>,
    /// Who waits for it here.
    reply: Option<Sender<Exchanged>>,
    /// This rank leaves. Until when rank 0 waits for the others to do so before it does.
    leaving: Option<Instant>,
}

impl Guard {
    fn watch(mut self, orders: &Receiver<Order>, mut woken: &UnixStream) {
        // Ten beats in the limit: one that is late is no loss.
        let interval = (self.limit / 10).clamp(Duration::from_millis(20), Duration::from_secs(1));
        let mut next_beat = Instant::now();
        loop {
            let now = Instant::now();
            if now >= next_beat {
                self.beat(now);
                next_beat = now + interval;
            }
            // First what has arrived: after a long sleep of this machine everyone looks silent.
            let heard = self.wait(woken, next_beat.saturating_duration_since(now));
            let mut bytes = [0; 64];
            while matches!(woken.read(&mut bytes), Ok(count) if count > 0) {}
            self.listen(&heard);
            for order in orders.try_iter() {
                if self.obey(order) {
                    return;
                }
            }
            if let Some(loss) = self.ledger.judge(Instant::now()) {
                self.lose(&loss);
            }
            if self.may_leave() {
                return;
            }
            // Beats of a thousand ranks come one by one; looking at all connections for each would take a core.
            thread::sleep(ROUND.saturating_sub(now.elapsed()));
        }
    }

    /// Waits for something to happen, and tells at which links it has.
    fn wait(&self, woken: &UnixStream, time: Duration) -> Vec<usize> {
        let links = || self.links.iter().enumerate().filter_map(|(at, link)| Some((at, link.as_ref()?)));
        let files = links().map(|(_, link)| (link.as_fd(), link.has_unsent()));
        let files: Vec<_> = std::iter::once((woken.as_fd(), false)).chain(files).collect();
        let happened = wait(&files, time);
        let heard = links().zip(&happened[1..]).filter(|((_, link), happened)| **happened || link.has_kept());
        heard.map(|((at, _), _)| at).collect()
    }

    fn is_head(&self) -> bool {
        self.rank == 0
    }

    /// The rank at the other end of a link.
    fn rank_at(&self, at: usize) -> usize {
        if self.is_head() { at + 1 } else { 0 }
    }

    fn beat(&mut self, now: Instant) {
        let mut beat = self.pulse.beat();
        beat.stepping &= self.leaving.is_none();
        self.send_all(&Message::Beat(beat));
        if self.is_head() {
            self.ledger.hear(0, beat, now);
        }
    }

    /// A link that breaks is noticed when it is read.
    fn send_all(&mut self, message: &Message) {
        for link in self.links.iter_mut().flatten() {
            let _ = link.send(message);
        }
    }

    fn listen(&mut self, heard: &[usize]) {
        let mut ended = Vec::new();
        for &at in heard {
            let rank = self.rank_at(at);
            let Some(link) = &mut self.links[at] else { continue };
            let _ = link.flush();
            let arrived = link.receive();
            for message in arrived.messages {
                self.take(at, message);
            }
            if let Some(why) = arrived.ended
                && self.links[at].is_some()
            {
                ended.push((rank, why));
            }
        }
        if let Some((rank, why)) = ended.into_iter().min() {
            let why = format!("{why}: it was killed, or its node is gone");
            self.lose(&Loss { rank, why });
        }
    }

    fn take(&mut self, at: usize, message: Message) {
        let rank = self.rank_at(at);
        match message {
            Message::Beat(beat) => {
                // Rank 0 judges who stands still; here only its silence counts.
                let stepping = beat.stepping && self.is_head();
                self.ledger.hear(rank, Beat { stepping, ..beat }, Instant::now());
            }
            Message::Value { what, value } => {
                self.values[rank] = Some((what, value));
                self.compare();
            }
            Message::Values(exchanged) => self.answer(exchanged),
            Message::Lost(reason) => {
                if self.is_head() {
                    self.send_all(&Message::Lost(reason.clone()));
                }
                self.end(&reason);
            }
            Message::Bye => {
                self.ledger.leave(rank);
                self.links[at] = None;
                self.compare();
            }
            // Of the meeting, which is over.
            _ => {}
        }
    }

    /// Whether this was the last order.
    fn obey(&mut self, order: Order) -> bool {
        match order {
            Order::Exchange { what, value, reply } => {
                self.reply = Some(reply);
                if self.is_head() {
                    self.values[0] = Some((what, value));
                    self.compare();
                } else if self.links[0].is_some() {
                    self.send_all(&Message::Value { what, value });
                } else {
                    self.answer(Exchanged::Mixed("rank 0 has left".to_owned()));
                }
            }
            Order::OnLoss(hook) => self.hook = Some(hook),
            Order::Abort(why) => self.lose(&Loss { rank: self.rank, why }),
            Order::Fail(why) => {
                let reason = self.describe(&Loss { rank: self.rank, why });
                self.send_all(&Message::Lost(reason));
                self.drain();
                return true;
            }
            Order::Disband => self.leaving = Some(Instant::now()),
            Order::Leave => self.leaving = Some(Instant::now() + self.limit),
        }
        false
    }

    /// Rank 0 leaves last, since without it nobody watches.
    fn may_leave(&mut self) -> bool {
        let Some(until) = self.leaving else { return false };
        if self.is_head() && Instant::now() < until && self.links.iter().any(Option::is_some) {
            return false;
        }
        self.send_all(&Message::Bye);
        self.drain();
        true
    }

    /// Answers an exchange once all have brought their value, or cannot any more.
    fn compare(&mut self) {
        if !self.is_head() || self.values.iter().all(Option::is_none) {
            return;
        }
        let gone =
            (0..self.values.len()).find(|rank| self.values[*rank].is_none() && self.ledger.has_left(*rank));
        let exchanged = if let Some(rank) = gone {
            Exchanged::Mixed(format!("rank {rank} has left"))
        } else {
            let values: Option<Vec<_>> = self.values.iter().cloned().collect();
            let Some(values) = values else { return };
            let first = &values[0];
            if let Some(rank) = values.iter().position(|(what, _)| *what != first.0) {
                Exchanged::Mixed(format!("rank 0 compares {}, rank {rank} {}", first.0, values[rank].0))
            } else if values.iter().all(|value| value == first) {
                Exchanged::Same(first.1.clone())
            } else {
                Exchanged::Each(values.into_iter().map(|(_, value)| value).collect())
            }
        };
        self.values.iter_mut().for_each(|value| *value = None);
        self.send_all(&Message::Values(exchanged.clone()));
        self.answer(exchanged);
    }

    fn answer(&mut self, exchanged: Exchanged) {
        if let Some(reply) = self.reply.take() {
            let _ = reply.send(exchanged);
        }
    }

    fn describe(&self, loss: &Loss) -> String {
        let Loss { rank, why } = loss;
        let step = match *rank == self.rank {
            true => self.pulse.beat().step,
            false => self.ledger.step(*rank),
        };
        format!("rank {rank} on node {} last seen at step {step}: {why}", self.table.host(*rank))
    }

    /// Tells all that a rank is lost, and ends this one.
    fn lose(&mut self, loss: &Loss) -> ! {
        let reason = self.describe(loss);
        self.send_all(&Message::Lost(reason.clone()));
        self.end(&reason)
    }

    fn drain(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(1);
        self.links.iter_mut().flatten().for_each(|link| link.drain(deadline));
    }

    fn end(&mut self, reason: &str) -> ! {
        self.drain();
        eprintln!(
            "{reason}\nrank {} ends; started again, the job goes on from its last checkpoint",
            self.rank
        );
        thread::spawn(|| {
            thread::sleep(LAST_DEEDS);
            let _ = kill_process(getpid(), Signal::KILL);
        });
        if let Some(hook) = self.hook.take() {
            hook(reason);
        }
        thread::sleep(LAST_WORDS);
        process::exit(EXIT_LOST)
    }
}
