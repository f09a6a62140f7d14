//! The section `[published]`: what a recipe that repeats a published result expects and compares with.

use serde::{Deserialize, Serialize};

use crate::bounds::Lower::From;
use crate::bounds::Upper::Upto;
use crate::bounds::{Invalid, range};

/// A published result. All keys are optional; those set are checked against the images before training, or shown beside its
/// result.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PublishedConfig {
    /// Name of the data set.
    pub dataset: Option<String>,
    /// Where its files come from, and how they are to be laid out.
    pub files: Option<String>,
    /// Classes it has.
    pub classes: Option<u32>,
    /// Images it has, those set aside as unreadable included.
    pub images: Option<u32>,
    /// Published error rate on test images, in percent, from 0 to 100.
    pub error_rate: Option<f64>,
    /// Published error rate of supervised training on all labels, in percent, from 0 to 100.
    pub supervised_error_rate: Option<f64>,
    /// Where the numbers stand, and what they were measured with.
    pub source: Option<String>,
}

impl PublishedConfig {
    /// Error rates are percentages.
    ///
    /// # Errors
    /// The first that is none.
    pub fn check(&self) -> Result<(), Invalid> {
        for (key, rate) in [
            ("published.error_rate", self.error_rate),
            ("published.supervised_error_rate", self.supervised_error_rate),
        ] {
            if let Some(rate) = rate {
                range(key, rate, From(0.0), Upto(100.0))?;
            }
        }
        Ok(())
    }

    /// Compares with what was found; `Err` says in words what differs and what can be done.
    ///
    /// # Errors
    /// If the number of classes or images is another.
    pub fn compare(&self, classes: usize, images: usize) -> Result<(), String> {
        let name = self.dataset.as_deref().unwrap_or("the data set");
        let differs = |expected: Option<u32>, found: usize| expected.filter(|count| *count as usize != found);
        let other = [("classes", self.classes, classes), ("images", self.images, images)]
            .into_iter()
            .filter_map(|(what, expected, found)| Some((what, differs(expected, found)?, found)))
            .collect::<Vec<_>>();
        if other.is_empty() {
            return Ok(());
        }
        let parts: Vec<String> = other
            .iter()
            .map(|(what, expected, found)| format!("{found} {what} instead of {expected}"))
            .collect();
        let settings: Vec<String> =
            other.iter().map(|(what, _, found)| format!("--set published.{what}={found}")).collect();
        let files = self.files.as_ref().map_or_else(String::new, |files| format!(" Files: {files}."));
        Err(format!(
            "{name} has {} here; is it all there, and nothing else?{files} To train on it as it is: {}",
            parts.join(" and "),
            settings.join(" ")
        ))
    }
}
