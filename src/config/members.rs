//! The members of self-training: each is an ordinary supervised run, said in a line of a recipe.
//!
//! ```toml
//! [algorithm.self_training]
//! members = [
//!     "vit_small_patch14_dinov2 lora pretrained=dinov2 training.lr=5e-3",
//!     "resnet50 full pretrained=resnet50",
//! ]
//! ```
//!
//! A member has the settings of the run, but for its network, its tuning, and what its line says. Settings of the run's
//! network (`pretrained`, `image_size`, `drop_path`) count for members with the same network, and no others.

use std::path::{Path, PathBuf};

use harvest_models::PRESETS;

use super::error::{ConfigError, Origin};
use super::layers::Override;
use super::resolve::Resolved;
use super::sections::Config;
use super::suggest::nearest;
use crate::algorithms::AlgorithmName;
use crate::bounds::Invalid;

/// The key that lists them.
const KEY: &str = "algorithm.self_training.members";

/// Ways to tune, as in `training.tuning`.
const TUNINGS: [&str; 4] = ["full", "lora", "adapter", "linear"];

/// Sections a member may have settings of its own in: with other images or labels its pseudo-labels would be of no use.
const OWN: [&str; 3] = ["model.", "training.", "views."];

/// What a line should look like.
const FORM: &str = "a member is written as \"NETWORK TUNING\", then pretrained=FILE or NAME and further KEY=VALUE of [model], \
                    [training] and [views] as wanted, for example \"vit_tiny_patch2_32 full training.lr=1e-3\"";

/// One member and its settings.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its line in the recipe.
    pub line: String,
    /// Its own run.
    pub config: Resolved,
}

/// A member's line, taken apart.
struct Line<'a> {
    network: &'a str,
    tuning: &'a str,
    settings: Vec<(&'a str, &'a str)>,
}

impl<'a> Line<'a> {
    fn read(line: &'a str) -> Result<Self, String> {
        let mut words = line.split_whitespace();
        let (Some(network), Some(tuning)) = (words.next(), words.next()) else {
            return Err(format!("says no network and tuning; {FORM}"));
        };
        known("network", network, &PRESETS)?;
        known("tuning", tuning, &TUNINGS)?;
        let setting = |word: &'a str| {
            let own = |key: &str| key == "pretrained" || OWN.iter().any(|section| key.starts_with(section));
            match word.split_once('=') {
                Some(("model.name" | "training.tuning", _)) => {
                    Err(format!("says network and tuning twice, in `{word}` too; {FORM}"))
                }
                Some((key, value)) if own(key) && !value.is_empty() => Ok((key, value)),
                _ => Err(format!("has `{word}`, which is no setting of a member; {FORM}")),
            }
        };
        Ok(Self { network, tuning, settings: words.map(setting).collect::<Result<_, _>>()? })
    }
}

fn known(what: &str, word: &str, words: &[&'static str]) -> Result<(), String> {
    if words.contains(&word) {
        return Ok(());
    }
    let meant = nearest(word, words.iter().copied());
    let hint = meant.map_or_else(String::new, |meant| format!("; did you mean `{meant}`?"));
    Err(format!("names the {what} `{word}`, and there is none; {what}s are {}{hint}", words.join(", ")))
}

/// Refuses lines that cannot be read, whatever algorithm is chosen, and self-training without members.
pub(super) fn check(config: &Config) -> Result<(), Invalid> {
    let invalid = |reason| Invalid { key: KEY, reason };
    let lines = &config.algorithm.self_training.members;
    for (number, line) in (1..).zip(lines) {
        Line::read(line).map_err(|reason| invalid(format!("(element {number}, \"{line}\") {reason}")))?;
        if lines[..number - 1].contains(line) {
            return Err(invalid(format!("names \"{line}\" twice; two alike say the same")));
        }
    }
    if lines.is_empty() && config.algorithm.name == AlgorithmName::SelfTraining {
        let network = &config.model.name;
        return Err(invalid(format!(
            "is empty, and self_training learns from members: say at least one, better two that differ, such as \
             [\"{network} full\", \"{network} linear\"]; {FORM}"
        )));
    }
    Ok(())
}

impl Resolved {
    /// The members of self-training, each with the settings of a supervised run of its own; none unless the configuration
    /// names some.
    ///
    /// # Errors
    /// If a member's settings make no sense, with its number.
    pub fn members(&self) -> Result<Vec<Member>, ConfigError> {
        let lines = &self.value.algorithm.self_training.members;
        let base = self.base_of(KEY);
        (1..).zip(lines).map(|(number, line)| self.member(number, line, &base)).collect()
    }

    fn member(&self, number: usize, line: &str, base: &Path) -> Result<Member, ConfigError> {
        let read = Line::read(line).map_err(|reason| ConfigError::Invalid {
            origin: self.origin(KEY),
            key: KEY.into(),
            reason: format!("(element {number}, \"{line}\") {reason}"),
        })?;
        let said = format!("{}, member {number}:", self.origin(KEY));
        let set = |key: &str, value: &str| Override {
            key: key.into(),
            value: value.into(),
            argument: format!("{said} {key}={value}"),
        };
        let mut own = vec![
            set("algorithm.name", AlgorithmName::Supervised.as_str()),
            set("model.name", read.network),
            set("training.tuning", read.tuning),
        ];
        own.extend(read.settings.into_iter().map(|(key, value)| match key {
            "pretrained" | "model.pretrained" => {
                set("model.pretrained", &base.join(value).display().to_string())
            }
            _ => set(key, value),
        }));
        // What members there are, and how they are joined, does not tell one member from another: each is found again
        // when the list changes.
        let mut elsewhere = vec!["algorithm.self_training."];
        if read.network != self.value.model.name {
            elsewhere.push("model.");
        }
        Ok(Member { line: line.to_owned(), config: self.varied(&elsewhere, &own)? })
    }

    /// What relative paths in `key` are relative to.
    fn base_of(&self, key: &str) -> PathBuf {
        match self.origin(key) {
            Origin::File { path, .. } => std::path::absolute(&path)
                .ok()
                .and_then(|path| path.parent().map(Path::to_path_buf))
                .unwrap_or_default(),
            _ => std::env::current_dir().unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Kind, Schema, Sources, TuningName, resolve};
    use super::*;

    fn resolved(settings: &[&str]) -> Result<Resolved, String> {
        let overrides = settings.iter().map(|setting| Override::parse(setting).expect("well formed"));
        let sources = Sources { overrides: overrides.collect(), ..Sources::default() };
        resolve(&sources).map_err(|error| error.to_string())
    }

    fn of(members: &str, more: &[&str]) -> Result<Resolved, String> {
        let members = format!("algorithm.self_training.members={members}");
        resolved(&[&["algorithm.name=self_training", &members][..], more].concat())
    }

    #[test]
    fn tunings_are_those_of_the_training() {
        let schema = Schema::of::<Config>();
        assert_eq!(schema.get("training.tuning").expect("a key").kind, Kind::Choice(&TUNINGS));
    }

    #[test]
    fn a_member_is_a_supervised_run_with_what_its_line_says() {
        let run = of(
            r#"["resnet8 full", "vit_tiny_patch2_32 lora pretrained=mine training.lr=5e-3 views.flip=false"]"#,
            &["model.name=resnet8", "model.image_size=16", "training.steps=7", "data.seed=3"],
        );
        let members = run.expect("valid").members().expect("valid");
        let [first, second] = [0, 1].map(|i: usize| &members[i].config.value);
        for member in [first, second] {
            assert_eq!(member.algorithm.name, AlgorithmName::Supervised);
            assert_eq!((member.training.steps, member.data.seed), (Some(7), 3), "as the run");
        }
        assert_eq!((first.model.name.as_str(), first.model.image_size), ("resnet8", Some(16)));
        assert_eq!((first.training.tuning, first.training.lr), (TuningName::Full, 5e-4));
        // Another network has another size, and weights of its own.
        assert_eq!((second.model.name.as_str(), second.model.image_size), ("vit_tiny_patch2_32", None));
        assert_eq!((second.training.tuning, second.training.lr), (TuningName::Lora, 5e-3));
        let here = std::env::current_dir().expect("tests have a folder");
        assert_eq!(second.model.pretrained.as_ref().expect("said").0, here.join("mine"));
        assert!(!second.views.flip && first.views.flip);
    }

    #[test]
    fn a_member_is_the_same_run_whatever_other_members_there_are() {
        let members = |list: &str, more: &[&str]| {
            let members = of(list, more).expect("valid").members().expect("valid");
            members.iter().map(|member| member.config.fingerprint()).collect::<Vec<_>>()
        };
        let two = members(r#"["resnet8 full", "resnet8 linear"]"#, &[]);
        let other =
            members(r#"["resnet8 linear", "resnet50 full"]"#, &["algorithm.self_training.join=votes"]);
        assert_eq!(two[1], other[0]);
        assert!(two[0] != two[1] && other[0] != other[1]);
        assert_ne!(two, members(r#"["resnet8 full", "resnet8 linear"]"#, &["training.seed=9"]));
        // And the same as if it were asked for by hand.
        let by_hand =
            resolved(&["algorithm.name=supervised", "model.name=resnet8", "training.tuning=linear"]);
        assert_eq!(two[1], by_hand.expect("valid").fingerprint());
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_the_element_and_what_is_right() {
        for (members, words) in [
            ("[]", ["is empty", "linear\"]", "NETWORK TUNING"]),
            (
                r#"["resnet8 full", "resnet9 full"]"#,
                ["element 2", "network `resnet9`", "did you mean `resnet8`?"],
            ),
            (r#"["resnet8 lorra"]"#, ["element 1", "tuning `lorra`", "full, lora, adapter, linear"]),
            (r#"["resnet8"]"#, ["element 1", "no network and tuning", "NETWORK TUNING"]),
            (r#"[""]"#, ["element 1", "no network and tuning", "NETWORK TUNING"]),
            (r#"["resnet8 full data.seed=3"]"#, ["`data.seed=3`", "no setting of a member", "[views]"]),
            (r#"["resnet8 full pretrained"]"#, ["`pretrained`", "no setting of a member", "FILE or NAME"]),
            (r#"["resnet8 full", "resnet8 full"]"#, ["\"resnet8 full\"", "twice", "alike"]),
            (r#"["resnet8 full training.tuning=lora"]"#, ["element 1", "twice", "training.tuning=lora"]),
        ] {
            let error = of(members, &[]).map(drop).expect_err(members);
            for word in words.into_iter().chain(["algorithm.self_training.members"]) {
                assert!(error.contains(word), "`{word}` is not in: {error}");
            }
        }
        // Known only when the member's own settings are put together.
        let run = of(r#"["resnet8 full training.lr=0"]"#, &[]).expect("readable");
        let error = run.members().expect_err("no rate").to_string();
        assert!(error.contains("member 1: training.lr=0") && error.contains("more than 0"), "{error}");
        let run = of(r#"["resnet8 full training.lrr=1"]"#, &[]).expect("readable");
        let error = run.members().expect_err("no such key").to_string();
        assert!(error.contains("member 1") && error.contains("did you mean `training.lr`?"), "{error}");
    }

    #[test]
    fn no_members_are_fine_for_other_algorithms_but_wrong_ones_are_not() {
        assert!(resolved(&[]).expect("valid").members().expect("none").is_empty());
        let error = resolved(&[r#"algorithm.self_training.members=["nothing full"]"#]);
        assert!(error.map(drop).expect_err("refused already").contains("element 1"));
    }
}
