//! Starting values of parameters, a pure function of a seed and the parameter's name.
//!
//! Each tensor has a stream of its own (SplitMix64, Steele et al., OOPSLA 2014), so its values depend neither on the
//! order in which a network is built nor on burn's process-wide generator.

use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorData};

/// The output function of SplitMix64: a bijection that mixes all bits.
pub(crate) fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The upper 53 bits as a number in `[0, 1)`.
pub(crate) fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
}

/// How a tensor starts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Start {
    /// All the same.
    Constant(f32),
    /// Normal with mean 0 and this standard deviation.
    Normal(f64),
    /// Uniform in `[-bound, bound)`.
    Uniform(f64),
}

impl Start {
    /// He et al., arXiv:1502.01852, equation 10, backward case, as torchvision starts the convolutions of ResNet:
    /// normal with standard deviation `√(2 / (out · kh · kw))`.
    pub fn kaiming_fan_out(shape: [usize; 4]) -> Self {
        Start::Normal((2.0 / (shape[0] * shape[2] * shape[3]) as f64).sqrt())
    }

    /// What PyTorch's layers start with when nobody chooses: uniform within `1 / √fan_in`, weights and biases alike.
    pub fn torch_default(fan_in: usize) -> Self {
        Start::Uniform(1.0 / (fan_in.max(1) as f64).sqrt())
    }
}

/// Makes parameters on a device.
#[derive(Debug, Clone)]
pub struct Initialiser {
    seed: Option<u64>,
    device: Device,
    prefix: String,
}

impl Initialiser {
    /// Random values from `seed`; parameters are tracked when `device` is an autodiff device.
    pub fn seeded(seed: u64, device: &Device) -> Self {
        Initialiser { seed: Some(seed), device: device.clone(), prefix: String::new() }
    }

    /// Zeros wherever there would be random values: for networks whose weights are loaded next.
    pub fn blank(device: &Device) -> Self {
        Initialiser { seed: None, device: device.clone(), prefix: String::new() }
    }

    /// The initialiser of the part called `name`.
    pub fn part(&self, name: impl std::fmt::Display) -> Self {
        let prefix = format!("{}{name}.", self.prefix);
        Initialiser { prefix, ..self.clone() }
    }

    /// Where the parameters are made.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The parameter called `name`, started as told.
    pub fn parameter<const D: usize>(&self, name: &str, shape: [usize; D], start: Start) -> Param<Tensor<D>> {
        let count = shape.iter().product();
        let values = match (start, self.seed) {
            (Start::Constant(value), _) => vec![value; count],
            (_, None) => vec![0.0; count],
            (start, Some(seed)) => random(seed, &format!("{}{name}", self.prefix), count, start),
        };
        Param::from_data(TensorData::new(values, shape), &self.device)
    }
}

fn random(seed: u64, name: &str, count: usize, start: Start) -> Vec<f32> {
    // FNV-1a, 64 bits.
    let key =
        name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    let mut state = mix(seed) ^ key;
    let mut next = || {
        let bits = mix(state);
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        unit(bits)
    };
    let mut values = Vec::with_capacity(count + 1);
    while values.len() < count {
        match start {
            Start::Constant(value) => values.push(value),
            Start::Uniform(bound) => values.push(((2.0 * next() - 1.0) * bound) as f32),
            Start::Normal(deviation) => {
                // Box & Muller, 1958; 1 − u keeps the logarithm finite.
                let radius = deviation * (-2.0 * (1.0 - next()).ln()).sqrt();
                let (sin, cos) = (std::f64::consts::TAU * next()).sin_cos();
                values.push((radius * cos) as f32);
                values.push((radius * sin) as f32);
            }
        }
    }
    values.truncate(count);
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_values_have_the_deviation_asked_for() {
        let v = random(1, "w", 40_001, Start::Normal(0.02));
        assert_eq!(v.len(), 40_001);
        let n = v.len() as f64;
        let mean = v.iter().map(|x| f64::from(*x)).sum::<f64>() / n;
        let deviation = (v.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / n).sqrt();
        assert!(mean.abs() < 5e-4, "{mean}"); // standard error 1e-4
        assert!((deviation / 0.02 - 1.0).abs() < 0.02, "{deviation}");
    }

    #[test]
    fn values_depend_on_seed_and_name_only() {
        let draw = |seed, name| random(seed, name, 8, Start::Uniform(1.0));
        assert_eq!(draw(1, "a"), draw(1, "a"));
        assert_ne!(draw(1, "a"), draw(2, "a"));
        assert_ne!(draw(1, "a"), draw(1, "b"));
    }
}
