//! `MODEL_CARD.md`: what a model is for, how good it is and where it fails; for a reader who never saw its run.
//!
//! Sections follow Mitchell et al., "Model Cards for Model Reporting", FAT* 2019, arXiv:1810.03993.

mod markdown;
mod quality;

use super::{Bundle, Reliable};
use crate::data::ClassKind;
use crate::metrics::Scores;
use markdown::{code, plain, put};

/// The card's file in a bundle.
pub const CARD: &str = "MODEL_CARD.md";

/// A share counted over fewer images than this says little.
const FEW: u64 = 20;

/// All that a card tells.
#[derive(Debug, Clone)]
pub struct Card<'a> {
    /// Network, classes, preprocessing, confidence; `about` with its facts.
    pub bundle: &'a Bundle,
    /// Name of the folder or file the images come from, without the way to it.
    pub data: String,
    /// How many images are for what, in words and in order.
    pub images: Vec<(&'static str, usize)>,
    /// Labelled images of each class, those that chose the model included.
    pub labels: Vec<usize>,
    /// Scores and which images they were counted on, the most trustworthy first.
    pub scores: Vec<(&'static str, &'a Scores)>,
    /// How reliable confidences are on the first of these.
    pub reliable: Option<&'a Reliable>,
    /// Seconds of training.
    pub seconds: f64,
    /// Names of the files in the bundle.
    pub files: Vec<String>,
}

impl Card<'_> {
    /// The card as Markdown.
    pub fn to_markdown(&self) -> String {
        let mut text = String::new();
        self.purpose(&mut text);
        self.quality(&mut text);
        self.confidence(&mut text);
        self.limits(&mut text);
        self.data(&mut text);
        self.training(&mut text);
        self.preprocessing(&mut text);
        self.files(&mut text);
        text
    }

    /// A fact the run left in the bundle.
    fn about(&self, key: &str) -> &str {
        self.bundle.about.get(key).map_or("not recorded", String::as_str)
    }

    fn class(&self, class: usize) -> String {
        self.bundle.classes.get(class).map_or_else(|| format!("class {class}"), |name| plain(name))
    }

    fn purpose(&self, text: &mut String) {
        let classes: Vec<String> = (0..self.bundle.classes.len()).map(|class| self.class(class)).collect();
        let kind = match self.bundle.class_kind.is_ordered() {
            true => "says in which range of a percentage a picture lies",
            false if self.bundle.class_kind == ClassKind::Binary => "says whether something is there or not",
            false => "says which class a picture belongs to",
        };
        put(
            text,
            format_args!(
                "# Model card: {}\n\nThis model {kind}. It knows {} classes and always chooses one of them: {}.\n\nIt was made \
                 with HARVEST {} from a few labelled and many unlabelled pictures of one data set (`{}`). It is meant to \
                 help a person look through pictures of the same kind; it does not replace the person where a mistake \
                 is costly.\n\n",
                plain(self.about("run")),
                classes.len(),
                classes.join(", "),
                plain(&self.bundle.harvest),
                code(&self.data),
            ),
        );
    }

    fn confidence(&self, text: &mut String) {
        text.push_str("## How sure it is\n\n");
        let Some(confidence) = &self.bundle.confidence else {
            text.push_str(
                "Confidences are the network's own and were not checked: no labelled images were kept to calibrate \
                 them. Networks are often more confident than they should be. No prediction abstains.\n\n",
            );
            return;
        };
        put(
            text,
            format_args!("{}\n\n{}\n\n", confidence.temperature_sentence(), confidence.reject_sentence()),
        );
        text.push_str(
            "A prediction that abstains still names the most likely class; `abstained` says that a person should look \
             before it counts. Calibration changes confidences, never a class.\n\n",
        );
        put(
            text,
            format_args!(
                "How far confidence and share of right predictions are apart: on the evaluation images, {}.\n",
                confidence.error_sentence()
            ),
        );
        if let (Some((set, _)), Some(reliable)) = (self.scores.first(), self.reliable) {
            put(text, format_args!("On the {set} images: {}.\n", reliable.sentence()));
        }
        text.push('\n');
    }

    fn limits(&self, text: &mut String) {
        text.push_str(
            "## What it does not know\n\n\
             - Pictures of anything else get one of its classes all the same, sometimes with a high confidence.\n\
             - Pictures from another camera, distance, season, place or light than those it learned from may fare worse \
             than the numbers above; label a few dozen of them and measure.\n\
             - A picture with several classes in it gets only one.\n",
        );
        if let Some((set, scores)) = self.scores.first()
            && scores.samples < 10 * FEW
        {
            put(
                text,
                format_args!(
                    "- The scores come from only {} {set} images; mind their intervals.\n",
                    scores.samples
                ),
            );
        }
        let rare: Vec<String> = (0..self.labels.len())
            .filter(|class| (self.labels[*class] as u64) < FEW)
            .map(|class| self.class(class))
            .collect();
        if !rare.is_empty() {
            put(
                text,
                format_args!("- It learned from fewer than {FEW} labels each of: {}.\n", rare.join(", ")),
            );
        }
        text.push('\n');
        let int8 =
            self.bundle.about.iter().filter_map(|(key, value)| Some((key.strip_prefix("int8 ")?, value)));
        let int8: Vec<String> =
            int8.map(|(key, value)| format!("- {}: {}\n", plain(key), plain(value))).collect();
        if !int8.is_empty() {
            put(
                text,
                format_args!(
                    "### With weights of 8 bits\n\nMeasured against the full weights:\n\n{}\n",
                    int8.concat()
                ),
            );
        }
    }

    fn data(&self, text: &mut String) {
        put(text, format_args!("## What it learned from\n\nData: `{}`.\n\n", code(&self.data)));
        for (name, count) in &self.images {
            put(text, format_args!("- {name}: {count}\n"));
        }
        text.push_str("\n| class | labels |\n|---|---|\n");
        for (class, count) in self.labels.iter().enumerate() {
            put(text, format_args!("| {} | {count} |\n", self.class(class)));
        }
        text.push('\n');
    }

    fn training(&self, text: &mut String) {
        put(text, format_args!("## How it was trained\n\n"));
        let rows = [
            ("algorithm", self.about("algorithm")),
            ("network", self.about("network")),
            ("optimizer steps", self.about("steps")),
            ("weights taken after step", self.about("taken after step")),
            ("seed", self.about("seed")),
            ("run", self.about("run")),
            ("HARVEST", &self.bundle.harvest),
        ];
        // Self-training: what the network learned from.
        for (name, value) in rows.into_iter().chain(self.bundle.members()) {
            put(text, format_args!("- {name}: {}\n", plain(value)));
        }
        put(text, format_args!("- time: {:.0} s\n\n", self.seconds));
    }

    fn preprocessing(&self, text: &mut String) {
        let how = &self.bundle.preprocessing;
        put(
            text,
            format_args!(
                "## From a picture to the network\n\nTurned upright as its EXIF data says, converted to RGB, resized to \
                 {0} × {0} pixels whatever its shape ({1}, as Pillow resizes), then `(level / 255 − mean) / std` with mean \
                 {2:?} and std {3:?} of the channels. The network gives one logit for each class in the order of \
                 `config.json`.\n\n",
                how.size,
                plain(&how.resize),
                how.normalisation.mean,
                how.normalisation.std,
            ),
        );
    }

    fn files(&self, text: &mut String) {
        text.push_str("## Files and how to use them\n\n");
        for name in &self.files {
            let what = match name.as_str() {
                "model.safetensors" => "weights under the names of timm and torchvision",
                "model.onnx" => "the same network for ONNX Runtime and others",
                "config.json" => "network, classes in the order of the logits, preprocessing, confidence",
                CARD => "this card",
                _ => "see `config.json`",
            };
            put(text, format_args!("- `{}`: {what}\n", code(name)));
        }
        text.push_str(
            "\n`harvest predict --model FOLDER pictures/` writes `path,class,confidence,abstained` for every picture. In another \
             program: preprocess as above, run the network, take the class with the highest logit; its confidence is \
             `softmax(logits / confidence.temperature)`, and it abstains if that is below `confidence.reject_below`.\n",
        );
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use harvest_models::ClassifierConfig;

    use super::*;
    use crate::augment::Normalisation;
    use crate::config::ConfidenceConfig;
    use crate::inference::{Confidence, Preprocessing};

    fn bundle(facts: &[(&str, &str)]) -> Bundle {
        let classes = ["rust", "mildew", "a|b <i>"].map(str::to_owned).to_vec();
        let preprocessing =
            Preprocessing { size: 32, resize: "bicubic".into(), normalisation: Normalisation::HALF };
        let about: BTreeMap<_, _> = facts.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let model = ClassifierConfig::preset("resnet8", 3).expect("a preset");
        Bundle::new(model, classes, ClassKind::Categorical, preprocessing, about)
    }

    fn card<'a>(bundle: &'a Bundle, scores: Vec<(&'static str, &'a Scores)>) -> Card<'a> {
        Card {
            bundle,
            data: "beets".into(),
            images: vec![("images", 300), ("set aside", 2)],
            labels: vec![40, 40, 3],
            scores,
            reliable: None,
            seconds: 12.3,
            files: vec!["config.json".into(), "model.safetensors".into()],
        }
    }

    #[test]
    fn the_weakest_class_is_named_with_what_it_is_taken_for() {
        let targets = [vec![0; 30], vec![1; 30]].concat();
        let predictions = [vec![0; 18], vec![1; 10], vec![2; 2], vec![1; 30]].concat();
        let scores = Scores::from_predictions(&targets, &predictions, 3).expect("three classes");
        let mut bundle = bundle(&[("int8 accuracy", "0.79 (0.80 in full)"), ("seed", "7")]);
        let logits: Vec<f32> = (0..300).flat_map(|i| [3.0, (i % 5) as f32, 0.0]).collect();
        bundle.confidence = Confidence::learn(&ConfidenceConfig::default(), &logits, &[0; 300], 3);
        let text = card(&bundle, vec![("test", &scores)]).to_markdown();
        for words in [
            "**rust**: 12 of 30 images are taken for something else, most often for mildew (10 times).",
            "On 60 test images: **80.0 % right** (95 % interval 68.2 to 88.2 %)",
            "Not measured at all, for lack of images: a\\|b &lt;i&gt;.",
            "| rust | 18 of 30 | 42 to 75 % | 100.0 % |",
            "- accuracy: 0.79 (0.80 in full)",
            "- seed: 7",
            "fewer than 20 labels each of: a\\|b &lt;i&gt;",
            "- set aside: 2",
            "evaluation images, expected calibration error",
        ] {
            assert!(text.contains(words), "`{words}` is not in:\n{text}");
        }
        assert!(!text.contains("**mildew**"), "it has no mistakes");
    }

    #[test]
    fn what_is_not_known_is_said() {
        let bundle = bundle(&[]);
        let text = card(&bundle, Vec::new()).to_markdown();
        for words in ["Not measured: no labelled images", "were not checked", "seed: not recorded"] {
            assert!(text.contains(words), "`{words}` is not in:\n{text}");
        }
        assert!(!text.contains("8 bits"));
        let scores = Scores::from_predictions(&[0, 1, 2], &[0, 1, 2], 3).expect("three classes");
        let text = card(&bundle, vec![("evaluation", &scores)]).to_markdown();
        assert!(text.contains("Every one of the evaluation images was classified right."), "{text}");
        assert!(text.contains("chose the best of the run's checkpoints"), "{text}");
    }
}
