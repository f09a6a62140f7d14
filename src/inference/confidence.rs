//! What a model's confidences mean, and when it abstains; chosen on the evaluation images, kept in the bundle.

use serde::{Deserialize, Serialize};

use super::Prediction;
use crate::config::{ConfidenceConfig, TemperatureChoice};
use crate::metrics::{
    FEWEST_FOR_TEMPERATURE, Judged, RejectRule, Reliability, Temperature, TemperatureOrigin, argmax,
    probabilities,
};

/// From logits to a confidence that can be taken at its word.
///
/// A prediction's confidence is `max softmax(logits / temperature)`. It abstains if that is below `reject_below`. The class
/// is that of the logits as they are: calibration never changes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Confidence {
    /// What logits are divided by.
    pub temperature: f64,
    /// How the temperature came about.
    pub temperature_origin: TemperatureOrigin,
    /// Confidence below which a prediction abstains; without, none does: no threshold holds what was asked for.
    pub reject_below: Option<f64>,
    /// Largest share of wrong ones among predictions that do not abstain, as asked for.
    pub target_error: f64,
    /// How sure that share is, as asked for.
    pub level: f64,
    /// Evaluation images all of this was learned from.
    pub images: u64,
    /// Share of these that abstain.
    pub abstained: f64,
    /// Expected calibration error on these at temperature 1.
    pub ece_before: f64,
    /// The same at `temperature`.
    pub ece_after: f64,
}

/// How reliable confidences are on one set of images, before and after calibration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reliable {
    /// At temperature 1.
    pub before: Reliability,
    /// At the model's temperature.
    pub after: Reliability,
    /// Images that abstain.
    pub abstained: u64,
    /// Mistakes among those that do not.
    pub errors_accepted: u64,
    /// All images.
    pub images: u64,
}

impl Confidence {
    /// Learns from evaluation images: `logits` `[N, C]`, row-major, `labels` `[N]`. `None` without images.
    pub fn learn(
        config: &ConfidenceConfig,
        logits: &[f32],
        labels: &[usize],
        classes: usize,
    ) -> Option<Self> {
        if labels.is_empty() {
            return None;
        }
        let temperature = match config.temperature {
            TemperatureChoice::Fit => Temperature::fit(logits, labels, classes),
            TemperatureChoice::Off => Temperature::ONE,
        };
        // Six digits are more than the images can tell, and come back from the file as they are.
        let digits = |value: f64| (value * 1e6).round() / 1e6;
        let value = digits(temperature.value);
        let judged = Judged::all(logits, labels, classes, value);
        let rule = RejectRule::choose(&judged, config.target_error, config.level);
        let accepted = rule.map_or(labels.len() as u64, |rule| rule.accepted);
        let before = Reliability::of(&Judged::all(logits, labels, classes, 1.0));
        Some(Self {
            temperature: value,
            temperature_origin: temperature.origin,
            reject_below: rule.map(|rule| rule.reject_below),
            target_error: config.target_error,
            level: config.level,
            images: labels.len() as u64,
            abstained: digits(1.0 - accepted as f64 / labels.len() as f64),
            ece_before: digits(before.expected_error),
            ece_after: digits(Reliability::of(&judged).expected_error),
        })
    }

    /// What the network says of an image with these logits.
    pub fn predict(&self, logits: &[f32]) -> Prediction {
        let class = argmax(logits);
        let probabilities = probabilities(logits, self.temperature);
        let abstained = self.rejects(probabilities[class]);
        let probabilities: Vec<f32> = probabilities.into_iter().map(|p| p as f32).collect();
        Prediction { class, confidence: probabilities[class], probabilities, abstained }
    }

    /// Confidence that is no number is none.
    fn rejects(&self, confidence: f64) -> bool {
        self.reject_below.is_some_and(|least| confidence < least || confidence.is_nan())
    }

    /// How reliable it is on images of known classes.
    pub fn check(&self, logits: &[f32], labels: &[usize], classes: usize) -> Reliable {
        let judged = Judged::all(logits, labels, classes, self.temperature);
        let abstained = judged.iter().filter(|image| self.rejects(image.confidence)).count() as u64;
        let accepted = judged.iter().filter(|image| !self.rejects(image.confidence));
        Reliable {
            before: Reliability::of(&Judged::all(logits, labels, classes, 1.0)),
            abstained,
            errors_accepted: accepted.filter(|image| !image.right).count() as u64,
            images: labels.len() as u64,
            after: Reliability::of(&judged),
        }
    }

    /// The temperature and where it comes from, in words.
    pub fn temperature_sentence(&self) -> String {
        let Self { temperature, images, .. } = self;
        match self.temperature_origin {
            TemperatureOrigin::Fitted => {
                let leaning = if *temperature > 1.0 { "over" } else { "under" };
                format!(
                    "Confidences are calibrated: logits are divided by the temperature {temperature:.3}, fitted on {images} \
                     evaluation images (the network by itself is {leaning}confident)."
                )
            }
            TemperatureOrigin::TooFewImages => format!(
                "Confidences are the network's own (temperature 1): {images} evaluation images are too few to calibrate \
                 them, {FEWEST_FOR_TEMPERATURE} are needed."
            ),
            TemperatureOrigin::NoOptimum => format!(
                "Confidences are the network's own (temperature 1): the {images} evaluation images, nearly all right or \
                 nearly all wrong, do not tell how sure it should be."
            ),
            TemperatureOrigin::Off => {
                "Confidences are the network's own (temperature 1), as configured.".to_owned()
            }
        }
    }

    /// When predictions abstain, in words.
    pub fn reject_sentence(&self) -> String {
        let (target, level) = (100.0 * self.target_error, 100.0 * self.level);
        match self.reject_below {
            Some(least) => format!(
                "Predictions with a confidence under {} abstain. Of the others at most {target:.0} % are wrong, with \
                 {level:.0} % certainty on images like the {} evaluation images, of which {:.0} % abstain.",
                digits(least),
                self.images,
                100.0 * self.abstained
            ),
            None => format!(
                "No prediction abstains: no threshold keeps the error at {target:.0} % or less with {level:.0} % certainty on \
                 {} evaluation images. More labelled images, a better model, or a larger `confidence.target_error` would \
                 allow one.",
                self.images
            ),
        }
    }

    /// Expected calibration error on the evaluation images, in words.
    pub fn error_sentence(&self) -> String {
        let (after, before) = (100.0 * self.ece_after, 100.0 * self.ece_before);
        format!("expected calibration error {after:.1} % ({before:.1} % before calibration)")
    }

    /// How many of `images` abstained, in a line for the terminal.
    pub fn summary(&self, abstained: usize, images: usize) -> String {
        match self.reject_below {
            Some(least) => {
                format!("{abstained} of {images} images abstained (confidence under {})", digits(least))
            }
            None => self.reject_sentence(),
        }
    }
}

/// Two digits of a threshold, four where two would make it 1.
fn digits(threshold: f64) -> String {
    if threshold < 0.99 { format!("{threshold:.2}") } else { format!("{threshold:.4}") }
}

impl Reliable {
    /// In a line: "expected calibration error 4.1 % (8.0 % before calibration)", and how many abstain.
    pub fn sentence(&self) -> String {
        let accepted = self.images - self.abstained;
        format!(
            "expected calibration error {:.1} % ({:.1} % before calibration); {} of {} images abstain, {} of the other {accepted} \
             are wrong",
            100.0 * self.after.expected_error,
            100.0 * self.before.expected_error,
            self.abstained,
            self.images,
            self.errors_accepted,
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Images of which one in ten is wrong, and less sure.
    fn images(count: usize) -> (Vec<f32>, Vec<usize>) {
        let logits = (0..count).flat_map(|i| {
            let height = if i % 10 == 0 { 1.0 } else { 3.0 };
            [height + (i % 7) as f32 * 0.1, 0.0, -1.0]
        });
        (logits.collect(), (0..count).map(|i| usize::from(i % 10 == 0)).collect())
    }

    fn learned(count: usize) -> Confidence {
        let (logits, labels) = images(count);
        Confidence::learn(&ConfidenceConfig::default(), &logits, &labels, 3).expect("there are images")
    }

    #[test]
    fn the_wrong_ones_abstain_and_keep_their_class() {
        let confidence = learned(300);
        assert_eq!(confidence.temperature_origin, TemperatureOrigin::Fitted);
        let (unsure, sure) = (confidence.predict(&[1.0, 0.0, -1.0]), confidence.predict(&[3.5, 0.0, -1.0]));
        assert!(unsure.abstained && !sure.abstained, "{confidence:?}");
        assert_eq!((unsure.class, sure.class), (0, 0));
        let (logits, labels) = images(300);
        let found = confidence.check(&logits, &labels, 3);
        assert!((found.abstained as f64 / 300.0 - confidence.abstained).abs() < 1e-6);
        assert!(found.after.expected_error < found.before.expected_error);
        assert!(confidence.summary(12, 200).starts_with("12 of 200 images abstained (confidence under 0."));
    }

    #[test]
    fn few_images_promise_nothing_and_say_so() {
        let confidence = learned(12);
        assert_eq!((confidence.temperature, confidence.reject_below), (1.0, None));
        assert!(!confidence.predict(&[0.0, 0.0, 0.0]).abstained);
        assert!(confidence.temperature_sentence().contains("too few"));
        assert!(confidence.summary(0, 3).starts_with("No prediction abstains"));
        assert_eq!(Confidence::learn(&ConfidenceConfig::default(), &[], &[], 3), None);
    }

    #[test]
    fn it_comes_back_from_its_text_bit_by_bit() {
        for count in [1, 12, 33, 300] {
            let written = learned(count);
            let text = serde_json::to_string(&written).expect("plain data");
            assert_eq!(serde_json::from_str::<Confidence>(&text).expect("its own text"), written);
        }
    }

    proptest! {
        #[test]
        fn the_class_is_that_of_the_logits(logits in proptest::collection::vec(-30f32..30.0, 5)) {
            let prediction = learned(300).predict(&logits);
            let plain = Prediction::from_logits(&logits);
            prop_assert_eq!(prediction.class, plain.class);
            prop_assert!((prediction.probabilities.iter().sum::<f32>() - 1.0).abs() < 1e-5);
        }
    }
}
