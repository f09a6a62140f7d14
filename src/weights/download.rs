//! A file from an address, in as many requests as it takes.
//!
//! What was received of it before is kept and only the rest is asked for; a server that cannot do that sends all again.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use ureq::Agent;
use ureq::http::Response;
use ureq::tls::{RootCerts, TlsConfig};

use crate::report::Progress;

/// How much is taken, and how long is waited for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a file, at most.
    pub size: u64,
    /// For finding the server and connecting to it.
    pub connect: Duration,
    /// For its answer, and for each further piece of the file.
    pub silence: Duration,
    /// Requests after the first, each for what a broken connection left to do.
    pub retries: u32,
    /// Before each of these.
    pub pause: Duration,
    /// Whether a proxy is used where the environment names one (`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`).
    pub proxy: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            size: 4 << 30,
            connect: Duration::from_secs(20),
            silence: Duration::from_secs(60),
            retries: 4,
            pause: Duration::from_secs(2),
            proxy: true,
        }
    }
}

/// A file that could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DownloadError {
    /// No connection, or no answer on it.
    #[error("cannot reach `{url}`; {}", advice(source))]
    Unreachable {
        /// Where.
        url: String,
        /// Why.
        source: Box<ureq::Error>,
    },
    /// The server has something else to say.
    #[error("`{url}` is answered with {status}: {}", meaning(*status))]
    Status {
        /// Where.
        url: String,
        /// As HTTP has it.
        status: u16,
    },
    /// The connection broke, again and again.
    #[error(
        "the connection broke after {received} bytes of `{url}`; what was received is kept, and the same command goes on \
         from there"
    )]
    Cut {
        /// Where.
        url: String,
        /// In all.
        received: u64,
        /// Why.
        source: io::Error,
    },
    /// More than wanted.
    #[error("`{url}` has more than {limit} bytes; if that is as it should be, set --limit-gb")]
    TooLarge {
        /// Where.
        url: String,
        /// Bytes.
        limit: u64,
    },
    /// What was received cannot be kept.
    #[error("cannot write what `{url}` sends")]
    Write {
        /// Where it came from.
        url: String,
        /// Why.
        source: io::Error,
    },
}

fn advice(error: &ureq::Error) -> &'static str {
    let unsafe_connection = match error {
        ureq::Error::Rustls(_) | ureq::Error::Tls(_) | ureq::Error::Pem(_) => true,
        // What the other side shows is refused while it is read.
        ureq::Error::Io(error) => error.get_ref().is_some_and(|cause| cause.is::<rustls::Error>()),
        _ => false,
    };
    match error {
        _ if unsafe_connection => {
            "no safe connection: trusted are the certificates of this machine (package ca-certificates), or those in the \
             file that SSL_CERT_FILE names"
        }
        ureq::Error::TooManyRedirects | ureq::Error::RedirectFailed | ureq::Error::RequireHttpsOnly(_) => {
            "it leads on to nowhere; check the address"
        }
        _ => {
            "on a machine without a way out, fetch the file elsewhere, copy it here and give `harvest weights add NAME \
             FILE`; a proxy is taken from HTTPS_PROXY"
        }
    }
}

fn meaning(status: u16) -> &'static str {
    match status {
        401 | 403 => "access is refused",
        404 | 410 => "there is no such file; check the address",
        407 => "the proxy wants a name and a password, HTTPS_PROXY=http://NAME:PASSWORD@HOST:PORT",
        429 | 500..600 => "the server is busy or out of order; try again later",
        _ => "no file; check the address",
    }
}

/// Fills `file`, which may hold the beginning already, with what is at `url`; returns its SHA-256 in hexadecimal. `show`
/// begins to show how far it is, of a number of megabytes (0: not known).
///
/// # Errors
/// [`DownloadError`]; what was received until then is in `file`.
pub(super) fn download(
    url: &str,
    file: &mut File,
    limits: &Limits,
    show: &dyn Fn(u64) -> Progress,
) -> Result<String, DownloadError> {
    let mut part = Part::begun(url, file)?;
    let agent = agent(url, limits);
    let mut retries = limits.retries;
    loop {
        match receive(&agent, &mut part, limits, show) {
            Ok(()) => return Ok(part.sha256()),
            Err(DownloadError::Cut { .. }) if retries > 0 => {
                retries -= 1;
                std::thread::sleep(limits.pause);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Never steps down from https to http.
fn agent(url: &str, limits: &Limits) -> Agent {
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::PlatformVerifier)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let config = Agent::config_builder()
        .tls_config(tls.build())
        .https_only(url.starts_with("https://"))
        .http_status_as_error(false)
        .user_agent(concat!("harvest/", env!("CARGO_PKG_VERSION")))
        .timeout_resolve(Some(limits.connect))
        .timeout_connect(Some(limits.connect))
        .timeout_recv_response(Some(limits.silence))
        .timeout_per_read(Some(limits.silence));
    let config = if limits.proxy { config } else { config.proxy(None) };
    config.build().new_agent()
}

/// One request for what is missing.
fn receive(
    agent: &Agent,
    part: &mut Part<'_>,
    limits: &Limits,
    show: &dyn Fn(u64) -> Progress,
) -> Result<(), DownloadError> {
    const MEGABYTE: u64 = 1_000_000;
    let url = part.url;
    let mut request = agent.get(url).header("accept-encoding", "identity");
    if part.length > 0 {
        request = request.header("range", format!("bytes={}-", part.length));
    }
    let response = request.call();
    let response = response
        .map_err(|error| DownloadError::Unreachable { url: url.to_owned(), source: Box::new(error) })?;
    match (response.status().as_u16(), content_range(&response)) {
        (200, _) => part.begin_anew()?,
        (206, Some((Some(first), _))) if part.length > 0 && first == part.length => {}
        // Nothing is missing, for a download that ended before it was looked at.
        (416, Some((_, Some(total)))) if part.length > 0 && total == part.length => return Ok(()),
        (206 | 416, _) if part.length > 0 => {
            part.begin_anew()?;
            return receive(agent, part, limits, show);
        }
        (status, _) => return Err(DownloadError::Status { url: url.to_owned(), status }),
    }
    let too_large = || DownloadError::TooLarge { url: url.to_owned(), limit: limits.size };
    let total = response.body().content_length().map(|rest| rest.saturating_add(part.length));
    if total.is_some_and(|total| total > limits.size) {
        return Err(too_large());
    }
    let progress = show(total.map_or(0, |total| total.div_ceil(MEGABYTE)));
    progress.set(part.length / MEGABYTE);
    let mut body = response.into_body().into_reader();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match body.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) if part.length + count as u64 > limits.size => return Err(too_large()),
            Ok(count) => part.push(&buffer[..count])?,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(source) => return Err(part.cut(source)),
        }
        progress.set(part.length / MEGABYTE);
    }
    if total.is_some_and(|total| part.length < total) {
        return Err(part.cut(ErrorKind::UnexpectedEof.into()));
    }
    progress.set(part.length.div_ceil(MEGABYTE));
    progress.finish();
    Ok(())
}

/// First byte and total of `bytes FIRST-LAST/TOTAL` or `bytes */TOTAL`.
fn content_range<T>(response: &Response<T>) -> Option<(Option<u64>, Option<u64>)> {
    let range = response.headers().get("content-range")?.to_str().ok()?;
    let (range, total) = range.trim().strip_prefix("bytes ")?.split_once('/')?;
    let first = range.split_once('-').and_then(|(first, _)| first.trim().parse().ok());
    Some((first, total.trim().parse().ok()))
}

/// The beginning of a file.
struct Part<'a> {
    url: &'a str,
    file: &'a mut File,
    length: u64,
    hasher: Sha256,
}

impl<'a> Part<'a> {
    fn begun(url: &'a str, file: &'a mut File) -> Result<Self, DownloadError> {
        let mut part = Self { url, file, length: 0, hasher: Sha256::new() };
        let mut read = || {
            part.file.rewind()?;
            let mut buffer = vec![0; 1 << 16];
            loop {
                match part.file.read(&mut buffer)? {
                    0 => return Ok(()),
                    count => {
                        part.hasher.update(&buffer[..count]);
                        part.length += count as u64;
                    }
                }
            }
        };
        let read: io::Result<()> = read();
        read.map_err(|source| DownloadError::Write { url: url.to_owned(), source })?;
        Ok(part)
    }

    fn begin_anew(&mut self) -> Result<(), DownloadError> {
        (self.length, self.hasher) = (0, Sha256::new());
        let emptied = self.file.set_len(0).and_then(|()| self.file.rewind());
        emptied.map_err(|source| DownloadError::Write { url: self.url.to_owned(), source })
    }

    fn push(&mut self, bytes: &[u8]) -> Result<(), DownloadError> {
        let written = self.file.write_all(bytes);
        written.map_err(|source| DownloadError::Write { url: self.url.to_owned(), source })?;
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    fn cut(&self, source: io::Error) -> DownloadError {
        DownloadError::Cut { url: self.url.to_owned(), received: self.length, source }
    }

    fn sha256(self) -> String {
        self.hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_is_not_taken_for_a_missing_network() {
        let stranger = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        assert!(advice(&ureq::Error::Io(io::Error::other(stranger))).contains("SSL_CERT_FILE"));
        assert!(advice(&ureq::Error::HostNotFound).contains("harvest weights add"));
    }
}
