//! Which images are learned from with labels, chosen by, tested on, and learned from without labels.
//!
//! As in the published system, the user's labels are divided into training and evaluation, the best model is the one
//! with the best score on evaluation, and the test set is never looked at before the end. The paper does not give the
//! share; here it is one in five by default.
//!
//! - **Test**: the labelled images of the source's own test part if there are any; else a share of each class.
//! - **Labels**: `labels_per_class` of the remaining images of each class, or all of them.
//! - **Evaluation**: a share of those; at least one, and never all, of a class with two or more.
//! - **Unlabelled**: everything that is in neither test nor evaluation; the labelled images too, as in USB.
//!
//! Duplicates (the same pixels) are one image here: they count once, they stay on one side, one of them stands for all.
//! So do near-duplicates, where they are known; if all labels are used, those of near-duplicates of labelled images are too.
//! Copies of test and evaluation images are left out of training altogether. Copies with different labels are never
//! used as labelled; they are listed as conflicts.
//!
//! Who is chosen depends on seed, class and *content* alone, not on file names, order or threads: every image draws a
//! number from a stream keyed by its hash, and the lowest numbers win. A few more images change a split only a little,
//! and with another `labels_per_class` the test set stays and the labelled sets are nested.

use rand::Rng;
use serde::{Deserialize, Serialize};

use super::{ContentHash, Manifest, Part};
use crate::random::{Purpose, stream};

/// How to split.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SplitConfig {
    /// Labels used of each class, for training and evaluation together; without, all there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels_per_class: Option<u32>,
    /// Share of those labels that models are chosen by, from 0 (choose none) to below 1. Default: 0.2.
    pub evaluation_fraction: f64,
    /// Share of each class's labelled images kept for the test, from 0 (no test) to below 1, where the source has no
    /// test part of its own. Default: 0.2.
    pub test_fraction: f64,
    /// Default: 0.
    pub seed: u64,
}

impl Default for SplitConfig {
    fn default() -> Self {
        Self { labels_per_class: None, evaluation_fraction: 0.2, test_fraction: 0.2, seed: 0 }
    }
}

/// Indices into a manifest's images, each list in ascending order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Split {
    /// How it was made.
    pub config: SplitConfig,
    /// [`Manifest::fingerprint`] of the images it was made of.
    pub manifest: ContentHash,
    /// To train on with labels.
    pub labelled: Vec<u32>,
    /// To choose the best model by.
    pub evaluation: Vec<u32>,
    /// To test the chosen model on.
    pub test: Vec<u32>,
    /// To train on without labels; contains `labelled`.
    pub unlabelled: Vec<u32>,
    /// Used nowhere: copies of test and evaluation images, and images of a test part without a label.
    pub left_out: Vec<u32>,
    /// Copies of one picture with different labels.
    pub conflicts: Vec<Conflict>,
}

/// Two images with the same pixels and different labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conflict {
    /// The first labelled copy.
    pub first: u32,
    /// One that says otherwise.
    pub second: u32,
}

impl Conflict {
    /// A sentence naming both files.
    pub fn describe(&self, manifest: &Manifest) -> String {
        let words = |index: u32| {
            let image = &manifest.images[index as usize];
            let class = image.label.and_then(|label| manifest.classes.get(usize::from(label)));
            format!("`{}` is labelled `{}`", image.path, class.map_or("?", String::as_str))
        };
        format!("the same picture has two labels: {}, {}", words(self.first), words(self.second))
    }
}

/// Why no split can be made.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SplitError {
    /// A share that is none.
    #[error("`{name}` is {value}; it must be at least 0 and below 1")]
    Fraction {
        /// The key.
        name: &'static str,
        /// Its value.
        value: f64,
    },
    /// No labels asked for.
    #[error("`labels_per_class` is 0; ask for at least 1, or leave it out to use all labels")]
    NoLabelsAsked,
    /// No class at all.
    #[error("no labels are known; label some images, or name a label file or folders by class")]
    NoLabels,
    /// A class with too few labels.
    #[error("class `{class}` has {has} different labelled images{}, {needed} are needed; label more of it{}{}",
        beside_test(*.kept_for_test),
        if *.needed > 1 { " or lower `labels_per_class`" } else { "" },
        and_more(*.more))]
    TooFew {
        /// The class's name.
        class: String,
        /// Labelled images without duplicates, conflicts and those kept for the test.
        has: usize,
        /// How many are asked for.
        needed: usize,
        /// Kept for the test in addition.
        kept_for_test: usize,
        /// How many more classes have too few.
        more: usize,
    },
    /// The split was made of other images.
    #[error("the split was made of other images than these; restore the list of images, or split again")]
    OtherManifest,
}

fn beside_test(kept: usize) -> String {
    if kept == 0 { String::new() } else { format!(" beside {kept} kept for the test") }
}

fn and_more(more: usize) -> String {
    if more == 0 { String::new() } else { format!(" ({more} more classes have too few as well)") }
}

/// Where a picture and all of its copies belong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Train,
    Evaluation,
    Test,
}

/// What the copies of one picture say together.
#[derive(Clone, Copy)]
struct Picture {
    /// The first copy with a label.
    labelled: Option<u32>,
    conflict: bool,
    side: Side,
}

impl Split {
    /// Splits the images of a manifest; see the [module](self).
    ///
    /// # Errors
    /// [`SplitError`], all but [`SplitError::OtherManifest`].
    pub fn new(manifest: &Manifest, config: &SplitConfig) -> Result<Self, SplitError> {
        let first: Vec<u32> = indices(manifest).map(|index| manifest.first_of_group(index)).collect();
        Self::grouped(manifest, &first, config)
    }

    /// As [`Split::new`]; `first[i]` is the first image that image `i` is the same or nearly the same as.
    ///
    /// # Errors
    /// As [`Split::new`].
    pub fn grouped(manifest: &Manifest, first: &[u32], config: &SplitConfig) -> Result<Self, SplitError> {
        check(config)?;
        if manifest.classes.is_empty() || manifest.images.iter().all(|image| image.label.is_none()) {
            return Err(SplitError::NoLabels);
        }
        let (mut pictures, conflicts) = pictures(manifest, first);
        let own_test =
            manifest.images.iter().any(|image| image.part == Some(Part::Test) && image.label.is_some());
        let mut split = Self {
            config: config.clone(),
            manifest: manifest.fingerprint(),
            labelled: Vec::new(),
            evaluation: Vec::new(),
            test: Vec::new(),
            unlabelled: Vec::new(),
            left_out: Vec::new(),
            conflicts,
        };
        if own_test {
            let is_test = |&index: &u32| {
                let image = &manifest.images[index as usize];
                image.part == Some(Part::Test) && image.label.is_some()
            };
            split.test = indices(manifest).filter(is_test).collect();
        }
        split.choose(manifest, first, &mut pictures, own_test)?;
        if config.labels_per_class.is_none() {
            split.add_kin(manifest, first);
        }

        let mut used = vec![false; manifest.images.len()];
        split.test.iter().chain(&split.evaluation).for_each(|&index| used[index as usize] = true);
        for index in indices(manifest) {
            if pictures[first[index as usize] as usize].side == Side::Train {
                split.unlabelled.push(index);
            } else if !used[index as usize] {
                split.left_out.push(index);
            }
        }
        for list in [&mut split.labelled, &mut split.evaluation, &mut split.test] {
            list.sort_unstable();
        }
        Ok(split)
    }

    /// That this split is one of these images.
    ///
    /// # Errors
    /// [`SplitError::OtherManifest`].
    pub fn belongs_to(&self, manifest: &Manifest) -> Result<(), SplitError> {
        if self.manifest == manifest.fingerprint() { Ok(()) } else { Err(SplitError::OtherManifest) }
    }

    /// Draws test, labelled and evaluation images class by class.
    fn choose(
        &mut self,
        manifest: &Manifest,
        first: &[u32],
        pictures: &mut [Picture],
        own_test: bool,
    ) -> Result<(), SplitError> {
        let mut too_few = Vec::new();
        for (class, candidates) in candidates(manifest, pictures, self.config.seed).into_iter().enumerate() {
            let kept_for_test = if own_test { 0 } else { share(candidates.len(), self.config.test_fraction) };
            let (test, rest) = candidates.split_at(kept_for_test);
            let needed = self.config.labels_per_class.map_or(1, |labels| labels as usize);
            if rest.len() < needed {
                too_few.push((class, rest.len(), needed, kept_for_test));
                continue;
            }
            let chosen = self.config.labels_per_class.map_or(rest, |_| &rest[..needed]);
            let (evaluation, labelled) =
                chosen.split_at(share(chosen.len(), self.config.evaluation_fraction));
            for (list, indices, side) in [
                (&mut self.test, test, Side::Test),
                (&mut self.evaluation, evaluation, Side::Evaluation),
                (&mut self.labelled, labelled, Side::Train),
            ] {
                list.extend(indices);
                indices.iter().for_each(|&index| pictures[first[index as usize] as usize].side = side);
            }
        }
        match too_few.first() {
            None => Ok(()),
            Some(&(class, has, needed, kept_for_test)) => Err(SplitError::TooFew {
                class: manifest.classes[class].clone(),
                has,
                needed,
                kept_for_test,
                more: too_few.len() - 1,
            }),
        }
    }
}

impl Split {
    /// Adds the labelled images that are nearly the same as one that is learned from, with the same label.
    fn add_kin(&mut self, manifest: &Manifest, first: &[u32]) {
        let label = |index: u32| manifest.images[index as usize].label;
        let learned: std::collections::BTreeMap<u32, u32> =
            self.labelled.iter().map(|&index| (first[index as usize], index)).collect();
        let is_kin = |&index: &u32| {
            let like = learned.get(&first[index as usize]).filter(|like| **like != index);
            // Exact copies teach nothing new.
            manifest.images[index as usize].duplicate_of.is_none()
                && like.is_some_and(|like| {
                    label(*like) == label(index) && manifest.first_of_group(*like) != index
                })
        };
        self.labelled.extend(indices(manifest).filter(is_kin).collect::<Vec<_>>());
    }
}

fn check(config: &SplitConfig) -> Result<(), SplitError> {
    for (name, value) in
        [("evaluation_fraction", config.evaluation_fraction), ("test_fraction", config.test_fraction)]
    {
        if !(0.0..1.0).contains(&value) {
            return Err(SplitError::Fraction { name, value });
        }
    }
    if config.labels_per_class == Some(0) { Err(SplitError::NoLabelsAsked) } else { Ok(()) }
}

/// `fraction` of `count`, rounded; at least one and never all, unless that is impossible or nothing is asked for.
fn share(count: usize, fraction: f64) -> usize {
    if fraction == 0.0 || count < 2 {
        return 0;
    }
    ((count as f64 * fraction).round() as usize).clamp(1, count - 1)
}

fn indices(manifest: &Manifest) -> impl Iterator<Item = u32> {
    0..u32::try_from(manifest.images.len()).expect("a manifest holds fewer than 2^32 images")
}

/// Gathers copies at the first of each group; others stay as they begin. Anything with a copy in the source's test
/// part is on the test side.
fn pictures(manifest: &Manifest, first: &[u32]) -> (Vec<Picture>, Vec<Conflict>) {
    let mut pictures =
        vec![Picture { labelled: None, conflict: false, side: Side::Train }; manifest.images.len()];
    let mut conflicts = Vec::new();
    for index in indices(manifest) {
        let image = &manifest.images[index as usize];
        let picture = &mut pictures[first[index as usize] as usize];
        if image.part == Some(Part::Test) {
            picture.side = Side::Test;
        }
        match (picture.labelled, image.label) {
            (None, Some(_)) => picture.labelled = Some(index),
            (Some(first), Some(label))
                if manifest.images[first as usize].label != Some(label)
                    && manifest.images[first as usize].hash == image.hash =>
            {
                picture.conflict = true;
                conflicts.push(Conflict { first, second: index });
            }
            _ => {}
        }
    }
    (pictures, conflicts)
}

/// For each class the images that may be chosen, best draw first.
fn candidates(manifest: &Manifest, pictures: &[Picture], seed: u64) -> Vec<Vec<u32>> {
    let mut drawn: Vec<Vec<(u64, ContentHash, u32)>> = vec![Vec::new(); manifest.classes.len()];
    for picture in pictures.iter().filter(|picture| picture.side == Side::Train && !picture.conflict) {
        let Some(index) = picture.labelled else { continue };
        let image = &manifest.images[index as usize];
        let Some(class) = image.label.and_then(|label| drawn.get_mut(usize::from(label))) else { continue };
        class.push((draw(seed, &image.hash), image.hash, index));
    }
    drawn
        .into_iter()
        .map(|mut class| {
            class.sort_unstable();
            class.into_iter().map(|(_, _, index)| index).collect()
        })
        .collect()
}

/// The number an image draws.
fn draw(seed: u64, hash: &ContentHash) -> u64 {
    let word = |at: usize| u64::from_le_bytes(hash.0[at..at + 8].try_into().expect("eight bytes"));
    stream(seed, Purpose::Split, [word(0), word(8), 0]).next_u64()
}

#[cfg(test)]
mod tests;
