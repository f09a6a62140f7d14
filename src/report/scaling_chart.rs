//! Time and speed-up over numbers of devices: bars and lines, with published numbers marked.

use std::fmt::Write;

use super::charts::tick_distance;
use super::svg::{self, GRID, INK, MUTED, SERIES, escape};

const WIDTH: f64 = 760.0;
const LEFT: f64 = 66.0;
const RIGHT: f64 = 694.0;
const TOP: f64 = 58.0;
const LEGEND_LINE: f64 = 20.0;
const PLOT_HEIGHT: f64 = 300.0;
/// Lines and labels must not touch the upper edge.
const ROOM: f64 = 1.08;

/// One batch size, or one program.
#[derive(Debug, Clone, PartialEq)]
pub struct ScalingSeries {
    /// As the legend says it.
    pub name: String,
    /// Time at each place.
    pub times: Vec<Option<f64>>,
    /// Speed-up, or efficiency, at each place.
    pub ratios: Vec<Option<f64>>,
    /// Published times: place and value.
    pub published_times: Vec<(usize, f64)>,
    /// Published speed-ups: place and value.
    pub published_ratios: Vec<(usize, f64)>,
}

/// Bars of time on the left axis, lines of speed-up on the right one.
#[derive(Debug, Clone, PartialEq)]
pub struct ScalingChart {
    /// Heading.
    pub title: String,
    /// Below the heading: what is measured and what assumed.
    pub note: String,
    /// What times are, with their unit.
    pub time_label: String,
    /// Devices at each place.
    pub devices: Vec<usize>,
    /// Whether lines are efficiencies, as shares of 1, in place of speed-ups.
    pub efficiency: bool,
    /// What is compared.
    pub series: Vec<ScalingSeries>,
}

/// Ends of both axes and the distances of their ticks.
struct Frame {
    top: f64,
    slot: f64,
    /// Highest value and distance of ticks; none without a time.
    time: Option<(f64, f64)>,
    /// Lowest, highest, distance.
    ratio: (f64, f64, f64),
}

impl ScalingChart {
    /// The chart as an SVG document.
    pub fn to_svg(&self) -> String {
        let (legend, lines) = self.legend();
        let frame = self.frame(TOP + LEGEND_LINE * lines as f64);
        let mut out = svg::open(WIDTH, frame.bottom() + 54.0, &self.title);
        let (title, note) =
            (escape(&svg::shorten(&self.title, 46.0)), escape(&svg::shorten(&self.note, 62.0)));
        put(
            &mut out,
            format_args!(
                "<text x=\"14\" y=\"25\" font-size=\"16\" font-weight=\"600\">{title}</text><text x=\"14\" y=\"43\" font-size=\"12\" fill=\"{MUTED}\">{note}</text>{legend}"
            ),
        );
        self.axes(&mut out, &frame);
        for index in 0..self.series.len() {
            self.bars(&mut out, &frame, index);
        }
        if !self.efficiency {
            let linear: Vec<_> = self.devices.iter().map(|devices| Some(*devices as f64)).collect();
            let style = format!("stroke=\"{MUTED}\" stroke-width=\"1.3\" stroke-dasharray=\"3 4\"");
            polyline(&mut out, &frame, &linear, &style);
        }
        for index in 0..self.series.len() {
            self.line(&mut out, &frame, index);
        }
        out + "</svg>"
    }

    fn frame(&self, top: f64) -> Frame {
        let times = self.series.iter().flat_map(|series| {
            series
                .times
                .iter()
                .flatten()
                .copied()
                .chain(series.published_times.iter().map(|published| published.1))
        });
        let time = times.filter(|time| time.is_finite()).fold(0.0, f64::max) * ROOM;
        let most = self.devices.iter().copied().max().unwrap_or(1).max(4) as f64;
        let ratio = if self.efficiency {
            let ratios = self.series.iter().flat_map(|series| {
                series
                    .ratios
                    .iter()
                    .flatten()
                    .copied()
                    .chain(series.published_ratios.iter().map(|published| published.1))
            });
            let least = ratios.filter(|ratio| ratio.is_finite()).fold(1.0, f64::min);
            // Efficiencies differ by little: their axis need not begin at 0.
            let low = ((least - 0.02) * 10.0).floor().clamp(0.0, 9.0) / 10.0;
            (low, 1.0 + 0.06 * (1.0 - low), tick_distance(1.0 - low, 5.0))
        } else {
            (0.0, most * ROOM, most / 4.0)
        };
        let slot = (RIGHT - LEFT) / self.devices.len().max(1) as f64;
        Frame { top, slot, time: (time > 0.0).then(|| (time, tick_distance(time, 6.0))), ratio }
    }

    fn axes(&self, out: &mut String, frame: &Frame) {
        let bottom = frame.bottom();
        for (tick, distance) in
            frame.time.iter().flat_map(|&(highest, distance)| ticks(0.0, highest, distance))
        {
            let (y, label) = (frame.time_at(tick), decimal(tick, distance));
            put(
                out,
                format_args!(
                    "<line x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"{GRID}\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" font-size=\"12\" fill=\"{MUTED}\">{label}</text>",
                    LEFT - 8.0,
                    y + 4.0
                ),
            );
        }
        let (low, high, distance) = frame.ratio;
        for (tick, distance) in ticks(low, high, distance) {
            let y = frame.ratio_at(tick);
            let label = if self.efficiency {
                format!("{} %", decimal(tick * 100.0, distance * 100.0))
            } else {
                format!("{}×", decimal(tick, distance))
            };
            // Lines across belong to one axis only.
            let start = if frame.time.is_some() { RIGHT } else { LEFT };
            put(
                out,
                format_args!(
                    "<line x1=\"{start}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"{GRID}\"/><text x=\"{:.1}\" y=\"{:.1}\" font-size=\"12\" fill=\"{MUTED}\">{label}</text>",
                    RIGHT + 4.0,
                    RIGHT + 8.0,
                    y + 4.0
                ),
            );
        }
        put(
            out,
            format_args!(
                "<path d=\"M{LEFT} {:.1}V{bottom:.1}H{RIGHT}V{:.1}\" fill=\"none\" stroke=\"#9aa5b1\"/>",
                frame.top, frame.top
            ),
        );
        for (place, devices) in self.devices.iter().enumerate() {
            put(
                out,
                format_args!(
                    "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" font-size=\"13\">{devices}</text>",
                    frame.x_at(place),
                    bottom + 19.0
                ),
            );
        }
        let middle = (LEFT + RIGHT) / 2.0;
        let (below, half) = (bottom + 40.0, frame.top + PLOT_HEIGHT / 2.0);
        let time = if frame.time.is_some() { escape(&self.time_label) } else { String::new() };
        let ratio = if self.efficiency { "efficiency" } else { "speed-up" };
        let text = format!("text-anchor=\"middle\" font-size=\"13\" fill=\"{MUTED}\"");
        put(
            out,
            format_args!(
                "<text x=\"{middle:.1}\" y=\"{below:.1}\" {text}>devices</text><text transform=\"translate(18 {half:.1}) rotate(-90)\" {text}>{time}</text><text transform=\"translate({:.1} {half:.1}) rotate(90)\" {text}>{ratio}</text>",
                WIDTH - 16.0
            ),
        );
    }

    fn bars(&self, out: &mut String, frame: &Frame, index: usize) {
        let count = self.series.len().max(1) as f64;
        let width = (frame.slot * 0.72 / count).min(52.0);
        let left = |place: usize| frame.x_at(place) + (index as f64 - count / 2.0) * width;
        let (series, colour) = (&self.series[index], colour(index));
        for (place, time) in series.times.iter().enumerate() {
            let Some(time) = time.filter(|time| time.is_finite()) else { continue };
            let y = frame.time_at(time);
            put(
                out,
                format_args!(
                    "<rect x=\"{:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{colour}\" fill-opacity=\"0.34\"/>",
                    left(place) + 1.0,
                    width - 2.0,
                    frame.bottom() - y
                ),
            );
        }
        for &(place, time) in &series.published_times {
            let y = frame.time_at(time);
            put(
                out,
                format_args!(
                    "<path d=\"M{:.1} {:.1}V{y:.1}h{:.1}V{:.1}\" fill=\"none\" stroke=\"{INK}\" stroke-width=\"1.5\" stroke-dasharray=\"4 2\"/>",
                    left(place) + 1.0,
                    frame.bottom(),
                    width - 2.0,
                    frame.bottom()
                ),
            );
        }
    }

    fn line(&self, out: &mut String, frame: &Frame, index: usize) {
        let (series, colour) = (&self.series[index], colour(index));
        polyline(out, frame, &series.ratios, &format!("stroke=\"{colour}\" stroke-width=\"2.2\""));
        for (place, ratio) in series.ratios.iter().enumerate() {
            let Some(ratio) = ratio.filter(|ratio| ratio.is_finite()) else { continue };
            marker(out, index, frame.x_at(place), frame.ratio_at(ratio), colour);
        }
        // Published numbers stand aside, that neither hides the other.
        let aside = if index.is_multiple_of(2) { -1.0 } else { 1.0 };
        for &(place, ratio) in &series.published_ratios {
            let (x, y) = (frame.x_at(place) + aside * 11.0, frame.ratio_at(ratio));
            let anchor = if aside < 0.0 { "end" } else { "start" };
            put(
                out,
                format_args!(
                    "<path d=\"M{x:.1} {:.1}l6 6l-6 6l-6 -6z\" fill=\"#fff\" stroke=\"{colour}\" stroke-width=\"2\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\" font-size=\"12\" fill=\"{INK}\" stroke=\"#fff\" stroke-width=\"3\" paint-order=\"stroke\">{}</text>",
                    y - 6.0,
                    x + aside * 8.0,
                    y + 4.0,
                    if self.efficiency { format!("{:.1} %", ratio * 100.0) } else { format!("{ratio:.2}×") }
                ),
            );
        }
    }

    /// Entries wrapped into lines, and the number of lines.
    fn legend(&self) -> (String, usize) {
        let ratio = if self.efficiency { "efficiency" } else { "speed-up" };
        let mut entries: Vec<(String, Entry)> = Vec::new();
        for (index, series) in self.series.iter().enumerate() {
            if series.times.iter().flatten().next().is_some() {
                entries.push((format!("{}: time", series.name), Entry::Bar(index)));
            }
            entries.push((format!("{}: {ratio}", series.name), Entry::Line(index)));
        }
        if !self.efficiency {
            entries.push(("linear".to_owned(), Entry::Linear));
        }
        if self.series.iter().any(|series| !series.published_ratios.is_empty()) {
            entries.push((format!("published {ratio}"), Entry::PublishedRatio));
        }
        if self.series.iter().any(|series| !series.published_times.is_empty()) {
            entries.push(("published time".to_owned(), Entry::PublishedTime));
        }
        let (mut out, mut x, mut line) = (String::new(), 14.0, 0);
        for (name, entry) in entries {
            let name = svg::shorten(&name, 28.0);
            let width = 28.0 + 13.0 * svg::width_em(&name) + 16.0;
            if x > 14.0 && x + width > WIDTH {
                (x, line) = (14.0, line + 1);
            }
            let y = TOP + 6.0 + LEGEND_LINE * line as f64;
            entry.draw(&mut out, x, y - 4.5);
            put(
                &mut out,
                format_args!(
                    "<text x=\"{:.1}\" y=\"{y:.1}\" font-size=\"13\">{}</text>",
                    x + 28.0,
                    escape(&name)
                ),
            );
            x += width;
        }
        (out, line + 1)
    }
}

enum Entry {
    Bar(usize),
    Line(usize),
    Linear,
    PublishedRatio,
    PublishedTime,
}

impl Entry {
    /// The sign, 22 units wide, its middle at the height `y`.
    fn draw(&self, out: &mut String, x: f64, y: f64) {
        let end = x + 22.0;
        let line = |style: &str| {
            format!("<line x1=\"{x:.1}\" x2=\"{end:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\" {style}/>")
        };
        match *self {
            Self::Bar(index) => put(
                out,
                format_args!(
                    "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"14\" height=\"14\" fill=\"{}\" fill-opacity=\"0.34\"/>",
                    x + 4.0,
                    y - 7.0,
                    colour(index)
                ),
            ),
            Self::Line(index) => {
                *out += &line(&format!("stroke=\"{}\" stroke-width=\"2.2\"", colour(index)));
                marker(out, index, x + 11.0, y, colour(index));
            }
            Self::Linear => {
                *out += &line(&format!("stroke=\"{MUTED}\" stroke-width=\"1.3\" stroke-dasharray=\"3 4\""))
            }
            Self::PublishedRatio => put(
                out,
                format_args!(
                    "<path d=\"M{:.1} {:.1}l6 6l-6 6l-6 -6z\" fill=\"#fff\" stroke=\"{INK}\" stroke-width=\"2\"/>",
                    x + 11.0,
                    y - 6.0
                ),
            ),
            Self::PublishedTime => put(
                out,
                format_args!(
                    "<path d=\"M{:.1} {:.1}v-14h14v14\" fill=\"none\" stroke=\"{INK}\" stroke-width=\"1.5\" stroke-dasharray=\"4 2\"/>",
                    x + 4.0,
                    y + 7.0
                ),
            ),
        }
    }
}

impl Frame {
    fn bottom(&self) -> f64 {
        self.top + PLOT_HEIGHT
    }

    fn x_at(&self, place: usize) -> f64 {
        LEFT + (place as f64 + 0.5) * self.slot
    }

    fn time_at(&self, time: f64) -> f64 {
        self.y_at(self.time.map_or(0.0, |(highest, _)| time / highest))
    }

    fn ratio_at(&self, ratio: f64) -> f64 {
        let (low, high, _) = self.ratio;
        self.y_at((ratio - low) / (high - low))
    }

    /// `share` of an axis.
    fn y_at(&self, share: f64) -> f64 {
        self.bottom() - PLOT_HEIGHT * share.clamp(0.0, 1.0)
    }
}

/// Values of ticks, each with their distance.
fn ticks(low: f64, high: f64, distance: f64) -> impl Iterator<Item = (f64, f64)> {
    let count = ((high - low) / distance + 1e-6).floor().clamp(0.0, 50.0) as u32;
    (0..=count).map(move |tick| (low + f64::from(tick) * distance, distance))
}

/// A tick's value with the digits that ticks `distance` apart need.
fn decimal(value: f64, distance: f64) -> String {
    let decimals = (-(distance * (1.0 + 1e-9)).log10().floor()).max(0.0) as usize;
    format!("{value:.decimals$}")
}

/// Through the known values; a gap ends a line.
fn polyline(out: &mut String, frame: &Frame, ratios: &[Option<f64>], style: &str) {
    let point = |place: usize, ratio: f64| format!("{:.1},{:.1}", frame.x_at(place), frame.ratio_at(ratio));
    let known: Vec<Option<String>> = ratios
        .iter()
        .enumerate()
        .map(|(place, ratio)| ratio.filter(|ratio| ratio.is_finite()).map(|ratio| point(place, ratio)))
        .collect();
    for run in known.split(Option::is_none) {
        let points: Vec<&str> = run.iter().flatten().map(String::as_str).collect();
        if points.is_empty() {
            continue;
        }
        put(
            out,
            format_args!(
                "<polyline points=\"{}\" fill=\"none\" stroke-linejoin=\"round\" {style}/>",
                points.join(" ")
            ),
        );
    }
}

/// Shapes tell lines apart where colours do not.
fn marker(out: &mut String, index: usize, x: f64, y: f64, colour: &str) {
    let shape = match index % 3 {
        0 => format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4.6\""),
        1 => format!("<rect x=\"{:.1}\" y=\"{:.1}\" width=\"8.4\" height=\"8.4\"", x - 4.2, y - 4.2),
        _ => format!("<path d=\"M{x:.1} {:.1}l5.4 9.6h-10.8z\"", y - 5.8),
    };
    put(out, format_args!("{shape} fill=\"{colour}\" stroke=\"#fff\" stroke-width=\"1.2\"/>"));
}

fn colour(index: usize) -> &'static str {
    SERIES[index % SERIES.len()]
}

fn put(out: &mut String, text: std::fmt::Arguments) {
    out.write_fmt(text).expect("strings can be written to");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(name: &str) -> ScalingSeries {
        ScalingSeries {
            name: name.to_owned(),
            times: vec![Some(8.0), None, Some(2.2), Some(f64::NAN)],
            ratios: vec![Some(1.0), None, Some(3.6), Some(f64::INFINITY)],
            published_times: vec![(0, 9.0)],
            published_ratios: vec![(2, 3.5)],
        }
    }

    fn chart(efficiency: bool, series: Vec<ScalingSeries>) -> ScalingChart {
        let (title, note) = ("Weak <b>scaling".to_owned(), "a & b".to_owned());
        let time_label = "seconds an epoch".to_owned();
        ScalingChart { title, note, time_label, devices: vec![1, 2, 4, 8], efficiency, series }
    }

    #[test]
    fn gaps_and_nasty_names_draw() {
        for efficiency in [false, true] {
            for series in [Vec::new(), vec![series("<i>"), series("b")]] {
                let svg = chart(efficiency, series).to_svg();
                assert!(svg.ends_with("</svg>") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
                assert!(!svg.contains("<b>") && !svg.contains("<i>"), "{svg}");
            }
        }
        let empty = ScalingChart { devices: Vec::new(), ..chart(false, vec![series("a")]) };
        assert!(empty.to_svg().ends_with("</svg>"));
    }

    #[test]
    fn published_numbers_are_said_in_words() {
        let svg = chart(false, vec![series("batch 32")]).to_svg();
        for text in ["3.50×", "published speed-up", "published time", "batch 32: time", "linear", ">8<"] {
            assert!(svg.contains(text), "{text}");
        }
        // Bars of the known times only: two, and one in the legend.
        assert_eq!(svg.matches("fill-opacity=\"0.34\"").count(), 3);
    }
}
