//! The cluster of the published measurements, and what its devices are assumed to do.
//!
//! Four A100 (80 GB) a node, joined by NVLink 3; 200 Gbit/s HDR InfiniBand between nodes. No such device was at hand: what
//! is not from the paper or a data sheet is an assumption, and [`sensitivity`](super::sensitivity) shows what hangs on it.

use harvest_models::ClassifierConfig;
use harvest_models::vit::VitConfig;
use serde::{Deserialize, Serialize};

use super::{Device, Link, Network, Workload};

/// How fast an A100 is taken to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Speed {
    /// As in the paper's own totals: [`published_flops`].
    Published,
    /// 40 % of the data sheet's 156 Tflop/s.
    Tf32,
    /// 40 % of the data sheet's 312 Tflop/s.
    Bf16,
}

/// A figure whose numbers the text gives.
#[derive(Debug, Clone, PartialEq)]
pub struct Published {
    /// In the paper.
    pub figure: u8,
    /// Preset of the network.
    pub model: &'static str,
    /// Labelled images a step, on each device (weak) or on all (strong).
    pub batches: &'static [u32],
    /// Speed-up on 16 devices with each of them.
    pub speedups: &'static [f64],
    /// Whether the batch of all devices stays the same.
    pub strong: bool,
    /// Samples of the data set.
    pub images: u64,
    /// Classes of it.
    pub classes: usize,
    /// Epochs whose time is shown.
    pub epochs: u32,
    /// Total time, where the text gives it.
    pub total: Option<PublishedTime>,
    /// Name of the data set.
    pub data: &'static str,
}

/// Hours on one device, and on 16.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PublishedTime {
    /// On one.
    pub one: f64,
    /// On 16.
    pub sixteen: f64,
}

/// Figures 9, 10, 12 and 13. The batch of the last two is not given; 32 is an assumption, as is that an epoch shows every
/// sample once, with as many labelled ones beside them.
pub fn published() -> [Published; 4] {
    let base = Published {
        figure: 9,
        model: "vit_small_patch2_32",
        batches: &[32, 64],
        speedups: &[14.84, 15.43],
        strong: false,
        images: 10_100,
        classes: 2,
        epochs: 1,
        total: None,
        data: "Sugar Cane – Spittle Bug",
    };
    let totals = Published { model: "vit_base_patch16_224", batches: &[32], epochs: 60, ..base.clone() };
    [
        base.clone(),
        Published { figure: 10, speedups: &[8.0, 10.51], strong: true, ..base },
        Published {
            figure: 12,
            speedups: &[15.19],
            images: 9558,
            classes: 12,
            total: Some(PublishedTime { one: 7.8, sixteen: 31.0 / 60.0 }),
            data: "Corn",
            ..totals.clone()
        },
        Published {
            figure: 13,
            speedups: &[14.25],
            images: 5636,
            classes: 6,
            total: Some(PublishedTime { one: 4.6, sixteen: 20.0 / 60.0 }),
            data: "Soybean",
            ..totals
        },
    ]
}

impl Published {
    /// The step as this program does it.
    pub fn workload(&self) -> Workload {
        let config = ClassifierConfig::preset(self.model, self.classes);
        let Ok(ClassifierConfig::Vit(model)) = config else { panic!("{} is one of our presets", self.model) };
        Workload::new(model, 1.0)
    }

    /// Floating-point operations a second that the total on one device comes to: labelled, weak and strong views all go
    /// forward and back there, nine forward passes for each sample. `None` without a total.
    pub fn flops(&self) -> Option<f64> {
        let passes = 9.0 * self.images as f64 * f64::from(self.epochs);
        Some(passes * self.workload().forward_flops() / (self.total?.one * 3600.0))
    }
}

/// The mean of what both published totals come to, about 6.5e12: a third of the data sheet's 19.5 Tflop/s of `f32` without
/// tensor cores, with reading, views and evaluation in it.
pub fn published_flops() -> f64 {
    let found: Vec<f64> = published().iter().filter_map(Published::flops).collect();
    found.iter().sum::<f64>() / found.len() as f64
}

/// One A100 of 80 GB.
pub fn a100(speed: Speed) -> Device {
    let (name, flops) = match speed {
        Speed::Published => ("A100 at the published speed", published_flops()),
        Speed::Tf32 => ("A100, TF32 at 40 % of 156 Tflop/s", 0.4 * 156e12),
        Speed::Bf16 => ("A100, bf16 at 40 % of 312 Tflop/s", 0.4 * 312e12),
    };
    Device {
        name: name.to_owned(),
        flops,
        // Of 2.04e12 on the data sheet.
        memory: 1.5e12,
        // Launches of kernels; an assumption.
        fixed: 0.01,
        // An assumption, of a device that nobody shares and images that are there in time.
        jitter: 0.005,
    }
}

/// Four devices a node.
pub fn ascend() -> Network {
    Network {
        ranks_per_node: 4,
        // NVLink 3: 300 GB/s in each direction, of which rings get about two thirds.
        within: Link { latency: 4e-6, bandwidth: 200e9 },
        // 200 Gbit/s are 25 GB/s; four fifths of it.
        between: Link { latency: 15e-6, bandwidth: 20e9 },
        call: 20e-6,
    }
}

impl Workload {
    /// All strong views computed, buckets as they are by default, numbers of `f32` on their way.
    pub fn new(model: VitConfig, uratio: f64) -> Self {
        const MIB: f64 = (1 << 20) as f64;
        Self { model, uratio, strong_computed: 1.0, buckets: (MIB, 25.0 * MIB), wire_bytes: 4.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_published_totals_come_to_the_same_speed() {
        let found: Vec<f64> = published().iter().filter_map(Published::flops).collect();
        assert_eq!(found.len(), 2);
        assert!((found[0] / found[1] - 1.0).abs() < 0.01, "{found:?}");
        assert!((6e12..7e12).contains(&published_flops()), "{found:?}");
    }

    #[test]
    fn published_speedups_fit_the_published_hours() {
        for figure in published() {
            assert_eq!(figure.batches.len(), figure.speedups.len());
            if let Some(total) = figure.total {
                // Hours and minutes are rounded in the text.
                assert!((total.one / total.sixteen / figure.speedups[0] - 1.0).abs() < 0.05, "{figure:?}");
            }
        }
    }
}
