//! The window that convolution and pooling move over a picture.

use super::attributes::Attributes;
use crate::error::OpError;

/// Size, steps and margin of a window, rows before columns. Dilations other than 1 are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    /// 0 × 0 where the weights tell it.
    pub size: [usize; 2],
    pub stride: [usize; 2],
    /// Above and left.
    pub before: [usize; 2],
    /// Below and right.
    pub after: [usize; 2],
}

impl Window {
    pub fn parse(attributes: &Attributes) -> Result<Self, OpError> {
        let automatic = attributes.get("auto_pad").and_then(|attribute| attribute.s.as_deref());
        let pads: [usize; 4] = match automatic {
            None | Some(b"NOTSET" | b"") => attributes.sizes("pads", 0)?,
            Some(b"VALID") => [0; 4],
            Some(_) => {
                return Err(OpError::attribute("auto_pad", "is not known; write the margins as `pads`"));
            }
        };
        if attributes.sizes::<2>("dilations", 1)? != [1, 1] {
            return Err(OpError::attribute("dilations", "is not 1"));
        }
        let stride: [usize; 2] = attributes.sizes("strides", 1)?;
        if stride.contains(&0) {
            return Err(OpError::attribute("strides", "is 0"));
        }
        let size = attributes.sizes("kernel_shape", 0)?;
        Ok(Self { size, stride, before: [pads[0], pads[1]], after: [pads[2], pads[3]] })
    }

    /// Places of the window in a picture of `height` × `width`; nothing if it does not fit.
    pub fn places(&self, picture: [usize; 2]) -> Option<[usize; 2]> {
        let along = |axis: usize| {
            let length = picture[axis].checked_add(self.before[axis])?.checked_add(self.after[axis])?;
            let room = length.checked_sub(self.size[axis])?;
            (self.size[axis] > 0).then_some(room / self.stride[axis] + 1)
        };
        Some([along(0)?, along(1)?])
    }
}
