//! The type of a product's operands.

use burn::tensor::{Device, Tensor};

/// The type that operands of matrix products are rounded to on the way in, on the CPU backend. Tensors stay `f32`, before and
/// after, and so do the sums: no cast enters the graph, and weights keep all their bits.
///
/// Gradients are products too, and follow: that of `x W` is `round(dy) round(W)ᵀ`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Products {
    /// Not rounded.
    #[default]
    F32,
    /// To bfloat16, where the processor multiplies such pairs ([`has_bf16_products`]); elsewhere not rounded, for without the
    /// instructions it would be slower than `f32`.
    Bf16,
}

/// Whether the processor has AVX-512 BF16, without which [`Products::Bf16`] is the same as [`Products::F32`].
pub fn has_bf16_products() -> bool {
    #[cfg(target_arch = "x86_64")]
    return crate::cpu::bf16::available();
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Whether products with `tensor` round their operands themselves, so that nobody casts it: on the CPU backend, in a graph or
/// not, unless the reference is chosen.
pub fn rounds_in_products<const D: usize>(tensor: &Tensor<D>) -> bool {
    crate::choice::fused() && tensor.device() == Device::flex()
}

/// What computes the products of one operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arithmetic {
    F32,
    /// Made where the instructions are, by [`Products::arithmetic`] alone.
    #[cfg(target_arch = "x86_64")]
    Bf16(Found),
    /// The same without the instructions.
    #[cfg(test)]
    Emulated,
}

/// The instructions have been found on this processor.
#[cfg(target_arch = "x86_64")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found(());

impl Products {
    /// What computes such products on this processor.
    pub(crate) fn arithmetic(self) -> Arithmetic {
        match self {
            #[cfg(target_arch = "x86_64")]
            Products::Bf16 if crate::cpu::bf16::available() => Arithmetic::Bf16(Found(())),
            Products::F32 | Products::Bf16 => Arithmetic::F32,
        }
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! Both ways to compute with bf16.

    use super::*;

    /// The emulation, and the instructions where the processor has them.
    pub(crate) fn bf16_arithmetics() -> Vec<Arithmetic> {
        let found = Products::Bf16.arithmetic();
        std::iter::once(Arithmetic::Emulated).chain((found != Arithmetic::F32).then_some(found)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_is_used_where_the_processor_has_it_and_never_emulated() {
        assert_eq!(Products::F32.arithmetic(), Arithmetic::F32);
        let found = Products::Bf16.arithmetic();
        assert_eq!(found != Arithmetic::F32, has_bf16_products());
        assert_ne!(found, Arithmetic::Emulated);
    }
}
