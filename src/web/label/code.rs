//! Labels in JSON and in addresses, and what is sent to us.

use std::fmt;
use std::str::FromStr;

use axum::Json;
use axum::extract::{FromRequest, Request};
use serde::de::{self, DeserializeOwned};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::project::Label;
use crate::web::error::WebError;
use crate::web::state::App;

/// A label as browsers know it: a class is its number; `"u"` not sure, `"x"` none of these, `"b"` bad image, `null` none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LabelCode(pub Option<Label>);

/// The states that are no class.
const CODES: [(&str, Label); 3] = [("u", Label::NotSure), ("x", Label::NoneOfThese), ("b", Label::BadImage)];

impl Serialize for LabelCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            None => serializer.serialize_none(),
            Some(Label::Class(id)) => serializer.serialize_u16(id),
            Some(state) => {
                let code = CODES.iter().find(|(_, label)| *label == state).map_or("", |(code, _)| code);
                serializer.serialize_str(code)
            }
        }
    }
}

impl<'de> Deserialize<'de> for LabelCode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Code;
        impl de::Visitor<'_> for Code {
            type Value = LabelCode;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a label: a class's number, \"u\", \"x\", \"b\" or null")
            }

            fn visit_u64<E: de::Error>(self, id: u64) -> Result<LabelCode, E> {
                let id = u16::try_from(id).map_err(|_| E::custom("class numbers go from 0 to 65535"))?;
                Ok(LabelCode(Some(Label::Class(id))))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<LabelCode, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_unit<E: de::Error>(self) -> Result<LabelCode, E> {
                Ok(LabelCode(None))
            }
        }
        deserializer.deserialize_any(Code)
    }
}

impl FromStr for LabelCode {
    type Err = String;

    /// As in addresses: a number, `u`, `x` or `b`.
    fn from_str(text: &str) -> Result<Self, String> {
        let state = CODES.iter().find(|(code, _)| *code == text).map(|(_, label)| *label);
        let label = state.or_else(|| text.parse().ok().map(Label::Class));
        let wrong = || format!("`{text}` is no label: use a class's number, u, x or b");
        label.map(|label| Self(Some(label))).ok_or_else(wrong)
    }
}

/// JSON sent to us; what is wrong with it is said in JSON too.
pub struct Said<T>(pub T);

impl<T: DeserializeOwned> FromRequest<App> for Said<T> {
    type Rejection = WebError;

    async fn from_request(request: Request, app: &App) -> Result<Self, WebError> {
        match Json::from_request(request, app).await {
            Ok(Json(value)) => Ok(Self(value)),
            Err(rejection) => Err(WebError::Bad(rejection.body_text())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_written_as_they_are_read() {
        for (text, label) in [
            ("null", None),
            ("7", Some(Label::Class(7))),
            ("\"u\"", Some(Label::NotSure)),
            ("\"x\"", Some(Label::NoneOfThese)),
            ("\"b\"", Some(Label::BadImage)),
        ] {
            let code: LabelCode = serde_json::from_str(text).expect("a label");
            assert_eq!(code.0, label);
            assert_eq!(serde_json::to_string(&code).expect("plain"), text);
        }
        for text in ["70000", "-1", "\"y\"", "1.5", "[]", "true"] {
            assert!(serde_json::from_str::<LabelCode>(text).is_err(), "{text}");
        }
    }
}
