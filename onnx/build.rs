//! Makes Rust types of the schema.

fn main() {
    println!("cargo::rerun-if-changed=proto/onnx.proto");
    let schema = protox::compile(["onnx.proto"], ["proto"]).expect("the schema is valid");
    prost_build::Config::new().compile_fds(schema).expect("the build folder can be written");
}
