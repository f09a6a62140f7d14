//! The keys a configuration knows, read off its types.
//!
//! [`Schema::of`] runs a type's own `Deserialize` against a deserialiser that holds no data and notes what is asked
//! for: each field's name, and whether an integer, a path, one of a list of words is wanted. So the list of keys
//! that error messages, environment variables and `harvest config show` need is never written a second time.

use std::cell::RefCell;

use serde::de::value::{Error as Refusal, StrDeserializer};
use serde::de::{self, DeserializeSeed, Deserializer, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;

/// What a key accepts.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// A section with keys of its own.
    Table,
    /// `true` or `false`.
    Boolean,
    /// A whole number between the two, both included.
    Integer(i64, i64),
    /// A finite number; the flag tells that the field is an `f32`.
    Number {
        /// Whether the field holds an `f32`: its default is then shown with the digits of one.
        single: bool,
    },
    /// Any string.
    Text,
    /// A [`super::ConfigPath`].
    Path,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A list; of exactly so many elements if a count is given.
    List(Box<Kind>, Option<usize>),
    /// A table with keys of the user's choosing and values of one kind.
    Map(Box<Kind>),
    /// Anything; the section checks it itself.
    Any,
}

/// One key.
#[derive(Debug, Clone, PartialEq)]
pub struct Key {
    /// Full name, `training.lr`.
    pub name: String,
    /// What it accepts.
    pub kind: Kind,
    /// Whether it may be left unset.
    pub optional: bool,
}

/// All keys of a configuration, in the order of their declaration.
#[derive(Debug, Clone, PartialEq)]
pub struct Schema(Vec<Key>);

impl Schema {
    /// The keys of `T`: structs of plain values, options, lists, words (enums of unit variants) and further structs.
    ///
    /// # Panics
    /// If `T` refuses the values `1`, `true`, the empty string or an enum's first variant: configuration types
    /// check their values after reading, not while reading. Every type used is traced in a test.
    pub fn of<T: de::DeserializeOwned>() -> Self {
        let keys = RefCell::new(Vec::new());
        T::deserialize(Tracer { keys: &keys, name: String::new(), optional: false })
            .map(drop)
            .expect("configuration types accept the tracer's values");
        Self(keys.into_inner())
    }

    /// All keys, sections included.
    pub fn keys(&self) -> &[Key] {
        &self.0
    }

    /// The key of that full name.
    pub fn get(&self, name: &str) -> Option<&Key> {
        self.0.iter().find(|key| key.name == name)
    }

    /// Top-level sections.
    pub fn sections(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|key| key.name.as_str()).filter(|name| !name.contains('.'))
    }
}

/// Records what is asked of it under `name`, and answers with a value of that type.
struct Tracer<'a> {
    keys: &'a RefCell<Vec<Key>>,
    name: String,
    optional: bool,
}

impl Tracer<'_> {
    fn note(&self, kind: Kind) {
        if !self.name.is_empty() {
            self.keys.borrow_mut().push(Key { name: self.name.clone(), kind, optional: self.optional });
        }
    }
}

macro_rules! integers {
    ($($method:ident $visit:ident $type:ty, $min:expr, $max:expr;)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
            self.note(Kind::Integer($min, $max));
            visitor.$visit(1)
        })*
    };
}

impl<'de> Deserializer<'de> for Tracer<'_> {
    type Error = Refusal;

    integers! {
        deserialize_u8 visit_u8 u8, 0, u8::MAX.into();
        deserialize_u16 visit_u16 u16, 0, u16::MAX.into();
        deserialize_u32 visit_u32 u32, 0, u32::MAX.into();
        // TOML's integers end at 2^63 - 1.
        deserialize_u64 visit_u64 u64, 0, i64::MAX;
        deserialize_i8 visit_i8 i8, i8::MIN.into(), i8::MAX.into();
        deserialize_i16 visit_i16 i16, i16::MIN.into(), i16::MAX.into();
        deserialize_i32 visit_i32 i32, i32::MIN.into(), i32::MAX.into();
        deserialize_i64 visit_i64 i64, i64::MIN, i64::MAX;
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        self.note(Kind::Boolean);
        visitor.visit_bool(true)
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        self.note(Kind::Number { single: true });
        visitor.visit_f32(1.0)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        self.note(Kind::Number { single: false });
        visitor.visit_f64(1.0)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        self.note(Kind::Text);
        visitor.visit_str("")
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Refusal> {
        self.optional = true;
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        if name == "ConfigPath" {
            self.note(Kind::Path);
            return visitor.visit_newtype_struct(StrDeserializer::new(""));
        }
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        let element = RefCell::new(Vec::new());
        let list = visitor.visit_seq(Elements { left: 1, keys: &element })?;
        self.note(Kind::List(Box::new(first_kind(element)), None));
        Ok(list)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Refusal> {
        let element = RefCell::new(Vec::new());
        let list = visitor.visit_seq(Elements { left: length, keys: &element })?;
        self.note(Kind::List(Box::new(first_kind(element)), Some(length)));
        Ok(list)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        let value = RefCell::new(Vec::new());
        let map = visitor.visit_map(Fields { fields: &["1"], keys: &value, prefix: "", current: "" })?;
        self.note(Kind::Map(Box::new(first_kind(value))));
        Ok(map)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        self.note(Kind::Table);
        visitor.visit_map(Fields { fields, keys: self.keys, prefix: &self.name, current: "" })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        self.note(Kind::Choice(variants));
        let first: StrDeserializer<'_, Refusal> = variants.first().copied().unwrap_or("").into_deserializer();
        visitor.visit_enum(first)
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        self.note(Kind::Any);
        visitor.visit_bool(true)
    }

    forward_to_deserialize_any! { i128 u128 char bytes byte_buf unit unit_struct tuple_struct identifier ignored_any }
}

fn first_kind(keys: RefCell<Vec<Key>>) -> Kind {
    keys.into_inner().into_iter().next().map_or(Kind::Any, |key| key.kind)
}

/// The fields of one struct, each answered by a [`Tracer`] of its own.
struct Fields<'a> {
    fields: &'static [&'static str],
    keys: &'a RefCell<Vec<Key>>,
    prefix: &'a str,
    current: &'static str,
}

impl<'de> de::MapAccess<'de> for Fields<'_> {
    type Error = Refusal;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Refusal> {
        let Some((first, rest)) = self.fields.split_first() else { return Ok(None) };
        (self.current, self.fields) = (first, rest);
        let name: StrDeserializer<'_, Refusal> = first.into_deserializer();
        seed.deserialize(name).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Refusal> {
        let name = join(self.prefix, self.current);
        seed.deserialize(Tracer { keys: self.keys, name, optional: false })
    }
}

/// The elements of a list, all noted under one name.
struct Elements<'a> {
    left: usize,
    keys: &'a RefCell<Vec<Key>>,
}

impl<'de> de::SeqAccess<'de> for Elements<'_> {
    type Error = Refusal;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Refusal> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        seed.deserialize(Tracer { keys: self.keys, name: "element".into(), optional: false }).map(Some)
    }
}

/// `prefix.name`, or `name` at the top.
pub(super) fn join(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_string() } else { format!("{prefix}.{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ConfigPath;
    use serde::Deserialize;

    #[derive(Deserialize, Default)]
    #[serde(default, deny_unknown_fields)]
    struct Outer {
        inner: Inner,
        names: Vec<String>,
        mean: [f32; 3],
        root: Option<ConfigPath>,
        empty: Empty,
    }

    #[derive(Deserialize, Default)]
    #[serde(default, deny_unknown_fields)]
    struct Inner {
        count: Option<u16>,
        word: Word,
        map: std::collections::BTreeMap<String, i64>,
    }

    #[derive(Deserialize, Default)]
    #[serde(default, deny_unknown_fields)]
    struct Empty {}

    #[derive(Deserialize, Default)]
    #[serde(rename_all = "lowercase")]
    enum Word {
        #[default]
        Left,
        Right,
    }

    #[test]
    fn every_key_is_found_with_its_kind_in_order() {
        let schema = Schema::of::<Outer>();
        let found: Vec<_> = schema.keys().iter().map(|key| (key.name.as_str(), key.kind.clone())).collect();
        assert_eq!(
            found,
            [
                ("inner", Kind::Table),
                ("inner.count", Kind::Integer(0, 65535)),
                ("inner.word", Kind::Choice(&["left", "right"])),
                ("inner.map", Kind::Map(Box::new(Kind::Integer(i64::MIN, i64::MAX)))),
                ("names", Kind::List(Box::new(Kind::Text), None)),
                ("mean", Kind::List(Box::new(Kind::Number { single: true }), Some(3))),
                ("root", Kind::Path),
                ("empty", Kind::Table),
            ]
        );
        assert!(schema.get("inner.count").expect("listed").optional);
        assert!(!schema.get("inner.word").expect("listed").optional);
    }
}
