//! Weights to start from: fetched from a server that does not always behave, taken although something does not fit, and
//! told from others under the same name.

#[path = "support/program.rs"]
mod program;
#[path = "support/server.rs"]
mod server;

use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use burn::tensor::{Device, TensorData};
use harvest::report::Progress;
use harvest::weights::{Checksum, DownloadError, FetchError, Fetched, Limits, Store, Wanted, WeightsError};
use harvest_models::checkpoint::read_weights;
use harvest_models::{ClassifierConfig, NamedTensors, write_safetensors};
use program::{World, fails, succeeds};
use server::{Answer, Server};
use sha2::{Digest, Sha256};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tests/checkpoints").join(name)
}

fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(fixture(name)).expect("a file of the repository")
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A store in a folder of its own.
struct Shelf {
    _folder: tempfile::TempDir,
    store: Store,
}

impl Shelf {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = Store::new(folder.path());
        Self { _folder: folder, store }
    }

    fn fetch(&self, url: &str, checksum: &str, limits: &Limits) -> Result<Fetched, FetchError> {
        let checksum = Checksum::whole(checksum).expect("64 digits");
        let wanted = Wanted { name: "tiny".into(), url: url.to_owned(), checksum, model: None };
        self.store.fetch(&wanted, limits, |_, _| Progress::hidden())
    }

    /// Names of its files, hidden ones too.
    fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.store.folder()).expect("a folder");
        let mut names: Vec<String> = entries
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    fn holds(&self, source: &str) {
        assert_eq!(self.files(), ["tiny.json", "tiny.safetensors"]);
        let kept = read_weights(&self.store.file("tiny")).expect("what was stored");
        assert_eq!(kept.tensors, read_weights(&fixture(source)).expect("its source").tensors);
    }
}

/// In no hurry, but for a test; whatever proxy the machine has.
fn limits() -> Limits {
    let (silence, pause) = (Duration::from_secs(10), Duration::from_millis(1));
    Limits { silence, pause, retries: 2, proxy: false, ..Limits::default() }
}

fn once() -> Limits {
    Limits { retries: 0, ..limits() }
}

#[test]
fn a_good_file_is_kept_and_not_asked_for_again() {
    let (shelf, file) = (Shelf::new(), bytes("training.pth"));
    let server = Server::of(&file, &[Answer::File]);
    let url = server.url("training.pth");
    let Fetched::New(added) = shelf.fetch(&url, &sha256(&file), &limits()).expect("a good file") else {
        panic!("nothing was kept before")
    };
    assert_eq!((added.entry.origin, added.entry.origin_sha256), (url.clone(), Some(sha256(&file))));
    shelf.holds("training.pth");
    assert!(server.asked().starts_with("get /training.pth http/1.1"));
    // The server is gone.
    assert!(matches!(shelf.fetch(&url, &sha256(&file), &limits()), Ok(Fetched::Kept(_))));
    let other = shelf.fetch(&url, &sha256(b"other"), &limits());
    assert!(matches!(other, Err(FetchError::Weights(WeightsError::Taken { .. }))), "{other:?}");
}

#[test]
fn a_wrong_checksum_is_told_and_nothing_stays() {
    let (shelf, file) = (Shelf::new(), bytes("training.pth"));
    let server = Server::of(&file, &[Answer::File]);
    let error = shelf.fetch(&server.url("x"), &sha256(b"other"), &limits()).expect_err("another file");
    assert!(matches!(error, FetchError::Mismatch { .. }), "{error:?}");
    let words = error.to_string();
    for part in [sha256(&file), sha256(b"other"), "removed".into()] {
        assert!(words.contains(&part), "{words}");
    }
    assert!(shelf.files().is_empty());
}

#[test]
fn a_file_that_wants_to_run_something_is_refused_whatever_its_checksum() {
    let (shelf, file) = (Shelf::new(), bytes("hostile.pth"));
    let server = Server::of(&file, &[Answer::File]);
    let error = shelf.fetch(&server.url("x"), &sha256(&file), &limits()).expect_err("hostile");
    let words = format!("{:#}", anyhow::Error::from(error));
    assert!(words.contains("posix.system") && words.contains("removed"), "{words}");
    assert!(shelf.files().is_empty());
}

#[test]
fn what_a_server_answers_is_told() {
    for (status, words) in [
        ("404 Not Found", "no such file"),
        ("403 Forbidden", "refused"),
        ("503 Busy", "later"),
        ("204 Empty", "check the address"),
    ] {
        let shelf = Shelf::new();
        let server = Server::of(b"", &[Answer::Status(status)]);
        let error = shelf.fetch(&server.url("x"), &sha256(b""), &limits()).expect_err("no file").to_string();
        assert!(error.contains(&status[..3]) && error.contains(words), "{error}");
        assert!(shelf.files().is_empty());
    }
}

#[test]
fn a_cut_connection_is_gone_on_with_in_the_same_command() {
    let (shelf, file) = (Shelf::new(), bytes("training.pth"));
    let server = Server::of(&file, &[Answer::Cut(1000), Answer::File]);
    shelf.fetch(&server.url("x"), &sha256(&file), &limits()).expect("at last");
    assert!(!server.asked().contains("range:"));
    assert!(server.asked().contains("range: bytes=1000-"));
    shelf.holds("training.pth");
}

#[test]
fn a_cut_connection_is_gone_on_with_by_the_next_command() {
    let (shelf, file) = (Shelf::new(), bytes("training.pth"));
    let server = Server::of(&file, &[Answer::Cut(1000), Answer::File]);
    let error = shelf.fetch(&server.url("x"), &sha256(&file), &once()).expect_err("cut");
    let FetchError::Download(DownloadError::Cut { received: 1000, .. }) = &error else { panic!("{error:?}") };
    assert!(error.to_string().contains("same command goes on"), "{error}");
    assert_eq!(shelf.files().len(), 1);
    shelf.fetch(&server.url("x"), &sha256(&file), &once()).expect("the rest");
    assert!(!server.asked().contains("range:"));
    assert!(server.asked().contains("range: bytes=1000-"));
    shelf.holds("training.pth");
}

#[test]
fn a_server_that_cannot_send_a_part_sends_all_again() {
    let (shelf, file) = (Shelf::new(), bytes("training.pth"));
    let server = Server::of(&file, &[Answer::Cut(1000), Answer::Whole]);
    shelf.fetch(&server.url("x"), &sha256(&file), &limits()).expect("the whole file");
    shelf.holds("training.pth");
}

#[test]
fn a_file_that_shrank_since_is_fetched_anew() {
    let (shelf, file) = (Shelf::new(), bytes("training.pth"));
    let longer = [&file[..], &[0; 999]].concat();
    let server = Server::of(&longer, &[Answer::Cut(longer.len() - 1)]);
    let port = server.address().to_owned();
    let error = shelf.fetch(&server.url("x"), &sha256(&file), &once()).expect_err("cut");
    assert!(matches!(error, FetchError::Download(DownloadError::Cut { .. })), "{error:?}");
    // The name of what was received is the address's: it goes to that of the next server.
    let next = Server::of(&file, &[Answer::File, Answer::File]);
    let key = |url: &str| format!(".fetching-{}", &blake3::hash(url.as_bytes()).to_hex()[..16]);
    let folder = shelf.store.folder();
    let (from, to) = (key(&format!("http://{port}/x")), key(&next.url("x")));
    std::fs::rename(folder.join(from), folder.join(to)).expect("what was received");
    shelf.fetch(&next.url("x"), &sha256(&file), &once()).expect("from the beginning");
    assert!(next.asked().contains("range:") && !next.asked().contains("range:"));
    shelf.holds("training.pth");
}

#[test]
fn without_a_way_out_it_says_what_to_do() {
    let shelf = Shelf::new();
    let gone = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let url = format!("http://{}/x", gone.expect("an address"));
    let error = shelf.fetch(&url, &sha256(b""), &limits()).expect_err("nobody listens").to_string();
    for words in [&url, "copy it here", "harvest weights add", "HTTPS_PROXY"] {
        assert!(error.contains(words), "{error}");
    }
    assert!(shelf.files().is_empty());
}

#[test]
fn a_silent_server_is_not_waited_for_forever() {
    let shelf = Shelf::new();
    let server = Server::of(b"", &[Answer::Silence(Duration::from_secs(5))]);
    let limits = Limits { silence: Duration::from_millis(200), ..once() };
    let started = std::time::Instant::now();
    let error = shelf.fetch(&server.url("x"), &sha256(b""), &limits).expect_err("no answer");
    assert!(matches!(error, FetchError::Download(DownloadError::Unreachable { .. })), "{error:?}");
    assert!(started.elapsed() < Duration::from_secs(4));
}

#[test]
fn redirects_are_followed_but_not_for_ever() {
    let (shelf, file) = (Shelf::new(), bytes("training.pth"));
    let server = Server::of(&file, &[Answer::Redirect("/there"), Answer::File]);
    shelf.fetch(&server.url("here"), &sha256(&file), &limits()).expect("it is there");
    assert!(server.asked().starts_with("get /here ") && server.asked().starts_with("get /there "));
    shelf.holds("training.pth");
    let circle = Server::of(b"", &vec![Answer::Redirect("/round"); 20]);
    let shelf = Shelf::new();
    let error = shelf.fetch(&circle.url("round"), &sha256(b""), &limits()).expect_err("a circle").to_string();
    assert!(error.contains("check the address"), "{error}");
}

#[test]
fn more_than_the_limit_is_not_taken() {
    let file = bytes("training.pth");
    for answer in [Answer::File, Answer::Unmeasured] {
        let (shelf, server) = (Shelf::new(), Server::of(&file, &[answer]));
        let limits = Limits { size: file.len() as u64 - 1, ..limits() };
        let error = shelf.fetch(&server.url("x"), &sha256(&file), &limits).expect_err("too large");
        assert!(matches!(error, FetchError::Download(DownloadError::TooLarge { .. })), "{error:?}");
        assert!(shelf.files().is_empty());
    }
    let (shelf, server) = (Shelf::new(), Server::of(&file, &[Answer::Unmeasured]));
    shelf.fetch(&server.url("x"), &sha256(&file), &limits()).expect("just enough");
    shelf.holds("training.pth");
}

/// `harvest weights`, with its store in the world's folder.
fn weights(world: &World, proxy: Option<&str>, arguments: &[&str]) -> Output {
    let mut command = assert_cmd::Command::cargo_bin("harvest").expect("the program");
    for name in ["ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"] {
        command.env_remove(name).env_remove(name.to_ascii_lowercase());
    }
    if let Some(proxy) = proxy {
        command.env("HTTP_PROXY", proxy);
    }
    command.env("HARVEST_WEIGHTS", world.path("weights")).args(["weights"]).args(arguments);
    command.output().expect("the program starts")
}

#[test]
fn the_command_fetches_lists_and_says_what_it_needs() {
    let (world, file) = (World::new(), bytes("training.pth"));
    let server = Server::of(&file, &[Answer::File]);
    let (url, sum) = (server.url("training.pth"), sha256(&file));
    fails(&weights(&world, None, &["fetch", "resnet51"]), 2, &["resnet51", "resnet50", "https://"]);
    fails(&weights(&world, None, &["fetch", &url, "--as", "tiny"]), 2, &["--sha256"]);
    fails(&weights(&world, None, &["fetch", &url, "--sha256", &sum]), 2, &["--as"]);
    fails(&weights(&world, None, &["fetch", &url, "--as", "tiny", "--sha256", "12ab"]), 1, &["64"]);
    let ftp = ["fetch", "ftp://host/file", "--as", "tiny", "--sha256", &sum];
    fails(&weights(&world, None, &ftp), 1, &["no address", "https://"]);
    let fetch = ["fetch", &url, "--as", "tiny", "--sha256", &sum];
    let text = succeeds(&weights(&world, None, &fetch));
    assert!(text.contains(&sum) && text.contains("kept in"), "{text}");
    assert!(succeeds(&weights(&world, None, &fetch)).contains("kept already"));
    let list = succeeds(&weights(&world, None, &["list"]));
    assert!(list.contains(&url) && list.contains("resnet50-11ad3fa6.pth"), "{list}");
    fails(&weights(&world, None, &["show", "resnet50"]), 1, &["harvest weights fetch resnet50"]);
    fails(&weights(&world, None, &["show", "nowhere"]), 1, &["harvest weights fetch`", "convnext_tiny"]);
}

#[test]
fn a_proxy_of_the_environment_is_used() {
    let (world, file) = (World::new(), bytes("training.pth"));
    let proxy = Server::of(&file, &[Answer::Tunnel]);
    let sum = sha256(&file);
    let fetch = ["fetch", "http://publisher.invalid/file.pth", "--as", "tiny", "--sha256", &sum];
    succeeds(&weights(&world, Some(&format!("http://{}", proxy.address())), &fetch));
    let asked = proxy.asked();
    assert!(asked.starts_with("connect publisher.invalid:80") && asked.contains("get /file.pth"), "{asked}");
}

fn resnet8(seed: u64) -> NamedTensors {
    let config = ClassifierConfig::preset("resnet8", 2).expect("a preset");
    config.init(seed, &Device::flex()).expect("a valid preset").to_tensors()
}

fn write(path: &Path, tensors: &NamedTensors) {
    write_safetensors(path, tensors, [("format".to_owned(), "pt".to_owned())].into()).expect("a file");
}

#[test]
fn what_is_unexpected_is_an_error_unless_it_is_allowed() {
    let world = World::new();
    let path = world.path("odd.safetensors");
    let mut odd = resnet8(1);
    odd.insert("gate".into(), TensorData::new(vec![1f32], [1]));
    write(&path, &odd);
    let from = ["--dry-run", "--pretrained", "odd.safetensors"];
    let with = |more: &[&str]| world.train(&[&from[..], more].concat());
    fails(&with(&[]), 1, &["`gate`", "--allow-unexpected", "model.allow_unexpected"]);
    let text = succeeds(&with(&["--allow-unexpected"]));
    assert!(text.contains("3 ignored"), "the gate and the classifier: {text}");
    succeeds(&with(&["--set", "model.allow_unexpected=true"]));
    let probe = ["probe", "resnet8", "--pretrained", "odd.safetensors", "--data", "images", "-q"];
    let probe = |more: &[&str]| world.harvest(&[&probe[..], &["--labels-per-class", "4"], more].concat());
    fails(&probe(&[]), 1, &["`gate`", "--allow-unexpected"]);
    succeeds(&probe(&["--allow-unexpected", "--set", "model.image_size=16"]));
    let add = ["add", "odd", path.to_str().expect("text"), "--model", "resnet8"];
    fails(&weights(&world, None, &add), 1, &["`gate`", "--allow-unexpected"]);
    let text = succeeds(&weights(&world, None, &[&add[..], &["--allow-unexpected"]].concat()));
    assert!(text.contains("3 ignored"), "{text}");
}

#[test]
fn other_weights_under_the_same_name_make_another_run() {
    let world = World::new();
    let path = world.path("start.safetensors");
    write(&path, &resnet8(1));
    let runs = || {
        let folders = std::fs::read_dir(world.path("runs")).expect("runs");
        let folders = folders.map(|entry| entry.expect("an entry").path());
        let mut runs: Vec<PathBuf> = folders.filter(|path| path.join("config.toml").exists()).collect();
        runs.sort();
        runs
    };
    let train = || succeeds(&world.train(&["--pretrained", "start.safetensors"]));
    train();
    let first = runs();
    let unfinished = |run: &Path| std::fs::remove_file(run.join("DONE")).expect("the mark of its end");
    unfinished(&first[0]);
    train();
    assert_eq!(runs(), first, "the same weights: the same run goes on");
    unfinished(&first[0]);
    write(&path, &resnet8(2));
    train();
    assert_eq!(runs().len(), 2, "other weights: another run");
    let hash = |run: &Path| std::fs::read_to_string(run.join("inputs/pretrained.blake3")).expect("a hash");
    let found = runs();
    assert_ne!(hash(&found[0]), hash(&found[1]));
    assert!(
        found
            .iter()
            .any(|run| hash(run).trim() == blake3::hash(&std::fs::read(&path).expect("weights")).to_string())
    );
}
