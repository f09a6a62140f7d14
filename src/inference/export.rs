//! Labels of all images, as files for a person or a script: CSV, Parquet, and lists of paths by class. Each takes one image after
//! the other and holds no more than a few thousand of them.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::Arc;

use parquet::basic::Compression;
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, FloatType, Int32Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use zip::write::SimpleFileOptions;

use crate::cells;

/// What an image can be labelled as: a class, or that it shows none of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelName {
    /// The class's name, or the words for the state.
    pub name: String,
    /// The class's number in the project; `None` if it is no class.
    pub id: Option<u16>,
}

/// One image with its label.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LabelledImage<'a> {
    /// Its number in the data set.
    pub index: u32,
    /// Its path as the user gave it.
    pub path: &'a str,
    /// Where it lies on disk.
    pub full_path: &'a str,
    /// Its label, by its place among the [`LabelName`]s.
    pub label: usize,
    /// Probability of the class, in [0, 1].
    pub confidence: f32,
    /// `model`, or `expert` where a person said so.
    pub by: &'static str,
    /// Whether the model is not sure enough for its class to count; an expert always is.
    pub abstained: bool,
}

/// Writes `path,class,confidence,by,abstained`, one line an image. An image that abstained (`true`) has the most likely class
/// all the same; look at it before it counts. Text that a spreadsheet would compute is made harmless, see [`crate::cells`].
pub struct LabelsCsv<'a, W: Write> {
    table: csv::Writer<W>,
    names: &'a [LabelName],
}

impl<'a, W: Write> LabelsCsv<'a, W> {
    /// Writes the first line.
    ///
    /// # Errors
    /// Those of `out`, here and below.
    pub fn new(out: W, names: &'a [LabelName]) -> io::Result<Self> {
        let mut table = csv::Writer::from_writer(out);
        table.write_record(["path", "class", "confidence", "by", "abstained"])?;
        Ok(Self { table, names })
    }

    /// Writes an image's line.
    pub fn add(&mut self, image: &LabelledImage) -> io::Result<()> {
        let confidence = format!("{:.6}", image.confidence);
        let abstained = if image.abstained { "true" } else { "false" };
        let (path, class) = (cells::harmless(image.path), cells::harmless(&self.names[image.label].name));
        Ok(self.table.write_record([&*path, &*class, &confidence, image.by, abstained])?)
    }

    /// Nothing is left to be written.
    pub fn finish(mut self) -> io::Result<()> {
        self.table.flush()
    }
}

/// Images of a Parquet file's row group, which is held in memory until it is full.
const ROWS: usize = 1 << 16;

const SCHEMA: &str = "message labels {
    required binary path (STRING);
    required binary class (STRING);
    optional int32 class_id (INTEGER(32, true));
    required float confidence;
    required binary by (STRING);
    required boolean abstained;
}";

/// Writes an Apache Parquet file with the columns `path`, `class`, `class_id` (null where the label is no class), `confidence`,
/// `by`, `abstained`, compressed with Snappy.
pub struct LabelsParquet<'a, W: Write + Send> {
    file: SerializedFileWriter<W>,
    names: Vec<ByteArray>,
    ids: &'a [LabelName],
    group: Group,
}

/// The columns of a row group.
#[derive(Default)]
struct Group {
    path: Vec<ByteArray>,
    label: Vec<usize>,
    confidence: Vec<f32>,
    by: Vec<ByteArray>,
    abstained: Vec<bool>,
}

impl<'a, W: Write + Send> LabelsParquet<'a, W> {
    /// Begins the file.
    ///
    /// # Errors
    /// Those of `out`, here and below.
    pub fn new(out: W, names: &'a [LabelName]) -> io::Result<Self> {
        let schema = parse_message_type(SCHEMA).expect("the schema is a constant");
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_created_by(format!("HARVEST {}", env!("CARGO_PKG_VERSION")))
            .build();
        let file = SerializedFileWriter::new(out, Arc::new(schema), Arc::new(properties)).map_err(written)?;
        let bytes = names.iter().map(|label| ByteArray::from(label.name.as_bytes().to_vec())).collect();
        Ok(Self { file, names: bytes, ids: names, group: Group::default() })
    }

    /// Adds an image's row.
    pub fn add(&mut self, image: &LabelledImage) -> io::Result<()> {
        let group = &mut self.group;
        group.path.push(ByteArray::from(image.path.as_bytes().to_vec()));
        group.label.push(image.label);
        group.confidence.push(image.confidence);
        group.by.push(ByteArray::from(image.by.as_bytes().to_vec()));
        group.abstained.push(image.abstained);
        if group.path.len() == ROWS { self.write_group() } else { Ok(()) }
    }

    /// Writes what is left, and the end of the file.
    pub fn finish(mut self) -> io::Result<()> {
        self.write_group()?;
        self.file.close().map(|_| ()).map_err(written)
    }

    fn write_group(&mut self) -> io::Result<()> {
        let group = std::mem::take(&mut self.group);
        if group.path.is_empty() {
            return Ok(());
        }
        let class: Vec<ByteArray> = group.label.iter().map(|label| self.names[*label].clone()).collect();
        let ids = || group.label.iter().map(|label| self.ids[*label].id);
        let (known, defined): (Vec<i32>, Vec<i16>) =
            (ids().flatten().map(i32::from).collect(), ids().map(|id| i16::from(id.is_some())).collect());
        let mut write = || -> Result<(), ParquetError> {
            let mut rows = self.file.next_row_group()?;
            let mut column = |number: usize| -> Result<(), ParquetError> {
                let Some(mut column) = rows.next_column()? else { return Ok(()) };
                match number {
                    0 => column.typed::<ByteArrayType>().write_batch(&group.path, None, None)?,
                    1 => column.typed::<ByteArrayType>().write_batch(&class, None, None)?,
                    2 => column.typed::<Int32Type>().write_batch(&known, Some(&defined), None)?,
                    3 => column.typed::<FloatType>().write_batch(&group.confidence, None, None)?,
                    4 => column.typed::<ByteArrayType>().write_batch(&group.by, None, None)?,
                    _ => column.typed::<BoolType>().write_batch(&group.abstained, None, None)?,
                };
                column.close()
            };
            (0..6).try_for_each(&mut column)?;
            rows.close().map(|_| ())
        };
        write().map_err(written)
    }
}

/// The error of the file below, if it is one.
fn written(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(source) => match source.downcast::<io::Error>() {
            Ok(error) => *error,
            Err(other) => io::Error::other(other),
        },
        other => io::Error::other(other),
    }
}

/// Bytes of a label's paths that are held before they go to the temporary file.
const HELD: usize = 1 << 16;

/// Sorts paths by label without holding them: they wait in a temporary file, which is gone with this.
pub struct ClassLists<'a> {
    names: &'a [LabelName],
    lists: Vec<List>,
    waiting: File,
    end: u64,
}

/// Paths of one label: where they wait, and the last ones.
#[derive(Default)]
struct List {
    /// Where pieces begin and how long they are.
    pieces: Vec<(u64, usize)>,
    /// For each path: the image's number, the path's length in bytes, the path.
    held: Vec<u8>,
    images: u64,
}

impl<'a> ClassLists<'a> {
    /// Without any image.
    ///
    /// # Errors
    /// If there can be no temporary file, here and below.
    pub fn new(names: &'a [LabelName]) -> io::Result<Self> {
        let lists = names.iter().map(|_| List::default()).collect();
        Ok(Self { names, lists, waiting: tempfile::tempfile()?, end: 0 })
    }

    /// Adds an image to the list of its label.
    pub fn add(&mut self, image: &LabelledImage) -> io::Result<()> {
        let list = &mut self.lists[image.label];
        let path = image.full_path.as_bytes();
        list.held.extend(image.index.to_le_bytes());
        list.held.extend((path.len() as u32).to_le_bytes());
        list.held.extend(path);
        list.images += 1;
        if list.held.len() >= HELD {
            self.waiting.write_all(&list.held)?;
            list.pieces.push((self.end, list.held.len()));
            self.end += list.held.len() as u64;
            list.held.clear();
        }
        Ok(())
    }

    /// Numbers and paths of a label's images, in the order they were added.
    fn each(&mut self, label: usize, mut take: impl FnMut(u32, &str) -> io::Result<()>) -> io::Result<()> {
        let list = &self.lists[label];
        let mut piece = Vec::new();
        for (start, length) in &list.pieces {
            self.waiting.seek(SeekFrom::Start(*start))?;
            piece.resize(*length, 0);
            self.waiting.read_exact(&mut piece)?;
            unpack(&piece, &mut take)?;
        }
        unpack(&list.held, &mut take)
    }

    /// Writes JSON: for each label the list of image indices and, index by index, the full paths. Every image is in one list,
    /// those that abstained too: they are told by [`LabelsCsv`].
    pub fn write_json(mut self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(b"[")?;
        for label in 0..self.names.len() {
            let name = &self.names[label].name;
            let comma = if label == 0 { "" } else { "," };
            write!(out, "{comma}\n  {{\n    \"class\": ")?;
            serde_json::to_writer(&mut *out, name)?;
            out.write_all(b",\n    \"indices\": [")?;
            let mut comma = "";
            self.each(label, |index, _| write!(out, "{}{index}", std::mem::replace(&mut comma, ", ")))?;
            out.write_all(b"],\n    \"paths\": [")?;
            let mut comma = "";
            self.each(label, |_, path| {
                write!(out, "{}\n      ", std::mem::replace(&mut comma, ","))?;
                Ok(serde_json::to_writer(&mut *out, path)?)
            })?;
            out.write_all(b"\n    ]\n  }")?;
        }
        out.write_all(b"\n]\n")
    }

    /// Writes a ZIP archive with a text file for each label, a path in each line. Paths with a line break in them would be two
    /// lines: those are in [`Self::write_json`] alone.
    pub fn write_zip<W: Write>(mut self, out: W) -> io::Result<()> {
        let mut archive = zip::ZipWriter::new_stream(out);
        let packed = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
        for label in 0..self.names.len() {
            archive.start_file(list_name(label, &self.names[label].name), packed)?;
            self.each(label, |_, path| match path.contains(['\n', '\r']) {
                true => Ok(()),
                false => writeln!(archive, "{path}"),
            })?;
        }
        archive.finish()?.into_inner().flush()
    }
}

/// A file's name that every system takes: a number, so that no two are the same, and what is plain of the label's name.
fn list_name(label: usize, name: &str) -> String {
    let plain = |c: char| if c.is_alphanumeric() || "-_".contains(c) { c } else { '_' };
    let name: String = name.chars().map(plain).take(60).collect();
    format!("{:02}-{name}.txt", label + 1)
}

fn unpack(piece: &[u8], take: &mut impl FnMut(u32, &str) -> io::Result<()>) -> io::Result<()> {
    let mut rest = piece;
    let mut word = [0; 4];
    let mut path = Vec::new();
    while !rest.is_empty() {
        rest.read_exact(&mut word)?;
        let index = u32::from_le_bytes(word);
        rest.read_exact(&mut word)?;
        path.resize(u32::from_le_bytes(word) as usize, 0);
        rest.read_exact(&mut path)?;
        take(index, std::str::from_utf8(&path).map_err(io::Error::other)?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::RowAccessor;

    use super::*;

    fn names() -> Vec<LabelName> {
        let label = |name: &str, id| LabelName { name: name.to_owned(), id };
        vec![label("=rust", Some(4)), label("häil", Some(9)), label("none of these", None)]
    }

    fn rows(count: u32) -> Vec<(u32, String, usize)> {
        (0..count).map(|index| (index, format!("leaf, \"{index}\".png"), index as usize % 3)).collect()
    }

    fn image<'a>((index, path, label): &'a (u32, String, usize)) -> LabelledImage<'a> {
        let expert = index % 5 == 0;
        LabelledImage {
            index: *index,
            path,
            full_path: path,
            label: *label,
            confidence: 1.0 / (1.0 + *index as f32),
            by: if expert { "expert" } else { "model" },
            abstained: !expert && index % 7 == 0,
        }
    }

    #[test]
    fn parquet_brings_every_column_back_over_several_row_groups() {
        let (names, rows) = (names(), rows(ROWS as u32 + 100));
        let mut bytes = Vec::new();
        let mut file = LabelsParquet::new(&mut bytes, &names).expect("memory");
        rows.iter().try_for_each(|row| file.add(&image(row))).expect("memory");
        file.finish().expect("memory");
        let reader = SerializedFileReader::new(axum::body::Bytes::from(bytes)).expect("a Parquet file");
        assert_eq!(reader.metadata().num_row_groups(), 2);
        let columns = reader.metadata().file_metadata().schema_descr().columns();
        let columns: Vec<&str> = columns.iter().map(|column| column.name()).collect();
        assert_eq!(columns, ["path", "class", "class_id", "confidence", "by", "abstained"]);
        let mut count = 0;
        for (row, expected) in reader.get_row_iter(None).expect("rows").zip(&rows) {
            let (row, expected) = (row.expect("a row"), image(expected));
            assert_eq!(row.get_string(0).expect("text"), expected.path);
            assert_eq!(*row.get_string(1).expect("text"), names[expected.label].name);
            let id = names[expected.label].id.map(i32::from);
            assert_eq!(row.get_int(2).ok(), id);
            assert_eq!(row.get_float(3).expect("a number"), expected.confidence);
            assert_eq!(row.get_string(4).expect("text"), expected.by);
            assert_eq!(row.get_bool(5).expect("a truth"), expected.abstained);
            count += 1;
        }
        assert_eq!(count, rows.len());
    }

    #[test]
    fn a_file_without_images_is_a_file() {
        let (names, mut bytes) = (names(), Vec::new());
        LabelsParquet::new(&mut bytes, &names).and_then(LabelsParquet::finish).expect("memory");
        let reader = SerializedFileReader::new(axum::body::Bytes::from(bytes)).expect("a Parquet file");
        assert_eq!(reader.metadata().file_metadata().num_rows(), 0);
    }

    #[test]
    fn no_cell_of_the_table_is_a_formula() {
        let (names, mut bytes) = (names(), Vec::new());
        let mut table = LabelsCsv::new(&mut bytes, &names).expect("memory");
        table.add(&image(&(0, "=1+1.png".to_owned(), 0))).expect("memory");
        table.finish().expect("memory");
        let text = String::from_utf8(bytes).expect("text");
        assert_eq!(text, "path,class,confidence,by,abstained\n'=1+1.png,'=rust,1.000000,expert,false\n");
    }

    #[test]
    fn lists_hold_every_image_once_under_its_label() {
        let (names, rows) = (names(), rows(9000));
        let lists = || {
            let mut lists = ClassLists::new(&names).expect("a temporary file");
            rows.iter().try_for_each(|row| lists.add(&image(row))).expect("a temporary file");
            lists
        };
        let mut json = Vec::new();
        lists().write_json(&mut json).expect("memory");
        let json: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
        for (label, list) in json.as_array().expect("a list").iter().enumerate() {
            assert_eq!(list["class"], names[label].name);
            let own = || rows.iter().filter(|row| row.2 == label);
            assert_eq!(list["indices"], serde_json::json!(own().map(|row| row.0).collect::<Vec<_>>()));
            assert_eq!(list["paths"], serde_json::json!(own().map(|row| &row.1).collect::<Vec<_>>()));
        }
        let mut zip = Vec::new();
        lists().write_zip(&mut zip).expect("memory");
        let mut zip = zip::ZipArchive::new(io::Cursor::new(zip)).expect("an archive");
        assert_eq!(zip.len(), 3);
        for (label, name) in ["01-_rust.txt", "02-häil.txt", "03-none_of_these.txt"].iter().enumerate() {
            let mut text = String::new();
            zip.by_name(name).expect("there").read_to_string(&mut text).expect("text");
            let own: String =
                rows.iter().filter(|row| row.2 == label).map(|row| format!("{}\n", row.1)).collect();
            assert_eq!(text, own);
        }
    }
}
