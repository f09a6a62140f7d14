use super::*;
use crate::config::{Sources, resolve};

struct Place {
    _folder: tempfile::TempDir,
    root: PathBuf,
    roots: Roots,
}

fn place() -> Place {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let root = folder.path().canonicalize().expect("it is there").join("root");
    std::fs::create_dir_all(root.join("images/deep")).expect("writable");
    std::fs::write(root.join("file"), "").expect("writable");
    let roots = Roots::new(std::slice::from_ref(&root));
    Place { _folder: folder, root, roots }
}

fn class(name: &str) -> NewClass {
    NewClass { name: name.into(), ..NewClass::default() }
}

fn form(place: &Place) -> NewProject {
    let at = |name: &str| place.root.join(name).to_str().expect("plain").to_owned();
    NewProject {
        images: at("images"),
        folder: at("beets"),
        name: "Beets 2026".into(),
        classes: vec![class("healthy"), class("rust"), class("  ")],
        ..NewProject::default()
    }
}

fn wrong(form: &NewProject, place: &Place) -> Wrong {
    match form.found(&place.roots) {
        Err(WebError::Form { fields }) => fields,
        other => panic!("expected words for fields, got {other:?}"),
    }
}

#[test]
fn a_good_form_makes_a_project_that_holds_what_was_said() {
    let place = place();
    let mut form = form(&place);
    form.classes[1].colour = "#aa3300".into();
    form.classes[1].description = "orange \"spots\" <below>".into();
    form.settings = [("training.epochs", "7"), ("algorithm.name", "fixmatch"), ("data.labels_per_class", "")]
        .map(|(key, text)| (key.to_owned(), text.to_owned()))
        .into();
    let project = form.found(&place.roots).expect("all is well");
    assert_eq!((project.name(), project.dir()), ("Beets 2026", place.root.join("beets").as_path()));
    let opened = Project::open(project.dir()).expect("it opens");
    let rust = opened.classes().named("rust").expect("it is there");
    assert_eq!(
        (rust.colour.to_string().as_str(), rust.description.as_str()),
        ("#aa3300", "orange \"spots\" <below>")
    );
    assert_eq!(opened.classes().len(), 2);
    let config = resolve(&Sources { project: Some(opened.file()), ..Sources::default() })
        .expect("it is a configuration");
    assert_eq!((config.value.training.epochs, config.value.algorithm.name.as_str()), (7, "fixmatch"));
    assert_eq!(config.value.data.root.as_deref(), Some(place.root.join("images").as_path()));
    let text = std::fs::read_to_string(opened.file()).expect("text");
    assert!(text.contains("# Rename classes as you like"), "comments stay: {text}");
}

#[test]
fn each_mistake_is_told_beside_its_field_and_nothing_is_made() {
    let place = place();
    let empty = wrong(&NewProject::default(), &place);
    assert_eq!(empty.keys().collect::<Vec<_>>(), ["classes", "folder", "images", "name"]);
    let mut outside = form(&place);
    outside.images = "/etc".into();
    outside.folder = place.root.join("../elsewhere").to_str().expect("plain").into();
    outside.settings = [("training.lr".to_owned(), "fast".to_owned())].into();
    outside.classes = vec![class("a"), class("a"), NewClass { description: "x".into(), ..class("") }];
    let words = wrong(&outside, &place);
    assert_eq!(
        words.keys().collect::<Vec<_>>(),
        ["classes.1", "classes.2", "folder", "images", "training.lr"]
    );
    let mut within = form(&place);
    within.folder = place.root.join("images/project").to_str().expect("plain").into();
    assert!(wrong(&within, &place)["folder"].contains("within the images"));
    within.folder = place.root.join("file").to_str().expect("plain").into();
    assert!(wrong(&within, &place)["folder"].contains("a file of this name"));
    assert!(!place.root.join("beets").exists());
    form(&place).found(&place.roots).expect("made");
    assert!(wrong(&form(&place), &place)["folder"].contains("already"));
}

#[test]
fn two_classes_or_bins_are_counted() {
    let place = place();
    let mut binary = form(&place);
    binary.kind = ClassKind::Binary;
    binary.classes = vec![class("healthy"), class("")];
    assert!(wrong(&binary, &place).contains_key("classes.1"));
    let mut percentage = form(&place);
    percentage.kind = ClassKind::Percentage;
    percentage.bins = "1".into();
    assert!(wrong(&percentage, &place).contains_key("bins"));
    percentage.bins = " 4 ".into();
    assert_eq!(percentage.found(&place.roots).expect("made").classes().len(), 4);
}
