//! What is taken away from a real run, read back.

use std::io::{Cursor, Read, Write};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::http::{Request, StatusCode, header};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::RowAccessor;
use serde_json::Value;
use tower::ServiceExt;

use crate::demo::leaves::leaf;
use crate::experiment::testing::{CLASSES, World};
use crate::experiment::{BELIEFS, Belief, Beliefs, Finished};
use crate::project::{Label, LabelStore, import_labels};
use crate::web::results::tests::{get, site};

fn name_of(finished: &Finished) -> String {
    finished.folder.file_name().expect("a run").to_string_lossy().into_owned()
}

async fn taken(site: &Router, address: &str) -> Vec<u8> {
    let (status, headers, body) = get(site, address).await;
    assert_eq!(status, StatusCode::OK, "{address}: {}", String::from_utf8_lossy(&body));
    let disposition = headers[header::CONTENT_DISPOSITION].to_str().expect("text");
    assert!(disposition.starts_with("attachment; filename=\""), "{disposition}");
    body
}

#[tokio::test]
async fn experts_win_over_the_model_in_every_file_of_labels() {
    let world = World::new();
    let finished = world.train(&[], None);
    // Since the run: one is corrected, one labelled anew, one shows nothing of it, of one somebody is not sure.
    let (corrected, anew) = (world.hash("0-01.png"), world.hash("1-09.png"));
    let (nothing, unsure) = (world.hash("2-08.png"), world.hash("2-09.png"));
    world.label(&[
        (corrected, Some(Label::Class(7))),
        (anew, Some(Label::Class(5))),
        (nothing, Some(Label::NoneOfThese)),
        (unsure, Some(Label::NotSure)),
    ]);
    let rows = Beliefs::open(&finished.folder.join(BELIEFS)).expect("readable").expect("there");
    let rows: Vec<Belief> = rows.collect::<Result<_, _>>().expect("good rows");
    let labels = LabelStore::read(world.project.dir()).expect("readable");
    let (site, key) = site(&world);
    let run = name_of(&finished);

    let parquet = taken(&site, &format!("/p/{key}/take/{run}/labels.parquet")).await;
    let reader = SerializedFileReader::new(Bytes::from(parquet)).expect("a Parquet file");
    let mut seen = 0;
    for row in reader.get_row_iter(None).expect("rows") {
        let row = row.expect("a row");
        let path = row.get_string(0).expect("text").clone();
        let hash = world.hash(&path);
        let belief = rows.iter().find(|belief| belief.hash.0 == hash).expect("every image has one");
        let (class, id, by) =
            (row.get_string(1).expect("text"), row.get_int(2).ok(), row.get_string(4).expect("text"));
        let named = |id: u16| CLASSES.iter().find(|(other, _)| *other == id).expect("a class").1;
        match labels.get(&hash) {
            Some(Label::Class(label)) => {
                assert_eq!(
                    (class.as_str(), id, by.as_str()),
                    (named(*label), Some(i32::from(*label)), "expert")
                );
                assert!(!row.get_bool(5).expect("a truth"));
            }
            Some(Label::NoneOfThese) => assert_eq!((class.as_str(), id), ("none of these", None)),
            _ => {
                let expected = (named(belief.class), Some(i32::from(belief.class)), "model");
                assert_eq!((class.as_str(), id, by.as_str()), expected, "{path}");
                assert!((row.get_float(3).expect("a number") - belief.confidence).abs() < 1e-6);
            }
        }
        seen += 1;
    }
    assert_eq!(seen, 32, "copies have rows too");

    let csv = taken(&site, &format!("/p/{key}/take/{run}/labels.csv")).await;
    let mut csv = csv::Reader::from_reader(csv.as_slice());
    let cells: Vec<csv::StringRecord> = csv.records().map(|row| row.expect("a row")).collect();
    assert_eq!(cells.len(), 32);
    assert!(cells.iter().flatten().all(|cell| !cell.starts_with(['=', '@', '+', '-'])), "{cells:?}");
    assert!(cells.iter().any(|row| &row[0] == "'@copy-b.png" && &row[1] == "'=rust" && &row[3] == "expert"));

    let lists = taken(&site, &format!("/p/{key}/take/{run}/lists.zip")).await;
    let mut lists = zip::ZipArchive::new(Cursor::new(lists)).expect("an archive");
    let mut lines = 0;
    for place in 0..lists.len() {
        let mut text = String::new();
        lists.by_index(place).expect("there").read_to_string(&mut text).expect("text");
        assert!(text.lines().all(|path| std::path::Path::new(path).is_file()), "full paths: {text}");
        lines += text.lines().count();
    }
    assert_eq!((lists.len(), lines), (4, 32), "three classes and none of these");
    let json = taken(&site, &format!("/p/{key}/take/{run}/classes.json")).await;
    let json: Value = serde_json::from_slice(&json).expect("JSON");
    assert_eq!(json.as_array().map(Vec::len), Some(4));

    // What people said alone goes back in through `harvest label`.
    let people = taken(&site, &format!("/p/{key}/take/labels-by-people.csv")).await;
    assert_eq!(String::from_utf8_lossy(&people).lines().count(), 1 + 18 + 3 + 2, "copies of two");
    drop(site);
    let file = world.path().join("people.csv");
    std::fs::write(&file, people).expect("writable");
    let other = World::new();
    let mut store = other.project.labels().expect("nobody else writes");
    let image = |path: &str| Some(other.hash(path));
    import_labels(&mut store, &file, image, "bob").expect("it reads its own file");
    assert_eq!(store.current().expect("readable"), labels);
}

#[tokio::test]
async fn images_that_came_after_the_run_are_told() {
    for late in [false, true] {
        let world = World::new();
        let finished = world.train(&[], None);
        if late {
            leaf(1, 0, 99, 24).save(world.path().join("images/late.png")).expect("writable");
            world.scan();
        }
        let (site, key) = site(&world);
        let (status, _, body) = get(&site, &format!("/p/{key}/take?run={}", name_of(&finished))).await;
        let text = String::from_utf8(body).expect("text");
        assert_eq!(status, StatusCode::OK, "{text}");
        assert_eq!(text.contains("One image of the project is not among them"), late, "{text}");
    }
}

#[tokio::test]
async fn the_model_goes_as_an_archive_that_loads() {
    let world = World::new();
    let finished = world.train(&[], None);
    let (site, key) = site(&world);
    let run = name_of(&finished);
    for (file, expected) in
        [("model.zip", "model.safetensors"), ("onnx.zip", "model.onnx"), ("onnx.zip", "MODEL_CARD.md")]
    {
        let bytes = taken(&site, &format!("/p/{key}/take/{run}/{file}")).await;
        let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).expect("an archive");
        let folder = tempfile::tempdir().expect("a temporary folder");
        archive.extract(folder.path()).expect("it unpacks");
        assert!(folder.path().join("model").join(expected).is_file(), "{file}: {expected}");
        let bundle =
            crate::inference::Bundle::read(&folder.path().join("model"), &burn::tensor::Device::flex());
        assert!(bundle.is_ok(), "{file}");
    }
    for file in ["report.html", "MODEL_CARD.md", "settings.toml", "metrics.csv"] {
        assert!(!taken(&site, &format!("/p/{key}/take/{run}/{file}")).await.is_empty());
    }
    for bad in
        ["inputs/images.jsonl", "..%2f..%2fproject.db", "project.db", "environment.json", "%2fetc%2fpasswd"]
    {
        let (status, _, _) = get(&site, &format!("/p/{key}/take/{run}/{bad}")).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{bad}");
    }
}

fn form(files: &[(&str, &[u8])]) -> (String, Vec<u8>) {
    let boundary = "a-line-between-files";
    let mut body = Vec::new();
    for (name, bytes) in files {
        write!(
            body,
            "--{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        )
        .expect("memory");
        body.extend_from_slice(bytes);
        body.extend_from_slice(b"\r\n");
    }
    write!(body, "--{boundary}--\r\n").expect("memory");
    (format!("multipart/form-data; boundary={boundary}"), body)
}

async fn predict(site: &Router, key: &str, run: &str, files: &[(&str, &[u8])]) -> (StatusCode, Vec<Value>) {
    let (kind, body) = form(files);
    let request = Request::post(format!("/p/{key}/api/take/{run}/predict"))
        .header(header::CONTENT_TYPE, kind)
        .body(Body::from(body))
        .expect("a good address");
    let answer = site.clone().oneshot(request).await.expect("always an answer");
    let status = answer.status();
    let body = to_bytes(answer.into_body(), usize::MAX).await.expect("whole");
    let lines = body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    (status, lines.map(|line| serde_json::from_slice(line).expect("JSON")).collect())
}

fn png(class: usize, number: u64) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    leaf(1, class, number, 24).write_to(&mut bytes, image::ImageFormat::Png).expect("memory");
    bytes.into_inner()
}

#[tokio::test]
async fn uploads_are_classified_as_the_run_itself_does() {
    let world = World::new();
    let finished = world.train(&[], None);
    let rows = Beliefs::open(&finished.folder.join(BELIEFS)).expect("readable").expect("there");
    let rows: Vec<Belief> = rows.collect::<Result<_, _>>().expect("good rows");
    let (site, key) = site(&world);
    let run = name_of(&finished);
    let pictures: Vec<(String, Vec<u8>)> =
        (0..20).map(|i| (format!("{}-{:02}.png", i % 3, i / 3), png(i % 3, i as u64 / 3))).collect();
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in &pictures[10..] {
        zip.start_file(format!("../{name}"), zip::write::SimpleFileOptions::default()).expect("memory");
        zip.write_all(bytes).expect("memory");
    }
    let zip = zip.finish().expect("memory").into_inner();
    let mut files: Vec<(&str, &[u8])> =
        pictures[..10].iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    files.push(("more.zip", &zip));
    let (status, lines) = predict(&site, &key, &run, &files).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(lines[0]["loading"], true, "{:?}", lines[0]);
    let said: Vec<&Value> = lines.iter().filter(|line| line["name"].is_string()).collect();
    assert_eq!(said.len(), 20);
    for (line, (name, _)) in said.iter().zip(&pictures) {
        assert_eq!(line["name"], name.as_str(), "no way out of anything");
        let hash = world.hash(name);
        let belief = rows.iter().find(|belief| belief.hash.0 == hash).expect("one of the project's own");
        assert_eq!(line["class_id"], belief.class, "{line}");
        let confidence = line["confidence"].as_f64().expect("a number") as f32;
        assert!((confidence - belief.confidence).abs() < 1e-4, "{line} {belief:?}");
        assert!(line["little"].as_str().expect("text").starts_with("data:image/jpeg;base64,"));
    }
    assert_eq!(lines.last().expect("a last line")["done"], 20);
    // The model is there already.
    let (_, lines) = predict(&site, &key, &run, &files[..1]).await;
    assert_eq!(lines.len(), 2, "{lines:?}");
}

#[tokio::test]
async fn what_is_no_picture_is_refused_in_words_and_the_others_are_not() {
    let world = World::new();
    let finished = world.train(&[], None);
    let (site, key) = site(&world);
    let run = name_of(&finished);
    // A header that claims 60,000 × 60,000 pixels.
    let mut huge = png(0, 0);
    huge[16..24].copy_from_slice(&[0, 0, 0xea, 0x60, 0, 0, 0xea, 0x60]);
    let good = png(1, 1);
    let torn = &good[..good.len() / 2];
    let files: [(&str, &[u8]); 5] = [
        ("huge.png", &huge),
        ("page.html", b"<html><script>"),
        ("empty.jpg", b""),
        ("torn.png", torn),
        ("ok.png", &good),
    ];
    let (status, lines) = predict(&site, &key, &run, &files).await;
    assert_eq!(status, StatusCode::OK);
    let errors: Vec<&str> = lines.iter().filter_map(|line| line["error"].as_str()).collect();
    assert_eq!(errors.len(), 4, "{lines:?}");
    assert!(errors[1].contains("not a picture") && errors[2].contains("empty"), "{errors:?}");
    let end = lines.last().expect("a last line");
    assert_eq!((&end["done"], &end["refused"]), (&Value::from(1), &Value::from(4)), "{end}");
    let (status, lines) = predict(&site, &key, &run, &[]).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{lines:?}");
    let (status, _) = predict(&site, &key, "no-such-run", &files).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}
