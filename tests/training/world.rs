//! A data set of a few small pictures on disk, and networks that train on it in a moment.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use burn::tensor::Device;
use harvest::algorithms::{
    AlgorithmBuilder, AlgorithmName, Join, JoinedLabels, Objective, Problem, SelfTrainingBuilder,
};
use harvest::config::{AlignmentTarget, Config, OptimizerName, TrainingConfig};
use harvest::data::{
    CacheOptions, ImageCache, ScanOptions, Silent, Source, SourceKind, Split, SplitConfig, scan,
};
use harvest::random::{Purpose, stream};
use harvest::report::{MetricsTable, Progress};
use harvest::training::checkpoint::{Checkpoint, Checkpoints};
use harvest::training::{Crew, Job, Outcome, Setup, TrainError, train};
use harvest_models::ClassifierConfig;
use harvest_models::resnet::{BlockKind, ResNetConfig, Stem};
use harvest_models::vit::{Pooling, VitConfig};
use image::{Rgb, RgbImage};
use rand::RngExt;

/// Side of the training images.
pub const SIZE: usize = 16;
const CLASSES: usize = 3;
const EACH: u64 = 10;

/// Pictures, scanned, split and cached.
pub struct World {
    // Deleted when dropped.
    _folder: tempfile::TempDir,
    cache: ImageCache,
    split: Split,
    labels: Vec<Option<u16>>,
}

/// A network and how to train it.
pub struct Recipe {
    pub config: Config,
    pub model: ClassifierConfig,
    /// Self-training, which a configuration alone cannot build.
    pub taught: SelfTrainingBuilder,
}

pub fn small_vit(classes: usize) -> ClassifierConfig {
    ClassifierConfig::Vit(VitConfig {
        image_size: SIZE,
        patch: 4,
        dim: 24,
        depth: 2,
        heads: 3,
        mlp_ratio: 2.0,
        drop_path: 0.4,
        pooling: Pooling::ClassToken,
        registers: 0,
        layer_scale: None,
        class_position: true,
        classes,
    })
}

pub fn small_resnet(classes: usize) -> ClassifierConfig {
    ClassifierConfig::ResNet(ResNetConfig {
        image_size: SIZE,
        stem: Stem::SmallImage,
        block: BlockKind::Basic,
        blocks: vec![1, 1],
        planes: 8,
        width: 64,
        classes,
    })
}

/// FreeMatch and AdamW on a transformer, with averaged weights.
pub fn vit_recipe() -> Recipe {
    let training = TrainingConfig { lr: 2e-3, ema: 0.9, ..schedule() };
    let config = Config { training, ..Config::default() };
    Recipe { config, model: small_vit(CLASSES), taught: taught() }
}

/// FixMatch and SGD on a residual network, without averaging.
pub fn resnet_recipe() -> Recipe {
    let training = TrainingConfig { lr: 0.05, optimizer: OptimizerName::Sgd, layer_decay: 1.0, ..schedule() };
    let mut config = Config { training, ..Config::default() };
    config.algorithm.name = AlgorithmName::FixMatch;
    config.algorithm.fixmatch.threshold = 0.4;
    Recipe { config, model: small_resnet(CLASSES), taught: taught() }
}

/// With pseudo-labels that lean to one class or another.
fn taught() -> SelfTrainingBuilder {
    let images = 0..CLASSES as u32 * EACH as u32;
    let member = |seed: u32| -> Vec<f32> {
        let rows = images.clone().flat_map(|image| (0..CLASSES as u32).map(move |class| (image, class)));
        rows.map(|(image, class)| if (image / 7 + seed) % 3 == class { 0.8 } else { 0.1 }).collect()
    };
    let members = [member(0), member(1)];
    let joined = JoinedLabels::join(images.collect(), &members, CLASSES, Join::Probabilities);
    SelfTrainingBuilder { config: Default::default(), joined: Arc::new(joined.expect("distributions")) }
}

/// Intervals without a common divisor, so that logging, evaluation and checkpoints meet in all ways.
fn schedule() -> TrainingConfig {
    TrainingConfig {
        steps: Some(11),
        batch: 4,
        unlabelled_ratio: 2,
        warmup_steps: Some(2),
        evaluate_every: 4,
        checkpoint_every: 5,
        log_every: 3,
        seed: 1,
        ..TrainingConfig::default()
    }
}

impl World {
    /// Reads pictures as a user's would be.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let pictures = folder.path().join("pictures");
        write_pictures(&pictures);
        let source = Source::of_kind(SourceKind::ClassFolders, &pictures).expect("folders of classes");
        let go_on = AtomicBool::new(false);
        let manifest = scan(&source, &ScanOptions::default(), &Silent, &go_on).expect("readable pictures");
        assert_eq!((manifest.images.len(), manifest.set_aside.len()), (CLASSES * EACH as usize, 0));
        let config =
            SplitConfig { labels_per_class: Some(5), evaluation_fraction: 0.4, ..SplitConfig::default() };
        let split = Split::new(&manifest, &config).expect("enough labels");
        let (cache, options) = (folder.path().join("cache"), CacheOptions::default());
        let cache = ImageCache::open_or_build(&cache, &manifest, SIZE as u32, &options, &Silent, &go_on);
        let cache = cache.expect("the folder is writable");
        let labels = manifest.images.iter().map(|image| image.label).collect();
        Self { _folder: folder, cache, split, labels }
    }

    pub fn job<'a>(&'a self, recipe: &'a Recipe) -> Job<'a> {
        Job {
            config: &recipe.config,
            algorithm: recipe.algorithm(),
            model: &recipe.model,
            cache: &self.cache,
            labels: &self.labels,
            split: &self.split,
            device: Device::flex(),
            crew: Crew::alone(recipe.config.training.batch as usize),
            come_back: None,
        }
    }

    /// Trains to the end.
    pub fn train(&self, recipe: &Recipe, folder: &Path) -> Result<Outcome, TrainError> {
        train(&self.job(recipe), folder, &AtomicBool::new(false), &Progress::hidden())
    }

    /// Trains one step: the request to stop is there from the start, and is obeyed after a step.
    pub fn train_a_step(&self, recipe: &Recipe, folder: &Path) -> Result<Outcome, TrainError> {
        train(&self.job(recipe), folder, &AtomicBool::new(true), &Progress::hidden())
    }

    /// Trains until `step` steps are done, with a restart after each.
    pub fn train_until(&self, step: u64, recipe: &Recipe, folder: &Path) {
        for done in 1..=step {
            match self.train_a_step(recipe, folder) {
                Err(TrainError::Interrupted { step, .. }) => assert_eq!(step, done),
                Err(error) => panic!("step {done}: {}", chain(&error)),
                Ok(_) => panic!("the run ended after {done} steps"),
            }
        }
    }
}

/// Writes ten pictures of each of three classes, which differ in colour.
pub fn write_pictures(folder: &Path) {
    for class in 0..CLASSES {
        let own = folder.join(format!("class{class}"));
        std::fs::create_dir_all(&own).expect("writable");
        for number in 0..EACH {
            let mut rng = stream(number, Purpose::Demo, [class as u64, 0, 0]);
            let picture = RgbImage::from_fn(20, 18, |_, _| {
                let mut pixel: [u8; 3] = rng.random();
                pixel[class] = 200 + pixel[class] / 5;
                Rgb(pixel)
            });
            picture.save(own.join(format!("{number}.png"))).expect("writable");
        }
    }
}

impl Recipe {
    fn algorithm(&self) -> &dyn AlgorithmBuilder {
        match self.config.algorithm.name {
            AlgorithmName::SelfTraining => &self.taught,
            _ => &self.config.algorithm,
        }
    }

    pub fn setup(&self) -> Setup<'_> {
        Setup {
            model: &self.model,
            algorithm: self.algorithm(),
            training: &self.config.training,
            distribution: self.config.distribution.clone(),
            normalisation: &self.config.views.normalisation,
            problem: Problem {
                classes: CLASSES,
                images: CLASSES * EACH as usize,
                unlabelled: CLASSES * EACH as usize,
                unlabelled_batch: 8,
                labelled_per_class: vec![5; CLASSES],
                total_steps: self.config.training.steps.expect("chosen above").into(),
                seed: self.config.training.seed,
                device: Device::flex(),
            },
            objective: Objective::default(),
            alignment: AlignmentTarget::Off,
        }
    }

    pub fn steps(&self) -> u64 {
        self.setup().problem.total_steps
    }

    /// The newest checkpoint of the run in `folder`.
    pub fn last(&self, folder: &Path) -> Checkpoint {
        let checkpoints = Checkpoints::open(&folder.join("checkpoints")).expect("writable");
        checkpoints.last(&self.setup().kind()).expect("a whole checkpoint").expect("a checkpoint")
    }
}

/// `metrics.csv` but for the speed: every column's steps and values, bit for bit.
pub fn metrics(folder: &Path) -> Vec<(String, Vec<(u64, u64)>)> {
    let table = MetricsTable::read(&folder.join("metrics.csv")).expect("a log");
    let mut columns: Vec<_> = table
        .columns()
        .iter()
        .filter(|name| *name != "images_per_second")
        .map(|name| {
            let points = table.series(name).into_iter().map(|(step, value)| (step as u64, value.to_bits()));
            (name.clone(), points.collect())
        })
        .collect();
    columns.sort();
    columns
}

/// All that two runs must agree in: logs and every tensor of the last checkpoint.
pub fn assert_same_run(recipe: &Recipe, one: &Path, other: &Path) {
    assert_eq!(metrics(one), metrics(other));
    let (one, other) = (recipe.last(one), recipe.last(other));
    assert_eq!((one.progress.step, one.progress.best), (other.progress.step, other.progress.best));
    for (part, one, other) in [
        ("model", &one.model, &other.model),
        ("ema", &one.ema, &other.ema),
        ("optimizer", &one.optimizer, &other.optimizer),
        ("algorithm", &one.algorithm, &other.algorithm),
    ] {
        assert!(one.keys().eq(other.keys()), "{part}");
        for (name, data) in one {
            assert_eq!(data.as_bytes(), other[name].as_bytes(), "{part} {name}");
        }
    }
}

/// An error with its causes, as the program shows it.
pub fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// This test program again, running the test `name` alone, as a command to which limits and variables can be added.
pub fn this_test(name: &str) -> Vec<std::ffi::OsString> {
    let program = std::env::current_exe().expect("a running program has a path");
    vec![program.into(), "--exact".into(), name.into(), "--nocapture".into()]
}

/// Runs a command that must succeed.
pub fn run(command: &mut Command) {
    let output = command.output().expect("the command can be started");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
}
