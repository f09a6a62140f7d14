//! What numbers mean, for people who do not read statistics every day.

use crate::metrics::{Interval, Scores, wilson};

/// With fewer images than this, an accuracy is a hint and no measurement.
const FEW: u64 = 50;

/// A sentence for the head of the page.
pub fn verdict(scores: &Scores) -> &'static str {
    let Interval { low, .. } = scores.accuracy_interval();
    match scores.accuracy {
        _ if scores.samples == 0 => "Nothing is known yet",
        _ if low <= guessing(scores) => "Not clearly better than guessing",
        0.95.. => "It gets nearly everything right",
        0.85.. => "It gets most images right",
        0.7.. => "Useful, with mistakes to look at",
        0.5.. => "It gets more right than wrong",
        _ => "Better than guessing, and often wrong",
    }
}

/// Share of right answers of somebody who always names the most frequent class.
fn guessing(scores: &Scores) -> f64 {
    let largest = scores.per_class.iter().map(|class| class.support).max().unwrap_or(0);
    largest as f64 / scores.samples.max(1) as f64
}

/// How much a small number of images can tell; `None` if there are enough.
pub fn caution(scores: &Scores, images: &str) -> Option<String> {
    if scores.samples >= FEW {
        return None;
    }
    let Interval { low, high } = scores.accuracy_interval();
    let step = 100.0 / scores.samples.max(1) as f64;
    Some(format!(
        "Only {} {images} images were looked at: one image more or less moves the accuracy by {step:.0} points, and the true \
         accuracy may lie anywhere between {:.0} and {:.0} %. Take the numbers below as hints. About {} {images} images would \
         tell it to within 5 points; one in five of your labels becomes one.",
        scores.samples,
        100.0 * low,
        100.0 * high,
        needed(scores),
    ))
}

/// Images for which an interval reaches 5 points to either side, in round numbers.
fn needed(scores: &Scores) -> u64 {
    // A share that all or none hit is not 0 or 1 for good.
    let share = ((scores.confusion.correct() as f64 + 2.0) / (scores.samples as f64 + 4.0)).clamp(0.05, 0.95);
    let images = share * (1.0 - share) * (1.96f64 / 0.05).powi(2);
    ((images / 10.0).ceil() * 10.0) as u64
}

/// Of which class most is missed, and what it is taken for; `None` if there is no mistake.
pub fn weakest(scores: &Scores, name: impl Fn(usize) -> String) -> Option<String> {
    let missed = |class: usize| scores.per_class[class].support - scores.confusion.count(class, class);
    let present = (0..scores.per_class.len()).filter(|class| scores.per_class[*class].support > 0);
    let recall = |class: &usize| scores.per_class[*class].recall;
    let class = present.filter(|class| missed(*class) > 0).min_by(|a, b| recall(a).total_cmp(&recall(b)))?;
    let row = scores.confusion.row(class).iter().enumerate().filter(|(other, _)| *other != class);
    let (other, count) = row.max_by_key(|(_, count)| **count)?;
    Some(format!(
        "Weakest on {}: {} of {} found; {} taken for {}.",
        name(class),
        scores.confusion.count(class, class),
        scores.per_class[class].support,
        count,
        name(other),
    ))
}

/// "83 % (64 to 93)", or a dash where nothing was counted.
pub fn share(hits: u64, of: u64) -> String {
    if of == 0 {
        return "–".to_owned();
    }
    let Interval { low, high } = wilson(hits, of);
    format!("{:.0} % ({:.0} to {:.0})", 100.0 * hits as f64 / of as f64, 100.0 * low, 100.0 * high)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores(right: usize, wrong: usize) -> Scores {
        // Two classes, as often as each other.
        let targets: Vec<usize> = (0..right + wrong).map(|i| i % 2).collect();
        let said: Vec<usize> =
            targets.iter().enumerate().map(|(i, t)| if i < right { *t } else { 1 - t }).collect();
        Scores::from_predictions(&targets, &said, 2).expect("good numbers")
    }

    #[test]
    fn few_images_are_said_to_be_few() {
        assert_eq!(verdict(&scores(6, 2)), "Not clearly better than guessing", "8 images tell little");
        assert_eq!(verdict(&scores(150, 50)), "Useful, with mistakes to look at");
        assert_eq!(verdict(&scores(199, 1)), "It gets nearly everything right");
        let words = caution(&scores(7, 1), "evaluation").expect("8 are few");
        assert!(words.contains("Only 8 evaluation images") && words.contains("by 12 points"), "{words}");
        assert!(caution(&scores(60, 1), "test").is_none());
    }

    #[test]
    fn the_weakest_class_is_named_with_what_it_is_taken_for() {
        let scores = Scores::from_predictions(&[0, 0, 0, 1, 2], &[0, 1, 1, 1, 2], 3).expect("good numbers");
        let words = weakest(&scores, |class| ["rust", "blight", "healthy"][class].to_owned());
        assert_eq!(words.as_deref(), Some("Weakest on rust: 1 of 3 found; 2 taken for blight."));
        assert_eq!(weakest(&self::scores(4, 0), |_| String::new()), None);
        assert_eq!(share(0, 0), "–");
        assert_eq!(share(3, 4), "75 % (30 to 95)");
    }
}
