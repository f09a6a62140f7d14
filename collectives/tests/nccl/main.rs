//! NCCL without a GPU, against stand-ins for its library and CUDA's driver: `fake.c` and `cuda.c`.

#![expect(unsafe_code, reason = "loads libraries of its own")]

mod calls;
mod ranks;
mod team;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};

use harvest_collectives::nccl::Library;

/// The library that a C compiler makes of `source`, with these definitions.
fn compile(source: &str, name: &str, definitions: &[&str]) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nccl").join(source);
    // Tests run at the same time, in processes of their own or in one.
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("there is room");
    let library = folder.join(format!("lib{name}.so"));
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-pthread", "-o"]).arg(&library).arg(source);
    compiler.arg(format!("-Wl,-soname,lib{name}.so"));
    compiler.args(definitions.iter().map(|definition| format!("-D{definition}")));
    assert!(compiler.status().expect("there is a C compiler").success());
    library
}

/// A stand-in for NCCL. Each has its own ranks.
fn nccl(name: &str, definitions: &[&str]) -> (Arc<Library>, PathBuf) {
    let file = compile("fake.c", name, definitions);
    (Library::open(&file).expect("it has all functions"), file)
}

/// The stand-in for CUDA's driver; made once, for a library in use must not be written.
fn cuda() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| compile("cuda.c", "cuda", &[]))
}

/// How often the stand-in's communicators were (aborted, destroyed).
fn ends(file: &Path) -> (i32, i32) {
    // SAFETY: the stand-in is loaded already, and its two functions take nothing and return an int.
    unsafe {
        let library = libloading::Library::new(file).expect("loaded before");
        let count = |name: &str| {
            let function = library.get::<unsafe extern "C" fn() -> i32>(name).expect("it has it");
            function()
        };
        (count("fake_aborted"), count("fake_destroyed"))
    }
}
