//! Views and their operations against the recorded ones: every case of `augment/index.json`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use harvest::augment::{
    Canvas, CropBox, Cutout, Filter, Normalisation, Operation, Planes, center_crop, hflip, interpolate,
    normalise_batch, pad_reflect_crop, resize, resize_shorter_side, resized_crop, rotate_right_angle,
    to_tensor, vflip,
};
use image::RgbImage;
use safetensors::SafeTensors;
use serde_json::Value;

fn folder() -> PathBuf {
    let root = std::env::var_os("HARVEST_REFERENCE").map(PathBuf::from);
    root.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/reference")).join("augment")
}

fn index() -> Value {
    let path = folder().join("index.json");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).expect("index.json is JSON")
}

fn picture(name: &str) -> RgbImage {
    let path = folder().join(name);
    image::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).into_rgb8()
}

fn number(case: &Value, key: &str) -> f64 {
    case[key].as_f64().unwrap_or_else(|| panic!("`{key}` of {case}"))
}

fn whole(case: &Value, key: &str) -> u32 {
    case[key].as_u64().and_then(|n| n.try_into().ok()).unwrap_or_else(|| panic!("`{key}` of {case}"))
}

fn operation(name: &str) -> Option<Operation> {
    Operation::ALL.into_iter().chain([Operation::Invert]).find(|operation| operation.name() == name)
}

fn edited(image: &RgbImage, work: impl FnOnce(&mut Canvas)) -> RgbImage {
    let mut image = image.clone();
    Canvas::edit(image.width() as usize, image.height() as usize, &mut image, work);
    image
}

fn cutout(case: &Value) -> Cutout {
    Cutout {
        side: number(case, "value"),
        centre_x: number(case, "centre_x"),
        centre_y: number(case, "centre_y"),
    }
}

/// What the case's operation makes of its input; nothing for an operation this program does not know.
fn computed(case: &Value, image: &RgbImage) -> Option<RgbImage> {
    let name = case["op"].as_str()?;
    if let Some(operation) = operation(name) {
        return Some(edited(image, |canvas| operation.apply(number(case, "value"), canvas)));
    }
    let filter = if name.ends_with("bicubic") || case["interpolation"] == "bicubic" {
        Filter::Bicubic
    } else {
        Filter::Bilinear
    };
    Some(match name {
        "Cutout" => edited(image, |canvas| cutout(case).apply(canvas)),
        "RandAugment" => edited(image, |canvas| {
            for step in case["ops"].as_array().expect("a list of operations") {
                let name = step["op"].as_str().expect("a name");
                operation(name).expect("a known operation").apply(number(step, "value"), canvas);
            }
            cutout(&case["cutout"]).apply(canvas);
        }),
        "resize_bilinear" | "resize_bicubic" => {
            resize(image, whole(case, "width"), whole(case, "height"), filter)
        }
        "resize_shorter_side" => resize_shorter_side(image, whole(case, "size"), filter),
        "resized_crop_bilinear" | "resized_crop_bicubic" => {
            let [top, left, height, width] = ["top", "left", "height", "width"].map(|key| whole(case, key));
            let crop = CropBox { top, left, height, width };
            resized_crop(image, crop, whole(case, "out_width"), whole(case, "out_height"), filter)
        }
        "pad_reflect_crop" => {
            pad_reflect_crop(image, whole(case, "pad"), whole(case, "top"), whole(case, "left"))
        }
        "hflip" => hflip(image),
        "vflip" => vflip(image),
        "rotate_right_angle" => rotate_right_angle(image, whole(case, "degrees") / 90),
        "center_crop" => center_crop(image, whole(case, "out_width"), whole(case, "out_height")),
        _ => return None,
    })
}

/// Largest difference in grey levels of all cases whose name passes, by operation.
fn differences(wanted: impl Fn(&str) -> bool) -> BTreeMap<String, u8> {
    let index = index();
    let mut largest = BTreeMap::new();
    for case in index["cases"].as_array().expect("a list of cases") {
        let name = case["op"].as_str().expect("a name");
        if !wanted(name) {
            continue;
        }
        let file = |key: &str| picture(case[key].as_str().expect("a file name"));
        let expected = file("output");
        let got = computed(case, &file("input")).unwrap_or_else(|| panic!("unknown operation {name}"));
        assert_eq!(got.dimensions(), expected.dimensions(), "{case}");
        let apart = got.iter().zip(expected.iter()).map(|(a, b)| a.abs_diff(*b)).max().unwrap_or(0);
        let worst = largest.entry(name.to_owned()).or_insert(0);
        *worst = apart.max(*worst);
    }
    assert!(!largest.is_empty(), "no such case recorded");
    largest
}

fn resamples(name: &str) -> bool {
    name.starts_with("resize")
}

#[test]
fn reference_augment_operations_are_exact() {
    let differences = differences(|name| operation(name).is_some());
    assert!(Operation::ALL.iter().all(|operation| differences.contains_key(operation.name())));
    assert!(differences.values().all(|&apart| apart == 0), "{differences:?}");
}

#[test]
fn reference_augment_pipelines_crops_and_flips_are_exact() {
    let differences = differences(|name| operation(name).is_none() && !resamples(name));
    assert!(differences.values().all(|&apart| apart == 0), "{differences:?}");
}

#[test]
fn reference_augment_resampling_is_within_one_level() {
    // The fixed point is Pillow's; the order of the two passes, for some shapes, may not be.
    let differences = differences(resamples);
    println!("{differences:?}");
    assert!(differences.values().all(|&apart| apart <= 1), "{differences:?}");
}

#[test]
fn reference_augment_ranges_are_the_published_ones() {
    let index = index();
    let ranges = index["ranges"].as_object().expect("a table of ranges");
    let mut names: Vec<&str> = ranges.keys().map(String::as_str).collect();
    names.sort_unstable();
    let mut ours = Operation::ALL.map(Operation::name);
    ours.sort_unstable();
    assert_eq!(ours.as_slice(), names);
    for operation in Operation::ALL {
        let range = &ranges[operation.name()];
        assert_eq!(operation.range(), (number(range, "min"), number(range, "max")), "{operation:?}");
    }
    let without: Vec<&str> =
        index["ranges_without_colour"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    assert_eq!(Operation::WITHOUT_COLOUR.map(Operation::name).as_slice(), without);
}

/// Name → shape and values of every tensor recorded.
fn tensors() -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    let bytes = std::fs::read(folder().join("tensors.safetensors")).expect("tensors.safetensors");
    let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let values =
        |data: &[u8]| data.as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
    file.tensors()
        .into_iter()
        .map(|(name, view)| (name, (view.shape().to_vec(), values(view.data()))))
        .collect()
}

fn assert_close(name: &str, got: &[f32], expected: &[f32], abs: f32, rel: f32) {
    assert_eq!(got.len(), expected.len(), "{name}");
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        assert!((got - expected).abs() <= abs + rel * expected.abs(), "{name}[{i}]: {got}, not {expected}");
    }
}

fn statistics(index: &Value, name: &str) -> Normalisation {
    let three = |key: &str| -> [f32; 3] {
        let list = index["normalisation"][name][key].as_array().unwrap_or_else(|| panic!("{key} of {name}"));
        std::array::from_fn(|c| list[c].as_f64().expect("a number") as f32)
    };
    Normalisation { mean: three("mean"), std: three("std") }
}

#[test]
fn reference_augment_tensors_agree() {
    let index = index();
    let recorded = tensors();
    assert!(!recorded.is_empty());
    for (name, (shape, expected)) in recorded {
        let (input, kind) = name.split_once('/').expect("input/kind");
        let image = picture(&format!("input_{input}.png"));
        let (width, height) = (image.width() as usize, image.height() as usize);
        if kind == "to_tensor" {
            assert_close(&name, &to_tensor(&image), &expected, 1e-6, 1e-6);
        } else if let Some(which) = kind.strip_prefix("normalize_") {
            // The batch function takes square pictures; normalising does not care how the pixels are arranged.
            let statistics = statistics(&index, which);
            let (pixels, _) = image.as_chunks::<3>();
            for (place, pixel) in pixels.iter().enumerate() {
                let mut got = [0.0; 3];
                normalise_batch(pixel, 1, &statistics, &mut got);
                let expected = [0, 1, 2].map(|c| expected[c * pixels.len() + place]);
                assert_close(&name, &got, &expected, 1e-6, 1e-6);
            }
        } else if let Some(how) = kind.strip_prefix("interpolate_") {
            let filter = if how.starts_with("bicubic") { Filter::Bicubic } else { Filter::Bilinear };
            let planes = Planes { width, height, values: to_tensor(&image) };
            let got = interpolate(&planes, shape[2], shape[1], filter, how.contains("antialias"));
            assert_close(&name, &got.values, &expected, 2e-5, 1e-4);
        } else {
            panic!("unknown tensor {name}");
        }
    }
    assert_eq!(Normalisation::IMAGENET, statistics(&index, "imagenet"));
    assert_eq!(Normalisation::HALF, statistics(&index, "half"));
}
