//! Operators against the plain definition of each, on random shapes and numbers.

mod support;

use harvest_edge::Tensor;
use proptest::prelude::*;
use support::{FLOAT, Model, Noise, int, ints};

/// Largest difference relative to the size of the numbers.
fn apart(found: &[f32], wanted: &[f64]) -> f64 {
    assert_eq!(found.len(), wanted.len());
    let size = wanted.iter().fold(1.0f64, |size, x| size.max(x.abs()));
    found
        .iter()
        .zip(wanted)
        .map(|(&found, wanted)| (f64::from(found) - wanted).abs() / size)
        .fold(0.0, f64::max)
}

/// A convolution as its definition says, one number after the other.
#[derive(Debug, Clone)]
struct Case {
    batch: usize,
    groups: usize,
    inputs: usize,
    outputs: usize,
    picture: [usize; 2],
    window: [usize; 2],
    stride: [usize; 2],
    pads: [usize; 4],
}

impl Case {
    fn places(&self) -> [usize; 2] {
        [0, 1].map(|i| {
            (self.picture[i] + self.pads[i] + self.pads[i + 2] - self.window[i]) / self.stride[i] + 1
        })
    }

    /// Calls `visit` with (output place, picture place, weight place) for every product.
    fn each(&self, mut visit: impl FnMut(usize, usize, usize)) {
        let [rows, columns] = self.places();
        let (all_out, all_in) = (self.groups * self.outputs, self.groups * self.inputs);
        for n in 0..self.batch {
            for o in 0..all_out {
                for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))) {
                    for i in 0..self.inputs {
                        for (dy, dx) in
                            (0..self.window[0]).flat_map(|y| (0..self.window[1]).map(move |x| (y, x)))
                        {
                            let y = (row * self.stride[0] + dy).wrapping_sub(self.pads[0]);
                            let x = (column * self.stride[1] + dx).wrapping_sub(self.pads[1]);
                            if y < self.picture[0] && x < self.picture[1] {
                                let channel = o / self.outputs * self.inputs + i;
                                visit(
                                    ((n * all_out + o) * rows + row) * columns + column,
                                    ((n * all_in + channel) * self.picture[0] + y) * self.picture[1] + x,
                                    ((o * self.inputs + i) * self.window[0] + dy) * self.window[1] + dx,
                                );
                            }
                        }
                    }
                }
            }
        }
    }

    fn attributes(&self) -> Vec<harvest_onnx::AttributeProto> {
        let numbers = |values: &[usize]| values.iter().map(|&value| value as i64).collect::<Vec<_>>();
        vec![
            ints("strides", &numbers(&self.stride)),
            ints("pads", &numbers(&self.pads)),
            ints("kernel_shape", &numbers(&self.window)),
        ]
    }
}

fn case() -> impl Strategy<Value = Case> {
    let channels = prop_oneof![Just((1usize, 1usize)), (1usize..4, 1usize..4)];
    (1usize..3, 1usize..4, channels, [1usize..10, 1usize..10], [1usize..6, 1usize..6], [1usize..4, 1usize..4])
        .prop_flat_map(|(batch, groups, (inputs, outputs), picture, window, stride)| {
            let pads = [0..window[0], 0..window[1], 0..window[0], 0..window[1]];
            pads.prop_map(move |pads| Case { batch, groups, inputs, outputs, picture, window, stride, pads })
        })
        .prop_filter("the window fits", |case| {
            (0..2).all(|i| case.picture[i] + case.pads[i] + case.pads[i + 2] >= case.window[i])
        })
}

proptest! {
    #[test]
    fn convolution_with_what_is_merged_into_it(case in case(), seed: u64, normalised: bool, limited: bool, offset: bool) {
        let mut noise = Noise(seed);
        let channels = case.groups * case.outputs;
        let x_shape = [case.batch, case.groups * case.inputs, case.picture[0], case.picture[1]];
        let w_shape = [channels, case.inputs, case.window[0], case.window[1]];
        let (x, w, b) = (noise.tensor(&x_shape), noise.floats(&w_shape), noise.floats(&[channels]));
        let [scale, shift, mean] = std::array::from_fn(|_| noise.floats(&[channels]));
        let variance: Vec<f32> = noise.floats(&[channels]).iter().map(|v| v.abs() + 0.5).collect();
        let mut attributes = case.attributes();
        attributes.push(int("group", case.groups as i64));
        let mut model = Model::new(FLOAT, &[0, 0, 0, 0]).floats("w", &w_shape, &w).floats("b", &[channels], &b);
        for (name, values) in [("scale", &scale), ("shift", &shift), ("mean", &mean), ("variance", &variance)] {
            model = model.floats(name, &[channels], values);
        }
        model = model.node("Conv", if offset { "x w b" } else { "x w" }, "c", attributes);
        model = match normalised {
            true => model.node("BatchNormalization", "c scale shift mean variance", "n", vec![]),
            false => model.node("Identity", "c", "n", vec![]),
        };
        model = if limited { model.node("Relu", "n", "y", vec![]) } else { model.node("Identity", "n", "y", vec![]) };
        let [rows, columns] = case.places();
        let plane = rows * columns;
        let mut wanted = vec![0.0f64; case.batch * channels * plane];
        let values = x.floats().expect("numbers").to_vec();
        case.each(|out, x, weight| wanted[out] += f64::from(values[x]) * f64::from(w[weight]));
        for (index, value) in wanted.iter_mut().enumerate() {
            let channel = index / plane % channels;
            if offset {
                *value += f64::from(b[channel]);
            }
            if normalised {
                let deviation = (f64::from(variance[channel]) + 1e-5).sqrt();
                *value = (*value - f64::from(mean[channel])) / deviation * f64::from(scale[channel]) + f64::from(shift[channel]);
            }
            if limited {
                *value = value.max(0.0);
            }
        }
        let (shape, found) = model.run(x);
        prop_assert_eq!(shape, vec![case.batch, channels, rows, columns]);
        // Sums of at most 75 products in another order.
        prop_assert!(apart(&found, &wanted) < 1e-5);
    }

    #[test]
    fn the_largest_in_each_window(case in case(), seed: u64) {
        let shape = [case.batch, case.inputs, case.picture[0], case.picture[1]];
        let alike = Case { groups: case.inputs, inputs: 1, outputs: 1, ..case };
        let x = Noise(seed).tensor(&shape);
        let [rows, columns] = alike.places();
        let mut wanted = vec![f64::NEG_INFINITY; shape[0] * shape[1] * rows * columns];
        let values = x.floats().expect("numbers").to_vec();
        alike.each(|out, x, _| wanted[out] = wanted[out].max(f64::from(values[x])));
        let model = Model::new(FLOAT, &[0, 0, 0, 0]).node("MaxPool", "x", "y", alike.attributes());
        let (found_shape, found) = model.run(x);
        prop_assert_eq!(found_shape, vec![shape[0], shape[1], rows, columns]);
        prop_assert!(found.iter().zip(&wanted).all(|(&found, &wanted)| f64::from(found) == wanted));
    }

    #[test]
    fn products_of_matrices(sides in [1usize..4, 1usize..5, 1usize..20, 1usize..20, 1usize..20], seed: u64, shared: bool, transposed: bool) {
        let [outer, middle, m, k, n] = sides;
        let mut noise = Noise(seed);
        let a = noise.tensor(&[outer, middle, m, k]);
        let batch = if shared { vec![] } else { vec![1, middle] };
        let b_shape: Vec<usize> = batch.iter().copied().chain([k, n]).collect();
        let b = noise.floats(&b_shape);
        let product = |a: &[f32], b: &[f32], step: [usize; 2]| -> Vec<f64> {
            (0..m * n).map(|at| (0..k).map(|i| f64::from(a[at / n * k + i]) * f64::from(b[i * step[0] + at % n * step[1]])).sum()).collect()
        };
        let values = a.floats().expect("numbers").to_vec();
        let wanted: Vec<f64> = values.chunks(m * k).enumerate().flat_map(|(index, a)| {
            let from = if shared { 0 } else { index % middle * k * n };
            product(a, &b[from..], [n, 1])
        }).collect();
        let model = Model::new(FLOAT, &[0, 0, 0, 0]).floats("b", &b_shape, &b).node("MatMul", "x b", "y", vec![]);
        prop_assert!(apart(&model.run(a).1, &wanted) < 1e-5);

        let (right, step) = if transposed { ([n, k], [1, k]) } else { ([k, n], [n, 1]) };
        let flat = Tensor::new(vec![m, k], values[..m * k].to_vec()).expect("a part");
        let c = noise.floats(&[n]);
        let mut wanted = product(&values, &b, step);
        wanted.iter_mut().enumerate().for_each(|(at, value)| *value += f64::from(c[at % n]));
        let model = Model::new(FLOAT, &[0, 0]).floats("b", &right, &b[..k * n]).floats("c", &[n], &c);
        let model = model.node("Gemm", "x b c", "y", vec![int("transB", transposed.into())]);
        prop_assert!(apart(&model.run(flat).1, &wanted) < 1e-5);
    }

    #[test]
    fn rows_are_normalised(sides in [1usize..4, 1usize..5, 2usize..40], seed: u64, along in 0usize..3) {
        let mut noise = Noise(seed);
        let x = noise.tensor(&sides);
        let values: Vec<f64> = x.floats().expect("numbers").iter().map(|&x| f64::from(x)).collect();
        let (g, b) = (noise.floats(&sides[2..]), noise.floats(&sides[2..]));
        let wanted: Vec<f64> = values.chunks(sides[2]).flat_map(|row| {
            let mean = row.iter().sum::<f64>() / row.len() as f64;
            let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / row.len() as f64;
            let scaled = row.iter().zip(&g).zip(&b).map(move |((x, &g), &b)| (x - mean) / (variance + 1e-5).sqrt() * f64::from(g) + f64::from(b));
            scaled.collect::<Vec<_>>()
        }).collect();
        let model = Model::new(FLOAT, &[0, 0, 0]).floats("g", &sides[2..], &g).floats("b", &sides[2..], &b);
        prop_assert!(apart(&model.node("LayerNormalization", "x g b", "y", vec![]).run(x.clone()).1, &wanted) < 1e-4);

        let inner: usize = sides[along + 1..].iter().product();
        let place = |at: usize, i: usize| at / (inner * sides[along]) * inner * sides[along] + i * inner + at % inner;
        let total = |at: usize, of: fn(f64) -> f64| (0..sides[along]).map(|i| of(values[place(at, i)])).sum::<f64>();
        let wanted: Vec<f64> = (0..values.len()).map(|at| values[at].exp() / total(at, f64::exp)).collect();
        let model = Model::new(FLOAT, &[0, 0, 0]).node("Softmax", "x", "y", vec![int("axis", along as i64)]);
        prop_assert!(apart(&model.run(x.clone()).1, &wanted) < 1e-6);

        let firsts = (0..values.len()).filter(|at| (at / inner).is_multiple_of(sides[along]));
        let wanted: Vec<f64> = firsts.map(|at| total(at, |x| x) / sides[along] as f64).collect();
        let attributes = vec![ints("axes", &[along as i64 - 3]), int("keepdims", 0)];
        prop_assert!(apart(&Model::new(FLOAT, &[0, 0, 0]).node("ReduceMean", "x", "y", attributes).run(x).1, &wanted) < 1e-6);
    }

    #[test]
    fn numbers_are_moved(sides in [1usize..6, 1usize..6, 1usize..6], seed: u64, start in -7i64..7, end in -7i64..7, step in prop_oneof![-3i64..0, 1i64..4]) {
        let x = Noise(seed).tensor(&sides);
        let values = x.floats().expect("numbers").to_vec();
        let [a, b, c] = sides;
        let (shape, found) = Model::new(FLOAT, &[0, 0, 0]).node("Transpose", "x", "y", vec![ints("perm", &[2, 0, 1])]).run(x.clone());
        prop_assert_eq!(shape, vec![c, a, b]);
        prop_assert!((0..found.len()).all(|at| found[at] == values[at % (a * b) * c + at / (a * b)]));

        // As Python slices, but for a start before the first place when going backwards: ONNX begins at the first.
        let side = b as i64;
        let limit = |at: i64, low: i64, high: i64| (if at < 0 { at + side } else { at }).clamp(low, high);
        let (first, last) = if step > 0 { (limit(start, 0, side), limit(end, 0, side)) } else { (limit(start, 0, side - 1), limit(end, -1, side - 1)) };
        let picked: Vec<usize> = std::iter::successors(Some(first), |at| Some(at + step))
            .take_while(|&at| if step > 0 { at < last } else { at > last }).map(|at| at as usize).collect();
        let model = Model::new(FLOAT, &[0, 0, 0]).integers("s", &[start]).integers("e", &[end]).integers("a", &[1]).integers("t", &[step]);
        let (shape, found) = model.node("Slice", "x s e a t", "y", vec![]).run(x.clone());
        let wanted: Vec<f32> = (0..a).flat_map(|i| picked.iter().flat_map(move |&j| (0..c).map(move |k| (i, j, k)))).map(|(i, j, k)| values[(i * b + j) * c + k]).collect();
        prop_assert_eq!((shape, found), (vec![a, picked.len(), c], wanted));

        // Parts, joined again, are the whole.
        let model = Model::new(FLOAT, &[0, 0, 0]).integers("l", &[1, side - 1]);
        let model = model.node("Split", "x l", "p q", vec![int("axis", 1)]).node("Concat", "p q", "y", vec![int("axis", -2)]);
        prop_assert_eq!(model.run(x).1, values);
    }

    #[test]
    fn sums_repeat_what_is_short(sides in [1usize..4, 1usize..4, 1usize..4], short in [any::<bool>(); 3], missing in 0usize..3, seed: u64) {
        let mut noise = Noise(seed);
        let x = noise.tensor(&sides);
        let other: Vec<usize> = (missing..3).map(|axis| if short[axis] { 1 } else { sides[axis] }).collect();
        let y = noise.floats(&other);
        let place = |at: usize| {
            let index = [at / (sides[1] * sides[2]), at / sides[2] % sides[1], at % sides[2]];
            (missing..3).fold(0, |place, axis| place * other[axis - missing] + if short[axis] { 0 } else { index[axis] })
        };
        let values = x.floats().expect("numbers").to_vec();
        for (operator, work) in [("Add", (|a, b| a + b) as fn(f32, f32) -> f32), ("Sub", |a, b| a - b), ("Mul", |a, b| a * b), ("Div", |a, b| a / b)] {
            let model = Model::new(FLOAT, &[0, 0, 0]).floats("o", &other, &y).node(operator, "x o", "y", vec![]);
            let wanted: Vec<f32> = values.iter().enumerate().map(|(at, &a)| work(a, y[place(at)])).collect();
            prop_assert_eq!(model.run(x.clone()).1, wanted);
        }
    }
}

#[test]
fn gelu_is_found_in_both_ways_of_writing_it() {
    let x = Noise(3).tensor(&[4, 9]);
    // x/2 · (1 + erf(x/√2)) by the series of erf, which converges fast for such small numbers.
    let erf = |z: f64| {
        let term = |n: i32| {
            (-1f64).powi(n) * z.powi(2 * n + 1)
                / (f64::from(2 * n + 1) * (1..=n).map(f64::from).product::<f64>())
        };
        2.0 / std::f64::consts::PI.sqrt() * (0..20).map(term).sum::<f64>()
    };
    let wanted: Vec<f64> = x
        .floats()
        .expect("numbers")
        .iter()
        .map(|&x| f64::from(x) / 2.0 * (1.0 + erf(f64::from(x) / 2f64.sqrt())))
        .collect();
    let numbers = |model: Model| {
        model.floats("root", &[], &[std::f32::consts::SQRT_2]).floats("one", &[], &[1.0]).floats(
            "half",
            &[],
            &[0.5],
        )
    };
    for late in [true, false] {
        let model = numbers(Model::new(FLOAT, &[0, 9])).node("Div", "x root", "d", vec![]).node(
            "Erf",
            "d",
            "e",
            vec![],
        );
        let model = model.node("Add", "e one", "s", vec![]);
        let model = match late {
            true => model.node("Mul", "x s", "p", vec![]).node("Mul", "p half", "y", vec![]),
            false => model.node("Mul", "x half", "h", vec![]).node("Mul", "h s", "y", vec![]),
        };
        assert!(apart(&model.run(x.clone()).1, &wanted) < 1e-6);
    }
}

#[test]
fn a_small_network_of_everything_answers() {
    let graph = support::everything().load("logits probabilities").expect("a sound model");
    let images =
        Tensor::new(vec![2, 8, 8, 3], (0..384u32).map(|i| (i * 37 % 251) as u8).collect()).expect("two");
    let both = graph.run(images).expect("it runs");
    assert_eq!(both[0].shape(), [2, 3]);
    for row in both[1].floats().expect("numbers").chunks(3) {
        assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5);
    }
    // A batch is answered as its images are.
    let second =
        Tensor::new(vec![1, 8, 8, 3], (192..384u32).map(|i| (i * 37 % 251) as u8).collect()).expect("one");
    let alone = graph.run(second).expect("it runs");
    let wanted: Vec<f64> = both[0].floats().expect("numbers")[3..].iter().map(|&x| f64::from(x)).collect();
    assert!(apart(alone[0].floats().expect("numbers"), &wanted) < 1e-6);
}
