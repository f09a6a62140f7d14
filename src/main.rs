//! harvest
fn main() {}
