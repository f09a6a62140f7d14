//! Files that lie: an error, never a panic, whatever bytes are changed.

mod support;

use harvest_edge::{Graph, Limits, ModelError, Tensor};
use support::{FLOAT, Model, Noise, everything, int, ints};

#[test]
fn changed_bytes_never_panic() {
    let cases =
        std::env::var("HARVEST_FUZZ_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(5_000);
    let sound = everything().file("logits probabilities");
    let limits = Limits { elements: 1 << 16, live: 1 << 18, multiplications: 1 << 22, ..Limits::default() };
    let images = Tensor::new(vec![1, 8, 8, 3], vec![7u8; 192]).expect("one image");
    let mut noise = Noise(1);
    let (mut loaded, mut answered) = (0, 0);
    for _ in 0..cases {
        let mut bytes = sound.clone();
        for _ in 0..1 + noise.below(4) {
            let place = noise.below(bytes.len());
            match noise.below(5) {
                0 => bytes[place] = noise.next() as u8,
                1 => bytes[place] ^= 1 << noise.below(8),
                2 => bytes.truncate(place.max(1)),
                3 => bytes.insert(place, noise.next() as u8),
                _ => drop(bytes.remove(place)),
            }
            if bytes.len() < 2 {
                break;
            }
        }
        if let Ok(graph) = Graph::load(&bytes, limits) {
            loaded += 1;
            answered += u64::from(graph.run(images.clone()).is_ok());
        }
    }
    // Most changes hit weights or lengths: some files must still load, or nothing behind the reader was tried.
    assert!(loaded > cases / 50 && answered > 0, "{loaded} loaded, {answered} answered of {cases}");
}

fn refused(model: Model, word: &str) {
    let x = Tensor::new(vec![1, 1, 4, 4], vec![1.0f32; 16]).expect("a picture");
    let error = match model.load("y") {
        Err(error) => error,
        Ok(graph) => graph.run(x).expect_err("refused when run"),
    };
    assert!(error.to_string().contains(word), "{error}");
}

#[test]
fn what_cannot_be_computed_is_named() {
    let model = || Model::new(FLOAT, &[0, 1, 4, 4]);
    refused(model().node("Tanh", "x", "y", vec![]), "`Tanh`");
    refused(model().node("Relu", "z", "y", vec![]), "`z`");
    refused(model().node("Relu", "x", "x", vec![]), "twice");
    refused(model().node("Add", "x", "y", vec![]), "input 1 is missing");
    refused(model().integers("s", &[1 << 40, 1 << 40]).node("Expand", "x s", "y", vec![]), "Expand");
    let wide = model().integers("s", &[1 << 20, 1, 1 << 20, 4, 4]);
    refused(wide.node("Expand", "x s", "y", vec![]), "more than the limit");
    refused(model().integers("s", &[-1, 3]).node("Reshape", "x s", "y", vec![]), "shape");
    refused(model().integers("s", &[9]).node("Gather", "x s", "y", vec![int("axis", 2)]), "axis 9");
    refused(model().node("Softmax", "x", "y", vec![int("axis", i64::MIN)]), "axis");
    refused(model().node("Transpose", "x", "y", vec![ints("perm", &[0, 0, 1, 2])]), "twice");
    refused(model().node("Transpose", "x", "y", vec![ints("perm", &[0, 1])]), "perm");
    let conv = || model().floats("w", &[1, 1, 3, 3], &[1.0; 9]);
    refused(conv().node("Conv", "x w", "y", vec![ints("strides", &[0, 1])]), "strides");
    refused(conv().node("Conv", "x w", "y", vec![ints("dilations", &[2, 2])]), "dilations");
    refused(conv().node("Conv", "x w", "y", vec![int("group", 0)]), "group");
    refused(conv().node("Conv", "x w", "y", vec![ints("pads", &[-1, 0, 0, 0])]), "pads");
    refused(conv().node("Conv", "x w", "y", vec![int("group", 7)]), "do not go together");
    let far = vec![ints("pads", &[1_000_000, 1_000_000, 1_000_000, 1_000_000])];
    refused(conv().node("Conv", "x w", "y", far), "more than the limit");
    refused(model().node("MaxPool", "x", "y", vec![ints("kernel_shape", &[9, 9])]), "do not go together");
    assert!(matches!(Model::new(FLOAT, &[1]).load("y"), Err(ModelError::NoOutput(name)) if name == "y"));
    assert!(matches!(Graph::load(b"", Limits::default()), Err(ModelError::Missing(_))));
    assert!(matches!(Graph::load(b"not a model", Limits::default()), Err(ModelError::Decode(_))));
}

#[test]
fn a_batch_of_another_kind_or_shape_is_refused() {
    let graph = Model::new(FLOAT, &[0, 3]).node("Relu", "x", "y", vec![]).load("y").expect("sound");
    for batch in [Tensor::new(vec![1, 2], vec![0.0f32; 2]), Tensor::new(vec![3], vec![0.0f32; 3])] {
        assert!(matches!(graph.run(batch.expect("full")), Err(ModelError::Input { .. })));
    }
    assert!(graph.run(Tensor::new(vec![1, 3], vec![0u8; 3]).expect("full")).is_err());
    let empty =
        graph.run(Tensor::new(vec![0, 3], Vec::<f32>::new()).expect("empty")).expect("no image is no error");
    assert_eq!(empty[0].shape(), [0, 3]);
}
