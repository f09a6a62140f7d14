//! Settings of a new project beyond what a beginner needs: what each does in plain words, and whether its value makes sense.

use std::collections::BTreeMap;

use harvest_models::PRESETS;

use crate::config::{Config, ConfigError, Kind, ModelConfig, Override, Schema, Sources, resolve};
use crate::experiment::network_config;
use crate::weights::Store;

/// A setting as the form shows it.
pub struct Setting {
    /// Its full name in `harvest.toml`.
    pub key: &'static str,
    /// What people call it.
    pub label: &'static str,
    /// What it does, and when to change it.
    pub hint: &'static str,
    /// What can be chosen; empty for something to type.
    pub choices: Vec<(String, String)>,
    /// What it is if nothing is said.
    pub usual: String,
}

/// Key, label and hint of all of them, in the order of the form.
const SETTINGS: [(&str, &str, &str); 8] = [
    (
        "data.labels_per_class",
        "Labelled images of each class",
        "Left empty, every label counts. With a number, training takes exactly so many of each class, and waits until there are.",
    ),
    (
        "training.epochs",
        "Passes over the images",
        "More take longer and may learn more; the best model on the way is kept in any case.",
    ),
    (
        "algorithm.name",
        "Algorithm",
        "How unlabelled images are learned from. FreeMatch did best in the published comparisons.",
    ),
    (
        "model.name",
        "Base model",
        "The network that learns. Small ones suit small pictures and computers without a GPU; large ones see more detail.",
    ),
    (
        "model.pretrained",
        "Weights to start from",
        "A network that has seen other pictures learns faster. Kept with `harvest weights fetch`; it must fit the base model.",
    ),
    (
        "training.lr",
        "Learning rate",
        "How large each step is. If the loss is no number or jumps, try a third of it.",
    ),
    (
        "model.image_size",
        "Image size",
        "Side in pixels to which images are brought. Left empty, what the base model was made for. Twice the size takes four times as long.",
    ),
    (
        "run.device",
        "Computer",
        "What trains on this machine. How many nodes and GPUs of a cluster are used is chosen when a training begins.",
    ),
];

/// All settings, with what this machine has to choose from.
pub fn all() -> Vec<Setting> {
    let usual = usual();
    SETTINGS
        .iter()
        .map(|(key, label, hint)| Setting {
            key,
            label,
            hint,
            choices: choices(key),
            usual: usual.get(*key).cloned().unwrap_or_default(),
        })
        .collect()
}

/// What each setting is on this machine if a project says nothing.
fn usual() -> BTreeMap<String, String> {
    let Ok(resolved) = resolve(&Sources::of_this_machine()) else { return BTreeMap::new() };
    let text = |value: &toml::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let entries = resolved.entries().iter();
    entries.filter_map(|entry| Some((entry.key.clone(), text(entry.value.as_ref()?)))).collect()
}

/// What can be chosen for `key`: its value, and words.
fn choices(key: &str) -> Vec<(String, String)> {
    let plain = |name: &str| (name.to_owned(), name.to_owned());
    match key {
        "algorithm.name" => match Schema::of::<Config>().get(key).map(|key| key.kind.clone()) {
            // Self-training is a recipe of several runs, not a setting of one.
            Some(Kind::Choice(names)) => {
                names.iter().filter(|name| **name != "self_training").map(|name| plain(name)).collect()
            }
            _ => Vec::new(),
        },
        "model.name" => PRESETS.iter().map(|name| plain(name)).collect(),
        "model.pretrained" => {
            let kept = Store::of_this_user().and_then(|store| store.list()).unwrap_or_default();
            let nothing = (String::new(), "none: begin from nothing".to_owned());
            std::iter::once(nothing).chain(kept.iter().map(|entry| plain(&entry.name))).collect()
        }
        "run.device" => {
            let words = [("auto", "the best there is"), ("cpu", "processors"), ("cuda", "GPU")];
            let here = |name: &str| name != "cuda" || cfg!(feature = "cuda");
            words
                .into_iter()
                .filter(|(name, _)| here(name))
                .map(|(name, words)| (name.into(), words.into()))
                .collect()
        }
        _ => Vec::new(),
    }
}

/// The values of a form, as `harvest.toml` is to hold them; what is empty is left out.
///
/// # Errors
/// Words for each value that makes no sense, by its key.
pub fn check(
    said: &BTreeMap<String, String>,
    classes: usize,
) -> Result<Vec<(String, toml::Value)>, BTreeMap<String, String>> {
    let mut values = Vec::new();
    let mut wrong = BTreeMap::new();
    for (key, text) in said.iter().filter(|(_, text)| !text.trim().is_empty()) {
        if !SETTINGS.iter().any(|(known, _, _)| known == key) {
            wrong.insert(key.clone(), "is no setting of this form".to_owned());
            continue;
        }
        let one = Override { key: key.clone(), value: text.trim().to_owned(), argument: "this field".into() };
        match resolve(&Sources { overrides: vec![one], ..Sources::default() }) {
            Ok(resolved) => {
                let entry = resolved.entries().iter().find(|entry| entry.key == *key);
                values.extend(entry.and_then(|entry| entry.value.clone()).map(|value| (key.clone(), value)));
            }
            Err(error) => {
                wrong.insert(key.clone(), in_words(error));
            }
        }
    }
    if wrong.is_empty()
        && let Err((key, words)) = network(&values, classes)
    {
        wrong.insert(key.to_owned(), words);
    }
    if wrong.is_empty() { Ok(values) } else { Err(wrong) }
}

/// Whether there is a network of that name and image size.
fn network(values: &[(String, toml::Value)], classes: usize) -> Result<(), (&'static str, String)> {
    let find = |key: &str| values.iter().find(|(known, _)| known == key).map(|(_, value)| value);
    let mut model = ModelConfig::default();
    if let Some(name) = find("model.name").and_then(toml::Value::as_str) {
        name.clone_into(&mut model.name);
    }
    // Two at least, whether or not the classes are known yet.
    let classes = classes.max(2);
    let check = |model: &ModelConfig| {
        network_config(model, classes).and_then(|config| config.validate()).map_err(|error| error.to_string())
    };
    check(&model).map_err(|words| ("model.name", words))?;
    model.image_size =
        find("model.image_size").and_then(toml::Value::as_integer).and_then(|size| u32::try_from(size).ok());
    check(&model).map_err(|words| ("model.image_size", words))
}

/// What is wrong with a value, without the key and the place, which the form shows.
fn in_words(error: ConfigError) -> String {
    match error {
        ConfigError::WrongType { expected, .. } => format!("must be {expected}"),
        ConfigError::Invalid { reason, .. } => reason,
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect()
    }

    #[test]
    fn every_setting_is_one_of_the_configuration() {
        let schema = Schema::of::<Config>();
        for setting in all() {
            assert!(schema.get(setting.key).is_some(), "{}", setting.key);
            // Weights need not be kept on this machine.
            let nothing_kept = setting.key == "model.pretrained";
            assert!(setting.choices.len() != 1 || nothing_kept, "{}", setting.key);
        }
    }

    #[test]
    fn values_are_typed_and_mistakes_are_told_by_field() {
        let good = said(&[
            ("training.lr", "3e-4"),
            ("training.epochs", " 12 "),
            ("model.name", ""),
            ("run.device", "cpu"),
        ]);
        let values = check(&good, 3).expect("all make sense");
        let text: Vec<_> = values.iter().map(|(key, value)| format!("{key} = {value}")).collect();
        assert_eq!(text, ["run.device = \"cpu\"", "training.epochs = 12", "training.lr = 0.0003"]);

        let bad = said(&[
            ("training.lr", "fast"),
            ("training.epochs", "0"),
            ("model.name", "vit_tiny_patch2_32"),
            ("training.seed", "1"),
        ]);
        let wrong = check(&bad, 3).expect_err("three mistakes");
        assert_eq!(
            wrong.keys().collect::<Vec<_>>(),
            ["training.epochs", "training.lr", "training.seed"],
            "{wrong:?}"
        );
        let wrong = check(&said(&[("model.image_size", "33")]), 3).expect_err("no whole number of patches");
        assert!(wrong.contains_key("model.image_size"), "{wrong:?}");
        assert!(
            check(&said(&[("model.name", "gpt")]), 3).expect_err("no network").contains_key("model.name")
        );
    }
}
