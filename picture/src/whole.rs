//! Tells a whole file from one that was cut off, where the decoders do not.
//!
//! The JPEG decoder fills what is missing with grey and reports success, so a half-copied photograph would silently
//! train as a half-grey one. A JPEG that arrived whole has an end marker *outside* its header segments (the thumbnail
//! inside an EXIF segment has one of its own); ITU-T T.81, annex B. The decoders of WebP and TIFF fail, but with words
//! that say nothing of the cause.

use image::ImageFormat;

/// Whether the file says itself that there should be more of it; other formats' decoders find that out.
pub(crate) fn is_cut(bytes: &[u8], format: ImageFormat) -> bool {
    let word = |at: usize| bytes.get(at..at + 4).map(|word| [word[0], word[1], word[2], word[3]]);
    match format {
        ImageFormat::Jpeg => !has_end(bytes),
        // RIFF: the size of all that follows the first 8 bytes; the last padding byte is often forgotten.
        ImageFormat::WebP => match word(4).map(u32::from_le_bytes) {
            Some(size) => bytes.len() as u64 + 1 < u64::from(size) + 8,
            None => true,
        },
        // The place of the first directory, which many programs write behind the pixels. (BigTIFF has 43 here, and
        // another layout.)
        ImageFormat::Tiff => {
            let place = match bytes {
                [b'I', b'I', 42, ..] => word(4).map(u32::from_le_bytes),
                [b'M', b'M', 0, 42, ..] => word(4).map(u32::from_be_bytes),
                _ => Some(0),
            };
            place.is_none_or(|place| u64::from(place) + 2 > bytes.len() as u64)
        }
        _ => false,
    }
}

/// Whether the end-of-image marker of the main image is there.
fn has_end(bytes: &[u8]) -> bool {
    let mut position = 2; // after the start marker
    loop {
        let Some(marker) = next_marker(bytes, &mut position) else { return false };
        match marker {
            END_OF_IMAGE => return true,
            0x01 | 0xD0..=0xD8 => {} // stand alone, no length
            _ => {
                let Some(length) = bytes.get(position..position + 2) else { return false };
                // After a start-of-scan segment comes compressed data; `next_marker` walks through it.
                position += usize::from(u16::from_be_bytes([length[0], length[1]])).max(2);
            }
        }
    }
}

const END_OF_IMAGE: u8 = 0xD9;

/// The next marker at or after `position`, which moves behind it. `FF 00` is a data byte, further `FF`s are padding.
fn next_marker(bytes: &[u8], position: &mut usize) -> Option<u8> {
    loop {
        let offset = bytes.get(*position..)?.iter().position(|&byte| byte == 0xFF)?;
        let code = *bytes.get(*position + offset + 1)?;
        if code == 0xFF {
            *position += offset + 1;
            continue;
        }
        *position += offset + 2;
        if code != 0x00 {
            return Some(code);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{jpeg, noise, with_orientation};

    #[test]
    fn every_cut_of_a_jpeg_lacks_its_end() {
        let whole = with_orientation(&jpeg(&noise(40, 30, 7)), 6);
        assert!(has_end(&whole));
        for length in 0..whole.len() {
            assert!(!has_end(&whole[..length]), "cut to {length} of {} bytes", whole.len());
        }
        let mut trailing = whole;
        trailing.extend_from_slice(b"maker notes after the end");
        assert!(has_end(&trailing));
    }

    #[test]
    fn the_end_of_a_thumbnail_does_not_count() {
        // Start, APP1 of 6 bytes holding `FF D9`, then nothing.
        assert!(!has_end(&[0xFF, 0xD8, 0xFF, 0xE1, 0, 6, 0xFF, 0xD9, 0, 0]));
    }
}
