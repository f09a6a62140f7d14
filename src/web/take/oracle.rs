//! A model that answers for uploaded pictures: loaded when the first comes, kept for a while, and asked by one at a time.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use harvest_models::Classifier;
use harvest_picture::{decode_admitted, fit};
use image::RgbImage;
use image::codecs::jpeg::JpegEncoder;
use rayon::prelude::*;
use serde::Serialize;
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::upload::{LIMITS, Picture, Sent};
use crate::data::PixelGate;
use crate::experiment::{ExperimentError, chain};
use crate::inference::{Bundle, LabelName, Prediction, Predictor};
use crate::web::error::WebError;

/// How long a model is kept after its last answer.
const KEPT: Duration = Duration::from_secs(600);
/// Pictures that are decoded, and go through the network, at a time.
const BATCH: usize = 16;
/// Bytes, not decoded, of the pictures of a batch.
const BATCH_BYTES: usize = 64 << 20;
/// Longer side of the little pictures in answers.
const LITTLE: u32 = 96;

/// The model in memory, and those who wait for it.
#[derive(Clone, Default)]
pub struct Oracle {
    kept: Arc<Mutex<Option<Kept>>>,
    asking: Arc<AtomicUsize>,
}

struct Kept {
    folder: PathBuf,
    device: String,
    bundle: Bundle,
    network: Classifier,
    asked: Instant,
}

/// Which model, where it runs, and what its classes are called now.
pub struct Asked {
    /// The run's folder.
    pub folder: PathBuf,
    /// Name of a device.
    pub device: String,
    /// The network's classes.
    pub names: Vec<LabelName>,
}

/// A line of the answer.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Line {
    /// Others are before this one.
    Waiting {
        /// How many.
        waiting: usize,
    },
    /// The network is being loaded.
    Loading {
        /// Always true.
        loading: bool,
    },
    /// A picture and its class.
    Said {
        /// As the sender calls it.
        name: String,
        /// The class's name.
        class: String,
        /// Its number in the project.
        class_id: Option<u16>,
        /// Probability of the class, calibrated.
        confidence: f32,
        /// The next class.
        second: String,
        /// Its probability.
        second_confidence: f32,
        /// Whether the confidence is too low for the class to count.
        abstained: bool,
        /// The picture, small: a `data:` address.
        little: String,
    },
    /// A picture that cannot be used.
    Refused {
        /// As the sender calls it.
        name: String,
        /// Why.
        error: String,
    },
    /// The end, and that all before it is complete.
    Done {
        /// Pictures with a class.
        done: usize,
        /// Pictures without.
        refused: usize,
    },
    /// The end, for a reason that is not a picture's.
    Failed {
        /// The reason.
        failed: String,
    },
}

/// Counts down when somebody has their answer, or goes away.
struct InLine(Arc<AtomicUsize>);

impl Drop for InLine {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Oracle {
    /// Answers for all pictures of an upload; `tell` gets line after line and says whether anybody still listens.
    pub async fn ask(
        &self,
        asked: Asked,
        uploads: Vec<Sent>,
        mut tell: impl FnMut(Line) -> bool + Send + 'static,
    ) {
        let waiting = self.asking.fetch_add(1, Ordering::Relaxed);
        let in_line = InLine(self.asking.clone());
        if waiting > 0 && !tell(Line::Waiting { waiting }) {
            return;
        }
        // Whoever came first is first: the lock is fair.
        let kept = self.kept.clone().lock_owned().await;
        let answered = tokio::task::spawn_blocking(move || {
            let _in_line = in_line;
            let mut kept = kept;
            if let Err(error) = answer(&mut kept, &asked, uploads, &mut tell) {
                tell(Line::Failed { failed: chain(&error) });
            }
        });
        // A panic in it has freed the lock; who listens sees that the last line is missing.
        let _ = answered.await;
        self.clone().forget_later();
    }

    /// Frees the model when nobody has asked for a while.
    fn forget_later(self) {
        tokio::spawn(async move {
            tokio::time::sleep(KEPT + Duration::from_secs(1)).await;
            let mut kept = self.kept.lock().await;
            if kept.as_ref().is_some_and(|kept| kept.asked.elapsed() >= KEPT) {
                *kept = None;
            }
        });
    }
}

fn answer(
    kept: &mut OwnedMutexGuard<Option<Kept>>,
    asked: &Asked,
    uploads: Vec<Sent>,
    tell: &mut dyn FnMut(Line) -> bool,
) -> Result<(), WebError> {
    let same = kept.as_ref().is_some_and(|kept| kept.folder == asked.folder && kept.device == asked.device);
    if !same {
        if !tell(Line::Loading { loading: true }) {
            return Ok(());
        }
        // Before the next is loaded: two at once may be too large.
        **kept = None;
        let device = crate::device::by_name(&asked.device).map_err(ExperimentError::from)?;
        let read = Bundle::read(&asked.folder.join("bundle"), &device).map_err(ExperimentError::from)?;
        let (bundle, network) = (read.0, read.1);
        let (folder, device) = (asked.folder.clone(), asked.device.clone());
        **kept = Some(Kept { folder, device, bundle, network, asked: Instant::now() });
    }
    let Some(model) = kept.as_mut() else { return Ok(()) };
    model.asked = Instant::now();
    let mut batch =
        Batch { model, names: &asked.names, pictures: Vec::new(), bytes: 0, done: 0, refused: 0, tell };
    let listening = uploads.into_iter().all(|sent| sent.each(&mut |picture| batch.add(picture)));
    if listening && batch.flush() {
        let (done, refused) = (batch.done, batch.refused);
        (batch.tell)(Line::Done { done, refused });
    }
    model.asked = Instant::now();
    Ok(())
}

/// The square of pixels that the model sees, and a small picture for the page.
type Decoded = (Vec<u8>, String);

/// Pictures on their way through the network.
struct Batch<'a> {
    model: &'a Kept,
    names: &'a [LabelName],
    pictures: Vec<Picture>,
    bytes: usize,
    done: usize,
    refused: usize,
    tell: &'a mut dyn FnMut(Line) -> bool,
}

impl Batch<'_> {
    /// Takes a picture in; says whether anybody still listens.
    fn add(&mut self, picture: Picture) -> bool {
        self.bytes += picture.content.as_ref().map_or(0, Vec::len);
        self.pictures.push(picture);
        let full = self.pictures.len() == BATCH || self.bytes >= BATCH_BYTES;
        !full || self.flush()
    }

    /// Tells the classes of the pictures taken in.
    fn flush(&mut self) -> bool {
        self.bytes = 0;
        let how = &self.model.bundle.preprocessing;
        let gate = PixelGate::new(LIMITS.pixels_in_flight);
        let decoded: Vec<(String, Result<Decoded, String>)> = std::mem::take(&mut self.pictures)
            .into_par_iter()
            .map(|picture| {
                let decoded = picture.content.and_then(|bytes| {
                    let admit = |pixels| gate.admit(pixels);
                    let look = |image: RgbImage| (little(&image), fit(image, how.size).into_raw());
                    let found = decode_admitted(&bytes, &LIMITS, admit, look).map_err(|error| chain(&error));
                    found.map(|(little, square)| (square, little))
                });
                (picture.name, decoded)
            })
            .collect();
        let predictor = Predictor::new(&self.model.network, how.size as usize, &how.normalisation, BATCH);
        let squares =
            decoded.iter().filter_map(|(_, found)| found.as_ref().ok().map(|found| found.0.as_slice()));
        let mut said = Vec::new();
        predictor.logits(squares, |_, logits| {
            let rows = logits.chunks_exact(self.model.bundle.classes.len());
            said.extend(rows.map(|row| self.model.bundle.predict(row)));
            true
        });
        let mut said = said.into_iter();
        decoded.into_iter().all(|(name, found)| {
            let line = match found.map(|(_, little)| said.next().map(|said| (said, little))) {
                Ok(Some((said, little))) => {
                    self.done += 1;
                    line(name, self.names, &said, little)
                }
                Ok(None) => return false,
                Err(error) => {
                    self.refused += 1;
                    Line::Refused { name, error }
                }
            };
            (self.tell)(line)
        })
    }
}

fn line(name: String, names: &[LabelName], said: &Prediction, little: String) -> Line {
    let others = said.probabilities.iter().enumerate().filter(|(class, _)| *class != said.class);
    let second = others.reduce(|best, other| if other.1 > best.1 { other } else { best });
    let (second, second_confidence) = second.map_or((said.class, 0.0), |(class, share)| (class, *share));
    let called =
        |class: usize| names.get(class).map_or_else(|| format!("class {class}"), |name| name.name.clone());
    Line::Said {
        name,
        class: called(said.class),
        class_id: names.get(said.class).and_then(|name| name.id),
        confidence: said.confidence,
        second: called(second),
        second_confidence,
        abstained: said.abstained,
        little,
    }
}

/// A small copy that goes with the answer: no browser shows TIFF, and none can look into archives.
fn little(image: &RgbImage) -> String {
    let (width, height) = image.dimensions();
    let scale = f64::from(LITTLE) / f64::from(width.max(height));
    let side = |pixels: u32| ((f64::from(pixels) * scale.min(1.0)).round() as u32).max(1);
    let small = image::imageops::thumbnail(image, side(width), side(height));
    let mut bytes = Vec::new();
    match JpegEncoder::new_with_quality(&mut bytes, 72).encode_image(&small) {
        Ok(()) => format!("data:image/jpeg;base64,{}", STANDARD.encode(&bytes)),
        // The answer is worth having without it.
        Err(_) => String::new(),
    }
}
