//! Drawn plant leaves in eight conditions: a small, licence-free data set that takes some learning.
//!
//! Every picture is one random leaf (species, place, angle, bend) before a random background, sometimes over a second
//! leaf or partly hidden, with the [symptoms](symptoms) of its class, photographed in random light. All of it follows
//! from (seed, class, index), so a set is the same on every machine, with any number of threads.

mod backdrop;
mod blade;
mod camera;
mod noise;
mod symptoms;

use crate::random::{Purpose, stream};
use backdrop::Backdrop;
use blade::Blade;
use camera::Camera;
use image::RgbImage;
use noise::{Colour, dim, direction};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use symptoms::{Condition, Symptoms};

/// Class names in label order; the names of the folders [`write_set`] makes.
pub const CLASSES: [&str; Condition::ALL.len()] = [
    "healthy",
    "rust",
    "powdery_mildew",
    "leaf_spot",
    "blight",
    "mosaic_virus",
    "nutrient_deficiency",
    "insect_holes",
];

/// Index of the first test picture: far from every training index, so that the test set is the same whatever the
/// size of the training set.
const FIRST_TEST_INDEX: u64 = 1 << 40;

/// Why a set of leaves could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LeavesError {
    /// A folder could not be made.
    #[error("cannot create the folder `{path}`")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A picture could not be written.
    #[error("cannot write the picture `{path}`")]
    Picture {
        /// The file.
        path: PathBuf,
        /// What the encoder or the system said.
        source: image::ImageError,
    },
}

/// Picture number `index` of class `class`, `size`×`size` pixels.
///
/// The same arguments give the same picture; another `size` gives the same scene in another resolution.
///
/// # Panics
/// If `class` is not below `CLASSES.len()`.
pub fn leaf(seed: u64, class: usize, index: u64, size: u32) -> RgbImage {
    let mut rng = stream(seed, Purpose::Demo, [class as u64, index, 0]);
    let scene = Scene::draw(Condition::ALL[class], &mut rng);
    Camera::draw(&mut rng).photograph(size, |x, y| scene.colour(x, y))
}

/// Writes `train/CLASS/NNNNN.png` and `test/CLASS/NNNNN.png` under `dir`, in parallel.
///
/// `train_per_class` and `test_per_class` pictures of each class, `size`×`size` pixels. The test pictures depend on the
/// seed alone, not on how many training pictures there are. `progress` is told, from any thread, how many pictures of
/// how many are written. Files of the same names are replaced, others are left alone.
pub fn write_set(
    dir: &Path,
    train_per_class: usize,
    test_per_class: usize,
    seed: u64,
    size: u32,
    progress: impl Fn(usize, usize) + Sync,
) -> Result<(), LeavesError> {
    let parts = [("train", train_per_class, 0), ("test", test_per_class, FIRST_TEST_INDEX)];
    let mut pictures = Vec::new();
    for (part, count, first) in parts {
        for (class, name) in CLASSES.iter().enumerate() {
            let folder = dir.join(part).join(name);
            if count > 0 {
                std::fs::create_dir_all(&folder)
                    .map_err(|source| LeavesError::Folder { path: folder.clone(), source })?;
            }
            pictures
                .extend((0..count).map(|i| (folder.join(format!("{i:05}.png")), class, first + i as u64)));
        }
    }
    let written = AtomicUsize::new(0);
    pictures.par_iter().try_for_each(|(path, class, index)| {
        leaf(seed, *class, *index, size)
            .save(path)
            .map_err(|source| LeavesError::Picture { path: path.clone(), source })?;
        progress(written.fetch_add(1, Ordering::Relaxed) + 1, pictures.len());
        Ok(())
    })
}

/// All that stands before the camera. Coordinates: -1..1 from left to right and from top to bottom.
struct Scene {
    backdrop: Backdrop,
    behind: Option<Blade>,
    blade: Blade,
    symptoms: Symptoms,
    in_front: Option<Blade>,
    /// From the leaf to its shadow.
    shadow_offset: [f32; 2],
    shadow: f32,
}

impl Scene {
    fn draw(condition: Condition, rng: &mut ChaCha8Rng) -> Self {
        let backdrop = Backdrop::draw(rng);
        let behind = rng.random_bool(0.3).then(|| {
            let aside = direction(rng.random()).map(|d| d * rng.random_range(0.5..0.9f32));
            let half_length = rng.random_range(0.6..1.1);
            Blade::draw(rng, aside, half_length, 0.0)
        });
        let centre = [rng.random_range(-0.16..0.16), rng.random_range(-0.16..0.16)];
        let half_length = rng.random_range(0.9..1.3);
        let crinkle = if condition == Condition::MosaicVirus { rng.random_range(0.05..0.16) } else { 0.0 };
        let blade = Blade::draw(rng, centre, half_length, crinkle);
        let symptoms = Symptoms::draw(condition, &blade, rng);
        let in_front = rng.random_bool(0.12).then(|| {
            let aside = direction(rng.random()).map(|d| d * rng.random_range(0.95..1.2f32));
            let half_length = rng.random_range(0.4..0.8);
            Blade::draw(rng, aside, half_length, 0.0)
        });
        Self {
            backdrop,
            behind,
            blade,
            symptoms,
            in_front,
            shadow_offset: direction(rng.random()).map(|d| d * rng.random_range(0.0..0.16f32)),
            shadow: rng.random_range(0.45..0.95),
        }
    }

    fn colour(&self, x: f32, y: f32) -> Colour {
        if let Some(colour) = self.in_front.as_ref().and_then(|blade| bare(blade, x, y)) {
            return colour;
        }
        let place = self.blade.locate(x, y);
        if place.inside()
            && let Some(colour) = self.symptoms.paint(&self.blade, &place)
        {
            return self.blade.lit(&place, colour);
        }
        if let Some(colour) = self.blade.stalk(&place) {
            return colour;
        }
        let under = self
            .behind
            .as_ref()
            .and_then(|blade| bare(blade, x, y))
            .unwrap_or_else(|| self.backdrop.colour(x, y));
        let [dx, dy] = self.shadow_offset;
        let in_shadow = self.blade.locate(x - dx, y - dy).inside();
        if in_shadow { dim(under, self.shadow) } else { under }
    }
}

/// The colour of a leaf without symptoms where the point lies on it.
fn bare(blade: &Blade, x: f32, y: f32) -> Option<Colour> {
    let place = blade.locate(x, y);
    place.inside().then(|| blade.lit(&place, blade.tissue(&place)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mean absolute difference of two pictures, in grey levels.
    fn difference(a: &RgbImage, b: &RgbImage) -> f64 {
        let sum: f64 = a.as_raw().iter().zip(b.as_raw()).map(|(a, b)| f64::from(a.abs_diff(*b))).sum();
        sum / a.as_raw().len() as f64
    }

    #[test]
    fn the_same_arguments_give_the_same_picture_and_any_other_another() {
        let base = leaf(1, 2, 3, 32);
        assert_eq!(base, leaf(1, 2, 3, 32));
        for other in [leaf(2, 2, 3, 32), leaf(1, 3, 3, 32), leaf(1, 2, 4, 32)] {
            assert!(difference(&base, &other) > 5.0);
        }
    }

    #[test]
    fn pictures_do_not_depend_on_the_number_of_threads() {
        let draw = |threads: usize| -> Vec<RgbImage> {
            let pool =
                rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a small pool starts");
            pool.install(|| (0..32usize).into_par_iter().map(|i| leaf(5, i % 8, i as u64, 16)).collect())
        };
        assert_eq!(draw(1), draw(3));
    }

    /// The same leaf, background and light; only the condition differs.
    fn in_condition(condition: Condition, index: u64) -> RgbImage {
        let mut rng = stream(11, Purpose::Demo, [0, index, 0]);
        let mut scene = Scene::draw(Condition::Healthy, &mut rng);
        let camera = Camera::draw(&mut rng);
        scene.symptoms = Symptoms::draw(condition, &scene.blade, &mut rng);
        camera.photograph(32, |x, y| scene.colour(x, y))
    }

    #[test]
    fn every_condition_shows_on_the_same_leaf() {
        let shown = Condition::ALL.map(|c| (c, (0..20).map(|k| in_condition(c, k)).collect::<Vec<_>>()));
        for (i, (a, left)) in shown.iter().enumerate() {
            for (b, right) in &shown[i + 1..] {
                let mean = left.iter().zip(right).map(|(l, r)| difference(l, r)).sum::<f64>() / 20.0;
                assert!(mean > 2.0, "{a:?} and {b:?} differ by {mean} grey levels only");
            }
        }
    }

    #[test]
    fn another_size_shows_the_same_scene() {
        let small = leaf(3, 4, 5, 32);
        let large =
            image::imageops::resize(&leaf(3, 4, 5, 64), 32, 32, image::imageops::FilterType::Triangle);
        assert!(difference(&small, &large) < 12.0);
        for size in [1, 7, 100] {
            assert_eq!(leaf(3, 4, 5, size).dimensions(), (size, size));
        }
    }

    #[test]
    fn a_set_has_the_promised_files_and_a_test_part_of_its_own() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let told = AtomicUsize::new(0);
        write_set(dir.path(), 3, 2, 9, 16, |_, total| {
            assert_eq!(total, 8 * 5);
            told.fetch_add(1, Ordering::Relaxed);
        })
        .expect("a writable folder");
        assert_eq!(told.into_inner(), 8 * 5);
        for name in CLASSES {
            let count =
                |part: &str| std::fs::read_dir(dir.path().join(part).join(name)).map(Iterator::count).ok();
            assert_eq!((count("train"), count("test")), (Some(3), Some(2)));
        }
        let read =
            |part: &str| image::open(dir.path().join(part).join("rust/00000.png")).expect("a PNG").to_rgb8();
        assert_eq!(read("train"), leaf(9, 1, 0, 16));
        assert_ne!(read("train"), read("test"));
    }

    #[test]
    fn an_unwritable_place_is_named() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        let error = write_set(file.path(), 1, 0, 1, 8, |_, _| {}).expect_err("a file is no folder");
        assert!(error.to_string().contains("train"), "{error}");
    }
}
