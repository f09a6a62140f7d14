//! Text that stays text in Markdown.

use std::fmt::Write as _;

/// A name as text of a paragraph or table: nothing in it is Markdown or HTML.
pub(super) fn plain(name: &str) -> String {
    let mut safe = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '#' | '~' => safe.extend(['\\', c]),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '&' => safe.push_str("&amp;"),
            c if c.is_control() => safe.push(' '),
            c => safe.push(c),
        }
    }
    safe
}

/// A name between backticks.
pub(super) fn code(name: &str) -> String {
    name.chars().map(|c| if c == '`' || c.is_control() { ' ' } else { c }).collect()
}

pub(super) fn put(text: &mut String, part: std::fmt::Arguments) {
    text.write_fmt(part).expect("strings can be written to");
}
