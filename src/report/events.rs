//! Scalars for TensorBoard: its event files, written directly.
//!
//! An event file is a sequence of TFRecords (TensorFlow, `core/lib/io/record_writer.h`), each holding one
//! protocol-buffer message (`core/util/event.proto`, `core/framework/summary.proto`):
//!
//! ```text
//! u64 length   u32 masked crc of the length   length bytes   u32 masked crc of the bytes      little endian
//! masked crc = rotate_right(crc32c, 15) + 0xa282ead8
//!
//! Event      { double wall_time = 1; int64 step = 2; string file_version = 3; Summary summary = 5;
//!              SessionLog session_log = 7; }
//! Summary    { repeated Value value = 1; }     Value { string tag = 1; float simple_value = 2; }
//! SessionLog { SessionStatus status = 1; }     START = 1
//! ```
//!
//! These few fields are encoded by hand: a protocol-buffer compiler would be the larger dependency.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Writes one event file. Records go out whole, so a killed run leaves at most one that is cut short, which
/// TensorBoard ignores.
#[derive(Debug)]
pub struct EventWriter {
    file: File,
    path: PathBuf,
}

impl EventWriter {
    /// Starts a file `events.out.tfevents.<seconds>.<host>` in `folder`, which is made if it is missing.
    pub fn create(folder: &Path) -> std::io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let name = format!("events.out.tfevents.{:010}.{}", seconds_since_epoch() as u64, host());
        // Two writers may start in one second: the later one gets a name that also sorts later.
        let names = std::iter::once(name.clone()).chain((1..).map(|n| format!("{name}.{n}")));
        for path in names.map(|name| folder.join(name)) {
            match OpenOptions::new().append(true).create_new(true).open(&path) {
                Ok(file) => {
                    let mut writer = Self { file, path };
                    writer.write(&event(0, |event| event.bytes(3, b"brain.Event:2")))?;
                    return Ok(writer);
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        unreachable!("the names never end")
    }

    /// Starts a file for a run resumed after `step`: TensorBoard then drops what earlier files in `folder` hold
    /// of later steps.
    pub fn resume(folder: &Path, step: u64) -> std::io::Result<Self> {
        let mut writer = Self::create(folder)?;
        let mut start = Message::default();
        start.integer(1, 1);
        writer.write(&event(step + 1, |event| event.bytes(7, &start.0)))?;
        Ok(writer)
    }

    /// Writes values of one step. A tag's part before `/` groups charts: `train/loss`.
    pub fn scalars(&mut self, step: u64, values: &[(&str, f64)]) -> std::io::Result<()> {
        let mut summary = Message::default();
        for (tag, value) in values {
            let mut entry = Message::default();
            entry.bytes(1, tag.as_bytes());
            entry.single(2, *value as f32);
            summary.bytes(1, &entry.0);
        }
        self.write(&event(step, |event| event.bytes(5, &summary.0)))
    }

    /// The file written.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn write(&mut self, event: &Message) -> std::io::Result<()> {
        self.file.write_all(&record(&event.0))
    }
}

/// An `Event` of now at `step`, with what `fill` adds.
fn event(step: u64, fill: impl FnOnce(&mut Message)) -> Message {
    let mut event = Message::default();
    event.double(1, seconds_since_epoch());
    event.integer(2, step);
    fill(&mut event);
    event
}

/// One TFRecord around `data`.
fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    [&length[..], &masked_crc(&length).to_le_bytes(), data, &masked_crc(data).to_le_bytes()].concat()
}

fn masked_crc(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// A protocol-buffer message being encoded: each field is `number << 3 | wire type`, then its value.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn integer(&mut self, field: u64, value: u64) {
        self.varint(field << 3);
        self.varint(value);
    }

    fn double(&mut self, field: u64, value: f64) {
        self.varint(field << 3 | 1);
        self.0.extend(value.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, value: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend(value);
    }

    fn single(&mut self, field: u64, value: f32) {
        self.varint(field << 3 | 5);
        self.0.extend(value.to_le_bytes());
    }

    /// Seven bits a byte, lowest first; the top bit says that more follow.
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

fn seconds_since_epoch() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// The machine's name, with what a file name had better not hold left out.
fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").or_else(|_| std::env::var("HOSTNAME"));
    let name: String = name.unwrap_or_default();
    let kept: String =
        name.trim().chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')).collect();
    if kept.is_empty() { "localhost".to_owned() } else { kept }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes one record off the front, checking both sums.
    fn next_record<'a>(bytes: &mut &'a [u8]) -> &'a [u8] {
        let (length, rest) = bytes.split_at(8);
        let (length_crc, rest) = rest.split_at(4);
        let (data, rest) = rest.split_at(u64::from_le_bytes(length.try_into().unwrap()) as usize);
        let (data_crc, rest) = rest.split_at(4);
        assert_eq!(length_crc, masked_crc(length).to_le_bytes());
        assert_eq!(data_crc, masked_crc(data).to_le_bytes());
        *bytes = rest;
        data
    }

    #[test]
    fn crc_is_castagnoli_and_masked_as_tensorflow_does() {
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283); // the check value of CRC-32C, RFC 3720
        assert_eq!(masked_crc(b"123456789"), 0xe306_9283u32.rotate_right(15).wrapping_add(0xa282_ead8));
    }

    #[test]
    fn records_decode_to_what_was_logged() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = EventWriter::create(&folder.path().join("events")).unwrap();
        writer.scalars(300, &[("train/loss", 0.5), ("lr", 1e-3)]).unwrap();
        let name = writer.path().file_name().unwrap().to_str().unwrap().to_owned();
        assert!(name.starts_with("events.out.tfevents."), "{name}");
        let bytes = std::fs::read(writer.path()).unwrap();
        let mut rest = &bytes[..];
        let version = next_record(&mut rest);
        // wall_time (9 bytes), step 0 (2 bytes), file_version
        assert_eq!(version[11..], *b"\x1a\x0dbrain.Event:2");
        let scalars = next_record(&mut rest);
        assert_eq!(scalars[9..12], [0x10, 0xac, 0x02], "step 300 as a varint");
        let mut expected = b"\x2a\x1e\x0a\x11\x0a\x0atrain/loss\x15".to_vec();
        expected.extend(0.5f32.to_le_bytes());
        expected.extend(b"\x0a\x09\x0a\x02lr\x15");
        expected.extend(1e-3f32.to_le_bytes());
        assert_eq!(scalars[12..], expected);
        assert!(rest.is_empty());
    }

    #[test]
    fn a_resumed_run_gets_a_file_of_its_own_that_says_where_it_starts() {
        let folder = tempfile::tempdir().unwrap();
        let first = EventWriter::create(folder.path()).unwrap();
        let second = EventWriter::resume(folder.path(), 4).unwrap();
        assert!(second.path() > first.path());
        let bytes = std::fs::read(second.path()).unwrap();
        let mut rest = &bytes[..];
        next_record(&mut rest);
        assert_eq!(next_record(&mut rest)[9..], [0x10, 5, 0x3a, 2, 0x08, 1]);
    }
}
