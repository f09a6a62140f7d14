//! Times the transformer's operations, fused and in burn's operations, at the shapes of ViT-Tiny on 32 × 32 images, and
//! a whole training step of its twelve blocks.
//!
//! `cargo bench -p harvest-kernels --bench transformer [OPERATION] [SECONDS]`; prints the least, the median and the
//! 90th percentile of the times in microseconds.

mod timing;

use burn::tensor::{Device, Tensor};

use harvest_kernels::{
    AdamW, Parameter, Products, UpdateRule, attention, attention_reference, attention_with, clip_factor,
    gelu, gelu_reference, gradient_norm, gradient_norm_reference, has_bf16_products, layer_norm,
    layer_norm_reference, linear, linear_gelu, linear_reference, linear_with, pre_norm_residual,
    pre_norm_residual_reference, residual_reference, update_parameters, update_parameters_reference,
};
use timing::{random, report, timed};

/// Images of a step that need gradients (8 labelled, 8 strong views), and those that need none (8 weak views).
const TRACKED: usize = 16;
const PLAIN: usize = 8;
const TOKENS: usize = 257;
const DIM: usize = 192;
const HEADS: usize = 3;
const DEPTH: usize = 12;
const EPS: f32 = 1e-6;

/// Forward without a graph, forward with one, backward.
fn operation(name: &str, seconds: f64, width: usize, run: impl Fn(Tensor<3>, &Device) -> Tensor<3>) {
    let plain = Device::flex();
    let device = plain.clone().autodiff();
    let input = random([TRACKED, TOKENS, width], 1.7, &plain);
    report(name, ["inference", "forward", "backward"], seconds, || {
        let (inference, _) = timed(|| run(input.clone(), &plain));
        let x = Tensor::from_inner(input.clone()).require_grad();
        let (forward, y) = timed(|| run(x, &device));
        // The sum's own backward pass costs an `expand`; its gradient is laid out before the operation's is computed.
        let loss = (y * 1.0).sum();
        let (backward, _) = timed(|| loss.backward());
        [inference, forward, backward]
    });
}

/// A block's parameters.
struct Block {
    vectors: Vec<Tensor<1>>,
    matrices: Vec<Tensor<2>>,
}

impl Block {
    fn new(device: &Device) -> Self {
        let vector = |width| random([width], 0.02, device).require_grad();
        let matrix = |from, to| random([from, to], 0.05, device).require_grad();
        Self {
            vectors: [DIM, DIM, 3 * DIM, DIM, DIM, DIM, 4 * DIM, DIM].map(vector).into(),
            matrices: vec![
                matrix(DIM, 3 * DIM),
                matrix(DIM, DIM),
                matrix(DIM, 4 * DIM),
                matrix(4 * DIM, DIM),
            ],
        }
    }

    fn inner(&self) -> Self {
        Self {
            vectors: self.vectors.iter().map(|t| t.clone().inner()).collect(),
            matrices: self.matrices.iter().map(|t| t.clone().inner()).collect(),
        }
    }

    fn forward(&self, x: Tensor<3>, fused: bool) -> Tensor<3> {
        // Stochastic depth: a factor for each image, as in training.
        let keep = Some(Tensor::ones([x.dims()[0]], &x.device().inner()));
        let (v, m) = (|i: usize| self.vectors[i].clone(), |i: usize| self.matrices[i].clone());
        if fused {
            let x = pre_norm_residual(x, [v(0), v(1)], EPS, keep.clone(), |y| {
                linear(attention(linear(y, m(0), Some(v(2))), HEADS), m(1), Some(v(3)))
            });
            pre_norm_residual(x, [v(4), v(5)], EPS, keep, |y| {
                linear(linear_gelu(y, m(2), v(6), Products::F32), m(3), Some(v(7)))
            })
        } else {
            let y = layer_norm_reference(x.clone(), v(0), v(1), EPS);
            let y = attention_reference(linear_reference(y, m(0), Some(v(2))), HEADS);
            let x = residual_reference(x, linear_reference(y, m(1), Some(v(3))), keep.clone());
            let y = layer_norm_reference(x.clone(), v(4), v(5), EPS);
            let y = gelu_reference(linear_reference(y, m(2), Some(v(6))));
            residual_reference(x, linear_reference(y, m(3), Some(v(7))), keep)
        }
    }
}

/// Weak views, forward with graph, backward, of all blocks.
fn step(name: &str, seconds: f64, fused: bool) {
    let plain = Device::flex();
    let blocks: Vec<Block> = (0..DEPTH).map(|_| Block::new(&plain.clone().autodiff())).collect();
    let frozen: Vec<Block> = blocks.iter().map(Block::inner).collect();
    let weak = random([PLAIN, TOKENS, DIM], 1.7, &plain);
    let images = random([TRACKED, TOKENS, DIM], 1.7, &plain);
    report(name, ["weak", "forward", "backward", "total"], seconds, || {
        let (a, _) = timed(|| frozen.iter().fold(weak.clone(), |x, block| block.forward(x, fused)));
        let (b, y) = timed(|| {
            let x = Tensor::from_inner(images.clone()).require_grad();
            blocks.iter().fold(x, |x, block| block.forward(x, fused))
        });
        let (c, _) = timed(|| y.sum().backward());
        [a, b, c, a + b + c]
    });
}

/// How parameters are handed over for their update.
#[derive(Clone, Copy)]
enum Handed {
    Together,
    /// Each alone, then all averages in a pass of their own.
    OneByOne,
    ToReference,
}

/// A parameter's update alone, and its average's afterwards.
fn apart(mut parameter: Parameter, clip: Option<&Tensor<1>>, decay: f64) -> Parameter {
    let average = parameter.average.take();
    let mut updated = update_parameters(vec![parameter], clip, decay).remove(0);
    updated.average =
        average.map(|average| average.mul_scalar(decay) + updated.weight.clone().mul_scalar(1.0 - decay));
    updated
}

/// Updates as many parameters as the blocks have, in as many tensors, and their averages if `averaged`; before that their
/// gradients' norm is computed if `clipped`.
fn optimizer(name: &str, seconds: f64, handed: Handed, averaged: bool, clipped: bool) {
    let device = Device::flex();
    let rule = AdamW { lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.05, step: 3 };
    let sizes = [
        DIM * 3 * DIM,
        DIM * DIM,
        DIM * 4 * DIM,
        4 * DIM * DIM,
        3 * DIM,
        4 * DIM,
        DIM,
        DIM,
        DIM,
        DIM,
        DIM,
        DIM,
    ];
    let new = |size| {
        let tensor = || random([size], 0.01, &device).abs();
        let rule = UpdateRule::AdamW(rule, [tensor(), tensor()]);
        Parameter { weight: tensor(), gradient: tensor(), rule, average: averaged.then(tensor) }
    };
    let mut all: Vec<Parameter> = (0..DEPTH).flat_map(|_| sizes.map(new)).collect();
    report(name, ["step"], seconds, || {
        let parameters = std::mem::take(&mut all);
        let (time, new) = timed(|| {
            let gradients = parameters.iter().map(|parameter| parameter.gradient.clone());
            let clip = clipped.then(|| gradients.collect::<Vec<_>>()).map(|gradients| {
                let norm = match handed {
                    Handed::ToReference => gradient_norm_reference(&gradients),
                    _ => gradient_norm(&gradients),
                };
                clip_factor(norm, 1.0)
            });
            let clip = clip.as_ref();
            match handed {
                Handed::Together => update_parameters(parameters, clip, 0.999),
                Handed::OneByOne => {
                    parameters.into_iter().map(|parameter| apart(parameter, clip, 0.999)).collect()
                }
                Handed::ToReference => update_parameters_reference(parameters, clip, 0.999),
            }
        });
        all = new;
        [time]
    });
}

fn main() {
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let wanted = |name: &str| arguments.first().is_none_or(|filter| name.contains(filter.as_str()));
    let seconds = arguments.get(1).and_then(|seconds| seconds.parse().ok()).unwrap_or(1.0);
    println!("{} threads", rayon::current_num_threads());
    if !has_bf16_products() {
        println!("no AVX-512 BF16 here: the rows named bf16 are f32");
    }

    let matrix =
        |from, to, device: &Device| random([from, to], 0.05, device).set_require_grad(device.is_autodiff());
    let vector =
        |width, device: &Device| random([width], 0.05, device).set_require_grad(device.is_autodiff());
    if wanted("layer_norm") {
        operation("layer_norm", seconds, DIM, |x, d| layer_norm(x, vector(DIM, d), vector(DIM, d), EPS));
        operation("layer_norm reference", seconds, DIM, |x, d| {
            layer_norm_reference(x, vector(DIM, d), vector(DIM, d), EPS)
        });
    }
    if wanted("pre_norm_residual") {
        // Every fourth image dropped.
        let keep = |x: &Tensor<3>| {
            let factors: Vec<f32> =
                (0..x.dims()[0]).map(|image| if image % 4 == 3 { 0.0 } else { 4.0 / 3.0 }).collect();
            Some(Tensor::from_data(factors.as_slice(), &x.device().inner()))
        };
        let norm = |d: &Device| [vector(DIM, d), vector(DIM, d)];
        operation("pre_norm_residual twice", seconds, DIM, |x, d| {
            let keep = keep(&x);
            // Two, as gradients meet in the second one's way only: the first one's `x` is a leaf.
            let x = pre_norm_residual(x, norm(d), EPS, keep.clone(), |y| y);
            pre_norm_residual(x, norm(d), EPS, keep, |y| y)
        });
        operation("pre_norm_residual twice, reference", seconds, DIM, |x, d| {
            let keep = keep(&x);
            let x = pre_norm_residual_reference(x, norm(d), EPS, keep.clone(), |y| y);
            pre_norm_residual_reference(x, norm(d), EPS, keep, |y| y)
        });
    }
    if wanted("gelu") {
        operation("gelu", seconds, 4 * DIM, |x, _| gelu(x));
        operation("gelu reference", seconds, 4 * DIM, |x, _| gelu_reference(x));
    }
    for (from, to) in [(DIM, 3 * DIM), (DIM, DIM), (DIM, 4 * DIM), (4 * DIM, DIM)] {
        if wanted("linear") {
            let name = format!("linear {from} to {to}");
            operation(&name, seconds, from, |x, d| linear(x, matrix(from, to, d), Some(vector(to, d))));
            operation(&format!("{name} bf16"), seconds, from, |x, d| {
                linear_with(x, matrix(from, to, d), Some(vector(to, d)), Products::Bf16)
            });
            operation(&format!("{name} reference"), seconds, from, |x, d| {
                linear_reference(x, matrix(from, to, d), Some(vector(to, d)))
            });
        }
    }
    if wanted("attention") {
        operation("attention", seconds, 3 * DIM, |x, _| attention(x, HEADS));
        operation("attention bf16", seconds, 3 * DIM, |x, _| attention_with(x, HEADS, Products::Bf16));
        operation("attention reference", seconds, 3 * DIM, |x, _| attention_reference(x, HEADS));
    }
    if wanted("adamw") {
        for (suffix, averaged, clipped) in
            [("", false, false), (" and average", true, false), (" and average, clipped", true, true)]
        {
            for (how, handed) in [
                ("together", Handed::Together),
                ("one by one", Handed::OneByOne),
                ("reference", Handed::ToReference),
            ] {
                optimizer(&format!("adamw {how}{suffix}"), seconds, handed, averaged, clipped);
            }
        }
    }
    if wanted("fused step") {
        step("fused step of 12 blocks", seconds * 5.0, true);
    }
    if wanted("reference step") {
        step("reference step of 12 blocks", seconds * 5.0, false);
    }
}
