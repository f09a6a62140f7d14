//! Many pictures on one: what a cluster holds at a glance.

use image::imageops::{FilterType, replace, resize};
use image::{Rgb, RgbImage};

/// White between pictures, in pixels.
const GAP: u32 = 3;

/// `pictures`, each `size * size * 3` bytes, in rows of `columns`, each shown `side` pixels wide.
///
/// Small pictures are enlarged without smoothing, so that what the network sees is what is shown.
pub fn contact_sheet(pictures: &[&[u8]], size: u32, columns: u32, side: u32) -> RgbImage {
    let columns = columns.clamp(1, pictures.len().max(1) as u32);
    let rows = (pictures.len() as u32).div_ceil(columns).max(1);
    let extent = |count: u32| count * (side + GAP) + GAP;
    let mut sheet = RgbImage::from_pixel(extent(columns), extent(rows), Rgb([255; 3]));
    let filter = if side >= size { FilterType::Nearest } else { FilterType::Triangle };
    for (place, bytes) in pictures.iter().enumerate() {
        let Some(picture) = RgbImage::from_raw(size, size, bytes.to_vec()) else { continue };
        let (column, row) = (place as u32 % columns, place as u32 / columns);
        let shown = resize(&picture, side, side, filter);
        replace(
            &mut sheet,
            &shown,
            i64::from(GAP + column * (side + GAP)),
            i64::from(GAP + row * (side + GAP)),
        );
    }
    sheet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_lie_in_rows_and_the_rest_is_white() {
        let (red, blue) = ([255, 0, 0].repeat(4), [0, 0, 255].repeat(4));
        let sheet = contact_sheet(&[&red, &blue, &red], 2, 2, 4);
        assert_eq!(sheet.dimensions(), (2 * 7 + 3, 2 * 7 + 3));
        let at = |x, y| sheet.get_pixel(x, y).0;
        assert_eq!(
            [at(3, 3), at(10, 3), at(6, 13), at(13, 13)],
            [[255, 0, 0], [0, 0, 255], [255, 0, 0], [255; 3]]
        );
        assert_eq!(at(0, 0), [255; 3]);
    }

    #[test]
    fn nothing_to_show_is_an_empty_sheet() {
        assert_eq!(contact_sheet(&[], 8, 5, 16).dimensions(), (22, 22));
    }
}
