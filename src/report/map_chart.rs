//! Images as dots on a plane, coloured by group.

use super::svg::{self, INK, escape};
use std::fmt::Write;

const SIDE: f64 = 640.0;
const EDGE: f64 = 14.0;
/// Dots drawn at most; of more, every n-th.
const DOTS: usize = 6000;

/// `points[i]`, within -1..=1, belongs to group `groups[i]`, below the number of `names`. The name of each group stands in
/// its middle, so that colours need not be told apart.
pub fn map_svg(title: &str, points: &[[f32; 2]], groups: &[u32], names: &[String]) -> String {
    let place = |point: [f32; 2]| {
        let along = |value: f32| EDGE + (f64::from(value.clamp(-1.0, 1.0)) + 1.0) / 2.0 * (SIDE - 2.0 * EDGE);
        // Upwards, as in any chart.
        (along(point[0]), SIDE - along(point[1]))
    };
    let mut chart = svg::open(SIDE, SIDE, title);
    let every = points.len().div_ceil(DOTS).max(1);
    let radius = if points.len() > 1000 { 1.8 } else { 3.0 };
    for (group, _) in names.iter().enumerate() {
        let _ = writeln!(chart, "<g fill=\"{}\" fill-opacity=\"0.65\">", colour(group));
        let own = points.iter().zip(groups).step_by(every).filter(|(_, of)| **of as usize == group);
        for (point, _) in own {
            let (x, y) = place(*point);
            let _ = writeln!(chart, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\"/>");
        }
        chart.push_str("</g>\n");
    }
    for (group, name) in names.iter().enumerate() {
        let of = || {
            points.iter().zip(groups).filter(move |(_, of)| **of as usize == group).map(|(point, _)| point)
        };
        let Some((x, y)) = middle(of().map(|p| p[0])).zip(middle(of().map(|p| p[1]))) else { continue };
        let (x, y) = place([x, y]);
        let _ = writeln!(
            chart,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\" dominant-baseline=\"central\" font-size=\"15\" \
             font-weight=\"600\" fill=\"{INK}\" stroke=\"#fff\" stroke-width=\"3\" paint-order=\"stroke\">{}</text>",
            escape(name)
        );
    }
    chart.push_str("</svg>\n");
    chart
}

/// The median, which outliers do not move.
fn middle(values: impl Iterator<Item = f32>) -> Option<f32> {
    let mut values: Vec<f32> = values.collect();
    values.sort_by(f32::total_cmp);
    values.get(values.len() / 2).copied()
}

/// Hues a golden angle apart: any number of neighbours differ.
fn colour(group: usize) -> String {
    format!("hsl({:.0} 65% 42%)", (210.0 + 137.508 * group as f64) % 360.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_image_is_a_dot_and_every_group_is_named() {
        let chart =
            map_svg("a <map>", &[[0.0, 0.0], [1.0, -1.0]], &[0, 1], &["0".into(), "<b>".into(), "2".into()]);
        assert_eq!(chart.matches("<circle").count(), 2);
        assert!(chart.contains("&lt;b&gt;") && chart.contains("a &lt;map&gt;") && !chart.contains(">2<"));
        assert!(chart.contains("cx=\"626.0\" cy=\"626.0\""));
    }

    #[test]
    fn a_million_images_make_no_million_dots() {
        let chart = map_svg("map", &vec![[0.0, 0.0]; 100_000], &vec![0; 100_000], &["0".into()]);
        assert!(chart.matches("<circle").count() <= DOTS);
    }
}
