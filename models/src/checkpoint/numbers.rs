//! Numbers of a file, whatever their type and order, as the two types of [`NamedTensors`](crate::NamedTensors).

use burn::tensor::TensorData;

use super::error::Problem;
use super::pickle::Strided;

/// Types of numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    F64,
    F32,
    F16,
    BF16,
    I64,
    I32,
    I16,
    I8,
    U8,
    Bool,
}

impl Kind {
    /// Of PyTorch's storage classes.
    pub fn of_storage(name: &str) -> Option<Self> {
        Some(match name {
            "DoubleStorage" => Self::F64,
            "FloatStorage" => Self::F32,
            "HalfStorage" => Self::F16,
            "BFloat16Storage" => Self::BF16,
            "LongStorage" => Self::I64,
            "IntStorage" => Self::I32,
            "ShortStorage" => Self::I16,
            "CharStorage" => Self::I8,
            "ByteStorage" => Self::U8,
            "BoolStorage" => Self::Bool,
            _ => return None,
        })
    }

    /// Bytes of one.
    pub fn width(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::BF16 | Self::I16 => 2,
            Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }

    fn is_float(self) -> bool {
        matches!(self, Self::F64 | Self::F32 | Self::F16 | Self::BF16)
    }
}

/// Order of a number's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Little,
    Big,
}

/// The numbers of `bytes` that `tensor` is a view of, in row-major order: floats become F32, integers I64.
///
/// No number is used twice, so that the result is never larger than the file by more than its type.
pub(super) fn contiguous(
    name: &str,
    tensor: &Strided,
    bytes: &[u8],
    order: Order,
) -> Result<TensorData, Problem> {
    let (shape, width) = (&tensor.shape, tensor.storage.kind.width());
    let damaged = |what: &str| Problem::damaged(format!("`{name}` of shape {shape:?} {what}"));
    let count = shape.iter().try_fold(1usize, |product, size| product.checked_mul(*size));
    let count = count.ok_or_else(|| damaged("has more values than can be counted"))?;
    let available = bytes.len() / width;
    if count > available {
        return Err(damaged(&format!("needs {count} values, but its storage holds {available}")));
    }
    if count > 0 {
        let reach = shape
            .iter()
            .zip(&tensor.strides)
            .try_fold(0usize, |reach, (size, stride)| reach.checked_add((size - 1).checked_mul(*stride)?));
        let start = tensor.storage.offset.checked_add(tensor.offset);
        let last = start.zip(reach).and_then(|(start, reach)| start.checked_add(reach));
        if last.is_none_or(|last| last >= available) {
            return Err(damaged("reaches beyond its storage"));
        }
    }
    let number = |at: usize| -> &[u8] { &bytes[at * width..][..width] };
    let positions = Positions::new(tensor, count);
    let kind = tensor.storage.kind;
    Ok(if kind.is_float() {
        TensorData::new(
            positions.map(|at| float(kind, number(at), order)).collect::<Vec<f32>>(),
            shape.clone(),
        )
    } else {
        TensorData::new(
            positions.map(|at| integer(kind, number(at), order)).collect::<Vec<i64>>(),
            shape.clone(),
        )
    })
}

/// Where the values of a checked view lie, in row-major order.
struct Positions<'a> {
    tensor: &'a Strided,
    index: Vec<usize>,
    at: usize,
    left: usize,
}

impl<'a> Positions<'a> {
    fn new(tensor: &'a Strided, left: usize) -> Self {
        let at = if left > 0 { tensor.storage.offset + tensor.offset } else { 0 };
        Self { tensor, index: vec![0; tensor.shape.len()], at, left }
    }
}

impl Iterator for Positions<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        self.left = self.left.checked_sub(1)?;
        let now = self.at;
        for axis in (0..self.index.len()).rev() {
            let (size, stride) = (self.tensor.shape[axis], self.tensor.strides[axis]);
            if self.index[axis] + 1 < size {
                self.index[axis] += 1;
                self.at += stride;
                break;
            }
            self.at -= self.index[axis] * stride;
            self.index[axis] = 0;
        }
        Some(now)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

/// As many bytes as the number has, least significant first.
fn ordered<const N: usize>(bytes: &[u8], order: Order) -> [u8; N] {
    let mut all = [0; N];
    all.copy_from_slice(bytes);
    if order == Order::Big {
        all.reverse();
    }
    all
}

fn float(kind: Kind, bytes: &[u8], order: Order) -> f32 {
    match kind {
        Kind::F64 => f64::from_le_bytes(ordered(bytes, order)) as f32,
        Kind::F16 => half(u16::from_le_bytes(ordered(bytes, order))),
        Kind::BF16 => f32::from_bits(u32::from(u16::from_le_bytes(ordered(bytes, order))) << 16),
        _ => f32::from_le_bytes(ordered(bytes, order)),
    }
}

fn integer(kind: Kind, bytes: &[u8], order: Order) -> i64 {
    match kind {
        Kind::I32 => i64::from(i32::from_le_bytes(ordered(bytes, order))),
        Kind::I16 => i64::from(i16::from_le_bytes(ordered(bytes, order))),
        Kind::I8 => i64::from(bytes[0].cast_signed()),
        Kind::U8 | Kind::Bool => i64::from(bytes[0]),
        _ => i64::from_le_bytes(ordered(bytes, order)),
    }
}

/// IEEE 754 binary16.
fn half(bits: u16) -> f32 {
    let sign = if bits & 0x8000 != 0 { -1.0 } else { 1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f32::from(bits & 0x3ff));
    sign * match exponent {
        0 => fraction * 2f32.powi(-24),
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        _ => (1024.0 + fraction) * 2f32.powi(exponent - 25),
    }
}
