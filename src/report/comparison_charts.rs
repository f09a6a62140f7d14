//! Figures that compare runs: error over labels per class, and base models side by side.

use super::svg::{self, GRID, INK, MUTED, SERIES, escape};
use std::fmt::Write;

const WIDTH: f64 = 760.0;
const LEFT: f64 = 58.0;
const TOP: f64 = 58.0;
const PLOT_HEIGHT: f64 = 320.0;
/// Room for the names at the right ends of the lines.
const NAMES: f64 = 168.0;

/// Mean and standard deviation over seeds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// Mean.
    pub mean: f64,
    /// Standard deviation of the sample; none for a single value.
    pub deviation: Option<f64>,
}

impl Spread {
    /// Of values of which there is at least one.
    pub fn of(values: &[f64]) -> Option<Self> {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let deviation = (values.len() > 1).then(|| (squares / (count - 1.0)).sqrt());
        (!values.is_empty()).then_some(Self { mean, deviation })
    }

    fn ends(&self) -> (f64, f64) {
        let reach = self.deviation.unwrap_or(0.0);
        ((self.mean - reach).max(0.0), self.mean + reach)
    }
}

/// A line or a set of bars: a name, and a value at each place of the horizontal axis where one is known.
#[derive(Debug, Clone, PartialEq)]
pub struct Compared {
    /// As the legend says it.
    pub name: String,
    /// One for each place; shares of 1.
    pub values: Vec<Option<Spread>>,
}

/// Error rates in percent over a horizontal axis of names, as many lines or bars at each as there are series.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// Heading.
    pub title: String,
    /// Below the heading.
    pub note: String,
    /// What the places of the horizontal axis are.
    pub x_label: String,
    /// Names of the places.
    pub places: Vec<String>,
    /// What is compared.
    pub series: Vec<Compared>,
    /// What all of it is measured against, the same at every place: a name and a value, drawn across by lines alone.
    pub reference: Option<(String, Spread)>,
}

impl Comparison {
    /// Lines with bars of one standard deviation, named at their right ends: places are in order, evenly spaced.
    pub fn lines_svg(&self) -> String {
        let frame = Frame::new(self, NAMES);
        let mut out = self.open(&frame);
        if let Some((name, value)) = &self.reference {
            across(&mut out, &frame, name, value);
        }
        let count = self.series.len();
        for (index, series) in self.series.iter().enumerate() {
            let colour = colour(index);
            // Side by side, so that no bar hides another.
            let aside = (index as f64 - (count as f64 - 1.0) / 2.0) * (26.0 / count as f64).min(6.0);
            let points: Vec<(f64, Spread)> = series
                .values
                .iter()
                .enumerate()
                .filter_map(|(place, value)| Some((frame.x_at(place) + aside, (*value)?)))
                .collect();
            let path: Vec<String> =
                points.iter().map(|(x, value)| format!("{x:.1},{:.1}", frame.y_at(value.mean))).collect();
            let (path, dash) = (path.join(" "), dash(index));
            put(
                &mut out,
                format_args!(
                    "<polyline points=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2.2\" stroke-linejoin=\"round\"{dash}/>"
                ),
            );
            for (x, value) in &points {
                whisker(&mut out, &frame, *x, value, colour);
                marker(&mut out, index, *x, frame.y_at(value.mean), colour);
            }
        }
        self.end_names(&mut out, &frame);
        out + "</svg>"
    }

    /// Bars side by side at each place, with a legend above.
    pub fn bars_svg(&self) -> String {
        let frame = Frame::new(self, 20.0);
        let mut out = self.open(&frame);
        let count = self.series.len().max(1) as f64;
        let bar = (frame.slot() * 0.76 / count).min(46.0);
        for (index, series) in self.series.iter().enumerate() {
            for (place, value) in series.values.iter().enumerate() {
                let Some(value) = value else { continue };
                let x = frame.x_at(place) + (index as f64 - count / 2.0) * bar;
                let (y, width, fill) = (frame.y_at(value.mean), bar - 2.0, colour(index));
                let height = frame.bottom() - y;
                put(
                    &mut out,
                    format_args!(
                        "<rect x=\"{:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"2\" fill=\"{fill}\"/>",
                        x + 1.0
                    ),
                );
                whisker(&mut out, &frame, x + bar / 2.0, value, INK);
            }
        }
        out + "</svg>"
    }

    fn open(&self, frame: &Frame) -> String {
        let mut out = svg::open(WIDTH, frame.height, &self.title);
        let (title, note) =
            (escape(&svg::shorten(&self.title, 48.0)), escape(&svg::shorten(&self.note, 60.0)));
        put(
            &mut out,
            format_args!(
                "<text x=\"14\" y=\"25\" font-size=\"16\" font-weight=\"600\">{title}</text><text x=\"14\" y=\"43\" font-size=\"12.5\" fill=\"{MUTED}\">{note}</text>"
            ),
        );
        out += &frame.legend;
        let (right, bottom) = (frame.right, frame.bottom());
        let ticks = (frame.highest / frame.distance + 1e-6).floor() as u32;
        for tick in 0..=ticks {
            let value = f64::from(tick) * frame.distance;
            let (y, label) = (frame.y_at(value), format!("{} %", (value * 1e4).round() / 100.0));
            let stroke = if tick == 0 { "#9aa5b1" } else { GRID };
            put(
                &mut out,
                format_args!(
                    "<line x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"{stroke}\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" font-size=\"12.5\" fill=\"{MUTED}\">{label}</text>",
                    LEFT - 8.0,
                    y + 4.0
                ),
            );
        }
        for (place, name) in self.places.iter().enumerate() {
            let (x, name) = (frame.x_at(place), escape(&svg::shorten(name, frame.slot() / 13.0)));
            put(
                &mut out,
                format_args!(
                    "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\" font-size=\"13\">{name}</text>",
                    bottom + 19.0
                ),
            );
        }
        put(
            &mut out,
            format_args!(
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" font-size=\"13\" fill=\"{MUTED}\">{}</text>",
                (LEFT + right) / 2.0,
                bottom + 39.0,
                escape(&self.x_label)
            ),
        );
        out
    }

    /// Names at the height of the lines' ends, pushed apart where they would overlap.
    fn end_names(&self, out: &mut String, frame: &Frame) {
        const APART: f64 = 18.0;
        let mut names: Vec<(f64, usize)> = Vec::new();
        for (index, series) in self.series.iter().enumerate() {
            let last = series.values.iter().rev().flatten().next();
            names.extend(last.map(|value| (frame.y_at(value.mean), index)));
        }
        names.sort_by(|a, b| a.0.total_cmp(&b.0));
        let ends: Vec<f64> = names.iter().map(|name| name.0).collect();
        for i in 1..names.len() {
            names[i].0 = names[i].0.max(names[i - 1].0 + APART);
        }
        // Back up from the lower edge.
        let mut lowest = frame.bottom() - 2.0;
        for name in names.iter_mut().rev() {
            name.0 = name.0.min(lowest);
            lowest = name.0 - APART;
        }
        for ((y, index), end) in names.iter().zip(ends) {
            let (colour, x) = (colour(*index), frame.right - frame.slot() / 2.0 + 20.0);
            let start = frame.right + 16.0;
            put(
                out,
                format_args!(
                    "<path d=\"M{x:.1} {end:.1}L{:.1} {y:.1}H{:.1}\" fill=\"none\" stroke=\"{colour}\" stroke-opacity=\"0.45\"/>",
                    start - 8.0,
                    start
                ),
            );
            marker(out, *index, start + 7.0, *y, colour);
            let name = escape(&svg::shorten(&self.series[*index].name, 10.0));
            put(
                out,
                format_args!(
                    "<text x=\"{:.1}\" y=\"{:.1}\" font-size=\"13.5\" font-weight=\"600\" fill=\"{INK}\">{name}</text>",
                    start + 18.0,
                    y + 4.5
                ),
            );
        }
    }
}

/// The plot area: values from 0 to `highest`, a tick every `distance`.
struct Frame {
    places: usize,
    right: f64,
    top: f64,
    height: f64,
    highest: f64,
    distance: f64,
    legend: String,
}

impl Frame {
    /// `margin`: room to the right; names that stand there need no legend above.
    fn new(comparison: &Comparison, margin: f64) -> Self {
        let reference = comparison.reference.iter().map(|(_, value)| value);
        let values =
            comparison.series.iter().flat_map(|series| series.values.iter().flatten()).chain(reference);
        let highest = values.map(|value| value.ends().1).fold(0.0, f64::max).clamp(0.01, 1.0);
        let distance = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2]
            .into_iter()
            .find(|distance| highest / distance <= 7.0)
            .unwrap_or(0.2);
        let (legend, lines) = if margin == NAMES { (String::new(), 0) } else { legend(comparison) };
        let top = TOP + 20.0 * lines as f64;
        Self {
            places: comparison.places.len().max(1),
            right: WIDTH - margin,
            top,
            height: top + PLOT_HEIGHT + 54.0,
            highest: (highest / distance - 1e-9).ceil() * distance,
            distance,
            legend,
        }
    }

    fn bottom(&self) -> f64 {
        self.top + PLOT_HEIGHT
    }

    fn slot(&self) -> f64 {
        (self.right - LEFT) / self.places as f64
    }

    fn x_at(&self, place: usize) -> f64 {
        LEFT + (place as f64 + 0.5) * self.slot()
    }

    fn y_at(&self, value: f64) -> f64 {
        self.bottom() - PLOT_HEIGHT * (value / self.highest).clamp(0.0, 1.0)
    }
}

fn legend(comparison: &Comparison) -> (String, usize) {
    let (mut out, mut x, mut line) = (String::new(), 14.0, 0);
    for (index, series) in comparison.series.iter().enumerate() {
        let name = svg::shorten(&series.name, 24.0);
        let width = 20.0 + 13.0 * svg::width_em(&name) + 22.0;
        if x > 14.0 && x + width > WIDTH {
            (x, line) = (14.0, line + 1);
        }
        let y = TOP + 6.0 + 20.0 * line as f64;
        put(
            &mut out,
            format_args!(
                "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"13\" height=\"13\" rx=\"2\" fill=\"{}\"/><text x=\"{:.1}\" y=\"{y:.1}\" font-size=\"13\">{}</text>",
                y - 11.0,
                colour(index),
                x + 19.0,
                escape(&name)
            ),
        );
        x += width;
    }
    (out, line + 1)
}

/// A dotted line across the plot on its band of one standard deviation, its name at the left end.
fn across(out: &mut String, frame: &Frame, name: &str, value: &Spread) {
    let (low, high) = value.ends();
    let (top, y, right) = (frame.y_at(high), frame.y_at(value.mean), frame.right);
    let (width, height) = (right - LEFT, frame.y_at(low) - top);
    let text = format!("{name}: {:.1} %", 100.0 * value.mean);
    // Below the line where the plot has room there: lines of few labels run above it.
    let below = frame.bottom() - frame.y_at(low) > 22.0;
    let text_y = if below { frame.y_at(low) + 15.0 } else { top - 6.0 };
    put(
        out,
        format_args!(
            "<rect x=\"{LEFT}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{MUTED}\" fill-opacity=\"0.12\"/><line x1=\"{LEFT}\" x2=\"{right:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"{INK}\" stroke-width=\"1.6\" stroke-dasharray=\"2 4\"/><text x=\"{:.1}\" y=\"{text_y:.1}\" font-size=\"12.5\" fill=\"{INK}\">{}</text>",
            LEFT + 8.0,
            escape(&text)
        ),
    );
}

fn whisker(out: &mut String, frame: &Frame, x: f64, value: &Spread, colour: &str) {
    if value.deviation.is_none() {
        return;
    }
    let (low, high) = value.ends();
    let (low, high, left, right) = (frame.y_at(low), frame.y_at(high), x - 4.0, x + 4.0);
    put(
        out,
        format_args!(
            "<path d=\"M{x:.1} {low:.1}V{high:.1}M{left:.1} {low:.1}H{right:.1}M{left:.1} {high:.1}H{right:.1}\" stroke=\"{colour}\" stroke-width=\"1.5\" fill=\"none\"/>"
        ),
    );
}

/// Shapes tell lines apart where colours do not.
fn marker(out: &mut String, index: usize, x: f64, y: f64, colour: &str) {
    let shape = match index % 4 {
        0 => format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4.6\""),
        1 => format!("<rect x=\"{:.1}\" y=\"{:.1}\" width=\"8.4\" height=\"8.4\"", x - 4.2, y - 4.2),
        2 => format!("<path d=\"M{x:.1} {:.1}l5.4 9.6h-10.8z\"", y - 5.8),
        _ => format!("<path d=\"M{x:.1} {:.1}l5.8 5.8l-5.8 5.8l-5.8 -5.8z\"", y - 5.8),
    };
    put(out, format_args!("{shape} fill=\"{colour}\" stroke=\"#fff\" stroke-width=\"1.2\"/>"));
}

fn colour(index: usize) -> &'static str {
    SERIES[index % SERIES.len()]
}

/// The second round of colours is dashed.
fn dash(index: usize) -> &'static str {
    if index < SERIES.len() { "" } else { " stroke-dasharray=\"6 4\"" }
}

fn put(out: &mut String, text: std::fmt::Arguments) {
    out.write_fmt(text).expect("strings can be written to");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_is_of_the_sample() {
        assert_eq!(Spread::of(&[]), None);
        assert_eq!(Spread::of(&[0.5]), Some(Spread { mean: 0.5, deviation: None }));
        assert_eq!(Spread::of(&[1.0, 2.0, 3.0]), Some(Spread { mean: 2.0, deviation: Some(1.0) }));
    }

    #[test]
    fn missing_values_and_nasty_names_draw() {
        let names = ["<b>", "b", "c", "d", "e", "f", "g"];
        let value = Spread::of(&[0.3, 0.4]);
        let series = names.map(|name| Compared { name: name.into(), values: vec![None, value, None] });
        for series in [series.to_vec(), Vec::new()] {
            let places = ["4", "10", "&"].map(String::from).to_vec();
            let (title, note, x_label) = ("T".into(), String::new(), String::new());
            let reference = value.map(|value| ("all <b>labels".into(), value));
            let chart = Comparison { title, note, x_label, places, series, reference };
            for svg in [chart.lines_svg(), chart.bars_svg()] {
                assert!(svg.ends_with("</svg>") && !svg.contains("NaN") && !svg.contains("<b>"), "{svg}");
            }
        }
    }
}
