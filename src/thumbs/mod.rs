//! Thumbnails: made in parallel, packed in few files, found by the content of their image.
