//! Labels that may be wrong: what an expert said beside what the model is sure of.
//!
//! Northcutt et al., Confident Learning, arXiv:1911.00068. `p_j(x)` is the model's confidence that image `x` is of class `j`.
//!
//! ```text
//! t_j = mean of p_j(x) over the images labelled j       how sure the model is of class j where experts agree
//! x, labelled i, is suspicious if p_j(x) ≥ t_j for its most likely class j ≠ i
//! ```
//!
//! The most suspicious are those with the largest `p_j - p_i`. The paper asks for confidences from a model that has not seen the
//! label. That holds for evaluation and test images, and for images labelled since the run; a training image that the model
//! contradicts all the same is shown after these and said to be weaker evidence. Of other classes than the best two the run keeps
//! no confidence: it is taken as 0, which lowers `t_j` a little and shows an image too many rather than one too few.

use std::collections::BTreeMap;

use crate::experiment::{Belief, RunPart};

/// An image whose label may be wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Suspicious {
    /// What the model believes of it.
    pub belief: Belief,
    /// What an expert said: a class's number.
    pub label: u16,
}

impl Suspicious {
    /// Whether the model had not learned from the label.
    pub fn is_independent(&self) -> bool {
        self.belief.part != RunPart::Train
    }

    /// `p_j - p_i`.
    fn margin(&self) -> f32 {
        self.belief.confidence - confidence_in(&self.belief, self.label)
    }
}

/// What the model's confidence in `class` is, as far as the run keeps it.
fn confidence_in(belief: &Belief, class: u16) -> f32 {
    match class {
        _ if class == belief.class => belief.confidence,
        _ if class == belief.second => belief.second_confidence,
        _ => 0.0,
    }
}

/// The labelled images of a run, with the labels they have now.
#[derive(Debug, Default)]
pub struct Labelled {
    images: Vec<Suspicious>,
}

impl Labelled {
    /// Takes in an image that has a label.
    pub fn add(&mut self, belief: Belief, label: u16) {
        self.images.push(Suspicious { belief, label });
    }

    /// The suspicious ones: independent evidence first, then the most suspicious first.
    pub fn suspicious(self) -> Vec<Suspicious> {
        let mut sums = BTreeMap::<u16, (f64, u64)>::new();
        for image in &self.images {
            let (sum, count) = sums.entry(image.label).or_default();
            *sum += f64::from(confidence_in(&image.belief, image.label));
            *count += 1;
        }
        let threshold = |class: u16| sums.get(&class).map(|(sum, count)| (sum / *count as f64) as f32);
        let mut found: Vec<Suspicious> = self
            .images
            .into_iter()
            .filter(|image| image.belief.class != image.label)
            // A class that nobody has labelled yet has no threshold: there is nothing to compare with.
            .filter(|image| {
                threshold(image.belief.class).is_some_and(|least| image.belief.confidence >= least)
            })
            .collect();
        found.sort_by(|a, b| {
            b.is_independent().cmp(&a.is_independent()).then(b.margin().total_cmp(&a.margin()))
        });
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::ContentHash;

    fn belief(number: u8, part: RunPart, class: u16, confidence: f32, second: u16) -> Belief {
        Belief {
            hash: ContentHash([number; 32]),
            part,
            class,
            confidence,
            second,
            second_confidence: (1.0 - confidence) * 0.8,
            abstained: false,
        }
    }

    fn found(images: &[(Belief, u16)]) -> Vec<u8> {
        let mut labelled = Labelled::default();
        images.iter().for_each(|(belief, label)| labelled.add(*belief, *label));
        labelled.suspicious().iter().map(|image| image.belief.hash.0[0]).collect()
    }

    #[test]
    fn a_confident_contradiction_is_found_and_a_doubtful_one_is_not() {
        let agreeing = |number, class, confidence| {
            (belief(number, RunPart::Evaluation, class, confidence, 1 - class), class)
        };
        let mut images =
            vec![agreeing(1, 0, 0.8), agreeing(2, 0, 0.9), agreeing(3, 1, 0.7), agreeing(4, 1, 0.9)];
        images.push((belief(5, RunPart::Evaluation, 1, 0.95, 0), 0));
        images.push((belief(6, RunPart::Evaluation, 1, 0.55, 0), 0));
        assert_eq!(found(&images), [5], "0.55 is less than the model is sure of class 1 elsewhere");
    }

    #[test]
    fn what_the_model_never_saw_comes_before_what_it_learned_from() {
        let images = [
            (belief(1, RunPart::Train, 1, 0.99, 0), 0),
            (belief(2, RunPart::Evaluation, 1, 0.7, 0), 0),
            (belief(3, RunPart::Unlabelled, 1, 0.9, 0), 0),
            (belief(4, RunPart::Train, 1, 0.6, 0), 1),
        ];
        assert_eq!(found(&images), [3, 2, 1]);
    }

    #[test]
    fn without_a_label_of_the_other_class_nothing_is_said() {
        assert!(found(&[(belief(1, RunPart::Test, 7, 0.99, 0), 0)]).is_empty());
        assert!(found(&[]).is_empty());
    }
}
