//! One way from a file to 8-bit RGB, the same in scan, cache, training and prediction.
//!
//! - The format is known by the content, never by the file's name: JPEG, PNG, WebP, BMP, TIFF.
//! - Grey is repeated in three channels; 16 bit becomes 8 by rounding `v / 257`; CMYK becomes RGB as the decoder does.
//! - Transparency is laid over white, as a viewer on paper shows it: hidden colours under transparent pixels are
//!   whatever the drawing program left there.
//! - The EXIF (or TIFF) orientation is applied once, so pixels are upright and nothing later looks at it.
//! - Of several pages or frames the first counts. Colour profiles are not applied.
//! - Floating-point TIFFs are refused: nothing says which values are black and white.
//!
//! Sizes are checked in the header, before memory is asked for.

use std::io::{Cursor, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use image::error::ImageError;
use image::metadata::Orientation;
use image::{ColorType, DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage};
use serde::{Deserialize, Serialize};

use crate::whole;

/// What an image may cost before it is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DecodeLimits {
    /// Largest width × height of one image. Default: 200 million.
    pub max_pixels: u64,
    /// Largest file, in bytes. Default: 2 GiB.
    pub max_file_bytes: u64,
    /// Most pixels decoded at the same time by all threads together; one image may exceed it alone.
    /// Default: 256 million, three bytes each.
    pub pixels_in_flight: u64,
}

impl Default for DecodeLimits {
    fn default() -> Self {
        Self { max_pixels: 200_000_000, max_file_bytes: 2 << 30, pixels_in_flight: 256_000_000 }
    }
}

/// Why a file cannot be used as an image, for people who know their pictures and not file formats.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// No bytes at all.
    #[error("the file is empty (0 bytes)")]
    Empty,
    /// Not an image, or of a kind that is not read.
    #[error("{}", not_an_image(*.looks_like))]
    NotAnImage {
        /// What the content says it is, if that is known.
        looks_like: Option<&'static str>,
    },
    /// A known format in a variant that is not read.
    #[error("this kind of {format} is not supported ({detail}); save it as 8-bit or 16-bit RGB or grey")]
    Unsupported {
        /// The format's name.
        format: &'static str,
        /// What the decoder said.
        detail: String,
    },
    /// The file stops before the image does.
    #[error("the {format} ends before the picture is complete, as after an interrupted copy; copy it again")]
    Truncated {
        /// The format's name.
        format: &'static str,
    },
    /// The content contradicts itself.
    #[error("the {format} is damaged and cannot be decoded ({detail})")]
    Damaged {
        /// The format's name.
        format: &'static str,
        /// What the decoder said.
        detail: String,
    },
    /// More pixels than [`DecodeLimits::max_pixels`], or more memory than that allows.
    #[error(
        "{width} × {height} pixels are more than the limit of {limit} million pixels for one image; \
         cut it into tiles or raise the limit"
    )]
    TooManyPixels {
        /// Width in pixels, from the header.
        width: u32,
        /// Height in pixels, from the header.
        height: u32,
        /// [`DecodeLimits::max_pixels`] in millions.
        limit: u64,
    },
    /// More bytes than [`DecodeLimits::max_file_bytes`].
    #[error("the file has {} MB, more than the limit of {} MB for one image", bytes / 1_000_000, limit / 1_000_000)]
    FileTooLarge {
        /// Bytes of the file.
        bytes: u64,
        /// [`DecodeLimits::max_file_bytes`].
        limit: u64,
    },
    /// The operating system refuses to give the content.
    #[error("the file cannot be read: {source}")]
    Unreadable {
        /// What the operating system said.
        source: std::io::Error,
    },
}

fn not_an_image(looks_like: Option<&str>) -> String {
    let kinds = "JPEG, PNG, WebP, BMP and TIFF are read";
    match looks_like {
        Some(kind) => format!("this is {kind}, not a picture that can be used; {kinds}"),
        None => format!("this is not a picture; {kinds}"),
    }
}

/// The kinds of trouble a file set aside can have, to count and sort by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Problem {
    /// No bytes.
    Empty,
    /// Not an image.
    NotAnImage,
    /// An image of a kind that is not read.
    Unsupported,
    /// Cut off.
    Truncated,
    /// Contradicts itself.
    Damaged,
    /// Over a limit.
    TooLarge,
    /// Refused by the operating system.
    Unreadable,
    /// A name that is not UTF-8, or a link that leads nowhere or in a circle.
    Name,
}

impl DecodeError {
    /// The kind of trouble.
    pub fn problem(&self) -> Problem {
        match self {
            Self::Empty => Problem::Empty,
            Self::NotAnImage { .. } => Problem::NotAnImage,
            Self::Unsupported { .. } => Problem::Unsupported,
            Self::Truncated { .. } => Problem::Truncated,
            Self::Damaged { .. } => Problem::Damaged,
            Self::TooManyPixels { .. } | Self::FileTooLarge { .. } => Problem::TooLarge,
            Self::Unreadable { .. } => Problem::Unreadable,
        }
    }
}

/// Decodes the content of an image file to upright 8-bit RGB; see the [module](self) for what becomes of other kinds.
///
/// # Errors
/// Any [`DecodeError`] but [`DecodeError::Unreadable`]; never a panic.
pub fn decode(bytes: &[u8], limits: &DecodeLimits) -> Result<RgbImage, DecodeError> {
    decode_admitted(bytes, limits, |_| (), |image| image)
}

/// Reads and decodes a file; see [`decode`].
///
/// # Errors
/// Any [`DecodeError`].
pub fn decode_file(path: &Path, limits: &DecodeLimits) -> Result<RgbImage, DecodeError> {
    decode(&read_file(path, limits)?, limits)
}

/// The bytes of a file that begins like an image; others are not read to their end.
///
/// # Errors
/// If it is not there, not an image, or too large.
pub fn read_file(path: &Path, limits: &DecodeLimits) -> Result<Vec<u8>, DecodeError> {
    let unreadable = |source| DecodeError::Unreadable { source };
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    if !metadata.is_file() {
        // Opening a named pipe would wait for ever.
        return Err(DecodeError::NotAnImage { looks_like: Some("no ordinary file") });
    }
    let mut file = std::fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.by_ref().take(64).read_to_end(&mut bytes).map_err(unreadable)?;
    known_format(&bytes)?;
    if metadata.len() > limits.max_file_bytes {
        return Err(DecodeError::FileTooLarge { bytes: metadata.len(), limit: limits.max_file_bytes });
    }
    bytes.reserve_exact(usize::try_from(metadata.len()).unwrap_or(0).saturating_sub(bytes.len()));
    // One byte over the limit shows a file that grew meanwhile.
    file.take(limits.max_file_bytes.saturating_add(1)).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > limits.max_file_bytes {
        return Err(DecodeError::FileTooLarge { bytes: bytes.len() as u64, limit: limits.max_file_bytes });
    }
    Ok(bytes)
}

/// As [`decode`], once `admit` lets so many pixels in; what it returns is kept until `use_image` is done.
///
/// # Errors
/// As [`decode`].
pub fn decode_admitted<P, T>(
    bytes: &[u8],
    limits: &DecodeLimits,
    admit: impl FnOnce(u64) -> P,
    use_image: impl FnOnce(RgbImage) -> T,
) -> Result<T, DecodeError> {
    let format = known_format(bytes)?;
    let name = format_name(format);
    if whole::is_cut(bytes, format) {
        return Err(DecodeError::Truncated { format: name });
    }
    let (pixels, orientation) = guarded(name, || header(bytes, format, limits))?;
    let _permit = admit(pixels);
    let image = guarded(name, || {
        let decoder = decoder(bytes, format, limits).map_err(|error| translate(error, name))?;
        let mut image = DynamicImage::from_decoder(decoder).map_err(|error| translate(error, name))?;
        image.apply_orientation(orientation);
        Ok(to_rgb(image))
    })?;
    Ok(use_image(image))
}

/// Decoders see hostile bytes; should one panic, the file is damaged, not the program.
fn guarded<T>(format: &'static str, work: impl FnOnce() -> Result<T, DecodeError>) -> Result<T, DecodeError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        Err(DecodeError::Damaged { format, detail: "the decoder gave up on its content".into() })
    })
}

fn decoder(
    bytes: &[u8],
    format: ImageFormat,
    limits: &DecodeLimits,
) -> Result<impl ImageDecoder, ImageError> {
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut allowed = Limits::no_limits();
    // RGBA of 16 bit is the widest kind; the rest is for the decoder's own buffers.
    allowed.max_alloc = Some(limits.max_pixels.saturating_mul(8).saturating_add(64 << 20));
    reader.limits(allowed);
    reader.into_decoder()
}

/// Pixels and orientation, after checking what can be checked without decoding.
fn header(
    bytes: &[u8],
    format: ImageFormat,
    limits: &DecodeLimits,
) -> Result<(u64, Orientation), DecodeError> {
    let name = format_name(format);
    let mut decoder = decoder(bytes, format, limits).map_err(|error| translate(error, name))?;
    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    if pixels == 0 {
        return Err(DecodeError::Damaged { format: name, detail: format!("{width} × {height} pixels") });
    }
    if pixels > limits.max_pixels {
        return Err(DecodeError::TooManyPixels { width, height, limit: limits.max_pixels / 1_000_000 });
    }
    if matches!(decoder.color_type(), ColorType::Rgb32F | ColorType::Rgba32F) {
        return Err(DecodeError::Unsupported { format: name, detail: "floating-point values".into() });
    }
    Ok((pixels, orientation(&mut decoder, format)))
}

/// Unreadable metadata leaves the image as it is: the pixels are good.
fn orientation(decoder: &mut impl ImageDecoder, format: ImageFormat) -> Orientation {
    let found = if format == ImageFormat::Tiff {
        decoder.orientation().ok()
    } else {
        decoder.exif_metadata().ok().flatten().and_then(|chunk| {
            // Some writers keep JPEG's prefix in WebP and PNG.
            Orientation::from_exif_chunk(chunk.strip_prefix(b"Exif\0\0").unwrap_or(&chunk))
        })
    };
    found.unwrap_or(Orientation::NoTransforms)
}

fn to_rgb(image: DynamicImage) -> RgbImage {
    if !image.color().has_alpha() {
        return image.into_rgb8();
    }
    let rgba = image.into_rgba8();
    let (width, height) = rgba.dimensions();
    let mut rgb = Vec::with_capacity(rgba.len() / 4 * 3);
    for pixel in rgba.as_raw().chunks_exact(4) {
        let alpha = u32::from(pixel[3]);
        let over_white = |value: u8| ((u32::from(value) * alpha + 255 * (255 - alpha) + 127) / 255) as u8;
        rgb.extend(pixel[..3].iter().map(|&value| over_white(value)));
    }
    RgbImage::from_raw(width, height, rgb).expect("three bytes for each of the pixels")
}

fn known_format(bytes: &[u8]) -> Result<ImageFormat, DecodeError> {
    if bytes.is_empty() {
        return Err(DecodeError::Empty);
    }
    match image::guess_format(bytes) {
        Ok(
            format @ (ImageFormat::Jpeg
            | ImageFormat::Png
            | ImageFormat::WebP
            | ImageFormat::Bmp
            | ImageFormat::Tiff),
        ) => Ok(format),
        guess => Err(DecodeError::NotAnImage { looks_like: other_kind(bytes, guess.ok()) }),
    }
}

/// Names for what people mix in among pictures.
fn other_kind(bytes: &[u8], guess: Option<ImageFormat>) -> Option<&'static str> {
    match guess {
        Some(ImageFormat::Gif) => return Some("a GIF"),
        Some(ImageFormat::Avif) => return Some("an AVIF image"),
        Some(ImageFormat::OpenExr) => return Some("an OpenEXR image"),
        Some(_) => return Some("an image of another format"),
        None => {}
    }
    let brand = bytes.get(4..12).unwrap_or_default();
    if brand.starts_with(b"ftyphei") || brand.starts_with(b"ftyphev") || brand == b"ftypmif1" {
        Some("a HEIC image (as phones store them)")
    } else if brand.starts_with(b"ftyp") {
        Some("a video")
    } else if bytes.starts_with(b"%PDF") {
        Some("a PDF")
    } else if bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(&[0x1F, 0x8B]) {
        Some("an archive (unpack it first)")
    } else {
        None
    }
}

fn format_name(format: ImageFormat) -> &'static str {
    match format {
        ImageFormat::Jpeg => "JPEG",
        ImageFormat::Png => "PNG",
        ImageFormat::WebP => "WebP",
        ImageFormat::Bmp => "BMP",
        ImageFormat::Tiff => "TIFF",
        _ => "image",
    }
}

fn translate(error: ImageError, format: &'static str) -> DecodeError {
    if ends_early(&error) {
        return DecodeError::Truncated { format };
    }
    match error {
        ImageError::Unsupported(error) => DecodeError::Unsupported { format, detail: error.to_string() },
        other => DecodeError::Damaged { format, detail: other.to_string() },
    }
}

/// Whether the bytes ran out, wherever in the chain of causes that is said.
fn ends_early(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let io = match error.downcast_ref::<ImageError>() {
            Some(ImageError::IoError(io)) => Some(io),
            _ => error.downcast_ref::<std::io::Error>(),
        };
        if io.is_some_and(|io| io.kind() == std::io::ErrorKind::UnexpectedEof) {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests;
