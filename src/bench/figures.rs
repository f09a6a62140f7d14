//! The published figures of scaling, with what is expected beside what was published.

use std::path::Path;

use super::cost::{
    Device, Network, Plan, Prediction, Published, Speed, StepProfile, a100, ascend, predict, published,
};
use crate::config::Scaling;
use crate::files::{WriteError, atomic_write};
use crate::report::{ScalingChart, ScalingSeries};

/// The numbers of ranks that tables and figures go to.
pub const RANKS: [usize; 11] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024];

/// Figures 9, 10, 12 and 13 with predictions for up to 16 devices and the published numbers, and efficiency up to 1,024
/// devices. Returns the names of the files.
///
/// # Errors
/// If a file cannot be written.
pub fn draw_predictions(folder: &Path, speed: Speed) -> Result<Vec<String>, WriteError> {
    std::fs::create_dir_all(folder).map_err(WriteError::at(folder))?;
    let (device, network) = (a100(speed), ascend());
    let mut written = Vec::new();
    let mut write = |name: String, chart: &ScalingChart| {
        atomic_write(&folder.join(&name), chart.to_svg().as_bytes())?;
        written.push(name);
        Ok::<(), WriteError>(())
    };
    for figure in published() {
        write(format!("figure-{}.svg", figure.figure), &figure_chart(&figure, &device, &network))?;
    }
    write("predicted-1024.svg".to_owned(), &efficiency_chart(&network))?;
    Ok(written)
}

fn plan(figure: &Published, batch: u32) -> Plan {
    let scaling = if figure.strong { Scaling::Strong } else { Scaling::Weak };
    Plan { scaling, batch, uratio: 1.0, images: figure.images }
}

fn figure_chart(figure: &Published, device: &Device, network: &Network) -> ScalingChart {
    const PLACES: [usize; 5] = [1, 2, 4, 8, 16];
    let workload = figure.workload();
    // Epochs are seconds long, sixty of them hours.
    let unit = if figure.total.is_some() { 3600.0 } else { 1.0 };
    let series = figure.batches.iter().zip(figure.speedups).map(|(&batch, &speedup)| {
        let rows = predict(|batch| workload.on(device, batch), network, &plan(figure, batch), &PLACES);
        let time = |row: &Prediction| Some(row.seconds_per_epoch * f64::from(figure.epochs) / unit);
        ScalingSeries {
            name: format!("batch {batch}"),
            times: rows.iter().map(time).collect(),
            ratios: rows.iter().map(|row| Some(row.speedup)).collect(),
            published_times: figure
                .total
                .map_or(Vec::new(), |total| vec![(0, total.one), (4, total.sixteen)]),
            published_ratios: vec![(4, speedup)],
        }
    });
    let what = match (figure.total.is_some(), figure.strong) {
        (true, _) => format!("{} epochs", figure.epochs),
        (false, true) => "Strong scaling".to_owned(),
        (false, false) => "Weak scaling".to_owned(),
    };
    ScalingChart {
        title: format!("{what}, {}: predicted and published", figure.data),
        note: format!(
            "Bars and lines predicted, FreeMatch, {}; {}, 4 a node, 200 Gbit/s",
            figure.model, device.name
        ),
        time_label: if figure.total.is_some() { "hours in all" } else { "seconds an epoch" }.to_owned(),
        devices: PLACES.to_vec(),
        efficiency: false,
        series: series.collect(),
    }
}

/// Weak scaling of figure 9's larger batch to 1,024 devices, at all speeds.
fn efficiency_chart(network: &Network) -> ScalingChart {
    let [figure, ..] = published();
    let workload = figure.workload();
    let series = [Speed::Published, Speed::Tf32, Speed::Bf16].map(|speed| {
        let device = a100(speed);
        let step = |batch| -> StepProfile { workload.on(&device, batch) };
        let rows = predict(step, network, &plan(&figure, 64), &RANKS);
        ScalingSeries {
            name: format!("{:.1} Tflop/s", device.flops / 1e12),
            times: Vec::new(),
            ratios: rows.iter().map(|row| Some(row.efficiency)).collect(),
            published_times: Vec::new(),
            published_ratios: if speed == Speed::Published {
                vec![(4, figure.speedups[1] / 16.0)]
            } else {
                Vec::new()
            },
        }
    });
    ScalingChart {
        title: "Weak scaling to 1,024 devices, predicted".to_owned(),
        note: format!(
            "FreeMatch, {}, batch 64 a device; A100 at three speeds, 4 a node, 200 Gbit/s",
            figure.model
        ),
        time_label: String::new(),
        devices: RANKS.to_vec(),
        efficiency: true,
        series: series.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_is_drawn_with_its_published_numbers() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let folder = folder.path().join("new");
        let names = draw_predictions(&folder, Speed::Published).expect("it can be written to");
        assert_eq!(names.len(), 5);
        let texts: Vec<String> = names
            .iter()
            .map(|name| std::fs::read_to_string(folder.join(name)).expect("it was written"))
            .collect();
        for (index, words) in [
            (0, "14.84×"),
            (0, "15.43×"),
            (1, "8.00×"),
            (1, "10.51×"),
            (2, "15.19×"),
            (3, "14.25×"),
            (4, "96.4 %"),
        ] {
            assert!(texts[index].contains(words), "{words} in {}", names[index]);
        }
    }
}
