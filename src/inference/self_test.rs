//! A bundle to take elsewhere: with ONNX files, and a picture whose logits every file in it must reproduce.
//!
//! ```text
//! model.onnx        the network with its preprocessing, see `onnx`
//! model.int8.onnx   the same with weights in eight bits, if asked for
//! self_test.png     a picture of the network's size
//! self_test.json    its logits by the network itself, and by the weights that the eight bits stand for
//! ```
//!
//! Nothing is handed out that fails: the folder gets its name after every file in it was read back and run.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use harvest_models::Classifier;
use image::RgbImage;
use serde::{Deserialize, Serialize};

use super::bundle::{BundleError, WEIGHTS};
use super::onnx::{OnnxModel, Storage, Surroundings, run_onnx};
use super::{Bundle, Predictor};
use crate::data::{DecodeLimits, decode_file};
use crate::files::{WriteError, atomic_write, publish_folder};

const ONNX: &str = "model.onnx";
const ONNX_INT8: &str = "model.int8.onnx";
const PICTURE: &str = "self_test.png";
const EXPECTED: &str = "self_test.json";

/// How far a logit may be off, in units of the largest. Two implementations add thousands of f32 in different orders,
/// which shows in the fifth digit or later; another layout, filter or constant shows in the first or second.
const TOLERANCE: f32 = 1e-3;

/// What the files of a bundle must answer to [`PICTURE`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SelfTest {
    /// File of the picture, of the network's size.
    image: String,
    /// Logits by the network in single precision.
    logits: Vec<f32>,
    /// Logits by the weights that the eight bits stand for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    int8_logits: Option<Vec<f32>>,
    /// How far a logit may be off, in units of the largest.
    tolerance: f32,
}

impl Bundle {
    /// The network as a graph, with this bundle's preprocessing and classes.
    ///
    /// # Errors
    /// If the weights are not the network's, or no numbers.
    pub fn onnx(&self, network: &Classifier, storage: Storage) -> Result<OnnxModel, BundleError> {
        let surroundings = Surroundings {
            preprocessing: &self.preprocessing,
            classes: &self.classes,
            temperature: self.temperature(),
        };
        Ok(OnnxModel::new(&self.model, &network.to_tensors(), surroundings, storage)?)
    }

    /// The network that a graph computes: [`OnnxModel::effective`] weights in this bundle's shape.
    ///
    /// # Errors
    /// If they do not fit.
    pub fn network_of(&self, onnx: &OnnxModel, device: &Device) -> Result<Classifier, BundleError> {
        let mut network = self.model.blank(device)?;
        network.load_tensors(&onnx.effective)?;
        Ok(network)
    }

    /// Writes everything to the new folder `folder`, then reads and runs each file; `picture` is for the self-test, RGB of
    /// the network's size.
    ///
    /// # Errors
    /// If something cannot be written or a file does not reproduce the self-test; then there is no folder.
    pub fn export(
        &self,
        folder: &Path,
        network: &Classifier,
        picture: &[u8],
        int8: bool,
    ) -> Result<(), BundleError> {
        let parent = match folder.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        std::fs::create_dir_all(parent).map_err(WriteError::at(parent))?;
        let mut builder = tempfile::Builder::new();
        builder.prefix(".writing-");
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
        // Deleted again unless it gets its name.
        let unfinished = builder.tempdir_in(parent).map_err(WriteError::at(parent))?;
        self.write_all(unfinished.path(), network, picture, int8)
            .and_then(|()| Self::verify(unfinished.path()))
            .map_err(|source| BundleError::Refused { path: folder.to_owned(), source: Box::new(source) })?;
        publish_folder(unfinished.path(), folder)?;
        let _ = unfinished.keep();
        Ok(())
    }

    fn write_all(
        &self,
        folder: &Path,
        network: &Classifier,
        picture: &[u8],
        int8: bool,
    ) -> Result<(), BundleError> {
        let path = folder.join(PICTURE);
        let side = self.preprocessing.size;
        let image = RgbImage::from_raw(side, side, picture.to_vec())
            .filter(|image| image.as_raw().len() == (side * side * 3) as usize)
            .ok_or_else(|| fails(&path, format!("it must be RGB of {side} x {side} pixels")))?;
        let mut png = Cursor::new(Vec::new());
        image.write_to(&mut png, image::ImageFormat::Png).map_err(|error| fails(&path, error.to_string()))?;
        self.write(folder, network)?;
        atomic_write(&path, png.get_ref())?;
        self.onnx(network, Storage::Float32)?.write(&folder.join(ONNX))?;
        let mut expected = SelfTest {
            image: PICTURE.to_owned(),
            logits: self.logits(network, picture),
            int8_logits: None,
            tolerance: TOLERANCE,
        };
        if int8 {
            let onnx = self.onnx(network, Storage::Int8)?;
            let network = self.network_of(&onnx, &network.device().inner())?;
            onnx.write(&folder.join(ONNX_INT8))?;
            expected.int8_logits = Some(self.logits(&network, picture));
        }
        let text = serde_json::to_vec_pretty(&expected).expect("numbers and names are plain data");
        Ok(atomic_write(&folder.join(EXPECTED), &text)?)
    }

    /// Reads each file of an exported bundle and runs it: all must give the self-test's logits.
    ///
    /// # Errors
    /// If a file is missing, damaged, or answers otherwise; the error names it.
    pub fn verify(folder: &Path) -> Result<(), BundleError> {
        let (bundle, network) = Self::read(folder, &Device::flex())?;
        let path = folder.join(EXPECTED);
        let text = std::fs::read_to_string(&path).map_err(|error| fails(&path, error.to_string()))?;
        let expected: SelfTest =
            serde_json::from_str(&text).map_err(|error| fails(&path, error.to_string()))?;
        let path = folder.join(PICTURE);
        let picture =
            decode_file(&path, &DecodeLimits::default()).map_err(|error| fails(&path, error.to_string()))?;
        let side = bundle.preprocessing.size;
        if picture.dimensions() != (side, side) {
            return Err(fails(&path, format!("it is not of {side} x {side} pixels")));
        }
        let picture = picture.into_raw();
        let compare = |file: &str, expected: &[f32], found: &[f32]| {
            let off = largest_difference(expected, found);
            let reason =
                || format!("its logits are off by {off:e} of the largest; up to {TOLERANCE:e} is rounding");
            if off <= TOLERANCE { Ok(()) } else { Err(fails(&folder.join(file), reason())) }
        };
        compare(WEIGHTS, &expected.logits, &bundle.logits(&network, &picture))?;
        let (side, classes) = (side as usize, bundle.classes.len());
        let run = |file: &str| run_onnx(&folder.join(file), &picture, 1, side, classes);
        compare(ONNX, &expected.logits, &run(ONNX)?)?;
        if let Some(expected) = &expected.int8_logits {
            compare(ONNX_INT8, expected, &run(ONNX_INT8)?)?;
        }
        Ok(())
    }

    /// Logits of one picture of the network's size.
    fn logits(&self, network: &Classifier, picture: &[u8]) -> Vec<f32> {
        let side = self.preprocessing.size as usize;
        let mut all = Vec::new();
        Predictor::new(network, side, &self.preprocessing.normalisation, 1).logits([picture], |_, logits| {
            all = logits;
            false
        });
        all
    }
}

fn fails(path: &Path, reason: String) -> BundleError {
    BundleError::SelfTest { path: PathBuf::from(path), reason }
}

/// A picture for the self-test where there is none to take: slopes in each colour, and edges.
pub fn drawn_picture(side: usize) -> Vec<u8> {
    let pixel = |i: usize| {
        let (row, column) = (i / side, i % side);
        let edge = if (row / 4 + column / 4) % 2 == 0 { 0 } else { 64 };
        let slope = |along: usize| (along * 160 / side.max(1)) as u8;
        [slope(row) + edge, slope(column) + edge, slope((row + column) / 2) + (64 - edge)]
    };
    (0..side * side).flat_map(pixel).collect()
}

/// The largest difference between `expected` and `found`, in units of the largest expected value; infinite where they
/// cannot be compared.
pub fn largest_difference(expected: &[f32], found: &[f32]) -> f32 {
    let finite = |values: &[f32]| values.iter().all(|value| value.is_finite());
    if expected.len() != found.len() || !finite(expected) || !finite(found) {
        return f32::INFINITY;
    }
    let largest = expected.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
    let off = expected.iter().zip(found).fold(0.0f32, |off, (e, f)| off.max((e - f).abs()));
    off / largest.max(f32::MIN_POSITIVE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inference::testing::bundle;

    /// An error with its causes.
    fn chain(error: &dyn std::error::Error) -> String {
        let causes = std::iter::successors(Some(error), |error| error.source());
        causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
    }

    fn exported(name: &str, folder: &Path) -> (Bundle, Classifier) {
        let (bundle, network) = bundle(name);
        let picture = drawn_picture(bundle.preprocessing.size as usize);
        bundle.export(folder, &network, &picture, true).expect("it can be written and verifies");
        (bundle, network)
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).expect("readable").map(|entry| entry.expect("readable"));
        let mut names: Vec<String> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn an_export_holds_every_file_and_reads_back_as_a_bundle() {
        let parent = tempfile::tempdir().expect("a temporary folder");
        for name in ["resnet8", "vit"] {
            let folder = parent.path().join("deeper").join(name);
            let (bundle, network) = exported(name, &folder);
            for file in [WEIGHTS, "config.json", ONNX, ONNX_INT8, PICTURE, EXPECTED] {
                assert!(names(&folder).iter().any(|name| name == file), "{file}");
            }
            let (read, loaded) = Bundle::read(&folder, &Device::flex()).expect("a bundle");
            assert_eq!(read, bundle);
            assert_eq!(loaded.to_tensors(), network.to_tensors());
            let size = |file: &str| std::fs::metadata(folder.join(file)).expect("there").len();
            assert!(size(ONNX_INT8) < size(ONNX));
        }
        assert_eq!(names(&parent.path().join("deeper")), ["resnet8", "vit"], "nothing unfinished is left");
    }

    #[cfg(unix)]
    #[test]
    fn others_may_read_what_the_user_lets_them() {
        use std::os::unix::fs::PermissionsExt;
        let parent = tempfile::tempdir().expect("a temporary folder");
        let plain = parent.path().join("plain");
        std::fs::write(&plain, b"").expect("writable");
        let mode = |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
        let folder = parent.path().join("bundle");
        exported("vit", &folder);
        for name in names(&folder) {
            assert_eq!(mode(&folder.join(&name)), mode(&plain), "{name}");
        }
        std::fs::create_dir(parent.path().join("made")).expect("writable");
        assert_eq!(mode(&folder), mode(&parent.path().join("made")));
    }

    #[test]
    fn a_file_that_is_damaged_missing_or_of_another_network_is_named() {
        let parent = tempfile::tempdir().expect("a temporary folder");
        let folder = parent.path().join("bundle");
        exported("vit", &folder);
        let other = parent.path().join("other");
        let (bundle, _) = bundle("vit");
        let network = bundle.model.init(2, &Device::flex()).expect("valid");
        bundle.export(&other, &network, &drawn_picture(16), true).expect("it verifies");
        for file in [ONNX, ONNX_INT8, WEIGHTS, EXPECTED, PICTURE] {
            let path = folder.join(file);
            let sound = std::fs::read(&path).expect("exported");
            let foreign = std::fs::read(other.join(file)).expect("exported");
            let short = sound[..sound.len() / 2].to_vec();
            for content in [Some(foreign), Some(short), None] {
                match content {
                    // Both were tested with the same picture.
                    Some(content) if content == sound => continue,
                    Some(content) => std::fs::write(&path, content).expect("writable"),
                    None => std::fs::remove_file(&path).expect("it is there"),
                }
                let error = Bundle::verify(&folder).expect_err("not as exported");
                let text = chain(&error);
                // Other logits expected: the first file that is run gives different ones.
                let named = if file == EXPECTED { WEIGHTS } else { file };
                assert!(text.contains(file) || text.contains(named), "{file}: {text}");
            }
            std::fs::write(&path, sound).expect("writable");
        }
        Bundle::verify(&folder).expect("as exported again");
    }

    #[test]
    fn a_refused_export_leaves_nothing() {
        let parent = tempfile::tempdir().expect("a temporary folder");
        let folder = parent.path().join("bundle");
        let (bundle, mut network) = bundle("vit");
        let error = bundle.export(&folder, &network, &[0; 5], false).expect_err("no picture of its size");
        assert!(matches!(error, BundleError::Refused { .. }), "{error:?}");
        let mut tensors = network.to_tensors();
        let bias = burn::tensor::TensorData::new(vec![f32::NAN; 3], [3]);
        tensors.insert("head.bias".into(), bias);
        network.load_tensors(&tensors).expect("the same names and shapes");
        let error = bundle.export(&folder, &network, &drawn_picture(16), false).expect_err("no numbers");
        assert!(chain(&error).contains("head.bias"), "{error:?}");
        assert!(names(parent.path()).is_empty());
    }

    #[test]
    fn differences_are_relative_and_never_hidden_by_what_is_no_number() {
        assert_eq!(largest_difference(&[2.0, -4.0], &[2.0, -3.0]), 0.25);
        assert_eq!(largest_difference(&[], &[]), 0.0);
        for (expected, found) in [([0.0], [f32::NAN]), ([f32::NAN], [f32::NAN]), ([f32::INFINITY], [1.0])] {
            assert_eq!(largest_difference(&expected, &found), f32::INFINITY);
        }
        assert_eq!(largest_difference(&[1.0], &[1.0, 2.0]), f32::INFINITY);
    }
}
