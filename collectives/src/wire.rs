//! Messages of the control plane, and a connection that carries them without ever blocking.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};

use crate::table::{Passport, RankTable};

/// Opens every message, so that other programs on the port are noticed at once. Its last byte is the version.
const MAGIC: [u8; 4] = *b"HRV\x01";
/// Longer ones are not ours. A table of 1,024 ranks has 200 kB.
const LONGEST: usize = 64 << 20;

/// What ranks tell each other apart from data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Message {
    /// The first word of a rank.
    Hello(Hello),
    /// The answer to it, while others are awaited: for how long at most.
    Seated(Duration),
    /// All have met.
    Welcome(RankTable),
    /// The job ends before it has begun.
    Refused(String),
    /// Another job has this port.
    Stranger(String),
    /// Once in a while.
    Beat(Beat),
    /// A rank's part in an exchange.
    Value { what: String, value: String },
    /// What came of it.
    Values(Exchanged),
    /// A rank is gone, and with it the job.
    Lost(String),
    /// An end of stream after this is no death.
    Bye,
}

/// Who comes, and with what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub job: String,
    pub rank: usize,
    pub world_size: usize,
    pub process: u32,
    pub passport: Passport,
}

/// How far a rank is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Beat {
    /// Its step.
    pub step: u64,
    /// Collective operations it has begun, which tells ranks within one step apart.
    pub operations: u64,
    /// Whether it is expected to move.
    pub stepping: bool,
}

/// What all ranks brought to an exchange.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Exchanged {
    /// The same.
    Same(String),
    /// In the order of ranks.
    Each(Vec<String>),
    /// They were not doing the same.
    Mixed(String),
}

/// A connection to another rank.
#[derive(Debug)]
pub(crate) struct Link {
    stream: TcpStream,
    received: Vec<u8>,
    unsent: Vec<u8>,
    /// Messages that came with one that ended the meeting.
    later: Vec<Message>,
}

/// What arrived, and whether more can.
#[derive(Debug, Default)]
pub(crate) struct Arrived {
    pub messages: Vec<Message>,
    /// Why there will be no more.
    pub ended: Option<String>,
}

impl Link {
    pub fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        // A message is one packet; waiting for more of them delays it by up to 40 ms.
        stream.set_nodelay(true)?;
        Ok(Self { stream, received: Vec::new(), unsent: Vec::new(), later: Vec::new() })
    }

    /// Sends what the system takes now, and keeps the rest for [`Self::flush`].
    pub fn send(&mut self, message: &Message) -> io::Result<()> {
        let text = serde_json::to_vec(message)?;
        self.unsent.extend_from_slice(&MAGIC);
        self.unsent.extend_from_slice(&(text.len() as u32).to_le_bytes());
        self.unsent.extend_from_slice(&text);
        self.flush()
    }

    pub fn flush(&mut self) -> io::Result<()> {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Gives what is unsent until `deadline` to go out. What then is left has nobody who reads it.
    pub fn drain(&mut self, deadline: Instant) {
        while self.flush().is_ok() && !self.unsent.is_empty() && Instant::now() < deadline {
            wait(&[(self.as_fd(), true)], Duration::from_millis(20));
        }
    }

    pub fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Keeps messages for the next [`Self::receive`].
    pub fn put_back(&mut self, messages: impl IntoIterator<Item = Message>) {
        self.later.extend(messages);
    }

    /// Whether there are messages already.
    pub fn has_kept(&self) -> bool {
        !self.later.is_empty()
    }

    /// What is there.
    pub fn receive(&mut self) -> Arrived {
        let mut arrived = Arrived::default();
        let mut buffer = [0; 16 << 10];
        while arrived.ended.is_none() {
            match self.stream.read(&mut buffer) {
                Ok(0) => arrived.ended = Some("the connection has ended".to_owned()),
                Ok(count) => {
                    self.received.extend_from_slice(&buffer[..count]);
                    if count < buffer.len() {
                        // That was all; an end of stream shows next time.
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => arrived.ended = Some(format!("the connection broke: {error}")),
            }
        }
        arrived.messages = std::mem::take(&mut self.later);
        match self.unpack() {
            Ok(messages) => arrived.messages.extend(messages),
            Err(error) => arrived.ended = Some(error.to_string()),
        }
        arrived
    }

    fn unpack(&mut self) -> Result<Vec<Message>, NotOurs> {
        let (mut messages, mut rest) = (Vec::new(), self.received.as_slice());
        loop {
            let seen = rest.len().min(MAGIC.len());
            if rest[..seen] != MAGIC[..seen] {
                return Err(NotOurs);
            }
            let Some((length, body)) = rest.get(4..).and_then(<[u8]>::split_first_chunk::<4>) else { break };
            let length = u32::from_le_bytes(*length) as usize;
            if length > LONGEST {
                return Err(NotOurs);
            }
            let Some(text) = body.get(..length) else { break };
            messages.push(serde_json::from_slice(text).map_err(|_| NotOurs)?);
            rest = &body[length..];
        }
        let used = self.received.len() - rest.len();
        self.received.drain(..used);
        Ok(messages)
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// Another program, or another version.
#[derive(Debug, thiserror::Error)]
#[error("what is at the other end is not this program, or another version of it")]
struct NotOurs;

/// Waits until one of the files can be read (or, where asked for, written), at most for `time`. Tells for each of them
/// whether something has happened.
pub(crate) fn wait(files: &[(BorrowedFd<'_>, bool)], time: Duration) -> Vec<bool> {
    let flags = |writes: bool| if writes { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
    let mut files: Vec<_> = files.iter().map(|(file, writes)| PollFd::new(file, flags(*writes))).collect();
    let time = Timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) };
    // Whatever the reason for waking up, what has happened is told.
    let _ = poll(&mut files, Some(&time));
    files.iter().map(|file| !file.revents().is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn pair() -> (TcpStream, Link) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
        let address = listener.local_addr().expect("it listens");
        let stream = TcpStream::connect(address).expect("it listens");
        let (other, _) = listener.accept().expect("one has come");
        (stream, Link::new(other).expect("a stream"))
    }

    #[test]
    fn messages_arrive_whole_and_in_order() {
        let (stream, mut there) = pair();
        let mut here = Link::new(stream).expect("a stream");
        // More than the system buffers.
        let long = Message::Lost("x".repeat(4 << 20));
        let sent = [Message::Bye, long, Message::Beat(Beat { step: 7, operations: 3, stepping: true })];
        sent.iter().for_each(|message| here.send(message).expect("it listens"));
        let mut got = Vec::new();
        while got.len() < sent.len() {
            here.flush().expect("it listens");
            let arrived = there.receive();
            assert_eq!(arrived.ended, None);
            got.extend(arrived.messages);
        }
        assert!(got == sent);
        drop(here);
        wait(&[(there.as_fd(), false)], Duration::from_secs(5));
        assert!(there.receive().ended.is_some());
    }

    #[test]
    fn other_programs_are_noticed() {
        for words in [&b"GET / HTTP/1.1"[..], b"HRV\x02", b"HRV\x01\xff\xff\xff\xff", b"HRV\x01\x02\0\0\0{}"]
        {
            let (mut stream, mut link) = pair();
            stream.write_all(words).expect("it listens");
            wait(&[(link.as_fd(), false)], Duration::from_secs(5));
            let ended = link.receive().ended.expect("that is no message");
            assert!(ended.contains("not this program"), "{ended}");
        }
    }
}
