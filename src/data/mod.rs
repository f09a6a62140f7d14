//! From files as people keep them to batches of indices into memory-mapped training images.
//!
//! ```text
//! Source ──scan──▶ Manifest ──Split::new──▶ Split ──Sampler──▶ (index, epoch) of each step
//!                     │                                             │
//!                     └──ImageCache::open_or_build──▶ image(index) ◀┘   size × size × 3 bytes
//! ```
//!
//! - [`Source`]: where images and known labels come from; found by [`Source::detect`] or told.
//! - [`scan()`]: decodes every file once; what cannot be used is set aside with a reason, exact duplicates are linked.
//! - [`Manifest`]: the result, one line of JSON for each image; a run keeps its own copy.
//! - [`Split`]: which images are labelled, evaluated on, tested on; seeded, stratified, duplicates on one side.
//! - [`ImageCache`]: every image decoded and resized once, mapped into memory.
//! - [`Sampler`]: the order of images as a function of seed and step.
//!
//! Images are 8-bit RGB everywhere after [`decode()`]; see there how other kinds become that.

mod cache;
mod classes;
mod error;
mod gate;
mod idx;
mod images;
mod labels_csv;
mod manifest;
mod mapped;
#[cfg(test)]
mod million;
mod progress;
mod reduced;
mod sampler;
mod scan;
mod source;
mod split;
#[cfg(test)]
pub(crate) mod testing;
mod walk;

pub use cache::{CacheError, CacheOptions, ImageCache};
pub use classes::{ClassKind, Classes, ClassesError};
pub use error::DataError;
pub(crate) use gate::PixelGate;
pub use harvest_picture::{DecodeError, DecodeLimits, FIT_FILTER, Problem, decode, decode_file, fit};
pub use idx::{IdxError, IdxFiles, IdxImages, read_idx_labels};
pub use images::{Images, LoadError, Pictures};
pub use labels_csv::{LabelRow, LabelsError, read_labels};
pub use manifest::{ContentHash, ImageRecord, Manifest, ManifestError, ManifestStream, Part, SetAside};
pub use progress::{Progress, Silent};
pub use sampler::{Order, Pick, Sampler, SamplerError};
pub use scan::{ScanOptions, modified_ns, scan};
pub use source::{Source, SourceKind};
pub use split::{Conflict, Split, SplitConfig, SplitError};
