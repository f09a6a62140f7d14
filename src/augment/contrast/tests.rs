use image::RgbImage;
use proptest::prelude::*;

use super::*;
use crate::augment::{Filter, resized_crop};
use crate::random::{Purpose, stream};

fn noise(size: usize, seed: u64) -> Vec<u8> {
    let mut rng = stream(seed, Purpose::Demo, [0; 3]);
    (0..size * size * 3).map(|_| rng.random()).collect()
}

/// HSV as in any textbook, in double precision.
fn turned([r, g, b]: Pixel, turns: f64) -> [f64; 3] {
    let [r, g, b] = [r, g, b].map(f64::from);
    let (value, least) = (r.max(g).max(b), r.min(g).min(b));
    let chroma = value - least;
    if chroma == 0.0 {
        return [value; 3];
    }
    let hue = match value {
        v if v == r => (g - b) / chroma,
        v if v == g => (b - r) / chroma + 2.0,
        _ => (r - g) / chroma + 4.0,
    };
    let hue = (hue + 6.0 * turns).rem_euclid(6.0);
    let second = least + chroma * (1.0 - (hue % 2.0 - 1.0).abs());
    match hue as u8 {
        0 => [value, second, least],
        1 => [second, value, least],
        2 => [least, value, second],
        3 => [least, second, value],
        4 => [second, least, value],
        _ => [value, least, second],
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn a_crop_is_enlarged_as_pillow_does_it(
        size in 1usize..40, seed: u64, corners in [0f64..1.0, 0f64..1.0, 0f64..1.0, 0f64..1.0], flip: bool
    ) {
        let source = noise(size, seed);
        let side = |share: f64| 1 + (share * size as f64) as u32;
        let (height, width) = (side(corners[0]).min(size as u32), side(corners[1]).min(size as u32));
        let place = |share: f64, side: u32| (share * f64::from(size as u32 - side)) as u32;
        let crop = CropBox { top: place(corners[2], height), left: place(corners[3], width), height, width };
        let mut out = vec![[0; 3]; size * size];
        enlarge(source.as_chunks().0, size, crop, flip, &mut out);
        let image = RgbImage::from_raw(size as u32, size as u32, source).expect("its bytes");
        let mut expected = resized_crop(&image, crop, size as u32, size as u32, Filter::Bilinear);
        if flip {
            image::imageops::flip_horizontal_in_place(&mut expected);
        }
        prop_assert_eq!(out.as_flattened(), expected.as_raw().as_slice());
    }

    #[test]
    fn hues_turn_as_in_the_textbook(seed: u64, size in 1usize..8, turns in -0.5f64..0.5) {
        let source = noise(size, seed);
        let mut found = source.clone();
        Canvas::edit(size, size, &mut found, |canvas| turn_hue(canvas, turns));
        for (found, pixel) in found.as_chunks::<3>().0.iter().zip(source.as_chunks::<3>().0) {
            for (found, expected) in found.iter().zip(turned(*pixel, turns)) {
                prop_assert!((f64::from(*found) - expected).abs() < 0.51, "{:?}", pixel);
            }
        }
    }

    #[test]
    fn a_view_of_any_size_and_setting_is_no_panic(
        size in 0usize..70, seed: u64, colour: bool, least in 0.001f64..1.0, strength in 0f64..1.0
    ) {
        let contrast = ContrastConfig {
            min_scale: Some(least), strength: Some(strength), blur: Some(0.5), ..ContrastConfig::default()
        };
        let config = ViewConfig { colour, contrast, ..ViewConfig::default() };
        let source = noise(size, seed);
        let mut out = vec![0; source.len()];
        contrast_view(&source, size, &config, &mut stream(seed, Purpose::View, [0; 3]), &mut out);
    }
}

#[test]
fn a_flat_picture_stays_flat_when_blurred_and_an_edge_becomes_soft() {
    let mut flat = [77u8, 0, 255].repeat(40 * 40);
    let before = flat.clone();
    Canvas::edit(40, 40, &mut flat, |canvas| blur(canvas, 1.7, 9));
    assert_eq!(flat, before);
    let mut edge: Vec<u8> = (0..40 * 40 * 3).map(|i| if i / 3 % 40 < 20 { 0 } else { 255 }).collect();
    Canvas::edit(40, 40, &mut edge, |canvas| blur(canvas, 2.0, 9));
    let row: Vec<u8> = edge[..40 * 3].iter().step_by(3).copied().collect();
    assert!(row.is_sorted() && row[0] == 0 && row[39] == 255);
    // The share of a Gaussian of deviation 2 beyond half a pixel is 0.401.
    assert!((f64::from(row[19]) - 0.401 * 255.0).abs() < 3.0, "{}", row[19]);
    let mut narrow = before.clone();
    Canvas::edit(40, 40, &mut narrow, |canvas| blur(canvas, 0.1, 0));
    assert_eq!(narrow, before);
}

#[test]
fn areas_and_proportions_are_those_asked_for() {
    let config = ContrastConfig::default();
    let mut rng = stream(3, Purpose::View, [0; 3]);
    let mut areas = Vec::new();
    for _ in 0..2000 {
        let crop = config.draw_crop(224, &mut rng);
        let aspect = f64::from(crop.width) / f64::from(crop.height);
        assert!((0.72..1.4).contains(&aspect), "{crop:?}");
        assert!(crop.left + crop.width <= 224 && crop.top + crop.height <= 224);
        areas.push(f64::from(crop.width * crop.height) / (224.0 * 224.0));
    }
    let (least, mean) = (areas.iter().fold(1.0, |a: f64, b| a.min(*b)), areas.iter().sum::<f64>() / 2000.0);
    assert!(least > 0.078 && least < 0.1, "{least}");
    assert!((mean - 0.5).abs() < 0.06, "{mean}");
}

#[test]
fn where_colour_tells_the_class_no_hue_changes() {
    let size = 16;
    let source: Vec<u8> = [40u8, 120, 20].repeat(size * size);
    for colour in [false, true] {
        let config = ViewConfig { colour, ..ViewConfig::default() };
        let mut changed = 0;
        for image in 0..60 {
            let mut out = vec![0; source.len()];
            let mut rng = stream(1, Purpose::View, [0, image, 0]);
            contrast_view(&source, size, &config, &mut rng, &mut out);
            let kept = |[r, g, b]: Pixel| g >= r && r >= b && u32::from(g) > u32::from(b) + 8;
            let hue = turned([out[0], out[1], out[2]], 0.0);
            let share = (hue[0] - hue[2]) / (hue[1] - hue[2]).max(1.0);
            changed += usize::from(!kept([out[0], out[1], out[2]]) || (share - 0.2).abs() > 0.05);
        }
        assert_eq!(changed > 0, colour, "{changed} of 60 views have another hue");
    }
}

#[test]
fn nonsense_is_refused() {
    let refused = |text: &str| {
        let config: ContrastConfig = toml::from_str(text).expect("known keys");
        config.check().expect_err("nonsense").to_string()
    };
    assert!(refused("min_scale = 0.0").contains("views.contrast.min_scale"));
    assert!(refused("aspect = [2.0, 1.0]").contains("views.contrast.aspect"));
    assert!(refused("grey = 1.5").contains("views.contrast.grey"));
    assert!(refused("strength = -1.0").contains("views.contrast.strength"));
    assert!(toml::from_str::<ContrastConfig>("gray = 0.5").is_err());
    ContrastConfig::default().check().expect("the defaults are sound");
}
