//! An image of any size to the square a model trains on.

use image::RgbImage;

use crate::{Filter, resize};

/// The filter's name, part of a cache's identity.
pub const FIT_FILTER: &str = "bilinear";

/// Resizes to `size` × `size`, both sides independently, as the published system does (torchvision's `Resize((s, s))`:
/// bilinear with a support that grows with the reduction). An image of that size already is returned as it is.
///
/// `size` must not be 0.
pub fn fit(image: RgbImage, size: u32) -> RgbImage {
    if image.dimensions() == (size, size) {
        return image;
    }
    resize(&image, size, size, Filter::Bilinear)
}
