//! Convolution, batch normalisation and a whole small ResNet: this crate's operations beside burn's own.
//!
//! `cargo bench -p harvest-kernels --bench conv [-- FILTER]` prints the median and, in brackets, the least and the
//! greatest of a few runs in milliseconds, forward and backward, for the layers of a ResNet with 16, 32 and 64 channels on
//! 160 images of 28 pixels. The last lines are one FreeMatch step: 128 images forward only, 160 forward and backward.

use std::time::Instant;

use burn::Tensor;
use burn::tensor::{Device, Distribution};
use harvest_kernels::{batch_norm_train, batch_norm_train_reference, conv2d, conv2d_reference};

const RUNS: usize = 7;

type Conv = fn(Tensor<4>, Tensor<4>, Option<Tensor<1>>, usize, usize) -> Tensor<4>;
type Norm =
    fn(Tensor<4>, Tensor<1>, Tensor<1>, f32, Option<Tensor<4>>, bool) -> (Tensor<4>, Tensor<1>, Tensor<1>);

/// Median, least and greatest of some times.
fn spread(mut times: Vec<f64>) -> String {
    times.sort_by(f64::total_cmp);
    let (least, greatest) = (times[0], times[times.len() - 1]);
    format!("{:8.2} [{least:7.2} {greatest:7.2}]", times[times.len() / 2])
}

/// Times of `forward` and of the backward pass of the sum of its result.
fn measure(forward: impl Fn() -> Tensor<4>, slope: &Tensor<4>) -> [Vec<f64>; 2] {
    let mut times = [vec![], vec![]];
    for run in 0..RUNS + 1 {
        let start = Instant::now();
        let y = forward();
        let middle = Instant::now();
        let sum = (y * slope.clone()).sum();
        let back = Instant::now();
        std::hint::black_box(sum.backward());
        if run > 0 {
            times[0].push((middle - start).as_secs_f64() * 1e3);
            times[1].push(back.elapsed().as_secs_f64() * 1e3);
        }
    }
    times
}

fn print(name: &str, which: &str, [forward, backward]: [Vec<f64>; 2]) {
    println!("{name:28} {which:9} forward {}  backward {}", spread(forward), spread(backward));
}

fn normal<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::random(shape, Distribution::Normal(0.0, 0.1), device)
}

fn layers(device: &Device, filter: &str) {
    let shapes = [
        (3, 16, 28, 3, 1, 1),
        (16, 16, 28, 3, 1, 1),
        (16, 32, 28, 3, 2, 1),
        (16, 32, 28, 1, 2, 0),
        (32, 32, 14, 3, 1, 1),
        (32, 64, 14, 3, 2, 1),
        (32, 64, 14, 1, 2, 0),
        (64, 64, 7, 3, 1, 1),
    ];
    for (inputs, outputs, size, kernel, stride, padding) in shapes {
        let name = format!("conv {inputs}→{outputs} {kernel}×{kernel}/{stride} at {size}");
        if !name.contains(filter) {
            continue;
        }
        let mut x = normal([160, inputs, size, size], device);
        if inputs > 3 {
            x = x.require_grad();
        }
        let weight = normal([outputs, inputs, kernel, kernel], device).require_grad();
        let out = (size + 2 * padding - kernel) / stride + 1;
        let slope = normal([160, outputs, out, out], device);
        for (which, conv) in [("burn", conv2d_reference as Conv), ("harvest", conv2d)] {
            let forward = || conv(x.clone(), weight.clone(), None, stride, padding);
            print(&name, which, measure(forward, &slope));
        }
    }
    for (channels, size, residual) in [(16, 28, false), (16, 28, true), (32, 14, true), (64, 7, true)] {
        let name = format!("norm {channels} at {size}{}", if residual { " + residual" } else { "" });
        if !name.contains(filter) {
            continue;
        }
        let [x, add] = [(); 2].map(|()| normal([160, channels, size, size], device).require_grad());
        let [gamma, beta] = [(); 2].map(|()| normal([channels], device).require_grad());
        let slope = normal([160, channels, size, size], device);
        for (which, norm) in [("burn", batch_norm_train_reference as Norm), ("harvest", batch_norm_train)] {
            let forward = || {
                let add = residual.then(|| add.clone());
                norm(x.clone(), gamma.clone(), beta.clone(), 1e-5, add, true).0
            };
            print(&name, which, measure(forward, &slope));
        }
    }
}

/// A convolution and the norm after it.
#[derive(Clone)]
struct Layer {
    weight: Tensor<4>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    stride: usize,
}

impl Layer {
    fn new(inputs: usize, outputs: usize, kernel: usize, stride: usize, device: &Device) -> Self {
        Self {
            weight: normal([outputs, inputs, kernel, kernel], device).require_grad(),
            gamma: Tensor::ones([outputs], device).require_grad(),
            beta: Tensor::zeros([outputs], device).require_grad(),
            stride,
        }
    }

    fn inner(self) -> Self {
        let Self { weight, gamma, beta, stride } = self;
        Self { weight: weight.inner(), gamma: gamma.inner(), beta: beta.inner(), stride }
    }

    fn forward(
        &self,
        (conv, norm): (Conv, Norm),
        x: Tensor<4>,
        add: Option<Tensor<4>>,
        rectify: bool,
    ) -> Tensor<4> {
        let [_, _, kernel, _] = self.weight.dims();
        let y = conv(x, self.weight.clone(), None, self.stride, kernel / 2);
        norm(y, self.gamma.clone(), self.beta.clone(), 1e-5, add, rectify).0
    }
}

/// Stem, then a basic block for each of 16, 32 and 64 channels.
#[derive(Clone)]
struct Net {
    stem: Layer,
    blocks: Vec<(Layer, Layer, Option<Layer>)>,
}

impl Net {
    fn new(device: &Device) -> Self {
        let block = |inputs: usize, outputs: usize| {
            let stride = if inputs == outputs { 1 } else { 2 };
            let short = (stride == 2).then(|| Layer::new(inputs, outputs, 1, stride, device));
            (
                Layer::new(inputs, outputs, 3, stride, device),
                Layer::new(outputs, outputs, 3, 1, device),
                short,
            )
        };
        Self {
            stem: Layer::new(3, 16, 3, 1, device),
            blocks: vec![block(16, 16), block(16, 32), block(32, 64)],
        }
    }

    fn inner(self) -> Self {
        let blocks =
            self.blocks.into_iter().map(|(a, b, short)| (a.inner(), b.inner(), short.map(Layer::inner)));
        Self { stem: self.stem.inner(), blocks: blocks.collect() }
    }

    fn forward(&self, ops: (Conv, Norm), x: Tensor<4>) -> Tensor<4> {
        let stem = self.stem.forward(ops, x, None, true);
        self.blocks.iter().fold(stem, |x, (first, second, short)| {
            let add = match short {
                Some(short) => short.forward(ops, x.clone(), None, false),
                None => x.clone(),
            };
            let y = first.forward(ops, x, None, true);
            second.forward(ops, y, Some(add), true)
        })
    }
}

fn step(device: &Device) {
    let net = Net::new(device);
    let frozen = net.clone().inner();
    let images = normal([160, 3, 28, 28], device);
    let weak = normal([128, 3, 28, 28], device).inner();
    let slope = normal([160, 64, 7, 7], device);
    for (which, ops) in [
        ("burn", (conv2d_reference as Conv, batch_norm_train_reference as Norm)),
        ("harvest", (conv2d as Conv, batch_norm_train as Norm)),
    ] {
        let mut times = vec![];
        for run in 0..RUNS + 1 {
            let start = Instant::now();
            std::hint::black_box(frozen.forward(ops, weak.clone()));
            if run > 0 {
                times.push(start.elapsed().as_secs_f64() * 1e3);
            }
        }
        println!("{:28} {which:9} forward {}", "net, 128 images, no graph", spread(times.clone()));
        let [forward, backward] = measure(|| net.forward(ops, images.clone()), &slope);
        let whole = times.iter().zip(forward.iter().zip(&backward)).map(|(a, (b, c))| a + b + c).collect();
        print("net, 160 images", which, [forward, backward]);
        println!("{:28} {which:9} step    {}", "net, 128 and 160 images", spread(whole));
    }
}

fn main() {
    let filter = std::env::args().skip(1).find(|arg| !arg.starts_with('-')).unwrap_or_default();
    let device = Device::flex().autodiff();
    println!("{} threads, ms: median [least, greatest] of {RUNS}", rayon::current_num_threads());
    layers(&device, &filter);
    if "net".contains(&filter) {
        step(&device);
    }
}
