//! The confusion matrix as a picture.

use super::svg::{self, INK, MUTED, escape};
use crate::metrics::Confusion;
use std::fmt::Write;

/// Full shade of right predictions; blue and orange stay apart with any common colour blindness.
const RIGHT: [f64; 3] = [8.0, 81.0, 156.0];
/// Full shade of wrong ones.
const WRONG: [f64; 3] = [190.0, 70.0, 0.0];

/// Draws the counts as a standalone SVG document: one row per target class, one column per predicted class, each
/// cell shaded by its share of the row (blue where right, orange where wrong).
///
/// Cells shrink as classes grow in number; counts are written where the longest fits. Classes without a name are
/// called by their number. Pointing at a cell tells its classes, count and share.
pub fn confusion_svg(confusion: &Confusion, names: &[String]) -> String {
    let layout = Layout::new(confusion, names);
    let n = confusion.classes();
    let side = layout.cell * n as f64;
    let width = (layout.left + side + layout.right).max(400.0);
    let height = layout.top + side + 64.0;
    let mut out = svg::open(width, height, "Confusion matrix");
    let corner = layout.left - 8.0;
    let _ = write!(
        out,
        "<text x=\"{corner:.1}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"{MUTED}\">predicted →</text>\
         <text x=\"{corner:.1}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"{MUTED}\">true ↓</text>\
         <rect x=\"{:.1}\" y=\"{:.1}\" width=\"{side:.1}\" height=\"{side:.1}\" fill=\"#eef1f5\"/>",
        layout.top - 26.0,
        layout.top - 8.0,
        layout.left,
        layout.top,
    );
    (0..n).for_each(|class| layout.labels(&mut out, class));
    for target in 0..n {
        let support = confusion.support(target);
        for (prediction, &count) in confusion.row(target).iter().enumerate() {
            layout.cell(&mut out, target, prediction, count, support);
        }
    }
    legend(&mut out, layout.left.min(width - 380.0).max(8.0), layout.top + side + 26.0);
    out + "</svg>"
}

struct Layout {
    names: Vec<String>,
    /// Names as drawn.
    labels: Vec<String>,
    cell: f64,
    label_size: f64,
    /// Column names stand instead of leaning.
    upright: bool,
    /// `None` where the longest count does not fit.
    count_size: Option<f64>,
    left: f64,
    top: f64,
    right: f64,
}

impl Layout {
    fn new(confusion: &Confusion, names: &[String]) -> Self {
        let n = confusion.classes();
        let cell: f64 = match n {
            0..=6 => 58.0,
            7..=12 => 46.0,
            13..=20 => 34.0,
            21..=40 => 23.0,
            41..=60 => 14.0,
            _ => 12.0,
        };
        let name = |class| names.get(class).cloned().unwrap_or_else(|| format!("class {class}"));
        let names: Vec<String> = (0..n).map(name).collect();
        let label_size = (cell - 2.0).clamp(10.0, 12.0);
        let labels: Vec<String> = names.iter().map(|name| svg::shorten(name, 16.0)).collect();
        let longest = labels.iter().map(|label| svg::width_em(label)).fold(0.0, f64::max) * label_size;
        let largest = (0..n).flat_map(|target| confusion.row(target)).max().copied().unwrap_or(0);
        let count_size = (cell * 0.88 / (largest.to_string().len() as f64 * 0.58)).min(13.0).min(cell * 0.6);
        // Column names lean by 45 degrees, or stand where they would touch each other; leaning, they are
        // `longest · sin 45°` high and reach as far to the right.
        let upright = cell < 20.0;
        let slant = std::f64::consts::FRAC_1_SQRT_2;
        let (rise, reach) = if upright { (longest, 0.0) } else { (longest * slant, longest * slant) };
        Self {
            names,
            labels,
            cell,
            label_size,
            upright,
            count_size: (count_size >= 8.0).then_some(count_size),
            left: longest.max(72.0) + 22.0,
            top: rise.max(24.0) + 28.0,
            right: (reach - cell / 2.0).max(0.0) + 22.0,
        }
    }

    fn labels(&self, out: &mut String, class: usize) {
        let (label, name, size) = (escape(&self.labels[class]), escape(&self.names[class]), self.label_size);
        let middle = (class as f64 + 0.5) * self.cell;
        let (x, y) = (self.left - 8.0, self.top + middle + size * 0.35);
        let (angle, shift) = if self.upright { (-90, 0.35) } else { (-45, 0.2) };
        let (column, above) = (self.left + middle + size * shift, self.top - 7.0);
        let _ = write!(
            out,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{size}\" text-anchor=\"end\">{label}<title>{name}</title></text>\
             <text transform=\"translate({column:.1} {above:.1}) rotate({angle})\" font-size=\"{size}\">{label}\
             <title>{name}</title></text>",
        );
    }

    fn cell(&self, out: &mut String, target: usize, prediction: usize, count: u64, support: u64) {
        let (x, y) = (self.left + prediction as f64 * self.cell, self.top + target as f64 * self.cell);
        let share = if support == 0 { 0.0 } else { count as f64 / support as f64 };
        let (fill, dark) = shade(if target == prediction { RIGHT } else { WRONG }, share);
        let (inner, side) = (0.5, self.cell - 1.0);
        let _ = write!(
            out,
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{side}\" height=\"{side}\" fill=\"{fill}\"",
            x + inner,
            y + inner,
        );
        if count == 0 {
            // Most cells of a large matrix: nothing to tell, so nothing to carry.
            out.push_str("/>");
            return;
        }
        let (truth, predicted) = (escape(&self.names[target]), escape(&self.names[prediction]));
        let percent = share * 100.0;
        let _ =
            write!(out, "><title>{truth} → {predicted}: {count} of {support} ({percent:.1}%)</title></rect>");
        if let Some(size) = self.count_size {
            let (cx, cy) = (x + self.cell / 2.0, y + self.cell / 2.0 + size * 0.36);
            let colour = if dark { "#fff" } else { INK };
            let _ = write!(
                out,
                "<text x=\"{cx:.1}\" y=\"{cy:.1}\" font-size=\"{size:.1}\" text-anchor=\"middle\" fill=\"{colour}\" \
                 pointer-events=\"none\">{count}</text>",
            );
        }
    }
}

/// What the shades mean.
fn legend(out: &mut String, left: f64, top: f64) {
    for (row, (colour, name)) in [(RIGHT, "right"), (WRONG, "wrong")].into_iter().enumerate() {
        let y = top + row as f64 * 18.0;
        let _ = write!(
            out,
            "<text x=\"{left:.1}\" y=\"{:.1}\" fill=\"{MUTED}\" font-size=\"11\">{name}</text>",
            y + 10.0
        );
        for i in 0..11 {
            let (fill, _) = shade(colour, f64::from(i) / 10.0);
            let x = left + 40.0 + f64::from(i) * 14.0;
            let _ =
                write!(out, "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"14\" height=\"12\" fill=\"{fill}\"/>");
        }
    }
    let _ = write!(
        out,
        "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"{MUTED}\" font-size=\"11\">0 to 100% of the true class</text>",
        left + 202.0,
        top + 19.0,
    );
}

/// White towards `full`, and whether text on it should be white. The root lifts small shares, which matter most.
fn shade(full: [f64; 3], share: f64) -> (String, bool) {
    let strength = share.clamp(0.0, 1.0).powf(0.7);
    let [r, g, b] = full.map(|channel| 255.0 + (channel - 255.0) * strength);
    let luminance = 0.2126 * r + 0.7152 * g + 0.0722 * b;
    (format!("#{:02x}{:02x}{:02x}", r.round() as u8, g.round() as u8, b.round() as u8), luminance < 150.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_from_none_to_many_classes_draws() {
        for n in [0, 1, 2, 3, 10, 60, 80] {
            let pairs = (0..n).flat_map(|class| [(class, class), (class, (class * 7 + 1) % n)]);
            let confusion = Confusion::from_pairs(n, pairs).unwrap();
            let svg = confusion_svg(&confusion, &["<oak> & \"elm\"".to_owned()]);
            assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>"));
            assert!(!svg.contains("<oak>") && !svg.contains("NaN"), "{n}");
            assert!(svg.len() < 2_000_000, "{n} classes: {} bytes", svg.len());
        }
    }

    #[test]
    fn a_cell_is_shaded_by_its_share_of_the_row() {
        assert_eq!(shade(RIGHT, 0.0), ("#ffffff".to_owned(), false));
        assert_eq!(shade(RIGHT, 1.0), ("#08519c".to_owned(), true));
        assert_eq!(shade(WRONG, 1.0), ("#be4600".to_owned(), true));
    }
}
