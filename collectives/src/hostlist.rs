//! Slurm's lists of hosts: `n[01-03,07],gpu-1` is `n01 n02 n03 n07 gpu-1`.

use std::ops::RangeInclusive;

/// More hosts than any cluster has; a list that names more is damaged.
const MOST_HOSTS: usize = 100_000;

/// A list of hosts that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostListError {
    /// `[` without `]`, or the other way round.
    #[error("a bracket is opened and not closed, or closed and not opened")]
    Bracket,
    /// Neither `7` nor `01-03`.
    #[error("`{0}` is neither a number nor a range of numbers")]
    Range(String),
    /// Nothing between two commas.
    #[error("a name is empty")]
    Empty,
    /// Ranges that multiply.
    #[error("it names more than {MOST_HOSTS} hosts")]
    TooMany,
}

/// The hosts of a list, in its order. Numbers keep their leading zeros.
///
/// # Errors
/// [`HostListError`].
pub fn expand(list: &str) -> Result<Vec<String>, HostListError> {
    let mut hosts = Vec::new();
    for item in split(list)? {
        let names = expand_item(item)?;
        if hosts.len() + names.len() > MOST_HOSTS {
            return Err(HostListError::TooMany);
        }
        hosts.extend(names);
    }
    Ok(hosts)
}

/// Parts between the commas that stand outside of brackets.
fn split(list: &str) -> Result<Vec<&str>, HostListError> {
    let (mut items, mut start, mut inside) = (Vec::new(), 0, false);
    for (at, letter) in list.char_indices() {
        match letter {
            '[' | ']' if inside == (letter == '[') => return Err(HostListError::Bracket),
            '[' | ']' => inside = !inside,
            ',' if !inside => {
                items.push(&list[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    if inside {
        return Err(HostListError::Bracket);
    }
    items.push(&list[start..]);
    Ok(items)
}

/// `rack[1-2]n[01-02]`: every bracket multiplies.
fn expand_item(item: &str) -> Result<Vec<String>, HostListError> {
    let mut names = vec![String::new()];
    let mut rest = item;
    while let Some((fixed, bracket)) = rest.split_once('[') {
        let (inside, after) = bracket.split_once(']').ok_or(HostListError::Bracket)?;
        let numbers = expand_numbers(inside)?;
        if names.len().saturating_mul(numbers.len()) > MOST_HOSTS {
            return Err(HostListError::TooMany);
        }
        names = names
            .iter()
            .flat_map(|name| numbers.iter().map(move |number| format!("{name}{fixed}{number}")))
            .collect();
        rest = after;
    }
    names.iter_mut().for_each(|name| name.push_str(rest));
    if names.iter().any(String::is_empty) { Err(HostListError::Empty) } else { Ok(names) }
}

/// What stands in a bracket: `01-03,07`.
fn expand_numbers(inside: &str) -> Result<Vec<String>, HostListError> {
    let mut numbers = Vec::new();
    for part in inside.split(',') {
        let (range, width) = parse_range(part).ok_or_else(|| HostListError::Range(part.to_owned()))?;
        if (range.end() - range.start()) as usize >= MOST_HOSTS {
            return Err(HostListError::TooMany);
        }
        numbers.extend(range.map(|number| format!("{number:0width$}")));
    }
    Ok(numbers)
}

/// The range, and how many digits its numbers have at least.
fn parse_range(part: &str) -> Option<(RangeInclusive<u64>, usize)> {
    let (first, last) = part.split_once('-').unwrap_or((part, part));
    let number = |text: &str| {
        // `parse` would take a sign.
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if digits { text.parse::<u64>().ok() } else { None }
    };
    let (start, end) = (number(first)?, number(last)?);
    (start <= end).then_some((start..=end, first.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lists_as_slurm_writes_them() {
        let expanded = |list| expand(list).map(|hosts| hosts.join(" "));
        assert_eq!(expanded("n1").as_deref(), Ok("n1"));
        assert_eq!(expanded("n[1-2]").as_deref(), Ok("n1 n2"));
        assert_eq!(expanded("n[01-03,07],gpu-1").as_deref(), Ok("n01 n02 n03 n07 gpu-1"));
        assert_eq!(expanded("n[098-101]x").as_deref(), Ok("n098x n099x n100x n101x"));
        assert_eq!(expanded("r[1-2]n[3,5]").as_deref(), Ok("r1n3 r1n5 r2n3 r2n5"));
    }

    #[test]
    fn damaged_lists_are_refused() {
        for list in ["n[1-2", "n1-2]", "n[[1]]", "n[1]]"] {
            assert_eq!(expand(list), Err(HostListError::Bracket), "{list}");
        }
        for list in ["n[2-1]", "n[a]", "n[]", "n[1-]", "n[+1]", "n[1,,2]"] {
            assert!(matches!(expand(list), Err(HostListError::Range(_))), "{list}");
        }
        assert_eq!(expand(""), Err(HostListError::Empty));
        assert_eq!(expand("a,,b"), Err(HostListError::Empty));
        assert_eq!(expand("n[1-999999999]"), Err(HostListError::TooMany));
        assert_eq!(expand("n[1-9999]m[1-9999]"), Err(HostListError::TooMany));
    }

    /// A prefix, and ranges of numbers (start and how many more) with a width.
    type Group = (String, usize, Vec<(u64, u64)>);

    fn groups() -> impl Strategy<Value = Vec<Group>> {
        let ranges = prop::collection::vec((0u64..2000, 0u64..20), 0..4);
        prop::collection::vec(("[a-z][a-z-]{0,5}", 1usize..5, ranges), 1..5)
    }

    proptest! {
        #[test]
        fn what_is_folded_unfolds(groups in groups()) {
            let (mut list, mut hosts) = (Vec::new(), Vec::new());
            for (prefix, width, ranges) in groups {
                if ranges.is_empty() {
                    list.push(prefix.clone());
                    hosts.push(prefix);
                    continue;
                }
                let mut parts = Vec::new();
                for (start, more) in ranges {
                    parts.push(match more {
                        0 => format!("{start:0width$}"),
                        _ => format!("{start:0width$}-{:0width$}", start + more),
                    });
                    hosts.extend((start..=start + more).map(|number| format!("{prefix}{number:0width$}")));
                }
                list.push(format!("{prefix}[{}]", parts.join(",")));
            }
            prop_assert_eq!(expand(&list.join(",")), Ok(hosts));
        }

        #[test]
        fn no_text_panics(list in "[n0-9\\[\\],-]{0,20}") {
            let _ = expand(&list);
        }
    }
}
