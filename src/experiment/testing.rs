//! A project with a real, tiny training, for tests of what comes after it.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use super::{Dataset, Experiment, Finished, Places, Shown, Team, network_config};
use crate::config::{Override, SourceKind, Sources, resolve};
use crate::data::Manifest;
use crate::demo::leaves::leaf;
use crate::project::{Classes, ImageHash, Label, Project};

/// Classes of the project: their numbers are those of an old project, from which others have gone.
pub(crate) const CLASSES: [(u16, &str); 3] = [(2, "healthy"), (5, "=rust"), (7, "mildew")];
/// Pictures of each class, and how many of them an expert labels.
const PICTURES: usize = 10;
const LABELLED: usize = 6;

/// Settings of a training of seconds.
const SETTINGS: [&str; 9] = [
    "model.name=resnet8",
    "model.image_size=16",
    "training.steps=3",
    "training.batch=3",
    "training.warmup_steps=0",
    "data.evaluation_fraction=0.34",
    "run.device=cpu",
    "data.kind=folder",
    "training.seed=5",
];

/// A project in a folder of its own.
pub(crate) struct World {
    folder: tempfile::TempDir,
    pub project: Project,
}

impl World {
    /// Draws the pictures, one of them twice, and labels some.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let images = folder.path().join("images");
        std::fs::create_dir(&images).expect("writable");
        for class in 0..CLASSES.len() {
            for number in 0..PICTURES {
                let picture = leaf(1, class, number as u64, 24);
                picture.save(images.join(format!("{class}-{number:02}.png"))).expect("writable");
            }
        }
        // Copies: of a labelled picture and of one without a label.
        for (from, to) in [("0-00", "copy-a"), ("1-09", "@copy-b")] {
            let [from, to] = [from, to].map(|name| images.join(format!("{name}.png")));
            std::fs::copy(from, to).expect("writable");
        }
        let names = Classes::categorical(CLASSES.map(|(_, name)| name)).expect("good names");
        let dir = folder.path().join("leaves");
        let project = Project::init(&dir, "Leaves", &images, SourceKind::Folder, &names).expect("writable");
        let mut text = std::fs::read_to_string(project.file()).expect("readable");
        for (place, (id, name)) in CLASSES.iter().enumerate().rev() {
            text = text.replace(&format!("{place} = \"{name}\""), &format!("{id} = \"{name}\""));
        }
        std::fs::write(project.file(), text).expect("writable");
        let world = Self { project: Project::open(&dir).expect("still a project"), folder };
        world.scan();
        let labels: Vec<_> = (0..CLASSES.len())
            .flat_map(|class| (0..LABELLED).map(move |number| (class, number)))
            .map(|(class, number)| {
                let label = Label::Class(CLASSES[class].0);
                (world.hash(&format!("{class}-{number:02}.png")), Some(label))
            })
            .collect();
        world.label(&labels);
        world
    }

    /// Where everything lies.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    pub(crate) fn label(&self, labels: &[(ImageHash, Option<Label>)]) {
        let mut store = self.project.labels().expect("nobody else writes");
        store.append(labels, "ada", "test").expect("good labels");
    }

    /// Content of the image of that name.
    pub(crate) fn hash(&self, path: &str) -> ImageHash {
        let manifest = Manifest::read(&Places::in_project(&self.project).manifest).expect("scanned");
        manifest.images.iter().find(|image| image.path == path).expect("there").hash.0
    }

    fn sources(&self, more: &[&str]) -> Sources {
        let all = SETTINGS.iter().chain(more);
        let overrides = all.map(|setting| Override::parse(setting).expect("well formed")).collect();
        Sources { project: Some(self.project.file()), overrides, ..Sources::default() }
    }

    /// Looks at the images.
    pub(crate) fn scan(&self) {
        let config = resolve(&self.sources(&[])).expect("good settings");
        let places = Places::in_project(&self.project);
        Dataset::scan(&config, &places, None, &Shown::new(true), &AtomicBool::new(false)).expect("pictures");
    }

    /// Trains, with more settings.
    pub(crate) fn train(&self, more: &[&str], baseline: Option<&Finished>) -> Finished {
        let config = resolve(&self.sources(more)).expect("good settings");
        let places = Places::in_project(&self.project);
        let classes = self.project.classes().for_data().expect("good classes");
        let (progress, stop) = (Shown::new(true), AtomicBool::new(false));
        let dataset = Dataset::load(&config, &places, Some(&classes), &progress, &stop).expect("pictures");
        let split = dataset.split(&config, &places).expect("enough labels");
        let experiment = Experiment {
            config: &config,
            algorithm: &config.value.algorithm,
            model: network_config(&config.value.model, dataset.classes.len()).expect("a preset"),
            dataset: &dataset,
            split: &split,
            device: crate::device::by_name("cpu").expect("always there"),
            places: &places,
            baseline,
            team: &Team::alone(),
        };
        experiment.execute(true, &[], &progress, &stop).expect("it trains")
    }
}
