//! The figures of a sweep: error rate over labels per class (the published figure 7), base models side by side (8).

use super::Labels;
use super::results::Setting;
use crate::report::{Compared, Comparison, Spread};

/// A figure and the file it goes to.
pub(super) struct Figure {
    pub file: String,
    pub svg: String,
}

/// One figure of lines for each base model, and bars for each number of labels if there are several models.
pub(super) fn figures(settings: &[Setting]) -> Vec<Figure> {
    let (full, few): (Vec<&Setting>, Vec<&Setting>) =
        settings.iter().partition(|setting| setting.labels_per_class == Labels::All);
    let models = distinct(few.iter().map(|setting| setting.model.clone()));
    let algorithms = distinct(few.iter().map(|setting| setting.algorithm.clone()));
    let mut labels = distinct(few.iter().map(|setting| setting.labels_per_class));
    labels.sort_unstable();
    let error = |algorithm: &str, model: &str, labels: Labels| -> Option<Spread> {
        let same = |setting: &&&Setting| {
            setting.algorithm == algorithm && setting.model == model && setting.labels_per_class == labels
        };
        error_rate(few.iter().find(same)?)
    };

    let mut figures = Vec::new();
    for (index, model) in models.iter().enumerate() {
        let line = |algorithm: &String| Compared {
            name: algorithm.clone(),
            values: labels.iter().map(|&labels| error(algorithm, model, labels)).collect(),
        };
        let reference = full.iter().find(|setting| setting.model == *model);
        let drawn = few.iter().filter(|setting| setting.model == *model).chain(reference);
        let chart = Comparison {
            title: "Error rate over labels per class".into(),
            note: format!("{model}, {}", seeds(drawn.copied())),
            x_label: "labelled images per class".into(),
            places: labels.iter().map(Labels::to_string).collect(),
            series: algorithms.iter().map(line).collect(),
            reference: reference
                .and_then(|setting| error_rate(setting))
                .map(|value| ("all labels".into(), value)),
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
            let drawn = few.iter().filter(|setting| setting.labels_per_class == labels);
            let chart = Comparison {
                title: "Error rate of base models".into(),
                note: format!("{labels} labels per class, {}", seeds(drawn.copied())),
                x_label: "algorithm".into(),
                places: algorithms.clone(),
                series: models.iter().map(bars).collect(),
                reference: None,
            };
            let file = if index == 0 { "models.svg".to_owned() } else { format!("models-{labels}.svg") };
            figures.push(Figure { file, svg: chart.bars_svg() });
        }
    }
    figures
}

fn error_rate(setting: &Setting) -> Option<Spread> {
    Some(setting.scores?[4])
}

/// How many seeds the values of these settings are made of: finished runs, not planned ones.
fn seeds<'a>(settings: impl Iterator<Item = &'a Setting>) -> String {
    let mut runs: Vec<usize> = settings.map(|setting| setting.runs).filter(|&runs| runs > 0).collect();
    runs.sort_unstable();
    match (runs.first(), runs.last()) {
        (None, _) | (_, None) => "no run has finished".into(),
        (_, Some(1)) => "one seed".into(),
        (Some(fewest), Some(most)) if fewest == most => {
            format!("mean of {most} seeds, bars of one standard deviation")
        }
        (Some(fewest), Some(most)) => {
            format!("mean of {fewest} to {most} seeds, bars of one standard deviation")
        }
    }
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
