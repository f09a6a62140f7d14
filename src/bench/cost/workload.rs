//! What a step computes, and how long a device takes for it.

use harvest_models::vit::VitConfig;
use serde::Serialize;

use super::{Stage, StepProfile};

const BYTES: f64 = 4.0;
/// Bytes that the last buckets may have.
const LAST: f64 = (4 << 20) as f64;

/// One step of FreeMatch with a vision transformer, as the trainer does it.
#[derive(Debug, Clone, PartialEq)]
pub struct Workload {
    /// The network.
    pub model: VitConfig,
    /// Unlabelled images per labelled one.
    pub uratio: f64,
    /// Share of strong views that go through the network.
    pub strong_computed: f64,
    /// Bytes of the first bucket and of all others at most. Towards the end no bucket takes more than half of what is left,
    /// down to 4 MiB, as in training.
    pub buckets: (f64, f64),
    /// Bytes of a number on its way.
    pub wire_bytes: f64,
}

/// A device, as far as the time of a step depends on it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Device {
    /// For people.
    pub name: String,
    /// Multiplications and additions a second that a step really gets.
    pub flops: f64,
    /// Bytes a second from and to its memory.
    pub memory: f64,
    /// Seconds of a step that do not depend on the number of images.
    pub fixed: f64,
    /// Standard deviation of a step's time, as a share of it.
    pub jitter: f64,
}

/// A part of the network, in the order of the forward pass.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Layer {
    parameters: f64,
    /// Of one image's forward pass; a multiplication with an addition counts as two.
    flops: f64,
}

impl Workload {
    /// Numbers of the network.
    pub fn parameters(&self) -> f64 {
        self.layers().iter().map(|layer| layer.parameters).sum()
    }

    /// Of one image's forward pass. The backward pass takes twice that.
    pub fn forward_flops(&self) -> f64 {
        self.layers().iter().map(|layer| layer.flops).sum()
    }

    /// Images that go forward without gradients (weak views), and forward and back (labelled and strong views).
    pub fn passes(&self, batch: f64) -> (f64, f64) {
        (batch * self.uratio, batch * (1.0 + self.uratio * self.strong_computed))
    }

    /// Multiplications and additions of a step.
    pub fn flops(&self, batch: f64) -> f64 {
        let (forward, both) = self.passes(batch);
        (forward + 3.0 * both) * self.forward_flops()
    }

    /// The step of `batch` labelled images on a device.
    pub fn on(&self, device: &Device, batch: f64) -> StepProfile {
        let (forward, both) = self.passes(batch);
        let seconds = |flops: f64| flops / device.flops;
        let layers = self.layers();
        let (first, others) = self.buckets;
        let mut plan = Buckets { first, others, left: self.parameters() * BYTES, waiting: 0.0, begun: false };
        let last = layers.len() - 1;
        let backward = layers.iter().rev().enumerate().map(|(i, layer)| Stage {
            seconds: seconds(2.0 * both * layer.flops),
            buckets: plan.complete(layer.parameters * BYTES, i == last, self.wire_bytes / BYTES),
        });
        let classes = self.model.classes as f64;
        StepProfile {
            backward: backward.collect(),
            // Nothing hides behind what is fixed.
            forward: seconds((forward + both) * self.forward_flops()) + device.fixed,
            // AdamW reads weight, gradient and both moments, and writes all but the gradient.
            optimizer: 7.0 * BYTES * self.parameters() / device.memory,
            // Probabilities of the weak views, and the class shares that the fairness term compares.
            gathers: vec![forward * classes * BYTES, classes * BYTES],
            jitter: device.jitter,
            interference: 0.0,
        }
    }

    fn layers(&self) -> Vec<Layer> {
        let m = &self.model;
        let (dim, hidden) = (m.dim as f64, m.dim as f64 * m.mlp_ratio);
        let patches = ((m.image_size / m.patch) as f64).powi(2);
        let tokens = patches + 1.0 + m.registers as f64;
        let pixels = 3.0 * (m.patch as f64).powi(2);
        let classes = m.classes as f64;
        let positions = if m.class_position { tokens } else { patches };
        let scales = if m.layer_scale.is_some() { 2.0 * dim } else { 0.0 };
        let embedding = Layer {
            // The patches' projection, the positions, the class token and the registers.
            parameters: (pixels + 1.0) * dim + positions * dim + (tokens - patches) * dim,
            flops: m.embedding_flops(),
        };
        let block = Layer {
            // Queries, keys, values and their projection; both layers of the perceptron; two norms.
            parameters: 4.0 * dim * (dim + 1.0) + 2.0 * dim * hidden + hidden + dim + 4.0 * dim + scales,
            flops: m.block_flops(),
        };
        let head = Layer {
            // With the norm before it.
            parameters: 2.0 * dim + (dim + 1.0) * classes,
            flops: m.head_flops(),
        };
        std::iter::once(embedding).chain(std::iter::repeat_n(block, m.depth)).chain([head]).collect()
    }
}

/// Fills buckets in the order in which gradients come.
struct Buckets {
    first: f64,
    others: f64,
    /// Bytes that are in no complete bucket.
    left: f64,
    /// Those of them whose gradients have come.
    waiting: f64,
    begun: bool,
}

impl Buckets {
    /// The buckets that are complete with `bytes` more of gradients, each times `scale`.
    fn complete(&mut self, bytes: f64, is_last: bool, scale: f64) -> Vec<f64> {
        self.waiting += bytes;
        let mut complete = Vec::new();
        loop {
            let room = if self.begun { self.others.min(LAST.max(self.left / 2.0)) } else { self.first };
            let size = match is_last {
                true if self.waiting <= 0.0 => break,
                true => room.min(self.waiting),
                false if self.waiting < room => break,
                false => room,
            };
            self.begun = true;
            self.waiting -= size;
            self.left -= size;
            complete.push(size * scale);
        }
        complete
    }
}

#[cfg(test)]
mod tests {
    use burn::module::Module;
    use harvest_models::ClassifierConfig;
    use proptest::prelude::*;

    use super::*;

    fn workload(preset: &str) -> Workload {
        let ClassifierConfig::Vit(model) = ClassifierConfig::preset(preset, 10).expect("a preset") else {
            panic!("{preset} is a transformer")
        };
        Workload { model, uratio: 1.0, strong_computed: 1.0, buckets: (1e6, 25e6), wire_bytes: 4.0 }
    }

    #[test]
    fn parameters_are_those_of_the_network() {
        for preset in ["vit_tiny_patch2_32", "vit_small_patch14_reg4_dinov2"] {
            let model = ClassifierConfig::preset(preset, 10).expect("a preset");
            let network = model.blank(&burn::tensor::Device::flex()).expect("a valid shape");
            assert_eq!(workload(preset).parameters() as usize, network.num_params(), "{preset}");
        }
    }

    proptest! {
        #[test]
        fn every_byte_and_every_operation_is_somewhere(
            batch in 1u32..128, uratio in 1u32..8, strong in 0.0..1.0f64, first in 1e4..1e7f64, others in 1e6..1e8f64,
        ) {
            let workload = Workload {
                uratio: f64::from(uratio), strong_computed: strong, buckets: (first, others), wire_bytes: 2.0,
                ..workload("vit_tiny_patch2_32")
            };
            let device = Device { name: String::new(), flops: 1e12, memory: 1e12, fixed: 0.01, jitter: 0.0 };
            let step = workload.on(&device, f64::from(batch));
            let sent: f64 = step.backward.iter().flat_map(|stage| &stage.buckets).sum();
            prop_assert!((sent / (2.0 * workload.parameters()) - 1.0).abs() < 1e-9);
            let computing = step.computing() - step.optimizer - 0.01;
            prop_assert!((computing * 1e12 / workload.flops(f64::from(batch)) - 1.0).abs() < 1e-9);
        }
    }
}
