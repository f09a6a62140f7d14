//! Values of a graph: a shape and numbers of one kind, row by row.

use std::sync::Arc;

use crate::error::OpError;

/// The numbers. Shared, so that a reshaped tensor costs nothing.
#[derive(Debug, Clone)]
pub enum Data {
    /// 32-bit floating point.
    F32(Arc<Vec<f32>>),
    /// Shapes, axes, indices.
    I64(Arc<Vec<i64>>),
    /// Offsets of quantised weights.
    I32(Arc<Vec<i32>>),
    /// Quantised weights.
    I8(Arc<Vec<i8>>),
    /// Images.
    U8(Arc<Vec<u8>>),
}

/// Numbers of one kind in a shape; the numbers are as many as the shape says.
#[derive(Debug, Clone)]
pub struct Tensor {
    shape: Vec<usize>,
    data: Data,
}

/// A kind of number a [`Tensor`] can hold.
pub trait Element: Copy + Default + Send + Sync + 'static {
    /// Wraps numbers.
    fn wrap(values: Vec<Self>) -> Data;
}

macro_rules! element {
    ($($kind:ty => $variant:ident),*) => {
        $(impl Element for $kind {
            fn wrap(values: Vec<Self>) -> Data {
                Data::$variant(Arc::new(values))
            }
        })*
    };
}

element!(f32 => F32, i64 => I64, i32 => I32, i8 => I8, u8 => U8);

/// Runs `$body` with `$values` as a slice of whatever kind the data is of.
macro_rules! with_values {
    ($data:expr, $values:ident => $body:expr) => {
        match $data {
            $crate::tensor::Data::F32(values) => {
                let $values: &[f32] = values;
                $body
            }
            $crate::tensor::Data::I64(values) => {
                let $values: &[i64] = values;
                $body
            }
            $crate::tensor::Data::I32(values) => {
                let $values: &[i32] = values;
                $body
            }
            $crate::tensor::Data::I8(values) => {
                let $values: &[i8] = values;
                $body
            }
            $crate::tensor::Data::U8(values) => {
                let $values: &[u8] = values;
                $body
            }
        }
    };
}
pub(crate) use with_values;

impl Tensor {
    /// Numbers in a shape.
    ///
    /// # Errors
    /// If they are not as many as the shape says.
    pub fn new<T: Element>(shape: Vec<usize>, values: Vec<T>) -> Result<Self, OpError> {
        let wanted = shape.iter().try_fold(1usize, |product, &side| product.checked_mul(side));
        if wanted != Some(values.len()) {
            return Err(OpError::Count { shape, found: values.len() });
        }
        Ok(Self { shape, data: T::wrap(values) })
    }

    /// A line of whole numbers.
    pub fn integers(values: Vec<i64>) -> Self {
        Self { shape: vec![values.len()], data: i64::wrap(values) }
    }

    /// The sides, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The numbers.
    pub fn data(&self) -> &Data {
        &self.data
    }

    /// How many numbers there are.
    pub fn len(&self) -> usize {
        with_values!(&self.data, values => values.len())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes the numbers take.
    pub fn bytes(&self) -> usize {
        with_values!(&self.data, values => size_of_val(values))
    }

    /// The name of the numbers' kind.
    pub fn kind(&self) -> &'static str {
        match self.data {
            Data::F32(_) => "float32",
            Data::I64(_) => "int64",
            Data::I32(_) => "int32",
            Data::I8(_) => "int8",
            Data::U8(_) => "uint8",
        }
    }

    /// The same numbers in another shape.
    ///
    /// # Errors
    /// If it is not of as many numbers.
    pub fn reshaped(&self, shape: Vec<usize>) -> Result<Self, OpError> {
        let wanted = shape.iter().try_fold(1usize, |product, &side| product.checked_mul(side));
        if wanted != Some(self.len()) {
            return Err(OpError::Count { shape, found: self.len() });
        }
        Ok(Self { shape, data: self.data.clone() })
    }

    /// The numbers, which must be floating point.
    ///
    /// # Errors
    /// If they are of another kind.
    pub fn floats(&self) -> Result<&[f32], OpError> {
        match &self.data {
            Data::F32(values) => Ok(values),
            _ => Err(OpError::Kind { wanted: "float32", found: self.kind() }),
        }
    }

    /// The numbers, which must be 64-bit whole numbers.
    ///
    /// # Errors
    /// If they are of another kind.
    pub fn whole_numbers(&self) -> Result<&[i64], OpError> {
        match &self.data {
            Data::I64(values) => Ok(values),
            _ => Err(OpError::Kind { wanted: "int64", found: self.kind() }),
        }
    }

    /// The single floating-point number.
    ///
    /// # Errors
    /// If there are none or several, or they are of another kind.
    pub fn scalar(&self) -> Result<f32, OpError> {
        match self.floats()? {
            [value] => Ok(*value),
            values => Err(OpError::Count { shape: vec![1], found: values.len() }),
        }
    }
}

/// The distance between neighbours along each side, row by row.
pub(crate) fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1usize; shape.len()];
    for axis in (0..shape.len().saturating_sub(1)).rev() {
        strides[axis] = strides[axis + 1].saturating_mul(shape[axis + 1]);
    }
    strides
}
