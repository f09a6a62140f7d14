//! Colours of classes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A colour as screens show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Colour(pub [u8; 3]);

/// What classes get that name none. The first seven are those of Okabe and Ito, which are told apart with every kind of
/// colour vision; the others differ from them and from each other in lightness or hue.
const PALETTE: [Colour; 20] = [
    Colour([0x00, 0x72, 0xb2]),
    Colour([0xe6, 0x9f, 0x00]),
    Colour([0x00, 0x9e, 0x73]),
    Colour([0xd5, 0x5e, 0x00]),
    Colour([0x56, 0xb4, 0xe9]),
    Colour([0xcc, 0x79, 0xa7]),
    Colour([0xf0, 0xe4, 0x42]),
    Colour([0x6a, 0x3d, 0x9a]),
    Colour([0x8a, 0x4a, 0x2e]),
    Colour([0xa8, 0xd0, 0x5c]),
    Colour([0xe3, 0x1a, 0x5b]),
    Colour([0x1b, 0x5e, 0x20]),
    Colour([0xf4, 0xa5, 0x9a]),
    Colour([0x00, 0x2f, 0x6c]),
    Colour([0x7f, 0xe0, 0xd0]),
    Colour([0x7f, 0x00, 0x1f]),
    Colour([0xb8, 0xa9, 0xe8]),
    Colour([0x6b, 0x6f, 0x00]),
    Colour([0xd9, 0x3f, 0xe0]),
    Colour([0x80, 0x86, 0x8b]),
];

impl Colour {
    /// That of a class which names none. It follows from the class's number alone, so that no class changes its colour when
    /// another comes or goes; it comes again after twenty.
    pub fn default_of(id: u16) -> Self {
        PALETTE[usize::from(id) % PALETTE.len()]
    }
}

impl fmt::Display for Colour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [red, green, blue] = self.0;
        write!(f, "#{red:02x}{green:02x}{blue:02x}")
    }
}

/// Text that is no colour.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no colour; write it as #rrggbb, for example #0072b2")]
pub struct NoColour {
    /// As written.
    pub text: String,
}

impl FromStr for Colour {
    type Err = NoColour;

    fn from_str(text: &str) -> Result<Self, NoColour> {
        let wrong = || NoColour { text: text.to_owned() };
        let digits = text.strip_prefix('#').filter(|digits| digits.len() == 6 && digits.is_ascii());
        let digits = digits.filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let number = u32::from_str_radix(digits.ok_or_else(wrong)?, 16).map_err(|_| wrong())?;
        let [_, red, green, blue] = number.to_be_bytes();
        Ok(Self([red, green, blue]))
    }
}

impl Serialize for Colour {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Colour {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_written_as_they_are_read() {
        for text in ["#000000", "#0072b2", "#ffffff"] {
            assert_eq!(text.parse::<Colour>().expect("a colour").to_string(), text);
        }
        assert_eq!("#AbCdEf".parse::<Colour>().expect("a colour").to_string(), "#abcdef");
        for text in ["", "#", "red", "#12345", "#1234567", "#+12345", "#ßßß", "0072b2", "#0072b2;x"] {
            assert!(text.parse::<Colour>().expect_err(text).to_string().contains("#rrggbb"));
        }
    }

    /// Oklab (Ottosson 2020), in which distances are about those that eyes see.
    fn oklab(Colour(rgb): Colour) -> [f64; 3] {
        let [r, g, b] = rgb.map(|value| {
            let value = f64::from(value) / 255.0;
            if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        });
        let l = (0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b).cbrt();
        let m = (0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b).cbrt();
        let s = (0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b).cbrt();
        [
            0.2104542553 * l + 0.7936177850 * m - 0.0040720468 * s,
            1.9779984951 * l - 2.4285922050 * m + 0.4505937099 * s,
            0.0259040371 * l + 0.7827717662 * m - 0.8086757660 * s,
        ]
    }

    #[test]
    fn colours_of_the_palette_are_told_apart() {
        for (i, first) in PALETTE.iter().enumerate() {
            for second in &PALETTE[..i] {
                let (a, b) = (oklab(*first), oklab(*second));
                let distance = a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
                // Five times the smallest difference that is seen side by side, 0.02.
                assert!(distance > 0.1, "{first} and {second}: {distance:.3}");
            }
        }
    }
}
