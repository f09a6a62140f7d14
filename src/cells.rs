//! Cells of tables that spreadsheet programs open.
//!
//! A spreadsheet takes a cell that begins with `=`, `+`, `-`, `@`, a tab or a line break for a formula and computes it, whoever
//! wrote it. File names and names of classes are text: in CSV files such a cell gets an apostrophe in front, which a spreadsheet
//! shows as text, and which is taken off again where this program reads labels. Cells that begin with apostrophes and then with
//! one of these get one more, so that nothing is lost on the way and back. Numbers are written as they are.

use std::borrow::Cow;

/// Whether a spreadsheet would compute `text`, whatever number of apostrophes is before it.
fn begins_a_formula(text: &str) -> bool {
    text.trim_start_matches('\'').starts_with(['=', '+', '-', '@', '\t', '\r', '\n'])
}

/// `text` as a cell that no spreadsheet computes.
pub fn harmless(text: &str) -> Cow<'_, str> {
    if begins_a_formula(text) { Cow::Owned(format!("'{text}")) } else { Cow::Borrowed(text) }
}

/// The text of a cell that [`harmless`] wrote; of another cell, itself.
pub fn plain(cell: &str) -> &str {
    match cell.strip_prefix('\'') {
        Some(text) if begins_a_formula(text) => text,
        _ => cell,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cell_is_a_formula_and_all_come_back() {
        for text in
            ["", "leaf.png", "=1+1", "+49", "-x", "@SUM(A1)", "\tx", "'=x", "''=x", "'", "'quoted'", "ä", "-"]
        {
            let cell = harmless(text);
            assert!(!cell.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']), "{cell}");
            assert_eq!(plain(&cell), text);
        }
        assert_eq!(harmless("=1+1"), "'=1+1");
        assert!(matches!(harmless("a=b"), Cow::Borrowed("a=b")));
    }
}
