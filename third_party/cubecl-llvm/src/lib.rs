//! Stand-in for `cubecl-llvm` 0.11.3: the items `cubecl-cuda` names, and a compiler that refuses every kernel.
//!
//! `cubecl-cuda` has two ways to a kernel: CUDA C++ compiled by NVRTC at run time (its feature `cpp`, cubecl's
//! `cuda-cpp`) and PTX through LLVM. Both are always compiled, and the second would fetch an LLVM bundle during the
//! build. HARVEST takes only the first; this crate satisfies the type checker for the second. See `README.md`.

use std::ffi::c_char;
use std::fmt;

use cubecl_core::ir::nvidia::SmArch;
use cubecl_core::prelude::KernelDefinition;
use cubecl_environment::backtrace::BackTrace;
use cubecl_runtime::compiler::{CompilationError, Compiler};
use cubecl_runtime::kernel::BufferIOAttr;

use nvptx::ptx_version::PtxVersion;

/// What the real crate generates code for; `cubecl-cuda` names only this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LlvmTarget {
    /// PTX for NVIDIA GPUs.
    Nvptx,
}

/// Takes the place of the LLVM compiler; every kernel is refused with an explanation.
#[derive(Clone, Debug)]
pub struct PlironCompiler {
    /// Unused.
    pub target: LlvmTarget,
}

/// Options of the real compiler, unused here.
#[derive(Clone, Debug, Default)]
pub struct PlironOptions {
    /// AMD architecture in the real crate; `cubecl-cuda` always passes `None`.
    pub arch: Option<()>,
    /// NVIDIA architecture.
    pub sm_arch: Option<SmArch>,
    /// PTX version to emit.
    pub ptx_version: Option<PtxVersion>,
    /// Whether kernel parameters are grid constants.
    pub grid_constants: bool,
}

/// A kernel compiled to PTX; never made here.
#[derive(Clone, Debug)]
pub struct NvptxModule {
    /// PTX text, ending in a NUL.
    pub ptx: Vec<c_char>,
    /// LLVM IR, for logs.
    pub ir: String,
    /// Dynamic shared memory of a launch, in bytes.
    pub shared_memory_size: usize,
    /// What the kernel does with each buffer.
    pub io: Vec<BufferIOAttr>,
}

/// Output of the real compiler; never made here.
#[derive(Clone, Debug)]
pub enum PlironArtifact {
    /// PTX.
    NvptxCode(NvptxModule),
}

impl fmt::Display for PlironArtifact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NvptxCode(module) => f.write_str(&module.ir),
        }
    }
}

impl Compiler for PlironCompiler {
    type Representation = PlironArtifact;
    type CompilationOptions = PlironOptions;

    fn compile(
        &mut self,
        _: KernelDefinition,
        _: &PlironOptions,
    ) -> Result<PlironArtifact, CompilationError> {
        Err(CompilationError::Generic {
            reason: "this program was built without LLVM: cubecl's feature `cuda-cpp` (NVRTC) must be on"
                .into(),
            backtrace: BackTrace::capture(),
        })
    }

    fn extension(&self) -> &'static str {
        "ll"
    }

    fn lang_tag(&self) -> &'static str {
        "llvm"
    }
}

/// NVIDIA's part of the real crate.
pub mod nvptx {
    /// PTX versions.
    pub mod ptx_version {
        use std::fmt;

        /// A PTX version; part of a cache's name in `cubecl-cuda`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub struct PtxVersion(i32);

        impl PtxVersion {
            /// One per CUDA driver version (12.8 is `12080`), which keeps the caches of different drivers apart.
            pub fn for_driver(driver: i32) -> Option<Self> {
                (driver >= 10_000).then_some(Self(driver))
            }
        }

        impl fmt::Display for PtxVersion {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "driver{}", self.0)
            }
        }
    }
}

/// What the real crate's targets share.
pub mod shared {
    /// Narrowing a device's features to what LLVM can lower.
    pub mod lowered_features {
        use cubecl_core::ir::DeviceProperties;

        /// Target to narrow for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum GpuTarget {
            /// NVIDIA GPUs.
            Nvptx,
        }

        /// Leaves the features as they are: called only when LLVM is the chosen compiler, and then nothing compiles.
        pub fn restrict_features(_: &mut DeviceProperties, _: GpuTarget) {}
    }
}
