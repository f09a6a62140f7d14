//! ONNX files as Rust types: the official schema (`proto/onnx.proto`, of the ONNX project, Apache-2.0), compiled by prost.
//!
//! ```
//! use harvest_onnx::{ModelProto, prost::Message};
//!
//! let model = ModelProto { producer_name: Some("harvest".into()), ..ModelProto::default() };
//! assert_eq!(ModelProto::decode(model.encode_to_vec().as_slice()).as_ref(), Ok(&model));
//! ```

pub use prost;

#[expect(missing_docs, clippy::all, reason = "generated; the schema documents itself")]
mod schema {
    include!(concat!(env!("OUT_DIR"), "/onnx.rs"));
}

pub use schema::*;
