//! Reads a node's settings, each with the value ONNX gives it when it is absent.

use harvest_onnx::{AttributeProto, NodeProto};

use crate::error::OpError;

/// A node's settings by name.
pub(crate) struct Attributes<'a>(pub &'a NodeProto);

impl Attributes<'_> {
    pub fn get(&self, name: &str) -> Option<&AttributeProto> {
        self.0.attribute.iter().find(|attribute| attribute.name.as_deref() == Some(name))
    }

    pub fn integer(&self, name: &'static str, default: i64) -> Result<i64, OpError> {
        match self.get(name) {
            None => Ok(default),
            Some(attribute) => attribute.i.ok_or_else(|| OpError::attribute(name, "is not a whole number")),
        }
    }

    pub fn float(&self, name: &'static str, default: f32) -> Result<f32, OpError> {
        match self.get(name) {
            None => Ok(default),
            Some(attribute) => attribute.f.ok_or_else(|| OpError::attribute(name, "is not a number")),
        }
    }

    pub fn integers(&self, name: &str) -> Option<Vec<i64>> {
        self.get(name).map(|attribute| attribute.ints.clone())
    }

    /// `count` numbers from 0 to a million, or `default` for each.
    pub fn sizes<const N: usize>(&self, name: &'static str, default: usize) -> Result<[usize; N], OpError> {
        let Some(attribute) = self.get(name) else { return Ok([default; N]) };
        let sizes: Option<Vec<usize>> = attribute
            .ints
            .iter()
            .map(|&size| usize::try_from(size).ok().filter(|&size| size <= 1_000_000))
            .collect();
        sizes.and_then(|sizes| sizes.try_into().ok()).ok_or_else(|| {
            OpError::attribute(name, format!("is {:?}, not {N} small numbers", attribute.ints))
        })
    }

    /// Refuses a setting that changes what the operation means here.
    pub fn only(&self, name: &'static str, value: i64) -> Result<(), OpError> {
        match self.integer(name, value)? {
            found if found == value => Ok(()),
            found => Err(OpError::attribute(name, format!("is {found}; only {value} is known"))),
        }
    }
}
