//! `harvest-edge BUNDLE IMAGE...`: a line for each image. Exit code 0: all classified; 1: some image could not be; 2: the
//! bundle or the command line is unusable.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use harvest_edge::{Classifier, Prediction, Weights};

const USAGE: &str = "\
Classifies images with a model that `harvest export` wrote.

Usage: harvest-edge BUNDLE IMAGE... [options]

  --int8   run model.int8.onnx in place of model.onnx
  --csv    print path,class,confidence,abstained with a heading (the default, without one)
  --json   print an object with all probabilities for each image
  --time   print times and the most memory used to the error stream
  --help   this text";

enum Format {
    Plain,
    Csv,
    Json,
}

struct Arguments {
    bundle: PathBuf,
    images: Vec<PathBuf>,
    weights: Weights,
    format: Format,
    time: bool,
}

fn main() -> ExitCode {
    let arguments = match parse(std::env::args_os().skip(1)) {
        Ok(Some(arguments)) => arguments,
        Ok(None) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(reason) => {
            eprintln!("harvest-edge: {reason}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(reason) => {
            eprintln!("harvest-edge: {reason}");
            ExitCode::from(2)
        }
    }
}

/// Nothing if help was asked for.
fn parse(arguments: impl Iterator<Item = std::ffi::OsString>) -> Result<Option<Arguments>, String> {
    let mut paths = Vec::new();
    let (mut weights, mut format, mut time, mut only_paths) = (Weights::Float, Format::Plain, false, false);
    for argument in arguments {
        match argument.to_str().filter(|text| text.starts_with('-') && !only_paths) {
            None => paths.push(PathBuf::from(argument)),
            Some("--") => only_paths = true,
            Some("--int8") => weights = Weights::Int8,
            Some("--csv") => format = Format::Csv,
            Some("--json") => format = Format::Json,
            Some("--time") => time = true,
            Some("--help" | "-h") => return Ok(None),
            Some(other) => return Err(format!("`{other}` is no option")),
        }
    }
    if paths.len() < 2 {
        return Err("name a bundle and at least one image".into());
    }
    let bundle = paths.remove(0);
    Ok(Some(Arguments { bundle, images: paths, weights, format, time }))
}

/// Whether every image could be classified.
fn run(arguments: &Arguments) -> Result<bool, String> {
    let start = Instant::now();
    let classifier =
        Classifier::open(&arguments.bundle, arguments.weights).map_err(|error| error.to_string())?;
    let loaded = start.elapsed();
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut times: Vec<Duration> = Vec::new();
    let mut first = None;
    let mut all = true;
    let gone = |error: std::io::Error| format!("nothing can be printed: {error}");
    if matches!(arguments.format, Format::Csv) {
        writeln!(out, "path,class,confidence,abstained").map_err(gone)?;
    }
    for path in &arguments.images {
        let one = Instant::now();
        match classifier.classify_file(path) {
            Ok(prediction) => {
                first.get_or_insert_with(|| start.elapsed());
                times.push(one.elapsed());
                writeln!(out, "{}", line(&arguments.format, path, &classifier, &prediction)).map_err(gone)?;
            }
            Err(error) => {
                out.flush().map_err(gone)?;
                eprintln!("harvest-edge: `{}`: {error}", path.display());
                all = false;
            }
        }
    }
    out.flush().map_err(gone)?;
    if arguments.time {
        report(loaded, first, &mut times);
    }
    Ok(all)
}

fn line(format: &Format, path: &Path, classifier: &Classifier, prediction: &Prediction) -> String {
    let Prediction { class, confidence, abstained, probabilities } = prediction;
    let names = &classifier.config().classes;
    let path = path.to_string_lossy();
    match format {
        Format::Plain | Format::Csv => {
            format!("{},{},{confidence:.6},{abstained}", field(&path), field(&names[*class]))
        }
        Format::Json => {
            let probabilities: serde_json::Map<String, serde_json::Value> =
                names.iter().cloned().zip(probabilities.iter().map(|&p| p.into())).collect();
            serde_json::json!({
                "path": path, "class": names[*class], "confidence": confidence, "abstained": abstained,
                "probabilities": probabilities,
            })
            .to_string()
        }
    }
}

/// Quoted where a comma, quote or line end would be misread (RFC 4180).
fn field(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

fn report(loaded: Duration, first: Option<Duration>, times: &mut [Duration]) {
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    eprintln!("load          {:9.1} ms", ms(loaded));
    if let Some(first) = first {
        eprintln!("first answer  {:9.1} ms after the start", ms(first));
    }
    if times.len() > 1 {
        // The first image also touches memory for the first time.
        let steady = &mut times[1..];
        steady.sort_unstable();
        eprintln!("each further  {:9.1} ms (median of {})", ms(steady[steady.len() / 2]), steady.len());
    }
    if let Some(kib) = peak_memory_kib() {
        eprintln!("peak memory   {:9.1} MiB", kib as f64 / 1024.0);
    }
}

/// Linux's high-water mark of resident memory; nothing on other systems.
fn peak_memory_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}
