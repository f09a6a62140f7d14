//! The page where experts work: define classes, label, train, look, correct, take away.
//!
//! Everything the page does is done by the rooms below; here are addresses, forms and what is sent to a browser. Every page
//! and script is built into the program, and every address is relative (see [`layout`]), so that any prefix works.
//!
//! ```text
//! security ─▶ prefix ─▶ router ─┬▶ home, create, folders        projects there are, and new ones
//!                               └▶ p/KEY/ ─▶ Desk ─┬▶ overview   where a project stands, and what to do next
//!                                                  ├▶ images     what a scan found
//!                                                  ├▶ label      grid, classes, history, changes as they happen
//!                                                  ├▶ work       scan, cluster, train: jobs, watched
//!                                                  ├▶ results    what a model is worth, and where it fails
//!                                                  └▶ take       model, labels, predictions
//! ```

mod assets;
mod create;
mod desk;
mod error;
mod folders;
mod home;
mod images;
mod known;
mod label;
mod layout;
mod overview;
mod report;
mod results;
mod scribe;
mod security;
mod state;
mod take;
mod tally;
mod work;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use axum::Router;

pub use error::WebError;
pub use security::{Announce, Secret, SecretError, write_private};
pub use state::{App, AppState};

/// Time that requests have to come to their end once the server is told to stop.
const GRACE: Duration = Duration::from_secs(5);

/// How to serve.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// Where to listen; port 0 takes any that is free.
    pub address: SocketAddr,
    /// Folders below which projects and images may lie; nothing outside of them is ever read.
    pub roots: Vec<PathBuf>,
    /// What a proxy in front leaves before the path, such as `/node/n17/8080`; empty without one. Requests that come without
    /// it are understood too.
    pub prefix: String,
    /// Names under which a proxy on this machine shows the page.
    pub behind: Vec<String>,
    /// The project to begin with.
    pub project: Option<PathBuf>,
    /// What opens the page; without it one-time addresses do.
    pub secret: Option<Secret>,
    /// What visitors are called who give no name.
    pub name: String,
    /// Folder for what is remembered between two starts: sessions, and projects used lately. Without it nothing is.
    pub memory: Option<PathBuf>,
}

impl ServeOptions {
    /// On this machine alone, with one-time addresses and without memory.
    pub fn local(roots: Vec<PathBuf>) -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            roots,
            prefix: String::new(),
            behind: Vec::new(),
            project: None,
            secret: None,
            name: "somebody".into(),
            memory: None,
        }
    }
}

/// Why the page is not served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// Everybody on the network could come in.
    #[error(
        "{address} can be reached from other machines, so a secret is needed: add --secret-file FILE (it is made if it does not \
        exist), or leave out --host"
    )]
    NoSecret {
        /// The address.
        address: SocketAddr,
    },
    /// The address cannot be had.
    #[error("cannot listen on {address}; another program may do so already: choose another with --port")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The project to begin with cannot be opened.
    #[error(transparent)]
    Project(#[from] WebError),
    /// The server ended with an error.
    #[error("the server ended")]
    Serve(#[source] std::io::Error),
}

/// Serves until SIGINT, SIGTERM or SIGHUP; then answers what was asked, and ends. `announce` is told each address at which one
/// may come in.
///
/// # Errors
/// If the address cannot be had, is open to others without a secret, or the project cannot be opened.
pub fn serve(mut options: ServeOptions, announce: Announce) -> Result<(), ServeError> {
    let address = options.address;
    if !address.ip().is_loopback() && options.secret.is_none() {
        return Err(ServeError::NoSecret { address });
    }
    let runtime = tokio::runtime::Runtime::new().map_err(ServeError::Serve)?;
    runtime.block_on(async {
        let listen = tokio::net::TcpListener::bind(address).await;
        let listener = listen.map_err(|source| ServeError::Listen { address, source })?;
        options.address = listener.local_addr().map_err(ServeError::Serve)?;
        let app = AppState::with(options, announce)?;
        let asked = asked_to_stop().map_err(ServeError::Serve)?;
        app.door.announce();
        let service = router(app.clone()).into_make_service_with_connect_info::<security::Peer>();
        let mut stopping = app.stopping();
        let stopped = async move { drop(stopping.wait_for(|stop| *stop).await) };
        let server = axum::serve(security::Patient::new(listener), service).with_graceful_shutdown(stopped);
        let late = async {
            asked.await;
            app.stop();
            // Pages that are open hold their connection for as long as they like.
            tokio::time::sleep(GRACE).await;
        };
        tokio::select! {
            ended = server => ended.map_err(ServeError::Serve),
            () = late => Ok(()),
        }
    })
    // Leaving drops the runtime, which waits for writes that have begun.
}

/// Ends with the first signal to stop.
fn asked_to_stop() -> std::io::Result<impl Future<Output = ()>> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hangup = signal(SignalKind::hangup())?;
        Ok(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
        })
    }
    #[cfg(not(unix))]
    Ok(async { drop(tokio::signal::ctrl_c().await) })
}

/// All addresses of the page.
pub fn router(app: App) -> Router {
    security::guard(routes(), app.clone()).with_state(app)
}

/// All addresses, without what protects them.
fn routes() -> Router<App> {
    let project = Router::new()
        .merge(images::routes())
        .merge(label::routes())
        .merge(work::routes())
        .merge(results::routes())
        .merge(take::routes());
    Router::new()
        .merge(home::routes())
        .merge(create::routes())
        .merge(folders::routes())
        .merge(overview::routes())
        .merge(assets::routes())
        .nest("/p/{key}", project)
        .fallback(error::nowhere)
}

/// For tests of pages: as [`router`], with somebody called `tester` already come in.
#[cfg(test)]
pub(crate) fn signed_in(app: App) -> Router {
    let visitor = security::Visitor { name: "tester".into() };
    routes().layer(axum::Extension(visitor)).with_state(app)
}

/// Does work that takes time where no other request waits for it.
///
/// # Errors
/// If the work ends with one, or breaks down.
async fn off_thread<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, error::WebError>
where
    T: Send + 'static,
    E: Into<error::WebError> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(Into::into),
        Err(_) => Err(error::WebError::Inside),
    }
}
