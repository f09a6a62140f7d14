//! How far two runs of the same training are apart, relative to how far they have come.
//!
//! ```text
//! cargo run --release --example apart -- START ONE OTHER LIMIT
//! ```
//!
//! Each of the first three is a `model.safetensors` (or `ema.safetensors`) of a checkpoint: of an early step, and of the same
//! later step of two runs, such as one on a single rank and one on several. Ends with 1 if a tensor differs by more than
//! `LIMIT` of the way it has come.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};
use harvest::training::apart;
use harvest_models::read_safetensors;

fn main() -> anyhow::Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [start, one, other, limit] = arguments.as_slice() else {
        bail!("four arguments: START ONE OTHER LIMIT")
    };
    let limit: f64 = limit.parse().with_context(|| format!("the limit `{limit}` is no number"))?;
    let read =
        |path: &String| read_safetensors(Path::new(path)).with_context(|| format!("cannot read `{path}`"));
    let found = apart(&read(start)?, &read(one)?, &read(other)?)?;
    println!("largest difference: {:.3e} of the way, in `{}`", found.relative, found.name);
    // Written so that NaN is too far.
    Ok(if found.relative <= limit { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
