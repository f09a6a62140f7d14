//! What a web page calls: plain functions on the module's memory, no generated glue.
//!
//! The page writes bytes where [`harvest_alloc`] says, and hands them over by address and length. Answers are JSON, read
//! from [`harvest_result`] and [`harvest_result_length`]; they stay until the next call.

use std::cell::RefCell;

use crate::Classifier;

#[derive(Default)]
struct Page {
    /// Handed out and not yet taken back.
    memory: Vec<Box<[u8]>>,
    classifier: Option<Classifier>,
    answer: String,
}

thread_local! {
    static PAGE: RefCell<Page> = RefCell::default();
}

/// Room for `length` bytes; 0 where there is none.
#[expect(unsafe_code, reason = "the name by which the page calls it")]
// SAFETY: no other function of the module has this name.
#[unsafe(no_mangle)]
pub extern "C" fn harvest_alloc(length: usize) -> *const u8 {
    let mut bytes = Vec::new();
    if bytes.try_reserve_exact(length.max(1)).is_err() {
        return std::ptr::null();
    }
    bytes.resize(length.max(1), 0u8);
    let bytes = bytes.into_boxed_slice();
    let address = bytes.as_ptr();
    PAGE.with_borrow_mut(|page| page.memory.push(bytes));
    address
}

/// Gives back what [`harvest_alloc`] gave; other addresses do nothing.
#[expect(unsafe_code, reason = "the name by which the page calls it")]
// SAFETY: no other function of the module has this name.
#[unsafe(no_mangle)]
pub extern "C" fn harvest_free(address: *const u8) {
    PAGE.with_borrow_mut(|page| page.memory.retain(|bytes| bytes.as_ptr() != address));
}

/// Loads a bundle from the content of `config.json` and of an ONNX file, both at addresses [`harvest_alloc`] gave.
/// 1 if it can be used; else the answer says why not.
#[expect(unsafe_code, reason = "the name by which the page calls it")]
// SAFETY: no other function of the module has this name.
#[unsafe(no_mangle)]
pub extern "C" fn harvest_load(config: *const u8, model: *const u8) -> u32 {
    PAGE.with_borrow_mut(|page| {
        let loaded = match (page.bytes(config), page.bytes(model)) {
            (Some(config), Some(model)) => {
                Classifier::from_bytes(config, model).map_err(|error| error.to_string())
            }
            _ => Err("the page named memory that is not its own".into()),
        };
        match loaded {
            Ok(classifier) => {
                page.answer = serde_json::json!({ "classes": classifier.config().classes }).to_string();
                page.classifier = Some(classifier);
                1
            }
            Err(reason) => page.refuse(&reason),
        }
    })
}

/// Classifies the content of an image file at an address [`harvest_alloc`] gave. 1 if there is a prediction.
#[expect(unsafe_code, reason = "the name by which the page calls it")]
// SAFETY: no other function of the module has this name.
#[unsafe(no_mangle)]
pub extern "C" fn harvest_classify(image: *const u8) -> u32 {
    PAGE.with_borrow_mut(|page| {
        let predicted = match (&page.classifier, page.bytes(image)) {
            (Some(classifier), Some(image)) => classifier
                .classify(image)
                .map(|prediction| (classifier.config().classes[prediction.class].clone(), prediction))
                .map_err(|error| error.to_string()),
            (None, _) => Err("no bundle is loaded".into()),
            (_, None) => Err("the page named memory that is not its own".into()),
        };
        match predicted {
            Ok((class, prediction)) => {
                page.answer = serde_json::json!({
                    "class": class,
                    "confidence": prediction.confidence,
                    "abstained": prediction.abstained,
                    "probabilities": prediction.probabilities,
                })
                .to_string();
                1
            }
            Err(reason) => page.refuse(&reason),
        }
    })
}

/// Where the last answer is: JSON in UTF-8.
#[expect(unsafe_code, reason = "the name by which the page calls it")]
// SAFETY: no other function of the module has this name.
#[unsafe(no_mangle)]
pub extern "C" fn harvest_result() -> *const u8 {
    PAGE.with_borrow(|page| page.answer.as_ptr())
}

/// Bytes of the last answer.
#[expect(unsafe_code, reason = "the name by which the page calls it")]
// SAFETY: no other function of the module has this name.
#[unsafe(no_mangle)]
pub extern "C" fn harvest_result_length() -> usize {
    PAGE.with_borrow(|page| page.answer.len())
}

impl Page {
    /// What lies at an address that was handed out.
    fn bytes(&self, address: *const u8) -> Option<&[u8]> {
        self.memory.iter().find(|bytes| bytes.as_ptr() == address).map(|bytes| &bytes[..])
    }

    fn refuse(&mut self, reason: &str) -> u32 {
        self.answer = serde_json::json!({ "error": reason }).to_string();
        0
    }
}
