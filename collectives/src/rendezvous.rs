//! All ranks meet at rank 0, and begin together or not at all.
//!
//! Each tells who it is and what it brings. Rank 0 waits for all, and answers all with the table of ranks, or with the
//! reason why there is no job; that answer is the same on every rank. A rank of another job that has come to this port
//! is sent away without harm.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit, setrlimit};

use crate::address;
use crate::table::RankTable;
use crate::wire::{Hello, Link, Message, wait};

/// How long a rank whose fate is sealed waits for the others, to tell them too.
const LINGER: Duration = Duration::from_secs(10);
/// How long a port may be held by a job that is just ending.
const PORT_PATIENCE: Duration = Duration::from_secs(5);
/// How long the first answer of rank 0 may take.
const ANSWER: Duration = Duration::from_secs(10);

/// Why ranks did not meet.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MeetError {
    /// The port of rank 0 is not free.
    #[error(
        "rank 0 cannot listen on port {port} of {host}: {source}; another job or program may hold it (`ss -ltnp` \
         shows which); set `HARVEST_PORT` to a free one, the same for all ranks"
    )]
    Listen {
        /// The port.
        port: u16,
        /// This machine.
        host: String,
        /// The system's reason.
        source: io::Error,
    },
    /// Rank 0 is not there.
    #[error(
        "rank {rank} on {own_host} tried for {seconds} s to reach rank 0 at {host}, port {port}: {reason}; check that \
         rank 0 was started, that {host} is the right node and that no firewall is between; `HARVEST_PORT` chooses \
         another port"
    )]
    Unreachable {
        /// This rank.
        rank: usize,
        /// Its machine.
        own_host: String,
        /// Where it looked.
        host: String,
        /// The port.
        port: u16,
        /// For how long.
        seconds: u64,
        /// What happened last.
        reason: String,
    },
    /// Another job listens there.
    #[error(
        "port {port} on {host} belongs to another job ({theirs}; this is {own}); set `HARVEST_PORT` to a free port, the \
         same for all ranks"
    )]
    Stranger {
        /// Where.
        host: String,
        /// The port.
        port: u16,
        /// The other job.
        theirs: String,
        /// This job.
        own: String,
    },
    /// What rank 0 told all ranks.
    #[error("{0}")]
    Refused(String),
}

/// Ranks that have met.
#[derive(Debug)]
pub(crate) struct Met {
    pub table: RankTable,
    pub links: Links,
}

/// Connections to others: a star around rank 0.
#[derive(Debug)]
pub(crate) enum Links {
    /// Of rank 0, to ranks 1 and up.
    Head(Vec<Link>),
    /// To rank 0.
    Member(Link),
}

/// The port on which rank 0 waits; 0 lets the system choose.
pub(crate) fn listen(port: u16, host: &str) -> Result<TcpListener, MeetError> {
    let deadline = Instant::now() + PORT_PATIENCE;
    loop {
        // Takes IPv4 too, where the machine has both.
        let any = TcpListener::bind((IpAddr::from(Ipv6Addr::UNSPECIFIED), port));
        let any = match any {
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                TcpListener::bind((IpAddr::from(Ipv4Addr::UNSPECIFIED), port))
            }
            any => any,
        };
        match any {
            Ok(listener) => return Ok(listener),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(100));
            }
            Err(source) => return Err(MeetError::Listen { port, host: host.to_owned(), source }),
        }
    }
}

/// Rank 0 waits for all others.
pub(crate) fn host(listener: &TcpListener, own: &Hello, limit: Duration) -> Result<Met, MeetError> {
    let mut table = Door::new(own, Instant::now() + limit);
    allow_connections(own.world_size);
    // A blocking listener would stop all that follow a guest who hangs up at once.
    listener.set_nonblocking(true).map_err(|error| MeetError::Refused(format!("cannot listen: {error}")))?;
    while !table.is_complete() && Instant::now() < table.deadline {
        while let Ok((stream, _)) = listener.accept() {
            table.guests.extend(Link::new(stream).map(|link| (link, Instant::now() + ANSWER)));
        }
        table.hear();
        if table.is_complete() {
            break;
        }
        let seated = table.seats.iter().flatten().map(|(_, link)| (link.as_fd(), link.has_unsent()));
        let guests = table.guests.iter().map(|(link, _)| (link.as_fd(), false));
        let files: Vec<_> = std::iter::once((listener.as_fd(), false)).chain(seated).chain(guests).collect();
        let left = table.deadline.saturating_duration_since(Instant::now());
        wait(&files, left.min(Duration::from_millis(500)));
        // A thousand ranks come one by one; looking at all of them for each would take long.
        thread::sleep(Duration::from_millis(5));
    }
    table.decide(limit)
}

/// A connection to each rank, where systems allow 1,024 open files unless asked for more.
fn allow_connections(ranks: usize) {
    let needed = ranks as u64 + 512;
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < needed) {
        limit.current = limit.maximum.map_or(Some(needed), |maximum| Some(needed.min(maximum)));
        // If this is refused, ranks that cannot be let in are named as missing.
        let _ = setrlimit(Resource::Nofile, limit);
    }
}

/// Who has come so far.
struct Door<'a> {
    own: &'a Hello,
    /// Of ranks 1 and up.
    seats: Vec<Option<(Hello, Link)>>,
    /// Those who have not said who they are, and until when they must.
    guests: Vec<(Link, Instant)>,
    /// Those for whom there is no seat.
    extra: Vec<Link>,
    fault: Option<String>,
    deadline: Instant,
}

impl<'a> Door<'a> {
    fn new(own: &'a Hello, deadline: Instant) -> Self {
        let seats = (1..own.world_size).map(|_| None).collect();
        Self { own, seats, guests: Vec::new(), extra: Vec::new(), fault: None, deadline }
    }

    fn is_complete(&self) -> bool {
        self.seats.iter().all(Option::is_some)
    }

    /// Hears what guests say, and whether those who sit are still there.
    fn hear(&mut self) {
        for (mut link, until) in std::mem::take(&mut self.guests) {
            let arrived = link.receive();
            match arrived.messages.into_iter().next() {
                Some(Message::Hello(hello)) => self.admit(hello, link),
                None if arrived.ended.is_none() && Instant::now() < until => self.guests.push((link, until)),
                // Someone else's program.
                _ => {}
            }
        }
        for at in 0..self.seats.len() {
            let Some((hello, link)) = &mut self.seats[at] else { continue };
            if let Some(why) = link.receive().ended {
                let (rank, host) = (hello.rank, hello.passport.host.clone());
                self.fail(format!("rank {rank} on node {host} ended before all ranks had met: {why}"));
                self.seats[at] = None;
            }
        }
    }

    fn admit(&mut self, hello: Hello, mut link: Link) {
        let place = |hello: &Hello| format!("process {} on node {}", hello.process, hello.passport.host);
        if hello.job != self.own.job {
            let _ = link.send(&Message::Stranger(self.own.job.clone()));
            return;
        }
        let own = self.own;
        let free = hello.rank.checked_sub(1).and_then(|at| self.seats.get(at));
        let fault = if hello.world_size != own.world_size {
            format!(
                "ranks disagree on their number: rank {} ({}) was started as one of {}, rank 0 ({}) as one of {}; start \
                 all of them with the same number, or with one `srun`",
                hello.rank,
                place(&hello),
                hello.world_size,
                place(own),
                own.world_size
            )
        } else if let Some(None) = free {
            let left = self.deadline.saturating_duration_since(Instant::now());
            // If it hangs up now, the next look at it tells.
            let _ = link.send(&Message::Seated(left));
            let at = hello.rank - 1;
            self.seats[at] = Some((hello, link));
            return;
        } else {
            let first = free.and_then(Option::as_ref).map_or(own, |(hello, _)| hello);
            format!(
                "rank {} has come twice: {} and {}; each rank needs a number of its own. If these are two jobs that share a \
                 port, set `HARVEST_PORT` or `HARVEST_JOB` to something else for one of them",
                hello.rank,
                place(first),
                place(&hello)
            )
        };
        let _ = link.send(&Message::Seated(LINGER));
        self.extra.push(link);
        self.fail(fault);
    }

    /// The job will not be; ranks that are still on their way are waited for a little, so that they are told as well.
    fn fail(&mut self, fault: String) {
        let left = self.deadline.saturating_duration_since(Instant::now());
        self.deadline = Instant::now() + left.min(LINGER);
        self.fault.get_or_insert(fault);
    }

    /// Answers everyone.
    fn decide(mut self, limit: Duration) -> Result<Met, MeetError> {
        let missing = self.seats.iter().enumerate().filter(|(_, seat)| seat.is_none()).map(|(at, _)| at + 1);
        let missing: Vec<_> = missing.map(|rank| rank.to_string()).collect();
        let passports = self.seats.iter().flatten().map(|(hello, _)| hello.passport.clone());
        let table = RankTable(std::iter::once(self.own.passport.clone()).chain(passports).collect());
        let differences = table.differences();
        let fault = if let Some(fault) = self.fault.take() {
            Some(fault)
        } else if !missing.is_empty() {
            Some(format!(
                "of {} ranks, {} did not come to rank 0 on node {} within {} s: rank {}; check that they were started, and \
                 their own messages",
                self.own.world_size,
                missing.len(),
                self.own.passport.host,
                limit.as_secs(),
                missing.join(", ")
            ))
        } else if !differences.is_empty() {
            Some(format!("ranks must have the same {}:\n{table}", differences.join(" and ")))
        } else {
            None
        };
        let answer = match &fault {
            Some(fault) => Message::Refused(fault.clone()),
            None => Message::Welcome(table.clone()),
        };
        let mut links: Vec<_> = self.seats.into_iter().flatten().map(|(_, link)| link).collect();
        for link in links.iter_mut().chain(&mut self.extra) {
            // Whoever hangs up now is missed by the watch.
            let _ = link.send(&answer);
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        links.iter_mut().chain(&mut self.extra).for_each(|link| link.drain(deadline));
        match fault {
            Some(fault) => Err(MeetError::Refused(fault)),
            None => Ok(Met { table, links: Links::Head(links) }),
        }
    }
}

/// Where rank 0 may be.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// Names or addresses, to be tried in turn.
    pub hosts: Vec<String>,
    pub port: u16,
    /// Whether Slurm may know names that the system does not.
    pub asks_slurm: bool,
}

/// The other ranks go to rank 0.
pub(crate) fn visit(place: &Place, own: &Hello, limit: Duration) -> Result<Met, MeetError> {
    let start = Instant::now();
    let mut pause = Duration::from_millis(20);
    let mut stranger_since: Option<Instant> = None;
    loop {
        let reason = match knock(place, own, limit) {
            Knock::Met(met) => return Ok(met),
            Knock::Refused(reason) => return Err(MeetError::Refused(reason)),
            Knock::Stranger(theirs) => {
                // It may be the end of a job, with ours to follow.
                let since = *stranger_since.get_or_insert_with(Instant::now);
                if since.elapsed() > PORT_PATIENCE.min(limit / 2) {
                    let (host, port, own) = (place.hosts.join(", "), place.port, name_of(&own.job));
                    return Err(MeetError::Stranger { host, port, theirs: name_of(&theirs), own });
                }
                format!("another job is there: {theirs}")
            }
            Knock::Failed(reason) => reason,
        };
        if start.elapsed() >= limit {
            return Err(MeetError::Unreachable {
                rank: own.rank,
                own_host: own.passport.host.clone(),
                host: place.hosts.join(", "),
                port: place.port,
                seconds: start.elapsed().as_secs_f64().ceil() as u64,
                reason,
            });
        }
        thread::sleep(pause.min(limit.saturating_sub(start.elapsed())));
        pause = (pause * 2).min(Duration::from_millis(500));
    }
}

fn name_of(job: &str) -> String {
    if job.is_empty() { "one without a name".to_owned() } else { job.to_owned() }
}

/// What became of one visit.
enum Knock {
    Met(Met),
    Refused(String),
    Stranger(String),
    Failed(String),
}

fn knock(place: &Place, own: &Hello, limit: Duration) -> Knock {
    let mut reason = "no address to try".to_owned();
    for host in &place.hosts {
        let addresses = match address::resolve(host, place.port, place.asks_slurm) {
            Ok(addresses) => addresses,
            Err(error) => {
                reason = error;
                continue;
            }
        };
        for address in addresses {
            let link =
                TcpStream::connect_timeout(&address, limit.min(Duration::from_secs(2))).and_then(Link::new);
            match link {
                Ok(link) => match introduce(link, own, limit, address) {
                    Knock::Failed(error) => reason = error,
                    answer => return answer,
                },
                Err(error) => reason = format!("{address}: {error}"),
            }
        }
    }
    Knock::Failed(reason)
}

/// Says who this is, and waits for the answer.
fn introduce(mut link: Link, own: &Hello, limit: Duration, address: SocketAddr) -> Knock {
    if let Err(error) = link.send(&Message::Hello(own.clone())) {
        return Knock::Failed(format!("{address}: {error}"));
    }
    let mut deadline = Instant::now() + ANSWER.min(limit);
    loop {
        let arrived = link.receive();
        let mut messages = arrived.messages.into_iter();
        while let Some(message) = messages.next() {
            match message {
                // Its clock runs from its own start; a little more for the answer's way.
                Message::Seated(left) => deadline = Instant::now() + left + ANSWER,
                Message::Welcome(table) => {
                    // Another rank may already be lost.
                    link.put_back(messages);
                    return Knock::Met(Met { table, links: Links::Member(link) });
                }
                Message::Refused(reason) => return Knock::Refused(reason),
                Message::Stranger(job) => return Knock::Stranger(job),
                _ => {}
            }
        }
        if let Some(why) = arrived.ended {
            return Knock::Failed(format!("{address}: {why}"));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Knock::Failed(format!(
                "{address}: something listens there and does not answer as rank 0 does"
            ));
        }
        wait(&[(link.as_fd(), link.has_unsent())], left);
    }
}
