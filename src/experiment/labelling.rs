//! A label for every image of a run: an expert's where there is one, else the model's belief.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::{BELIEFS, Beliefs, ExperimentError, read_class_ids};
use crate::data::{ContentHash, ImageRecord, ManifestStream};
use crate::inference::{ClassLists, LabelName, LabelledImage, LabelsCsv, LabelsParquet};
use crate::project::{Classes, Label, Run};

/// What is known about the labels of a run's images. Images are read from the run's folder one after the other.
pub struct Labelling {
    images: PathBuf,
    beliefs: PathBuf,
    names: Vec<LabelName>,
    expert: Expert,
}

/// A kind of file that holds the labels of all images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LabelFile {
    /// See [`LabelsCsv`].
    Csv,
    /// See [`LabelsParquet`].
    Parquet,
    /// Full paths of each class; see [`ClassLists::write_zip`].
    Lists,
    /// Indices and full paths of each class; see [`ClassLists::write_json`].
    Json,
}

impl LabelFile {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::Csv, Self::Parquet, Self::Lists, Self::Json];

    /// What such a file is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Csv => "labels.csv",
            Self::Parquet => "labels.parquet",
            Self::Lists => "lists.zip",
            Self::Json => "classes.json",
        }
    }
}

/// What experts have said.
enum Expert {
    /// Of images with these pixels.
    Of(BTreeMap<[u8; 32], Label>),
    /// Of images of these numbers: what the run was given.
    Given(Vec<(u32, u16)>),
}

impl Labelling {
    /// Of the run in `folder`, whose classes are called `classes` in the order of its network's outputs. The model's beliefs are
    /// read from the folder.
    ///
    /// # Errors
    /// If `folder` holds no run.
    pub fn new(folder: &Path, classes: &[String]) -> Result<Self, ExperimentError> {
        let run = Run::open(folder)?;
        let ids = read_class_ids(&run)?.unwrap_or_else(|| (0..classes.len() as u16).collect());
        let own =
            ids.into_iter().zip(classes).map(|(id, name)| LabelName { name: name.clone(), id: Some(id) });
        Ok(Self {
            images: run.path("inputs/images.jsonl"),
            beliefs: run.path(BELIEFS),
            names: own.collect(),
            expert: Expert::Given(Vec::new()),
        })
    }

    /// With beliefs from another file.
    pub fn believing(self, beliefs: PathBuf) -> Self {
        Self { beliefs, ..self }
    }

    /// With labels that the run was given: numbers of images, ascending, and of classes.
    pub fn given(self, labels: Vec<(u32, u16)>) -> Self {
        Self { expert: Expert::Given(labels), ..self }
    }

    /// With the labels of a project as they are now, and the names its classes have now; a class that has gone keeps the name it
    /// had.
    pub fn of_experts(mut self, labels: BTreeMap<[u8; 32], Label>, classes: &Classes) -> Self {
        for label in &mut self.names {
            if let Some(name) = label.id.and_then(|id| classes.name_of(id)) {
                label.name = name.to_owned();
            }
        }
        // Those that were added since: experts may have found some of them.
        for class in classes.iter() {
            if self.place_of(class.id).is_none() {
                self.names.push(LabelName { name: class.name.clone(), id: Some(class.id) });
            }
        }
        for (state, words) in Label::STATES {
            // Whoever is not sure has not said what it is: the model's word stands.
            if state != Label::NotSure && labels.values().any(|label| *label == state) {
                self.names.push(LabelName { name: words.to_owned(), id: None });
            }
        }
        Self { expert: Expert::Of(labels), ..self }
    }

    /// What images can be labelled as.
    pub fn names(&self) -> &[LabelName] {
        &self.names
    }

    /// Whether the model has looked at the images.
    pub fn is_ready(&self) -> bool {
        self.beliefs.is_file()
    }

    /// Gives every image to `take`, in the order of the run's list.
    ///
    /// # Errors
    /// If a file of the run is missing or damaged, or `take` fails.
    pub fn each(
        &self,
        mut take: impl FnMut(&LabelledImage) -> io::Result<()>,
    ) -> Result<(), ExperimentError> {
        let damaged =
            |reason: &str| ExperimentError::Damaged { path: self.beliefs.clone(), reason: reason.to_owned() };
        let missing = || damaged("it is missing; `harvest labels` makes it");
        let mut beliefs = Beliefs::open(&self.beliefs)?.ok_or_else(missing)?;
        let mut stream = ManifestStream::open(&self.images)?;
        // What was said of the first of several copies, for the others.
        let mut said: Vec<Said> = Vec::with_capacity(stream.len());
        for index in 0..stream.len() as u32 {
            let Some(image) = stream.next().transpose()? else { break };
            let believed = match image.duplicate_of {
                Some(first) => *said.get(first as usize).ok_or_else(|| damaged("it has too few rows"))?,
                None => {
                    let belief = beliefs.next().transpose()?.ok_or_else(|| damaged("it has too few rows"))?;
                    if belief.hash != image.hash {
                        return Err(damaged("it is of other images"));
                    }
                    let label = self.place_of(belief.class).ok_or_else(|| damaged("it has other classes"))?;
                    Said { label, confidence: belief.confidence, abstained: belief.abstained }
                }
            };
            said.push(believed);
            let full_path = stream.full_path(&image).display().to_string();
            let (said, by) = match self.expert_on(index, &image) {
                Some(label) => (Said { label, confidence: 1.0, abstained: false }, "expert"),
                None => (believed, "model"),
            };
            take(&LabelledImage {
                index,
                path: &image.path,
                full_path: &full_path,
                label: usize::from(said.label),
                confidence: said.confidence,
                by,
                abstained: said.abstained,
            })
            .map_err(|source| ExperimentError::Output { source })?;
        }
        Ok(())
    }

    /// Writes a file of all labels, an image after the other.
    ///
    /// # Errors
    /// As [`Self::each`].
    pub fn write(&self, kind: LabelFile, out: &mut (dyn Write + Send)) -> Result<(), ExperimentError> {
        let failed = |source| ExperimentError::Output { source };
        match kind {
            LabelFile::Csv => {
                let mut table = LabelsCsv::new(out, &self.names).map_err(failed)?;
                self.each(|image| table.add(image))?;
                table.finish().map_err(failed)
            }
            LabelFile::Parquet => {
                let mut table = LabelsParquet::new(out, &self.names).map_err(failed)?;
                self.each(|image| table.add(image))?;
                table.finish().map_err(failed)
            }
            LabelFile::Lists | LabelFile::Json => {
                let mut lists = ClassLists::new(&self.names).map_err(failed)?;
                self.each(|image| lists.add(image))?;
                match kind {
                    LabelFile::Json => lists.write_json(out),
                    _ => lists.write_zip(out),
                }
                .map_err(failed)
            }
        }
    }

    /// Place among the names of a class.
    fn place_of(&self, class: u16) -> Option<u16> {
        self.names.iter().position(|label| label.id == Some(class)).map(|place| place as u16)
    }

    fn expert_on(&self, index: u32, image: &ImageRecord) -> Option<u16> {
        let ContentHash(hash) = image.hash;
        match &self.expert {
            Expert::Given(labels) => {
                let found = labels.binary_search_by_key(&index, |(index, _)| *index).ok()?;
                Some(labels[found].1)
            }
            Expert::Of(labels) => match labels.get(&hash)? {
                Label::Class(id) => self.place_of(*id),
                Label::NotSure => None,
                state => {
                    let words = Label::STATES.iter().find(|(label, _)| label == state)?.1;
                    let place = self.names.iter().position(|label| label.id.is_none() && label.name == words);
                    place.map(|place| place as u16)
                }
            },
        }
    }
}

/// A label, by its place among the names.
#[derive(Clone, Copy)]
struct Said {
    label: u16,
    confidence: f32,
    abstained: bool,
}

#[cfg(test)]
mod tests {
    use std::io::BufWriter;
    use std::time::Instant;

    use super::*;

    /// A run folder of `count` images, every tenth a copy of the one before it.
    fn run(folder: &Path, count: u32) {
        std::fs::create_dir(folder.join("inputs")).expect("writable");
        std::fs::write(folder.join("fingerprint"), blake3::hash(b"x").to_hex().as_str()).expect("writable");
        std::fs::write(folder.join("inputs/class_ids.json"), "[0,3]").expect("writable");
        let file = |name: &str| BufWriter::new(std::fs::File::create(folder.join(name)).expect("writable"));
        let (mut images, mut beliefs) = (file("inputs/images.jsonl"), file(BELIEFS));
        let head = serde_json::json!({"harvest_manifest": 1, "source": {"folder": {"root": "/data"}}, "root": "/data",
            "classes": [], "images": count, "set_aside": 0, "hidden": 0});
        writeln!(images, "{head}").expect("writable");
        writeln!(beliefs, "hash,part,class,confidence,second,second_confidence,abstained").expect("writable");
        for index in 0..count {
            let copy = index % 10 == 9;
            let content = if copy { index - 1 } else { index };
            let hash = ContentHash(*blake3::hash(&content.to_le_bytes()).as_bytes());
            let image = ImageRecord {
                path: format!("field {}/IMG_{index:07}.jpg", index % 100),
                hash,
                width: 4000,
                height: 3000,
                size_bytes: 1,
                modified_ns: 0,
                duplicate_of: copy.then_some(content),
                label: None,
                part: None,
            };
            writeln!(images, "{}", serde_json::to_string(&image).expect("plain data")).expect("writable");
            if !copy {
                let class = [0, 3][index as usize % 2];
                writeln!(beliefs, "{hash},unlabelled,{class},0.75,{},0.25,false", 3 - class)
                    .expect("writable");
            }
        }
        images.flush().and_then(|()| beliefs.flush()).expect("writable");
    }

    fn labelling(folder: &Path) -> Labelling {
        Labelling::new(folder, &["healthy".to_owned(), "rust".to_owned()]).expect("a run")
    }

    #[test]
    fn copies_share_a_label_and_what_does_not_fit_is_damage() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        run(folder.path(), 40);
        let mut seen = Vec::new();
        let labelling = labelling(folder.path());
        labelling
            .each(|image| {
                seen.push((image.index, image.label, image.full_path.to_owned()));
                Ok(())
            })
            .expect("all is well");
        assert_eq!(seen.len(), 40);
        assert_eq!((seen[9].1, seen[8].1), (0, 0), "the copy of 8 is as 8");
        assert_eq!(seen[7].2, "/data/field 7/IMG_0000007.jpg");
        let path = folder.path().join(BELIEFS);
        let text = std::fs::read_to_string(&path).expect("readable");
        let each = || labelling.each(|_| Ok(())).expect_err("damaged").to_string();
        let short: Vec<&str> = text.lines().take(20).collect();
        std::fs::write(&path, short.join("\n")).expect("writable");
        assert!(each().contains("too few rows"));
        std::fs::write(&path, text.replacen(",0,0.75", ",9,0.75", 1)).expect("writable");
        assert!(each().contains("other classes"));
        let mut lines: Vec<&str> = text.lines().collect();
        lines.swap(1, 2);
        std::fs::write(&path, lines.join("\n")).expect("writable");
        assert!(each().contains("of other images"));
        std::fs::remove_file(&path).expect("there");
        assert!(!labelling.is_ready() && each().contains("missing"));
    }

    #[test]
    fn a_million_images_are_written_in_seconds_and_little_memory() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        run(folder.path(), 1_000_000);
        let labelling = labelling(folder.path());
        for kind in LabelFile::ALL {
            let (begun, path) = (Instant::now(), folder.path().join(kind.name()));
            let mut out = BufWriter::new(std::fs::File::create(&path).expect("writable"));
            labelling
                .write(kind, &mut out)
                .and_then(|()| out.flush().map_err(|source| ExperimentError::Output { source }))
                .expect("all is well");
            let bytes = path.metadata().expect("there").len();
            println!("{}: {:.1} s, {} MB", kind.name(), begun.elapsed().as_secs_f64(), bytes / 1_000_000);
        }
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        println!("{}", status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default());
    }
}
