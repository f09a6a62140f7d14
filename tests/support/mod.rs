//! Reading the recorded reference numbers.

use std::path::PathBuf;

use safetensors::SafeTensors;
use safetensors::tensor::Dtype;

/// The folder of reference numbers: `HARVEST_REFERENCE`, else the one that ships with the tests.
pub fn reference(file: &str) -> PathBuf {
    let folder = std::env::var_os("HARVEST_REFERENCE")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/reference"), PathBuf::from);
    folder.join(file)
}

/// A JSON file of the reference.
#[allow(dead_code, reason = "not every test program reads JSON")]
pub fn json(file: &str) -> serde_json::Value {
    let path = reference(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A `.safetensors` file of the reference, held in memory.
pub struct Vectors(Vec<u8>);

impl Vectors {
    pub fn read(file: &str) -> Self {
        let path = reference(file);
        Self(std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
    }

    fn view<T>(&self, name: &str, dtype: Dtype, convert: impl Fn(&[u8]) -> Vec<T>) -> (Vec<usize>, Vec<T>) {
        let tensors = SafeTensors::deserialize(&self.0).expect("a safetensors file");
        let view = tensors.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(view.dtype(), dtype, "{name}");
        (view.shape().to_vec(), convert(view.data()))
    }

    #[allow(dead_code, reason = "not every test program looks entries up")]
    pub fn has(&self, name: &str) -> bool {
        SafeTensors::deserialize(&self.0).expect("a safetensors file").tensor(name).is_ok()
    }

    #[allow(dead_code, reason = "not every test program asks for types")]
    pub fn is_integer(&self, name: &str) -> bool {
        let tensors = SafeTensors::deserialize(&self.0).expect("a safetensors file");
        tensors.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}")).dtype() == Dtype::I64
    }

    /// Shape and values of a float tensor.
    pub fn floats(&self, name: &str) -> (Vec<usize>, Vec<f32>) {
        self.view(name, Dtype::F32, |bytes| {
            bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
        })
    }

    /// Shape and values of an integer tensor.
    #[allow(dead_code, reason = "not every test program reads integers")]
    pub fn integers(&self, name: &str) -> (Vec<usize>, Vec<i64>) {
        self.view(name, Dtype::I64, |bytes| {
            bytes.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b)).collect()
        })
    }

    /// Values of iteration `t` of a float tensor whose leading axis is the iteration.
    #[allow(dead_code, reason = "not every test program has iterations")]
    pub fn floats_at(&self, name: &str, t: usize) -> Vec<f32> {
        let (shape, values) = self.floats(name);
        let row: usize = shape[1..].iter().product();
        values[t * row..(t + 1) * row].to_vec()
    }

    /// Values of iteration `t` of an integer tensor whose leading axis is the iteration.
    #[allow(dead_code, reason = "not every test program has iterations")]
    pub fn integers_at(&self, name: &str, t: usize) -> Vec<i64> {
        let (shape, values) = self.integers(name);
        let row: usize = shape[1..].iter().product();
        values[t * row..(t + 1) * row].to_vec()
    }
}

/// Fails unless every value agrees: `|found - expected| ≤ absolute + relative · |expected|`.
pub fn assert_close(what: &str, found: &[f32], expected: &[f32], absolute: f32, relative: f32) {
    assert_eq!(found.len(), expected.len(), "{what}: number of values");
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        assert!(
            (f - e).abs() <= absolute + relative * e.abs(),
            "{what}[{i}]: found {f}, expected {e}, apart {}",
            (f - e).abs()
        );
    }
}
