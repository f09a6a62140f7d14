//! "Did you mean": the known word nearest to a mistyped one.

/// Letters to insert, delete, replace or swap with their neighbour to turn one word into the other
/// (Damerau-Levenshtein, each pair of letters swapped at most once).
pub fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(before[j - 2] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

/// The nearest of `known` to `word`, if it is near enough to be meant.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    known
        .into_iter()
        .map(|candidate| (distance(&word, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= allowed(candidate))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The nearest of the dotted keys: the same key in another section counts as one mistake, so that `steps` at the
/// top of a file leads to `training.steps`.
pub fn nearest_key<'a>(key: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let (section, name) = split(key);
    known
        .into_iter()
        .filter_map(|candidate| {
            let (known_section, known_name) = split(candidate);
            let in_name = distance(name, known_name);
            let in_section = distance(section, known_section);
            let elsewhere =
                in_section > allowed(known_section) || section.is_empty() != known_section.is_empty();
            let score = if elsewhere { 1 + 2 * in_name } else { in_name + in_section };
            (in_name <= allowed(known_name)).then_some((score, in_section, candidate))
        })
        .min()
        .map(|(_, _, candidate)| candidate)
}

fn allowed(word: &str) -> usize {
    (word.chars().count() / 3).clamp(1, 3)
}

fn split(key: &str) -> (&str, &str) {
    key.rsplit_once('.').unwrap_or(("", key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_single_mistakes() {
        for (a, b, expected) in [
            ("", "", 0),
            ("lr", "lr", 0),
            ("lr", "l", 1),
            ("setps", "steps", 1),
            ("sten", "steps", 2),
            ("", "abc", 3),
        ] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
            assert_eq!(distance(b, a), expected, "{b} {a}");
        }
    }

    #[test]
    fn keys_are_found_in_their_own_section_first_and_elsewhere_after() {
        let known =
            ["data.seed", "training.seed", "training.steps", "training.lr", "training", "algorithm.fixmatch"];
        assert_eq!(nearest_key("training.stps", known), Some("training.steps"));
        assert_eq!(nearest_key("steps", known), Some("training.steps"));
        assert_eq!(nearest_key("trainng.lr", known), Some("training.lr"));
        assert_eq!(nearest_key("data.sed", known), Some("data.seed"));
        assert_eq!(nearest_key("trainng", known), Some("training"));
        assert_eq!(nearest_key("algorithm.fixmach", known), Some("algorithm.fixmatch"));
        assert_eq!(nearest_key("training.watermelon", known), None);
    }
}
