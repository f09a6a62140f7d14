//! One training step, forward and backward, of networks by name.
//!
//! `cargo bench -p harvest-models --bench step -- [NAME [BATCH]]` prints the median and, in brackets, the least and the
//! greatest wall time of a few steps in milliseconds, on the CPU.

use std::time::Instant;

use burn::tensor::{Device, Distribution, Tensor};
use harvest_models::{ClassifierConfig, Mode};

const STEPS: usize = 7;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let names = match arguments.first() {
        Some(name) => vec![name.as_str()],
        None => {
            vec!["efficientnet_lite0", "mobilenetv2_100", "convnext_tiny", "vit_small_patch14_reg4_dinov2"]
        }
    };
    let batch = arguments.get(1).and_then(|text| text.parse().ok()).unwrap_or(8);
    let device = Device::flex().autodiff();
    for name in names {
        let config = ClassifierConfig::preset(name, 10).expect("the name of a preset");
        let net = config.init(1, &device).expect("presets are valid");
        let side = config.image_size();
        let images = Tensor::random([batch, 3, side, side], Distribution::Normal(0.0, 1.0), &device);
        let step = |seed| {
            let start = Instant::now();
            let loss = net.forward(images.clone(), Mode::train(seed)).logits.square().mean();
            std::hint::black_box(loss.backward());
            start.elapsed().as_secs_f64() * 1e3
        };
        step(0);
        let mut times: Vec<f64> = (1..=STEPS as u64).map(step).collect();
        times.sort_by(f64::total_cmp);
        let (least, greatest) = (times[0], times[STEPS - 1]);
        println!("{name} batch {batch}: {:.0} [{least:.0} {greatest:.0}] ms", times[STEPS / 2]);
    }
}
