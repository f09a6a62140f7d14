//! From an image file to the square of pixels a model sees, the same in training, prediction and on small devices.
//!
//! [`decode()`] makes upright 8-bit RGB of any kind of picture, [`fit`] resizes it as Pillow does.

mod decode;
mod fit;
mod resize;
#[cfg(test)]
mod testing;
mod whole;

pub use decode::{DecodeError, DecodeLimits, Problem, decode, decode_admitted, decode_file, read_file};
pub use fit::{FIT_FILTER, fit};
pub use resize::{CropBox, Filter, resize, resize_shorter_side, resized_crop};
