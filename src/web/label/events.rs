//! Changes as they happen, for all who have a page open.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{self, KeepAlive, Sse};
use axum::routing::get;
use futures_util::stream::{self, Stream, StreamExt};
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;

use crate::web::desk::{AtDesk, Event};
use crate::web::state::App;

/// A line that means nothing keeps proxies from ending a silent connection.
const ALIVE: Duration = Duration::from_secs(15);

pub fn routes() -> Router<App> {
    Router::new().route("/api/events", get(events))
}

async fn events(
    State(app): State<App>,
    AtDesk(desk): AtDesk,
    headers: HeaderMap,
) -> Sse<impl Stream<Item = Result<sse::Event, Infallible>>> {
    let (told, instance, last) = desk.watch();
    let id = move |number: u64| format!("{instance:016x}-{number}");
    // A page that comes back says what it heard last. If that was not the last word, it loads anew.
    let heard = headers.get("last-event-id").and_then(|value| value.to_str().ok());
    let missed = heard.is_some_and(|heard| heard != id(last));
    let first = stream::iter(missed.then(|| (last, Arc::new(Event::Reload))));
    let mut latest = last;
    let others = BroadcastStream::new(told).map(move |told| match told {
        Ok(told) => {
            latest = told.number;
            (told.number, told.event)
        }
        Err(BroadcastStreamRecvError::Lagged(events)) => {
            latest += events;
            (latest, Arc::new(Event::Reload))
        }
    });
    let sent = first.chain(others).map(move |(number, event)| {
        let data = serde_json::to_string(&*event).expect("plain fields always become JSON");
        Ok(sse::Event::default().id(id(number)).data(data))
    });
    let mut stopping = app.stopping();
    let stopped = async move { drop(stopping.wait_for(|stop| *stop).await) };
    Sse::new(sent.take_until(stopped)).keep_alive(KeepAlive::new().interval(ALIVE))
}
