//! An image of any size to the square a model trains on.

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use image::RgbImage;

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
    // Stands in for `crate::augment::resize(&image, size, size, Filter::Bilinear)`, written at the same time.
    let (width, height) = image.dimensions();
    let source = ImageRef::new(width, height, image.as_raw(), PixelType::U8x3)
        .expect("an image holds three bytes for each pixel");
    let mut target = Image::new(size, size, PixelType::U8x3);
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear));
    Resizer::new().resize(&source, &mut target, &options).expect("both images hold three bytes a pixel");
    RgbImage::from_raw(size, size, target.into_vec()).expect("a buffer of size × size × 3 bytes")
}
