//! What people wait for on the label page of a project of very many images: its server started for real, asked as a browser
//! asks, by one person and by many at once.

mod client;
mod people;
pub(crate) mod project;
mod thumbnails;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Serialize;
use serde_json::json;

use super::process::program;
use super::{BenchError, median, significant};
use client::{Server, Visitor};
use project::{Size, generate};
pub use thumbnails::ThumbnailSpeed;
use thumbnails::thumbnails;

/// Thumbnails of a large screen.
const SCREEN: usize = 60;
/// Lines a page asks for at once.
const LINES: usize = 200;
/// Connections that a browser opens to one server.
const CONNECTIONS: usize = 6;

/// What to measure.
#[derive(Debug, Clone, PartialEq, clap::Args)]
pub struct PageOptions {
    /// Number of images.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(100..))]
    pub images: u32,
    /// Numbers that describe each image, for `similar`; 0: none are written.
    #[arg(long, default_value_t = 384)]
    pub features: usize,
    /// How often each thing is done.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    pub tries: u32,
    /// People who label at once.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub people: u32,
    /// Times that each of them labels.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub actions: u32,
    /// Empty or missing folder for the project, which stays there; one that holds the project of an earlier measurement is used
    /// again. Without, a temporary one, deleted at the end.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Do not measure how fast thumbnails are made.
    #[arg(long)]
    pub without_thumbnails: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Why the page could not be measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PageError {
    /// The project could not be made.
    #[error(transparent)]
    Project(#[from] crate::project::ProjectError),
    /// Its classes.
    #[error(transparent)]
    Classes(#[from] crate::project::ClassesError),
    /// Its list of images.
    #[error(transparent)]
    Manifest(#[from] crate::data::ManifestError),
    /// Its labels.
    #[error(transparent)]
    Labels(#[from] crate::project::LabelError),
    /// Its runs.
    #[error(transparent)]
    Run(#[from] crate::project::RunError),
    /// Its settings.
    #[error(transparent)]
    Config(#[from] crate::config::ConfigError),
    /// Its thumbnails.
    #[error("a thumbnail cannot be made")]
    Picture(#[from] image::ImageError),
    /// Photographs to measure on cannot be drawn.
    #[error(transparent)]
    Drawing(#[from] Box<BenchError>),
    /// They cannot be scanned.
    #[error(transparent)]
    Data(#[from] crate::data::DataError),
    /// They cannot be decoded.
    #[error(transparent)]
    Load(#[from] crate::data::LoadError),
    /// They have no thumbnail.
    #[error(transparent)]
    Draw(#[from] crate::thumbs::DrawError),
    /// Something cannot be written.
    #[error(transparent)]
    Write(#[from] crate::files::WriteError),
    /// The server could not be started, or its files not be read.
    #[error("cannot start the server (`{path}`)", path = path.display())]
    Server {
        /// The program or file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The server could not be asked.
    #[error("`{address}` cannot be asked")]
    Request {
        /// What was asked.
        address: String,
        /// Why not.
        source: Box<ureq::Error>,
    },
    /// The server gave another answer than it should.
    #[error("`{address}` gave an unexpected answer: {words}")]
    Answer {
        /// What was asked.
        address: String,
        /// What it said.
        words: String,
    },
    /// A thread of ours.
    #[error("a person of the measurement broke down")]
    Panicked,
}

impl PageError {
    fn server(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Server { path, source }
    }

    fn request(address: &str) -> impl FnOnce(ureq::Error) -> Self {
        let address = address.to_owned();
        move |source| Self::Request { address, source: Box::new(source) }
    }
}

/// How long something took, of several times.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Spread {
    /// What was done.
    pub what: String,
    /// How often.
    pub count: usize,
    /// In milliseconds.
    pub median_ms: f64,
    /// 95 of 100 took no longer, in milliseconds.
    pub p95_ms: f64,
    /// In milliseconds.
    pub worst_ms: f64,
    /// What it should stay below, in milliseconds.
    pub limit_ms: Option<f64>,
}

impl Spread {
    fn of(what: &str, mut seconds: Vec<f64>, limit_ms: Option<f64>) -> Self {
        seconds.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let place = (seconds.len() as f64 * share).ceil() as usize;
            seconds.get(place.saturating_sub(1)).copied().unwrap_or(f64::NAN)
        };
        Self {
            what: what.to_owned(),
            count: seconds.len(),
            median_ms: significant(median(&seconds) * 1e3),
            p95_ms: significant(at(0.95) * 1e3),
            worst_ms: significant(at(1.0) * 1e3),
            limit_ms,
        }
    }
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PageReport {
    /// Program and version.
    pub program: String,
    /// Number of images.
    pub images: u32,
    /// Numbers that describe each image.
    pub features: usize,
    /// From starting the server until it can be asked, the project opened, in seconds.
    pub open_seconds: f64,
    /// Everything that was done.
    pub times: Vec<Spread>,
    /// People who labelled at once.
    pub people: u32,
    /// Images that they labelled.
    pub labelled: usize,
    /// Of these, labels that the page shows otherwise than they were said last.
    pub wrong_on_page: usize,
    /// Of these, labels that the database has otherwise, after the server was killed.
    pub wrong_in_store: usize,
    /// Most memory of the server.
    pub peak_mib: Option<u64>,
    /// How thumbnails are made, unless that was left out.
    pub thumbnails: Option<ThumbnailSpeed>,
}

impl PageReport {
    /// Whether nothing was lost or mixed up.
    pub fn kept_everything(&self) -> bool {
        self.wrong_on_page == 0 && self.wrong_in_store == 0
    }
}

impl fmt::Display for PageReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} images, {} features each ({})", self.images, self.features, self.program)?;
        writeln!(
            f,
            "{:<44} {:>6} {:>10} {:>10} {:>10}   limit",
            "milliseconds", "times", "median", "95 %", "worst"
        )?;
        for Spread { what, count, median_ms, p95_ms, worst_ms, limit_ms } in &self.times {
            let limit = limit_ms.map_or(String::new(), |limit| format!("{limit}"));
            writeln!(f, "{what:<44} {count:>6} {median_ms:>10.1} {p95_ms:>10.1} {worst_ms:>10.1}   {limit}")?;
        }
        writeln!(f, "server started and project opened: {:.2} s", self.open_seconds)?;
        let peak = self.peak_mib.map_or("unknown".to_owned(), |peak| format!("{peak} MiB"));
        writeln!(f, "most memory of the server: {peak} (limit 1536 MiB)")?;
        writeln!(
            f,
            "{} people labelled {} images at once: {} wrong on the page, {} wrong in the database after a kill",
            self.people, self.labelled, self.wrong_on_page, self.wrong_in_store
        )?;
        match &self.thumbnails {
            None => Ok(()),
            Some(ThumbnailSpeed { megapixels, whole_ms, reduced_ms, thumbnail_ms, .. }) => writeln!(
                f,
                "a photograph of {megapixels} million pixels, one thread: decoded whole in {whole_ms:.1} ms, reduced in \
                 {reduced_ms:.1} ms; to its thumbnail {thumbnail_ms:.1} ms"
            ),
        }
    }
}

/// Measures with `server`, the program whose `serve` is started; see the [module](self).
///
/// # Errors
/// If the project cannot be made or the server answers otherwise than it should.
pub fn page(options: &PageOptions, server: &Path) -> Result<PageReport, BenchError> {
    let temporary = tempfile::tempdir().map_err(BenchError::Temporary)?;
    let dir = options.dir.clone().unwrap_or_else(|| temporary.path().join("project"));
    if !dir.join(crate::project::FILE).exists() {
        std::fs::create_dir_all(&dir).map_err(crate::files::WriteError::at(&dir))?;
        generate(&dir, Size { images: options.images, features: options.features })?;
    }
    Ok(measure(options, server, &dir, temporary.path())?)
}

fn measure(
    options: &PageOptions,
    program_file: &Path,
    dir: &Path,
    work: &Path,
) -> Result<PageReport, PageError> {
    let dir = dir.canonicalize().map_err(PageError::server(dir))?;
    let server = Server::start(program_file, &dir, work)?;
    let visitor = server.visitor();
    let tries = options.tries as usize;
    let mut times = Vec::new();

    times.push(Spread::of("first grid, of all", vec![timed(|| first_grid(&visitor))?], Some(1000.0)));
    let grids = repeated(tries, |_| timed(|| first_grid(&visitor)))?;
    times.push(Spread::of("first grid, again", grids, Some(1000.0)));

    let all = visitor.get("api/view")?;
    let (view, total) = (token(&all)?, all["total"].as_u64().unwrap_or(0) as usize);
    let jumps = repeated(tries, |turn| {
        // A stride that shares nothing with the number of images leads everywhere.
        let from = (turn + 1) * 7_919 * 101 % total.saturating_sub(SCREEN).max(1);
        timed(|| screen(&visitor, &view, from))
    })?;
    times.push(Spread::of("jump anywhere, with thumbnails", jumps, Some(300.0)));

    for (name, query) in QUERIES {
        if *name == "like one image" && options.features == 0 {
            continue;
        }
        let address = |turn: usize| {
            let image = format!("{}", turn % 7);
            query.replace("{turn}", &image)
        };
        let like = first_hash(&visitor, &view)?;
        let ask = |turn: usize| visitor.get(&format!("api/view?{}", address(turn).replace("{image}", &like)));
        times.push(Spread::of(&format!("{name}, first"), vec![timed(|| ask(0))?], None));
        // Another one of its kind each time: the same one is not made anew.
        let again = repeated(tries.min(7), |turn| timed(|| ask(turn + 1)))?;
        times.push(Spread::of(name, again, None));
    }

    let label = |turn: usize| {
        let from = turn * 31 % total;
        let body = json!({
            "request": format!("alone-{turn}"), "view": view, "from": from, "to": from + 1,
            "label": turn % 8, "how": "page: bench",
        });
        timed(|| visitor.post("api/label", &body))
    };
    times.push(Spread::of("label, on the disk, one person", repeated(4 * tries, label)?, Some(50.0)));

    let (people, actions) = (options.people as usize, options.actions as usize);
    let crowd = people::label_at_once(&visitor, &view, total, people, actions)?;
    let name = format!("label, on the disk, {people} people at once");
    times.push(Spread::of(&name, crowd.seconds.clone(), Some(200.0)));
    let wrong_on_page = crowd.wrong_on_page(&visitor, &view, total)?;
    let after = repeated(tries, |_| timed(|| first_grid(&visitor)))?;
    times.push(Spread::of("first grid, after all that", after, Some(1000.0)));
    let (peak_mib, open_seconds) = (server.peak_mib(), significant(server.seconds_to_open));
    server.kill();
    let thumbnails =
        (!options.without_thumbnails).then(|| thumbnails(&work.join("photographs"))).transpose()?;
    Ok(PageReport {
        program: program(),
        images: options.images,
        features: options.features,
        open_seconds,
        times,
        people: options.people,
        labelled: crowd.images(),
        wrong_on_page,
        wrong_in_store: crowd.wrong_in_store(&dir)?,
        peak_mib,
        thumbnails,
    })
}

/// What people ask for; `{turn}` makes each a new one.
const QUERIES: &[(&str, &str)] = &[
    ("unlabelled first", "order=unlabelled&min=0.0{turn}"),
    ("by class", "order=class&min=0.0{turn}"),
    ("by predicted class", "order=predicted&min=0.0{turn}"),
    ("least sure first", "order=confidence&min=0.0{turn}"),
    ("doubt", "order=doubt&min=0.0{turn}"),
    ("disagreement", "order=disagreement&min=0.0{turn}"),
    ("by cluster", "order=cluster&min=0.0{turn}"),
    ("by folder", "order=folder&min=0.0{turn}"),
    ("newest first", "order=-date&min=0.0{turn}"),
    ("duplicates first", "order=duplicates&min=0.0{turn}"),
    ("one cluster", "cluster={turn}"),
    ("words in the path", "q=IMG_000{turn}"),
    ("a part of the map", "box=-0.5,-0.5,0.{turn},0.5"),
    ("like one image", "order=similar&like={image}&min=0.0{turn}"),
];

/// Everything that a browser asks for until the first screen is full.
fn first_grid(visitor: &Visitor) -> Result<(), PageError> {
    visitor.bytes("label")?;
    visitor.get("api/project")?;
    let view = token(&visitor.get("api/view?order=unlabelled")?)?;
    screen(visitor, &view, 0)
}

/// A screen of the list: its lines, then its thumbnails over several connections.
fn screen(visitor: &Visitor, view: &str, from: usize) -> Result<(), PageError> {
    let rows = visitor.get(&format!("api/rows?view={view}&from={from}&count={LINES}"))?;
    let hashes: Vec<&str> = rows["rows"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|row| row["h"].as_str())
        .take(SCREEN)
        .collect();
    if hashes.is_empty() {
        return Err(PageError::Answer { address: "api/rows".into(), words: rows.to_string() });
    }
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..CONNECTIONS)
            .map(|connection| {
                let (visitor, hashes) = (visitor.clone(), &hashes);
                scope.spawn(move || {
                    hashes.iter().skip(connection).step_by(CONNECTIONS).try_for_each(|hash| {
                        let picture = visitor.bytes(&format!("t/{hash}.jpg"))?;
                        match picture.starts_with(&[0xFF, 0xD8]) {
                            true => Ok(()),
                            false => Err(PageError::Answer {
                                address: format!("t/{hash}.jpg"),
                                words: "no JPEG".into(),
                            }),
                        }
                    })
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap_or(Err(PageError::Panicked)))
    })
}

fn first_hash(visitor: &Visitor, view: &str) -> Result<String, PageError> {
    let rows = visitor.get(&format!("api/rows?view={view}&from=0&count=1"))?;
    Ok(rows["rows"][0]["h"].as_str().unwrap_or_default().to_owned())
}

fn token(view: &serde_json::Value) -> Result<String, PageError> {
    let found = view["view"].as_str().map(str::to_owned);
    found.ok_or_else(|| PageError::Answer { address: "api/view".into(), words: view.to_string() })
}

fn timed<T>(work: impl FnOnce() -> Result<T, PageError>) -> Result<f64, PageError> {
    let begin = Instant::now();
    work()?;
    Ok(begin.elapsed().as_secs_f64())
}

fn repeated(times: usize, work: impl FnMut(usize) -> Result<f64, PageError>) -> Result<Vec<f64>, PageError> {
    (0..times).map(work).collect()
}
