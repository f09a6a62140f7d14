//! Curves over training steps, as standalone SVG documents.

use super::MetricsTable;
use super::svg::{self, GRID, INK, MUTED, SERIES, escape};
use std::fmt::Write;

const WIDTH: f64 = 480.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = 16.0;
const PLOT_HEIGHT: f64 = 190.0;
const LEGEND_LINE: f64 = 18.0;

/// A line per series over a common horizontal axis.
#[derive(Debug, Clone, PartialEq)]
pub struct LineChart {
    /// Heading.
    pub title: String,
    /// What the horizontal axis counts.
    pub x_label: String,
    /// Lines, in legend order; those without a finite point are left out.
    pub series: Vec<Series>,
    /// Ends of the vertical axis; `None` fits the data.
    pub range: Option<(f64, f64)>,
    /// Values are shares of 1, shown as percentages.
    pub percent: bool,
    /// Series of many points are drawn pale with their moving average on top.
    pub smooth: bool,
}

/// One line of a chart.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// As the legend says it.
    pub name: String,
    /// (x, y) by ascending x; points that are not finite are left out.
    pub points: Vec<(f64, f64)>,
}

/// The charts of a run's log: loss, accuracy, share of images used, learning rate, then whatever else is there.
pub fn standard_charts(table: &MetricsTable) -> Vec<LineChart> {
    // (title, which columns, percent, range, smooth); the first chart that wants a column gets it.
    type Plan = (&'static str, fn(&str) -> bool, bool, Option<(f64, f64)>, bool);
    let plan: [Plan; 5] = [
        ("Loss", |name| name.contains("loss") || matches!(name, "sup" | "unsup"), false, None, true),
        ("Accuracy", |name| name.contains("accuracy"), true, None, false),
        ("Share of images above the threshold", |name| name.contains("ratio"), true, Some((0.0, 1.0)), true),
        ("Thresholds", |name| name.contains("threshold"), false, None, true),
        ("Learning rate", |name| name == "lr" || name.contains("learning_rate"), false, None, false),
    ];
    let mut left: Vec<&String> = table.columns().iter().filter(|name| *name != "epoch").collect();
    let mut charts = Vec::new();
    for (title, wanted, percent, range, smooth) in plan {
        let (taken, others): (Vec<_>, Vec<_>) = left.into_iter().partition(|name| wanted(name));
        left = others;
        charts.push(LineChart { percent, range, smooth, ..LineChart::of(table, title, &taken) });
    }
    charts.extend(left.into_iter().map(|name| LineChart::of(table, &spoken(name), &[name])));
    charts.retain(|chart| chart.series.iter().any(|series| !series.points.is_empty()));
    charts
}

/// "eval_accuracy" → "eval accuracy".
fn spoken(column: &str) -> String {
    column.replace(['_', '/'], " ")
}

impl LineChart {
    fn of(table: &MetricsTable, title: &str, columns: &[&String]) -> Self {
        let series = |&name: &&String| Series { name: spoken(name), points: table.series(name) };
        Self {
            title: title.to_owned(),
            x_label: "step".to_owned(),
            series: columns.iter().map(series).collect(),
            range: None,
            percent: false,
            smooth: true,
        }
    }

    /// The chart as an SVG document, 480 units wide.
    pub fn to_svg(&self) -> String {
        let series: Vec<Series> =
            self.series.iter().map(Series::finite).filter(|s| !s.points.is_empty()).collect();
        let (legend, legend_lines) = self.legend(&series);
        let top = 46.0 + LEGEND_LINE * legend_lines as f64;
        let height = top + PLOT_HEIGHT + 42.0;
        let mut out = svg::open(WIDTH, height, &self.title);
        let title = escape(&svg::shorten(&self.title, 31.0));
        put(
            &mut out,
            format_args!("<text x=\"12\" y=\"24\" font-size=\"15\" font-weight=\"600\">{title}</text>"),
        );
        out += &legend;
        let Some(frame) = Frame::around(&series, self.range, top) else {
            let (x, y) = (WIDTH / 2.0, top + PLOT_HEIGHT / 2.0);
            put(
                &mut out,
                format_args!(
                    "<text x=\"{x}\" y=\"{y}\" text-anchor=\"middle\" fill=\"{MUTED}\">nothing logged yet</text></svg>"
                ),
            );
            return out;
        };
        self.axes(&mut out, &frame);
        for (index, series) in series.iter().enumerate() {
            self.line(&mut out, &frame, series, SERIES[index % SERIES.len()], dash(index));
        }
        out + "</svg>"
    }

    /// Entries of name and last value, wrapped into lines.
    fn legend(&self, series: &[Series]) -> (String, usize) {
        let (mut out, mut x, mut line) = (String::new(), 12.0, 0);
        for (index, series) in series.iter().enumerate() {
            let (name, last) =
                (svg::shorten(&series.name, 26.0), self.value(series.points[series.points.len() - 1].1));
            let width = 24.0 + 13.0 * (svg::width_em(&name) + svg::width_em(&last) + 0.4) + 18.0;
            if x > 12.0 && x + width > WIDTH {
                (x, line) = (12.0, line + 1);
            }
            let y = 44.0 + LEGEND_LINE * line as f64;
            let (middle, end, text) = (y - 4.0, x + 18.0, x + 24.0);
            let (colour, dash) = (SERIES[index % SERIES.len()], dash(index));
            put(
                &mut out,
                format_args!(
                    "<line x1=\"{x:.1}\" x2=\"{end:.1}\" y1=\"{middle:.1}\" y2=\"{middle:.1}\" stroke=\"{colour}\" \
                 stroke-width=\"2.5\"{dash}/><text x=\"{text:.1}\" y=\"{y:.1}\" font-size=\"13\" fill=\"{MUTED}\">{} \
                 <tspan fill=\"{INK}\" font-weight=\"600\">{last}</tspan></text>",
                    escape(&name),
                ),
            );
            x += width;
        }
        (out, if series.is_empty() { 0 } else { line + 1 })
    }

    fn axes(&self, out: &mut String, frame: &Frame) {
        let (right, bottom) = (WIDTH - RIGHT, frame.top + PLOT_HEIGHT);
        let step = frame.y_ticks.1;
        for y in frame.ticks(frame.y, frame.y_ticks) {
            let (at, label) = (frame.y_at(y), self.tick(y, step));
            put(
                out,
                format_args!(
                    "<line x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"{GRID}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" font-size=\"12\" fill=\"{MUTED}\">{label}</text>",
                    LEFT - 7.0,
                    at + 4.0,
                ),
            );
        }
        put(
            out,
            format_args!(
                "<line x1=\"{LEFT}\" x2=\"{right}\" y1=\"{bottom}\" y2=\"{bottom}\" stroke=\"#9aa5b1\"/>"
            ),
        );
        for x in frame.ticks(frame.x, frame.x_ticks) {
            let (at, label) = (frame.x_at(x), counted(x));
            put(
                out,
                format_args!(
                    "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{bottom}\" y2=\"{:.1}\" stroke=\"#9aa5b1\"/>\
                 <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\" font-size=\"12\" fill=\"{MUTED}\">{label}</text>",
                    bottom + 4.0,
                    bottom + 17.0,
                ),
            );
        }
        put(
            out,
            format_args!(
                "<text x=\"{right}\" y=\"{:.1}\" text-anchor=\"end\" font-size=\"12\" fill=\"{MUTED}\">{}</text>",
                bottom + 33.0,
                escape(&self.x_label),
            ),
        );
    }

    fn line(&self, out: &mut String, frame: &Frame, series: &Series, colour: &str, dash: &str) {
        let points = &series.points;
        let stroke = |out: &mut String, points: &[(f64, f64)], style: &str| {
            let mut path = String::new();
            for &(x, y) in points {
                put(&mut path, format_args!("{:.1},{:.1} ", frame.x_at(x), frame.y_at(y)));
            }
            put(
                out,
                format_args!(
                    "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-linejoin=\"round\" \
                 stroke-linecap=\"round\" {style}/>",
                    path.trim_end(),
                ),
            );
        };
        if self.smooth && points.len() >= 60 {
            stroke(out, &thinned(points), "stroke-width=\"1\" stroke-opacity=\"0.28\"");
            stroke(out, &averaged(points), &format!("stroke-width=\"2.2\"{dash}"));
        } else {
            stroke(out, &thinned(points), &format!("stroke-width=\"2.2\"{dash}"));
        }
        if points.len() <= 30 {
            for &(x, y) in points {
                let (x, y) = (frame.x_at(x), frame.y_at(y));
                put(
                    out,
                    format_args!(
                        "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\" stroke=\"#fff\"/>"
                    ),
                );
            }
        }
    }

    /// A value as the legend shows it: about three digits.
    fn value(&self, value: f64) -> String {
        match value.abs() {
            _ if self.percent => format!("{:.1}%", value * 100.0),
            0.0 => "0".to_owned(),
            ..1e-3 | 1e6.. => format!("{value:.2e}"),
            ..1.0 => format!("{value:.3}"),
            ..100.0 => format!("{value:.2}"),
            _ => format!("{value:.0}"),
        }
    }

    /// A tick's value with the digits that ticks `step` apart need.
    fn tick(&self, value: f64, step: f64) -> String {
        let (value, step, unit) =
            if self.percent { (value * 100.0, step * 100.0, "%") } else { (value, step, "") };
        if value != 0.0 && !(1e-4..1e6).contains(&step) {
            return format!("{value:.1e}");
        }
        let decimals = (-(step + step * 1e-9).log10().floor()).max(0.0) as usize;
        format!("{:.decimals$}{unit}", value + 0.0)
    }
}

impl Series {
    fn finite(&self) -> Self {
        let finite = |(x, y): &(f64, f64)| x.is_finite() && y.is_finite();
        Self { name: self.name.clone(), points: self.points.iter().copied().filter(finite).collect() }
    }
}

/// The plot area: ends of both axes and their ticks (first, distance).
struct Frame {
    x: (f64, f64),
    y: (f64, f64),
    x_ticks: (f64, f64),
    y_ticks: (f64, f64),
    top: f64,
}

impl Frame {
    /// `None` without a point.
    fn around(series: &[Series], range: Option<(f64, f64)>, top: f64) -> Option<Self> {
        let ends = |values: &mut dyn Iterator<Item = f64>| {
            values.fold(None, |ends: Option<(f64, f64)>, v| {
                Some(ends.map_or((v, v), |(a, b)| (a.min(v), b.max(v))))
            })
        };
        let points = || series.iter().flat_map(|series| &series.points);
        let x = ends(&mut points().map(|point| point.0))?;
        let x = if x.0 < x.1 { x } else { (x.0 - 1.0, x.1 + 1.0) };
        // The first logged step is rarely 0, yet 0 is where training began.
        let x = if x.0 > 0.0 && x.0 < 0.1 * x.1 { (0.0, x.1) } else { x };
        let y = range.or_else(|| ends(&mut points().map(|point| point.1)))?;
        let y =
            if y.0 < y.1 { y } else { (y.0 - y.0.abs().max(1e-6) * 0.5, y.1 + y.1.abs().max(1e-6) * 0.5) };
        let distance = tick_distance(y.1 - y.0, 5.0);
        // Fitted axes end at ticks.
        let y = range.unwrap_or(((y.0 / distance).floor() * distance, (y.1 / distance).ceil() * distance));
        let (x_distance, y_first) =
            (tick_distance(x.1 - x.0, 6.0).max(1.0), (y.0 / distance).ceil() * distance);
        let x_first = (x.0 / x_distance).ceil() * x_distance;
        Some(Self { x, y, x_ticks: (x_first, x_distance), y_ticks: (y_first, distance), top })
    }

    fn ticks(&self, ends: (f64, f64), (first, distance): (f64, f64)) -> Vec<f64> {
        let count = ((ends.1 - first) / distance + 1e-6).floor().clamp(0.0, 50.0) as u32;
        (0..=count).map(|i| first + f64::from(i) * distance).collect()
    }

    fn x_at(&self, x: f64) -> f64 {
        LEFT + (x - self.x.0) / (self.x.1 - self.x.0) * (WIDTH - LEFT - RIGHT)
    }

    fn y_at(&self, y: f64) -> f64 {
        let share = ((y - self.y.0) / (self.y.1 - self.y.0)).clamp(0.0, 1.0);
        self.top + PLOT_HEIGHT * (1.0 - share)
    }
}

/// 1, 2 or 5 times a power of ten, such that about `wanted` ticks fit into `span`.
pub(super) fn tick_distance(span: f64, wanted: f64) -> f64 {
    let rough = (span / wanted).max(f64::MIN_POSITIVE);
    let power = 10f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| factor * power >= rough * 0.999);
    factor.unwrap_or(10.0) * power
}

/// 1500 → "1,500", 20000 → "20k".
fn counted(value: f64) -> String {
    match value.abs() {
        1e6.. => format!("{}M", (value / 1e4).round() / 100.0),
        1e4.. => format!("{}k", (value / 100.0).round() / 10.0),
        _ => super::progress::thousands(value.max(0.0).round() as u64),
    }
}

/// At most 600 points that keep every visible peak: the lowest and highest of each of 300 equal parts.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    if points.len() <= 600 {
        return points.to_vec();
    }
    let part = |part: &[(f64, f64)]| {
        let by_height = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
        let (low, high) = (part.iter().min_by(by_height), part.iter().max_by(by_height));
        let mut ends: Vec<_> = low.into_iter().chain(high).copied().collect();
        ends.sort_by(|a, b| a.0.total_cmp(&b.0));
        ends
    };
    points.chunks(points.len().div_ceil(300)).flat_map(part).collect()
}

/// Mean over a centred window of a thirtieth of the points, narrower towards both ends so that they are not
/// drawn inwards, at no more than 300 places and always at the last.
fn averaged(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let reach = points.len() / 60;
    let sums: Vec<f64> = std::iter::once(0.0)
        .chain(points.iter().scan(0.0, |sum, point| {
            *sum += point.1;
            Some(*sum)
        }))
        .collect();
    let last = points.len() - 1;
    let mean = |i: usize| {
        let reach = reach.min(i.min(last - i).max(reach / 4));
        let (from, to) = (i.saturating_sub(reach), (i + reach).min(last) + 1);
        (points[i].0, (sums[to] - sums[from]) / (to - from) as f64)
    };
    let places = (0..last).step_by(points.len().div_ceil(300)).chain(std::iter::once(last));
    places.map(mean).collect()
}

/// A second way to tell lines apart; the first is solid.
fn dash(index: usize) -> &'static str {
    ["", " stroke-dasharray=\"7 4\"", " stroke-dasharray=\"2 4\""][index % 3]
}

fn put(out: &mut String, text: std::fmt::Arguments) {
    out.write_fmt(text).expect("strings can be written to");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: Vec<(f64, f64)>) -> LineChart {
        let series = vec![Series { name: "loss".to_owned(), points }];
        let (title, x_label) = ("Loss".to_owned(), "step".to_owned());
        LineChart { title, x_label, series, range: None, percent: false, smooth: true }
    }

    #[test]
    fn odd_data_draws_without_nan() {
        for points in [
            vec![],
            vec![(5.0, 0.3)],
            vec![(0.0, 0.0), (0.0, 0.0)],
            vec![(1.0, f64::NAN), (2.0, f64::INFINITY)],
            vec![(1.0, -1e300), (2.0, 1e300)],
            vec![(1.0, 7.0), (2.0, 7.0)],
            (0..100_000).map(|i| (f64::from(i), f64::from(i % 97))).collect(),
        ] {
            let svg = chart(points).to_svg();
            assert!(svg.ends_with("</svg>") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            assert!(svg.len() < 40_000, "{}", svg.len());
        }
    }

    #[test]
    fn ticks_are_round_and_say_as_many_digits_as_they_need() {
        assert_eq!(tick_distance(0.97, 5.0), 0.2);
        assert_eq!(tick_distance(830.0, 6.0), 200.0);
        let chart = chart(vec![]);
        assert_eq!(chart.tick(0.6000000000000001, 0.2), "0.6");
        assert_eq!(chart.tick(0.25, 0.05), "0.25");
        assert_eq!(chart.tick(40.0, 20.0), "40");
        assert_eq!(
            (counted(1500.0), counted(20_000.0), counted(1.5e6)),
            ("1,500".into(), "20k".into(), "1.5M".into())
        );
    }

    #[test]
    fn averaging_keeps_a_constant_and_both_ends() {
        let points: Vec<_> = (0..1000).map(|i| (f64::from(i), 2.0)).collect();
        let averaged = averaged(&points);
        assert!(averaged.iter().all(|point| (point.1 - 2.0).abs() < 1e-12));
        assert_eq!((averaged[0].0, averaged[averaged.len() - 1].0), (0.0, 999.0));
    }
}
