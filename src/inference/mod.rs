//! What a trained network is for: scores of cached images, labels for every image, predictions on new ones, bundles.
//!
//! Nothing here knows how a network came to be.

mod bundle;
mod card;
mod confidence;
mod export;
pub mod onnx;
mod predictor;
mod self_test;
#[cfg(test)]
mod testing;

pub use bundle::{Bundle, BundleError, Preprocessing};
pub use card::{CARD, Card};
pub use confidence::{Confidence, Reliable};
pub use export::{ClassLists, LabelName, LabelledImage, LabelsCsv, LabelsParquet};
pub(crate) use predictor::normalise;
pub use predictor::{Prediction, Predictor, images_to_tensor, softmax_row};
pub use self_test::{drawn_picture, largest_difference};
