//! The picture being worked on, and a spare of the same size for operations that cannot work in place.

use std::cell::Cell;

/// Red, green, blue; 0 to 255.
pub type Pixel = [u8; 3];

thread_local! {
    /// Kept from one picture to the next: asking for fresh memory would cost as much as a cheap operation.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A picture that operations change one after the other; see [`Canvas::edit`].
#[derive(Debug)]
pub struct Canvas<'a> {
    pub(super) width: usize,
    pub(super) height: usize,
    /// The picture: `[height * width]`, row by row.
    pub(super) pixels: &'a mut [Pixel],
    /// As long as `pixels`; content without meaning.
    pub(super) spare: &'a mut [Pixel],
    swapped: bool,
}

impl Canvas<'_> {
    /// Lets `work` change the picture in `bytes` (`height * width * 3`, row by row).
    ///
    /// # Panics
    /// If `bytes` is not of that length.
    pub fn edit(width: usize, height: usize, bytes: &mut [u8], work: impl FnOnce(&mut Canvas)) {
        assert_eq!(bytes.len(), width * height * 3, "the bytes of a {width} x {height} RGB picture");
        let mut memory = SPARE.take();
        if memory.len() < bytes.len() {
            memory.resize(bytes.len(), 0);
        }
        let spare = memory[..bytes.len()].as_chunks_mut().0;
        let mut canvas = Canvas { width, height, pixels: bytes.as_chunks_mut().0, spare, swapped: false };
        work(&mut canvas);
        if canvas.swapped {
            canvas.spare.copy_from_slice(canvas.pixels);
        }
        SPARE.set(memory);
    }

    /// Makes the spare, which an operation has filled, the picture.
    pub(super) fn swap(&mut self) {
        std::mem::swap(&mut self.pixels, &mut self.spare);
        self.swapped = !self.swapped;
    }
}
