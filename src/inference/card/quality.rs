//! How good a model is, and where it is weakest.

use super::markdown::put;
use super::{Card, FEW};
use crate::metrics::{Interval, Scores, wilson};

/// Classes called weak, at most.
const WEAKEST: usize = 3;

impl Card<'_> {
    /// Scores on each set of images, and on the most trustworthy one class by class.
    pub(super) fn quality(&self, text: &mut String) {
        text.push_str("## How good it is\n\n");
        let Some((set, scores)) = self.scores.first() else {
            text.push_str("Not measured: no labelled images were kept for it.\n\n");
            return;
        };
        for (set, scores) in &self.scores {
            let Interval { low, high } = scores.accuracy_interval();
            put(
                text,
                format_args!(
                    "- On {} {set} images: **{:.1} % right** (95 % interval {:.1} to {:.1} %), mean F1 over classes {:.3}",
                    scores.samples,
                    100.0 * scores.accuracy,
                    100.0 * low,
                    100.0 * high,
                    scores.macro_present.f1,
                ),
            );
            if let Some(off) = scores.mean_absolute_error {
                put(text, format_args!(", {off:.1} % off on average"));
            }
            text.push_str(match *set {
                "test" => ". It never saw these images, and nothing was chosen by them.\n",
                _ => ". They also chose the best of the run's checkpoints, so new images fare a little worse.\n",
            });
        }
        self.weakest(text, set, scores);
        text.push_str(
            "\n| class | found, of its images | 95 % interval | right, when named | F1 | most often taken for |\n\
             |---|---|---|---|---|---|\n",
        );
        for (class, each) in scores.per_class.iter().enumerate() {
            let hits = scores.confusion.count(class, class);
            let Interval { low, high } = wilson(hits, each.support);
            let taken = self.taken_for(scores, class);
            let taken = taken
                .map_or_else(|| "—".to_owned(), |(other, count)| format!("{} ({count})", self.class(other)));
            put(
                text,
                format_args!(
                    "| {} | {hits} of {} | {:.0} to {:.0} % | {:.1} % | {:.3} | {taken} |\n",
                    self.class(class),
                    each.support,
                    100.0 * low,
                    100.0 * high,
                    100.0 * each.precision,
                    each.f1,
                ),
            );
        }
        text.push('\n');
    }

    /// The class that images of `class` are most often mistaken for, and how many are.
    fn taken_for(&self, scores: &Scores, class: usize) -> Option<(usize, u64)> {
        let wrong = scores.confusion.row(class).iter().copied().enumerate();
        let wrong = wrong.filter(|(other, count)| *other != class && *count > 0);
        // The first of equals.
        wrong.min_by_key(|(_, count)| std::cmp::Reverse(*count))
    }

    fn weakest(&self, text: &mut String, set: &str, scores: &Scores) {
        let mut weak: Vec<(usize, f64)> = scores
            .per_class
            .iter()
            .enumerate()
            .filter(|(_, each)| each.support > 0 && each.recall < 1.0)
            .map(|(class, each)| (class, each.recall))
            .collect();
        weak.sort_by(|a, b| a.1.total_cmp(&b.1));
        if weak.is_empty() {
            put(text, format_args!("\nEvery one of the {set} images was classified right.\n"));
            return;
        }
        put(text, format_args!("\nWhere it is weakest, on the {set} images:\n\n"));
        for (class, _) in weak.into_iter().take(WEAKEST) {
            let support = scores.per_class[class].support;
            let missed = support - scores.confusion.count(class, class);
            put(
                text,
                format_args!(
                    "- **{}**: {missed} of {support} images are taken for something else",
                    self.class(class)
                ),
            );
            if let Some((other, count)) = self.taken_for(scores, class) {
                put(text, format_args!(", most often for {} ({count} times)", self.class(other)));
            }
            text.push_str(if support < FEW { "; so few images tell little.\n" } else { ".\n" });
        }
        let unseen: Vec<String> = (0..scores.per_class.len())
            .filter(|class| scores.per_class[*class].support == 0)
            .map(|class| self.class(class))
            .collect();
        if !unseen.is_empty() {
            put(text, format_args!("- Not measured at all, for lack of images: {}.\n", unseen.join(", ")));
        }
    }
}
