//! Runs an ONNX file on numbers from a file and writes its first output's: to compare with other runtimes, and to
//! measure. `cargo run --release -p harvest-edge --example outputs -- MODEL INPUT OUTPUT [RUNS]`
//!
//! INPUT holds little-endian float32 (bytes for models that take `uint8`) of one batch; open sides are 1 for the batch.

use std::time::Instant;

use harvest_edge::{Graph, Limits, Tensor};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, input, output, runs @ ..] = &arguments[..] else {
        return Err("name a model, an input and an output".into());
    };
    let start = Instant::now();
    let graph = Graph::load(&std::fs::read(model)?, Limits::default())?;
    println!("load {:.1} ms", start.elapsed().as_secs_f64() * 1e3);
    let content = std::fs::read(input)?;
    let mut shape: Vec<usize> = graph.input().sides.iter().map(|side| side.unwrap_or(1)).collect();
    let one: usize = shape.iter().skip(1).product();
    let number = if graph.input().bytes { 1 } else { 4 };
    shape[0] = content.len() / (one * number).max(1);
    let batch = if graph.input().bytes {
        Tensor::new(shape, content)?
    } else {
        Tensor::new(
            shape,
            content.as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect(),
        )?
    };
    let mut times = Vec::new();
    for _ in 0..runs.first().map_or(Ok(1), |runs| runs.parse())? {
        let start = Instant::now();
        let outputs = graph.run(batch.clone())?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
        let numbers: Vec<u8> = outputs[0].floats()?.iter().flat_map(|value| value.to_le_bytes()).collect();
        std::fs::write(output, numbers)?;
    }
    println!("first run {:.2} ms", times[0]);
    times.sort_by(f64::total_cmp);
    println!("median {:.2} ms, least {:.2} ms of {}", times[times.len() / 2], times[0], times.len());
    Ok(())
}
