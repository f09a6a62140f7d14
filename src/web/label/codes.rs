//! Labels as addresses and scripts write them: a class by its number, `u` not sure, `x` none of these, `b` bad image, `null`
//! no label.

use serde_json::Value;

use crate::data::ContentHash;
use crate::project::Label;

const LETTERS: [(&str, Label); 3] =
    [("u", Label::NotSure), ("x", Label::NoneOfThese), ("b", Label::BadImage)];

/// The label of a code in an address.
pub fn label(code: &str) -> Option<Label> {
    let letter = LETTERS.iter().find(|(letter, _)| *letter == code).map(|(_, label)| *label);
    letter.or_else(|| code.parse().ok().map(Label::Class))
}

/// The code of a label, for scripts.
pub fn code(label: Option<Label>) -> Value {
    match label {
        None => Value::Null,
        Some(Label::Class(id)) => id.into(),
        Some(other) => {
            let letter = LETTERS.iter().find(|(_, label)| *label == other);
            letter.map_or(Value::Null, |(letter, _)| Value::from(*letter))
        }
    }
}

/// An image by the 64 digits of its hash.
pub fn image(digits: &str) -> Option<ContentHash> {
    blake3::Hash::from_hex(digits).ok().map(|hash| ContentHash(*hash.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_label_has_a_code_that_means_it() {
        for wanted in
            [Label::Class(0), Label::Class(65535), Label::NotSure, Label::NoneOfThese, Label::BadImage]
        {
            let code = code(Some(wanted));
            let text = code.as_str().map_or_else(|| code.to_string(), str::to_owned);
            assert_eq!(label(&text), Some(wanted));
        }
        assert_eq!(code(None), Value::Null);
        for nonsense in ["", "-1", "65536", "U", "1.5", "null"] {
            assert_eq!(label(nonsense), None, "{nonsense}");
        }
    }
}
