//! The reliability diagram: how often a network is right against how sure it is. Guo et al., arXiv:1706.04599, figure 1.

use std::fmt::Write as _;

use super::svg::{self, GRID, INK, MUTED, SERIES, escape};
use crate::metrics::Reliability;

const SIDE: f64 = 300.0;
const LEFT: f64 = 56.0;
const TOP: f64 = 74.0;
const WIDTH: f64 = 400.0;

/// Draws accuracy in each bin of confidence as a standalone SVG document: calibrated as bars, as the network is by itself as
/// dots. On the diagonal, a confidence is what it says. Pointing at a bar tells its images.
pub fn reliability_svg(title: &str, before: &Reliability, after: &Reliability) -> String {
    let mut out = svg::open(WIDTH, TOP + SIDE + 46.0, title);
    let (x, y) = (|share: f64| LEFT + SIDE * share, |share: f64| TOP + SIDE * (1.0 - share));
    let short = escape(&svg::shorten(title, 31.0));
    let legend = |error: f64| format!("expected error {:.1}%", 100.0 * error);
    let _ = write!(
        out,
        "<text x=\"12\" y=\"24\" font-size=\"15\" font-weight=\"600\">{short}</text>\
         <rect x=\"{LEFT}\" y=\"38\" width=\"10\" height=\"10\" fill=\"{}\"/>\
         <text x=\"{}\" y=\"47\">calibrated, {}</text>\
         <circle cx=\"{}\" cy=\"59\" r=\"4\" fill=\"none\" stroke=\"{}\" stroke-width=\"2\"/>\
         <text x=\"{}\" y=\"63\">by itself, {}</text>",
        SERIES[0],
        LEFT + 16.0,
        legend(after.expected_error),
        LEFT + 5.0,
        SERIES[1],
        LEFT + 16.0,
        legend(before.expected_error),
    );
    for step in 0..=4 {
        let share = f64::from(step) / 4.0;
        let _ = write!(
            out,
            "<line x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{1:.1}\" y2=\"{1:.1}\" stroke=\"{GRID}\"/>\
             <text x=\"{2:.1}\" y=\"{3:.1}\" text-anchor=\"end\" fill=\"{MUTED}\">{4:.0}%</text>\
             <text x=\"{5:.1}\" y=\"{6:.1}\" text-anchor=\"middle\" fill=\"{MUTED}\">{4:.0}%</text>",
            x(1.0),
            y(share),
            LEFT - 6.0,
            y(share) + 4.0,
            100.0 * share,
            x(share),
            TOP + SIDE + 16.0,
        );
    }
    let width = SIDE / after.bins.len().max(1) as f64;
    for (bin, counted) in after.bins.iter().enumerate().filter(|(_, counted)| counted.images > 0) {
        let _ = write!(
            out,
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{}\" fill-opacity=\"0.75\">\
             <title>{} images: {:.1}% sure, {:.1}% right</title></rect>",
            LEFT + bin as f64 * width + 1.0,
            y(counted.accuracy),
            width - 2.0,
            SIDE * counted.accuracy,
            SERIES[0],
            counted.images,
            100.0 * counted.confidence,
            100.0 * counted.accuracy,
        );
    }
    for counted in before.bins.iter().filter(|counted| counted.images > 0) {
        let _ = write!(
            out,
            "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"4\" fill=\"none\" stroke=\"{}\" stroke-width=\"2\"/>",
            x(counted.confidence),
            y(counted.accuracy),
            SERIES[1],
        );
    }
    let _ = write!(
        out,
        "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{INK}\" stroke-dasharray=\"4 4\"/>\
         <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"{MUTED}\">confidence</text>\
         <text transform=\"translate(14 {:.1}) rotate(-90)\" text-anchor=\"middle\" fill=\"{MUTED}\">right</text></svg>",
        x(0.0),
        y(0.0),
        x(1.0),
        y(1.0),
        x(0.5),
        TOP + SIDE + 36.0,
        y(0.5),
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Judged;

    #[test]
    fn each_bin_with_images_has_its_bar_and_its_dot() {
        let judged = [(0.3, false), (0.31, true), (0.95, true)];
        let judged = judged.map(|(confidence, right)| Judged { confidence, right });
        let found = Reliability::of(&judged);
        let svg = reliability_svg("<sure> & right", &found, &found);
        assert_eq!(svg.matches("<title>").count(), 2, "{svg}");
        assert!(svg.contains("2 images: 30.5% sure, 50.0% right"), "{svg}");
        assert_eq!(svg.matches("<circle").count(), 3, "two dots and the legend's");
        assert!(!svg.contains("<sure>") && !svg.contains("NaN") && svg.ends_with("</svg>"));
        let nothing = Reliability::of(&[]);
        assert!(!reliability_svg("", &nothing, &nothing).contains("NaN"));
    }
}
