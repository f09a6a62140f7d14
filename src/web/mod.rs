//! The page where experts work: define classes, label, train, look, correct, take away.
//!
//! Everything the page does is done by the rooms below; here are addresses, forms and what is sent to a browser. Every page
//! and script is built into the program, and every address is relative (see [`layout`]), so that any prefix works.
//!
//! ```text
//! security ─▶ prefix ─▶ router ─┬▶ home, create, folders        projects there are, and new ones
//!                               └▶ p/KEY/ ─▶ Desk ─┬▶ label      grid, classes, history, changes as they happen
//!                                                  ├▶ work       scan, cluster, train: jobs, watched
//!                                                  ├▶ results    what a model is worth, and where it fails
//!                                                  └▶ take       model, labels, predictions
//! ```

mod assets;
mod create;
mod desk;
mod error;
mod home;
mod label;
mod layout;
mod results;
mod scribe;
mod security;
mod state;
mod take;
mod work;

use std::net::SocketAddr;
use std::path::PathBuf;

use axum::Router;

pub use state::{App, AppState};

/// How to serve.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// Where to listen.
    pub address: SocketAddr,
    /// Folders below which projects and images may lie; nothing outside of them is ever read.
    pub roots: Vec<PathBuf>,
    /// What a proxy in front leaves before the path, such as `/node/n17/8080`; empty without one. Requests that come without
    /// it are understood too.
    pub prefix: String,
    /// Jobs of the page go to Slurm where there is one.
    pub project: Option<PathBuf>,
}

/// Why the page is not served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The address cannot be had.
    #[error("cannot listen on {address}; another program may do so already: choose another with --port")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The server ended with an error.
    #[error("the server ended")]
    Serve(#[source] std::io::Error),
}

/// Serves until a signal ends it.
///
/// # Errors
/// If the address cannot be had.
pub fn serve(options: ServeOptions) -> Result<(), ServeError> {
    let runtime = tokio::runtime::Runtime::new().map_err(ServeError::Serve)?;
    runtime.block_on(async {
        let address = options.address;
        let listen = tokio::net::TcpListener::bind(address).await;
        let listener = listen.map_err(|source| ServeError::Listen { address, source })?;
        let app = AppState::new(options);
        axum::serve(listener, router(app)).await.map_err(ServeError::Serve)
    })
}

/// All addresses of the page.
pub fn router(app: App) -> Router {
    let project = Router::new()
        .merge(label::routes())
        .merge(work::routes())
        .merge(results::routes())
        .merge(take::routes());
    let all = Router::new()
        .merge(home::routes())
        .merge(create::routes())
        .merge(assets::routes())
        .nest("/p/{key}", project);
    security::guard(all, app.clone()).with_state(app)
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
