//! A server of one file that answers each request as it was told to, and then is gone.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// What is done with a request.
#[derive(Clone)]
pub enum Answer {
    /// The file, or what is asked for of it.
    File,
    /// The file from its beginning, whatever is asked for.
    Whole,
    /// The file, without saying how long it is.
    Unmeasured,
    /// The file's length and so many of its bytes, then nothing.
    Cut(usize),
    /// A status and its words.
    Status(&'static str),
    /// Another path.
    Redirect(&'static str),
    /// No answer for a while.
    Silence(Duration),
    /// A proxy's: the connection is made, and the file sent through it.
    Tunnel,
}

pub struct Server {
    address: String,
    heads: Receiver<String>,
}

impl Server {
    /// Answers as many requests as there are `answers`.
    pub fn of(file: &[u8], answers: &[Answer]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address").to_string();
        let (sender, heads) = channel();
        let (file, answers) = (file.to_vec(), answers.to_vec());
        std::thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().expect("a connection");
                let mut asked = head(&stream);
                if let Answer::Tunnel = answer {
                    write!(stream, "HTTP/1.1 200 Connected\r\n\r\n").expect("an open connection");
                    asked += &head(&stream);
                }
                // The other side may hang up whenever it has seen enough.
                let _ = respond(&mut stream, &file, &asked, &answer);
                let _ = sender.send(asked);
            }
        });
        Self { address, heads }
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    /// The head of the next request, in small letters.
    pub fn asked(&self) -> String {
        self.heads.recv_timeout(Duration::from_secs(20)).expect("a request").to_ascii_lowercase()
    }
}

fn head(stream: &TcpStream) -> String {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let mut head = String::new();
    for line in lines.by_ref().take_while(|line| !line.is_empty()) {
        head += &line;
        head.push('\n');
    }
    head
}

fn respond(stream: &mut TcpStream, file: &[u8], asked: &str, answer: &Answer) -> std::io::Result<()> {
    let first = asked
        .to_ascii_lowercase()
        .lines()
        .find_map(|line| line.strip_prefix("range: bytes=")?.trim_end_matches('-').parse::<usize>().ok());
    let length = file.len();
    match (answer, first) {
        (Answer::File, Some(first)) if first >= length => {
            write!(stream, "HTTP/1.1 416 No\r\ncontent-range: bytes */{length}\r\ncontent-length: 0\r\n\r\n")
        }
        (Answer::File, Some(first)) => {
            let last = length - 1;
            let rest = length - first;
            write!(
                stream,
                "HTTP/1.1 206 Part\r\ncontent-range: bytes {first}-{last}/{length}\r\ncontent-length: {rest}\r\n\
                 connection: close\r\n\r\n"
            )?;
            stream.write_all(&file[first..])
        }
        (Answer::File | Answer::Whole | Answer::Tunnel, _) => {
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n")?;
            stream.write_all(file)
        }
        (Answer::Unmeasured, _) => {
            write!(stream, "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")?;
            stream.write_all(file)
        }
        (Answer::Cut(sent), _) => {
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n")?;
            stream.write_all(&file[..*sent])
        }
        (Answer::Status(status), _) => {
            write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        }
        (Answer::Redirect(path), _) => {
            write!(
                stream,
                "HTTP/1.1 302 There\r\nlocation: {path}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            )
        }
        (Answer::Silence(time), _) => {
            std::thread::sleep(*time);
            Ok(())
        }
    }
}
