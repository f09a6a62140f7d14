//! What the charts share: colours, text and escaping.
//!
//! Charts are SVG written by hand: a few dozen lines give full control over type and spacing, and the result
//! needs no fonts beyond those of the reader's system.

/// The system's own sans serif.
pub const FONT: &str =
    "system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue','Noto Sans',Arial,sans-serif";
/// Text.
pub const INK: &str = "#1d2733";
/// Lesser text: 4.9:1 or more on white.
pub const MUTED: &str = "#5a6675";
/// Lines behind the data.
pub const GRID: &str = "#e3e8ee";

/// Colours of series, told apart with any common colour blindness; from Okabe and Ito, "Color Universal Design"
/// (2008), with the two lightest darkened to stand out on white.
pub const SERIES: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#b5548c", "#b07d00", "#3d4650"];

/// Text safe inside HTML and XML elements and quoted attributes. Characters XML cannot hold become U+FFFD.
pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            '\t' | '\n' => safe.push(c),
            '\u{fffe}' | '\u{ffff}' => safe.push('\u{fffd}'),
            c if c.is_control() => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}

/// Estimated width in a sans serif, in units of the font size: wide scripts count as 1, others by their looks.
pub fn width_em(text: &str) -> f64 {
    let width = |c: char| match c {
        'i' | 'j' | 'l' | 'I' | '.' | ',' | ':' | ';' | '\'' | '|' | '!' | ' ' | 'f' | 't' | 'r' | '('
        | ')' => 0.34,
        'm' | 'w' | 'M' | 'W' | '%' | '@' => 0.88,
        'A'..='Z' => 0.68,
        '\u{2e80}'.. => 1.0,
        _ => 0.57,
    };
    text.chars().map(width).sum()
}

/// `text` cut with an ellipsis to at most `width` units of the font size.
pub fn shorten(text: &str, width: f64) -> String {
    if width_em(text) <= width {
        return text.to_owned();
    }
    let mut kept = String::new();
    for c in text.chars() {
        kept.push(c);
        if width_em(&kept) > width - 0.9 {
            kept.pop();
            break;
        }
    }
    format!("{}…", kept.trim_end())
}

/// The start of a standalone SVG document of `width` × `height` units with an accessible name.
pub fn open(width: f64, height: f64, name: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" \
         height=\"{height:.0}\" role=\"img\" aria-label=\"{}\" font-family=\"{FONT}\" font-size=\"12\" \
         fill=\"{INK}\"><rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>",
        escape(name)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_the_text_remains_markup() {
        assert_eq!(escape("<b a=\"1\" c='2'>&\u{1}"), "&lt;b a=&quot;1&quot; c=&#39;2&#39;&gt;&amp;\u{fffd}");
    }

    #[test]
    fn long_names_are_cut_and_short_ones_kept() {
        assert_eq!(shorten("oak", 10.0), "oak");
        let cut = shorten("Quercus robur subsp. pedunculiflora", 10.0);
        assert!(cut.ends_with('…') && width_em(&cut) <= 10.5, "{cut}");
    }
}
