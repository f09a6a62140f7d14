use image::codecs::png::PngEncoder;
use image::{
    DynamicImage, GrayAlphaImage, GrayImage, ImageBuffer, ImageEncoder, Luma, LumaA, Rgb, Rgb32FImage, Rgba,
    RgbaImage,
};

use super::*;
use crate::testing::{encode, exif, jpeg, noise, png, with_orientation};

fn decoded(bytes: &[u8]) -> RgbImage {
    decode(bytes, &DecodeLimits::default()).expect("decodes")
}

fn refused(bytes: &[u8]) -> DecodeError {
    decode(bytes, &DecodeLimits::default()).expect_err("refused")
}

#[test]
fn lossless_formats_give_back_the_pixels_whatever_the_name() {
    let image = noise(13, 7, 1);
    for format in [ImageFormat::Png, ImageFormat::WebP, ImageFormat::Bmp, ImageFormat::Tiff] {
        assert_eq!(decoded(&encode(image.clone(), format)), image, "{format:?}");
    }
    let folder = tempfile::tempdir().expect("temporary folder");
    let file = folder.path().join("really-a-png.jpg");
    std::fs::write(&file, png(&image)).expect("writes");
    assert_eq!(decode_file(&file, &DecodeLimits::default()).expect("by content"), image);
}

#[test]
fn grey_and_sixteen_bit_become_rgb_of_eight() {
    let grey = GrayImage::from_fn(5, 3, |x, y| Luma([(x * 50 + y) as u8]));
    let wide = ImageBuffer::<Rgb<u16>, _>::from_fn(5, 3, |x, y| {
        Rgb([(x * 13_000) as u16, (y * 30_000) as u16, 65_535])
    });
    let wide_grey = ImageBuffer::<Luma<u16>, _>::from_fn(5, 3, |x, _| Luma([(x * 257 + 100) as u16]));
    for format in [ImageFormat::Png, ImageFormat::Tiff] {
        let from_grey = decoded(&encode(grey.clone(), format));
        assert!(from_grey.enumerate_pixels().all(|(x, y, pixel)| pixel.0 == [(x * 50 + y) as u8; 3]));
        let eight = |value: u32| (f64::from(value) / 257.0).round() as u8;
        let from_wide = decoded(&encode(DynamicImage::ImageRgb16(wide.clone()), format));
        assert!(
            from_wide
                .enumerate_pixels()
                .all(|(x, y, pixel)| pixel.0 == [eight(x * 13_000), eight(y * 30_000), 255]),
            "{format:?}"
        );
        let from_wide_grey = decoded(&encode(DynamicImage::ImageLuma16(wide_grey.clone()), format));
        assert!(from_wide_grey.enumerate_pixels().all(|(x, _, pixel)| pixel.0 == [eight(x * 257 + 100); 3]));
    }
}

#[test]
fn transparency_is_laid_over_white() {
    let rgba = RgbaImage::from_fn(3, 1, |x, _| {
        [Rgba([10, 20, 30, 255]), Rgba([10, 20, 30, 0]), Rgba([0, 100, 200, 128])][x as usize]
    });
    let expected = [[10, 20, 30], [255, 255, 255], [127, 177, 227]];
    for format in [ImageFormat::Png, ImageFormat::WebP, ImageFormat::Tiff] {
        let image = decoded(&encode(rgba.clone(), format));
        assert_eq!(image.pixels().map(|pixel| pixel.0).collect::<Vec<_>>(), expected, "{format:?}");
    }
    let grey = GrayAlphaImage::from_fn(2, 1, |x, _| [LumaA([40, 255]), LumaA([40, 0])][x as usize]);
    let image = decoded(&encode(grey, ImageFormat::Png));
    assert_eq!(image.pixels().map(|pixel| pixel.0).collect::<Vec<_>>(), [[40; 3], [255; 3]]);
}

/// Where EXIF 2.32 puts the stored pixel (x, y) of a width × height image.
fn upright(orientation: u8, x: u32, y: u32, width: u32, height: u32) -> (u32, u32) {
    let (right, bottom) = (width - 1 - x, height - 1 - y);
    match orientation {
        2 => (right, y),
        3 => (right, bottom),
        4 => (x, bottom),
        5 => (y, x),
        6 => (bottom, x),
        7 => (bottom, right),
        8 => (y, right),
        _ => (x, y),
    }
}

#[test]
fn orientation_is_applied_once_in_every_format() {
    let image = noise(24, 16, 3);
    let plain_jpeg = jpeg(&image);
    let stored_jpeg = decoded(&plain_jpeg);
    for orientation in 0..=9 {
        let mut png_bytes = Vec::new();
        let mut encoder = PngEncoder::new(&mut png_bytes);
        encoder.set_exif_metadata(exif(orientation)).expect("PNG holds EXIF");
        encoder.write_image(image.as_raw(), 24, 16, image::ExtendedColorType::Rgb8).expect("encodes");
        let mut webp_bytes = Vec::new();
        let mut encoder = image::codecs::webp::WebPEncoder::new_lossless(&mut webp_bytes);
        encoder
            .set_exif_metadata([b"Exif\0\0".as_slice(), &exif(orientation)].concat())
            .expect("WebP holds EXIF");
        encoder.encode(image.as_raw(), 24, 16, image::ExtendedColorType::Rgb8).expect("encodes");
        for (bytes, stored) in [
            (with_orientation(&plain_jpeg, orientation), &stored_jpeg),
            (png_bytes, &image),
            (webp_bytes, &image),
            (tiff_with_orientation(&image, orientation), &image),
        ] {
            let turned = decoded(&bytes);
            let expected = if (5..=8).contains(&orientation) { (16, 24) } else { (24, 16) };
            assert_eq!(turned.dimensions(), expected, "orientation {orientation}");
            for (x, y, pixel) in stored.enumerate_pixels() {
                let (to_x, to_y) = upright(orientation, x, y, 24, 16);
                assert_eq!(turned.get_pixel(to_x, to_y), pixel, "orientation {orientation}");
            }
        }
    }
}

/// An uncompressed RGB TIFF written by hand: the encoder at hand cannot set the tag.
fn tiff_with_orientation(image: &RgbImage, orientation: u8) -> Vec<u8> {
    let (width, height) = image.dimensions();
    let entries: [(u16, u16, u32, u32); 10] = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 3, 8 + 2 + 10 * 12 + 4), // bits per sample, behind the directory
        (259, 3, 1, 1),
        (262, 3, 1, 2),
        (273, 4, 1, 8 + 2 + 10 * 12 + 4 + 6),
        (274, 3, 1, u32::from(orientation)),
        (277, 3, 1, 3),
        (278, 4, 1, height),
        (279, 4, 1, width * height * 3),
    ];
    let mut bytes = b"II\x2A\0\x08\0\0\0\x0A\0".to_vec();
    for (tag, kind, count, value) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(kind.to_le_bytes());
        bytes.extend(count.to_le_bytes());
        bytes.extend(value.to_le_bytes());
    }
    bytes.extend([0; 4]);
    bytes.extend([8, 0, 8, 0, 8, 0]);
    bytes.extend(image.as_raw());
    bytes
}

#[test]
fn cut_files_are_refused_in_every_format() {
    let image = noise(40, 30, 5);
    for format in
        [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP, ImageFormat::Bmp, ImageFormat::Tiff]
    {
        let whole = encode(image.clone(), format);
        let mut truncated = 0;
        for share in 1..20 {
            let error = refused(&whole[..whole.len() * share / 20]);
            truncated += usize::from(error.problem() == Problem::Truncated);
            assert!(matches!(error.problem(), Problem::Truncated | Problem::Damaged), "{format:?}: {error}");
        }
        assert!(truncated >= 15, "{format:?}: only {truncated} of 19 cuts are recognised as such");
    }
}

#[test]
fn what_is_no_picture_is_called_by_its_name() {
    assert!(matches!(refused(b""), DecodeError::Empty));
    assert_eq!(
        refused(b"hello").to_string(),
        "this is not a picture; JPEG, PNG, WebP, BMP and TIFF are read"
    );
    assert!(refused(b"%PDF-1.7").to_string().starts_with("this is a PDF, not a picture"));
    assert!(refused(b"GIF89a.......").to_string().contains("a GIF"));
    assert!(refused(b"\0\0\0\x18ftypheic\0\0\0\0").to_string().contains("HEIC"));
    let folder = tempfile::tempdir().expect("temporary folder");
    assert!(matches!(
        decode_file(&folder.path().join("missing"), &DecodeLimits::default()),
        Err(DecodeError::Unreadable { .. })
    ));
    assert!(matches!(
        decode_file(folder.path(), &DecodeLimits::default()),
        Err(DecodeError::NotAnImage { .. })
    ));
}

#[test]
fn a_bomb_is_refused_by_its_header() {
    // A whole PNG header that announces 60000 × 60000 pixels, with its checksum.
    let mut bomb = png(&noise(1, 1, 0));
    bomb[16..20].copy_from_slice(&60_000u32.to_be_bytes());
    bomb[20..24].copy_from_slice(&60_000u32.to_be_bytes());
    let mut checksum = flate2::Crc::new();
    checksum.update(&bomb[12..29]);
    let checksum = checksum.sum().to_be_bytes();
    bomb[29..33].copy_from_slice(&checksum);
    assert!(matches!(
        refused(&bomb),
        DecodeError::TooManyPixels { width: 60_000, height: 60_000, limit: 200 }
    ));

    let tight = DecodeLimits { max_pixels: 99, max_file_bytes: 50, ..DecodeLimits::default() };
    let image = png(&noise(10, 10, 0));
    assert!(matches!(decode(&image, &tight), Err(DecodeError::TooManyPixels { .. })));
    let folder = tempfile::tempdir().expect("temporary folder");
    let file = folder.path().join("image.png");
    std::fs::write(&file, &image).expect("writes");
    assert!(matches!(decode_file(&file, &tight), Err(DecodeError::FileTooLarge { limit: 50, .. })));
}

#[test]
fn floating_point_is_refused() {
    let float = Rgb32FImage::from_pixel(2, 2, Rgb([0.5, 100.0, -1.0]));
    let error = refused(&encode(DynamicImage::ImageRgb32F(float), ImageFormat::Tiff));
    assert!(matches!(error, DecodeError::Unsupported { format: "TIFF", .. }), "{error}");
}

#[test]
fn damaged_bytes_never_panic() {
    use rand::{RngExt, SeedableRng};
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(7);
    let image = noise(20, 20, 9);
    let limits = DecodeLimits { max_pixels: 1 << 20, ..DecodeLimits::default() };
    for format in
        [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP, ImageFormat::Bmp, ImageFormat::Tiff]
    {
        let whole = encode(image.clone(), format);
        for _ in 0..200 {
            let mut bytes = whole.clone();
            for _ in 0..rng.random_range(1..8) {
                let at = rng.random_range(0..bytes.len());
                bytes[at] = rng.random();
            }
            let _ = decode(&bytes, &limits);
        }
    }
}
