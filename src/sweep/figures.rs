//! The figures of a sweep: error rate over labels per class (the published figure 7), base models side by side (8).

use super::results::Setting;
use crate::report::{Compared, Comparison, Spread};

/// A figure and the file it goes to.
pub(super) struct Figure {
    pub file: String,
    pub svg: String,
}

/// One figure of lines for each base model, and bars for each number of labels if there are several models.
pub(super) fn figures(settings: &[Setting]) -> Vec<Figure> {
    let models = distinct(settings.iter().map(|setting| setting.model.clone()));
    let algorithms = distinct(settings.iter().map(|setting| setting.algorithm.clone()));
    let mut labels = distinct(settings.iter().map(|setting| setting.labels_per_class));
    labels.sort_unstable();
    let error = |algorithm: &str, model: &str, labels: u32| -> Option<Spread> {
        let same = |setting: &&Setting| {
            setting.algorithm == algorithm && setting.model == model && setting.labels_per_class == labels
        };
        Some(settings.iter().find(same)?.scores?[4])
    };
    let seeds = settings.iter().map(|setting| setting.planned).max().unwrap_or(0);
    let note = if seeds > 1 {
        format!("mean of {seeds} seeds, bars of one standard deviation")
    } else {
        "one seed".into()
    };

    let mut figures = Vec::new();
    for (index, model) in models.iter().enumerate() {
        let line = |algorithm: &String| Compared {
            name: algorithm.clone(),
            values: labels.iter().map(|&labels| error(algorithm, model, labels)).collect(),
        };
        let chart = Comparison {
            title: "Error rate over labels per class".into(),
            note: format!("{model}, {note}"),
            x_label: "labelled images per class".into(),
            places: labels.iter().map(u32::to_string).collect(),
            series: algorithms.iter().map(line).collect(),
        };
        let file = match index {
            0 => "error_over_labels.svg".to_owned(),
            _ => format!("error_over_labels-{}.svg", plain(model)),
        };
        figures.push(Figure { file, svg: chart.lines_svg() });
    }
    if models.len() > 1 {
        for (index, &labels) in labels.iter().enumerate() {
            let bars = |model: &String| Compared {
                name: model.clone(),
                values: algorithms.iter().map(|algorithm| error(algorithm, model, labels)).collect(),
            };
            let chart = Comparison {
                title: "Error rate of base models".into(),
                note: format!("{labels} labels per class, {note}"),
                x_label: "algorithm".into(),
                places: algorithms.clone(),
                series: models.iter().map(bars).collect(),
            };
            let file = if index == 0 { "models.svg".to_owned() } else { format!("models-{labels}.svg") };
            figures.push(Figure { file, svg: chart.bars_svg() });
        }
    }
    figures
}

fn distinct<T: PartialEq>(values: impl Iterator<Item = T>) -> Vec<T> {
    values.fold(Vec::new(), |mut kept, value| {
        if !kept.contains(&value) {
            kept.push(value);
        }
        kept
    })
}

/// Fit for the name of a file.
fn plain(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' }).collect()
}
