//! Answers that are made while they are sent: a file of a million lines is never in memory.

use std::io::{self, BufWriter, Write};

use axum::body::{Body, Bytes};
use axum::http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use tokio::sync::mpsc::{Sender, channel};
use tokio_stream::wrappers::ReceiverStream;

use crate::web::error::WebError;

/// Bytes of a piece.
const PIECE: usize = 1 << 16;
/// Pieces that wait for a slow reader before the writer has to.
const PIECES: usize = 4;

/// What is sent: a piece, or why there will be no more.
type Sent = Result<Bytes, WebError>;

/// The writing end of an answer; each write becomes a piece.
struct Pieces(Sender<Sent>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes)));
        // Whoever asked has gone.
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A download called `name` of what `fill` writes, on a thread of its own. Trouble before the first piece is told in words;
/// later trouble ends the transfer in the middle, so that no browser takes half a file for a whole one.
///
/// # Errors
/// What `fill` met before it had written anything.
pub async fn download(
    name: &str,
    kind: &'static str,
    fill: impl FnOnce(&mut (dyn Write + Send)) -> Result<(), WebError> + Send + 'static,
) -> Result<Response, WebError> {
    let (sender, mut pieces) = channel::<Sent>(PIECES);
    tokio::task::spawn_blocking(move || {
        let mut out = BufWriter::with_capacity(PIECE, Pieces(sender.clone()));
        let filled =
            fill(&mut out).and_then(|()| out.flush().map_err(|error| WebError::Bad(error.to_string())));
        // What is still held must not be sent after a failure.
        let _ = out.into_parts();
        if let Err(error) = filled {
            let _ = sender.blocking_send(Err(error));
        }
    });
    let first = match pieces.recv().await {
        None => Bytes::new(),
        Some(first) => first?,
    };
    let rest = ReceiverStream::new(pieces);
    let body =
        stream::once(async { Ok(first) }).chain(rest).map(|piece| piece.map_err(|error| error.to_string()));
    let headers = [
        (CONTENT_TYPE, kind.to_owned()),
        (CONTENT_DISPOSITION, format!("attachment; filename=\"{}\"", plain_name(name))),
        (CACHE_CONTROL, "no-store".to_owned()),
    ];
    Ok((headers, Body::from_stream(body)).into_response())
}

/// A name that needs no quoting and means nothing to any system.
fn plain_name(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    name.trim_start_matches('.').chars().map(plain).take(120).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_downloads_are_plain() {
        assert_eq!(plain_name("leaves \"1\"\r\n/../labels.csv"), "leaves__1____.._labels.csv");
        assert_eq!(plain_name("..hidden"), "hidden");
    }

    #[tokio::test]
    async fn early_trouble_is_told_and_late_trouble_breaks_the_file() {
        let early = download("x", "text/plain", |_| Err(WebError::Bad("no".into()))).await;
        assert!(early.is_err());
        let late = download("x", "text/plain", |out| {
            out.write_all(&[b'x'; 3 * PIECE]).map_err(|error| WebError::Bad(error.to_string()))?;
            Err(WebError::Bad("late".into()))
        });
        let late = late.await.expect("it began well");
        assert!(axum::body::to_bytes(late.into_body(), usize::MAX).await.is_err());
        let whole = download("x", "text/plain", |out| {
            out.write_all(b"hello").map_err(|error| WebError::Bad(error.to_string()))
        });
        let whole = whole.await.expect("all is well");
        assert_eq!(&axum::body::to_bytes(whole.into_body(), 100).await.expect("whole")[..], b"hello");
    }
}
