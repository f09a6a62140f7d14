//! How accuracy grew with labels, a mark for each run.

use maud::{Markup, html};

use super::runs::Listed;
use crate::metrics::Interval;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 230.0;
const LEFT: f64 = 46.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 40.0;

/// A run as a mark.
struct Mark<'a> {
    run: &'a Listed,
    labels: f64,
    accuracy: f64,
    interval: Interval,
    supervised: bool,
}

/// Accuracy over labels with 95 % intervals; nothing unless two runs can be compared. `shown` is the run of the page.
pub fn over_labels(runs: &[Listed], shown: &str, key: &str) -> Option<Markup> {
    let marks: Vec<Mark> = runs.iter().rev().filter_map(mark).collect();
    if marks.len() < 2 {
        return None;
    }
    let most = marks.iter().map(|mark| mark.labels).fold(1.0, f64::max) * 1.05;
    let x = move |labels: f64| LEFT + (WIDTH - LEFT - RIGHT) * labels / most;
    let y = |share: f64| TOP + (HEIGHT - TOP - BOTTOM) * (1.0 - share);
    let at = |value: f64| format!("{value:.1}");
    let line: Vec<String> = marks
        .iter()
        .filter(|mark| !mark.supervised)
        .map(|mark| format!("{:.1},{:.1}", x(mark.labels), y(mark.accuracy)))
        .collect();
    Some(html! {
        figure.growth {
            svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="group" aria-label="Accuracy of each run over its number of labels" {
                @for tick in 0..=4 {
                    @let share = f64::from(tick) / 4.0;
                    line.grid x1=(LEFT) x2=(WIDTH - RIGHT) y1=(at(y(share))) y2=(at(y(share))) {}
                    text.tick x=(LEFT - 8.0) y=(at(y(share) + 4.0)) text-anchor="end" { (25 * tick) " %" }
                }
                @for tick in ticks(most) {
                    text.tick x=(at(x(tick))) y=(HEIGHT - 20.0) text-anchor="middle" { (tick) }
                }
                text.tick x=(WIDTH - RIGHT) y=(HEIGHT - 4.0) text-anchor="end" { "labelled images" }
                polyline.path points=(line.join(" ")) {}
                @for mark in &marks {
                    @let (across, up) = (at(x(mark.labels)), at(y(mark.accuracy)));
                    a href={ "p/" (key) "/results/" (mark.run.name) } aria-label=(described(mark)) {
                        line.whisker x1=(across) x2=(across) y1=(at(y(mark.interval.low))) y2=(at(y(mark.interval.high))) {}
                        @if mark.supervised {
                            rect.dot.alone x=(at(x(mark.labels) - 5.0)) y=(at(y(mark.accuracy) - 5.0)) width="10" height="10" {}
                        } @else {
                            circle.dot.here[mark.run.name == shown] cx=(across) cy=(up) r="6" {}
                        }
                        title { (described(mark)) }
                    }
                }
            }
            figcaption.hint { "A dot for each run, a square for each on labelled images alone, with its 95 % interval; the ring is this run." }
        }
    })
}

fn mark(run: &Listed) -> Option<Mark<'_>> {
    let (_, scores) = run.scores()?;
    Some(Mark {
        run,
        labels: run.labels? as f64,
        accuracy: scores.accuracy,
        interval: scores.accuracy_interval(),
        supervised: run.algorithm.as_deref() == Some("supervised"),
    })
}

fn described(mark: &Mark) -> String {
    let algorithm = mark.run.algorithm.as_deref().unwrap_or("run");
    format!(
        "{:.1} % right with {} labels, {algorithm}, {}",
        100.0 * mark.accuracy,
        mark.labels,
        mark.run.made
    )
}

/// From 0 in about five round steps.
fn ticks(most: f64) -> Vec<f64> {
    let rough = (most / 5.0).max(1.0);
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|factor| factor * power).find(|step| *step >= rough);
    let step = step.unwrap_or(rough);
    (0..).map(|tick| f64::from(tick) * step).take_while(|tick| *tick <= most).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_few() {
        assert_eq!(ticks(42.0), [0.0, 10.0, 20.0, 30.0, 40.0]);
        assert_eq!(ticks(3.0), [0.0, 1.0, 2.0, 3.0]);
        assert!(ticks(1e6).len() <= 6);
    }
}
