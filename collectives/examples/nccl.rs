//! What of NCCL works on this machine: `cargo run -p harvest-collectives --features nccl --example nccl`.
//!
//! Loads the library, makes an id, and joins a world of one rank, for which NCCL needs a GPU.

use std::process::ExitCode;
use std::time::Duration;

use harvest_collectives::nccl::{Comm, Library, NcclError, UniqueId};

fn main() -> ExitCode {
    match check() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn check() -> Result<(), NcclError> {
    let library = Library::load()?;
    println!("version  {} from {}", library.version(), library.path().display());
    let id = library.unique_id()?;
    println!("id       {} bytes", id.to_bytes().len());
    let id = UniqueId::from_bytes(&id.to_bytes())?;
    match Comm::join(library, id, 1, 0, Duration::from_secs(60)) {
        Ok(comm) => {
            println!("join     a world of one rank");
            comm.leave()?;
        }
        Err(error) => println!("join     not here: {error}"),
    }
    Ok(())
}
